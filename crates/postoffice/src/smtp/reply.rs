//! SMTP replies (RFC 5321 section 4.2, RFC 3463 enhanced status codes).

/// A reply: code, enhanced status code, one or more lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three-digit code.
    pub code: u16,
    /// Enhanced status code such as `5.1.1`, left out when the extension is withheld.
    pub enhanced: Option<String>,
    /// The text, one entry per line; never empty on the wire.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line; `enhanced` may be empty.
    pub fn new(code: u16, enhanced: &str, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: (!enhanced.is_empty()).then(|| enhanced.to_owned()),
            lines: vec![text.into()],
        }
    }

    /// Adds a line, making it a multi-line reply.
    #[must_use]
    pub fn line(mut self, text: impl Into<String>) -> Self {
        self.lines.push(text.into());
        self
    }

    /// The reply on the wire.
    pub(crate) fn encode(&self, with_enhanced: bool) -> String {
        let empty = [String::new()];
        let lines: &[String] = if self.lines.is_empty() { &empty } else { &self.lines };
        let enhanced = self.enhanced.as_deref().filter(|_| with_enhanced);
        let mut out = String::new();
        for (index, line) in lines.iter().enumerate() {
            let separator = if index + 1 < lines.len() { '-' } else { ' ' };
            out.push_str(&self.code.to_string());
            out.push(separator);
            if let Some(enhanced) = enhanced {
                out.push_str(enhanced);
                out.push(' ');
            }
            out.push_str(line);
            out.push_str("\r\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_carries_both_codes() {
        let reply = Reply::new(550, "5.1.1", "no such").line("user");
        assert_eq!(reply.encode(true), "550-5.1.1 no such\r\n550 5.1.1 user\r\n");
        assert_eq!(reply.encode(false), "550-no such\r\n550 user\r\n");
        assert_eq!(Reply::new(250, "", "ok").encode(true), "250 ok\r\n");
    }
}
