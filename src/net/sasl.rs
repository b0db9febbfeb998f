//! Which login to use, and what it says (RFC 2195, RFC 4422, RFC 4616, RFC 7628, RFC 7677).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::binding::ChannelBinding;
use super::scram::{Bound, Scram};
use crate::spi::SecretKind;

/// Whether the profile allows a password on a connection without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cleartext {
    /// Only when the server is this machine.
    #[default]
    LoopbackOnly,
    /// Anywhere: the user said `insecure = true`.
    Allowed,
}

/// How far a password is safe on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// TLS protects it, and a login can be bound to the connection.
    Bound,
    /// TLS protects it.
    Encrypted,
    /// It does not leave this machine.
    Loopback,
    /// Anybody on the way can read it, and the user accepts that.
    ClearAllowed,
    /// Anybody on the way can read it.
    Clear,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mechanism {
    /// RFC 7677, bound to the TLS connection.
    ScramSha256Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 4616.
    Plain,
    /// `LOGIN`, never standardised and the only one of some servers.
    Login,
    /// RFC 2195. It does not show the password and is weak against guessing: under TLS for servers
    /// that offer nothing else, without TLS better than the two above.
    CramMd5,
    /// RFC 7628.
    OauthBearer,
    /// Google's and Microsoft's token login.
    XOauth2,
    /// RFC 4422 appendix A: the certificate of the TLS handshake says who it is.
    External,
}

/// All of them, the best of each kind first.
const ALL: [Mechanism; 8] = [
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::CramMd5,
    Mechanism::OauthBearer,
    Mechanism::XOauth2,
    Mechanism::External,
];

/// Why no mechanism can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SaslError {
    /// The connection is not safe for a password.
    #[error(
        "the password is not sent over a connection without TLS; use tls = \"implicit\" or \
         \"starttls\", or set insecure = true if you accept that it can be read on the way"
    )]
    Cleartext,
    /// The profile asks for a mechanism that this program does not know.
    #[error(
        "auth = {0:?} is not known; known are scram-sha-256-plus, scram-sha-256, plain, login, \
         cram-md5, oauthbearer, xoauth2 and external"
    )]
    Unknown(String),
    /// The profile asks for a login that is bound to the connection, and this one cannot be named.
    #[error("scram-sha-256-plus needs TLS, and a certificate that is signed in a usual way")]
    Unbound,
    /// The server does not offer what is needed.
    #[error("the server offers no login this program can use (it offers: {0})")]
    NotOffered(String),
    /// The account signs in by a token, and the server takes none.
    #[error("the server takes no token, neither by OAUTHBEARER nor by XOAUTH2 (it offers: {0})")]
    NoTokenLogin(String),
}

