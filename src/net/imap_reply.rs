//! What an IMAP server's closing words mean (RFC 3501 section 7.1, RFC 5530, and what providers
//! say outside of them).

use std::time::Duration;

/// Status of a completed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyStatus {
    /// Done.
    Ok,
    /// Not done.
    No,
    /// Not understood, or not possible now.
    Bad,
}

/// The reply that completes a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImapReply {
    /// Status.
    pub(crate) status: ReplyStatus,
    /// The response code without brackets; empty for none.
    pub(crate) code: String,
    /// The words.
    pub(crate) text: String,
}

/// A server's request for patience. It is about the account, never about the login or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Throttle {
    /// How long to stay away, where the server says so.
    pub(crate) pause: Option<Duration>,
    /// Whether fewer connections would help.
    pub(crate) connections: bool,
}

impl ImapReply {
    /// Reads what follows the tag, `NO [CODE ..] words`.
    pub(crate) fn parse(rest: &str) -> Option<Self> {
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let status = match word.to_ascii_uppercase().as_str() {
            "OK" => ReplyStatus::Ok,
            "NO" => ReplyStatus::No,
            "BAD" => ReplyStatus::Bad,
            _ => return None,
        };
        let (code, text) = split_code(rest);
        Some(ImapReply { status, code: code.to_owned(), text: text.to_owned() })
    }

    /// Whether it asks for patience.
    pub(crate) fn throttle(&self) -> Option<Throttle> {
        if self.status == ReplyStatus::Ok {
            return None;
        }
        throttle(&self.code, &self.text)
    }

    /// Whether a command is refused because the login that was good has run out, as tokens do.
    ///
    /// Seen: Exchange `AccessTokenExpired` and `Session invalidated`; RFC 5530 has the codes.
    pub(crate) fn tells_of_a_lost_login(&self) -> bool {
        const WORDS: [&str; 4] =
            ["accesstokenexpired", "session invalidated", "session expired", "token expired"];
        let lower = self.text.to_ascii_lowercase();
        self.status != ReplyStatus::Ok
            && (self.has_code("EXPIRED")
                || self.has_code("AUTHENTICATIONFAILED")
                || WORDS.iter().any(|known| lower.contains(known)))
    }

    /// Code and words as they came.
    pub(crate) fn words(&self) -> String {
        let all = if self.code.is_empty() {
            self.text.clone()
        } else {
            format!("[{}] {}", self.code, self.text)
        };
        super::for_people(all.trim())
    }

    /// Whether the response code is `name`.
    pub(crate) fn has_code(&self, name: &str) -> bool {
        let word = self.code.split(' ').next().unwrap_or_default();
        word.eq_ignore_ascii_case(name)
    }
}

/// Splits `[CODE ..] words`.
pub(crate) fn split_code(text: &str) -> (&str, &str) {
    text.strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(("", text), |(code, words)| (code, words.trim_start()))
}

/// Whether these closing or parting words ask for patience.
///
/// Seen: Gmail `[ALERT] Too many simultaneous connections. (Failure)` and `[OVERQUOTA] Account
/// exceeded command or bandwidth limits`, Dovecot `[UNAVAILABLE] Maximum number of connections
/// from user+IP exceeded`, Exchange `User is authenticated but not connected.` and `Request is
/// throttled. Suggested Backoff Time: 299961 milliseconds`.
pub(crate) fn throttle(code: &str, text: &str) -> Option<Throttle> {
    const CODES: [&str; 6] =
        ["UNAVAILABLE", "LIMIT", "INUSE", "OVERQUOTA", "THROTTLED", "SERVERBUG"];
    const WORDS: [&str; 9] = [
        "too many",
        "connections",
        "throttl",
        "backoff time",
        "authenticated but not connected",
        "bandwidth",
        "try again later",
        "temporar",
        "rate limit",
    ];
    let lower = text.to_ascii_lowercase();
    let code = code.split(' ').next().unwrap_or_default();
    let by_code = CODES.iter().any(|known| known.eq_ignore_ascii_case(code));
    let by_words = WORDS.iter().any(|known| lower.contains(known));
    (by_code || by_words).then(|| Throttle {
        pause: suggested_pause(&lower),
        connections: lower.contains("connections") || code.eq_ignore_ascii_case("LIMIT"),
    })
}

fn suggested_pause(lower: &str) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(60 * 60);
    let (_, rest) = lower.split_once("backoff time:")?;
    let rest = rest.trim_start();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let number: u64 = digits.parse().ok()?;
    let unit = rest.trim_start_matches(|sign: char| sign.is_ascii_digit()).trim_start();
    let pause = if unit.starts_with("second") {
        Duration::from_secs(number)
    } else {
        Duration::from_millis(number)
    };
    Some(pause.min(LONGEST))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_ran_out_is_recognised() {
        for (line, lost) in [
            ("NO [EXPIRED] Log in again", true),
            ("NO [AUTHENTICATIONFAILED] Who are you?", true),
            ("BAD Session invalidated - AccessTokenExpired", true),
            ("NO Session expired, please login again.", true),
            ("NO [AUTHORIZATIONFAILED] Not your mailbox", false),
            ("NO [EXPUNGEISSUED] Some are gone", false),
            ("BAD User is authenticated but not connected.", false),
            ("OK [EXPIRED] never", false),
        ] {
            assert_eq!(ImapReply::parse(line).unwrap().tells_of_a_lost_login(), lost, "{line}");
        }
    }

    #[test]
    fn provider_replies_are_recognised() {
        let some = |pause: Option<u64>, connections| {
            Some(Throttle { pause: pause.map(Duration::from_millis), connections })
        };
        let cases: [(&str, Option<Throttle>); 11] = [
            ("NO [ALERT] Too many simultaneous connections. (Failure)", some(None, true)),
            ("NO [OVERQUOTA] Account exceeded command or bandwidth limits", some(None, false)),
            (
                "NO [UNAVAILABLE] Maximum number of connections from user+IP exceeded \
                 (mail_max_userip_connections=10)",
                some(None, true),
            ),
            ("BAD User is authenticated but not connected.", some(None, false)),
            (
                "BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds",
                some(Some(299_961), false),
            ),
            ("NO [UNAVAILABLE] UID FETCH Server error while fetching messages", some(None, false)),
            ("NO [AUTHENTICATIONFAILED] Authentication failed.", None),
            ("NO Invalid credentials (Failure)", None),
            ("NO [ALERT] Please log in via your web browser", None),
            ("BAD Command Argument Error. 12", None),
            ("OK [UNAVAILABLE] but done", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(ImapReply::parse(line).unwrap().throttle(), wanted, "{line}");
        }
    }

    #[test]
    fn replies_are_taken_apart() {
        let reply = ImapReply::parse("ok [CAPABILITY IMAP4rev1 IDLE] in").unwrap();
        assert_eq!(reply.status, ReplyStatus::Ok);
        assert_eq!(reply.code, "CAPABILITY IMAP4rev1 IDLE");
        assert_eq!(reply.text, "in");
        assert!(reply.has_code("capability"));
        assert_eq!(ImapReply::parse("NO").unwrap().words(), "");
        assert_eq!(ImapReply::parse("PREAUTH hello"), None);
        let long = ImapReply::parse("BAD Suggested Backoff Time: 999999999999999 seconds");
        assert_eq!(long.unwrap().throttle().unwrap().pause, Some(Duration::from_secs(3600)));
    }
}
