//! The address of a service: HTTPS, or HTTP to this machine.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// Where a request goes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
}

impl Endpoint {
    /// The host without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where the address leaves it out.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS protects the way.
    pub(crate) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Path and query.
    pub(crate) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// `host` or `host:port`, as in the address.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "it must be an address such as \"https://login.example.org/token\"";
        let uri: Uri = text.parse().map_err(|_| wrong)?;
        let authority = uri.authority().ok_or(wrong)?;
        if authority.as_str().contains('@') || text.contains('#') || text.len() > 2000 {
            return Err(wrong);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let default = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") if is_loopback(&host) => 80,
            Some("http") => {
                return Err("tokens would travel readable for all; it must begin with https://");
            }
            _ => return Err(wrong),
        };
        let port = authority.port_u16().unwrap_or(default);
        if host.is_empty() || port == 0 {
            return Err(wrong);
        }
        Ok(Endpoint { port, host, uri })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (text, host, port, path) in [
            ("https://login.example.org/token", "login.example.org", 443, "/token"),
            ("https://login.example.org:8443", "login.example.org", 8443, "/"),
            ("http://127.0.0.1:8080/a/b?c=d", "127.0.0.1", 8080, "/a/b?c=d"),
            ("http://[::1]:1/", "::1", 1, "/"),
            ("http://localhost/token", "localhost", 80, "/token"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port(), endpoint.path()), (host, port, path));
            assert_eq!(endpoint.is_https(), text.starts_with("https"));
        }
    }

    #[test]
    fn tokens_never_travel_in_clear() {
        for text in [
            "http://login.example.org/token",
            "http://127.0.0.1.example.org/",
            "ftp://localhost/",
            "login.example.org",
            "https://user@login.example.org/",
            "https://",
            "https://login.example.org/#x",
            "/token",
            "",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
