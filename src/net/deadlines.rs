//! How long each phase of getting a connection ready may take.

use std::future::Future;
use std::time::Duration;

use super::{NetError, NetErrorKind};

/// A phase that has a deadline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Looking up the host name.
    Resolve,
    /// The TCP handshake.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The first words of the server.
    Greeting,
    /// EHLO, CAPABILITY, STARTTLS.
    Handshake,
    /// The login.
    Login,
    /// Any other wait, ended by the system.
    Io,
}

impl Phase {
    pub(super) fn timeout_words(self) -> &'static str {
        match self {
            Phase::Resolve => "the name servers did not answer in time; check the network",
            Phase::Connect => "no connection in time; check host, port and firewall",
            Phase::Tls => "the TLS handshake did not end in time",
            Phase::Greeting => {
                "the server did not greet in time; a port for implicit TLS may be used without it"
            }
            Phase::Handshake => "the server did not answer in time",
            Phase::Login => "the server did not answer the login in time",
            Phase::Io => "the connection has gone silent",
        }
    }
}

/// Deadlines by phase. The defaults are those of RFC 5321 section 4.5.3.2 where it names one;
/// IMAP names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Looking up the host name (default 20 s).
    pub(crate) resolve: Duration,
    /// All attempts to connect together (default 30 s).
    pub(crate) connect: Duration,
    /// Lead of one address over the next (default 250 ms, RFC 8305 section 5).
    pub(crate) stagger: Duration,
    /// The TLS handshake (default 30 s).
    pub(crate) tls: Duration,
    /// The greeting (default 5 min, RFC 5321 section 4.5.3.2.1).
    pub(crate) greeting: Duration,
    /// EHLO, CAPABILITY and STARTTLS, each (default 60 s).
    pub(crate) handshake: Duration,
    /// The login as a whole (default 90 s: servers delay the answer to a wrong password).
    pub(crate) login: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            resolve: Duration::from_secs(20),
            connect: Duration::from_secs(30),
            stagger: Duration::from_millis(250),
            tls: Duration::from_secs(30),
            greeting: Duration::from_secs(5 * 60),
            handshake: Duration::from_secs(60),
            login: Duration::from_secs(90),
        }
    }
}

impl Deadlines {
    /// The longest time until a connection is ready for its first message or has failed.
    pub(crate) fn total(&self) -> Duration {
        self.resolve + self.connect + self.tls + self.greeting + self.handshake * 3 + self.login
    }

    pub(super) fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Resolve => self.resolve,
            Phase::Connect => self.connect,
            Phase::Tls => self.tls,
            Phase::Greeting => self.greeting,
            Phase::Handshake | Phase::Io => self.handshake,
            Phase::Login => self.login,
        }
    }

    /// Waits for `work`, at most as long as `phase` may take.
    pub(super) async fn bound<T>(
        &self,
        phase: Phase,
        server: &str,
        work: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, NetError> {
        match tokio::time::timeout(self.of(phase), work).await {
            Ok(result) => result,
            Err(_) => Err(NetError::new(NetErrorKind::Timeout(phase), server, "")),
        }
    }
}
