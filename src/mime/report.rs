//! Reports of delivery and non-delivery: multipart/report of RFC 6522 with the fields of
//! RFC 3464.

use lettre::message::header::ContentTransferEncoding;
use lettre::message::{Body, SinglePart};

use super::compose::body::{TypeOfPart, multipart, text_part};
use super::encode::{Folder, boundary_stem, unstructured};
use super::header::split_header;
use super::normalise::{date, date_field, mailboxes_field};
use super::{Mailbox, Octets};
use crate::mapi::SysTime;

/// Originals of up to this many octets are attached whole, of larger ones the header.
pub const MAX_RETURNED: usize = 4 * 1024 * 1024;

/// Longest words of a server that are repeated, in characters.
const MAX_WORDS: usize = 900;

/// What a report tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportAction {
    /// `failed`.
    Failed,
    /// `delayed`.
    Delayed,
    /// `delivered`.
    Delivered,
    /// `relayed`: to a server that reports nothing further.
    Relayed,
    /// `relayed`, after the sender was told of a delay.
    RelayedAfterAll,
}

impl ReportAction {
    /// The word of RFC 3464 section 2.3.3.
    fn word(self) -> &'static str {
        match self {
            ReportAction::Failed => "failed",
            ReportAction::Delayed => "delayed",
            ReportAction::Delivered => "delivered",
            ReportAction::Relayed | ReportAction::RelayedAfterAll => "relayed",
        }
    }
}

/// What happened to one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRecipient {
    /// Name and address as the sender gave them.
    pub mailbox: Mailbox,
    /// Enhanced status code of RFC 3463; what is none becomes `5.0.0`, `4.0.0` or `2.0.0`.
    pub status: String,
    /// The server's own words; empty when there was no server.
    pub diagnostic: String,
    /// The host that said so; empty when there was none.
    pub remote_mta: String,
    /// When.
    pub time: SysTime,
}

/// What goes into a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFields {
    /// What it tells of.
    pub action: ReportAction,
    /// Name of this host, for `Reporting-MTA`.
    pub host: String,
    /// Whom the report comes from.
    pub from: Mailbox,
    /// Whom it is for: the sender of the original.
    pub to: Mailbox,
    /// `Date`.
    pub date: SysTime,
    /// `Message-ID` of the report with its angle brackets.
    pub message_id: String,
    /// `Subject` of the original; empty for none.
    pub subject: String,
    /// `Message-ID` of the original with its angle brackets; empty for none.
    pub original_id: String,
    /// RFC 3461 ENVID of the original; empty for none.
    pub envelope_id: String,
    /// When the original was submitted.
    pub submitted: SysTime,
    /// How long a message that is late is tried (`Will-Retry-Until`).
    pub will_retry_until: Option<SysTime>,
    /// What happened to whom.
    pub recipients: Vec<ReportedRecipient>,
}

