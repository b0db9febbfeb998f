//! From recipient table and properties to the envelope (RFC 5321 section 2.3.1).

use crate::mapi::{
    EntryId, MapiCode, MapiResult, PropList, Recipient, RecipientType, SysTime, tags,
};
use crate::mime;
use crate::spool::{
    BodyKind, DsnNotify, DsnReturn, Envelope, QueueRecipient, RecipientState, Reporter,
};
use crate::transport::Identity;
use crate::transport::outbound::reply::own_reply;

/// The address type we take (AT-2).
const SMTP: &str = "SMTP";

/// An envelope whose text is not known yet.
pub(super) struct Addressed {
    pub(super) envelope: Envelope,
    /// Whether an address needs SMTPUTF8.
    pub(super) smtputf8: bool,
}

impl Addressed {
    /// Takes the recipients that are ours (OB-3). An address that cannot be one fails its
    /// recipient at once.
    ///
    /// # Errors
    /// `MAPI_E_NOT_ME` when there are none; `MAPI_E_INVALID_PARAMETER` for a sender that is no
    /// address.
    pub(super) fn new(
        entry: &EntryId,
        props: &PropList,
        recipients: &[Recipient],
        identity: &Identity,
        now: SysTime,
    ) -> MapiResult<Self> {
        let rows: Vec<QueueRecipient> = recipients
            .iter()
            .filter(|row| {
                row.is_type(SMTP) && !row.responsibility && row.kind != RecipientType::Orig
            })
            .map(|row| recipient(row, props, now))
            .collect();
        if rows.is_empty() {
            return Err(MapiCode::NOT_ME.into());
        }
        let from = sender(props, identity).to_owned();
        if !from.is_empty() {
            mime::address::check("sender", &from)?;
        }
        let reports = rows.iter().any(|row| row.notify.is_some_and(|notify| notify.success));
        let smtputf8 = !from.is_ascii() || rows.iter().any(|row| !row.address.is_ascii());
        let envelope = Envelope {
            from,
            recipients: rows,
            body: BodyKind::SevenBit,
            smtputf8,
            envid: props.text(tags::ENVELOPE_ID).map_or_else(|| entry.to_string(), str::to_owned),
            ret: match props.text(tags::ENVELOPE_RETURN) {
                Some("FULL") => Some(DsnReturn::Full),
                Some(_) => Some(DsnReturn::Headers),
                None => reports.then_some(DsnReturn::Headers),
            },
        };
        Ok(Addressed { envelope, smtputf8 })
    }
}

/// The reverse-path: what the message says, else the sender, else the account.
fn sender<'a>(props: &'a PropList, identity: &'a Identity) -> &'a str {
    props
        .text(tags::ENVELOPE_SENDER)
        .or_else(|| props.text(tags::SENDER_EMAIL_ADDRESS))
        .unwrap_or(&identity.address)
}

fn recipient(row: &Recipient, props: &PropList, now: SysTime) -> QueueRecipient {
    let state = match mime::address::check("recipient", &row.address) {
        Ok(()) => RecipientState::Pending,
        Err(error) => RecipientState::Failed {
            at: now,
            reply: own_reply("5.1.3", &error.to_string()),
            attempt: 0,
        },
    };
    let (delivery, failure) = (row.wants_delivery_report(props), row.wants_failure_report(props));
    // Who follows his message that closely wants to hear of a delay as well; who wants no report of
    // a failure wants none of that (RFC 3461 section 4.1).
    let asked = row.props.boolean(tags::DELAY_REPORT_REQUESTED);
    let delay = asked.unwrap_or(delivery && failure);
    let by = Reporter::Ourselves;
    let notify = (asked.is_some() || delivery || !failure).then_some(DsnNotify {
        success: delivery,
        failure,
        delay,
        by,
    });
    let original = row.props.text(tags::ORIGINAL_RECIPIENT).map(str::to_owned);
    QueueRecipient { row: row.row, address: row.address.clone(), state, notify, original }
}

