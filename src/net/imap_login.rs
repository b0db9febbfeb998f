//! The IMAP login (RFC 3501 sections 6.2.2 and 6.2.3, RFC 4959).
//!
//! It is done on the raw stream, so that no secret passes through a library that logs what it
//! sends.

use std::sync::atomic::{AtomicU8, Ordering};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::imap::{Capabilities, Said, told_capabilities};
use super::imap_reply::{ImapReply, ReplyStatus, Throttle, throttle};
use super::{
    Channel, Connector, ImapOpened, Mechanism, NetError, NetErrorKind, Phase, SaslError, Stream,
    conceal,
};

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
    fn concealing(self, user: &str, secret: &SecretString) -> Self {
        let clean = |words: String| conceal(&words, user, secret);
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

/// Which way of logging in worked last, so that a server is not asked twice each time.
#[derive(Debug, Default)]
pub(crate) struct LoginMemory(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Authenticate(Mechanism),
    LoginCommand,
}

impl LoginMemory {
    const AUTHENTICATE: u8 = 1;
    const LOGIN: u8 = 2;

    fn remember(&self, method: Method) {
        let value = match method {
            Method::Authenticate(_) => Self::AUTHENTICATE,
            Method::LoginCommand => Self::LOGIN,
        };
        self.0.store(value, Ordering::Relaxed);
    }

    fn prefers(&self, method: Method) -> bool {
        match method {
            Method::Authenticate(_) => self.0.load(Ordering::Relaxed) == Self::AUTHENTICATE,
            Method::LoginCommand => self.0.load(Ordering::Relaxed) == Self::LOGIN,
        }
    }
}

impl Connector {
    /// Logs in. `wanted` is the profile's `auth`. Where nothing is wanted, AUTHENTICATE PLAIN is
    /// tried first and the LOGIN command behind it, because there are servers that offer the one
    /// and only serve the other; what worked once is used alone from then on.
    ///
    /// # Errors
    /// [`LoginError`]; the connection is gone in any case.
    pub(crate) async fn imap_login(
        &self,
        mut opened: ImapOpened,
        user: &str,
        secret: &SecretString,
        wanted: Option<&str>,
        memory: &LoginMemory,
    ) -> Result<ImapLoggedIn, LoginError> {
        let methods = methods(&opened.capabilities, wanted, opened.channel, memory)
            .map_err(|error| LoginError::Settings { server: self.name.clone(), error })?;
        let work = async { Ok(opened.log_in(&methods, user, secret, memory).await) };
        let told = self.deadlines.bound(Phase::Login, &self.name, work).await?;
        let told = told.map_err(|error| error.concealing(user, secret))?;
        let capabilities = match told {
            Some(told) => told,
            None => {
                let work = opened.ask_capabilities();
                self.deadlines.bound(Phase::Handshake, &self.name, work).await?
            }
        };
        Ok(ImapLoggedIn { stream: opened.lines.into_stream(&[]), capabilities })
    }
}

fn methods(
    offered: &Capabilities,
    wanted: Option<&str>,
    channel: Channel,
    memory: &LoginMemory,
) -> Result<Vec<Method>, SaslError> {
    if channel == Channel::Clear {
        return Err(SaslError::Cleartext);
    }
    let command_allowed = !offered.has("LOGINDISABLED");
    let wants_login = wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case("login"));
    if wants_login && command_allowed {
        return Ok(vec![Method::LoginCommand]);
    }
    let mut found: Vec<Method> = Vec::new();
    let chosen = Mechanism::choose(&offered.mechanisms(), wanted, channel);
    match chosen {
        // The command does the same as this mechanism, in fewer steps.
        Ok(Mechanism::Login) if command_allowed && wanted.is_none() => {}
        Ok(mechanism) => found.push(Method::Authenticate(mechanism)),
        Err(error) if wanted.is_some() || !command_allowed => return Err(error),
        Err(_) => {}
    }
    if wanted.is_none() && command_allowed {
        found.push(Method::LoginCommand);
    }
    if let Some(preferred) = found.iter().copied().find(|method| memory.prefers(*method)) {
        return Ok(vec![preferred]);
    }
    Ok(found)
}

impl ImapOpened {
    async fn log_in(
        &mut self,
        methods: &[Method],
        user: &str,
        secret: &SecretString,
        memory: &LoginMemory,
    ) -> Result<Option<Capabilities>, LoginError> {
        let mut refusal: Option<LoginError> = None;
        for method in methods {
            let answered = match method {
                Method::Authenticate(mechanism) => {
                    self.authenticate(*mechanism, user, secret).await
                }
                Method::LoginCommand => self.login_command(user, secret).await,
            };
            let reply = match (answered, refusal.take()) {
                (Ok(reply), earlier) => {
                    refusal = earlier;
                    reply
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
            refusal.get_or_insert(LoginError::Refused { server, words: reply.words() });
        }
        Err(refusal.unwrap_or_else(|| LoginError::Settings {
            server: self.lines.server().to_owned(),
            error: SaslError::NotOffered(self.capabilities.mechanisms().join(" ")),
        }))
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

    async fn authenticate(
        &mut self,
        mechanism: Mechanism,
        user: &str,
        secret: &SecretString,
    ) -> Result<ImapReply, NetError> {
        if self.capabilities.has("SASL-IR") && mechanism.has_initial_response() {
            let reply = self.exchange(mechanism, user, secret, Initial::WithCommand).await?;
            // Coremail offers SASL-IR and does not understand it.
            if reply.status != ReplyStatus::Bad || reply.throttle().is_some() {
                return Ok(reply);
            }
        }
        self.exchange(mechanism, user, secret, Initial::WhenAsked).await
    }

    async fn exchange(
        &mut self,
        mechanism: Mechanism,
        user: &str,
        secret: &SecretString,
        initial: Initial,
    ) -> Result<ImapReply, NetError> {
        let name = mechanism.name();
        let mut answered = 0;
        let tag = match initial {
            Initial::WhenAsked => self.begin(format!("AUTHENTICATE {name}").as_bytes()).await?,
            Initial::WithCommand => {
                let response = mechanism.response_base64(0, user, secret);
                answered = 1;
                let command = Zeroizing::new(format!("AUTHENTICATE {name} {}", *response));
                self.begin(command.as_bytes()).await?
            }
        };
        loop {
            match self.next(&tag).await? {
                Said::Done(reply) => return Ok(reply),
                Said::Untagged(_) => {}
                Said::Continue if answered >= MOST_CHALLENGES => {
                    return Err(self.lines.protocol("AUTHENTICATE does not end"));
                }
                Said::Continue => {
                    let mut line = mechanism.response_base64(answered, user, secret);
                    line.push_str("\r\n");
                    self.lines.send(line.as_bytes()).await?;
                    answered += 1;
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
                    Said::Continue => break,
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
                Said::Continue => return Err(self.lines.protocol("LOGIN: an idle question")),
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
