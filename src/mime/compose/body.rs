//! The body of a composed message: text, alternatives, what belongs to them, attachments.

use lettre::message::header::{
    ContentTransferEncoding, ContentType, Header, HeaderName, HeaderValue,
};
use lettre::message::{Body, MultiPart, SinglePart};

use crate::mapi::{Attachment, MessageData, tags};
use crate::mime::encode::{base64_lines, boundary_stem, parameter, quoted_printable};
use crate::mime::{MAX_LINE, Scanner, to_seven_bit};

/// A header of a part that is encoded already.
macro_rules! ready_header {
    ($type:ident, $name:literal) => {
        #[derive(Clone)]
        pub(in crate::mime) struct $type(pub(in crate::mime) String);

        impl Header for $type {
            fn name() -> HeaderName {
                HeaderName::new_from_ascii_str($name)
            }

            fn parse(value: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
                Ok($type(value.to_owned()))
            }

            fn display(&self) -> HeaderValue {
                HeaderValue::dangerous_new_pre_encoded(Self::name(), self.0.clone(), self.0.clone())
            }
        }
    };
}

ready_header!(Disposition, "Content-Disposition");
ready_header!(ContentId, "Content-ID");
ready_header!(TypeOfPart, "Content-Type");

/// The media type of a message within a message.
const RFC822: &str = "message/rfc822";

/// A part or several.
pub(in crate::mime) enum Tree {
    One(SinglePart),
    Many(MultiPart),
}

impl From<SinglePart> for Tree {
    fn from(part: SinglePart) -> Self {
        Tree::One(part)
    }
}

/// The MIME headers of the message, a blank line, and its body.
pub(super) fn body(message: &MessageData, message_id: &str) -> Vec<u8> {
    let (inline, attached): (Vec<&Attachment>, Vec<&Attachment>) =
        message.attachments.iter().partition(|attachment| {
            !attachment.content_id.is_empty() && message.props.text(tags::HTML).is_some()
        });
    let alone = message.attachments.is_empty();
    let boundaries = Boundaries::new(message, message_id);
    let plain = message.props.text(tags::BODY);
    let html = message.props.text(tags::HTML).map(|html| {
        let part = text_part("text/html", html, alone && plain.is_none());
        let parts = inline.into_iter().map(attachment_part).collect::<Vec<_>>();
        match parts.is_empty() {
            true => Tree::One(part),
            false => {
                let related = multipart(
                    "multipart/related; type=\"text/html\"",
                    &boundaries.next("r"),
                    std::iter::once(Tree::One(part)).chain(parts.into_iter().map(Tree::One)),
                );
                Tree::Many(related)
            }
        }
    });
    let text = match (plain, html) {
        (Some(plain), Some(html)) => {
            let plain = Tree::One(text_part("text/plain", plain, false));
            Tree::Many(multipart("multipart/alternative", &boundaries.next("a"), [plain, html]))
        }
        (None, Some(html)) => html,
        (plain, None) => Tree::One(text_part("text/plain", plain.unwrap_or_default(), alone)),
    };
    let whole = match attached.is_empty() {
        true => text,
        false => Tree::Many(multipart(
            "multipart/mixed",
            &boundaries.next("m"),
            std::iter::once(text)
                .chain(attached.into_iter().map(|part| Tree::One(attachment_part(part)))),
        )),
    };
    match whole {
        Tree::One(part) => part.formatted(),
        Tree::Many(parts) => parts.formatted(),
    }
}

/// Several parts in one; `kind` is the media type with its other parameters.
pub(in crate::mime) fn multipart(
    kind: &str,
    boundary: &str,
    parts: impl IntoIterator<Item = Tree>,
) -> MultiPart {
    let content_type = TypeOfPart(format!("{kind};\r\n boundary=\"{boundary}\""));
    let raw = format!("multipart/mixed; boundary=\"{boundary}\"");
    let mut whole =
        MultiPart::builder().header(WithBoundary { shown: content_type.0, raw }).build();
    for part in parts {
        whole = match part {
            Tree::One(part) => whole.singlepart(part),
            Tree::Many(parts) => whole.multipart(parts),
        };
    }
    whole
}

/// A `Content-Type` whose folded form is written, and whose plain form the builder reads the
/// boundary from.
#[derive(Clone)]
pub(in crate::mime) struct WithBoundary {
    pub(in crate::mime) shown: String,
    pub(in crate::mime) raw: String,
}

impl Header for WithBoundary {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Content-Type")
    }

    fn parse(value: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(WithBoundary { shown: value.to_owned(), raw: value.to_owned() })
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::dangerous_new_pre_encoded(Self::name(), self.raw.clone(), self.shown.clone())
    }
}