impl Mechanism {
    /// Its registered name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::OauthBearer => "OAUTHBEARER",
            Mechanism::XOauth2 => "XOAUTH2",
            Mechanism::External => "EXTERNAL",
        }
    }

    /// What it proves that one has.
    fn kind(self) -> SecretKind {
        match self {
            Mechanism::ScramSha256Plus
            | Mechanism::ScramSha256
            | Mechanism::Plain
            | Mechanism::Login
            | Mechanism::CramMd5 => SecretKind::Password,
            Mechanism::OauthBearer | Mechanism::XOauth2 => SecretKind::Token,
            Mechanism::External => SecretKind::Certificate,
        }
    }

    fn from_setting(setting: &str) -> Result<Self, SaslError> {
        ALL.into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(setting))
            .ok_or_else(|| SaslError::Unknown(setting.to_owned()))
    }

    /// The mechanisms to use out of what the server offers, the best first; at least one. `wanted`
    /// is the profile's `auth`: that one and no other. Without it those that fit the secret:
    /// SCRAM-SHA-256-PLUS where the connection can be bound to, SCRAM-SHA-256, PLAIN, LOGIN and
    /// CRAM-MD5 for a password, OAUTHBEARER and XOAUTH2 for a token.
    ///
    /// # Errors
    /// [`SaslError`]; [`SaslError::Cleartext`] comes first, whatever is offered.
    pub(crate) fn candidates<S: AsRef<str>>(
        offered: &[S],
        wanted: Option<&str>,
        channel: Channel,
        secret: SecretKind,
    ) -> Result<Vec<Self>, SaslError> {
        if channel == Channel::Clear {
            return Err(SaslError::Cleartext);
        }
        let has = |mechanism: &Mechanism| {
            offered.iter().any(|name| name.as_ref().eq_ignore_ascii_case(mechanism.name()))
        };
        let fits = |mechanism: &Mechanism| {
            mechanism.kind() == secret
                && (channel == Channel::Bound || *mechanism != Mechanism::ScramSha256Plus)
        };
        let found: Vec<Mechanism> = match wanted.map(Mechanism::from_setting).transpose()? {
            Some(Mechanism::ScramSha256Plus) if channel != Channel::Bound => {
                return Err(SaslError::Unbound);
            }
            Some(wanted) => vec![wanted],
            None => ALL.into_iter().filter(fits).collect(),
        };
        let mut found: Vec<Mechanism> = found.into_iter().filter(has).collect();
        if matches!(channel, Channel::Loopback | Channel::ClearAllowed) {
            // Where others may listen, what does not show the password comes first.
            found.sort_by_key(|mechanism| matches!(mechanism, Mechanism::Plain | Mechanism::Login));
        }
        if found.is_empty() {
            let names: Vec<&str> = offered.iter().map(AsRef::as_ref).collect();
            let names = names.join(" ");
            return Err(match (wanted, secret) {
                (None, SecretKind::Token) => SaslError::NoTokenLogin(names),
                _ => SaslError::NotOffered(names),
            });
        }
        Ok(found)
    }

    /// The answer to the challenge with this number, counted from 0, before base64, of those
    /// mechanisms whose answers do not depend on the challenge. For all but LOGIN number 0 is also
    /// the initial response; later ones are empty, which ends a failed token login so that the
    /// server states the failure.
    fn response(self, number: usize, claim: Claim<'_>) -> Zeroizing<Vec<u8>> {
        let (user, secret) = (claim.user, claim.secret.expose_secret());
        let parts: &[&str] = match (self, number) {
            (Mechanism::Plain, 0) => &["\0", user, "\0", secret],
            (Mechanism::Login | Mechanism::External, 0) => &[user],
            (Mechanism::Login, 1) => &[secret],
            (Mechanism::XOauth2, 0) => &["user=", user, "\x01auth=Bearer ", secret, "\x01\x01"],
            (Mechanism::OauthBearer, 0) => {
                let escaped = user.replace('=', "=3D").replace(',', "=2C");
                let place = format!("\x01host={}\x01port={}", claim.host, claim.port);
                let bearer = "\x01auth=Bearer ";
                return join(&["n,a=", &escaped, ",", &place, bearer, secret, "\x01\x01"]);
            }
            // RFC 7628 section 3.2.3: a lone kvsep acknowledges the error.
            (Mechanism::OauthBearer, _) => &["\x01"],
            _ => &[],
        };
        join(parts)
    }

    /// Whether its first response may go with the command itself (RFC 4954, RFC 4959).
    pub(crate) fn has_initial_response(self) -> bool {
        !matches!(self, Mechanism::Login | Mechanism::CramMd5)
    }

    /// Whether the server needs more than to be told the password: keys, or the password itself,
    /// which it may have of some users only.
    pub(crate) fn needs_keys(self) -> bool {
        use Mechanism::{CramMd5, ScramSha256, ScramSha256Plus};
        matches!(self, ScramSha256Plus | ScramSha256 | CramMd5)
    }
}

/// Who one says one is, what shows it, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// User name.
    pub(crate) user: &'a str,
    /// Password or token.
    pub(crate) secret: &'a SecretString,
    /// Name of the server.
    pub(crate) host: &'a str,
    /// Its port.
    pub(crate) port: u16,
    /// The connection, as far as a login can be bound to it.
    pub(crate) binding: Binding<'a>,
}

/// A connection, as far as a login can be bound to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Binding<'a> {
    /// Not at all.
    #[default]
    None,
    /// It could be, and the server offers no mechanism that does it.
    NotOffered,
    /// To this.
    To(&'a ChannelBinding),
}

impl<'a> Binding<'a> {
    /// What can be done with the binding of a connection whose server offers these mechanisms.
    pub(crate) fn of<S: AsRef<str>>(binding: Option<&'a ChannelBinding>, offered: &[S]) -> Self {
        let plus = Mechanism::ScramSha256Plus.name();
        let is_offered = offered.iter().any(|name| name.as_ref().eq_ignore_ascii_case(plus));
        match (binding, is_offered) {
            (None, _) => Binding::None,
            (Some(_), false) => Binding::NotOffered,
            (Some(binding), true) => Binding::To(binding),
        }
    }
}

/// One exchange of a mechanism, from its first response to the server's last word.
pub(crate) struct Exchange<'a> {
    mechanism: Mechanism,
    claim: Claim<'a>,
    answered: usize,
    scram: Option<Scram>,
    complaint: Option<String>,
}

