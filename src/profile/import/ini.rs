//! Files of sections and `key = value`.

/// A section of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) line: usize,
    /// Its name in lower case.
    pub(super) name: String,
    pub(super) entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) line: usize,
    /// In lower case.
    pub(super) key: String,
    pub(super) value: String,
}

impl Section {
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.line, |entry| entry.line)
    }
}

/// Reads a file; a line that begins with a blank continues the value before it. Lines that fit
/// nowhere are passed over.
pub(super) fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let number = index + 1;
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let name = name.trim().to_ascii_lowercase();
            sections.push(Section { line: number, name, entries: Vec::new() });
            continue;
        }
        let Some(section) = sections.last_mut() else { continue };
        if raw.starts_with(char::is_whitespace)
            && let Some(last) = section.entries.last_mut()
        {
            last.value.push(' ');
            last.value.push_str(line);
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().to_ascii_lowercase();
            let value = value.trim().to_owned();
            section.entries.push(Entry { line: number, key, value });
        }
    }
    sections
}

/// The strings of a tuple as Python writes it: `("a", "b")`; a bare word is one string.
pub(super) fn tuple(text: &str) -> Vec<String> {
    let text = text.trim();
    let inner = text.strip_prefix(['(', '[']).and_then(|rest| rest.strip_suffix([')', ']']));
    let Some(inner) = inner else { return vec![text.trim_matches(['"', '\'']).to_owned()] };
    super::text::words(inner, &[',']).into_iter().map(|word| word.text).collect()
}
