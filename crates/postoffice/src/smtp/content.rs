//! Which rules a message's content breaks, as far as a server can see.

use super::ViolationKind;

/// Longest line without CRLF (RFC 5321 section 4.5.3.1.6).
const LINE: usize = 998;
/// Fields that occur at most once (RFC 5322 section 3.6).
const ONCE: [&str; 8] = ["date", "from", "sender", "reply-to", "to", "cc", "message-id", "subject"];

/// What the envelope allows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Declared {
    pub(crate) eight_bit: bool,
    pub(crate) utf8: bool,
}

/// Watches the data as it passes, so that it need not be kept.
#[derive(Debug, Default)]
pub(crate) struct Inspector {
    declared: Declared,
    found: Vec<(ViolationKind, String)>,
    header: Vec<u8>,
    in_body: bool,
    line_number: u64,
    line_length: usize,
    last: Option<u8>,
}

/// Header octets looked at.
const HEADER: usize = 256 << 10;

impl Inspector {
    pub(crate) fn new(declared: Declared) -> Self {
        Self { declared, line_number: 1, ..Self::default() }
    }

    fn find(&mut self, kind: ViolationKind, detail: impl FnOnce(u64) -> String) {
        if !self.found.iter().any(|(known, _)| *known == kind) {
            self.found.push((kind, detail(self.line_number)));
        }
    }

    pub(crate) fn look(&mut self, chunk: &[u8]) {
        for &octet in chunk {
            if self.last == Some(b'\r') && octet != b'\n' {
                self.find(ViolationKind::BareCr, |line| format!("line {line}"));
            }
            match octet {
                b'\n' => {
                    if self.last == Some(b'\r') {
                        self.line_length = self.line_length.saturating_sub(1);
                    } else {
                        self.find(ViolationKind::BareLf, |line| format!("line {line}"));
                    }
                    self.end_line();
                }
                0 => {
                    self.find(ViolationKind::Nul, |line| format!("line {line}"));
                    self.line_length += 1;
                }
                128.. => {
                    self.eight_bit();
                    self.line_length += 1;
                }
                _ => self.line_length += 1,
            }
            if !self.in_body && self.header.len() < HEADER {
                self.header.push(octet);
            }
            self.last = Some(octet);
        }
    }

    fn eight_bit(&mut self) {
        if !self.declared.eight_bit {
            self.find(ViolationKind::EightBitUndeclared, |line| format!("line {line}"));
        }
        if !self.in_body && !self.declared.utf8 {
            self.find(ViolationKind::Utf8Undeclared, |line| format!("header line {line}"));
        }
    }

    fn end_line(&mut self) {
        let length = self.line_length;
        if length > LINE {
            self.find(ViolationKind::LongLine, |line| format!("line {line}: {length} octets"));
        }
        if length == 0 {
            self.in_body = true;
        }
        self.line_number += 1;
        self.line_length = 0;
    }

    /// All violations, each kind once, with the place of the first.
    pub(crate) fn finish(mut self) -> Vec<(ViolationKind, String)> {
        match self.last {
            Some(b'\n') => {}
            Some(b'\r') => self.find(ViolationKind::BareCr, |line| format!("line {line}")),
            Some(_) => self.find(ViolationKind::NoFinalNewline, |line| format!("line {line}")),
            None => {}
        }
        if self.line_length > LINE {
            self.end_line();
        }
        self.fields();
        self.found
    }

    fn fields(&mut self) {
        let header = std::mem::take(&mut self.header);
        let fields = fields(&header);
        let count = |name: &str| fields.iter().filter(|(field, _)| field == name).count();
        for name in ["date", "from"] {
            if count(name) == 0 {
                self.found.push((ViolationKind::MissingField, name.to_owned()));
            }
        }
        for name in ONCE {
            if count(name) > 1 {
                self.found.push((ViolationKind::DuplicateField, name.to_owned()));
            }
        }
        for (name, value) in &fields {
            if (name == "bcc" || name == "resent-bcc") && !value.trim().is_empty() {
                self.found.push((ViolationKind::Bcc, name.clone()));
            }
        }
    }
}

/// The fields of a header: names in lower case, values unfolded.
pub(crate) fn fields(header: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(header);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.split('\n').map(|line| line.trim_end_matches('\r')) {
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim_end().to_ascii_lowercase(), value.trim_start().to_owned()));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Date: x\r\nFrom: a@b\r\n";

    fn kinds(declared: Declared, data: &[u8]) -> Vec<ViolationKind> {
        let mut inspector = Inspector::new(declared);
        // One octet at a time: nothing may depend on how the data was cut.
        data.iter().for_each(|octet| inspector.look(std::slice::from_ref(octet)));
        inspector.finish().into_iter().map(|(kind, _)| kind).collect()
    }

    fn message(rest: &str) -> Vec<u8> {
        format!("{HEAD}{rest}").into_bytes()
    }

    #[test]
    fn a_sound_message_breaks_no_rule() {
        let line = "x".repeat(998);
        assert_eq!(kinds(Declared::default(), &message(&format!("\r\n{line}\r\n"))), []);
        assert_eq!(kinds(Declared::default(), &message("Bcc:\r\n\r\nhi\r\n")), []);
    }

    #[test]
    fn each_broken_rule_is_named_once() {
        use ViolationKind::*;
        let long = "x".repeat(999);
        for (rest, expected) in [
            (format!("\r\n{long}\r\n{long}\r\n"), vec![LongLine]),
            ("\r\na\nb\nc\r\n".to_owned(), vec![BareLf]),
            ("\r\na\rb\r\n".to_owned(), vec![BareCr]),
            ("\r\na\0b\r\n".to_owned(), vec![Nul]),
            ("\r\nabc".to_owned(), vec![NoFinalNewline]),
            ("\r\nä\r\n".to_owned(), vec![EightBitUndeclared]),
            ("Subject: ä\r\n\r\n".to_owned(), vec![EightBitUndeclared, Utf8Undeclared]),
            ("bCC: x@y\r\n\r\n".to_owned(), vec![Bcc]),
            ("Bcc:\r\n x@y\r\n\r\n".to_owned(), vec![Bcc]),
            ("From: c@d\r\n\r\n".to_owned(), vec![DuplicateField]),
        ] {
            assert_eq!(kinds(Declared::default(), &message(&rest)), expected, "{rest:?}");
        }
        assert_eq!(kinds(Declared::default(), b"\r\nx\r\n"), [MissingField, MissingField]);
    }

    #[test]
    fn what_is_declared_is_allowed() {
        let declared = Declared { eight_bit: true, utf8: false };
        assert_eq!(kinds(declared, &message("\r\nä\r\n")), []);
        let declared = Declared { eight_bit: true, utf8: true };
        assert_eq!(kinds(declared, &message("Subject: ä\r\n\r\nä\r\n")), []);
    }
}
