//! The envelope of a transaction: MAIL and RCPT with their parameters, without I/O.

use std::borrow::Cow;

use smtp_proto::{
    MAIL_BODY_BINARYMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MailFrom, RCPT_NOTIFY_DELAY,
    RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS, RcptTo,
};

use super::reply::{Reply, bad_sequence, syntax};
use super::settings::ListenSettings;
use crate::mapi::{DsnRecipient, DsnRequest, DsnReturned, DsnWish, SysTime};
use crate::mime::address;
use crate::session::RawEnvelope;

/// What a client has said of the message it is about to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    from: String,
    recipients: Vec<String>,
    deferred_send_time: Option<SysTime>,
    dsn: DsnRequest,
}

impl Envelope {
    /// MAIL (RFC 5321 section 4.1.1.2) with SIZE, BODY, SMTPUTF8, AUTH, HOLDFOR, HOLDUNTIL, RET
    /// and ENVID.
    pub(super) fn mail(
        from: &MailFrom<String>,
        settings: &ListenSettings,
        now: SysTime,
    ) -> Result<Self, Reply> {
        if !from.address.is_empty() {
            check("sender", &from.address, "5.1.7")?;
        }
        if from.size as u64 > settings.size {
            let words = format!("messages may have {} octets, not {}", settings.size, from.size);
            return Err(Reply::new(552, "5.3.4", words));
        }
        if from.flags & MAIL_BODY_BINARYMIME != 0 {
            return Err(Reply::new(555, "5.5.4", "BINARYMIME is not offered"));
        }
        let deferred_send_time = release_time(from, settings, now)?;
        let returned = match (from.flags & MAIL_RET_FULL != 0, from.flags & MAIL_RET_HDRS != 0) {
            (false, false) => None,
            (true, false) => Some(DsnReturned::Full),
            (false, true) => Some(DsnReturned::Headers),
            (true, true) => return Err(syntax("RET is FULL or HDRS")),
        };
        let envelope_id = from.env_id.as_deref().map(|id| printable("ENVID", id)).transpose()?;
        let dsn = DsnRequest { envelope_id, returned, ..DsnRequest::default() };
        let recipients = Vec::new();
        Ok(Envelope { from: from.address.clone(), recipients, deferred_send_time, dsn })
    }

    /// RCPT (RFC 5321 section 4.1.1.3) with NOTIFY and ORCPT. One address given twice is one
    /// recipient.
    pub(super) fn rcpt(
        &mut self,
        to: &RcptTo<String>,
        settings: &ListenSettings,
    ) -> Result<(), Reply> {
        if self.recipients.len() >= settings.recipients {
            let words = format!("a message may have {} recipients", settings.recipients);
            return Err(Reply::new(452, "4.5.3", words));
        }
        check("recipient", &to.address, "5.1.3")?;
        let original = to.orcpt.as_deref().map(|to| printable("ORCPT", to)).transpose()?;
        let notify = wish(to.flags)?;
        self.dsn.recipients.push(DsnRecipient { notify, original });
        self.recipients.push(to.address.clone());
        Ok(())
    }

    /// Whether content may follow.
    pub(super) fn complete(&self) -> Result<(), Reply> {
        match self.recipients.is_empty() {
            true => Err(Reply::new(554, "5.5.1", "no valid recipients")),
            false => Ok(()),
        }
    }

    /// The submission this becomes.
    pub(super) fn submission(self) -> RawEnvelope {
        RawEnvelope {
            from: Some(self.from),
            recipients: self.recipients,
            deferred_send_time: self.deferred_send_time,
            dsn: self.dsn,
            ..RawEnvelope::default()
        }
    }
}

/// A command whose path is a bare name (`RCPT TO:<root>`) with the domain that means this machine:
/// the parser wants one in each address. RFC 5321 section 4.5.1 demands it for `postmaster`; other
/// names are those of this machine's users.
pub(super) fn qualified(line: &[u8]) -> Cow<'_, [u8]> {
    let begins =
        |verb: &[u8]| line.get(..verb.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(verb));
    let verb = [&b"RCPT TO:"[..], b"MAIL FROM:"].into_iter().find(|verb| begins(verb));
    let behind = verb.and_then(|verb| line.get(verb.len()..)).map(<[u8]>::trim_ascii_start);
    let Some(path) = behind.and_then(|path| path.strip_prefix(b"<")) else {
        return Cow::Borrowed(line);
    };
    let Some(length) = memchr::memchr(b'>', path) else { return Cow::Borrowed(line) };
    let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"._+-".contains(octet);
    let name = path.get(..length).unwrap_or_default();
    if name.is_empty() || !name.iter().all(is_plain) {
        return Cow::Borrowed(line);
    }
    let end = line.len() - path.len() + length;
    let (head, tail) = line.split_at_checked(end).unwrap_or((line, b""));
    Cow::Owned([head, b"@localhost", tail].concat())
}