/// The original message for the third part of a report.
#[derive(Clone, Copy, Debug)]
pub enum Original<'a> {
    /// All of it; only its header is attached above [`MAX_RETURNED`].
    Whole(&'a [u8]),
    /// Its beginning, of which the header is attached.
    Beginning(&'a [u8]),
    /// It cannot be had any more.
    Missing,
}

/// Makes a report: words for people, fields for programs, and the original. Deterministic.
///
/// It carries the null `Return-Path` and `Auto-Submitted: auto-replied` (RFC 3834), so that no
/// program answers it. Values that could break out of their line are flattened.
pub fn report(fields: &ReportFields, original: Original<'_>) -> Vec<u8> {
    let returned = returned_part(original);
    let stem = boundary_stem(&fields.message_id, |stem| match original {
        Original::Whole(bytes) | Original::Beginning(bytes) => {
            bytes.windows(stem.len()).any(|octets| octets == stem.as_bytes())
        }
        Original::Missing => false,
    });
    let parts = [text_part("text/plain", &words(fields, original), false), status_part(fields)];
    let body = multipart(
        "multipart/report; report-type=delivery-status",
        &format!("{stem}_d"),
        parts.into_iter().chain(returned).map(Into::into),
    );
    let mut bytes = header(fields).into_bytes();
    bytes.append(&mut body.formatted());
    bytes
}

fn header(fields: &ReportFields) -> String {
    let what = match fields.action {
        ReportAction::Failed => "Undelivered",
        ReportAction::Delayed => "Delayed",
        ReportAction::Delivered => "Delivered",
        ReportAction::Relayed => "Relayed",
        ReportAction::RelayedAfterAll => "Delivered after all",
    };
    let subject = match fields.subject.is_empty() {
        true => format!("{what} mail"),
        false => format!("{what}: {}", flat(&fields.subject)),
    };
    let mut out = String::from("Return-Path: <>\r\n");
    out.push_str(&date_field("Date", fields.date));
    out.push_str(&mailboxes_field("From", std::slice::from_ref(&fields.from)));
    out.push_str(&mailboxes_field("To", std::slice::from_ref(&fields.to)));
    out.push_str(&format!("Subject: {}\r\n", unstructured("Subject", &subject)));
    out.push_str(&format!("Message-ID: {}\r\n", fields.message_id));
    if !fields.original_id.is_empty() {
        let id = flat(&fields.original_id);
        out.push_str(&format!("In-Reply-To: {id}\r\nReferences: {id}\r\n"));
    }
    out.push_str("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    out
}

/// The words for people.
fn words(fields: &ReportFields, original: Original<'_>) -> String {
    let whom = match fields.recipients.len() {
        1 => "this recipient",
        _ => "these recipients",
    };
    let mut text = match fields.action {
        ReportAction::Failed => format!(
            "This is the mail queue of {}.\n\nYour message{} could not be delivered to {whom} and \
             will not be tried again:\n",
            fields.host,
            about(fields)
        ),
        ReportAction::Delivered => format!(
            "This is the mail queue of {}.\n\nYour message{} was handed over for {whom}:\n",
            fields.host,
            about(fields)
        ),
        ReportAction::Relayed => format!(
            "This is the mail queue of {}.\n\nYour message{} was handed for {whom} to a server that \
             takes no requests for reports, so that you may hear no more of it:\n",
            fields.host,
            about(fields)
        ),
        ReportAction::Delayed => format!(
            "This is the mail queue of {}.\n\nYour message{} is late: it has not reached the \
             server for {whom} yet.\nYou need not do anything: it is tried again{}.\n",
            fields.host,
            about(fields),
            match fields.will_retry_until {
                Some(until) => format!(" until\n{}", date(until)),
                None => String::new(),
            }
        ),
        ReportAction::RelayedAfterAll => format!(
            "This is the mail queue of {}.\n\nYour message{}, of which you were told that it is \
             late, was handed to the server for {whom} after all:\n",
            fields.host,
            about(fields)
        ),
    };
    for recipient in &fields.recipients {
        text.push_str(&format!("\n  {}\n", flat(&recipient.mailbox.to_string())));
        let said = flat(&recipient.diagnostic);
        let mut line = match (recipient.remote_mta.is_empty(), said.is_empty()) {
            (false, false) => format!("The server {} said: {said}", flat(&recipient.remote_mta)),
            (true, false) => said,
            (false, true) => format!("The server was {}.", flat(&recipient.remote_mta)),
            (true, true) => String::new(),
        };
        if matches!(fields.action, ReportAction::Delivered | ReportAction::RelayedAfterAll) {
            line = format!("On {}. {line}", date(recipient.time));
        }
        for line in wrapped(&line) {
            text.push_str(&format!("    {line}\n"));
        }
        let status = status(fields.action, &recipient.status);
        if let Some(meaning) = meaning(&status) {
            text.push_str(&format!("    ({status}: {meaning})\n"));
        }
    }
    if fields.action == ReportAction::Failed {
        text.push_str(
            "\nIf it still matters, see what can be done about the reason, and send the\n\
             message again.\n",
        );
    }
    text.push_str(match original {
        Original::Missing => "\nThe message itself is no longer available.\n",
        Original::Whole(bytes) if bytes.len() <= MAX_RETURNED => "\nThe message is attached.\n",
        _ => "\nThe header of the message is attached.\n",
    });
    text
}

fn about(fields: &ReportFields) -> String {
    match fields.subject.is_empty() {
        true => format!(" of {}", date(fields.submitted)),
        false => format!(" {:?} of {}", flat(&fields.subject), date(fields.submitted)),
    }
}

/// What the common codes of RFC 3463 mean, in a few words.
fn meaning(status: &str) -> Option<&'static str> {
    let (_, detail) = status.split_once('.')?;
    Some(match detail {
        "1.1" => "there is no such mailbox",
        "1.2" | "4.4" => "there is no such mail domain",
        "1.3" => "the address is malformed",
        "1.10" => "the domain takes no mail",
        "2.1" => "the mailbox is disabled",
        "2.2" => "the mailbox is full",
        "2.3" | "3.4" => "the message is too large",
        "4.7" => "it was tried for too long",
        "6.7" | "6.8" | "6.9" => "the address needs a server that knows international addresses",
        "7.1" => "the server does not permit it",
        _ => return None,
    })
}

/// The fields for programs (RFC 3464 section 2).
fn status_part(fields: &ReportFields) -> SinglePart {
    let mut out = Fields::default();
    out.field("Reporting-MTA", &format!("dns; {}", fields.host));
    if !fields.envelope_id.is_empty() {
        out.field("Original-Envelope-Id", &fields.envelope_id);
    }
    out.field("Arrival-Date", &date(fields.submitted));
    for recipient in &fields.recipients {
        out.text.push_str("\r\n");
        let address = typed_address(&recipient.mailbox.address);
        out.field("Original-Recipient", &address);
        out.field("Final-Recipient", &address);
        out.field("Action", fields.action.word());
        out.field("Status", &status(fields.action, &recipient.status));
        if !recipient.remote_mta.is_empty() {
            out.field("Remote-MTA", &format!("dns; {}", recipient.remote_mta));
        }
        if !recipient.diagnostic.is_empty() {
            let kind = diagnostic_type(&recipient.diagnostic);
            out.field("Diagnostic-Code", &format!("{kind}; {}", recipient.diagnostic));
        }
        out.field("Last-Attempt-Date", &date(recipient.time));
        if let (ReportAction::Delayed, Some(until)) = (fields.action, fields.will_retry_until) {
            out.field("Will-Retry-Until", &date(until));
        }
    }
    SinglePart::builder()
        .header(TypeOfPart("message/delivery-status".to_owned()))
        .body(Body::dangerous_pre_encoded(out.text.into_bytes(), ContentTransferEncoding::SevenBit))
}

/// Fields in ASCII, flattened and folded.
#[derive(Default)]
struct Fields {
    text: String,
}

impl Fields {
    fn field(&mut self, name: &str, value: &str) {
        let mut folder = Folder::new(name.len() + 2);
        let ascii: String =
            flat(value).chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        ascii.split_whitespace().for_each(|word| folder.word(word));
        self.text.push_str(&format!("{name}: {}\r\n", folder.out));
    }
}

/// A server's reply begins with its code; what does not is in our own words (RFC 3464 section
/// 2.3.6).
fn diagnostic_type(diagnostic: &str) -> &'static str {
    let mut bytes = diagnostic.bytes();
    let mut digit = |range: std::ops::RangeInclusive<u8>| {
        bytes.next().is_some_and(|byte| range.contains(&byte))
    };
    let code = digit(b'2'..=b'5') && digit(b'0'..=b'9') && digit(b'0'..=b'9');
    match code && bytes.next().is_none_or(|byte| matches!(byte, b' ' | b'-')) {
        true => "smtp",
        false => "x-postrider",
    }
}

