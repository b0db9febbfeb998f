//! What has to hold for messages and headers of any bytes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mail_parser::{MessageParser, MimeHeaders};

use super::address::{check, parse_list};
use super::header::{fields, split_header};
use super::{
    Accepts, Defaults, IncomingHeader, Mailbox, MimeError, Normalised, Normaliser, Octets,
    ParsedHeader, Recoder, Scanner, Survey, compose, to_seven_bit, to_short_lines,
};
use crate::mapi::{Attachment, MessageData, PropList, Recipient, RecipientType, SysTime, tags};
use crate::properties::Bytes;

fn defaults() -> Defaults {
    Defaults {
        from: Some(Mailbox::new("Ann", "ann@example.org")),
        date: SysTime::from_millis(1_700_000_000_000),
        message_id: "<1@example.org>".to_owned(),
    }
}

/// A list is read, whatever it is; what stands the check can be shown and is read back.
pub fn addresses(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let list = parse_list(&text);
    assert!(list.mailboxes.len() + list.malformed.len() <= text.len());
    for mailbox in list.mailboxes {
        if check("to", &mailbox.address).is_err() {
            continue;
        }
        assert!(!mailbox.address.contains(['\r', '\n', '\0']));
        let read = parse_list(&mailbox.address);
        assert_eq!(read.mailboxes, [Mailbox::new("", &*mailbox.address)], "{read:?}");
    }
    if check("to", &text).is_ok() {
        let read = parse_list(&text);
        assert_eq!(read.mailboxes, [Mailbox::new("", &*text)], "{read:?}");
    }
}

/// What `send --raw` and `sendmail -t` do with a message: the pieces in which it comes do not
/// matter, blind copies are gone, what is normal stays as it is.
pub fn header(bytes: &[u8]) {
    let mut input = Bytes(bytes);
    let size = usize::from(input.byte()).max(1);
    let message = input.rest();
    let whole = normalise(&[message]);
    let pieces = normalise(&message.chunks(size).collect::<Vec<_>>());
    assert_eq!(whole.is_ok(), pieces.is_ok());
    let parsed = ParsedHeader::of(message);
    assert!(parsed.recipients.len() <= 1000);
    let mut incoming = IncomingHeader::default();
    message.chunks(size).for_each(|piece| incoming.push(piece));
    assert_eq!(incoming.parse().recipients, parsed.recipients);
    let (Ok((out, normalised)), Ok((same, _))) = (whole, pieces) else { return };
    assert_eq!(out.escape_ascii().to_string(), same.escape_ascii().to_string());
    assert!(out.ends_with(b"\r\n"));
    let block = split_header(&out);
    assert!(!fields(block).any(|field| field.is("bcc") || field.is("resent-bcc")));
    for mailbox in normalised.facts.header.recipients() {
        assert!(!mailbox.address.contains(['\r', '\n', '\0']), "{mailbox:?}");
    }
    let mut scanner = Scanner::new();
    scanner.push(&out).unwrap();
    let facts = scanner.finish();
    assert_eq!(facts.header.to, normalised.facts.header.to);
    assert_eq!(facts.header.cc, normalised.facts.header.cc);
    assert_eq!(facts.size, normalised.facts.size);
    assert_eq!(facts.longest_line, normalised.facts.longest_line);
    let (again, _) = normalise(&[&out]).unwrap();
    assert_eq!(again.escape_ascii().to_string(), out.escape_ascii().to_string());
}

fn normalise(pieces: &[&[u8]]) -> Result<(Vec<u8>, Normalised), MimeError> {
    let mut normaliser = Normaliser::new(defaults());
    let mut out = Vec::new();
    for piece in pieces {
        normaliser.push(piece, &mut out)?;
    }
    let normalised = normaliser.finish(&mut out)?;
    Ok((out, normalised))
}

