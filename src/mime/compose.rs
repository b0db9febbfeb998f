//! Makes RFC 5322 bytes of a message object.

pub(super) mod body;

use super::address::check;
use super::encode::{Folder, unstructured};
use super::normalise::{date_field, mailboxes_field};
use super::{Defaults, Mailbox, MimeError};
use crate::mapi::{
    Importance, MessageData, Priority, PropList, PropValue, Recipient, RecipientType, tags,
};

/// Longest `Message-ID` and `Content-ID` that is taken, in octets: each must fit into a line.
const MAX_ID: usize = 900;

/// Makes RFC 5322 bytes of a message object: pure, equal input gives equal bytes.
///
/// The text is `PR_BODY`, `PR_HTML` or both as alternatives; attachments with a content id go
/// beside the HTML, the others behind. Non-ASCII text is encoded (RFC 2047, RFC 2231,
/// quoted-printable or base64), so that the result has octets up to 127 only, except in addresses
/// that have more; headers are folded at 78 octets. `From` is `PR_SENT_REPRESENTING_*`, else
/// `PR_SENDER_*`, else that of `defaults`; `Sender` is added when both differ.
///
/// Blind copies, P1 rows and the originator's row never appear (OB-5). No property goes out but
/// those named here, so none that is not transmittable does (OB-6).
///
/// # Errors
/// What [`check_message`] refuses; [`MimeError::NoSender`].
pub fn compose(message: &MessageData, defaults: &Defaults) -> Result<Vec<u8>, MimeError> {
    check_message(message)?;
    let props = &message.props;
    let (from, sender) = originators(props, defaults.from.as_ref())?;
    let message_id = props.text(tags::INTERNET_MESSAGE_ID).unwrap_or(&defaults.message_id);
    let mut out = String::new();
    out.push_str(&date_field(
        "Date",
        props.time(tags::CLIENT_SUBMIT_TIME).unwrap_or(defaults.date),
    ));
    out.push_str(&mailboxes_field("From", &[from]));
    if let Some(sender) = sender {
        out.push_str(&mailboxes_field("Sender", &[sender]));
    }
    addressees(&message.recipients, &mut out);
    let subject = props.text(tags::SUBJECT).unwrap_or_default();
    out.push_str(&format!("Subject: {}\r\n", unstructured("Subject", subject)));
    out.push_str(&format!("Message-ID: {message_id}\r\n"));
    id_list("In-Reply-To", props.text(tags::IN_REPLY_TO_ID), &mut out);
    id_list("References", props.text(tags::INTERNET_REFERENCES), &mut out);
    urgency(props, &mut out);
    out.push_str("MIME-Version: 1.0\r\n");
    let mut bytes = out.into_bytes();
    bytes.append(&mut body::body(message, message_id));
    Ok(bytes)
}

/// Checks everything of a message object that goes into a header or an envelope: no CR, LF or
/// NUL (header injection), addresses that are addresses, ids that are ids.
///
/// # Errors
/// [`MimeError::BadHeader`] and [`MimeError::BadAddress`], naming what is wrong.
pub fn check_message(message: &MessageData) -> Result<(), MimeError> {
    for (tag, name) in HEADER_TEXTS {
        if let Some(PropValue::Unicode(text)) = message.props.value(tag) {
            check_text(name, text)?;
        }
    }
    for (tag, name) in [
        (tags::SENDER_EMAIL_ADDRESS, "sender"),
        (tags::SENT_REPRESENTING_EMAIL_ADDRESS, "author"),
        (tags::ENVELOPE_SENDER, "envelope sender"),
    ] {
        match message.props.text(tag) {
            // The null sender of RFC 5321 section 4.5.5.
            Some("") if tag == tags::ENVELOPE_SENDER => {}
            Some(address) => check(name, address)?,
            None => {}
        }
    }
    if let Some(id) = message.props.text(tags::INTERNET_MESSAGE_ID) {
        check_message_id("Message-ID", id)?;
    }
    for recipient in &message.recipients {
        check_text("name of a recipient", &recipient.display_name)?;
        check_text("address of a recipient", &recipient.address)?;
        if recipient.is_type("SMTP") {
            check("recipient", &recipient.address)?;
        }
    }
    for attachment in &message.attachments {
        check_text("file name of an attachment", &attachment.filename)?;
        check_text("media type of an attachment", &attachment.mime_tag)?;
        check_text("Content-ID of an attachment", &attachment.content_id)?;
        if !attachment.content_id.is_empty() {
            check_message_id(
                "Content-ID of an attachment",
                &format!("<{}>", attachment.content_id),
            )?;
        }
    }
    Ok(())
}

