//! What a server offers, from its reply to EHLO (RFC 5321 section 4.1.1.1).

use lettre::transport::smtp::response::Response;

/// Offers of a server. Keywords are read without regard to case and unknown ones are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// RFC 2920.
    pub(crate) pipelining: bool,
    /// RFC 6152.
    pub(crate) eight_bit_mime: bool,
    /// RFC 6531.
    pub(crate) smtp_utf8: bool,
    /// RFC 1870.
    pub(crate) size: SizeLimit,
    /// RFC 3207.
    pub(crate) starttls: bool,
    /// RFC 3461.
    pub(crate) dsn: bool,
    /// RFC 3030.
    pub(crate) chunking: bool,
    /// RFC 2034.
    pub(crate) enhanced_status_codes: bool,
    /// RFC 4954: mechanisms in upper case, in the server's order.
    pub(crate) auth: Vec<String>,
}

/// The SIZE extension of RFC 1870.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SizeLimit {
    /// Not offered.
    #[default]
    Unknown,
    /// Offered without a fixed limit.
    Unlimited,
    /// At most so many bytes.
    Bytes(u64),
}

impl SizeLimit {
    /// Whether a message of `size` bytes is more than the server takes.
    pub(crate) fn refuses(self, size: u64) -> bool {
        matches!(self, SizeLimit::Bytes(limit) if size > limit)
    }
}

/// More mechanisms than this are not remembered.
const MAX_MECHANISMS: usize = 32;

impl Capabilities {
    /// Reads the lines of the reply; the first is the server's name.
    pub(crate) fn from_ehlo(response: &Response) -> Self {
        Self::from_lines(response.message().skip(1))
    }

    /// Reads keyword lines, without the server's name.
    pub(crate) fn from_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut capabilities = Capabilities::default();
        for line in lines {
            capabilities.read(line);
        }
        capabilities
    }

    fn read(&mut self, line: &str) {
        // `AUTH=LOGIN` is what servers of the last century say, some of them to this day.
        let mut words =
            line.split(|c: char| c.is_whitespace() || c == '=').filter(|w| !w.is_empty());
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtp_utf8 = true,
            "STARTTLS" => self.starttls = true,
            "DSN" => self.dsn = true,
            "CHUNKING" => self.chunking = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "SIZE" => {
                self.size = match words.next().and_then(|number| number.parse().ok()) {
                    None | Some(0) => SizeLimit::Unlimited,
                    Some(limit) => SizeLimit::Bytes(limit),
                }
            }
            "AUTH" => {
                for mechanism in words.map(str::to_ascii_uppercase) {
                    if self.auth.len() < MAX_MECHANISMS && !self.auth.contains(&mechanism) {
                        self.auth.push(mechanism);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Capabilities {
        Capabilities::from_lines(lines.iter().copied())
    }

    #[test]
    fn keywords_are_read_in_any_case() {
        let read = of(&[
            "pipelining",
            "8BitMime",
            "SIZE 1000",
            "auth plain Login",
            "AUTH=LOGIN XOAUTH2",
            "StartTLS",
            "SmtpUtf8",
            "DSN",
            "CHUNKING",
            "EnhancedStatusCodes",
        ]);
        let all = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            smtp_utf8: true,
            size: SizeLimit::Bytes(1000),
            starttls: true,
            dsn: true,
            chunking: true,
            enhanced_status_codes: true,
            auth: vec!["PLAIN".into(), "LOGIN".into(), "XOAUTH2".into()],
        };
        assert_eq!(read, all);
    }

    #[test]
    fn odd_lines_do_no_harm() {
        assert_eq!(
            of(&["", "   ", "\t", "=", "X-NEW 1 2 3", "PIPELININGS"]),
            Capabilities::default()
        );
        for unlimited in ["SIZE", "SIZE 0", "SIZE many", "SIZE -1"] {
            assert_eq!(of(&[unlimited]).size, SizeLimit::Unlimited, "{unlimited}");
        }
        let flood = format!("AUTH {}", (0..1000).map(|n| format!("M{n} ")).collect::<String>());
        assert_eq!(of(&[&flood]).auth.len(), MAX_MECHANISMS);
    }

    #[test]
    fn size_refuses_only_above_the_limit() {
        assert!(SizeLimit::Bytes(10).refuses(11));
        assert!(!SizeLimit::Bytes(10).refuses(10));
        assert!(!SizeLimit::Unlimited.refuses(u64::MAX));
        assert!(!SizeLimit::Unknown.refuses(u64::MAX));
    }
}