/// An address with its type (RFC 3464 section 2.1.2, RFC 6533 section 3).
fn typed_address(address: &str) -> String {
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    let escaped: String = address
        .chars()
        .map(|c| match c {
            '!'..='~' if !matches!(c, '+' | '=' | '\\') => c.to_string(),
            _ => format!("\\x{{{:X}}}", u32::from(c)),
        })
        .collect();
    format!("utf-8; {escaped}")
}

/// A code of the form of RFC 3463 section 2.
fn status(action: ReportAction, given: &str) -> String {
    let mut parts = given.split('.');
    let class = match action {
        ReportAction::Failed => ["4", "5"].as_slice(),
        ReportAction::Delayed => ["4"].as_slice(),
        ReportAction::Delivered | ReportAction::Relayed | ReportAction::RelayedAfterAll => {
            ["2"].as_slice()
        }
    };
    let good = parts.next().is_some_and(|first| class.contains(&first))
        && (0..2).all(|_| {
            parts.next().is_some_and(|part| {
                (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
            })
        })
        && parts.next().is_none();
    match (good, action) {
        (true, _) => given.to_owned(),
        (false, ReportAction::Failed) => "5.0.0".to_owned(),
        (false, ReportAction::Delayed) => "4.0.0".to_owned(),
        (false, _) => "2.0.0".to_owned(),
    }
}

/// One line, without control characters, of bounded length.
fn flat(text: &str) -> String {
    let text: String =
        text.chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lines of about 70 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < 70 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The original, or its header. Those with octets above 127 in the header are of the types of
/// RFC 6533.
fn returned_part(original: Original<'_>) -> Option<SinglePart> {
    let (media_type, bytes) = match original {
        Original::Missing => return None,
        Original::Whole(bytes) if bytes.len() <= MAX_RETURNED => {
            match split_header(bytes).is_ascii() {
                true => ("message/rfc822", bytes),
                false => ("message/global", bytes),
            }
        }
        Original::Whole(bytes) | Original::Beginning(bytes) => {
            let header = split_header(bytes);
            match header.is_ascii() {
                true => ("text/rfc822-headers", header),
                false => ("message/global-headers", header),
            }
        }
    };
    let encoding = match if bytes.is_ascii() { Octets::SevenBit } else { Octets::EightBit } {
        Octets::SevenBit => ContentTransferEncoding::SevenBit,
        Octets::EightBit => ContentTransferEncoding::EightBit,
    };
    let part = SinglePart::builder().header(TypeOfPart(media_type.to_owned()));
    Some(part.body(Body::dangerous_pre_encoded(bytes.to_vec(), encoding)))
}

#[cfg(test)]
mod tests;
