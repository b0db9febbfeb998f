//! From the header of a received message to the properties the spooler and the store want.

use super::address::{AddressList, check, parse_list};
use super::encode::decode_text;
use super::header::{Field, fields, parse_date, split_header};
use crate::mapi::{PropList, PropTag, Recipient, RecipientType, tags};

/// No more than this much of a header is kept in memory, in octets.
const MAX_KEPT: usize = 256 * 1024;

/// No more than this much becomes `PR_TRANSPORT_MESSAGE_HEADERS`, in octets.
const MAX_SHOWN: usize = 64 * 1024;

/// No more recipients than this are listed; the message itself has them all.
const MAX_RECIPIENTS: usize = 1_000;

/// Longest text property that is taken, in characters.
const MAX_TEXT: usize = 1_000;

/// Collects the beginning of a message as it streams by, until its header is complete or too
/// large to be kept whole.
#[derive(Debug, Default)]
pub struct IncomingHeader {
    kept: Vec<u8>,
    complete: bool,
}

impl IncomingHeader {
    /// Takes more octets of the message; those behind the header are ignored.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.complete {
            return;
        }
        let known = self.kept.len();
        let room = MAX_KEPT.saturating_sub(known);
        // The end may lie across what came before and what comes now.
        let edge = self.kept.get(known.saturating_sub(3)..).unwrap_or_default().to_vec();
        let head = [edge.as_slice(), bytes.get(..bytes.len().min(3)).unwrap_or_default()].concat();
        let end = match end_of_header(&head) {
            Some(end) => Some(end.saturating_sub(edge.len())),
            None => end_of_header(bytes),
        };
        // Of the body nothing is kept: it may be long, and would be copied for nothing.
        let mine = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        self.kept.extend_from_slice(mine.get(..room).unwrap_or(mine));
        self.complete = end.is_some() || self.kept.len() >= MAX_KEPT;
    }

    /// Whether the header is complete, or too large to be kept whole.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The header block as far as it was kept, with the empty line at its end.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// What the header says; never an error, whatever it is made of.
    pub fn parse(&self) -> ParsedHeader {
        ParsedHeader::of(&self.kept)
    }
}

/// Where the body begins, if that is to be seen here.
fn end_of_header(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Properties and recipients as a header gives them (IB-5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedHeader {
    /// `PR_SUBJECT`, `PR_SENDER_*`, `PR_SENT_REPRESENTING_*`, `PR_INTERNET_MESSAGE_ID`,
    /// `PR_IN_REPLY_TO_ID`, `PR_INTERNET_REFERENCES`, `PR_CLIENT_SUBMIT_TIME`, `PR_IMPORTANCE`,
    /// `PR_DISPLAY_TO`, `PR_DISPLAY_CC`, `PR_MESSAGE_CLASS` and
    /// `PR_TRANSPORT_MESSAGE_HEADERS`, the latter shortened to 64 KiB.
    pub props: PropList,
    /// `To` and `Cc`, each with address type, address and name; at most 1000.
    pub recipients: Vec<Recipient>,
}

impl ParsedHeader {
    /// Reads the header at the beginning of `message`.
    pub fn of(message: &[u8]) -> Self {
        let block = split_header(message);
        let mut parsed = ParsedHeader::default();
        let mut shown = String::from_utf8_lossy(block).into_owned();
        let end = (0..=MAX_SHOWN.min(shown.len())).rev().find(|end| shown.is_char_boundary(*end));
        shown.truncate(end.unwrap_or(0));
        parsed.props.set(tags::TRANSPORT_MESSAGE_HEADERS, shown);
        parsed.props.set(tags::MESSAGE_CLASS, "IPM.Note");
        for field in fields(block) {
            parsed.field(&field);
        }
        parsed.originator();
        parsed.display(tags::DISPLAY_TO, RecipientType::To);
        parsed.display(tags::DISPLAY_CC, RecipientType::Cc);
        parsed
    }

    fn field(&mut self, field: &Field<'_>) {
        let name = field.name.to_ascii_lowercase();
        match name.as_str() {
            "to" => self.recipients(RecipientType::To, field),
            "cc" => self.recipients(RecipientType::Cc, field),
            "from" => self.author(tags::SENT_REPRESENTING_NAME, field),
            "sender" => self.author(tags::SENDER_NAME, field),
            "subject" => self.text(tags::SUBJECT, &decode_text(&field.text())),
            "message-id" => self.text(tags::INTERNET_MESSAGE_ID, &field.text()),
            "in-reply-to" => self.text(tags::IN_REPLY_TO_ID, &field.text()),
            "references" => self.text(tags::INTERNET_REFERENCES, &field.text()),
            "date" => {
                if let Some(time) = parse_date(&field.text())
                    && self.props.value(tags::CLIENT_SUBMIT_TIME).is_none()
                {
                    self.props.set(tags::CLIENT_SUBMIT_TIME, time);
                }
            }
            "importance" => {
                let importance = match field.text().to_ascii_lowercase().as_str() {
                    "high" => 2,
                    "low" => 0,
                    _ => 1,
                };
                self.props.set(tags::IMPORTANCE, importance);
            }
            _ => {}
        }
    }

    /// Sets a text unless an earlier field did.
    fn text(&mut self, tag: PropTag, text: &str) {
        if self.props.value(tag).is_none() {
            let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
            self.props.set(tag, text);
        }
    }

    fn author(&mut self, name_tag: PropTag, field: &Field<'_>) {
        let address_tag = match name_tag {
            tags::SENDER_NAME => tags::SENDER_EMAIL_ADDRESS,
            _ => tags::SENT_REPRESENTING_EMAIL_ADDRESS,
        };
        let AddressList { mailboxes, .. } = parse_list(&field.text());
        if let Some(first) = mailboxes.into_iter().next() {
            self.text(address_tag, &first.address);
            self.text(name_tag, if first.name.is_empty() { &first.address } else { &first.name });
        }
    }

    /// Without `Sender`, the author sent it himself.
    fn originator(&mut self) {
        for (to, from) in [
            (tags::SENDER_NAME, tags::SENT_REPRESENTING_NAME),
            (tags::SENDER_EMAIL_ADDRESS, tags::SENT_REPRESENTING_EMAIL_ADDRESS),
        ] {
            if self.props.value(to).is_none()
                && let Some(text) = self.props.text(from).map(str::to_owned)
            {
                self.props.set(to, text);
            }
        }
        if self.props.value(tags::SENDER_EMAIL_ADDRESS).is_some() {
            self.props.set(tags::SENDER_ADDRTYPE, "SMTP");
        }
    }

    fn recipients(&mut self, kind: RecipientType, field: &Field<'_>) {
        for mailbox in parse_list(&field.text()).mailboxes {
            let Ok(row) = u32::try_from(self.recipients.len()) else { return };
            if self.recipients.len() >= MAX_RECIPIENTS {
                return;
            }
            if check("recipient", &mailbox.address).is_err() {
                continue;
            }
            let name = match mailbox.name.is_empty() {
                true => mailbox.address.clone(),
                false => mailbox.name,
            };
            self.recipients.push(Recipient::smtp(row, kind, mailbox.address).named(name));
        }
    }

    fn display(&mut self, tag: PropTag, kind: RecipientType) {
        let names: Vec<&str> = self
            .recipients
            .iter()
            .filter(|row| row.kind == kind)
            .map(|row| row.display_name.as_str())
            .collect();
        if !names.is_empty() {
            let names = names.join("; ");
            self.text(tag, &names);
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
