//! From a server's name to a connection that waits for MAIL: connect, EHLO, AUTH.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::capabilities::Capabilities;
use super::connection::Connection;
use super::deadlines::Deadlines;
use super::reply::{Failure, Fault, Phase};
use crate::net::{
    self, Channel, Claim, Connector, Exchange, Mechanism, NetError, NetErrorKind, TlsReason,
};
use crate::spi::{SecretError, SecretErrorKind, SecretKind};
use crate::transport::events::TroubleKind;
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

    /// The server has forgotten the login in mid-session, as when a token runs out. Whether there
    /// is another secret, so that dialling again at once makes sense. Default: no.
    async fn renew(&self) -> bool {
        false
    }
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
    memory: Mutex<Memory>,
}

/// What is kept from one login to the next.
#[derive(Default)]
struct Memory {
    /// What worked last, so that a server is not asked twice each time.
    worked: Option<Mechanism>,
    /// What was shown last: the secret to be renewed when it is refused.
    shown: Option<SecretString>,
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
            memory: Mutex::default(),
        }
    }

    /// Connects and logs in, and tells what the server said on the way. A token that is refused
    /// is renewed, and the login tried once more over a new connection.
    ///
    /// # Errors
    /// As [`Dial::dial`].
    pub(crate) async fn connect(&self) -> Result<(Connection, ServerReport), Failure> {
        match self.connect_once().await {
            Err(refused) if refused.trouble_kind() == TroubleKind::LoginRefused => {
                match self.renewed().await {
                    Ok(true) => self.connect_once().await,
                    Ok(false) => Err(refused),
                    Err(error) => Err(secret_failure(&self.host, &error)),
                }
            }
            connected => connected,
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for another secret in place of the one shown last.
    async fn renewed(&self) -> Result<bool, SecretError> {
        let shown = self.memory().shown.take();
        match (&self.credentials, shown) {
            (Some(credentials), Some(shown)) => {
                Ok(credentials.password.renew(&shown).await?.is_some())
            }
            _ => Ok(false),
        }
    }

    async fn connect_once(&self) -> Result<(Connection, ServerReport), Failure> {
        // A token first: there may be none until somebody signs in, and then nobody is called.
        let token = match &self.credentials {
            Some(credentials) if credentials.password.kind() == SecretKind::Token => {
                Some(self.secret(credentials).await?)
            }
            _ => None,
        };
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
            Some(credentials) => {
                Some(self.log_in(&mut connection, credentials, channel, token).await?)
            }
            None => None,
        };
        connection.ready();
        let offers = connection.capabilities().clone();
        Ok((connection, ServerReport { greeting, protection, offers, mechanism }))
    }

    async fn secret(&self, credentials: &Credentials) -> Result<SecretString, Failure> {
        let secret = credentials.password.secret().await;
        secret.map_err(|error| secret_failure(&self.host, &error))
    }

    async fn log_in(
        &self,
        connection: &mut Connection,
        credentials: &Credentials,
        channel: Channel,
        token: Option<SecretString>,
    ) -> Result<&'static str, Failure> {
        let source = &credentials.password;
        let offered = &connection.capabilities().auth;
        let candidates =
            Mechanism::candidates(offered, self.auth.as_deref(), channel, source.kind())
                .map_err(|why| connection.fault(Phase::Auth, Fault::NotServed, &why.to_string()))?;
        let secret = match token {
            Some(token) => token,
            None => self.secret(credentials).await?,
        };
        self.memory().shown = (source.kind() == SecretKind::Token).then(|| secret.clone());
        let claim = Claim {
            user: &credentials.user,
            secret: &secret,
            host: &self.host,
            port: self.connector.port(),
        };
        let worked = self.memory().worked.filter(|worked| candidates.contains(worked));
        let mut next =
            candidates.into_iter().filter(|one| worked.is_none_or(|worked| *one == worked));
        let mut mechanism = next.next();
        let mut refusal: Option<Failure> = None;
        while let Some(tried) = mechanism {
            match self.authenticate(connection, claim, tried).await {
                Ok(()) => {
                    self.memory().worked = Some(tried);
                    return Ok(tried.name());
                }
                Err(mut failure) => {
                    failure.reply.text = net::conceal(&failure.reply.text, claim);
                    mechanism = next.next().filter(|_| is_worth_another(tried, &failure));
                    // Hanging up on the second try does not undo the refusal of the first.
                    refusal.get_or_insert(failure);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| {
            connection.fault(Phase::Auth, Fault::NotServed, "there is no login to try")
        }))
    }

    /// One mechanism; once more without an initial response where the server does not
    /// understand one.
    async fn authenticate(
        &self,
        connection: &mut Connection,
        claim: Claim<'_>,
        mechanism: Mechanism,
    ) -> Result<(), Failure> {
        if !mechanism.has_initial_response() {
            return self.exchange(connection, claim, mechanism, Initial::WhenAsked).await;
        }
        match self.exchange(connection, claim, mechanism, Initial::WithCommand).await {
            // RFC 5321 section 4.2.2: a syntax error in parameters; no judgement of who we are.
            Err(failure) if failure.reply.code == 501 => {
                self.exchange(connection, claim, mechanism, Initial::WhenAsked).await
            }
            done => done,
        }
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        claim: Claim<'_>,
        mechanism: Mechanism,
        initial: Initial,
    ) -> Result<(), Failure> {
        let strange =
            |connection: &Connection, why: &str| connection.fault(Phase::Auth, Fault::Garbage, why);
        let mut exchange =
            Exchange::new(mechanism, claim).map_err(|why| strange(connection, why))?;
        let name = mechanism.name();
        let mut command = match initial {
            Initial::WithCommand => {
                Zeroizing::new(format!("AUTH {name} {}\r\n", *exchange.initial()))
            }
            Initial::WhenAsked => Zeroizing::new(format!("AUTH {name}\r\n")),
        };
        let mut challenges = 0;
        loop {
            let deadline = self.deadlines.command;
            connection.write(Phase::Auth, command.as_bytes(), deadline).await?;
            let response = connection.reply(Phase::Auth, deadline).await?;
            let mut reply = connection.words(&response);
            match reply.code {
                200..=299 => {
                    return exchange.accepted().map_err(|why| strange(connection, why));
                }
                334 if challenges < MAX_CHALLENGES => {
                    let challenge = response.message().next().unwrap_or_default();
                    let answer =
                        exchange.answer(challenge).map_err(|why| strange(connection, why))?;
                    command = Zeroizing::new(format!("{}\r\n", *answer));
                    challenges += 1;
                }
                _ => {
                    if let Some(complaint) = exchange.complaint() {
                        reply.text = format!("{}: {complaint}", reply.text);
                    }
                    return Err(Failure::refused(Phase::Auth, reply));
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Initial {
    WithCommand,
    WhenAsked,
}

/// Whether the next mechanism may do better: this one is not served, or it is SCRAM, which a
/// server may offer to all and have the keys of some.
fn is_worth_another(tried: Mechanism, failure: &Failure) -> bool {
    let refused = failure.trouble_kind() == TroubleKind::LoginRefused;
    matches!(failure.reply.code, 502 | 504) || (tried == Mechanism::ScramSha256 && refused)
}

/// There is no secret to show.
fn secret_failure(host: &str, error: &SecretError) -> Failure {
    let fault = match error.kind {
        SecretErrorKind::Unavailable => Fault::Secret,
        SecretErrorKind::OutOfReach => Fault::Unreachable,
        SecretErrorKind::NeedsSignIn => Fault::SignIn,
    };
    match fault {
        Fault::Secret => Failure::fault(Phase::Auth, fault, host, &error.words),
        // The words name whom it is about.
        _ => Failure::unconnected(Phase::Auth, fault, &error.words),
    }
}

#[async_trait]
impl Dial for SmtpDialer {
    async fn dial(&self) -> Result<Connection, Failure> {
        self.connect().await.map(|(connection, _)| connection)
    }

    async fn renew(&self) -> bool {
        // An error shows at the next dial, which asks for the secret.
        self.renewed().await.unwrap_or(false)
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
