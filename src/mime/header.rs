//! The header block: where it ends, its fields, and what is to be known of it.

use super::address::{AddressList, parse_list};
use super::encode::decode_text;
use super::status_report::announces_report;
use super::{MAX_HEADER, Mailbox, MimeError};
use crate::mapi::{Importance, Priority, SysTime};

/// One field with its continuation lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    /// Name as written, without blanks and colon.
    pub(crate) name: &'a str,
    /// All its lines with their ends.
    pub(crate) raw: &'a [u8],
    /// What follows the colon, folds and all.
    value: &'a [u8],
}

impl Field<'_> {
    /// Whether the field is called `name`, in whatever case.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// What follows the colon, folds and line ends included.
    pub(crate) fn raw_value(&self) -> &[u8] {
        self.value
    }

    /// The value unfolded and trimmed; octets that are no UTF-8 are replaced.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(self.value);
        text.replace(['\r', '\n'], "").trim().to_owned()
    }
}

/// The length of the field name when `line` starts a field.
fn name_length(line: &[u8]) -> Option<usize> {
    let length = line.iter().position(|byte| !matches!(byte, 33..=57 | 59..=126))?;
    let rest = line.get(length..)?;
    // The old syntax allows blanks before the colon; they must not hide a Bcc.
    let colon = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'))?;
    (length > 0 && *colon == b':').then_some(length)
}

/// Whether `line` continues the field before it.
fn continues(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// Whether `line` is the separator of mailbox files in front of a message.
fn is_mbox_from(line: &[u8]) -> bool {
    let separator = line.starts_with(b"From ") || line.starts_with(b">From ");
    // `From :` is the field in its old form.
    separator && name_length(line).is_none()
}

/// A part of a header block.
pub(crate) enum Item<'a> {
    /// A field.
    Field(Field<'a>),
    /// Lines that belong to no field.
    Junk(&'a [u8]),
}

/// All parts of a header block in their order; together they are its bytes.
pub(crate) fn items(block: &[u8]) -> impl Iterator<Item = Item<'_>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = line_end(rest);
        while rest.get(end..).is_some_and(continues) {
            end += line_end(rest.get(end..).unwrap_or_default());
        }
        let (raw, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = tail;
        Some(field(raw).map_or(Item::Junk(raw), Item::Field))
    })
}

fn field(raw: &[u8]) -> Option<Field<'_>> {
    let name = std::str::from_utf8(raw.get(..name_length(raw)?)?).ok()?;
    let colon = raw.iter().position(|byte| *byte == b':')?;
    Some(Field { name, raw, value: raw.get(colon + 1..)? })
}

/// The fields of a header block; lines that belong to none are left out.
pub(crate) fn fields(block: &[u8]) -> impl Iterator<Item = Field<'_>> {
    items(block).filter_map(|item| match item {
        Item::Field(field) => Some(field),
        Item::Junk(_) => None,
    })
}

/// Whether the header block at the beginning of `message` says that a program wrote it
/// (RFC 3834 section 5).
pub(crate) fn is_auto_submitted(message: &[u8]) -> bool {
    fields(split_header(message)).any(|field| {
        let value = field.text();
        let word = value.split([';', '(']).next().unwrap_or_default().trim();
        field.is("Auto-Submitted") && !word.is_empty() && !word.eq_ignore_ascii_case("no")
    })
}

/// The header block of a message that stands in memory, without the blank line.
pub(crate) fn split_header(message: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(line) = message.get(end..).filter(|rest| !rest.is_empty()) {
        let line = line.get(..line_end(line)).unwrap_or(line);
        if is_blank(line) || (name_length(line).is_none() && !continues(line)) {
            break;
        }
        end += line.len();
    }
    message.get(..end.min(MAX_HEADER)).unwrap_or_default()
}

/// The length of the first line with its end.
fn line_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// Collects the header block of a message that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct HeaderReader {
    buffer: Vec<u8>,
    /// Where the block starts, behind dropped mailbox separators.
    block_start: usize,
    line_start: usize,
    has_field: bool,
}

/// A header block and what came behind it.
#[derive(Debug)]
pub(crate) struct HeaderBlock {
    /// The fields with their line ends, leading mailbox separators left out.
    pub(crate) block: Vec<u8>,
    /// The blank line as it was; empty when there was none.
    pub(crate) separator: Vec<u8>,
    /// The first octets of the body.
    pub(crate) rest: Vec<u8>,
}