/// What is recoded fits the server it is recoded for, and is not changed a second time.
pub fn message_bytes(bytes: &[u8]) {
    let Ok((message, _)) = normalise(&[bytes]) else { return };
    let mut survey = Survey::new();
    survey.push(&message);
    let mut recoder = Recoder::new(&survey.finish(), Accepts::default());
    let mut seven = Vec::new();
    recoder.push(&message, &mut seven);
    let left = recoder.finish(&mut seven);
    let facts = scan(&seven);
    assert!(facts.longest_line <= 998 && !facts.bare_cr, "{}", seven.escape_ascii());
    // Headers, those of parts too, may keep what cannot be encoded; then it says so.
    let told = left == Octets::EightBit || seven.is_ascii();
    assert!(told, "{}", seven.escape_ascii());
    assert_eq!(seven, to_seven_bit(&seven), "{}", message.escape_ascii());
    let short = to_short_lines(&message);
    let facts = scan(&short);
    assert!(facts.longest_line <= 998 && !facts.bare_cr, "{}", short.escape_ascii());
}

fn scan(message: &[u8]) -> super::Facts {
    let mut scanner = Scanner::new();
    scanner.push(message).unwrap();
    scanner.finish()
}

/// A message we make is read back by another reader with the same subject, recipients, text and
/// attachments.
pub fn message_out(bytes: &[u8]) {
    let message = message_of(Bytes(bytes));
    let Ok(made) = compose(&message, &defaults()) else { return };
    let facts = scan(&made);
    assert!(facts.longest_line <= 998 && !facts.bare_cr && facts.body == Octets::SevenBit);
    let visible = |kind| {
        let rows = message.recipients.iter().filter(move |row| row.kind == kind);
        rows.map(|row| row.address.clone()).collect::<Vec<_>>()
    };
    let read = |list: &[Mailbox]| list.iter().map(|one| one.address.clone()).collect::<Vec<_>>();
    assert_eq!(read(&facts.header.to), visible(RecipientType::To));
    assert_eq!(read(&facts.header.cc), visible(RecipientType::Cc));
    assert!(facts.header.bcc.is_empty());
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let subject = squeeze(message.props.text(tags::SUBJECT).unwrap_or_default());
    // What looks like an encoded word before it is encoded is one behind it to lenient readers.
    if !subject.contains("=?") {
        assert_eq!(squeeze(&facts.header.subject), subject);
    }
    let parsed = MessageParser::default().parse(&made).unwrap();
    let lines = |text: &str| text.replace("\r\n", "\n").trim_end_matches('\n').to_owned();
    if let Some(body) = message.props.text(tags::BODY).filter(|body| !body.contains('\r')) {
        let text = parsed.text_bodies().next().unwrap().text_contents().unwrap().to_owned();
        assert_eq!(lines(&text), lines(body));
    }
    let attached: Vec<&[u8]> = parsed.attachments().map(|part| part.contents()).collect();
    for attachment in &message.attachments {
        assert!(attached.contains(&&*attachment.data), "{}", made.escape_ascii());
    }
    let names = parsed.attachments().filter_map(|part| part.attachment_name()).count();
    assert!(names <= message.attachments.len());
}

fn message_of(mut bytes: Bytes<'_>) -> MessageData {
    let mut props = PropList::new();
    let parts = bytes.byte();
    props.set(tags::SUBJECT, printable(&bytes.text()));
    props.set(tags::SENDER_NAME, printable(&bytes.text()));
    props.set(tags::SENDER_EMAIL_ADDRESS, "ann@example.org");
    if parts & 1 == 0 {
        let text: String = bytes.text().chars().filter(|sign| *sign != '\0').collect();
        props.set(tags::BODY, text);
    }
    if parts & 2 != 0 {
        props.set(tags::HTML, printable(&bytes.text()));
    }
    let kinds = [RecipientType::To, RecipientType::Cc, RecipientType::Bcc];
    let recipients = (0..u32::from(bytes.byte() % 5))
        .map(|number| {
            let kind = kinds[usize::from(bytes.byte()) % kinds.len()];
            let mut row = Recipient::smtp(number, kind, format!("r{number}@example.org"));
            row.display_name = printable(&bytes.text());
            row
        })
        .collect();
    let attachments = (0..bytes.byte() % 4)
        .map(|_| Attachment {
            filename: printable(&bytes.text()),
            data: bytes.piece().to_vec(),
            ..Attachment::default()
        })
        .collect();
    MessageData { props, recipients, attachments }
}

fn printable(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect()
}
