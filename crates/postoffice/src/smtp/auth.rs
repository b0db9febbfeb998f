//! AUTH (RFC 4954).

use smtp_proto::{AUTH_LOGIN, AUTH_OAUTHBEARER, AUTH_PLAIN, AUTH_XOAUTH2};

use super::session::Session;
use super::{Reply, ViolationKind};
use crate::config::{AuthPolicy, Mechanism, SmtpExtension};
use crate::connection::{Flow, Line};
use crate::sasl::{Exchange, Step, decode, encode};
use crate::transcript::Speaker;

/// Longest line of an exchange (RFC 4954 section 4).
const LINE: usize = 12_288;

impl Session {
    pub(super) fn auth_offered(&self) -> bool {
        let shared = &self.connection.shared;
        let in_clear = !self.connection.is_tls();
        shared.offers(SmtpExtension::Auth)
            && !(in_clear && shared.config.auth == AuthPolicy::RequiredWithinTls)
    }

    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        let shared = &self.connection.shared;
        Mechanism::ALL.into_iter().filter(|&mechanism| shared.offers(mechanism)).collect()
    }

    /// The whole exchange.
    pub(super) async fn auth(&mut self, mechanism: u64, initial: &str) -> Flow<Reply> {
        if let Some(refusal) = self.auth_refusal() {
            return Ok(refusal);
        }
        let mechanism = match mechanism {
            AUTH_PLAIN => Some(Mechanism::Plain),
            AUTH_LOGIN => Some(Mechanism::Login),
            AUTH_XOAUTH2 => Some(Mechanism::XOAuth2),
            AUTH_OAUTHBEARER => Some(Mechanism::OAuthBearer),
            _ => None,
        };
        let offered = self.mechanisms();
        let Some(mechanism) = mechanism.filter(|mechanism| offered.contains(mechanism)) else {
            return Ok(Reply::new(504, "5.5.4", "mechanism not offered"));
        };
        let mut exchange = Exchange::new(mechanism);
        let mut message = if initial.is_empty() {
            let challenge = exchange.first_challenge();
            self.challenge(&challenge).await?
        } else {
            decode(initial.as_bytes())
        };
        loop {
            let Some(answer) = message else {
                return Ok(self.login_failed(Reply::new(501, "5.5.2", "cannot decode that")));
            };
            match exchange.next(&answer, &self.connection.shared) {
                Step::Challenge(challenge) => message = self.challenge(&challenge).await?,
                Step::Accepted(user) => {
                    let protocol = self.connection.protocol;
                    self.connection.shared.count(protocol, |counters| counters.logins += 1);
                    self.user = Some(user);
                    return Ok(Reply::new(235, "2.7.0", "authenticated"));
                }
                Step::Refused => {
                    let reply = Reply::new(535, "5.7.8", "credentials invalid");
                    return Ok(self.login_failed(reply));
                }
                Step::Malformed => {
                    return Ok(self.login_failed(Reply::new(501, "5.5.2", "malformed")));
                }
            }
        }
    }

    fn auth_refusal(&mut self) -> Option<Reply> {
        if self.user.is_some() || self.transaction.is_some() {
            self.violation(ViolationKind::BadSequence, "AUTH after AUTH or within a transaction");
            return Some(Reply::new(503, "5.5.1", "not now"));
        }
        if !self.connection.shared.offers(SmtpExtension::Auth) {
            self.violation(ViolationKind::NotOffered, "AUTH");
            return Some(Reply::new(502, "5.5.1", "not implemented"));
        }
        if !self.auth_offered() {
            self.violation(ViolationKind::AuthInClear, "AUTH");
            return Some(Reply::new(538, "5.7.11", "encryption required"));
        }
        None
    }

    fn login_failed(&mut self, reply: Reply) -> Reply {
        let protocol = self.connection.protocol;
        self.connection.shared.count(protocol, |counters| counters.login_failures += 1);
        reply
    }

    /// Sends a challenge and returns the answer, `None` if it is no base64 or the client gives up.
    async fn challenge(&mut self, challenge: &[u8]) -> Flow<Option<Vec<u8>>> {
        self.connection.say(&format!("334 {}\r\n", encode(challenge)));
        match self.connection.line(LINE).await? {
            Line::Whole(line) => {
                self.connection.record(Speaker::Client, b"***");
                Ok(decode(&line))
            }
            Line::TooLong => Ok(None),
        }
    }
}
