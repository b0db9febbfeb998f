//! From the options of `send` to a message object.

use std::io::Read;
use std::path::Path;

use super::args::{ImportanceName, PriorityName, SendArguments};
use super::exit::Failure;
use super::media_type;
use super::send_time::Times;
use crate::mapi::{Attachment, MapiCode, MapiError, MessageData, Recipient, RecipientType, tags};
use crate::profile::{IdentityProfile, parse_mailbox, parse_mailboxes};
use crate::session::{RawEnvelope, Submission};

/// The largest message that is put together in memory, in bytes; larger ones go in with `--raw`,
/// which streams.
const LARGEST: usize = 64 * 1024 * 1024;

/// The message object that the options ask for.
pub(crate) fn message(
    arguments: &SendArguments,
    body: Option<String>,
    times: Times,
) -> Result<Submission, Failure> {
    let mut message = MessageData { recipients: recipients(arguments)?, ..MessageData::default() };
    if message.recipients.is_empty() {
        return Err(nobody());
    }
    let props = &mut message.props;
    if let Some(sender) = sender(arguments)? {
        props.set(tags::SENDER_EMAIL_ADDRESS, sender.address);
        if !sender.name.is_empty() {
            props.set(tags::SENDER_NAME, sender.name);
        }
    }
    if let Some(subject) = &arguments.subject {
        if subject.chars().any(char::is_control) {
            return Err(bad_data("the subject has a control character or line end in it"));
        }
        props.set(tags::SUBJECT, subject.as_str());
    }
    let mut left = LARGEST;
    if let Some(body) = body {
        left = left.checked_sub(body.len()).ok_or_else(too_big)?;
        props.set(tags::BODY, body);
    }
    if let Some(file) = &arguments.html {
        let html = read_file(file, &mut left)?;
        let html = String::from_utf8(html)
            .map_err(|_| bad_data(&format!("{} is not UTF-8", file.display())))?;
        props.set(tags::HTML, html);
    }
    if let Some(instant) = times.not_before {
        props.set(tags::DEFERRED_SEND_TIME, instant);
    }
    if let Some(instant) = times.expires {
        props.set(tags::EXPIRY_TIME, instant);
    }
    if let Some(name) = arguments.importance {
        props.set(tags::IMPORTANCE, name.importance().value());
    }
    if let Some(name) = arguments.priority {
        props.set(tags::PRIORITY, name.priority().value());
    }
    if arguments.dsn {
        props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    }
    for file in &arguments.attachments {
        message.attachments.push(attachment(file, &mut left)?);
    }
    Ok(Submission { message })
}

/// The envelope of `send --raw`.
pub(crate) fn envelope(arguments: &SendArguments, times: Times) -> Result<RawEnvelope, Failure> {
    let named = recipients(arguments)?;
    let from = match arguments.from.as_deref().map(str::trim) {
        // The null sender of reports.
        Some("" | "<>") => Some(String::new()),
        _ => sender(arguments)?.map(|sender| sender.address),
    };
    Ok(RawEnvelope {
        from,
        recipients_from_header: named.is_empty(),
        recipients: named.into_iter().map(|recipient| recipient.address).collect(),
        delivery_report: arguments.dsn,
        deferred_send_time: times.not_before,
        expiry_time: times.expires,
        importance: arguments.importance.map(ImportanceName::importance),
        priority: arguments.priority.map(PriorityName::priority),
        ..RawEnvelope::default()
    })
}

/// Standard input as the body of a message.
pub(crate) fn body(mut input: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX).saturating_add(1);
    let read = input.by_ref().take(limit).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io("read the body from standard input", &error))?;
    if bytes.len() > LARGEST {
        return Err(too_big());
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        bad_data("the body on standard input is not UTF-8; convert it, attach it or use --raw")
    })?;
    check_body(&text)?;
    Ok(text)
}

/// Refuses what no mail may contain.
pub(crate) fn check_body(text: &str) -> Result<(), Failure> {
    if text.contains('\0') { Err(bad_data("the body has a NUL in it")) } else { Ok(()) }
}