/// The texts of the properties that end up in a header or an envelope.
const HEADER_TEXTS: [(crate::mapi::PropTag, &str); 8] = [
    (tags::SUBJECT, "Subject"),
    (tags::INTERNET_MESSAGE_ID, "Message-ID"),
    (tags::IN_REPLY_TO_ID, "In-Reply-To"),
    (tags::INTERNET_REFERENCES, "References"),
    (tags::SENDER_NAME, "name of the sender"),
    (tags::SENT_REPRESENTING_NAME, "name of the author"),
    (tags::ENVELOPE_SENDER, "envelope sender"),
    (tags::ENVELOPE_ID, "envelope id"),
];

/// Checks that a text can stand in a header.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), MimeError> {
    let why = match text.chars().find(|c| matches!(c, '\r' | '\n' | '\0')) {
        None => return Ok(()),
        Some('\0') => "it has a NUL in it",
        Some(_) => "it has a line break in it",
    };
    Err(MimeError::BadHeader { what: what.to_owned(), why })
}

/// Checks an id with its angle brackets (RFC 5322 section 3.6.4, with tolerance inside).
fn check_message_id(what: &str, id: &str) -> Result<(), MimeError> {
    let inside = id.strip_prefix('<').and_then(|id| id.strip_suffix('>'));
    let good = inside.is_some_and(|inside| {
        !inside.is_empty()
            && inside.len() <= MAX_ID
            && inside
                .bytes()
                .all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'<' | b'>'))
    });
    match good {
        true => Ok(()),
        false => Err(MimeError::BadHeader {
            what: what.to_owned(),
            why: "it must be printable text in angle brackets, without blanks",
        }),
    }
}

/// Who wrote the message, and who sends it when that is someone else.
fn originators(
    props: &PropList,
    default: Option<&Mailbox>,
) -> Result<(Mailbox, Option<Mailbox>), MimeError> {
    let mailbox = |address, name| {
        let name = props.text(name).unwrap_or_default();
        props.text(address).map(|address| Mailbox::new(name, address))
    };
    let author = mailbox(tags::SENT_REPRESENTING_EMAIL_ADDRESS, tags::SENT_REPRESENTING_NAME);
    let sender = mailbox(tags::SENDER_EMAIL_ADDRESS, tags::SENDER_NAME).or(default.cloned());
    match (author, sender) {
        (Some(author), Some(sender)) if !same_address(&author, &sender) => {
            Ok((author, Some(sender)))
        }
        (Some(author), _) => Ok((author, None)),
        (None, Some(sender)) => Ok((sender, None)),
        (None, None) => Err(MimeError::NoSender),
    }
}

fn same_address(one: &Mailbox, other: &Mailbox) -> bool {
    one.address.eq_ignore_ascii_case(&other.address)
}

fn addressees(recipients: &[Recipient], out: &mut String) {
    let of = |kind: RecipientType| -> Vec<Mailbox> {
        recipients
            .iter()
            .filter(|row| row.kind == kind && !row.p1 && row.is_type("SMTP"))
            .map(|row| Mailbox::new(row.display_name.clone(), row.address.clone()))
            .collect()
    };
    let (to, cc) = (of(RecipientType::To), of(RecipientType::Cc));
    if to.is_empty() && cc.is_empty() {
        out.push_str("To: undisclosed-recipients:;\r\n");
    }
    for (name, list) in [("To", to), ("Cc", cc)] {
        if !list.is_empty() {
            out.push_str(&mailboxes_field(name, &list));
        }
    }
}

/// A field with ids; those that could not stand in a line are left out.
fn id_list(name: &str, ids: Option<&str>, out: &mut String) {
    let mut folder = Folder::new(name.len() + 2);
    let mut any = false;
    for id in ids.unwrap_or_default().split_whitespace() {
        if id.len() <= MAX_ID && id.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            folder.word(id);
            any = true;
        }
    }
    if any {
        out.push_str(&format!("{name}: {}\r\n", folder.out));
    }
}

/// `Importance`, `Priority` and `Expires` of RFC 2156, and `X-Priority` for the programs that know
/// only it.
fn urgency(props: &PropList, out: &mut String) {
    out.push_str(match Importance::of(props) {
        Importance::High => "Importance: high\r\nX-Priority: 1\r\n",
        Importance::Normal => "",
        Importance::Low => "Importance: low\r\nX-Priority: 5\r\n",
    });
    out.push_str(match Priority::of(props) {
        Priority::Urgent => "Priority: urgent\r\n",
        Priority::Normal => "",
        Priority::NonUrgent => "Priority: non-urgent\r\n",
    });
    if let Some(time) = props.time(tags::EXPIRY_TIME) {
        out.push_str(&date_field("Expires", time));
    }
}

#[cfg(test)]
mod tests;
