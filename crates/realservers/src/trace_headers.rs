//! Telling a message from the trace headers that servers put before it.

/// Splits what a mailbox holds into the trace headers that servers added and the message that was sent:
/// gives the headers when `stored` is nothing but header fields of tracing (RFC 5321 section 4.4, and what
/// Postfix and Dovecot name further: `Return-Path`, `Delivered-To`, `X-Original-To`, `Received`) followed by
/// every byte of `sent`.
///
/// # Errors
/// What is different, in words, with the first place where it shows.
pub fn added_before<'a>(stored: &'a [u8], sent: &[u8]) -> Result<&'a [u8], String> {
    let Some(headers) = stored.strip_suffix(sent) else {
        return Err(first_difference(stored, sent));
    };
    let text = std::str::from_utf8(headers).map_err(|error| format!("added: {error}"))?;
    if !text.is_empty() && !text.ends_with("\r\n") {
        return Err(format!("the added headers do not end in CRLF: {text:?}"));
    }
    for line in text.lines() {
        let folded = line.starts_with([' ', '\t']);
        let name = line.split(':').next().unwrap_or_default();
        let known = ["Return-Path", "Delivered-To", "X-Original-To", "Received"];
        if !folded && !known.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(format!("an unexpected header was added: {line:?}"));
        }
    }
    Ok(headers)
}

/// Both are read from their ends, because only the beginning may differ.
fn first_difference(stored: &[u8], sent: &[u8]) -> String {
    let same = stored.iter().rev().zip(sent.iter().rev());
    let same = same.take_while(|(stored, sent)| stored == sent).count();
    let around = |bytes: &[u8]| {
        let end = bytes.len().saturating_sub(same.saturating_sub(20));
        let start = bytes.len().saturating_sub(same + 60);
        let part = bytes.get(start..end).unwrap_or_default();
        part.escape_ascii().to_string()
    };
    format!(
        "the last {same} of {} bytes are as sent, before them stands \"{}\" instead of \"{}\"",
        sent.len(),
        around(stored),
        around(sent)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SENT: &[u8] = b"Received: mine\r\nSubject: a\r\n\r\nb\r\n";

    #[test]
    fn added_headers_are_told_from_the_messages_own() {
        let stored = [b"Return-Path: <>\r\nReceived: x\r\n\ty\r\n", SENT].concat();
        let headers = added_before(&stored, SENT).unwrap();
        assert_eq!(headers, b"Return-Path: <>\r\nReceived: x\r\n\ty\r\n");
        assert_eq!(added_before(SENT, SENT), Ok(&b""[..]));
    }

    #[test]
    fn another_header_or_another_byte_is_found() {
        let stored = [b"Message-Id: <a@b>\r\n", SENT].concat();
        let error = added_before(&stored, SENT).unwrap_err();
        assert!(error.contains("Message-Id"), "{error}");
        let error = added_before(b"Subject: A\r\n\r\nb\r\n", SENT).unwrap_err();
        assert!(error.contains("Subject: A"), "{error}");
        assert!(added_before(b"Received: cut", b"cut").is_err());
    }
}
