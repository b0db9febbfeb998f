//! Makes RFC 5322 bytes of unknown origin fit to be sent, and changes no more than that needs.

use super::encode::{Folder, phrase};
use super::header::{HeaderBlock, HeaderReader, fields};
use super::senders::Senders;
use super::{AddressRules, Facts, HeaderFacts, Mailbox, MimeError, Scanner};
use crate::mapi::SysTime;

/// What is added where a message lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `From`; `None` adds none.
    pub from: Option<Mailbox>,
    /// `Date`.
    pub date: SysTime,
    /// `Message-ID` with its angle brackets.
    pub message_id: String,
}

/// Where a message that is submitted comes from, and what becomes of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// What becomes of addresses of this machine. The default changes none.
    pub rules: AddressRules,
    /// The reverse-path, where the envelope names one.
    pub envelope_from: Option<String>,
    /// Value of the trace field that is put in front, without the line end; empty for none.
    pub received: String,
}

/// What came of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Normalised {
    /// Facts of the result; its header facts are those of the header as it was given, `Bcc`
    /// included.
    pub facts: Facts,
    /// `Message-ID` of the result with its angle brackets.
    pub message_id: String,
}

/// A filter for the bytes of a message.
///
/// - LF, as well as CR LF, ends a line; each line of the result ends in CR LF, the last too.
/// - `From ` and `>From ` lines of mailbox files before the header are dropped.
/// - `Bcc` and `Resent-Bcc` are dropped (OB-5).
/// - `Date`, `Message-ID` and `From` are added behind the header when they are missing.
/// - A message without a header gets one; text that is no header starts the body.
/// - NUL is refused, and so is a bare CR in the header; one in the body stays as it is.
/// - With an [`Origin`], addresses of this machine are replaced as its rules say; what `From` was
///   stands in `X-Original-From`, and in `Reply-To` where others can use it and there is none.
///
/// Everything else stays byte for byte, so that what is normal already comes out unchanged. What
/// only a re-encoding can mend (long lines, bare CR, 8-bit octets) is told by [`Facts`].
#[derive(Debug)]
pub struct Normaliser {
    defaults: Defaults,
    origin: Origin,
    reader: Option<HeaderReader>,
    scanner: Scanner,
    message_id: String,
    /// The last octet of the input was a carriage return that is not written yet.
    cr: bool,
    /// Whether the last octet written to the body was a line end.
    at_line_start: bool,
    taken: u64,
}

impl Normaliser {
    /// A filter at the start of a message.
    pub fn new(defaults: Defaults) -> Self {
        Self::with_origin(defaults, Origin::default())
    }

    /// The same for a message that is being submitted.
    pub fn with_origin(defaults: Defaults, origin: Origin) -> Self {
        Normaliser {
            defaults,
            origin,
            reader: Some(HeaderReader::default()),
            scanner: Scanner::of_body(HeaderFacts::default()),
            message_id: String::new(),
            cr: false,
            at_line_start: true,
            taken: 0,
        }
    }

