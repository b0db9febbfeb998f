//! From a server's name to a connection that waits for MAIL: connect, EHLO, AUTH.

use async_trait::async_trait;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::capabilities::Capabilities;
use super::connection::Connection;
use super::deadlines::Deadlines;
use super::reply::{Failure, Fault, Phase};
use crate::net::{self, Channel, Connector, Mechanism, NetError, NetErrorKind, TlsReason};
use crate::transport::{Credentials, SmtpSettings};

/// Makes connections that wait for MAIL.
#[async_trait]
pub(crate) trait Dial: Send + Sync {
    /// Connects and logs in. The password is asked for anew each time, so that a mended one is
    /// used at once. Dropping the future closes the connection.
    ///
    /// # Errors
    /// Always of the network or the account, never of a message.
    async fn dial(&self) -> Result<Connection, Failure>;
}

/// What a server said of itself while it was logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerReport {
    /// The server's greeting, without its code.
    pub(crate) greeting: String,
    /// TLS version and cipher suite; `None` in clear.
    pub(crate) protection: Option<String>,
    /// What it offers.
    pub(crate) offers: Capabilities,
    /// How we logged in; `None` without a login.
    pub(crate) mechanism: Option<&'static str>,
}

/// The server of one account.
pub(crate) struct SmtpDialer {
    connector: Connector,
    host: String,
    credentials: Option<Credentials>,
    auth: Option<String>,
    helo: String,
    deadlines: Deadlines,
}

/// Most challenges a login may take; no mechanism here needs more than two.
const MAX_CHALLENGES: usize = 4;

impl SmtpDialer {
    /// A dialer for the server of `settings`, where we are called `helo`.
    pub(crate) fn new(settings: &SmtpSettings, helo: &str, deadlines: Deadlines) -> Self {
        SmtpDialer {
            connector: Connector::new(settings.server.clone(), deadlines.net, settings.cleartext),
            host: settings.server.host.clone(),
            credentials: settings.credentials.clone(),
            auth: settings.auth.clone(),
            helo: helo.to_owned(),
            deadlines,
        }
    }

    /// Connects and logs in, and tells what the server said on the way.
    ///
    /// # Errors
    /// As [`Dial::dial`].
    pub(crate) async fn connect(&self) -> Result<(Connection, ServerReport), Failure> {
        let opened =
            self.connector.smtp_open(&self.helo).await.map_err(|error| failure_of(&error))?;
        let channel = self.connector.channel(&opened.stream);
        let protection = opened.stream.protection();
        let greeting = net::for_people(&opened.greeting.join(" "));
        let stream = Box::new(opened.stream);
        let mut connection =
            Connection::new(stream, &self.host, Capabilities::default(), self.deadlines.clone());
        connection.protected_by(protection.as_deref());
        connection.begin();
        // The stream begins with the greeting once more.
        connection.reply(Phase::Greeting, self.deadlines.command).await?;
        hello(&mut connection, &self.helo).await?;
        let mechanism = match &self.credentials {
            Some(credentials) => Some(self.log_in(&mut connection, credentials, channel).await?),
            None => None,
        };
        connection.ready();
        let offers = connection.capabilities().clone();
        Ok((connection, ServerReport { greeting, protection, offers, mechanism }))
    }

