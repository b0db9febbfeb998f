//! The fields of a delivery status notification (RFC 3464 section 2), and the encodings of the part
//! they stand in.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{StatusAction, StatusOfRecipient, StatusReport};
use crate::mime::header::{Field, fields};

/// Longest value that is kept, in characters.
const MAX_VALUE: usize = 500;

/// Reads the groups of fields: the first is about the message, each other about a recipient.
/// `None` when it says nothing about anybody.
pub(super) fn parse(text: &[u8], most: usize) -> Option<StatusReport> {
    let mut report = StatusReport::default();
    for (number, group) in groups(text).enumerate() {
        if number == 0 {
            per_message(group, &mut report);
            // Some leave out the group about the message.
            if !report.reporting_mta.is_empty() {
                continue;
            }
        }
        let Some(recipient) = per_recipient(group) else { continue };
        if report.recipients.len() < most {
            report.recipients.push(recipient);
        } else {
            report.more = report.more.saturating_add(1);
        }
    }
    (!report.recipients.is_empty()).then_some(report)
}

/// What stands between blank lines.
fn groups(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (mut end, mut next) = (0, rest.len());
            for line in rest.split_inclusive(|byte| *byte == b'\n') {
                if line.iter().all(u8::is_ascii_whitespace) {
                    next = end + line.len();
                    break;
                }
                end += line.len();
            }
            let group = rest.get(..end).unwrap_or_default();
            rest = rest.get(next..).unwrap_or_default();
            if !group.is_empty() {
                return Some(group);
            }
        }
        None
    })
}

fn per_message(group: &[u8], report: &mut StatusReport) {
    for field in fields(group) {
        if field.is("original-envelope-id") {
            set(&mut report.envelope_id, &field);
        } else if field.is("reporting-mta") {
            set(&mut report.reporting_mta, &field);
        }
    }
}

fn per_recipient(group: &[u8]) -> Option<StatusOfRecipient> {
    let (mut original, mut final_recipient) = (String::new(), String::new());
    let (mut status, mut diagnostic, mut remote_mta) =
        (String::new(), String::new(), String::new());
    let mut action = None;
    for field in fields(group) {
        match field.name.to_ascii_lowercase().as_str() {
            "original-recipient" => set(&mut original, &field),
            "final-recipient" => set(&mut final_recipient, &field),
            "action" if action.is_none() => action = action_of(&field.text()),
            "status" => set(&mut status, &field),
            "diagnostic-code" => set(&mut diagnostic, &field),
            "remote-mta" => set(&mut remote_mta, &field),
            _ => {}
        }
    }
    let (original, final_recipient) = (address(&original), address(&final_recipient));
    if original.is_empty() && final_recipient.is_empty() {
        return None;
    }
    // A comment may follow the code.
    let status = status.split([' ', '(']).next().unwrap_or_default().to_owned();
    Some(StatusOfRecipient {
        original,
        final_recipient,
        action: action?,
        status,
        diagnostic,
        remote_mta,
    })
}

/// Takes the first field of a name, in one bounded line.
fn set(value: &mut String, field: &Field<'_>) {
    if value.is_empty() {
        let text = field.text();
        let text: String =
            text.chars().take(MAX_VALUE).map(|c| if c.is_control() { ' ' } else { c }).collect();
        *value = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

fn action_of(text: &str) -> Option<StatusAction> {
    let word = text.split([' ', ';', '(']).find(|word| !word.is_empty()).unwrap_or_default();
    [
        StatusAction::Failed,
        StatusAction::Delayed,
        StatusAction::Delivered,
        StatusAction::Relayed,
        StatusAction::Expanded,
    ]
    .into_iter()
    .find(|action| action.name().eq_ignore_ascii_case(word))
}

/// The address of a value with a type (RFC 3464 section 2.1.2, RFC 6533 section 3).
fn address(value: &str) -> String {
    let (kind, address) = value.split_once(';').unwrap_or(("rfc822", value));
    let address = address.trim().trim_start_matches('<').trim_end_matches('>');
    match kind.trim().eq_ignore_ascii_case("utf-8") {
        true => unescaped(address),
        false => address.to_owned(),
    }
}

/// RFC 6533 section 3: `\x{HEX}` stands for a character.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\\x{") {
        out.push_str(before);
        let known = behind.split_once('}').and_then(|(digits, tail)| {
            let character = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
            (digits.len() <= 6 && !character.is_control()).then_some((character, tail))
        });
        rest = match known {
            Some((character, tail)) => {
                out.push(character);
                tail
            }
            None => {
                out.push_str("\\x{");
                behind
            }
        };
    }
    out.push_str(rest);
    out
}

/// Decodes base64 as far as it is some.
pub(super) fn from_base64(text: &[u8]) -> Vec<u8> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let digits: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        .collect();
    // A digit too many is what was cut off.
    let whole = digits.len() - usize::from(digits.len() % 4 == 1);
    let digits = digits.get(..whole).unwrap_or_default();
    GeneralPurpose::new(&STANDARD, config).decode(digits).unwrap_or_default()
}

/// Decodes quoted-printable (RFC 2045 section 6.7); what is none stays as it is.
pub(super) fn from_quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'=' {
            out.push(*first);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match tail {
            [b'\r', b'\n', behind @ ..] | [b'\n', behind @ ..] => rest = behind,
            [high, low, behind @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.extend(u8::try_from(high * 16 + low));
                    rest = behind;
                }
                _ => out.push(b'='),
            },
            _ => out.push(b'='),
        }
    }
    out
}
