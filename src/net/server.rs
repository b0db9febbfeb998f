//! Which server to reach, and how its identity is checked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How a connection is protected. There is no opportunistic mode: what is asked for is what is
/// used, or the connection fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// TLS from the first byte (RFC 8314).
    #[default]
    Implicit,
    /// TLS by STARTTLS (RFC 3207, RFC 3501 section 6.2.1); refused when not offered.
    StartTls,
    /// No TLS.
    Plain,
}

/// Who is trusted to be the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The certificate authorities of the operating system.
    #[default]
    Platform,
    /// Those of a PEM file, and no others.
    CaFile(PathBuf),
    /// Whoever shows the certificate with this digest, whatever its name and date.
    Fingerprint(Fingerprint),
}

/// SHA-256 digest of a certificate in DER form, written `sha256:` and 64 hexadecimal digits;
/// colons between the digits are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not sha256: and 64 hexadecimal digits");
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?.replace(':', "");
        let digest = blake3::Hash::from_hex(hex.as_bytes()).map_err(|_| wrong())?;
        Ok(Fingerprint(*digest.as_bytes()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What this side shows for itself in the TLS handshake: PEM files, the certificate with those that
/// signed it behind it, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key; others must not be able to read it.
    pub key: PathBuf,
}

/// A server to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host name or address; also the name its certificate must show.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protection of the connection.
    pub tls: TlsMode,
    /// How the server's identity is checked.
    pub trust: Trust,
    /// What is shown to it; `None` for nothing.
    pub client: Option<ClientCertificate>,
}

impl Server {
    /// Another host that is to be used by the same rules: `host`, `host:port` or `[address]:port`,
    /// with this server's port where none is named.
    ///
    /// # Errors
    /// In words, when `place` is none of these.
    pub fn beside(&self, place: &str) -> Result<Server, String> {
        let wrong = || "it must be \"host\" or \"host:port\"".to_owned();
        let (host, port) = match (place.strip_prefix('['), place.rsplit_once(':')) {
            (Some(rest), _) => match rest.split_once(']').ok_or_else(wrong)? {
                (host, "") => (host, None),
                (host, port) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            },
            // More than one colon: an address of IPv6 alone.
            (None, Some((host, port))) if !host.contains(':') => (host, Some(port)),
            (None, _) => (place, None),
        };
        let port = match port {
            None => self.port,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        };
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Server { host: host.to_owned(), port, ..self.clone() })
    }

    /// `host:port`, with brackets where the host is an address of IPv6.
    pub fn place(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn other_hosts_are_used_by_the_same_rules() {
        let first = Server {
            host: "smtp.example.org".to_owned(),
            port: 465,
            tls: TlsMode::Implicit,
            trust: Trust::CaFile("ca.pem".into()),
            client: None,
        };
        let cases = [
            ("smtp2.example.org", "smtp2.example.org:465"),
            ("smtp2.example.org:2465", "smtp2.example.org:2465"),
            ("[::1]:2465", "[::1]:2465"),
            ("[::1]", "[::1]:465"),
            ("::1", "[::1]:465"),
        ];
        for (written, place) in cases {
            let other = first.beside(written).unwrap();
            assert_eq!(other.place(), place);
            assert_eq!((other.tls, &other.trust), (first.tls, &first.trust));
        }
        for wrong in ["", ":25", "a:", "a:0", "a:70000", "[::1", "[::1]x", "a:b"] {
            assert!(first.beside(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let plain = format!("sha256:{}", "ab".repeat(32));
        let colons = format!("sha256:{}", vec!["AB"; 32].join(":"));
        let one: Fingerprint = plain.parse().unwrap();
        assert_eq!(one, colons.parse().unwrap());
        assert_eq!(one.to_string(), plain);
        assert!("sha256:abc".parse::<Fingerprint>().is_err());
        assert!("ab".repeat(32).parse::<Fingerprint>().is_err());
    }
}
