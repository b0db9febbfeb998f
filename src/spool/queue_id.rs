//! The name by which a server knows a message, out of its reply to the final dot.
//!
//! RFC 5321 leaves the words to the server; these are the ways in which the common ones say it.

use super::Reply;

/// The longest id that is believed, in characters.
const LONGEST: usize = 128;

impl Reply {
    /// The id under which the server that gave this reply has the message, where it names one: what
    /// its log is to be searched for. It is the server's own text.
    pub fn queue_id(&self) -> Option<&str> {
        if !(200..300).contains(&self.code) {
            return None;
        }
        queue_id(&self.text)
    }
}

fn queue_id(text: &str) -> Option<&str> {
    behind(text, "queued as ")
        .or_else(|| behind(text, "queued mail for delivery as "))
        .or_else(|| behind(text, "accepted as "))
        .or_else(|| behind(text, "internalid="))
        .or_else(|| behind(text, "queue-id="))
        .or_else(|| behind(text, "queueid="))
        .or_else(|| behind(text, " id="))
        .or_else(|| before(text, " message accepted"))
        .or_else(|| google(text))
        .or_else(|| parenthesis(text))
        .or_else(|| behind(text, " qp "))
        .or_else(|| lone_word(text))
}

/// The word behind `marker`, whose case does not matter.
fn behind<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let at = find(text, marker)?;
    id(text.get(at + marker.len()..)?.split_whitespace().next()?)
}

/// The word before `marker`: "4F3A21 Message accepted for delivery".
fn before<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let at = find(text, marker)?;
    id(text.get(..at)?.split_whitespace().next_back()?).filter(|word| has_digit(word))
}

/// "OK  1690000000 d2e1a72fcca58-686b1d0c 123 - gsmtp".
fn google(text: &str) -> Option<&str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [.., time, word, "-", "gsmtp"] if time.bytes().all(|b| b.is_ascii_digit()) => id(word),
        _ => None,
    }
}

/// "Message Queued (5E7A...)".
fn parenthesis(text: &str) -> Option<&str> {
    find(text, "queued")?;
    let (_, rest) = text.rsplit_once('(')?;
    id(rest.split_once(')')?.0).filter(|word| has_digit(word) && word.len() > 7)
}

/// "Ok 0102018a2f3c4d5e-6f7a": one word and nothing else, long and with digits.
fn lone_word(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace();
    let (Some(ok), Some(word), None) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    let is_ok = ok.trim_end_matches([':', ',']).eq_ignore_ascii_case("ok");
    id(word).filter(|word| is_ok && word.len() >= 12 && has_digit(word))
}

fn find(text: &str, marker: &str) -> Option<usize> {
    // ASCII alone is folded, so that places stay the same.
    text.to_ascii_lowercase().find(marker)
}

/// What can be an id: visible ASCII without what encloses it.
fn id(word: &str) -> Option<&str> {
    let closed = |sign: char| matches!(sign, ',' | '.' | ';' | ')' | ']' | '>' | '"' | '\'');
    let opened = |sign: char| matches!(sign, '(' | '[' | '<' | '"' | '\'');
    let word = word.trim_end_matches(closed).trim_start_matches(opened);
    let good = (1..=LONGEST).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic());
    good.then_some(word)
}

fn has_digit(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_in_which_servers_name_it() {
        for (text, expected) in [
            ("Ok: queued as 4F3A21C0B7", Some("4F3A21C0B7")),
            ("OK: queued as <1AB2.C>.", Some("1AB2.C")),
            ("OK id=1qWxyz-0001Ab-CD", Some("1qWxyz-0001Ab-CD")),
            ("37A1bcde012345 Message accepted for delivery", Some("37A1bcde012345")),
            ("Your Message accepted for delivery", None),
            ("OK  1690000000 d2e1a72fcca58-6.123 - gsmtp", Some("d2e1a72fcca58-6.123")),
            ("ok 1690000000 qp 12345", Some("12345")),
            (
                "<a@b.c> [InternalId=1234, Hostname=x] 88 bytes Queued mail for delivery",
                Some("1234"),
            ),
            ("Message Queued (5E7A12C4-88B1.1)", Some("5E7A12C4-88B1.1")),
            ("Ok 0102018a2f3c4d5e-6f7a-000000", Some("0102018a2f3c4d5e-6f7a-000000")),
            ("OK", None),
            ("Ok: thanks", None),
            ("2.0.0 message delivered", None),
            ("queued as ", None),
            ("queued as \u{fc}", None),
            ("", None),
        ] {
            assert_eq!(queue_id(text), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_names_none() {
        let reply = |code| Reply { code, text: "queued as 1".to_owned(), ..Reply::default() };
        assert_eq!(reply(250).queue_id(), Some("1"));
        assert_eq!(reply(451).queue_id(), None);
        assert_eq!(reply(0).queue_id(), None);
    }
}