impl HeaderReader {
    /// Takes more octets; answers once the end of the block is found. Not to be called again
    /// then.
    ///
    /// # Errors
    /// [`MimeError::HeaderTooLarge`].
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Option<HeaderBlock>, MimeError> {
        let mut scanned = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        while let Some(at) =
            self.buffer.get(scanned..).and_then(|new| new.iter().position(|byte| *byte == b'\n'))
        {
            let end = scanned + at + 1;
            if let Some(block) = self.line(end) {
                return Ok(Some(block));
            }
            if self.line_start - self.block_start > MAX_HEADER {
                return Err(MimeError::HeaderTooLarge { limit: MAX_HEADER });
            }
            scanned = end;
        }
        if self.buffer.len() - self.line_start > MAX_HEADER {
            let line = self.buffer.get(self.line_start..).unwrap_or_default();
            if name_length(line).is_some() || (continues(line) && self.has_field) {
                return Err(MimeError::HeaderTooLarge { limit: MAX_HEADER });
            }
            return Ok(Some(self.end(self.line_start, self.line_start)));
        }
        Ok(None)
    }

    /// What was collected when the message ends without a blank line.
    pub(crate) fn finish(mut self) -> HeaderBlock {
        let end = self.buffer.len();
        if self.line_start < end
            && let Some(block) = self.line(end)
        {
            return block;
        }
        let end = self.buffer.len();
        self.end(end, end)
    }

    fn line(&mut self, end: usize) -> Option<HeaderBlock> {
        let start = self.line_start;
        let line = self.buffer.get(start..end).unwrap_or_default();
        if is_blank(line) {
            return Some(self.end(start, end));
        }
        if !self.has_field && is_mbox_from(line) {
            self.block_start = end;
            self.line_start = end;
            return None;
        }
        if name_length(line).is_some() || (continues(line) && self.has_field) {
            self.has_field = true;
            self.line_start = end;
            return None;
        }
        Some(self.end(start, start))
    }

    fn end(&mut self, block: usize, body: usize) -> HeaderBlock {
        let mut buffer = std::mem::take(&mut self.buffer);
        let rest = buffer.split_off(body.min(buffer.len()));
        let separator = buffer.split_off(block.min(buffer.len()));
        buffer.drain(..self.block_start.min(buffer.len()));
        HeaderBlock { block: buffer, separator, rest }
    }
}

/// What is to be known of the header of a message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderFacts {
    /// `From`.
    pub from: Vec<Mailbox>,
    /// `Sender`.
    pub sender: Option<Mailbox>,
    /// `To`, all of them.
    pub to: Vec<Mailbox>,
    /// `Cc`, all of them.
    pub cc: Vec<Mailbox>,
    /// `Bcc`, all of them.
    pub bcc: Vec<Mailbox>,
    /// `Resent-From` or `Resent-Sender` of the first resent block (RFC 5322 section 3.6.6).
    pub resent_from: Option<Mailbox>,
    /// `Resent-To`, `-Cc` and `-Bcc` of the first resent block; `None` when nothing was resent.
    pub resent_recipients: Option<Vec<Mailbox>>,
    /// Entries of address lists that are no address, as they were.
    pub malformed: Vec<String>,
    /// `Subject`, decoded.
    pub subject: String,
    /// `Message-ID` with its angle brackets.
    pub message_id: Option<String>,
    /// Whether there is a `Date`.
    pub has_date: bool,
    /// `Importance`, else what `X-Priority` says of it.
    pub importance: Option<Importance>,
    /// `Priority` (RFC 2156 section 5.3.6).
    pub priority: Option<Priority>,
    /// `Expires`, or `Expiry-Date` as RFC 1327 called it (RFC 4021 sections 2.1.50 and 2.1.51).
    pub expires: Option<SysTime>,
    /// Whether it announces a delivery status notification (RFC 3464).
    pub status_report: bool,
}

impl HeaderFacts {
    /// Reads a header block.
    pub(crate) fn of(block: &[u8]) -> Self {
        let mut facts = HeaderFacts::default();
        let mut resent = ResentBlock::default();
        for field in fields(block) {
            facts.field(&field);
            resent.field(&field, &mut facts.malformed);
        }
        facts.status_report = announces_report(block);
        facts.resent_from = resent.from;
        facts.resent_recipients = resent.state.seen().then_some(resent.recipients);
        facts
    }

