//! Reading commands whole, literals included (RFC 3501 section 4.3, RFC 7888), and writing strings.

use imap_codec::CommandCodec;
use imap_codec::decode::{CommandDecodeError, Decoder};

use super::session::Session;
use crate::config::ImapCapability;
use crate::connection::{Flow, Line};
use crate::smtp::ViolationKind;
use crate::transcript::Speaker;

/// Longest line of a command: a UID set of ten thousand single messages fits.
const LINE: usize = 256 << 10;
/// Literals in one command.
const LITERALS: usize = 64;

/// A literal announced at the end of a line.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    length: u64,
    synchronizing: bool,
}

impl Session {
    /// The next command as it came; `None` if it was refused while it was read.
    pub(super) async fn read_command(&mut self) -> Flow<Option<Vec<u8>>> {
        let mut message = Vec::new();
        for literals in 0.. {
            let line = match self.connection.line(LINE).await? {
                Line::Whole(line) => line,
                Line::TooLong => {
                    self.violation(ViolationKind::Syntax, "command line too long");
                    self.refuse(&message, "BAD line too long");
                    return Ok(None);
                }
            };
            if literals == 0 {
                self.connection.record(Speaker::Client, &line);
            }
            if !line.ends_with(b"\r\n") {
                self.violation(ViolationKind::BareLf, "in a command");
            }
            message.extend_from_slice(&line);
            let Some(announced) = announced(&line) else {
                return Ok(Some(message));
            };
            if literals >= LITERALS || !self.literal(&mut message, &announced).await? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Reads a literal behind what has come of the command; false if it is refused.
    async fn literal(&mut self, message: &mut Vec<u8>, announced: &Announced) -> Flow<bool> {
        let shared = &self.connection.shared;
        let fits = announced.length <= shared.config.limits.message_size;
        if announced.synchronizing {
            let sensible = announced.length == 0
                || matches!(
                    CommandCodec::default().decode(message),
                    Err(CommandDecodeError::LiteralFound { .. })
                );
            if !sensible {
                self.violation(ViolationKind::Syntax, "literal out of place");
                self.refuse(message, "BAD cannot parse that");
                return Ok(false);
            }
            if !fits {
                self.refuse(message, "NO [TOOBIG] literal too big");
                return Ok(false);
            }
            self.connection.say("+ go ahead\r\n");
        } else if !shared.offers(ImapCapability::LiteralPlus) {
            self.violation(ViolationKind::NotOffered, "LITERAL+");
        }
        let mut left = announced.length;
        while left > 0 {
            if self.connection.buffered().is_empty() {
                self.connection.fill().await?;
            }
            let chunk = self.connection.take(usize::try_from(left).unwrap_or(usize::MAX));
            left = left.saturating_sub(chunk.len() as u64);
            if fits {
                message.extend_from_slice(&chunk);
            }
        }
        if !fits {
            // The rest of the command belongs to what was refused.
            self.connection.line(LINE).await?;
            self.refuse(message, "NO [TOOBIG] literal too big");
        }
        Ok(fits)
    }

    /// A tagged reply to a command that cannot be parsed; untagged if it has no tag.
    pub(super) fn refuse(&mut self, message: &[u8], reply: &str) {
        let tag = message.split(|&octet| octet == b' ').next().unwrap_or_default();
        let sound = !tag.is_empty()
            && tag.len() < 64
            && tag.iter().all(|octet| octet.is_ascii_graphic() && !b"+(){%*\"\\".contains(octet));
        let tag = if sound { String::from_utf8_lossy(tag).into_owned() } else { "*".to_owned() };
        self.connection.say(&format!("{tag} {reply}\r\n"));
    }
}

fn announced(line: &[u8]) -> Option<Announced> {
    let line = line.trim_ascii_end();
    let inner = line.strip_suffix(b"}")?;
    let start = inner.iter().rposition(|&octet| octet == b'{')?;
    let digits = std::str::from_utf8(inner.get(start + 1..)?).ok()?;
    let (digits, synchronizing) = match digits.strip_suffix('+') {
        Some(digits) => (digits, false),
        None => (digits, true),
    };
    let all_digits = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(|length| Announced { length, synchronizing }))?
}

/// A string as a response may contain it: quoted, or a literal if it has to be.
pub(super) fn string(text: &str) -> String {
    let plain = text.bytes().all(|octet| matches!(octet, 0x20..=0x7e));
    if plain {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("{{{}}}\r\n{text}", text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_found_at_the_end_only() {
        let sync = |length| Some(Announced { length, synchronizing: true });
        for (line, expected) in [
            (b"a LOGIN {3}\r\n".as_slice(), sync(3)),
            (b"a LOGIN {0}\r\n", sync(0)),
            (b"a LOGIN {3+}\r\n", Some(Announced { length: 3, synchronizing: false })),
            (b"a SEARCH SUBJECT \"{3}\"\r\n", None),
            (b"a LOGIN {}\r\n", None),
            (b"a LOGIN {x}\r\n", None),
            (b"a LOGIN 3}\r\n", None),
            (b"a NOOP\r\n", None),
        ] {
            assert_eq!(announced(line), expected);
        }
    }

    #[test]
    fn strings_are_quoted_when_they_can_be() {
        assert_eq!(string("a b"), "\"a b\"");
        assert_eq!(string("a\"\\"), "\"a\\\"\\\\\"");
        assert_eq!(string("a\r\nb"), "{4}\r\na\r\nb");
    }
}
