//! Servers as the command line names them: `smtps://ann@smtp.example.org:465`.

use std::fmt;
use std::str::FromStr;

use super::server_table::host_name;
use super::transport_table::{imap_port, smtp_port};
use crate::net::TlsMode;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP.
    Smtp,
    /// IMAP.
    Imap,
}

/// A server as `--smtp` and `--imap` name it: scheme, user, host and port. The scheme says how
/// the connection is protected: `smtps` and `imaps` by TLS from the first byte, `smtp+starttls`
/// and `imap+starttls` by STARTTLS, `smtp` and `imap` not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// What it speaks.
    pub protocol: Protocol,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// User name.
    pub user: Option<String>,
    /// Host name or address.
    pub host: String,
    /// Port; `None` for the usual one.
    pub port: Option<u16>,
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}; write it as smtps://USER@HOST:PORT");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("this is no URL"))?;
        let (protocol, tls) = scheme_meaning(scheme).ok_or_else(|| {
            "the scheme must be smtps, smtp+starttls, smtp, imaps, imap+starttls or imap".to_owned()
        })?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(wrong("nothing may follow the port"));
        }
        // User names are often addresses: the last @ is the one before the host.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user_name(user)?), place),
            None => (None, rest),
        };
        let (host, port) = split_port(place)?;
        let host = host_name(host).map_err(|_| wrong("the host cannot be"))?.to_owned();
        Ok(ServerUrl { protocol, tls, user, host, port })
    }
}

impl fmt::Display for ServerUrl {
    /// The form that is read, so that it can be copied into a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.protocol, self.tls) {
            (Protocol::Smtp, TlsMode::Implicit) => "smtps",
            (Protocol::Smtp, TlsMode::StartTls) => "smtp+starttls",
            (Protocol::Smtp, TlsMode::Plain) => "smtp",
            (Protocol::Imap, TlsMode::Implicit) => "imaps",
            (Protocol::Imap, TlsMode::StartTls) => "imap+starttls",
            (Protocol::Imap, TlsMode::Plain) => "imap",
        };
        write!(f, "{scheme}://")?;
        if let Some(user) = &self.user {
            for c in user.chars() {
                match c {
                    '%' | '/' | '?' | '#' | ':' | ' ' => write!(f, "%{:02X}", u32::from(c))?,
                    _ => write!(f, "{c}")?,
                }
            }
            write!(f, "@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => write!(f, "{}", self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl ServerUrl {
    /// The port: the one that is named, else the usual one.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.protocol {
            Protocol::Smtp => smtp_port(self.tls),
            Protocol::Imap => imap_port(self.tls),
        })
    }

    /// The name of the protection in a profile.
    pub fn tls_name(&self) -> &'static str {
        match self.tls {
            TlsMode::Implicit => "implicit",
            TlsMode::StartTls => "starttls",
            TlsMode::Plain => "none",
        }
    }
}

fn scheme_meaning(scheme: &str) -> Option<(Protocol, TlsMode)> {
    match scheme.to_ascii_lowercase().as_str() {
        "smtps" => Some((Protocol::Smtp, TlsMode::Implicit)),
        "smtp+starttls" => Some((Protocol::Smtp, TlsMode::StartTls)),
        "smtp" => Some((Protocol::Smtp, TlsMode::Plain)),
        "imaps" => Some((Protocol::Imap, TlsMode::Implicit)),
        "imap+starttls" => Some((Protocol::Imap, TlsMode::StartTls)),
        "imap" => Some((Protocol::Imap, TlsMode::Plain)),
        _ => None,
    }
}

fn user_name(text: &str) -> Result<String, String> {
    if text.contains(':') {
        // Everyone can read the arguments of a running program.
        return Err("a password does not belong into the URL; use --password-command".into());
    }
    let user = percent_decoded(text).filter(|user| !user.is_empty());
    user.filter(|user| !user.chars().any(char::is_control))
        .ok_or_else(|| "the user name in the URL cannot be".to_owned())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn split_port(place: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or("a [ in the URL has no ]")?;
            (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some(rest)))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port != 0));
    match port {
        None => Ok((host, None)),
        Some(Some(port)) => Ok((host, Some(port))),
        Some(None) => Err("the port must be between 1 and 65535".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_scheme() {
        for (text, protocol, tls, user, host, port) in [
            (
                "smtps://ann@h.example:4465",
                Protocol::Smtp,
                TlsMode::Implicit,
                Some("ann"),
                "h.example",
                Some(4465),
            ),
            (
                "SMTP+STARTTLS://h.example",
                Protocol::Smtp,
                TlsMode::StartTls,
                None,
                "h.example",
                None,
            ),
            (
                "smtp://127.0.0.1:2525/",
                Protocol::Smtp,
                TlsMode::Plain,
                None,
                "127.0.0.1",
                Some(2525),
            ),
            (
                "imaps://ann@a.org@h.example",
                Protocol::Imap,
                TlsMode::Implicit,
                Some("ann@a.org"),
                "h.example",
                None,
            ),
            (
                "imap+starttls://a%40b%25@[::1]:143",
                Protocol::Imap,
                TlsMode::StartTls,
                Some("a@b%"),
                "::1",
                Some(143),
            ),
            ("imap://[::1]", Protocol::Imap, TlsMode::Plain, None, "::1", None),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            let expected = ServerUrl {
                protocol,
                tls,
                user: user.map(str::to_owned),
                host: host.to_owned(),
                port,
            };
            assert_eq!(url, expected, "{text}");
            assert_eq!(url.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, named) in [
            ("smtp.example.org", "no URL"),
            ("https://h.example", "scheme"),
            ("smtps://ann:secret@h.example", "--password-command"),
            ("smtps://@h.example", "user name"),
            ("smtps://a%4@h.example", "user name"),
            ("smtps://a%0a@h.example", "user name"),
            ("smtps://", "host"),
            ("smtps://h example", "host"),
            ("smtps://h.example:0", "port"),
            ("smtps://h.example:70000", "port"),
            ("smtps://[::1", "no ]"),
            ("smtps://[::1]x", "port"),
            ("smtps://h.example/path", "nothing may follow"),
        ] {
            let why = text.parse::<ServerUrl>().unwrap_err();
            assert!(why.contains(named), "{text}: {why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
