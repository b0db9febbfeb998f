//! What is to be known of a message before it is sent, found in one pass.

use super::header::{HeaderBlock, HeaderReader};
use super::{HeaderFacts, MAX_LINE, MimeError};

/// Which octets the body of a message has (RFC 6152).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Octets {
    /// Only those up to 127.
    #[default]
    SevenBit,
    /// Some above 127.
    EightBit,
}

/// What a [`Scanner`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The header.
    pub header: HeaderFacts,
    /// Octets of the whole message.
    pub size: u64,
    /// Octets of the header block, the blank line included.
    pub header_size: u64,
    /// Octets of the body.
    pub body: Octets,
    /// Octets of the header; above 127 they need SMTPUTF8 (RFC 6532).
    pub header_octets: Octets,
    /// The longest line without its end, in octets.
    pub longest_line: u64,
    /// A carriage return without a line feed behind it.
    pub bare_cr: bool,
    /// A line feed without a carriage return before it; a [`Normaliser`](super::Normaliser)
    /// mends that.
    pub bare_lf: bool,
    /// Octets before the first NUL, if there is one.
    pub nul: Option<u64>,
    /// Whether the last line has no line end.
    pub open_end: bool,
}

impl Facts {
    /// Whether no server can take the message as it is, whatever it offers: a line of more than
    /// 998 octets or a bare CR (RFC 5321 sections 2.3.8 and 4.5.3.1.6). A
    /// [`Recoder`](super::Recoder) mends that.
    pub fn needs_short_lines(&self) -> bool {
        self.longest_line > MAX_LINE || self.bare_cr
    }
}

/// Reads a message of unknown origin in pieces of any size and gathers [`Facts`]. Holds no more
/// than one header block.
#[derive(Debug, Default)]
pub struct Scanner {
    reader: Option<HeaderReader>,
    facts: Facts,
    lines: Lines,
}

impl Scanner {
    /// A scanner at the start of a message.
    pub fn new() -> Self {
        Scanner { reader: Some(HeaderReader::default()), ..Scanner::default() }
    }

    /// A scanner of a body whose header is known.
    pub(crate) fn of_body(header: HeaderFacts) -> Self {
        Scanner { facts: Facts { header, ..Facts::default() }, ..Scanner::default() }
    }

    /// Takes more octets.
    ///
    /// # Errors
    /// [`MimeError::HeaderTooLarge`]; the scanner is then only to be dropped.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), MimeError> {
        match self.reader.as_mut().map(|reader| reader.push(bytes)).transpose()? {
            None => self.body(bytes),
            Some(None) => {}
            Some(Some(block)) => {
                self.reader = None;
                self.header(&block);
            }
        }
        Ok(())
    }

    /// The facts; the message ends here.
    pub fn finish(mut self) -> Facts {
        if let Some(reader) = self.reader.take() {
            let block = reader.finish();
            self.header(&block);
        }
        self.lines.end(&mut self.facts);
        self.facts
    }

    fn header(&mut self, block: &HeaderBlock) {
        self.facts.header = HeaderFacts::of(&block.block);
        self.header_octets(&block.block);
        self.header_octets(&block.separator);
        self.body(&block.rest);
    }

    pub(crate) fn header_octets(&mut self, bytes: &[u8]) {
        self.lines.push(bytes, &mut self.facts);
        self.facts.header_size = self.facts.size;
        if !bytes.is_ascii() {
            self.facts.header_octets = Octets::EightBit;
        }
    }

    pub(crate) fn body(&mut self, bytes: &[u8]) {
        self.lines.push(bytes, &mut self.facts);
        if !bytes.is_ascii() {
            self.facts.body = Octets::EightBit;
        }
    }
}

/// Measures lines.
#[derive(Debug, Default)]
struct Lines {
    length: u64,
    /// The last octet was a carriage return whose fate is open.
    cr: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], facts: &mut Facts) {
        if facts.nul.is_none() && bytes.contains(&0) {
            let before = bytes.iter().position(|byte| *byte == 0).unwrap_or(0) as u64;
            facts.nul = Some(facts.size + before);
        }
        facts.size += bytes.len() as u64;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if self.cr && !text.is_empty() {
                self.cr = false;
                self.length += 1;
                facts.bare_cr = true;
            }
            if let Some((b'\r', before)) = text.split_last() {
                self.cr = true;
                text = before;
            }
            self.length += text.len() as u64;
            facts.bare_cr |= text.contains(&b'\r');
            if ended {
                facts.bare_lf |= !std::mem::take(&mut self.cr);
                facts.longest_line = facts.longest_line.max(std::mem::take(&mut self.length));
            }
        }
    }

    fn end(&mut self, facts: &mut Facts) {
        facts.bare_cr |= self.cr;
        facts.open_end = self.cr || self.length > 0;
        facts.longest_line = facts.longest_line.max(self.length);
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
