//! Changes the header fields that a re-encoding touches.

use super::Accepts;
use crate::mime::MAX_LINE;
use crate::mime::address::parse_list;
use crate::mime::encode::unstructured;
use crate::mime::header::{Field, Item, items};
use crate::mime::normalise::mailboxes_field;

/// Whether a line is longer than 998 octets.
pub(super) fn has_long_line(block: &[u8]) -> bool {
    block
        .split(|byte| *byte == b'\n')
        .any(|line| line.strip_suffix(b"\r").unwrap_or(line).len() as u64 > MAX_LINE)
}

/// Whether a line is too long for any server, or has a CR that ends no line.
pub(super) fn is_unsendable(lines: &[u8]) -> bool {
    has_long_line(lines) || bare_crs(lines).next().is_some()
}

/// Makes a space of each CR that ends no line (RFC 5321 section 2.3.8).
pub(super) fn blank_bare_crs(bytes: &mut [u8]) {
    let found: Vec<usize> = bare_crs(bytes).collect();
    for at in found {
        if let Some(octet) = bytes.get_mut(at) {
            *octet = b' ';
        }
    }
}

fn bare_crs(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let is_bare = move |at: &usize| {
        bytes.get(*at) == Some(&b'\r') && bytes.get(at.saturating_add(1)) != Some(&b'\n')
    };
    (0..bytes.len()).filter(is_bare)
}

/// What is to be changed in one header block.
pub(super) struct Rewrite {
    accepts: Accepts,
    /// The new `Content-Transfer-Encoding`.
    pub(super) encoding: Option<&'static str>,
    /// Whether text without a charset gets one.
    pub(super) charset: bool,
    /// Whether something within changes, so that 8bit and binary are no longer true.
    pub(super) container: bool,
    /// Whether a missing `MIME-Version` is added.
    pub(super) mime_version: bool,
}

impl Rewrite {
    pub(super) fn new(accepts: Accepts) -> Self {
        Rewrite { accepts, encoding: None, charset: false, container: false, mime_version: false }
    }

    /// Appends the changed block.
    pub(super) fn write(&self, block: &[u8], out: &mut Vec<u8>) {
        let (mut has_encoding, mut has_type, mut has_version) = (false, false, false);
        for item in items(block) {
            let field = match item {
                Item::Field(field) => field,
                Item::Junk(raw) => {
                    refold(raw, out);
                    continue;
                }
            };
            has_version |= field.is("mime-version");
            if field.is("content-transfer-encoding") {
                self.transfer_encoding(&field, has_encoding, out);
                has_encoding = true;
            } else if field.is("content-type") && !has_type {
                has_type = true;
                match self.charset {
                    true => content_type(&field, out),
                    false => self.other(&field, out),
                }
            } else {
                self.other(&field, out);
            }
        }
        if self.mime_version && !has_version {
            out.extend_from_slice(b"MIME-Version: 1.0\r\n");
        }
        if self.charset && !has_type {
            out.extend_from_slice(b"Content-Type: text/plain; charset=unknown-8bit\r\n");
        }
        if let Some(encoding) = self.encoding
            && !has_encoding
        {
            out.extend_from_slice(format!("Content-Transfer-Encoding: {encoding}\r\n").as_bytes());
        }
    }

    fn transfer_encoding(&self, field: &Field<'_>, again: bool, out: &mut Vec<u8>) {
        let now = match self.encoding {
            // A second one would contradict.
            Some(_) if again => return,
            Some(encoding) => encoding,
            None if !self.container => return out.extend_from_slice(field.raw),
            None => {
                let text = field.text();
                let was_8bit = text.eq_ignore_ascii_case("8bit");
                let was_binary = text.eq_ignore_ascii_case("binary");
                match self.accepts.eight_bit_mime {
                    false if was_8bit || was_binary => "7bit",
                    true if was_binary => "8bit",
                    _ => return out.extend_from_slice(field.raw),
                }
            }
        };
        out.extend_from_slice(format!("Content-Transfer-Encoding: {now}\r\n").as_bytes());
    }

    fn other(&self, field: &Field<'_>, out: &mut Vec<u8>) {
        if !field.raw.is_ascii()
            && !self.accepts.smtputf8
            && let Some(encoded) = encode_field(field)
        {
            out.extend_from_slice(encoded.as_bytes());
        } else if has_long_line(field.raw) {
            refold(field.raw, out);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
}

/// Adds a charset to a `Content-Type` that has none.
fn content_type(field: &Field<'_>, out: &mut Vec<u8>) {
    let mut raw = field.raw;
    while let Some((b'\r' | b'\n' | b' ' | b'\t' | b';', before)) = raw.split_last() {
        raw = before;
    }
    let text = field.text().to_ascii_lowercase();
    if text.contains("charset") || !text.starts_with("text") {
        out.extend_from_slice(field.raw);
    } else {
        out.extend_from_slice(raw);
        out.extend_from_slice(b";\r\n charset=unknown-8bit\r\n");
    }
}

/// A field with raw UTF-8 in encoded words; `None` where there is no place for them.
fn encode_field(field: &Field<'_>) -> Option<String> {
    let text = field.text();
    if text.contains('\u{fffd}') {
        return None;
    }
    let name = field.name;
    match name.to_ascii_lowercase().as_str() {
        "from" | "sender" | "reply-to" | "to" | "cc" | "resent-from" | "resent-sender"
        | "resent-to" | "resent-cc" => {
            let list = parse_list(&text);
            let plain = list.malformed.is_empty()
                && !list.mailboxes.is_empty()
                && list.mailboxes.iter().all(|mailbox| mailbox.address.is_ascii());
            // A group would lose its name.
            (plain && !text.contains(';')).then(|| mailboxes_field(name, &list.mailboxes))
        }
        "message-id"
        | "references"
        | "in-reply-to"
        | "received"
        | "return-path"
        | "content-type"
        | "content-disposition"
        | "content-id"
        | "dkim-signature" => None,
        _ => Some(format!("{name}: {}\r\n", unstructured(name, &text))),
    }
}

/// Breaks lines of more than 998 octets, at blanks where there are any.
pub(super) fn refold(raw: &[u8], out: &mut Vec<u8>) {
    let limit = MAX_LINE as usize;
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let mut rest = line;
        let mut room = limit;
        while rest.len() > room + 2 {
            let head = rest.get(..room).unwrap_or(rest);
            let blank = head.iter().rposition(|byte| matches!(byte, b' ' | b'\t'));
            match blank.filter(|at| *at > 1) {
                Some(at) => {
                    let (before, after) = rest.split_at_checked(at).unwrap_or((rest, &[]));
                    out.extend_from_slice(before);
                    out.extend_from_slice(b"\r\n");
                    rest = after;
                    room = limit;
                }
                None => {
                    let (before, after) = rest.split_at_checked(room).unwrap_or((rest, &[]));
                    out.extend_from_slice(before);
                    out.extend_from_slice(b"\r\n ");
                    rest = after;
                    room = limit - 1;
                }
            }
        }
        out.extend_from_slice(rest);
    }
}