impl<'a> Exchange<'a> {
    /// Begins.
    ///
    /// # Errors
    /// A sentence when the system lacks random numbers, or there is nothing to be bound to.
    pub(crate) fn new(mechanism: Mechanism, claim: Claim<'a>) -> Result<Self, &'static str> {
        let scram = match (mechanism, claim.binding) {
            (Mechanism::ScramSha256Plus, Binding::To(binding)) => {
                Some(Scram::new(claim.user, Bound::To(binding))?)
            }
            (Mechanism::ScramSha256Plus, _) => return Err("SCRAM: nothing to be bound to"),
            (Mechanism::ScramSha256, Binding::NotOffered) => {
                Some(Scram::new(claim.user, Bound::NotOffered)?)
            }
            (Mechanism::ScramSha256, _) => Some(Scram::new(claim.user, Bound::No)?),
            _ => None,
        };
        Ok(Exchange { mechanism, claim, answered: 0, scram, complaint: None })
    }

    /// The initial response in base64, to go with the command.
    pub(crate) fn initial(&mut self) -> Zeroizing<String> {
        self.answered = 1;
        match &self.scram {
            Some(scram) => Zeroizing::new(STANDARD.encode(scram.first())),
            None => Zeroizing::new(STANDARD.encode(&*self.mechanism.response(0, self.claim))),
        }
    }

    /// The same as an argument, where nothing is written as `=` (RFC 4954 section 4, RFC 4959
    /// section 3).
    pub(crate) fn initial_argument(&mut self) -> Zeroizing<String> {
        let initial = self.initial();
        match initial.is_empty() {
            true => Zeroizing::new("=".to_owned()),
            false => initial,
        }
    }

    /// The answer to a challenge, both in base64.
    ///
    /// # Errors
    /// A sentence when the challenge cannot be answered; the connection is then to be given up.
    pub(crate) fn answer(&mut self, challenge: &str) -> Result<Zeroizing<String>, &'static str> {
        if self.answered == 0 && self.mechanism.has_initial_response() {
            return Ok(self.initial());
        }
        let number = self.answered;
        self.answered += 1;
        if let Some(scram) = &mut self.scram {
            let words = STANDARD.decode(challenge.trim()).ok();
            let words = words.and_then(|bytes| String::from_utf8(bytes).ok());
            let words = words.ok_or("SCRAM: the challenge is not base64 of a text")?;
            return match number {
                1 => scram
                    .proof(&words, self.claim.secret)
                    .map(|proof| Zeroizing::new(STANDARD.encode(proof))),
                2 => scram.verify(&words).map(|()| Zeroizing::default()),
                _ => Err("SCRAM does not end"),
            };
        }
        if self.mechanism == Mechanism::CramMd5 {
            let words = STANDARD.decode(challenge.trim()).ok().filter(|_| number == 0);
            let words = words.ok_or("CRAM-MD5: one challenge in base64 was expected")?;
            return cram_md5(&words, self.claim).map(|said| Zeroizing::new(STANDARD.encode(said)));
        }
        if self.mechanism.kind() == SecretKind::Token {
            self.complaint = complaint(challenge);
        }
        Ok(Zeroizing::new(STANDARD.encode(&*self.mechanism.response(number, self.claim))))
    }

    /// Takes the server's consent.
    ///
    /// # Errors
    /// A sentence when the server should have proved something and did not.
    pub(crate) fn accepted(&self) -> Result<(), &'static str> {
        match &self.scram {
            Some(scram) if !scram.is_proven() => Err(super::scram::UNPROVEN),
            _ => Ok(()),
        }
    }

    /// Why the server refuses the token, as it said before it refused (RFC 7628 section 3.2.2).
    pub(crate) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

/// The answer of RFC 2195: the user, and the challenge signed with the password.
fn cram_md5(challenge: &[u8], claim: Claim<'_>) -> Result<String, &'static str> {
    let mut mac = Hmac::<Md5>::new_from_slice(claim.secret.expose_secret().as_bytes())
        .map_err(|_| "CRAM-MD5: the password is no key")?;
    mac.update(challenge);
    let digest = mac.finalize().into_bytes();
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{} {}", claim.user, hex.concat()))
}

/// What of an error challenge is for people: status and scope, no address.
fn complaint(challenge: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Told {
        status: serde_json::Value,
        scope: Option<String>,
    }
    let bytes = STANDARD.decode(challenge.trim()).ok()?;
    let told: Told = serde_json::from_slice(&bytes).ok()?;
    let status = match told.status {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let scope = told.scope.map(|scope| format!(", scope {scope}")).unwrap_or_default();
    Some(super::for_people(&format!("status {status}{scope}")))
}

/// A server's words without the secret, where it repeats what it was told; some do that in a
/// refusal, and a refusal goes into logs, status lines and errors.
pub(crate) fn conceal(words: &str, claim: Claim<'_>) -> String {
    let plain = claim.secret.expose_secret();
    let encoded = ALL
        .into_iter()
        .flat_map(|mechanism| [0, 1].map(|number| mechanism.response(number, claim)))
        .map(|response| Zeroizing::new(STANDARD.encode(&*response)))
        // The user's name alone is no secret, and the empty answer is everywhere.
        .filter(|form| form.len() > 4 && **form != STANDARD.encode(claim.user));
    let mut forms: Vec<Zeroizing<String>> = encoded.collect();
    forms.push(Zeroizing::new(plain.to_owned()));
    let mut words = words.to_owned();
    for form in forms {
        let bare = form.trim_end_matches('=');
        for form in [form.as_str(), bare].into_iter().filter(|form| !form.is_empty()) {
            if words.contains(form) {
                words = words.replace(form, "***");
            }
        }
    }
    words
}

fn join(parts: &[&str]) -> Zeroizing<Vec<u8>> {
    // Sized first: a vector that grows leaves copies of the secret behind.
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
    Zeroizing::new(bytes)
}

#[cfg(test)]
#[path = "sasl_tests.rs"]
mod tests;