/// A part of text. The builder ends every part with a line end: `closes` takes the text's own
/// one away, so that a message that is nothing but this text does not grow by a line.
pub(in crate::mime) fn text_part(media_type: &str, text: &str, closes: bool) -> SinglePart {
    let text = crlf(text);
    let open = text.strip_suffix("\r\n").unwrap_or(&text);
    let (encoding, body) = match encode_text(if closes { open } else { &text }) {
        // The line end behind base64 is none of the text's.
        (ContentTransferEncoding::Base64, _) => {
            (ContentTransferEncoding::Base64, base64_lines(text.as_bytes()))
        }
        encoded => encoded,
    };
    SinglePart::builder()
        .header(TypeOfPart(format!("{media_type}; charset=utf-8")))
        .body(Body::dangerous_pre_encoded(body, encoding))
}

/// The text with CR LF for every line end it has, be it LF, CR or CR LF.
fn crlf(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push_str("\r\n");
            }
            '\n' => out.push_str("\r\n"),
            _ => out.push(c),
        }
    }
    out
}

/// As it is when that can be, else in whichever encoding is shorter.
fn encode_text(text: &str) -> (ContentTransferEncoding, Vec<u8>) {
    let bytes = text.as_bytes();
    let plain = bytes.iter().all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~'))
        && text.split("\r\n").all(|line| line.len() as u64 <= MAX_LINE);
    if plain {
        return (ContentTransferEncoding::SevenBit, bytes.to_vec());
    }
    let escaped = bytes.iter().filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~'));
    // Each escaped octet costs three, base64 costs a third: even at one in six.
    match escaped.count() * 6 > bytes.len() {
        true => (ContentTransferEncoding::Base64, base64_lines(bytes)),
        false => (ContentTransferEncoding::QuotedPrintable, quoted_printable(bytes)),
    }
}

fn attachment_part(attachment: &Attachment) -> SinglePart {
    let inline = !attachment.content_id.is_empty();
    let mut disposition = if inline { "inline" } else { "attachment" }.to_owned();
    if !attachment.filename.is_empty() {
        disposition.push_str(&parameter("filename", base_name(&attachment.filename)));
    }
    let mut part = SinglePart::builder();
    let media_type = media_type(&attachment.mime_tag);
    let message = (media_type == RFC822).then(|| message_bytes(&attachment.data));
    let body = match &message {
        Some(Some(bytes)) => {
            Body::dangerous_pre_encoded(bytes.clone(), ContentTransferEncoding::SevenBit)
        }
        _ => Body::dangerous_pre_encoded(
            base64_lines(&attachment.data),
            ContentTransferEncoding::Base64,
        ),
    };
    part = part.header(TypeOfPart(match message {
        Some(None) => "application/octet-stream".to_owned(),
        _ => media_type,
    }));
    if inline {
        part = part.header(ContentId(format!("<{}>", attachment.content_id)));
    }
    part.header(Disposition(disposition)).body(body)
}

/// The file name without the folders of any system.
fn base_name(name: &str) -> &str {
    match name.rsplit(['/', '\\']).next() {
        Some(base) if !base.is_empty() => base,
        _ => name,
    }
}

/// The media type, or `application/octet-stream` for what is none or cannot be base64 (RFC 2046
/// sections 5.1 and 5.2).
fn media_type(tag: &str) -> String {
    let lower = tag.to_ascii_lowercase();
    let usable = tag.len() <= 60
        && tag.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && !lower.starts_with("multipart/")
        && (!lower.starts_with("message/") || lower == RFC822)
        && ContentType::parse(tag).is_ok();
    match usable {
        true if lower == RFC822 => lower,
        true => tag.to_owned(),
        false => "application/octet-stream".to_owned(),
    }
}

/// A message as it may stand within another, which must not encode it; `None` when it cannot.
fn message_bytes(data: &[u8]) -> Option<Vec<u8>> {
    let mut scanner = Scanner::new();
    scanner.push(data).ok()?;
    let facts = scanner.finish();
    if facts.nul.is_some() || facts.bare_lf || facts.open_end {
        return None;
    }
    let bytes = to_seven_bit(data);
    let mut scanner = Scanner::new();
    scanner.push(&bytes).ok()?;
    let facts = scanner.finish();
    (bytes.is_ascii() && !facts.needs_short_lines()).then_some(bytes)
}

/// Boundaries that occur nowhere in the message.
struct Boundaries {
    stem: String,
}

impl Boundaries {
    fn new(message: &MessageData, message_id: &str) -> Self {
        let stem = boundary_stem(message_id, |stem| {
            let in_text = [tags::BODY, tags::HTML]
                .iter()
                .any(|tag| message.props.text(*tag).is_some_and(|text| text.contains(stem)));
            in_text
                || message.attachments.iter().any(|attachment| {
                    media_type(&attachment.mime_tag) == RFC822
                        && attachment.data.windows(stem.len()).any(|at| at == stem.as_bytes())
                })
        });
        Boundaries { stem }
    }

    fn next(&self, level: &str) -> String {
        format!("{}_{level}", self.stem)
    }
}
