//! From the bytes of a file to its text, and from a line to its words.

use zeroize::Zeroizing;

/// The text of a file: UTF-16 with a mark (Outlook writes it so), UTF-8, else Latin-1.
pub fn decode(bytes: &[u8]) -> Zeroizing<String> {
    let wide = |pairs: &[u8], join: fn([u8; 2]) -> u16| {
        let units: Zeroizing<Vec<u16>> = Zeroizing::new(
            pairs
                .chunks_exact(2)
                .filter_map(|pair| <[u8; 2]>::try_from(pair).ok())
                .map(join)
                .collect(),
        );
        String::from_utf16_lossy(&units)
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().copied().map(char::from).collect(),
        },
    };
    Zeroizing::new(text)
}

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) line: usize,
    pub(super) text: String,
    /// Whether it stood in quotes: then it is a value and no keyword.
    pub(super) quoted: bool,
}

/// The words of a text: separated by blanks, held together by single or double quotes with a
/// backslash in front of what is meant literally; `#` begins a comment where a word could begin.
/// `separators` end a word too.
pub(super) fn words(text: &str, separators: &[char]) -> Vec<Word> {
    let mut words = Vec::new();
    for (index, line) in text.lines().enumerate() {
        line_words(line, index + 1, separators, &mut words);
    }
    words
}

fn line_words(line: &str, number: usize, separators: &[char], words: &mut Vec<Word>) {
    let mut signs = line.chars().peekable();
    loop {
        while signs.next_if(|c| c.is_whitespace() || separators.contains(c)).is_some() {}
        match signs.peek() {
            None | Some('#') => return,
            Some(_) => {}
        }
        let (mut text, mut quoted) = (String::new(), false);
        let mut inside: Option<char> = None;
        while let Some(c) = signs.peek().copied() {
            match inside {
                None if c.is_whitespace() || separators.contains(&c) => break,
                None if c == '"' || c == '\'' => {
                    inside = Some(c);
                    quoted = true;
                }
                Some(quote) if c == quote => inside = None,
                _ if c == '\\' => {
                    signs.next();
                    text.extend(signs.peek());
                }
                _ => text.push(c),
            }
            signs.next();
        }
        words.push(Word { line: number, text, quoted });
    }
}

/// Key and value of a line, separated by blanks; quotes around the whole value are taken off.
/// `None` for an empty line or a comment.
pub(super) fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let value = value.trim();
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some((key, inner.unwrap_or(value)))
}

/// `on`/`off`, `yes`/`no`, `true`/`false`, `1`/`0`.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Some(true),
        "off" | "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// A SHA-256 digest as a profile writes it; `None` for another digest.
pub(super) fn sha256(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
    let whole = digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit());
    whole.then(|| format!("sha256:{}", digits.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_of_outlook_is_read() {
        let wide = |join: fn(u16) -> [u8; 2], mark: [u8; 2]| {
            let units = "Grüße".encode_utf16().flat_map(join);
            mark.into_iter().chain(units).collect::<Vec<u8>>()
        };
        assert_eq!(*decode(&wide(u16::to_le_bytes, [0xff, 0xfe])), "Grüße");
        assert_eq!(*decode(&wide(u16::to_be_bytes, [0xfe, 0xff])), "Grüße");
        assert_eq!(*decode("\u{feff}Grüße".as_bytes()), "Grüße");
        assert_eq!(*decode(b"Gr\xfc\xdfe"), "Grüße");
        assert_eq!(*decode(&[0xff, 0xfe, 0x41]), "");
    }

    #[test]
    fn words_are_taken_apart() {
        let found = words("a 'b c' \"d\\\"e\" # f\n  g,h i#j", &[',']);
        let texts: Vec<&str> = found.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["a", "b c", "d\"e", "g", "h", "i#j"]);
        let lines: Vec<usize> = found.iter().map(|word| word.line).collect();
        assert_eq!(lines, [1, 1, 1, 2, 2, 2]);
        assert!(found.iter().any(|word| word.quoted && word.text == "b c"));
        assert_eq!(words("'never closed", &[]).len(), 1);
        assert_eq!(words("end\\", &[]).len(), 1);
    }

    #[test]
    fn keys_and_values() {
        assert_eq!(key_and_value("  host  mail.example.org "), Some(("host", "mail.example.org")));
        assert_eq!(key_and_value("from \"a b\""), Some(("from", "a b")));
        assert_eq!(key_and_value("# x"), None);
        assert_eq!(key_and_value("tls"), Some(("tls", "")));
    }
}