    async fn log_in(
        &self,
        connection: &mut Connection,
        credentials: &Credentials,
        channel: Channel,
    ) -> Result<&'static str, Failure> {
        let offered = &connection.capabilities().auth;
        let mechanism = Mechanism::choose(offered, self.auth.as_deref(), channel)
            .map_err(|why| connection.fault(Phase::Auth, Fault::NotServed, &why.to_string()))?;
        let secret = credentials
            .password
            .secret()
            .await
            .map_err(|why| connection.fault(Phase::Auth, Fault::Secret, &why.to_string()))?;
        let exchanged = self.exchange(connection, credentials, &secret, mechanism).await;
        exchanged.map_err(|mut failure| {
            failure.reply.text = net::conceal(&failure.reply.text, &credentials.user, &secret);
            failure
        })?;
        Ok(mechanism.name())
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        credentials: &Credentials,
        secret: &SecretString,
        mechanism: Mechanism,
    ) -> Result<(), Failure> {
        let answer = |number| mechanism.response_base64(number, &credentials.user, secret);
        let mut challenges = 0;
        let mut command = if mechanism.has_initial_response() {
            challenges += 1;
            Zeroizing::new(format!("AUTH {} {}\r\n", mechanism.name(), *answer(0)))
        } else {
            Zeroizing::new(format!("AUTH {}\r\n", mechanism.name()))
        };
        loop {
            let deadline = self.deadlines.command;
            connection.write(Phase::Auth, command.as_bytes(), deadline).await?;
            let response = connection.reply(Phase::Auth, deadline).await?;
            let reply = connection.words(&response);
            match reply.code {
                200..=299 => return Ok(()),
                334 if challenges < MAX_CHALLENGES => {
                    command = Zeroizing::new(format!("{}\r\n", *answer(challenges)));
                    challenges += 1;
                }
                _ => return Err(Failure::refused(Phase::Auth, reply)),
            }
        }
    }
}

#[async_trait]
impl Dial for SmtpDialer {
    async fn dial(&self) -> Result<Connection, Failure> {
        self.connect().await.map(|(connection, _)| connection)
    }
}

/// EHLO, or HELO for a server that does not know it (RFC 5321 section 4.1.1.1).
async fn hello(connection: &mut Connection, helo: &str) -> Result<(), Failure> {
    let deadline = connection.deadlines().command;
    let mut response =
        connection.command(Phase::Ehlo, format!("EHLO {helo}\r\n"), deadline).await?;
    let extended = u16::from(response.code()) == 250;
    if matches!(u16::from(response.code()), 500 | 501 | 502 | 504) {
        response = connection.command(Phase::Ehlo, format!("HELO {helo}\r\n"), deadline).await?;
    }
    if u16::from(response.code()) != 250 {
        return Err(Failure::refused(Phase::Ehlo, connection.words(&response)));
    }
    if extended {
        connection.offer(Capabilities::from_ehlo(&response));
    }
    Ok(())
}

/// The one mapping from failures of getting connected to the classifier's.
fn failure_of(error: &NetError) -> Failure {
    let (phase, fault) = match error.kind {
        NetErrorKind::Resolve
        | NetErrorKind::Refused
        | NetErrorKind::Unreachable
        | NetErrorKind::Io => (Phase::Connect, Fault::Unreachable),
        NetErrorKind::Timeout(net::Phase::Greeting) => (Phase::Greeting, Fault::TimedOut),
        NetErrorKind::Timeout(net::Phase::Tls) => (Phase::Tls, Fault::TimedOut),
        NetErrorKind::Timeout(_) => (Phase::Connect, Fault::TimedOut),
        NetErrorKind::Closed => (Phase::Connect, Fault::Closed),
        NetErrorKind::Tls(TlsReason::Other) => (Phase::Tls, Fault::Tls),
        NetErrorKind::Tls(_)
        | NetErrorKind::StartTlsNotOffered
        | NetErrorKind::StartTlsRefused
        | NetErrorKind::EarlyPlaintext => (Phase::Tls, Fault::Certificate),
        NetErrorKind::Unavailable => (Phase::Greeting, Fault::Unreachable),
        NetErrorKind::Rejected | NetErrorKind::PreAuthenticated => {
            (Phase::Greeting, Fault::NotServed)
        }
        NetErrorKind::Protocol => (Phase::Greeting, Fault::Garbage),
        NetErrorKind::Settings => (Phase::Connect, Fault::NotServed),
    };
    Failure::unconnected(phase, fault, &error.to_string())
}

#[cfg(test)]
#[path = "login/tests.rs"]
mod tests;