/// The answer to content or RCPT without MAIL.
pub(super) fn mail_first() -> Reply {
    bad_sequence("MAIL comes first")
}

/// HOLDFOR and HOLDUNTIL (RFC 4865 section 4): one of them, and not too far away.
fn release_time(
    from: &MailFrom<String>,
    settings: &ListenSettings,
    now: SysTime,
) -> Result<Option<SysTime>, Reply> {
    let until = match (from.hold_for, from.hold_until) {
        (0, 0) => return Ok(None),
        (seconds, 0) => now.saturating_add(std::time::Duration::from_secs(seconds)),
        (0, seconds) => SysTime::from_millis(seconds.saturating_mul(1000)),
        _ => return Err(syntax("HOLDFOR and HOLDUNTIL exclude each other")),
    };
    if until.saturating_since(now) > settings.future_release {
        return Err(syntax("that is too far in the future"));
    }
    Ok(Some(until))
}

/// NOTIFY (RFC 3461 section 4.1): NEVER stands alone.
fn wish(flags: u64) -> Result<Option<DsnWish>, Reply> {
    let has = |flag: u64| flags & flag != 0;
    let wish = DsnWish {
        success: has(RCPT_NOTIFY_SUCCESS),
        failure: has(RCPT_NOTIFY_FAILURE),
        delay: has(RCPT_NOTIFY_DELAY),
    };
    match (has(RCPT_NOTIFY_NEVER), wish == DsnWish::default()) {
        (true, false) => Err(syntax("NOTIFY=NEVER excludes the others")),
        (false, true) => Ok(None),
        _ => Ok(Some(wish)),
    }
}

/// What was xtext (RFC 3461 section 4): printable US-ASCII.
fn printable(what: &str, text: &str) -> Result<String, Reply> {
    match text.chars().all(|c| matches!(c, ' '..='~')) {
        true => Ok(text.to_owned()),
        false => Err(syntax(format!("{what} must be printable US-ASCII"))),
    }
}