    fn field(&mut self, field: &Field<'_>) {
        match field.name.to_ascii_lowercase().as_str() {
            "from" => self.from.extend(mailboxes(field, &mut self.malformed)),
            "sender" => {
                self.sender = mailboxes(field, &mut Vec::new()).into_iter().next();
            }
            "to" => self.to.extend(mailboxes(field, &mut self.malformed)),
            "cc" => self.cc.extend(mailboxes(field, &mut self.malformed)),
            "bcc" => self.bcc.extend(mailboxes(field, &mut self.malformed)),
            "subject" if self.subject.is_empty() => self.subject = decode_text(&field.text()),
            "message-id" if self.message_id.is_none() => {
                self.message_id = Some(field.text()).filter(|id| !id.is_empty());
            }
            "date" => self.has_date = true,
            "importance" => self.importance = importance(&field.text()).or(self.importance),
            "x-priority" if self.importance.is_none() => {
                self.importance = x_priority(&field.text());
            }
            "priority" if self.priority.is_none() => self.priority = priority(&field.text()),
            "expires" | "expiry-date" if self.expires.is_none() => {
                self.expires = parse_date(&field.text());
            }
            _ => {}
        }
    }

    /// Who is addressed: the first resent block if there is one, else `To`, `Cc` and `Bcc`; each
    /// address once.
    pub fn recipients(&self) -> Vec<Mailbox> {
        let all: Vec<Mailbox> = match &self.resent_recipients {
            Some(resent) => resent.clone(),
            None => self.to.iter().chain(&self.cc).chain(&self.bcc).cloned().collect(),
        };
        let mut seen = std::collections::HashSet::new();
        all.into_iter().filter(|mailbox| seen.insert(mailbox.address.clone())).collect()
    }

    /// Who sent it: of a resent message who resent it, else `Sender`, else the first `From`.
    pub fn originator(&self) -> Option<&Mailbox> {
        self.resent_from.as_ref().or(self.sender.as_ref()).or(self.from.first())
    }
}

/// RFC 2156 section 5.3.4.
fn importance(text: &str) -> Option<Importance> {
    match text.to_ascii_lowercase().as_str() {
        "low" => Some(Importance::Low),
        "normal" => Some(Importance::Normal),
        "high" => Some(Importance::High),
        _ => None,
    }
}

/// 1 is the most, 5 the least important; words may follow the number.
fn x_priority(text: &str) -> Option<Importance> {
    match text.chars().next()? {
        '1' | '2' => Some(Importance::High),
        '3' => Some(Importance::Normal),
        '4' | '5' => Some(Importance::Low),
        _ => None,
    }
}

/// RFC 2156 section 5.3.6.
fn priority(text: &str) -> Option<Priority> {
    match text.to_ascii_lowercase().as_str() {
        "urgent" => Some(Priority::Urgent),
        "normal" => Some(Priority::Normal),
        "non-urgent" => Some(Priority::NonUrgent),
        _ => None,
    }
}

/// Reads a `Date` with the tolerance of practice (comments, old zones).
pub(crate) fn parse_date(text: &str) -> Option<SysTime> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let bare = text.split('(').next().unwrap_or(text).trim();
    parser.parse_timestamp(bare).ok().map(SysTime::from)
}

fn mailboxes(field: &Field<'_>, malformed: &mut Vec<String>) -> Vec<Mailbox> {
    /// More than this many broken entries tell nothing new.
    const ENOUGH: usize = 10;
    let AddressList { mailboxes, malformed: more } = parse_list(&field.text());
    let room = ENOUGH.saturating_sub(malformed.len());
    malformed.extend(more.into_iter().take(room));
    mailboxes
}

/// The first run of `Resent-` fields, which is the newest resending.
#[derive(Default)]
struct ResentBlock {
    state: ResentState,
    names: Vec<String>,
    from: Option<Mailbox>,
    recipients: Vec<Mailbox>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ResentState {
    #[default]
    Before,
    Inside,
    Behind,
}

impl ResentState {
    fn seen(self) -> bool {
        self != ResentState::Before
    }
}

impl ResentBlock {
    fn field(&mut self, field: &Field<'_>, malformed: &mut Vec<String>) {
        let name = field.name.to_ascii_lowercase();
        let Some(kind) = name.strip_prefix("resent-") else {
            if self.state == ResentState::Inside {
                self.state = ResentState::Behind;
            }
            return;
        };
        // A field that may stand once only and stands again begins an older block.
        let single = matches!(kind, "date" | "from" | "message-id" | "sender");
        if self.state == ResentState::Behind || (single && self.names.contains(&name)) {
            self.state = ResentState::Behind;
            return;
        }
        self.state = ResentState::Inside;
        match kind {
            "to" | "cc" | "bcc" => self.recipients.extend(mailboxes(field, malformed)),
            "sender" => self.from = mailboxes(field, &mut Vec::new()).into_iter().next(),
            "from" if self.from.is_none() => {
                self.from = mailboxes(field, &mut Vec::new()).into_iter().next();
            }
            _ => {}
        }
        self.names.push(name);
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
