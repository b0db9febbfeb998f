//! Replies (RFC 5321 section 4.2, enhanced codes of RFC 3463), and which one an error becomes.

use super::content::BareNewline;
use crate::mapi::{MapiCode, MapiError};

/// What happens behind a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The session goes on.
    GoOn,
    /// The connection is closed.
    Close,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    enhanced: &'static str,
    lines: Vec<String>,
}

/// Longest text of a line: RFC 5321 section 4.5.3.1.5 allows 512 octets with code and line end.
const LONGEST_TEXT: usize = 480;

impl Reply {
    /// A reply of one line; `enhanced` is empty for none.
    pub(super) fn new(code: u16, enhanced: &'static str, text: impl Into<String>) -> Self {
        Reply { code, enhanced, lines: vec![text.into()] }
    }

    /// The same with one more line.
    pub(super) fn line(mut self, text: impl Into<String>) -> Self {
        self.lines.push(text.into());
        self
    }

    pub(super) fn code(&self) -> u16 {
        self.code
    }

    /// A reply of 421 ends the connection (RFC 5321 section 3.8), so does the one to QUIT.
    pub(super) fn then(&self) -> Then {
        match self.code {
            221 | 421 => Then::Close,
            _ => Then::GoOn,
        }
    }

    /// Writes the reply behind `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        for (number, line) in self.lines.iter().enumerate() {
            let separator = if number == last { ' ' } else { '-' };
            out.extend_from_slice(format!("{}{separator}", self.code).as_bytes());
            if !self.enhanced.is_empty() {
                out.extend_from_slice(self.enhanced.as_bytes());
                out.push(b' ');
            }
            // What comes from elsewhere must not end the line.
            let clean = line.chars().map(|c| if c.is_control() { ' ' } else { c });
            let mut length = 0;
            for c in clean {
                length += c.len_utf8();
                if length > LONGEST_TEXT {
                    break;
                }
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The reply to a message that the store did not take.
pub(super) fn of_error(error: &MapiError) -> Reply {
    let (code, enhanced) = match error.code() {
        MapiCode::NOT_ENOUGH_DISK => (452, "4.3.1"),
        MapiCode::TOO_BIG => (552, "5.3.4"),
        MapiCode::CORRUPT_DATA | MapiCode::INVALID_PARAMETER => (554, "5.6.0"),
        MapiCode::NO_RECIPIENTS => (554, "5.5.1"),
        MapiCode::NO_ACCESS => (550, "5.7.1"),
        // It may be better later, and a client that keeps the message loses nothing.
        _ => (451, "4.3.0"),
    };
    let words = match error.detail() {
        "" => error.code().to_string(),
        detail => detail.to_owned(),
    };
    Reply::new(code, enhanced, words)
}

pub(super) fn of_bare_newline(bare: BareNewline) -> Reply {
    let words = match bare {
        BareNewline::Cr => "the message has a CR without LF in it; lines end in CRLF",
        BareNewline::Lf => "the message has an LF without CR in it; lines end in CRLF",
    };
    Reply::new(550, "5.6.0", words)
}

pub(super) fn syntax(text: impl Into<String>) -> Reply {
    Reply::new(501, "5.5.4", text)
}

pub(super) fn bad_sequence(text: &'static str) -> Reply {
    Reply::new(503, "5.5.1", text)
}

pub(super) fn closing(text: &'static str) -> Reply {
    Reply::new(421, "4.3.2", text)
}
