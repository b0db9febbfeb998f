//! The table of large providers, `providers.toml`.

use std::sync::LazyLock;

use serde::Deserialize;

use super::proposal::{MailDomain, SignIn, is_within};
use crate::net::TlsMode;
use crate::profile::{Protocol, ServerUrl};

/// A mail provider with many customers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Provider {
    /// Short name.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Its own domains.
    pub domains: Vec<String>,
    /// Ends of the names of its mail exchangers.
    #[serde(default)]
    pub mx: Vec<String>,
    smtp: KnownServer,
    imap: KnownServer,
    /// What programs may sign in with; the best for a person first, never empty.
    pub sign_in: Vec<SignIn>,
    /// Who gives out its OAuth2 tokens.
    pub oauth2: Option<OAuth2Service>,
    /// Where an app password is made or access is switched on.
    pub help: Option<String>,
    /// What a person has to know before the first login, in lines.
    #[serde(default)]
    pub advice: Vec<String>,
    /// What it allows an account.
    #[serde(default)]
    pub limits: Limits,
    /// Whether it keeps a copy of what is sent through its server.
    #[serde(default)]
    pub saves_sent: bool,
}

/// Who gives out OAuth2 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OAuth2Service {
    /// Google.
    Google,
    /// Microsoft.
    Microsoft,
}

/// What a provider allows an account; `None` where nothing reliable is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Limits {
    /// Connections to send with at the same time.
    pub smtp_connections: Option<u64>,
    /// Connections to receive with at the same time.
    pub imap_connections: Option<u64>,
    /// Messages sent in a minute.
    pub messages_per_minute: Option<u64>,
    /// Recipients of one message.
    pub recipients_per_message: Option<u64>,
    /// Messages sent in a day.
    pub messages_per_day: Option<u64>,
}

/// What the user name is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserForm {
    /// The whole address.
    #[default]
    Address,
    /// What stands before the @.
    LocalPart,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KnownServer {
    host: String,
    port: u16,
    tls: KnownTls,
    #[serde(default)]
    user: UserForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KnownTls {
    Implicit,
    Starttls,
}

impl Provider {
    /// The server to send with, for an address.
    pub fn smtp(&self, address: &MailDomain) -> ServerUrl {
        self.smtp.url(Protocol::Smtp, address)
    }

    /// The server to receive from, for an address.
    pub fn imap(&self, address: &MailDomain) -> ServerUrl {
        self.imap.url(Protocol::Imap, address)
    }

    /// Whether a host is one of its servers.
    pub fn runs(&self, host: &str) -> bool {
        let same = |server: &KnownServer| server.host.eq_ignore_ascii_case(host);
        same(&self.smtp) || same(&self.imap)
    }

    /// Whether a host is one of its mail exchangers.
    pub fn exchanges(&self, host: &str) -> bool {
        self.mx.iter().any(|end| is_within(host, end))
    }
}

impl KnownServer {
    fn url(&self, protocol: Protocol, address: &MailDomain) -> ServerUrl {
        let user = match self.user {
            UserForm::Address => address.address(),
            UserForm::LocalPart => address.local_part(),
        };
        let tls = match self.tls {
            KnownTls::Implicit => TlsMode::Implicit,
            KnownTls::Starttls => TlsMode::StartTls,
        };
        ServerUrl {
            protocol,
            tls,
            user: Some(user.to_owned()),
            host: self.host.clone(),
            port: Some(self.port),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    provider: Vec<Provider>,
}

fn parse(text: &str) -> Result<Vec<Provider>, toml::de::Error> {
    toml::from_str::<Table>(text).map(|table| table.provider)
}

/// A test proves that the file can be read; without it every address would be searched for.
static TABLE: LazyLock<Vec<Provider>> =
    LazyLock::new(|| parse(include_str!("providers.toml")).unwrap_or_default());

/// All providers of the table.
pub fn providers() -> &'static [Provider] {
    &TABLE
}

/// The provider a domain belongs to.
pub fn provider_of_domain(domain: &str) -> Option<&'static Provider> {
    let own = |provider: &&Provider| {
        let is = |own: &String| own.eq_ignore_ascii_case(domain);
        // Customers of Microsoft 365 have domains below this one.
        let below = |own: &String| own == "onmicrosoft.com" && is_within(domain, own);
        provider.domains.iter().any(|name| is(name) || below(name))
    };
    providers().iter().find(own)
}

/// The provider that runs a mail exchanger.
pub(super) fn provider_of_exchanger(host: &str) -> Option<&'static Provider> {
    providers().iter().find(|provider| provider.exchanges(host))
}

