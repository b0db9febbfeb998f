//! Parts of messages: BODY sections (RFC 3501 section 6.4.5).

use std::borrow::Cow;

use imap_codec::imap_types::core::AString;
use imap_codec::imap_types::fetch::Section;

/// The header with the empty line that ends it, and the rest.
pub(super) fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(length) = message.get(at..).and_then(line_length) {
        let line = message.get(at..at + length).unwrap_or_default();
        at += length;
        if line == b"\r\n" || line == b"\n" {
            break;
        }
    }
    if message.get(at..).is_some_and(|rest| line_length(rest).is_none())
        && !ends_header(message, at)
    {
        // No empty line: everything is header.
        at = message.len();
    }
    message.split_at(at.min(message.len()))
}

fn line_length(rest: &[u8]) -> Option<usize> {
    rest.iter().position(|&octet| octet == b'\n').map(|position| position + 1)
}

fn ends_header(message: &[u8], at: usize) -> bool {
    let head = message.get(..at).unwrap_or_default();
    head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") || head == b"\r\n" || head == b"\n"
}

/// The fields of a header, each with its folded lines and line ends.
fn fields(header: &[u8]) -> Vec<&[u8]> {
    let mut fields = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(length) = header.get(at..).and_then(line_length) {
        let continues = matches!(header.get(at), Some(b' ' | b'\t'));
        if !continues && at > start {
            fields.push(header.get(start..at).unwrap_or_default());
            start = at;
        }
        at += length;
    }
    fields.push(header.get(start..).unwrap_or_default());
    fields.retain(|field| !matches!(field.trim_ascii(), b""));
    fields
}

fn field_name(field: &[u8]) -> &[u8] {
    field.split(|&octet| octet == b':').next().unwrap_or_default().trim_ascii_end()
}

/// The fields that are named, or those that are not, with an empty line behind.
fn selected_fields(message: &[u8], names: &[AString<'_>], named: bool) -> Vec<u8> {
    let (header, _) = split(message);
    let mut out = Vec::new();
    for field in fields(header) {
        let found = names.iter().any(|name| name.as_ref().eq_ignore_ascii_case(field_name(field)));
        if found == named {
            out.extend_from_slice(field);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The octets of a section; `None` if it is a MIME part, which is not offered.
pub(super) fn section<'m>(
    message: &'m [u8],
    section: Option<&Section<'_>>,
) -> Option<Cow<'m, [u8]>> {
    Some(match section {
        None => message.into(),
        Some(Section::Header(None)) => split(message).0.into(),
        Some(Section::Text(None)) => split(message).1.into(),
        Some(Section::HeaderFields(None, names)) => {
            selected_fields(message, names.as_ref(), true).into()
        }
        Some(Section::HeaderFieldsNot(None, names)) => {
            selected_fields(message, names.as_ref(), false).into()
        }
        Some(_) => return None,
    })
}

/// The section's name as the response repeats it.
pub(super) fn label(section: Option<&Section<'_>>) -> Option<String> {
    let names = |names: &[AString<'_>]| {
        let names: Vec<String> = names
            .iter()
            .map(|name| String::from_utf8_lossy(name.as_ref()).to_ascii_uppercase())
            .collect();
        names.join(" ")
    };
    Some(match section {
        None => String::new(),
        Some(Section::Header(None)) => "HEADER".to_owned(),
        Some(Section::Text(None)) => "TEXT".to_owned(),
        Some(Section::HeaderFields(None, fields)) => {
            format!("HEADER.FIELDS ({})", names(fields.as_ref()))
        }
        Some(Section::HeaderFieldsNot(None, fields)) => {
            format!("HEADER.FIELDS.NOT ({})", names(fields.as_ref()))
        }
        Some(_) => return None,
    })
}

/// The values of a field, unfolded, in lower case.
pub(super) fn values(message: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
    let (header, _) = split(message);
    fields(header)
        .into_iter()
        .filter(|field| field_name(field).eq_ignore_ascii_case(name))
        .filter_map(|field| {
            let colon = field.iter().position(|&octet| octet == b':')?;
            let value = field.get(colon + 1..)?.trim_ascii();
            let unfolded = value.iter().filter(|octet| !matches!(octet, b'\r' | b'\n'));
            Some(unfolded.map(u8::to_ascii_lowercase).collect())
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"From: a\r\nSubject: one\r\n two\r\nTo: b\r\n\r\nbody\r\n\r\nmore";

    #[test]
    fn header_and_text_make_the_whole() {
        for message in [
            MESSAGE,
            b"",
            b"\r\nbody",
            b"From: a",
            b"From: a\r\n",
            b"From: a\n\nbody",
            b"a\r\n\r\n",
        ] {
            let (header, text) = split(message);
            assert_eq!([header, text].concat(), message);
        }
        assert_eq!(split(MESSAGE).1, b"body\r\n\r\nmore");
        assert_eq!(split(b"\r\nbody"), (b"\r\n".as_slice(), b"body".as_slice()));
        assert_eq!(split(b"From: a").1, b"");
        assert_eq!(split(b"a\r\n\r\n").1, b"");
    }

    #[test]
    fn fields_are_selected_by_name() {
        let names = [AString::try_from("subject").unwrap()];
        assert_eq!(selected_fields(MESSAGE, &names, true), b"Subject: one\r\n two\r\n\r\n");
        assert_eq!(selected_fields(MESSAGE, &names, false), b"From: a\r\nTo: b\r\n\r\n");
        assert_eq!(values(MESSAGE, b"SUBJECT"), [b"one two".to_vec()]);
        assert_eq!(values(MESSAGE, b"Cc"), Vec::<Vec<u8>>::new());
    }
}