/// OB-13: the sender and the time we took it, where the message does not say.
pub(super) fn stamp(props: &mut PropList, identity: &Identity, now: SysTime) {
    if props.text(tags::SENDER_EMAIL_ADDRESS).is_none() {
        props.set(tags::SENDER_EMAIL_ADDRESS, identity.address.as_str());
        props.set(tags::SENDER_ADDRTYPE, SMTP);
        if !identity.name.is_empty() {
            props.set(tags::SENDER_NAME, identity.name.as_str());
        }
    }
    if props.text(tags::SENT_REPRESENTING_EMAIL_ADDRESS).is_none()
        && let Some(address) = props.text(tags::SENDER_EMAIL_ADDRESS).map(str::to_owned)
    {
        props.set(tags::SENT_REPRESENTING_EMAIL_ADDRESS, address);
        if let Some(name) = props.text(tags::SENDER_NAME).map(str::to_owned) {
            props.set(tags::SENT_REPRESENTING_NAME, name);
        }
    }
    props.set(tags::PROVIDER_SUBMIT_TIME, now);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const NOW: SysTime = SysTime::from_millis(1_700_000_000_000);

    fn identity() -> Identity {
        Identity { name: "Ann".to_owned(), address: "ann@example.org".to_owned() }
    }

    fn addressed(props: &PropList, recipients: &[Recipient]) -> MapiResult<Addressed> {
        let entry = EntryId::from_bytes(&[7]).unwrap();
        Addressed::new(&entry, props, recipients, &identity(), NOW)
    }

    fn to(row: u32, address: &str) -> Recipient {
        Recipient::smtp(row, RecipientType::To, address)
    }

    /// Proves: OB-3
    #[test]
    fn only_our_recipients_are_taken() {
        let mut fax = to(1, "555");
        fax.addr_type = "FAX".to_owned();
        let mut sent = to(2, "sent@x.org");
        sent.responsibility = true;
        let mut lower = to(3, "bob@x.org");
        lower.addr_type = "smtp".to_owned();
        let mut p1 = Recipient::smtp(5, RecipientType::Bcc, "p1@x.org");
        p1.p1 = true;
        let orig = Recipient::smtp(4, RecipientType::Orig, "ann@example.org");
        let rows = [fax.clone(), sent.clone(), lower, orig, p1];
        let envelope = addressed(&PropList::new(), &rows).unwrap().envelope;
        let taken: Vec<u32> = envelope.recipients.iter().map(|row| row.row).collect();
        assert_eq!(taken, [3, 5]);
        assert_eq!(envelope.from, "ann@example.org");
        let error = addressed(&PropList::new(), &[fax, sent]).err().unwrap();
        assert_eq!(error.code(), MapiCode::NOT_ME);
    }

    #[test]
    fn a_bad_address_fails_its_recipient_alone() {
        let rows = [to(0, "bob@x.org"), to(1, "bob\r\nRCPT TO:<eve@x.org>"), to(2, "nobody")];
        let envelope = addressed(&PropList::new(), &rows).unwrap().envelope;
        assert_eq!(envelope.recipients[0].state, RecipientState::Pending);
        for row in &envelope.recipients[1..] {
            assert!(matches!(&row.state, RecipientState::Failed { reply, .. }
                if reply.enhanced == "5.1.3"));
        }
        let evil = PropList::new().with(tags::SENDER_EMAIL_ADDRESS, "a@x.org>\r\nDATA");
        let error = addressed(&evil, &rows).err().unwrap();
        assert_eq!(error.code(), MapiCode::INVALID_PARAMETER);
    }

    /// Proves: OB-13
    #[test]
    fn the_reverse_path_is_the_most_particular_one() {
        let rows = [to(0, "bob@x.org")];
        let mut props = PropList::new().with(tags::SENDER_EMAIL_ADDRESS, "ann@alias.org");
        assert_eq!(addressed(&props, &rows).unwrap().envelope.from, "ann@alias.org");
        props.set(tags::ENVELOPE_SENDER, "");
        assert_eq!(addressed(&props, &rows).unwrap().envelope.from, "");
    }

    #[test]
    fn wishes_for_reports_become_notify() {
        let mut silent = to(0, "a@x.org");
        silent.props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, false);
        let mut curious = to(1, "b@x.org");
        curious.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
        let mut glad = to(3, "d@x.org");
        glad.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
        glad.props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, false);
        let rows = [silent, curious, to(2, "c@x.org"), glad];
        let envelope = addressed(&PropList::new(), &rows).unwrap().envelope;
        let notify = |success, failure, delay| {
            Some(DsnNotify { success, failure, delay, by: Reporter::Ourselves })
        };
        let wishes: Vec<_> = envelope.recipients.iter().map(|row| row.notify).collect();
        let expected = [
            notify(false, false, false),
            notify(true, true, true),
            None,
            notify(true, false, false),
        ];
        assert_eq!(wishes, expected);
        assert_eq!(envelope.ret, Some(DsnReturn::Headers));
    }

    #[test]
    fn what_an_envelope_asked_for_is_kept_as_it_came() {
        let mut row = to(0, "a@x.org");
        row.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
        row.props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, true);
        row.props.set(tags::DELAY_REPORT_REQUESTED, false);
        row.props.set(tags::ORIGINAL_RECIPIENT, "first@x.org");
        let props =
            PropList::new().with(tags::ENVELOPE_ID, "theirs").with(tags::ENVELOPE_RETURN, "FULL");
        let envelope = addressed(&props, &[row]).unwrap().envelope;
        assert_eq!((envelope.envid.as_str(), envelope.ret), ("theirs", Some(DsnReturn::Full)));
        let recipient = &envelope.recipients[0];
        let by = Reporter::Ourselves;
        let asked = DsnNotify { success: true, failure: true, delay: false, by };
        assert_eq!(recipient.notify, Some(asked));
        assert_eq!(recipient.original.as_deref(), Some("first@x.org"));
    }

    /// Proves: OB-13
    #[test]
    fn stamps_fill_what_is_missing_only() {
        let mut props = PropList::new();
        stamp(&mut props, &identity(), NOW);
        assert_eq!(props.text(tags::SENDER_EMAIL_ADDRESS), Some("ann@example.org"));
        assert_eq!(props.text(tags::SENT_REPRESENTING_NAME), Some("Ann"));
        assert_eq!(props.time(tags::PROVIDER_SUBMIT_TIME), Some(NOW));
        let mut own = PropList::new()
            .with(tags::SENDER_EMAIL_ADDRESS, "sec@x.org")
            .with(tags::SENT_REPRESENTING_EMAIL_ADDRESS, "boss@x.org");
        stamp(&mut own, &identity(), NOW);
        assert_eq!(own.text(tags::SENDER_EMAIL_ADDRESS), Some("sec@x.org"));
        assert_eq!(own.text(tags::SENT_REPRESENTING_EMAIL_ADDRESS), Some("boss@x.org"));
        assert_eq!(own.text(tags::SENDER_NAME), None);
    }
}
