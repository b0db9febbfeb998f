//! Where the providers whose ways are known have their services, and what they want to hear.

use std::fmt;

use super::endpoint::is_loopback;

/// A provider whose services need not be named one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Gmail and Google Workspace.
    Google,
    /// Outlook.com and Microsoft 365.
    Microsoft,
}

/// The services of an authorization server, as addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Authorization endpoint (RFC 6749 section 3.1), opened in a browser.
    pub(crate) auth_url: Option<String>,
    /// Token endpoint (RFC 6749 section 3.2).
    pub(crate) token_url: Option<String>,
    /// Device authorization endpoint (RFC 8628 section 3.1).
    pub(crate) device_url: Option<String>,
    /// Revocation endpoint (RFC 7009).
    pub(crate) revoke_url: Option<String>,
    /// Scopes to ask for.
    pub(crate) scopes: Vec<String>,
    /// Where the browser is sent back to.
    pub(crate) redirect: RedirectUri,
    /// Further parameters of the authorization request.
    pub(crate) extra: &'static [(&'static str, &'static str)],
}

impl Provider {
    /// By its name in a profile.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "google" => Some(Provider::Google),
            "microsoft" => Some(Provider::Microsoft),
            _ => None,
        }
    }

    /// Its services; `tenant` is Microsoft's directory.
    pub(crate) fn endpoints(self, tenant: &str) -> Endpoints {
        let text = |url: &str| Some(url.to_owned());
        match self {
            Provider::Google => Endpoints {
                auth_url: text("https://accounts.google.com/o/oauth2/v2/auth"),
                token_url: text("https://oauth2.googleapis.com/token"),
                // Google's device flow does not give the scope for mail.
                device_url: None,
                revoke_url: text("https://oauth2.googleapis.com/revoke"),
                scopes: vec!["https://mail.google.com/".to_owned()],
                redirect: RedirectUri::default(),
                // Without these it gives a refresh token only the first time.
                extra: &[("access_type", "offline"), ("prompt", "consent")],
            },
            Provider::Microsoft => {
                let base = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0");
                Endpoints {
                    auth_url: Some(format!("{base}/authorize")),
                    token_url: Some(format!("{base}/token")),
                    device_url: Some(format!("{base}/devicecode")),
                    revoke_url: None,
                    scopes: [
                        "https://outlook.office.com/IMAP.AccessAsUser.All",
                        "https://outlook.office.com/SMTP.Send",
                        "offline_access",
                    ]
                    .map(str::to_owned)
                    .to_vec(),
                    // The one host for which Microsoft does not look at the port.
                    redirect: RedirectUri {
                        host: "localhost".to_owned(),
                        ..RedirectUri::default()
                    },
                    extra: &[],
                }
            }
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::Google => "google",
            Provider::Microsoft => "microsoft",
        })
    }
}

/// The loopback address a browser is sent back to (RFC 8252 section 7.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedirectUri {
    /// A loopback address or `localhost`.
    pub(crate) host: String,
    /// The port; 0 takes a free one each time.
    pub(crate) port: u16,
    /// The path.
    pub(crate) path: String,
}

impl Default for RedirectUri {
    fn default() -> Self {
        RedirectUri { host: "127.0.0.1".to_owned(), port: 0, path: "/".to_owned() }
    }
}

impl RedirectUri {
    /// Reads one from a profile; without a port a free one is taken.
    ///
    /// # Errors
    /// A sentence that says what it must be.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let wrong = "it must be an address of this machine, such as \"http://localhost\" or \
                     \"http://127.0.0.1:8080/done\"";
        let uri: hyper::Uri = text.parse().map_err(|_| wrong)?;
        let host = uri.host().unwrap_or_default();
        let is_ours = is_loopback(host.trim_start_matches('[').trim_end_matches(']'));
        if uri.scheme_str() != Some("http") || !is_ours || uri.query().is_some() {
            return Err(wrong);
        }
        Ok(RedirectUri {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(0),
            path: uri.path().to_owned(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Endpoint;
    use super::*;

    #[test]
    fn the_services_of_the_providers_are_addresses() {
        for provider in [Provider::Google, Provider::Microsoft] {
            assert_eq!(Provider::from_name(&provider.to_string()), Some(provider));
            let all = provider.endpoints("common");
            for url in [all.auth_url, all.token_url, all.device_url, all.revoke_url] {
                assert!(url.is_none_or(|url| url.parse::<Endpoint>().unwrap().is_https()));
            }
        }
    }

    #[test]
    fn a_browser_is_sent_back_to_this_machine_only() {
        let redirect = RedirectUri::parse("http://localhost:8080/done").unwrap();
        assert_eq!((redirect.port, redirect.path.as_str()), (8080, "/done"));
        assert_eq!(RedirectUri::parse("http://127.0.0.1").unwrap(), RedirectUri::default());
        for wrong in
            ["https://localhost", "http://example.org", "localhost", "http://localhost?a=b"]
        {
            assert!(RedirectUri::parse(wrong).is_err(), "{wrong}");
        }
    }
}
