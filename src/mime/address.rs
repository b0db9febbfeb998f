//! Mailboxes and lists of them (RFC 5322 section 3.4), read with tolerance, checked with none.

use std::fmt;
use std::str::FromStr;

use super::MimeError;
use super::encode;

/// Name and address of a person or a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// Name to show, decoded; empty for none.
    pub name: String,
    /// Address without angle brackets; [`parse_list`] also lets one without a domain through
    /// (`root`), [`check`] does not.
    pub address: String,
}

impl Mailbox {
    /// A mailbox with this name and address, unchecked.
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Self {
        Mailbox { name: name.into(), address: address.into() }
    }

    /// Whether the address has octets above 127, so that the envelope needs SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.address.is_ascii()
    }
}

impl FromStr for Mailbox {
    type Err = MimeError;

    /// Reads one mailbox, such as the profile's `identity`: `Ann Example <ann@example.org>` or
    /// `ann@example.org`.
    ///
    /// # Errors
    /// [`MimeError::BadAddress`] for none or several, and for what [`check`] refuses.
    fn from_str(text: &str) -> Result<Self, MimeError> {
        let bad = |why| bad("mailbox", text, why);
        if text.contains(['\r', '\n', '\0']) {
            return Err(bad("it has a line break or a NUL in it"));
        }
        let list = parse_list(text);
        let [mailbox] = list.mailboxes.as_slice() else {
            return Err(bad("one address is wanted, such as Ann <ann@example.org>"));
        };
        if !list.malformed.is_empty() {
            return Err(bad("one address is wanted, such as Ann <ann@example.org>"));
        }
        check("mailbox", &mailbox.address)?;
        Ok(mailbox.clone())
    }
}

impl fmt::Display for Mailbox {
    /// For people: `Ann Example <ann@example.org>`; what [`FromStr`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str(&self.address);
        }
        write!(f, "{} <{}>", encode::quoted_phrase(&self.name), self.address)
    }
}

/// Checks that `address` can stand in an envelope and in a header: a local part and a domain by
/// RFC 5321 section 4.1.2, non-ASCII letters included (RFC 6531). `what` names it in the error.
///
/// # Errors
/// [`MimeError::BadAddress`].
pub fn check(what: &str, address: &str) -> Result<(), MimeError> {
    if address.contains(['\r', '\n', '\0']) {
        return Err(bad(what, address, "it has a line break or a NUL in it"));
    }
    if address.chars().any(char::is_control) {
        return Err(bad(what, address, "it has a control character in it"));
    }
    let Some((local, domain)) = address.rsplit_once('@') else {
        return Err(bad(what, address, "the part behind the @ is missing"));
    };
    if local.is_empty() || domain.is_empty() {
        return Err(bad(what, address, "a part of it is empty"));
    }
    // RFC 5321 section 4.5.3.1.3: a path has at most 256 octets, angle brackets included.
    if address.len() > 254 {
        return Err(bad(what, address, "it is longer than 254 octets"));
    }
    let quoted = local.starts_with('"') && local.ends_with('"') && local.len() > 1;
    if !quoted && local.contains([' ', '<', '>', '(', ')', ',', ';', ':', '"', '\\', '[', ']', '@'])
    {
        return Err(bad(what, address, "it has a character that must be quoted"));
    }
    if domain.contains([' ', '<', '>', '(', ')', ',', ';', '"', '\\']) {
        return Err(bad(what, address, "the part behind the @ is no host name"));
    }
    if domain.starts_with('[') {
        return match is_literal(domain) {
            true => check_parts(what, &format!("{local}@literal.invalid"), address),
            false => Err(bad(what, address, "the part behind the @ is no IP address")),
        };
    }
    // An IP address without its brackets, or what a header would take for a group.
    if domain.contains([':', '[', ']']) {
        return Err(bad(what, address, "the part behind the @ is no host name"));
    }
    check_parts(what, address, address)
}

fn check_parts(what: &str, checked: &str, address: &str) -> Result<(), MimeError> {
    match checked.parse::<lettre::Address>() {
        Ok(_) => Ok(()),
        Err(lettre::address::AddressError::InvalidUser) => {
            Err(bad(what, address, "the part before the @ is malformed"))
        }
        Err(_) => Err(bad(what, address, "the part behind the @ is no host name")),
    }
}

/// Whether `domain` is an address literal of RFC 5321 section 4.1.3.
fn is_literal(domain: &str) -> bool {
    let Some(ip) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return false;
    };
    match ip.strip_prefix("IPv6:") {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => ip.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

fn bad(what: &str, address: &str, why: &'static str) -> MimeError {
    MimeError::BadAddress {
        what: what.to_owned(),
        address: address.chars().take(120).collect(),
        why,
    }
}

/// The mailboxes of a header value, and what could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressList {
    /// In their order; members of groups are listed, the groups' names are not.
    pub mailboxes: Vec<Mailbox>,
    /// Entries that are no mailbox, as they were.
    pub malformed: Vec<String>,
}

/// Reads an address list: names, quoted names, encoded words, comments, groups, source routes,
/// folded lines. Nothing in it is checked beyond its form; see [`check`].
pub fn parse_list(value: &str) -> AddressList {
    let mut reader = Reader { rest: value, list: AddressList::default(), entry: Entry::default() };
    reader.run();
    reader.list
}

