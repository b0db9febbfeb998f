//! Where an LMTP server is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an LMTP server listens: `unix:/path` or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LmtpAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A TCP port; LMTP has no protection of its own.
    Tcp {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl FromStr for LmtpAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "it must be \"unix:/path\" or \"host:port\"";
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') && !path.contains('\0') {
                true => Ok(LmtpAddress::Unix(PathBuf::from(path))),
                false => Err(wrong),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(wrong)?;
        match bare.unwrap_or(host) {
            "" => Err(wrong),
            // An address of IPv6 has brackets, else nobody knows where its port begins.
            host if bare.is_none() && host.contains(':') => Err(wrong),
            host => Ok(LmtpAddress::Tcp { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for LmtpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LmtpAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            LmtpAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            LmtpAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_are_written() {
        for text in ["unix:/run/dovecot/lmtp", "localhost:24", "127.0.0.1:2424", "[::1]:24"] {
            assert_eq!(text.parse::<LmtpAddress>().unwrap().to_string(), text);
        }
        for wrong in ["", "unix:", "unix:run/lmtp", "localhost", ":24", "::1:24", "a:0", "a:x"] {
            assert!(wrong.parse::<LmtpAddress>().is_err(), "{wrong}");
        }
    }
}
