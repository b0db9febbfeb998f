//! What is found for an address.

use std::fmt;

use serde::Deserialize;

use super::providers::{Provider, provider_of_server};
use crate::profile::{Protocol, ServerUrl, is_loopback};

/// What a program signs in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignIn {
    /// The password of the account.
    Password,
    /// A password that is made for one program.
    AppPassword,
    /// An OAuth2 token.
    #[serde(rename = "oauth2")]
    OAuth2,
}

/// An address and its domain, the latter as it is looked up: in ASCII and lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailDomain {
    address: String,
    domain: String,
}

impl MailDomain {
    /// The domain of an address; `None` when there is none that can be looked up.
    pub fn of(address: &str) -> Option<Self> {
        let (local, domain) = address.rsplit_once('@')?;
        let domain = idna::domain_to_ascii(domain).ok()?;
        let sensible = !local.is_empty() && crate::profile::host_name(&domain).is_ok();
        sensible.then(|| MailDomain { address: address.to_owned(), domain })
    }

    /// The whole address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What stands before the @.
    pub fn local_part(&self) -> &str {
        self.address.rsplit_once('@').map_or("", |(local, _)| local)
    }

    /// The domain in ASCII and lower case.
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

/// Whether a host is a domain or lies below it.
pub(super) fn is_within(host: &str, domain: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Where a proposal comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The bundled table knows the domain.
    Table,
    /// The domain's own configuration file, fetched by HTTPS from this address.
    Autoconfig(String),
    /// A configuration file on this machine.
    File(String),
    /// The SRV records of the domain.
    Srv,
    /// This mail exchanger of the domain belongs to a provider of the table.
    Mx(String),
    /// These names are usual, and servers answer there.
    Guess,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Table => f.write_str("a provider this program knows"),
            Origin::Autoconfig(url) => write!(f, "the domain's own configuration at {url}"),
            Origin::File(path) => write!(f, "the file {path}"),
            Origin::Srv => f.write_str("the SRV records of the domain"),
            Origin::Mx(host) => write!(f, "the domain's mail exchanger {host}"),
            Origin::Guess => f.write_str("the usual names, where servers answer"),
        }
    }
}

/// Servers for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proposal {
    /// Where it comes from, except for what [`completed`](Proposal::completed) names.
    pub origin: Origin,
    /// The direction that was missing there, and where its server comes from.
    pub completed: Option<(Protocol, Origin)>,
    /// The server to send with.
    pub smtp: Option<ServerUrl>,
    /// The server to receive from.
    pub imap: Option<ServerUrl>,
    /// What programs may sign in with, as far as it is known; the best first.
    pub sign_in: Vec<SignIn>,
    /// The provider that runs the servers, when the table knows it.
    pub provider: Option<&'static Provider>,
    /// What a person should know.
    pub remarks: Vec<String>,
}

impl Proposal {
    /// Nothing yet.
    pub(super) fn empty(origin: Origin) -> Self {
        Proposal {
            origin,
            completed: None,
            smtp: None,
            imap: None,
            sign_in: Vec::new(),
            provider: None,
            remarks: Vec::new(),
        }
    }

    /// What the table says for an address.
    pub(super) fn of_provider(
        provider: &'static Provider,
        origin: Origin,
        address: &MailDomain,
    ) -> Self {
        Proposal {
            smtp: Some(provider.smtp(address)),
            imap: Some(provider.imap(address)),
            sign_in: provider.sign_in.clone(),
            provider: Some(provider),
            ..Self::empty(origin)
        }
    }

    /// Whether both directions are there.
    pub(super) fn is_whole(&self) -> bool {
        self.smtp.is_some() && self.imap.is_some()
    }

    /// Whether no direction is there.
    pub(super) fn is_empty(&self) -> bool {
        self.smtp.is_none() && self.imap.is_none()
    }

    /// Takes the directions that are missing from another proposal.
    pub(super) fn complete(&mut self, other: Proposal) {
        if self.is_empty() {
            let remarks = std::mem::take(&mut self.remarks);
            *self = other;
            self.remarks.extend(remarks);
            return;
        }
        let missing = if self.smtp.is_none() { Protocol::Smtp } else { Protocol::Imap };
        if let (false, Some(server)) = (self.is_whole(), other.server(missing)) {
            let origin = other.origin_of(missing).clone();
            self.remarks.push(format!("{} comes from {origin}", server.host));
            self.completed = Some((missing, origin));
            self.smtp = self.smtp.take().or(other.smtp);
            self.imap = self.imap.take().or(other.imap);
        }
    }

    /// Adds what the table knows about the servers.
    pub(super) fn recognise(&mut self) {
        if self.provider.is_some() {
            return;
        }
        let hosts = [&self.smtp, &self.imap].into_iter().flatten();
        self.provider = hosts.map(|server| server.host.as_str()).find_map(provider_of_server);
        if let Some(provider) = self.provider {
            self.sign_in.clone_from(&provider.sign_in);
        }
    }

    /// Hosts outside of the domain, which a person has to confirm before a password goes there:
    /// whoever answers for the domain's records could have named them (RFC 6186 section 6). What
    /// the bundled table names for the domain, and what the domain's own web server says under
    /// TLS, needs none.
    pub fn hosts_to_confirm(&self, domain: &MailDomain) -> Vec<&str> {
        let mut outside: Vec<&str> = [Protocol::Smtp, Protocol::Imap]
            .into_iter()
            .filter(|protocol| match self.origin_of(*protocol) {
                Origin::Table | Origin::Autoconfig(_) | Origin::File(_) => false,
                Origin::Srv | Origin::Mx(_) | Origin::Guess => true,
            })
            .filter_map(|protocol| Some(self.server(protocol)?.host.as_str()))
            .filter(|host| !is_within(host, domain.domain()) && !is_loopback(host))
            .collect();
        outside.dedup();
        outside
    }

    /// What names the server for a protocol.
    fn origin_of(&self, protocol: Protocol) -> &Origin {
        match &self.completed {
            Some((completed, origin)) if *completed == protocol => origin,
            _ => &self.origin,
        }
    }

    /// The server for a protocol.
    pub fn server(&self, protocol: Protocol) -> Option<&ServerUrl> {
        match protocol {
            Protocol::Smtp => self.smtp.as_ref(),
            Protocol::Imap => self.imap.as_ref(),
        }
    }
}