fn sender(arguments: &SendArguments) -> Result<Option<IdentityProfile>, Failure> {
    let parsed = arguments.from.as_deref().map(parse_mailbox).transpose();
    parsed.map_err(|why| bad_data(&format!("the sender {why}")))
}

fn recipients(arguments: &SendArguments) -> Result<Vec<Recipient>, Failure> {
    let kinds = [
        (RecipientType::To, &arguments.to),
        (RecipientType::Cc, &arguments.cc),
        (RecipientType::Bcc, &arguments.bcc),
    ];
    let mut recipients: Vec<Recipient> = Vec::new();
    for (kind, texts) in kinds {
        for text in texts {
            let mailboxes = parse_mailboxes(text);
            for mailbox in mailboxes.map_err(|why| bad_data(&format!("the recipient {why}")))? {
                let row = u32::try_from(recipients.len()).map_err(|_| too_big())?;
                let recipient = Recipient::smtp(row, kind, mailbox.address);
                recipients.push(recipient.named(mailbox.name));
            }
        }
    }
    Ok(recipients)
}

fn attachment(file: &Path, left: &mut usize) -> Result<Attachment, Failure> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let filename: String = name.chars().filter(|c| !c.is_control()).collect();
    Ok(Attachment {
        mime_tag: media_type::of_name(&filename).to_owned(),
        filename,
        content_id: String::new(),
        data: read_file(file, left)?,
    })
}

fn read_file(file: &Path, left: &mut usize) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: std::io::Error| Failure::io(format_args!("read {}", file.display()), &error);
    let opened = std::fs::File::open(file).map_err(failed)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(*left).unwrap_or(u64::MAX).saturating_add(1);
    opened.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    *left = left.checked_sub(bytes.len()).ok_or_else(too_big)?;
    Ok(bytes)
}

/// A message for nobody (OB-17).
fn nobody() -> Failure {
    let error = MapiError::new(MapiCode::NO_RECIPIENTS, "name at least one recipient with -t");
    Failure::contract("send", &error)
}

fn too_big() -> Failure {
    let detail = format!("it is larger than {} MB; use --raw", LARGEST / 1024 / 1024);
    Failure::contract("send", &MapiError::new(MapiCode::TOO_BIG, detail))
}

