//! LOGIN and AUTHENTICATE (RFC 3501 section 6.2, RFC 4959).

use imap_codec::AuthenticateDataCodec;
use imap_codec::decode::Decoder;
use imap_codec::imap_types::auth::{AuthMechanism, AuthenticateData};

use super::session::Session;
use crate::config::{AuthPolicy, ImapCapability, Mechanism};
use crate::connection::{Flow, Line};
use crate::sasl::{Exchange, Step, encode, password};
use crate::smtp::ViolationKind;
use crate::transcript::Speaker;

/// Longest line of an exchange.
const LINE: usize = 64 << 10;

impl Session {
    /// Whether passwords and tokens may be sent now.
    pub(super) fn login_possible(&self) -> bool {
        let policy = self.connection.shared.config.auth;
        self.connection.is_tls() || policy != AuthPolicy::RequiredWithinTls
    }

    pub(super) fn login_command_possible(&self) -> bool {
        self.login_possible() && self.connection.shared.offers(Mechanism::Login)
    }

    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        if !self.login_possible() {
            return Vec::new();
        }
        let shared = &self.connection.shared;
        let mut mechanisms: Vec<Mechanism> = Mechanism::ALL.to_vec();
        mechanisms.retain(|&mechanism| shared.offers(mechanism) && mechanism != Mechanism::Login);
        mechanisms
    }

    pub(super) fn login(&mut self, tag: &str, user: &[u8], secret: &[u8]) {
        if !self.login_command_possible() {
            self.violation(ViolationKind::AuthInClear, "LOGIN");
            self.done(tag, "NO [PRIVACYREQUIRED] LOGIN is disabled");
            return;
        }
        let step = match (std::str::from_utf8(user), std::str::from_utf8(secret)) {
            (Ok(user), Ok(secret)) => password(user, secret, &self.connection.shared),
            _ => Step::Refused,
        };
        self.conclude_login(tag, step);
    }

    pub(super) async fn authenticate(
        &mut self,
        tag: &str,
        mechanism: &AuthMechanism<'_>,
        initial: Option<&[u8]>,
    ) -> Flow {
        let mechanism = match mechanism {
            AuthMechanism::Plain => Some(Mechanism::Plain),
            AuthMechanism::XOAuth2 => Some(Mechanism::XOAuth2),
            AuthMechanism::OAuthBearer => Some(Mechanism::OAuthBearer),
            _ => None,
        };
        let offered = self.mechanisms();
        let Some(mechanism) = mechanism.filter(|mechanism| offered.contains(mechanism)) else {
            self.violation(ViolationKind::NotOffered, "AUTHENTICATE");
            self.done(tag, "NO mechanism not offered");
            return Ok(());
        };
        if initial.is_some() && !self.connection.shared.offers(ImapCapability::SaslIr) {
            self.violation(ViolationKind::NotOffered, "SASL-IR");
            self.done(tag, "BAD initial response not offered");
            return Ok(());
        }
        let mut exchange = Exchange::new(mechanism);
        let mut answer = match initial {
            Some(initial) => Some(initial.to_vec()),
            None => self.challenge(&exchange.first_challenge()).await?,
        };
        loop {
            let Some(message) = answer else {
                self.count_failure();
                self.done(tag, "BAD authentication given up");
                return Ok(());
            };
            match exchange.next(&message, &self.connection.shared) {
                Step::Challenge(challenge) => answer = self.challenge(&challenge).await?,
                step => {
                    self.conclude_login(tag, step);
                    return Ok(());
                }
            }
        }
    }

    fn conclude_login(&mut self, tag: &str, step: Step) {
        match step {
            Step::Accepted(user) => {
                let protocol = self.connection.protocol;
                self.connection.shared.count(protocol, |counters| counters.logins += 1);
                self.user = Some(user);
                let capabilities = self.capabilities();
                self.done(tag, &format!("OK [CAPABILITY {capabilities}] logged in"));
            }
            Step::Malformed => {
                self.count_failure();
                self.done(tag, "BAD malformed");
            }
            Step::Refused | Step::Challenge(_) => {
                self.count_failure();
                self.done(tag, "NO [AUTHENTICATIONFAILED] invalid credentials");
            }
        }
    }

    fn count_failure(&self) {
        let protocol = self.connection.protocol;
        self.connection.shared.count(protocol, |counters| counters.login_failures += 1);
    }

    /// Sends a challenge and returns the answer, `None` if it is no base64 or the client gives up.
    async fn challenge(&mut self, challenge: &[u8]) -> Flow<Option<Vec<u8>>> {
        self.connection.say(&format!("+ {}\r\n", encode(challenge)));
        let Line::Whole(line) = self.connection.line(LINE).await? else {
            return Ok(None);
        };
        self.connection.record(Speaker::Client, b"***");
        Ok(match AuthenticateDataCodec::default().decode(&line) {
            Ok((_, AuthenticateData::Continue(data))) => Some(data.declassify().to_vec()),
            _ => None,
        })
    }
}