    /// Takes more octets and appends to `out` what is certain.
    ///
    /// # Errors
    /// [`MimeError::Nul`], [`MimeError::HeaderTooLarge`], [`MimeError::BareCr`]; the filter is
    /// then only to be dropped.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), MimeError> {
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(MimeError::Nul { offset: self.taken + at as u64 });
        }
        self.taken += bytes.len() as u64;
        match self.reader.as_mut().map(|reader| reader.push(bytes)).transpose()? {
            None => self.body(bytes, out),
            Some(None) => {}
            Some(Some(block)) => {
                self.reader = None;
                self.header(&block, out)?;
            }
        }
        Ok(())
    }

    /// Ends the message: appends the rest to `out`.
    ///
    /// # Errors
    /// As [`Normaliser::push`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Normalised, MimeError> {
        if let Some(reader) = self.reader.take() {
            let block = reader.finish();
            self.header(&block, out)?;
        }
        let start = out.len();
        // A carriage return at the very end counts as the beginning of a line end.
        if self.cr || !self.at_line_start {
            out.extend_from_slice(b"\r\n");
        }
        self.scanner.body(out.get(start..).unwrap_or_default());
        Ok(Normalised { facts: self.scanner.finish(), message_id: self.message_id })
    }

    fn header(&mut self, block: &HeaderBlock, out: &mut Vec<u8>) -> Result<(), MimeError> {
        let facts = HeaderFacts::of(&block.block);
        let start = out.len();
        if !self.origin.received.is_empty() {
            out.extend_from_slice(format!("Received: {}\r\n", self.origin.received).as_bytes());
        }
        let mut senders = Senders::new(&self.origin, &facts);
        for field in fields(&block.block) {
            if !field.is("bcc") && !field.is("resent-bcc") && !senders.field(&field, out)? {
                header_lines(field.raw, out)?;
            }
        }
        senders.reply_to(out);
        self.additions(&facts, out);
        out.extend_from_slice(b"\r\n");
        self.message_id = facts.message_id.clone().unwrap_or(self.defaults.message_id.clone());
        self.scanner = Scanner::of_body(facts);
        self.scanner.header_octets(out.get(start..).unwrap_or_default());
        self.body(&block.rest, out);
        Ok(())
    }

    fn additions(&self, facts: &HeaderFacts, out: &mut Vec<u8>) {
        if facts.from.is_empty()
            && let Some(from) = &self.defaults.from
        {
            out.extend_from_slice(mailboxes_field("From", std::slice::from_ref(from)).as_bytes());
        }
        if !facts.has_date {
            out.extend_from_slice(date_field("Date", self.defaults.date).as_bytes());
        }
        if facts.message_id.is_none() {
            out.extend_from_slice(b"Message-ID: ");
            out.extend_from_slice(self.defaults.message_id.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    fn body(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some((b'\n', line)) = piece.split_last() {
                let line = self.held_back(line, out);
                out.extend_from_slice(line);
                self.cr = false;
                out.extend_from_slice(b"\r\n");
                self.at_line_start = true;
            } else {
                let line = self.held_back(piece, out);
                out.extend_from_slice(line);
                self.at_line_start = false;
            }
        }
        self.scanner.body(out.get(start..).unwrap_or_default());
    }

    /// Writes a carriage return kept from before when more follows it, and keeps the one that
    /// ends `line`, which belongs to a line feed that may follow.
    fn held_back<'a>(&mut self, line: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        if self.cr && !line.is_empty() {
            out.push(b'\r');
            self.cr = false;
        }
        match line.split_last() {
            Some((b'\r', before)) => {
                self.cr = true;
                before
            }
            _ => line,
        }
    }
}

/// Appends the lines of a field, each ended by CR LF.
pub(super) fn header_lines(raw: &[u8], out: &mut Vec<u8>) -> Result<(), MimeError> {
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let mut text = line;
        // Several carriage returns before the line feed come from files converted twice.
        while let Some((b'\r' | b'\n', before)) = text.split_last() {
            text = before;
        }
        if text.contains(&b'\r') {
            let line = String::from_utf8_lossy(text).chars().take(40).collect();
            return Err(MimeError::BareCr { line });
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// A field with a list of mailboxes, folded, with its CR LF.
pub(crate) fn mailboxes_field(name: &str, mailboxes: &[Mailbox]) -> String {
    let mut folder = Folder::new(name.len() + 2);
    for (number, mailbox) in mailboxes.iter().enumerate() {
        let comma = if number + 1 < mailboxes.len() { "," } else { "" };
        if mailbox.name.is_empty() {
            folder.word(&format!("{}{comma}", mailbox.address));
            continue;
        }
        phrase(&mailbox.name).iter().for_each(|word| folder.word(word));
        folder.word(&format!("<{}>{comma}", mailbox.address));
    }
    format!("{name}: {}\r\n", folder.out)
}

/// A field with an instant in the form of RFC 5322 section 3.3, with its CR LF.
pub(crate) fn date_field(name: &str, time: SysTime) -> String {
    format!("{name}: {}\r\n", date(time))
}

/// An instant in the form of RFC 5322 section 3.3, in universal time.
pub(crate) fn date(time: SysTime) -> String {
    let zoned = time.to_timestamp().to_zoned(jiff::tz::TimeZone::UTC);
    zoned.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
#[path = "normalise_tests.rs"]
mod tests;