/// The pieces of the entry being read.
#[derive(Default)]
struct Entry {
    /// Words outside angle brackets: the word as it was, and whether space stood before it.
    words: Vec<(String, bool)>,
    comment: String,
    angle: Option<String>,
    space: bool,
}

struct Reader<'a> {
    rest: &'a str,
    list: AddressList,
    entry: Entry,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    fn run(&mut self) {
        while let Some(c) = self.next() {
            match c {
                ' ' | '\t' | '\r' | '\n' => self.entry.space = true,
                '(' => self.comment(),
                '"' => {
                    let quoted = self.until('"');
                    self.word(format!("\"{quoted}\""));
                }
                '[' => {
                    let literal = self.until(']');
                    self.word(format!("[{literal}]"));
                }
                '<' => {
                    let inside = self.angle();
                    self.entry.angle.get_or_insert(inside);
                }
                ',' | ';' => self.end(),
                // The name of a group ends; it addresses nobody.
                ':' if self.entry.angle.is_none() => {
                    self.entry = Entry::default();
                }
                _ => self.atom(c),
            }
        }
        self.end();
    }

    fn atom(&mut self, first: char) {
        let end = self
            .rest
            .find([' ', '\t', '\r', '\n', '(', '"', '[', '<', ',', ';', ':'])
            .unwrap_or(self.rest.len());
        let (tail, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        let word = format!("{first}{tail}");
        self.rest = rest;
        self.word(word);
    }

    fn word(&mut self, word: String) {
        let space = std::mem::take(&mut self.entry.space);
        self.entry.words.push((word, space));
    }

    /// The text up to the unescaped `close`, escapes kept; an unclosed one ends with the value.
    fn until(&mut self, close: char) -> String {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '\\' => {
                    text.push('\\');
                    text.extend(self.next());
                }
                '\r' | '\n' => {}
                _ if c == close => break,
                _ => text.push(c),
            }
        }
        text
    }

    fn comment(&mut self) {
        let mut depth = 1_u32;
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '\\' => text.extend(self.next()),
                '\r' | '\n' => {}
                ')' if depth == 1 => break,
                _ => {
                    depth = match c {
                        '(' => depth + 1,
                        ')' => depth - 1,
                        _ => depth,
                    };
                    text.push(c);
                }
            }
        }
        if self.entry.comment.is_empty() {
            self.entry.comment = text.trim().to_owned();
        }
        self.entry.space = true;
    }

    /// What stands in angle brackets, without space, comments and source route.
    fn angle(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '>' => break,
                ' ' | '\t' | '\r' | '\n' => {}
                '(' => self.comment(),
                '"' => {
                    let quoted = self.until('"');
                    text.push('"');
                    text.push_str(&quoted);
                    text.push('"');
                }
                _ => text.push(c),
            }
        }
        if text.starts_with('@') {
            // RFC 5321 appendix C: a source route is taken and ignored.
            text = text.split_once(':').map_or(String::new(), |(_, address)| address.to_owned());
        }
        text
    }

    fn end(&mut self) {
        let entry = std::mem::take(&mut self.entry);
        if let Some(address) = entry.angle {
            let name = match decode_phrase(&entry.words) {
                name if name.is_empty() => encode::decode_text(&entry.comment),
                name => name,
            };
            if address.is_empty() {
                self.list.malformed.push(format!("{name} <>").trim().to_owned());
            } else {
                self.list.mailboxes.push(Mailbox { name, address });
            }
            return;
        }
        if entry.words.is_empty() {
            return;
        }
        match bare_address(&entry.words) {
            Some(address) => {
                let name = encode::decode_text(&entry.comment);
                self.list.mailboxes.push(Mailbox { name, address });
            }
            None => {
                let text: Vec<&str> = entry.words.iter().map(|(word, _)| word.as_str()).collect();
                self.list.malformed.push(text.join(" "));
            }
        }
    }
}

/// An address without angle brackets: words that stand together, with space only around `@`
/// and `.` (the old form of RFC 822).
fn bare_address(words: &[(String, bool)]) -> Option<String> {
    let mut address = String::new();
    for (word, space) in words {
        let joined = address.is_empty()
            || !space
            || address.ends_with(['@', '.'])
            || word.starts_with(['@', '.']);
        if !joined {
            return None;
        }
        address.push_str(word);
    }
    Some(address)
}

/// The name to show: quotes taken off, encoded words decoded.
fn decode_phrase(words: &[(String, bool)]) -> String {
    let mut phrase = String::new();
    let mut encoded = String::new();
    for (word, space) in words {
        let unquoted = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'));
        // Neighbouring encoded words are decoded together: the space between them is none.
        if unquoted.is_none() && word.starts_with("=?") {
            if *space && !encoded.is_empty() {
                encoded.push(' ');
            } else if *space && !phrase.is_empty() {
                phrase.push(' ');
            }
            encoded.push_str(word);
            continue;
        }
        phrase.push_str(&encode::decode_text(&std::mem::take(&mut encoded)));
        if *space && !phrase.is_empty() {
            phrase.push(' ');
        }
        match unquoted {
            Some(quoted) => phrase.push_str(&unescape(quoted)),
            None => phrase.push_str(word),
        }
    }
    phrase.push_str(&encode::decode_text(&encoded));
    phrase.trim().to_owned()
}

fn unescape(quoted: &str) -> String {
    let mut chars = quoted.chars();
    let mut text = String::with_capacity(quoted.len());
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    // Some programs put encoded words into quotes, where they do not belong.
    if text.starts_with("=?") { encode::decode_text(&text) } else { text }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
