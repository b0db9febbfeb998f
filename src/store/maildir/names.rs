//! Names of folders and files in a Maildir.

use crate::mapi::SysTime;

/// Longest folder name in octets; file systems take 255.
const MAX_NAME: usize = 200;

/// The folder of a mailbox by Maildir++: `None` for INBOX, which is the root itself.
///
/// `name` is the server's with `/` between the levels of the hierarchy. Different mailboxes get
/// different folders, and no name leads out of the root: `/` becomes `.`, everything that could
/// be mistaken (`.`, `%`, `\`, `:`, control characters) becomes `%` and its hexadecimal code, an
/// empty level becomes `%none`, and a name that is too long is cut and ends in its digest.
pub(super) fn folder(name: &str) -> Option<String> {
    if name.eq_ignore_ascii_case("INBOX") {
        return None;
    }
    let mut folder = String::new();
    for level in name.split('/') {
        folder.push('.');
        for c in level.chars() {
            match c {
                '.' | '%' | '\\' | ':' | '\u{7f}' | '\0'..='\u{1f}' => {
                    folder.push_str(&format!("%{:02X}", u32::from(c)));
                }
                _ => folder.push(c),
            }
        }
        // `%` and a letter beyond F never comes from a code.
        if level.is_empty() {
            folder.push_str("%none");
        }
    }
    if folder.len() > MAX_NAME {
        let digest = blake3::hash(name.as_bytes()).to_hex();
        let mut end = MAX_NAME - 34;
        while !folder.is_char_boundary(end) {
            end -= 1;
        }
        folder.truncate(end);
        folder.push_str("%~");
        folder.push_str(digest.get(..32).unwrap_or_default());
    }
    Some(folder)
}

/// Why a file is in the Maildir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Origin {
    /// Received.
    Received,
    /// A report of ours.
    Report,
    /// A copy of what was sent.
    Sent,
}

/// What a file is found again by: where it comes from and half a digest of what makes it the
/// same. Tells nothing of UIDs, so that other programs cannot take it for theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) struct Token(u128);

impl Token {
    /// Hexadecimal digits behind the letter.
    const DIGITS: usize = 30;

    /// The token of what `key` identifies.
    pub(in crate::store) fn of(origin: Origin, key: &[u8]) -> Self {
        let digest = blake3::hash(key);
        let half =
            digest.as_bytes().first_chunk::<16>().map_or(0, |half| u128::from_be_bytes(*half));
        let letter = match origin {
            Origin::Received => b'P',
            Origin::Report => b'R',
            Origin::Sent => b'S',
        };
        Token((u128::from(letter) << 120) | (half >> 8))
    }

    /// The token as it stands in file names.
    pub(in crate::store) fn id(self) -> String {
        let letter = char::from((self.0 >> 120) as u8);
        format!("{letter}{:030x}", self.0 & ((1 << 120) - 1))
    }

    /// The token in a file name of ours.
    pub(in crate::store) fn in_name(name: &[u8]) -> Option<Self> {
        Self::parse(name.split(|byte| *byte == b'.').nth(1)?)
    }

    /// The token that is written so.
    pub(super) fn parse(field: &[u8]) -> Option<Self> {
        let (letter, digits) = field.split_first()?;
        if !b"PRS".contains(letter) || digits.len() != Self::DIGITS {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        let half = u128::from_str_radix(digits, 16).ok()?;
        Some(Token((u128::from(*letter) << 120) | half))
    }

    /// The file name: seconds, token, host.
    pub(super) fn file_name(self, time: SysTime, host: &str) -> String {
        format!("{}.{}.{host}", time.as_secs(), self.id())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mailboxes_have_their_folders() {
        let long = "x".repeat(300);
        let cases = [
            ("Archive", ".Archive"),
            ("Lists/rust", ".Lists.rust"),
            ("Lists.rust", ".Lists%2Erust"),
            ("..", ".%2E%2E"),
            ("../../etc", ".%2E%2E.%2E%2E.etc"),
            ("/etc/passwd", ".%none.etc.passwd"),
            ("/", ".%none.%none"),
            ("a\0b\r\nc", ".a%00b%0D%0Ac"),
            ("100%", ".100%25"),
            ("", ".%none"),
            ("Entwürfe", ".Entwürfe"),
            // Names of the Maildir's own, and of things in it.
            ("cur", ".cur"),
            ("new", ".new"),
            ("tmp", ".tmp"),
            ("maildirfolder", ".maildirfolder"),
            (".", ".%2E"),
            ("a/../..", ".a.%2E%2E.%2E%2E"),
            ("a//b", ".a.%none.b"),
            ("a\\..\\b", ".a%5C%2E%2E%5Cb"),
            // Modified UTF-7 as the server has it is text like any other.
            ("Entw&APw-rfe", ".Entw&APw-rfe"),
            ("&AC8-etc", ".&AC8-etc"),
            ("INBOX/sub", ".INBOX.sub"),
        ];
        for (name, wanted) in cases {
            assert_eq!(folder(name).as_deref(), Some(wanted), "{name:?}");
        }
        assert_eq!(folder("inbox"), None);
        let cut = folder(&long).unwrap();
        assert!(cut.len() <= 255 && cut.contains("%~"), "{cut}");
        assert_ne!(folder(&format!("{long}y")).unwrap(), cut);
    }

    #[test]
    fn tokens_are_found_in_names() {
        for origin in [Origin::Received, Origin::Report, Origin::Sent] {
            let token = Token::of(origin, b"key");
            let name = token.file_name(SysTime::from_millis(1_700_000_000_000), "box.example.org");
            assert_eq!(Token::in_name(name.as_bytes()), Some(token), "{name}");
            assert_eq!(Token::in_name(format!("{name}:2,RS").as_bytes()), Some(token));
        }
        assert_ne!(Token::of(Origin::Sent, b"key"), Token::of(Origin::Report, b"key"));
        for other in ["1.M2P3.host", "x", "1.P0.h", "1.Pzz.host", "."] {
            assert_eq!(Token::in_name(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn folders_are_safe_and_distinct(one in "[a./%\\\\~:Nn\u{0}-\u{3}ü]{0,6}|[ab]{190,220}",
                                         two in "[a./%\\\\~:Nn\u{0}-\u{3}ü]{0,6}|[ab]{190,220}") {
            let (first, second) = (folder(&one).unwrap(), folder(&two).unwrap());
            for name in [&first, &second] {
                prop_assert!(name.starts_with('.') && name.len() <= 255 && !name.contains(['/', '\0']));
                prop_assert!(name != "." && name != "..", "{}", name);
            }
            prop_assert_eq!(one == two, first == second, "{} {}", first, second);
        }
    }
}
