//! Setting up a post office.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::certificates::{Authority, Flaw};
use crate::config::{
    AuthPolicy, BareNewlines, Config, Feature, Limits, Listener, UnknownRecipients, Withheld,
};
use crate::office::PostOffice;
use crate::state::{Credentials, Shared};

/// Sets up a [`PostOffice`]; every method has a default that suits a test.
///
/// Without further words all four listeners run on free ports of 127.0.0.1, everything is offered,
/// AUTH is possible but not needed, and there is no user.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    credentials: BTreeMap<String, Credentials>,
    withheld: Withheld,
    authority: Option<Authority>,
    flaw: Flaw,
}

impl Default for Builder {
    fn default() -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            config: Config {
                hostname: "localhost".to_owned(),
                listeners: Listener::ALL.into_iter().map(|listener| (listener, free)).collect(),
                auth: AuthPolicy::default(),
                unknown: UnknownRecipients::default(),
                catch_all: None,
                routes: Vec::new(),
                bare_newlines: BareNewlines::default(),
                received_header: false,
                named_faults: true,
                delimiter: '/',
                limits: Limits::default(),
            },
            credentials: BTreeMap::new(),
            withheld: Withheld::default(),
            authority: None,
            flaw: Flaw::None,
        }
    }
}

impl Builder {
    /// Adds a user with a password and an empty INBOX. Mail to any address whose local part (up to a `+`), or
    /// whose whole text, is the name goes there.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.credentials.entry(name.to_owned()).or_default().password = Some(password.to_owned());
        self
    }

    /// Gives a user (who is added if need be) a bearer token for XOAUTH2 and OAUTHBEARER.
    #[must_use]
    pub fn token(mut self, name: &str, token: &str) -> Self {
        self.credentials.entry(name.to_owned()).or_default().token = Some(token.to_owned());
        self
    }

    /// Sends mail for an address (`ann@example.org`) or a whole domain (`example.org`) to a user's INBOX.
    #[must_use]
    pub fn route(mut self, address_or_domain: &str, user: &str) -> Self {
        self.config.routes.push((address_or_domain.to_ascii_lowercase(), user.to_owned()));
        self
    }

    /// Sends mail for everyone unknown to this user.
    #[must_use]
    pub fn catch_all(mut self, user: &str) -> Self {
        self.config.catch_all = Some(user.to_owned());
        self
    }

    /// What happens to recipients that belong to no user. Default: accepted, as by a relay.
    #[must_use]
    pub fn unknown_recipients(mut self, unknown: UnknownRecipients) -> Self {
        self.config.unknown = unknown;
        self
    }

    /// Listens at this address instead of a free port of 127.0.0.1.
    #[must_use]
    pub fn listen(mut self, listener: Listener, address: SocketAddr) -> Self {
        self.config.listeners.retain(|(known, _)| *known != listener);
        self.config.listeners.push((listener, address));
        self
    }

    /// Leaves a listener out.
    #[must_use]
    pub fn without(mut self, listener: Listener) -> Self {
        self.config.listeners.retain(|(known, _)| *known != listener);
        self
    }

    /// Withholds an SMTP extension, an IMAP capability or a SASL mechanism.
    #[must_use]
    pub fn withhold(mut self, feature: impl Into<Feature>) -> Self {
        self.withheld.withhold(feature.into());
        self
    }

    /// When logging in is possible and needed. Default: possible everywhere, needed for IMAP only.
    #[must_use]
    pub fn auth(mut self, policy: AuthPolicy) -> Self {
        self.config.auth = policy;
        self
    }

    /// What happens to messages with a bare CR or LF. Default: refused.
    #[must_use]
    pub fn bare_newlines(mut self, bare_newlines: BareNewlines) -> Self {
        self.config.bare_newlines = bare_newlines;
        self
    }

    /// Puts a Received field before what goes into mailboxes. Default: bytes stay as they are.
    #[must_use]
    pub fn received_header(mut self) -> Self {
        self.config.received_header = true;
        self
    }

    /// Takes addresses such as `550-5.1.1@` for ordinary ones. Default: they cause faults, see [`crate::named_faults`].
    #[must_use]
    pub fn without_named_faults(mut self) -> Self {
        self.config.named_faults = false;
        self
    }

    /// The name in greetings. Default `localhost`.
    #[must_use]
    pub fn hostname(mut self, hostname: &str) -> Self {
        self.config.hostname = hostname.to_owned();
        self
    }

    /// IMAP's hierarchy delimiter. Default `/`.
    #[must_use]
    pub fn delimiter(mut self, delimiter: char) -> Self {
        self.config.delimiter = delimiter;
        self
    }

    /// All limits at once.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Largest message in octets. Default 64 MiB.
    #[must_use]
    pub fn max_message_size(mut self, octets: u64) -> Self {
        self.config.limits.message_size = octets;
        self
    }

    /// Recipients per transaction. Default 1000.
    #[must_use]
    pub fn max_recipients(mut self, recipients: usize) -> Self {
        self.config.limits.recipients = recipients;
        self
    }

    /// Keeps bodies up to this size; larger ones are recorded by size and SHA-256 and put in no mailbox.
    /// Default: all are kept.
    #[must_use]
    pub fn keep_bodies_up_to(mut self, octets: u64) -> Self {
        self.config.limits.kept_body_size = octets;
        self
    }

    /// Uses this authority instead of a new one.
    #[must_use]
    pub fn authority(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Presents a certificate with this flaw. Default: none.
    #[must_use]
    pub fn certificate(mut self, flaw: Flaw) -> Self {
        self.flaw = flaw;
        self
    }

    /// Makes the certificate, binds the ports and starts to serve on the present tokio runtime.
    ///
    /// # Errors
    /// If a port cannot be bound or a certificate cannot be made.
    pub async fn start(self) -> io::Result<PostOffice> {
        let authority = match self.authority {
            Some(authority) => authority,
            None => Authority::new().map_err(io::Error::other)?,
        };
        let certificate = authority.issue(self.flaw).map_err(io::Error::other)?;
        let tls = certificate.server_config().map_err(io::Error::other)?;
        let shared = Shared::new(
            self.config,
            authority,
            (certificate, tls),
            self.credentials,
            self.withheld,
        );
        PostOffice::open(Arc::new(shared)).await
    }
}
