//! The IMAP login (RFC 3501 sections 6.2.2 and 6.2.3, RFC 4959, RFC 7628, RFC 7677).
//!
//! It is done on the raw stream, so that no secret passes through a library that logs what it
//! sends.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::imap::{Capabilities, Said, told_capabilities};
use super::imap_reply::{ImapReply, ReplyStatus, Throttle, throttle};
use super::line::LineStream;
use super::{
    Binding, Channel, Claim, Connector, Exchange, ImapOpened, Mechanism, NetError, NetErrorKind,
    Phase, SaslError, Stream, conceal,
};
use crate::spi::SecretKind;

/// Most questions a server may ask during one AUTHENTICATE.
const MOST_CHALLENGES: usize = 5;

/// A connection that is logged in.
#[derive(Debug)]
pub(crate) struct ImapLoggedIn {
    /// The connection.
    pub(crate) stream: Stream,
    /// What the server offers after the login.
    pub(crate) capabilities: Capabilities,
}

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    /// The connection failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// No login is possible with these settings.
    #[error("{server}: {error}")]
    Settings {
        /// `host:port`.
        server: String,
        /// The reason.
        error: SaslError,
    },
    /// The server asked for patience; the credentials may be right.
    #[error("{server}: the server asks for patience ({words})")]
    Throttled {
        /// `host:port`.
        server: String,
        /// What it said.
        words: String,
        /// What it asks for.
        throttle: Throttle,
    },
    /// The server refused the credentials.
    #[error("{server}: the server refuses the login ({words}); check user and password")]
    Refused {
        /// `host:port`.
        server: String,
        /// What it said.
        words: String,
    },
}

impl LoginError {
    /// The same without the secret, where the server repeats it.
    fn concealing(self, claim: Claim<'_>) -> Self {
        let clean = |words: String| conceal(&words, claim);
        match self {
            LoginError::Net(error) => {
                LoginError::Net(NetError { detail: clean(error.detail), ..error })
            }
            LoginError::Settings { server, error } => LoginError::Settings { server, error },
            LoginError::Throttled { server, words, throttle } => {
                LoginError::Throttled { server, words: clean(words), throttle }
            }
            LoginError::Refused { server, words } => {
                LoginError::Refused { server, words: clean(words) }
            }
        }
    }
}

/// Which way of logging in worked last, so that a server is not asked twice each time, and whether
/// it broke at COMPRESS.
#[derive(Debug, Default)]
pub(crate) struct LoginMemory {
    method: Mutex<Option<Method>>,
    compression_breaks: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Authenticate(Mechanism),
    LoginCommand,
}

impl LoginMemory {
    fn remember(&self, method: Method) {
        *self.method.lock().unwrap_or_else(PoisonError::into_inner) = Some(method);
    }

    fn prefers(&self, method: Method) -> bool {
        *self.method.lock().unwrap_or_else(PoisonError::into_inner) == Some(method)
    }

    fn compression_breaks(&self) -> bool {
        self.compression_breaks.load(Ordering::Relaxed)
    }

    /// The connection was lost between COMPRESS and the first answer that is compressed. It may have
    /// been for another reason; who is not asked again only loses some speed.
    fn broke_at_compression(&self, error: &NetError) {
        self.compression_breaks.store(true, Ordering::Relaxed);
        tracing::warn!(%error, "A connection was lost at COMPRESS; the next ones do without");
    }
}

/// What a login is made with.
#[derive(Clone, Copy)]
pub(crate) struct ImapLogin<'a> {
    /// User name.
    pub(crate) user: &'a str,
    /// Password or token.
    pub(crate) secret: &'a SecretString,
    /// Which of the two.
    pub(crate) kind: SecretKind,
    /// The profile's `auth`.
    pub(crate) wanted: Option<&'a str>,
    /// What worked before.
    pub(crate) memory: &'a LoginMemory,
    /// Whether the connection is compressed behind it.
    pub(crate) compress: Compress,
}

/// Whether a connection is compressed where the server offers it (COMPRESS=DEFLATE, RFC 4978).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    /// Unless the server is on this machine: what it saves on the wire costs both ends time.
    #[default]
    WhereItPays,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Compress {
    pub(super) fn pays(self, peer: Option<SocketAddr>) -> bool {
        match self {
            Compress::WhereItPays => {
                peer.is_some_and(|peer| !peer.ip().to_canonical().is_loopback())
            }
            Compress::Always => true,
            Compress::Never => false,
        }
    }
}

