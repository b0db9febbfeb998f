//! Seeing whether a mail server answers at a place. Nothing is said to it but what comes before a
//! login.

use std::time::Duration;

use async_trait::async_trait;

use crate::net::{
    Cleartext, Connector, Deadlines, NetErrorKind, Server, TlsMode, TlsReason, Trust,
};
use crate::profile::{Protocol, ServerUrl};

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// A server of that kind, protected as asked, whose certificate is valid for its name.
    Ready,
    /// A server that speaks TLS, but nobody known says who it is; with the reason.
    Untrusted(String),
    /// Nothing of use.
    Nothing,
}

/// Looks at servers.
#[async_trait]
pub trait Reach: Send + Sync {
    /// What is at the place of a server. Dropping the future closes the connection.
    async fn reach(&self, server: &ServerUrl) -> Reached;
}

/// Connects and waits for the greeting.
#[derive(Clone, Debug)]
pub struct TlsReach {
    trust: Trust,
    deadline: Duration,
}

impl Default for TlsReach {
    fn default() -> Self {
        TlsReach { trust: Trust::Platform, deadline: Duration::from_secs(6) }
    }
}

impl TlsReach {
    /// Trusting others than the system's authorities.
    #[must_use]
    pub fn trusting(trust: Trust) -> Self {
        TlsReach { trust, ..Self::default() }
    }
}

#[async_trait]
impl Reach for TlsReach {
    async fn reach(&self, server: &ServerUrl) -> Reached {
        if server.tls == TlsMode::Plain {
            return Reached::Nothing;
        }
        let place = Server {
            host: server.host.clone(),
            port: server.port(),
            tls: server.tls,
            trust: self.trust.clone(),
            client: None,
        };
        let short = self.deadline;
        let deadlines = Deadlines {
            resolve: short,
            connect: short,
            tls: short,
            greeting: short,
            handshake: short,
            ..Deadlines::default()
        };
        let connector = Connector::new(place, deadlines, Cleartext::LoopbackOnly);
        let opened = async {
            match server.protocol {
                Protocol::Smtp => connector.smtp_open("[127.0.0.1]").await.map(drop),
                Protocol::Imap => connector.imap_open().await.map(drop),
            }
        };
        match tokio::time::timeout(short, opened).await {
            Ok(Ok(())) => Reached::Ready,
            Ok(Err(error)) => match error.kind {
                NetErrorKind::Tls(
                    TlsReason::UnknownIssuer
                    | TlsReason::Expired
                    | TlsReason::NotYetValid
                    | TlsReason::WrongName,
                ) => Reached::Untrusted(error.to_string()),
                _ => Reached::Nothing,
            },
            Err(_) => Reached::Nothing,
        }
    }
}
