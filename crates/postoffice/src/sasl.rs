//! The SASL exchanges, the same in both protocols: what a client's messages mean and whether they are right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::Mechanism;
use crate::state::Shared;

/// What comes next in an exchange.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask with this challenge (to be sent in base64).
    Challenge(Vec<u8>),
    /// This user is logged in.
    Accepted(String),
    /// Wrong user, password or token.
    Refused,
    /// The client's message makes no sense, or it gave up.
    Malformed,
}

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    mechanism: Mechanism,
    /// LOGIN: the name that was given.
    user: Option<String>,
    /// The error challenge of a bearer mechanism is out.
    failed: bool,
}

/// The error message of the bearer mechanisms (RFC 7628 section 3.2.2).
const INVALID_TOKEN: &[u8] = br#"{"status":"invalid_token","schemes":"bearer","scope":"mail"}"#;

impl Exchange {
    pub(crate) fn new(mechanism: Mechanism) -> Self {
        Self { mechanism, user: None, failed: false }
    }

    /// What the server says when the client sent no initial response.
    pub(crate) fn first_challenge(&self) -> Vec<u8> {
        match self.mechanism {
            Mechanism::Login => b"Username:".to_vec(),
            _ => Vec::new(),
        }
    }

    /// Takes the client's next message, decoded.
    pub(crate) fn next(&mut self, message: &[u8], shared: &Shared) -> Step {
        if self.failed {
            return Step::Refused;
        }
        let Ok(message) = std::str::from_utf8(message) else {
            return Step::Malformed;
        };
        match self.mechanism {
            Mechanism::Plain => plain(message, shared),
            Mechanism::Login => self.login(message, shared),
            Mechanism::XOAuth2 | Mechanism::OAuthBearer => self.bearer(message, shared),
        }
    }

    fn login(&mut self, message: &str, shared: &Shared) -> Step {
        match self.user.take() {
            None => {
                self.user = Some(message.to_owned());
                Step::Challenge(b"Password:".to_vec())
            }
            Some(user) => password(&user, message, shared),
        }
    }

    fn bearer(&mut self, message: &str, shared: &Shared) -> Step {
        let field = |name: &str| {
            message.split('\u{1}').find_map(|part| part.strip_prefix(name)).map(str::to_owned)
        };
        let user = match self.mechanism {
            Mechanism::XOAuth2 => field("user="),
            _ => message
                .split(',')
                .find_map(|part| part.strip_prefix("a="))
                .map(|user| user.replace("=2C", ",").replace("=3D", "=")),
        };
        let token = field("auth=").and_then(|auth| {
            let (scheme, token) = auth.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        let (Some(user), Some(token)) = (user, token) else {
            return Step::Malformed;
        };
        let known = shared.credentials(&user).and_then(|known| known.token);
        if known.is_some_and(|known| known == token) {
            return Step::Accepted(user);
        }
        self.failed = true;
        Step::Challenge(INVALID_TOKEN.to_vec())
    }
}

fn plain(message: &str, shared: &Shared) -> Step {
    let mut parts = message.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(identity), Some(user), Some(secret), None)
            if identity.is_empty() || identity == user =>
        {
            password(user, secret, shared)
        }
        (Some(_), Some(_), Some(_), None) => Step::Refused,
        _ => Step::Malformed,
    }
}

/// Whether user and password are right.
pub(crate) fn password(user: &str, password: &str, shared: &Shared) -> Step {
    let known = shared.credentials(user).and_then(|known| known.password);
    if known.is_some_and(|known| known == password) {
        Step::Accepted(user.to_owned())
    } else {
        Step::Refused
    }
}

pub(crate) fn encode(message: &[u8]) -> String {
    STANDARD.encode(message)
}

/// Decodes a client's message; `=` stands for an empty one (RFC 4954 section 4).
pub(crate) fn decode(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii();
    if line == b"=" {
        return Some(Vec::new());
    }
    STANDARD.decode(line).ok()
}