impl Connector {
    /// Logs in by the mechanism the profile wants, and by no other. Where it wants none, a
    /// password is shown by the best mechanism that is offered and, when that is refused, by the
    /// next one, last by the LOGIN command: there are servers that offer more than they serve.
    /// What worked once is used alone from then on. A connection that is lost at COMPRESS is made
    /// again, without it.
    ///
    /// # Errors
    /// [`LoginError`]; the connection is gone in any case.
    pub(crate) async fn imap_login(
        &self,
        mut opened: ImapOpened,
        login: ImapLogin<'_>,
    ) -> Result<ImapLoggedIn, LoginError> {
        let methods = methods(&opened.capabilities, login, opened.channel)
            .map_err(|error| LoginError::Settings { server: self.name.clone(), error })?;
        let ImapLogin { user, secret, .. } = login;
        let binding = opened.binding.take();
        let claim = Claim {
            user,
            secret,
            host: &self.server.host,
            port: self.server.port,
            binding: Binding::of(binding.as_ref(), &opened.capabilities.mechanisms()),
        };
        let work = async { Ok(opened.log_in(&methods, claim, login.memory).await) };
        let told = self.deadlines.bound(Phase::Login, &self.name, work).await?;
        let told = told.map_err(|error| error.concealing(claim))?;
        let capabilities = match told {
            Some(told) => told,
            None => {
                let work = opened.ask_capabilities();
                self.deadlines.bound(Phase::Handshake, &self.name, work).await?
            }
        };
        if capabilities.has("COMPRESS=DEFLATE")
            && login.compress.pays(opened.lines.stream().peer_addr().ok())
            && !login.memory.compression_breaks()
        {
            let work = self.deadlines.bound(Phase::Handshake, &self.name, opened.compress());
            opened = match work.await {
                Ok(opened) => opened,
                Err(error) => {
                    login.memory.broke_at_compression(&error);
                    let again = self.imap_open().await?;
                    return Box::pin(self.imap_login(again, login)).await;
                }
            };
        }
        let stream = opened.lines.into_stream(&[]);
        Ok(ImapLoggedIn { stream, capabilities })
    }
}

fn methods(
    offered: &Capabilities,
    login: ImapLogin<'_>,
    channel: Channel,
) -> Result<Vec<Method>, SaslError> {
    if channel == Channel::Clear {
        return Err(SaslError::Cleartext);
    }
    let wanted = login.wanted;
    let command_allowed = !offered.has("LOGINDISABLED");
    let wants_login = wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case("login"));
    if wants_login && command_allowed {
        return Ok(vec![Method::LoginCommand]);
    }
    // The command is for passwords.
    let falls_back = command_allowed && wanted.is_none() && login.kind == SecretKind::Password;
    let mut found: Vec<Method> = Vec::new();
    match Mechanism::candidates(&offered.mechanisms(), wanted, channel, login.kind) {
        Ok(mechanisms) => found.extend(
            mechanisms
                .into_iter()
                // The command does the same as this mechanism, in fewer steps.
                .filter(|mechanism| !(falls_back && *mechanism == Mechanism::Login))
                .map(Method::Authenticate),
        ),
        Err(error) if !falls_back => return Err(error),
        Err(_) => {}
    }
    if login.kind == SecretKind::Token {
        // Another mechanism would carry the same token.
        found.truncate(1);
    }
    if falls_back {
        found.push(Method::LoginCommand);
    }
    // More refusals in a row would look like an attack; SCRAM bound and unbound is one.
    let bound = found.first() == Some(&Method::Authenticate(Mechanism::ScramSha256Plus));
    found.truncate(if bound { 3 } else { 2 });
    if let Some(preferred) = found.iter().copied().find(|method| login.memory.prefers(*method)) {
        return Ok(vec![preferred]);
    }
    Ok(found)
}

impl ImapOpened {
    async fn log_in(
        &mut self,
        methods: &[Method],
        claim: Claim<'_>,
        memory: &LoginMemory,
    ) -> Result<Option<Capabilities>, LoginError> {
        let mut refusal: Option<LoginError> = None;
        for method in methods {
            let answered = match method {
                Method::Authenticate(mechanism) => self.authenticate(*mechanism, claim).await,
                Method::LoginCommand => {
                    let reply = self.login_command(claim.user, claim.secret).await;
                    reply.map(|reply| (reply, None))
                }
            };
            let (reply, complaint) = match (answered, refusal.take()) {
                (Ok(answer), earlier) => {
                    refusal = earlier;
                    answer
                }
                // Hanging up on the second try does not undo the refusal of the first.
                (Err(_), Some(earlier)) => return Err(earlier),
                (Err(error), None) => return Err(self.parting(error)),
            };
            if reply.status == ReplyStatus::Ok {
                memory.remember(*method);
                return Ok(told_capabilities(&reply.code));
            }
            let server = self.lines.server().to_owned();
            if let Some(throttle) = reply.throttle() {
                return Err(LoginError::Throttled { server, words: reply.words(), throttle });
            }
            let words = match complaint {
                Some(complaint) => format!("{}: {complaint}", reply.words()),
                None => reply.words(),
            };
            refusal.get_or_insert(LoginError::Refused { server, words });
        }
        Err(refusal.unwrap_or_else(|| LoginError::Settings {
            server: self.lines.server().to_owned(),
            error: SaslError::NotOffered(self.capabilities.mechanisms().join(" ")),
        }))
    }