fn bad_data(why: &str) -> Failure {
    Failure::contract("send", &MapiError::new(MapiCode::INVALID_PARAMETER, why))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;
    use crate::mapi::SysTime;

    fn to(texts: &[&str]) -> SendArguments {
        SendArguments {
            to: texts.iter().map(|text| (*text).to_owned()).collect(),
            ..SendArguments::default()
        }
    }

    #[test]
    fn every_option_finds_its_property() {
        let temp = tempfile::tempdir().unwrap();
        let (html, photo) = (temp.path().join("a.html"), temp.path().join("photo.jpg"));
        std::fs::write(&html, "<p>hi").unwrap();
        std::fs::write(&photo, [0xff, 0xd8]).unwrap();
        let arguments = SendArguments {
            from: Some("Ann <ann@example.org>".into()),
            to: vec!["Bob <bob@example.net>, carol@example.net".into(), "dan@example.net".into()],
            cc: vec!["cc@example.net".into()],
            bcc: vec!["bcc@example.net".into()],
            subject: Some("Grüße".into()),
            html: Some(html),
            attachments: vec![photo],
            dsn: true,
            importance: Some(ImportanceName::Low),
            priority: Some(PriorityName::Urgent),
            ..SendArguments::default()
        };
        let (instant, end) = (SysTime::from_millis(5), SysTime::from_millis(9));
        let times = Times { not_before: Some(instant), expires: Some(end) };
        let message = message(&arguments, Some("hi".into()), times).unwrap().message;
        assert_eq!(message.props.time(tags::EXPIRY_TIME), Some(end));
        assert_eq!(message.props.long(tags::IMPORTANCE), Some(0));
        assert_eq!(message.props.long(tags::PRIORITY), Some(1));
        let raw = envelope(&arguments, times).unwrap();
        assert_eq!((raw.deferred_send_time, raw.expiry_time), (Some(instant), Some(end)));
        assert_eq!(raw.importance, Some(crate::mapi::Importance::Low));
        assert_eq!(raw.priority, Some(crate::mapi::Priority::Urgent));
        assert_eq!(message.props.text(tags::SENDER_NAME), Some("Ann"));
        assert_eq!(message.props.text(tags::SENDER_EMAIL_ADDRESS), Some("ann@example.org"));
        assert_eq!(message.props.text(tags::SUBJECT), Some("Grüße"));
        assert_eq!(message.props.text(tags::BODY), Some("hi"));
        assert_eq!(message.props.text(tags::HTML), Some("<p>hi"));
        assert_eq!(message.props.time(tags::DEFERRED_SEND_TIME), Some(instant));
        let wished = message.props.boolean(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED);
        assert_eq!(wished, Some(true));
        let rows: Vec<(u32, RecipientType, &str, &str)> = message
            .recipients
            .iter()
            .map(|row| (row.row, row.kind, row.address.as_str(), row.display_name.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                (0, RecipientType::To, "bob@example.net", "Bob"),
                (1, RecipientType::To, "carol@example.net", ""),
                (2, RecipientType::To, "dan@example.net", ""),
                (3, RecipientType::Cc, "cc@example.net", ""),
                (4, RecipientType::Bcc, "bcc@example.net", ""),
            ]
        );
        assert_eq!(message.attachments[0].filename, "photo.jpg");
        assert_eq!(message.attachments[0].mime_tag, "image/jpeg");
        assert_eq!(message.attachments[0].data, [0xff, 0xd8]);
    }

    #[test]
    fn what_no_mail_may_contain_is_bad_data() {
        let bad =
            |arguments: &SendArguments| message(arguments, None, Times::default()).unwrap_err();
        let subject = SendArguments { subject: Some("a\r\nBcc: x@y.z".into()), ..to(&["a@b.c"]) };
        assert_eq!(bad(&subject).exit, Exit::Data);
        assert_eq!(bad(&to(&["a@b.c\r\nx"])).exit, Exit::Data);
        assert_eq!(bad(&to(&["nonsense"])).exit, Exit::Data);
        let from = SendArguments { from: Some("@".into()), ..to(&["a@b.c"]) };
        assert_eq!(bad(&from).exit, Exit::Data);
        assert_eq!(body(&b"a\0b"[..]).unwrap_err().exit, Exit::Data);
        assert_eq!(body(&b"\xff"[..]).unwrap_err().exit, Exit::Data);
        assert_eq!(body(&b"ok"[..]).unwrap(), "ok");
    }

    #[test]
    fn limits_and_missing_files_are_told() {
        let nobody = message(&to(&[]), None, Times::default()).unwrap_err();
        assert_eq!((nobody.exit, nobody.code), (Exit::Usage, Some(MapiCode::NO_RECIPIENTS)));
        let missing =
            SendArguments { attachments: vec!["/nonexistent/x".into()], ..to(&["a@b.c"]) };
        let failure = message(&missing, None, Times::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::Io);
        assert!(failure.line().unwrap().contains("/nonexistent/x"));
        let endless = body(std::io::repeat(b'x')).unwrap_err();
        assert_eq!((endless.exit, endless.code), (Exit::Unavailable, Some(MapiCode::TOO_BIG)));
    }

    #[test]
    fn raw_messages_name_their_recipients_here_or_themselves() {
        let named = envelope(&to(&["Bob <b@example.net>"]), Times::default()).unwrap();
        assert_eq!(
            (named.recipients, named.recipients_from_header),
            (vec!["b@example.net".into()], false)
        );
        let own = SendArguments { from: Some("<>".into()), ..to(&[]) };
        let own = envelope(&own, Times::default()).unwrap();
        assert!(own.recipients_from_header);
        assert_eq!(own.from.as_deref(), Some(""));
        assert_eq!(envelope(&to(&[]), Times::default()).unwrap().from, None);
    }
}
