//! LIST and LSUB (RFC 3501 section 6.3.8).

use imap_codec::imap_types::mailbox::{ListMailbox, Mailbox};

use super::literal::string;
use super::session::Session;

impl Session {
    pub(super) fn list(
        &mut self,
        tag: &str,
        verb: &str,
        user: &str,
        reference: &Mailbox<'_>,
        pattern: &ListMailbox<'_>,
    ) {
        let shared = &self.connection.shared;
        let delimiter = shared.config.delimiter;
        let pattern = match pattern {
            ListMailbox::Token(token) => token.as_ref(),
            ListMailbox::String(string) => string.as_ref(),
        };
        let pattern = format!("{}{}", mailbox_name(reference), String::from_utf8_lossy(pattern));
        let names = shared.with_store(|store| match verb {
            "LSUB" => store.subscribed(user),
            _ => store.names(user),
        });
        let quoted = string(&delimiter.to_string());
        if pattern.is_empty() {
            // RFC 3501: an empty name asks for the delimiter and the root.
            self.connection.say(&format!("* {verb} (\\Noselect) {quoted} \"\"\r\n"));
        } else {
            for name in names.unwrap_or_default() {
                if matches(&pattern, &name, delimiter) {
                    self.connection.say(&format!("* {verb} () {quoted} {}\r\n", string(&name)));
                }
            }
        }
        self.done(tag, "OK listed");
    }
}

/// The name as it is stored: the octets on the wire.
pub(super) fn mailbox_name(mailbox: &Mailbox<'_>) -> String {
    match mailbox {
        Mailbox::Inbox => "INBOX".to_owned(),
        Mailbox::Other(other) => String::from_utf8_lossy(other.as_ref()).into_owned(),
    }
}

/// `*` stands for anything, `%` for anything but the delimiter.
fn matches(pattern: &str, name: &str, delimiter: char) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    // Reachable positions in the pattern, advanced name character by name character.
    let mut reached = closure(&pattern, vec![0]);
    let inbox = name == "INBOX";
    for letter in name.chars() {
        let mut next = Vec::new();
        for &at in &reached {
            match pattern.get(at) {
                Some('*') => next.push(at),
                Some('%') if letter != delimiter => next.push(at),
                Some('%') | None => {}
                Some(&expected) if expected == letter => next.push(at + 1),
                Some(expected) if inbox && expected.eq_ignore_ascii_case(&letter) => {
                    next.push(at + 1);
                }
                Some(_) => {}
            }
        }
        reached = closure(&pattern, next);
    }
    reached.contains(&pattern.len())
}

fn closure(pattern: &[char], mut reached: Vec<usize>) -> Vec<usize> {
    let mut at = 0;
    while let Some(&position) = reached.get(at) {
        let wild = matches!(pattern.get(position), Some('*' | '%'));
        if wild && !reached.contains(&(position + 1)) {
            reached.push(position + 1);
        }
        at += 1;
    }
    reached.sort_unstable();
    reached.dedup();
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("*", "a/b", true),
            ("%", "a/b", false),
            ("%", "a", true),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("a*c", "a/b/c", true),
            ("inbox", "INBOX", true),
            ("in%", "INBOX", true),
            ("box", "Box", false),
            ("a%b*c", "axxb/yc", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, name, '/'), expected, "{pattern} {name}");
        }
    }
}