    /// Compresses the connection, unless the server refuses (RFC 4978 section 3). That it works is
    /// seen by a question: a server that does not do what it offers would break every connection.
    async fn compress(mut self) -> Result<Self, NetError> {
        let (reply, _) = self.command(b"COMPRESS DEFLATE").await?;
        if reply.status == ReplyStatus::Ok {
            let server = self.lines.server().to_owned();
            self.lines = LineStream::new(self.lines.into_stream(&[]).deflated(), &server);
            self.command(b"NOOP").await?;
        }
        Ok(self)
    }

    /// A BYE in the middle of a login may be a request for patience.
    fn parting(&self, error: NetError) -> LoginError {
        match throttle("", &error.detail) {
            Some(throttle) if error.kind == NetErrorKind::Unavailable => {
                LoginError::Throttled { server: error.server, words: error.detail, throttle }
            }
            _ => LoginError::Net(error),
        }
    }

    /// The reply, and what the server said about a token before it.
    async fn authenticate(
        &mut self,
        mechanism: Mechanism,
        claim: Claim<'_>,
    ) -> Result<(ImapReply, Option<String>), NetError> {
        if self.capabilities.has("SASL-IR") && mechanism.has_initial_response() {
            let told = self.exchange(mechanism, claim, Initial::WithCommand).await?;
            // Coremail offers SASL-IR and does not understand it.
            if told.0.status != ReplyStatus::Bad || told.0.throttle().is_some() {
                return Ok(told);
            }
        }
        self.exchange(mechanism, claim, Initial::WhenAsked).await
    }

    async fn exchange(
        &mut self,
        mechanism: Mechanism,
        claim: Claim<'_>,
        initial: Initial,
    ) -> Result<(ImapReply, Option<String>), NetError> {
        let name = mechanism.name();
        let mut exchange =
            Exchange::new(mechanism, claim).map_err(|why| self.lines.protocol(why))?;
        let tag = match initial {
            Initial::WhenAsked => self.begin(format!("AUTHENTICATE {name}").as_bytes()).await?,
            Initial::WithCommand => {
                let command =
                    Zeroizing::new(format!("AUTHENTICATE {name} {}", *exchange.initial_argument()));
                self.begin(command.as_bytes()).await?
            }
        };
        let mut challenges = 0;
        loop {
            match self.next(&tag).await? {
                Said::Done(reply) => {
                    if reply.status == ReplyStatus::Ok {
                        exchange.accepted().map_err(|why| self.lines.protocol(why))?;
                    }
                    return Ok((reply, exchange.complaint().map(str::to_owned)));
                }
                Said::Untagged(_) => {}
                Said::Continue(_) if challenges >= MOST_CHALLENGES => {
                    return Err(self.lines.protocol("AUTHENTICATE does not end"));
                }
                Said::Continue(challenge) => {
                    challenges += 1;
                    let mut line =
                        exchange.answer(&challenge).map_err(|why| self.lines.protocol(why))?;
                    line.push_str("\r\n");
                    self.lines.send(line.as_bytes()).await?;
                }
            }
        }
    }

    async fn login_command(
        &mut self,
        user: &str,
        secret: &SecretString,
    ) -> Result<ImapReply, NetError> {
        let password = secret.expose_secret();
        let mut tail = Zeroizing::new(Vec::with_capacity(4 * (user.len() + password.len()) + 64));
        tail.extend_from_slice(b"LOGIN ");
        let mut tag = None;
        for (number, argument) in [user, password].into_iter().enumerate() {
            if number == 1 {
                tail.push(b' ');
            }
            if is_quotable(argument) {
                push_quoted(&mut tail, argument);
                continue;
            }
            tail.extend_from_slice(format!("{{{}}}", argument.len()).as_bytes());
            let tag = match &tag {
                None => tag.insert(self.begin(&tail).await?),
                Some(tag) => {
                    tail.extend_from_slice(b"\r\n");
                    self.lines.send(&tail).await?;
                    tag
                }
            };
            tail.clear();
            loop {
                match self.next(tag).await? {
                    Said::Done(reply) => return Ok(reply),
                    Said::Untagged(_) => {}
                    Said::Continue(_) => break,
                }
            }
            tail.extend_from_slice(argument.as_bytes());
        }
        let tag = match tag {
            None => self.begin(&tail).await?,
            Some(tag) => {
                tail.extend_from_slice(b"\r\n");
                self.lines.send(&tail).await?;
                tag
            }
        };
        loop {
            match self.next(&tag).await? {
                Said::Done(reply) => return Ok(reply),
                Said::Untagged(_) => {}
                Said::Continue(_) => return Err(self.lines.protocol("LOGIN: an idle question")),
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Initial {
    WithCommand,
    WhenAsked,
}

/// Whether it can be a quoted string (RFC 3501 section 9); else it is sent as a literal.
fn is_quotable(text: &str) -> bool {
    text.len() <= 1000 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn push_quoted(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            line.push(b'\\');
        }
        line.push(byte);
    }
    line.push(b'"');
}
