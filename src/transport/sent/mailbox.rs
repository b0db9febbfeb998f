//! Which mailbox is the one of sent mail. Pure.

/// A mailbox in the answer to LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Attributes in lower case, without their backslash.
    pub(super) attributes: Vec<String>,
    /// As the wire has it.
    pub(super) name: String,
}

/// Names of the mailbox of sent mail where the server marks none, best first.
const USUAL: [&str; 8] = [
    "Sent",
    "INBOX.Sent",
    "INBOX/Sent",
    "Sent Messages",
    "Sent Items",
    "INBOX.Sent Messages",
    "INBOX.Sent Items",
    "[Gmail]/Sent Mail",
];

impl Listed {
    /// Reads `LIST (attributes) delimiter name`, where a literal stands as `{size}` and its octets;
    /// `None` for anything else.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        if !word.eq_ignore_ascii_case("LIST") {
            return None;
        }
        let (attributes, rest) = rest.strip_prefix('(')?.split_once(')')?;
        let attributes = attributes
            .split_ascii_whitespace()
            .map(|attribute| attribute.trim_start_matches('\\').to_ascii_lowercase())
            .collect();
        let (_delimiter, rest) = string(rest.trim_start())?;
        let (name, _) = string(rest.trim_start())?;
        Some(Listed { attributes, name })
    }

    fn is(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|one| one == attribute)
    }

    fn can_be_used(&self) -> bool {
        !self.is("noselect") && !self.is("nonexistent")
    }
}

/// An atom, a quoted string or a literal at the beginning, and what follows.
fn string(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('{') {
        let (size, rest) = rest.split_once('}')?;
        let size: usize = size.trim_end_matches('+').parse().ok()?;
        return Some((rest.get(..size)?.to_owned(), rest.get(size..)?));
    }
    let Some(rest) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        let (atom, rest) = text.split_at_checked(end)?;
        return (!atom.is_empty()).then(|| (atom.to_owned(), rest));
    };
    let (mut word, mut signs) = (String::new(), rest.char_indices());
    while let Some((_, sign)) = signs.next() {
        match sign {
            '"' => return Some((word, signs.as_str())),
            '\\' => word.push(signs.next()?.1),
            sign => word.push(sign),
        }
    }
    None
}

/// The mailbox of sent mail among these: the one marked `\Sent`, else one with a usual name.
pub(super) fn choose(listed: &[Listed]) -> Option<String> {
    let usable = || listed.iter().filter(|one| one.can_be_used());
    let marked = usable().find(|one| one.is("sent"));
    let usual =
        || USUAL.iter().find_map(|name| usable().find(|one| one.name.eq_ignore_ascii_case(name)));
    marked.or_else(usual).map(|one| one.name.clone())
}

/// As a quoted string; what cannot stand in one is left out.
pub(super) fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for sign in name.chars().filter(|sign| !sign.is_control()) {
        if matches!(sign, '"' | '\\') {
            text.push('\\');
        }
        text.push(sign);
    }
    text.push('"');
    text
}

/// A mailbox name as the wire has it (RFC 3501 section 5.1.3).
pub(super) fn wire_name(name: &str) -> String {
    utf7_imap::encode_utf7_imap(name.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn listed(lines: &[&str]) -> Vec<Listed> {
        lines.iter().filter_map(|line| Listed::parse(line)).collect()
    }

    #[test]
    fn lines_of_list_are_read_in_every_form() {
        for (line, name) in [
            ("LIST (\\HasNoChildren \\Sent) \"/\" \"Sent Items\"", "Sent Items"),
            ("list () \".\" INBOX.Sent", "INBOX.Sent"),
            ("LIST () NIL \"a \\\"b\\\" \\\\ c\"", "a \"b\" \\ c"),
            ("LIST () \"/\" {5}a b c", "a b c"),
            ("LIST () \"/\" \"x\" (\"CHILDINFO\" (\"SUBSCRIBED\"))", "x"),
        ] {
            assert_eq!(Listed::parse(line).unwrap().name, name, "{line}");
        }
        for line in ["LSUB () \"/\" x", "LIST \"/\" x", "LIST () \"/\" \"x", "LIST () {9}x", "LIST"]
        {
            assert_eq!(Listed::parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_marked_one_is_taken_then_a_usual_name() {
        let marked = listed(&[
            "LIST () \"/\" Sent",
            "LIST (\\NonExistent \\Sent) \"/\" Gone",
            "LIST (\\Sent) \"/\" \"Gesendet\"",
        ]);
        assert_eq!(choose(&marked).as_deref(), Some("Gesendet"));
        let usual = listed(&["LIST () \".\" INBOX", "LIST () \".\" \"INBOX.sent\""]);
        assert_eq!(choose(&usual).as_deref(), Some("INBOX.sent"));
        let folder = listed(&["LIST (\\Noselect) \"/\" Sent", "LIST () \"/\" \"Sent Items\""]);
        assert_eq!(choose(&folder).as_deref(), Some("Sent Items"));
        assert_eq!(choose(&[]), None);
    }
}