fn check(what: &str, address: &str, enhanced: &'static str) -> Result<(), Reply> {
    // A bare local name gets the domain of the identity; see `Store::submit_raw`.
    if !address.contains('@') && !address.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Ok(());
    }
    address::check(what, address).map_err(|error| Reply::new(553, enhanced, error.to_string()))
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use smtp_proto::Request;

    use super::*;

    const NOW: SysTime = SysTime::from_millis(1_700_000_000_000);

    fn mail(line: &str) -> Result<Envelope, u16> {
        let settings = ListenSettings { size: 1000, ..ListenSettings::default() };
        let line = format!("{line}\r\n");
        match Request::parse(&mut line.as_bytes().iter()).unwrap().into_owned() {
            Request::Mail { from } => {
                Envelope::mail(&from, &settings, NOW).map_err(|reply| reply.code())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parameters_of_mail_are_heeded() {
        assert_eq!(mail("MAIL FROM:<>").unwrap().from, "");
        assert_eq!(mail("MAIL FROM:<ann@example.org> SIZE=1000").unwrap().from, "ann@example.org");
        assert_eq!(mail("MAIL FROM:<ann@example.org> SIZE=1001"), Err(552));
        assert!(mail("MAIL FROM:<ann@example.org> BODY=8BITMIME SMTPUTF8").is_ok());
        assert_eq!(mail("MAIL FROM:<ann@example.org> BODY=BINARYMIME"), Err(555));
    }

    #[test]
    fn wishes_for_reports_are_kept_and_contradictions_refused() {
        let asked = mail("MAIL FROM:<a@b.example> RET=FULL ENVID=QQ+2B1").unwrap().dsn;
        assert_eq!(asked.returned, Some(DsnReturned::Full));
        assert_eq!(asked.envelope_id.as_deref(), Some("QQ+1"));
        assert_eq!(mail("MAIL FROM:<a@b.example> ENVID=a+0D+0Ab"), Err(501));
        let rcpt = |parameters: &str| {
            let line = format!("RCPT TO:<b@c.example>{parameters}\r\n");
            let mut envelope = Envelope::default();
            match Request::parse(&mut line.as_bytes().iter()).unwrap().into_owned() {
                Request::Rcpt { to } => envelope
                    .rcpt(&to, &ListenSettings::default())
                    .map(|()| envelope.dsn.recipients.pop().unwrap())
                    .map_err(|reply| reply.code()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(rcpt(""), Ok(DsnRecipient::default()));
        let notify = Some(DsnWish { success: true, delay: true, failure: false });
        let original = Some("B b@c.example".to_owned());
        let asked = rcpt(" NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+20b@c.example");
        assert_eq!(asked, Ok(DsnRecipient { notify, original }));
        let never = DsnRecipient { notify: Some(DsnWish::default()), original: None };
        assert_eq!(rcpt(" NOTIFY=NEVER"), Ok(never));
        assert_eq!(rcpt(" NOTIFY=NEVER,SUCCESS"), Err(501));
        assert_eq!(rcpt(" ORCPT=rfc822;a+0Ab"), Err(501));
    }

    #[test]
    fn a_release_time_is_one_and_not_too_far_away() {
        let held = mail("MAIL FROM:<a@b.example> HOLDFOR=60").unwrap().deferred_send_time;
        assert_eq!(held, Some(NOW.saturating_add(std::time::Duration::from_secs(60))));
        let until = mail("MAIL FROM:<a@b.example> HOLDUNTIL=2023-11-15T00:00:00Z").unwrap();
        assert_eq!(until.deferred_send_time.unwrap().to_string(), "2023-11-15T00:00:00Z");
        assert_eq!(mail("MAIL FROM:<a@b.example> HOLDUNTIL=2063-11-15T00:00:00Z"), Err(501));
        let both = "MAIL FROM:<a@b.example> HOLDFOR=60 HOLDUNTIL=2023-11-15T00:00:00Z";
        assert_eq!(mail(both), Err(501));
    }

    #[test]
    fn bare_names_are_names_of_this_machine() {
        for (line, wanted) in [
            ("RCPT TO:<root>\r\n", "RCPT TO:<root@localhost>\r\n"),
            (
                "rcpt to: <Post.Master> NOTIFY=NEVER\r\n",
                "rcpt to: <Post.Master@localhost> NOTIFY=NEVER\r\n",
            ),
            ("MAIL FROM:<www-data> SIZE=3\r\n", "MAIL FROM:<www-data@localhost> SIZE=3\r\n"),
        ] {
            assert_eq!(*qualified(line.as_bytes()), *wanted.as_bytes());
        }
        for line in [
            "MAIL FROM:<>\r\n",
            "RCPT TO:<a@b>\r\n",
            "RCPT TO:<@a:b>\r\n",
            "RCPT TO:<\"a b\">\r\n",
            "RCPT TO:<a b>\r\n",
            "RCPT TO:root\r\n",
            "RCPT TO:<root\r\n",
            "NOOP <root>\r\n",
            "",
        ] {
            assert_eq!(*qualified(line.as_bytes()), *line.as_bytes());
        }
    }

    #[test]
    fn recipients_are_counted_and_checked() {
        let settings = ListenSettings { recipients: 2, ..ListenSettings::default() };
        let mut envelope = mail("MAIL FROM:<a@b.example>").unwrap();
        assert!(envelope.complete().is_err());
        let mut rcpt = |address: &str| {
            let to = RcptTo { address: address.to_owned(), orcpt: None, rrvs: 0, flags: 0 };
            envelope.rcpt(&to, &settings).map_err(|reply| reply.code())
        };
        assert_eq!(rcpt("b@"), Err(553));
        assert_eq!(rcpt("b@c.example"), Ok(()));
        assert_eq!(rcpt("root"), Ok(()));
        assert_eq!(rcpt("d@c.example"), Err(452));
        envelope.complete().unwrap();
        assert_eq!(envelope.submission().recipients, ["b@c.example", "root"]);
    }
}
