//! From a server's name to a connection that waits for MAIL: connect, EHLO, AUTH. While a host is
//! out of reach the next one of the profile is tried; a host that answered is believed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::capabilities::Capabilities;
use super::connection::Connection;
use super::deadlines::Deadlines;
use super::hosts::Hosts;
use super::reply::{Failure, Fault, Permanence, Phase};
use crate::clock::Clock;
use crate::net::{
    self, Binding, Channel, ChannelBinding, Claim, Connector, Exchange, Mechanism, NetError,
    NetErrorKind, Server, TlsReason,
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

    /// The server has forgotten in mid-session a login with this token, which has run out. Whether
    /// there is another one, so that dialling again at once makes sense. Default: no.
    async fn renew(&self, refused: &SecretString) -> bool {
        let _ = refused;
        false
    }

    /// The host that is used instead of the first one and why, in words; `None` while that one is.
    fn detour(&self) -> Option<String> {
        None
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

/// The servers of one account.
pub(crate) struct SmtpDialer {
    first: Route,
    /// For when the first one is out of reach, in order.
    fallback: Vec<Route>,
    hosts: Mutex<Hosts>,
    clock: Arc<dyn Clock>,
    credentials: Option<Credentials>,
    auth: Option<String>,
    helo: String,
    deadlines: Deadlines,
}

/// One host, with the settings of TLS that are its own.
struct Route {
    connector: Connector,
    host: String,
    /// The login that worked last, so that a server is not asked twice each time.
    worked: Mutex<Option<Mechanism>>,
}

impl Route {
    fn worked(&self) -> MutexGuard<'_, Option<Mechanism>> {
        self.worked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be known of a connection before a login.
struct Line {
    channel: Channel,
    binding: Option<ChannelBinding>,
}

/// Most challenges a login may take; no mechanism here needs more than two.
const MAX_CHALLENGES: usize = 4;

impl SmtpDialer {
    /// A dialer for the servers of `settings`, where we are called `helo`.
    pub(crate) fn new(
        settings: &SmtpSettings,
        helo: &str,
        deadlines: Deadlines,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let route = |server: &Server| Route {
            connector: Connector::new(server.clone(), deadlines.net, settings.cleartext),
            host: server.host.clone(),
            worked: Mutex::default(),
        };
        SmtpDialer {
            first: route(&settings.server),
            fallback: settings.fallback.iter().map(route).collect(),
            hosts: Mutex::default(),
            clock,
            credentials: settings.credentials.clone(),
            auth: settings.auth.clone(),
            helo: helo.to_owned(),
            deadlines,
        }
    }

    /// Connects to the first host and logs in, and tells what the server said on the way.
    ///
    /// # Errors
    /// As [`Dial::dial`].
    pub(crate) async fn connect(&self) -> Result<(Connection, ServerReport), Failure> {
        self.connect_to(&self.first).await
    }

    /// Connects to one host and logs in. A token that is refused is renewed, and the login tried
    /// once more over a new connection.
    async fn connect_to(&self, route: &Route) -> Result<(Connection, ServerReport), Failure> {
        // Of this very try: what others show meanwhile may be another token already.
        let mut shown = None;
        match self.connect_once(route, &mut shown).await {
            Err(refused) if refused.trouble_kind() == TroubleKind::LoginRefused => {
                match self.renewed(shown.as_ref()).await {
                    Ok(true) => self.connect_once(route, &mut shown).await,
                    Ok(false) => Err(refused),
                    Err(error) => Err(secret_failure(&route.host, &error)),
                }
            }
            connected => connected,
        }
    }

    /// Asks for another token in place of the one that was refused.
    async fn renewed(&self, refused: Option<&SecretString>) -> Result<bool, SecretError> {
        match (&self.credentials, refused) {
            (Some(credentials), Some(refused)) => {
                Ok(credentials.password.renew(refused).await?.is_some())
            }
            _ => Ok(false),
        }
    }

    /// `shown` becomes the token that the server was shown.
    async fn connect_once(
        &self,
        route: &Route,
        shown: &mut Option<SecretString>,
    ) -> Result<(Connection, ServerReport), Failure> {
        // A token first: there may be none until somebody signs in, and then nobody is called.
        let token = match &self.credentials {
            Some(credentials) if credentials.password.kind() == SecretKind::Token => {
                Some(secret_of(credentials, &route.host).await?)
            }
            _ => None,
        };
        let connector = &route.connector;
        let opened = connector.smtp_open(&self.helo).await.map_err(|error| failure_of(&error))?;
        let channel = connector.channel(&opened.stream);
        let (protection, binding) = (opened.stream.protection(), opened.stream.binding());
        let greeting = net::for_people(&opened.greeting.join(" "));
        let stream = Box::new(opened.stream);
        let mut connection =
            Connection::new(stream, &route.host, Capabilities::default(), self.deadlines.clone());
        connection.protected_by(protection.as_deref());
        connection.begin();
        // The stream begins with the greeting once more.
        connection.reply(Phase::Greeting, self.deadlines.command).await?;
        hello(&mut connection, &self.helo).await?;
        let mechanism = match &self.credentials {
            Some(credentials) => {
                let line = Line { channel, binding };
                shown.clone_from(&token);
                connection.logged_in_by(token.clone());
                Some(self.log_in(&mut connection, route, credentials, line, token).await?)
            }
            None => None,
        };
        connection.ready();
        let offers = connection.capabilities().clone();
        Ok((connection, ServerReport { greeting, protection, offers, mechanism }))
    }

    async fn log_in(
        &self,
        connection: &mut Connection,
        route: &Route,
        credentials: &Credentials,
        Line { channel, binding }: Line,
        token: Option<SecretString>,
    ) -> Result<&'static str, Failure> {
        let source = &credentials.password;
        let offered = &connection.capabilities().auth;
        let candidates =
            Mechanism::candidates(offered, self.auth.as_deref(), channel, source.kind())
                .map_err(|why| connection.fault(Phase::Auth, Fault::NotServed, &why.to_string()))?;
        let secret = match token {
            Some(token) => token,
            None => secret_of(credentials, &route.host).await?,
        };
        let claim = Claim {
            user: &credentials.user,
            secret: &secret,
            host: &route.host,
            port: route.connector.port(),
            binding: Binding::of(binding.as_ref(), offered),
        };
        let worked = route.worked().filter(|worked| candidates.contains(worked));
        let mut next =
            candidates.into_iter().filter(|one| worked.is_none_or(|worked| *one == worked));
        let mut mechanism = next.next();
        let mut refusal: Option<Failure> = None;
        while let Some(tried) = mechanism {
            match self.authenticate(connection, claim, tried).await {
                Ok(()) => {
                    *route.worked() = Some(tried);
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
                Zeroizing::new(format!("AUTH {name} {}\r\n", *exchange.initial_argument()))
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

/// Whether the next mechanism may do better: this one is not served, or it is one that a server may
/// offer to all and have the keys of some.
fn is_worth_another(tried: Mechanism, failure: &Failure) -> bool {
    let refused = failure.trouble_kind() == TroubleKind::LoginRefused;
    matches!(failure.reply.code, 502 | 504) || (tried.needs_keys() && refused)
}

async fn secret_of(credentials: &Credentials, host: &str) -> Result<SecretString, Failure> {
    let secret = credentials.password.secret().await;
    secret.map_err(|error| secret_failure(host, &error))
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
        let order = self.hosts().order(1 + self.fallback.len(), self.clock.now());
        let mut failures: Vec<(usize, Failure)> = Vec::new();
        for index in order {
            let Some(route) = self.route(index) else { continue };
            match self.connect_to(route).await {
                Ok((connection, _)) => {
                    let why = failures.iter().find(|(index, _)| *index == 0);
                    let why = why.map(|(_, failure)| failure.words());
                    self.hosts().connected(index, why, self.clock.now());
                    return Ok(connection);
                }
                Err(failure) if is_out_of_reach(&failure) => failures.push((index, failure)),
                Err(failure) => return Err(failure),
            }
        }
        Err(self.nobody(failures))
    }

    async fn renew(&self, refused: &SecretString) -> bool {
        // An error shows at the next dial, which asks for the secret.
        self.renewed(Some(refused)).await.unwrap_or(false)
    }

    fn detour(&self) -> Option<String> {
        let hosts = self.hosts();
        let (index, why) = hosts.detour()?;
        let used = self.route(index)?.connector.name();
        let first = self.first.connector.name();
        Some(match why {
            "" => format!("through {used} instead of {first}"),
            why => format!("through {used}, because {first} is out of reach: {why}"),
        })
    }
}

impl SmtpDialer {
    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, index: usize) -> Option<&Route> {
        match index.checked_sub(1) {
            None => Some(&self.first),
            Some(index) => self.fallback.get(index),
        }
    }

    /// What to say when no host can be reached: what is wrong with the first one, and that the
    /// others are no better.
    fn nobody(&self, mut failures: Vec<(usize, Failure)>) -> Failure {
        failures.sort_by_key(|(index, _)| *index);
        let mut failures = failures.into_iter();
        let Some((_, mut first)) = failures.next() else {
            // There is always one host.
            return Failure::fault(Phase::Connect, Fault::Internal, "", "there is no host");
        };
        for (index, failure) in failures {
            let name = self.route(index).map_or("", |route| route.connector.name());
            let words = failure.words();
            first.reply.text += &match words.starts_with(name) {
                true => format!("; {words}"),
                false => format!("; {name}: {words}"),
            };
        }
        first
    }
}

/// Whether another host may be tried: this one could not be reached, or said before the login that
/// it cannot serve now. What a host refuses for good, and any answer to a login, is for the owner
/// to hear and not to be tried elsewhere.
fn is_out_of_reach(failure: &Failure) -> bool {
    matches!(failure.phase, Phase::Connect | Phase::Tls | Phase::Greeting | Phase::Ehlo)
        && failure.verdict.permanence == Permanence::Temporary
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
