//! What was said on each connection, line by line, bounded and without secrets.

use std::collections::VecDeque;
use std::fmt;

use crate::config::Protocol;

/// Longest line kept, in characters.
const LINE: usize = 512;

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The peer.
    Client,
    /// This server.
    Server,
    /// A remark on what happened (connected, fault, closed).
    Note,
}

/// One line of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptLine {
    /// Number of the connection, counted from 1 over both protocols.
    pub connection: u64,
    /// Its protocol.
    pub protocol: Protocol,
    /// Who said it.
    pub speaker: Speaker,
    /// What was said, without line end; secrets are replaced by `***`, long lines cut.
    pub text: String,
}

impl fmt::Display for TranscriptLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Smtp => "smtp",
            Protocol::Imap => "imap",
        };
        let speaker = match self.speaker {
            Speaker::Client => "C:",
            Speaker::Server => "S:",
            Speaker::Note => "--",
        };
        write!(f, "{protocol}#{} {speaker} {}", self.connection, self.text)
    }
}

/// The last lines of all connections.
#[derive(Debug)]
pub(crate) struct Transcript {
    lines: VecDeque<TranscriptLine>,
    limit: usize,
}

impl Transcript {
    pub(crate) fn new(limit: usize) -> Self {
        Self { lines: VecDeque::new(), limit }
    }

    pub(crate) fn push(&mut self, line: TranscriptLine) {
        while self.lines.len() >= self.limit.max(1) {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn lines(&self) -> Vec<TranscriptLine> {
        self.lines.iter().cloned().collect()
    }
}

/// A line as it may be shown: without its end, cut, and without secrets.
pub(crate) fn presentable(protocol: Protocol, line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\r', '\n']);
    let shown: String = text.chars().take(LINE).collect();
    redact(protocol, &shown)
}

fn redact(protocol: Protocol, line: &str) -> String {
    let mut words = line.splitn(3, ' ');
    let (first, second, rest) = (words.next(), words.next(), words.next());
    let (Some(first), Some(second)) = (first, second) else {
        return line.to_owned();
    };
    match protocol {
        Protocol::Smtp if first.eq_ignore_ascii_case("AUTH") && rest.is_some() => {
            format!("{first} {second} ***")
        }
        Protocol::Imap if second.eq_ignore_ascii_case("LOGIN") => match rest {
            Some(rest) => {
                let user = rest.split_once(' ').map_or("", |(user, _)| user);
                format!("{first} {second} {user} ***")
            }
            None => line.to_owned(),
        },
        Protocol::Imap if second.eq_ignore_ascii_case("AUTHENTICATE") => {
            match rest.and_then(|rest| rest.split_once(' ')) {
                Some((mechanism, _)) => format!("{first} {second} {mechanism} ***"),
                None => line.to_owned(),
            }
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        for (protocol, said, shown) in [
            (Protocol::Smtp, "AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", "AUTH PLAIN ***"),
            (Protocol::Smtp, "AUTH LOGIN\r\n", "AUTH LOGIN"),
            (Protocol::Smtp, "MAIL FROM:<a@b> SIZE=3\r\n", "MAIL FROM:<a@b> SIZE=3"),
            (Protocol::Imap, "a1 LOGIN ann secret\r\n", "a1 LOGIN ann ***"),
            (Protocol::Imap, "a1 login \"ann\" \"se cret\"\r\n", "a1 login \"ann\" ***"),
            (Protocol::Imap, "a1 LOGIN {3}\r\n", "a1 LOGIN  ***"),
            (Protocol::Imap, "a1 AUTHENTICATE PLAIN AGFu\r\n", "a1 AUTHENTICATE PLAIN ***"),
            (Protocol::Imap, "a1 AUTHENTICATE PLAIN\r\n", "a1 AUTHENTICATE PLAIN"),
        ] {
            assert_eq!(presentable(protocol, said.as_bytes()), shown);
        }
    }

    #[test]
    fn old_lines_make_room() {
        let mut transcript = Transcript::new(2);
        for number in 1..=3 {
            transcript.push(TranscriptLine {
                connection: number,
                protocol: Protocol::Imap,
                speaker: Speaker::Note,
                text: String::new(),
            });
        }
        let kept: Vec<u64> = transcript.lines().iter().map(|line| line.connection).collect();
        assert_eq!(kept, [2, 3]);
    }
}