/// The provider that runs a server; no telling for servers on this machine.
pub(super) fn provider_of_server(host: &str) -> Option<&'static Provider> {
    let local = crate::profile::is_loopback(host);
    providers().iter().find(|provider| !local && provider.runs(host))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::profile::host_name;

    #[test]
    fn the_table_can_be_read_and_makes_sense() {
        let table = parse(include_str!("providers.toml")).unwrap();
        assert!(table.len() >= 20);
        let mut ids = BTreeSet::new();
        let mut domains = BTreeSet::new();
        for provider in &table {
            let id = &provider.id;
            assert!(ids.insert(id.clone()), "{id} is there twice");
            assert!(!provider.name.is_empty() && !provider.domains.is_empty(), "{id}");
            for domain in &provider.domains {
                assert!(domains.insert(domain.clone()), "{domain} is there twice");
                assert!(host_name(domain).is_ok() && domain.contains('.'), "{domain}");
                assert_eq!(domain, &domain.to_ascii_lowercase());
            }
            for server in [&provider.smtp, &provider.imap] {
                assert!(host_name(&server.host).is_ok() && server.port != 0, "{id}");
            }
            assert!(!provider.sign_in.is_empty(), "{id} says not how to sign in");
            let oauth2 = provider.sign_in.contains(&SignIn::OAuth2);
            assert_eq!(oauth2, provider.oauth2.is_some(), "{id}");
            let explained = provider.help.is_some() || !provider.advice.is_empty();
            assert!(explained || provider.sign_in == [SignIn::Password], "{id} explains nothing");
            assert!(provider.help.iter().all(|help| help.starts_with("https://")), "{id}");
            assert!(provider.advice.iter().all(|line| line.len() <= 100), "{id}: long lines");
            let Limits { smtp_connections, imap_connections, .. } = provider.limits;
            for connections in [smtp_connections, imap_connections].into_iter().flatten() {
                assert!((1..=100).contains(&connections), "{id}: the profile would refuse it");
            }
        }
    }

    #[test]
    fn domains_and_exchangers_are_recognised() {
        let id = |provider: Option<&Provider>| provider.map(|provider| provider.id.clone());
        for (domain, wanted) in [
            ("gmail.com", Some("gmail")),
            ("GMX.de", Some("gmx")),
            ("gmx.com", Some("gmx-com")),
            ("firm.onmicrosoft.com", Some("exchange-online")),
            ("notgmail.com", None),
            ("mail.gmail.com", None),
            ("example.org", None),
        ] {
            assert_eq!(id(provider_of_domain(domain)).as_deref(), wanted, "{domain}");
        }
        for (host, wanted) in [
            ("aspmx.l.google.com", Some("gmail")),
            ("ALT1.ASPMX.L.GOOGLE.COM.", Some("gmail")),
            ("example-org.mail.protection.outlook.com", Some("exchange-online")),
            ("in1-smtp.messagingengine.com", Some("fastmail")),
            ("mx.notgoogle.com", None),
            ("google.com.example.org", None),
        ] {
            assert_eq!(id(provider_of_exchanger(host)).as_deref(), wanted, "{host}");
        }
    }

    #[test]
    fn each_server_gets_its_form_of_the_user() {
        let ann = MailDomain::of("ann@icloud.com").unwrap();
        let icloud = provider_of_domain("icloud.com").unwrap();
        assert_eq!(icloud.imap(&ann).user.as_deref(), Some("ann"));
        assert_eq!(icloud.smtp(&ann).user.as_deref(), Some("ann@icloud.com"));
        assert_eq!(
            icloud.smtp(&ann).to_string(),
            "smtp+starttls://ann@icloud.com@smtp.mail.me.com:587"
        );
    }
}
