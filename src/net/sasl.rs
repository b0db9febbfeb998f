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
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn claim<'a>(user: &'a str, secret: &'a SecretString) -> Claim<'a> {
        Claim { user, secret, host: "mail.example.org", port: 587, binding: Binding::None }
    }

    #[test]
    fn chooses_what_both_sides_know_and_the_best_first() {
        use Channel::{ClearAllowed, Encrypted, Loopback};
        use SecretKind::{Password, Token};
        let choose = Mechanism::candidates::<&str>;
        let all = ["LOGIN", "plain", "SCRAM-SHA-256", "SCRAM-SHA-1", "XOAUTH2", "OAUTHBEARER"];
        assert_eq!(
            choose(&all, None, Encrypted, Password),
            Ok(vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login])
        );
        assert_eq!(
            choose(&all, None, Encrypted, Token),
            Ok(vec![Mechanism::OauthBearer, Mechanism::XOauth2])
        );
        let offered = ["LOGIN", "XOAUTH2"];
        assert_eq!(choose(&offered, None, Loopback, Password), Ok(vec![Mechanism::Login]));
        assert_eq!(choose(&offered, None, Loopback, Token), Ok(vec![Mechanism::XOauth2]));
        // What the profile asks for is what is used, whatever else is offered.
        for (wanted, mechanism) in [
            ("login", Mechanism::Login),
            ("scram-sha-256", Mechanism::ScramSha256),
            ("xoauth2", Mechanism::XOauth2),
        ] {
            let found = choose(&all, Some(wanted), ClearAllowed, Password);
            assert_eq!(found, Ok(vec![mechanism]));
        }
        assert_eq!(
            choose(&["XOAUTH2", "GSSAPI"], None, Encrypted, Password),
            Err(SaslError::NotOffered("XOAUTH2 GSSAPI".into()))
        );
        assert_eq!(
            choose(&["PLAIN"], None, Encrypted, Token),
            Err(SaslError::NoTokenLogin("PLAIN".into()))
        );
        for wanted in ["plain", "scram-sha-256"] {
            let found = choose(&["LOGIN"], Some(wanted), Encrypted, Password);
            assert!(matches!(found, Err(SaslError::NotOffered(_))), "{wanted}");
        }
        let unknown = choose(&["PLAIN"], Some("kerberos"), Encrypted, Password);
        assert!(matches!(unknown, Err(SaslError::Unknown(_))));
    }

    #[test]
    fn a_bound_login_comes_first_where_the_connection_can_be_named() {
        use Channel::{Bound, ClearAllowed, Encrypted, Loopback};
        use SecretKind::Password;
        let choose = Mechanism::candidates::<&str>;
        let all = ["CRAM-MD5", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
        let (plus, scram) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
        let (plain, cram) = (Mechanism::Plain, Mechanism::CramMd5);
        assert_eq!(choose(&all, None, Bound, Password), Ok(vec![plus, scram, plain, cram]));
        assert_eq!(choose(&all, None, Encrypted, Password), Ok(vec![scram, plain, cram]));
        // Without TLS what does not show the password comes first.
        for channel in [Loopback, ClearAllowed] {
            assert_eq!(choose(&all, None, channel, Password), Ok(vec![scram, cram, plain]));
        }
        let wanted = Some("scram-sha-256-plus");
        assert_eq!(choose(&all, wanted, Bound, Password), Ok(vec![plus]));
        for channel in [Encrypted, Loopback] {
            assert_eq!(choose(&all, wanted, channel, Password), Err(SaslError::Unbound));
        }
        assert!(matches!(
            choose(&["SCRAM-SHA-256"], wanted, Bound, Password),
            Err(SaslError::NotOffered(_))
        ));
    }

    #[test]
    fn what_a_scram_login_says_of_binding_follows_from_the_offer() {
        let secret = SecretString::from("pencil");
        let binding = ChannelBinding { kind: "tls-exporter", data: vec![1; 32] };
        let (plus, scram) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
        let offers = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
        for (binding, offered, mechanism, header) in [
            (Some(&binding), &offers[..], plus, "p=tls-exporter,,"),
            (Some(&binding), &offers[..], scram, "n,,"),
            (Some(&binding), &offers[..1], scram, "y,,"),
            (None, &offers[..], scram, "n,,"),
        ] {
            let binding = Binding::of(binding, offered);
            let claim = Claim { binding, ..claim("user", &secret) };
            let first = Exchange::new(mechanism, claim).unwrap().initial();
            let first = String::from_utf8(STANDARD.decode(&*first).unwrap()).unwrap();
            assert!(first.starts_with(&format!("{header}n=user,r=")), "{first}");
        }
        assert!(Exchange::new(plus, claim("user", &secret)).is_err());
    }

    #[test]
    fn who_shows_a_certificate_says_nothing_or_whom_to_act_for() {
        let nothing = SecretString::from("");
        for (user, wanted) in [("", "="), ("ann", "YW5u")] {
            let mut exchange = Exchange::new(Mechanism::External, claim(user, &nothing)).unwrap();
            assert_eq!(*exchange.initial_argument(), wanted);
        }
        // Asked for it, nothing is an empty line.
        let mut exchange = Exchange::new(Mechanism::External, claim("", &nothing)).unwrap();
        assert_eq!(*exchange.answer("").unwrap(), "");
        let choose = Mechanism::candidates::<&str>;
        let offered = ["PLAIN", "EXTERNAL"];
        let found = choose(&offered, None, Channel::Bound, SecretKind::Certificate);
        assert_eq!(found, Ok(vec![Mechanism::External]));
        assert_eq!(conceal("no such user", claim("", &nothing)), "no such user");
    }

    #[test]
    fn cram_md5_answers_as_in_the_rfc() {
        let secret = SecretString::from("tanstaaftanstaaf");
        let mut exchange = Exchange::new(Mechanism::CramMd5, claim("tim", &secret)).unwrap();
        let challenge = STANDARD.encode("<1896.697170952@postoffice.reston.mci.net>");
        let answer = exchange.answer(&challenge).unwrap();
        let answer = String::from_utf8(STANDARD.decode(&*answer).unwrap()).unwrap();
        assert_eq!(answer, "tim b913a602c7eda7a495b4e6e7334d3890");
        assert!(exchange.answer(&challenge).is_err(), "there is one challenge");
        let mut exchange = Exchange::new(Mechanism::CramMd5, claim("tim", &secret)).unwrap();
        assert!(exchange.answer("!").is_err());
    }

    #[test]
    fn a_repeated_secret_is_concealed_and_the_rest_is_not() {
        let secret = SecretString::from("hunter2");
        let plain = STANDARD.encode("\0ann\0hunter2");
        let bearer = "n,a=ann,\x01host=mail.example.org\x01port=587\x01auth=Bearer hunter2\x01\x01";
        for (words, shown) in [
            ("5.7.8 ann: wrong password", "5.7.8 ann: wrong password"),
            ("5.7.8 \"hunter2\" is wrong", "5.7.8 \"***\" is wrong"),
            (&format!("bad response {plain}"), "bad response ***"),
            (&format!("bad {}", STANDARD.encode("hunter2")), "bad ***"),
            (&format!("bad {}", STANDARD.encode("hunter2").trim_end_matches('=')), "bad ***"),
            (&format!("bad {}", STANDARD.encode(bearer)), "bad ***"),
            (&format!("who is {}?", STANDARD.encode("ann")), "who is YW5u?"),
        ] {
            assert_eq!(conceal(words, claim("ann", &secret)), shown);
        }
        // What stands for the user stays, also where both are the same.
        let same = conceal("hunter2 hunter2", claim("hunter2", &secret));
        assert!(!same.contains("hunter2"));
    }

    #[test]
    fn nothing_is_chosen_in_clear() {
        for kind in [SecretKind::Password, SecretKind::Token] {
            let offered = ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"];
            let error = Mechanism::candidates(&offered, None, Channel::Clear, kind).unwrap_err();
            assert_eq!(error, SaslError::Cleartext);
        }
    }

    #[test]
    fn responses_are_those_of_the_rfcs() {
        let secret = SecretString::from("tanstaaftanstaaf");
        let tim = claim("tim", &secret);
        // The example of RFC 4616 section 4.
        assert_eq!(*Mechanism::Plain.response(0, tim), b"\0tim\0tanstaaftanstaaf");
        assert_eq!(*Mechanism::Login.response(0, tim), b"tim");
        assert_eq!(*Mechanism::Login.response(1, tim), b"tanstaaftanstaaf");
        let token = SecretString::from("ya29.vF9dft4");
        let mut exchange =
            Exchange::new(Mechanism::XOauth2, claim("someuser@example.com", &token)).unwrap();
        assert_eq!(
            *exchange.initial(),
            STANDARD.encode("user=someuser@example.com\x01auth=Bearer ya29.vF9dft4\x01\x01")
        );
        assert_eq!(
            *Mechanism::OauthBearer.response(0, claim("a=b,c", &token)),
            b"n,a=a=3Db=2Cc,\x01host=mail.example.org\x01port=587\x01auth=Bearer ya29.vF9dft4\x01\x01"
        );
    }

    #[test]
    fn a_refused_token_is_acknowledged_and_the_reason_kept() {
        let token = SecretString::from("t0ken");
        let challenge =
            STANDARD.encode(r#"{"status":"invalid_token","scope":"mail","schemes":"bearer"}"#);
        for (mechanism, answer) in
            [(Mechanism::XOauth2, String::new()), (Mechanism::OauthBearer, STANDARD.encode("\x01"))]
        {
            let mut exchange = Exchange::new(mechanism, claim("ann", &token)).unwrap();
            // Asked with an empty challenge, as by a server without initial responses.
            assert!(!exchange.answer("").unwrap().is_empty());
            assert_eq!(*exchange.answer(&challenge).unwrap(), answer);
            assert_eq!(exchange.complaint(), Some("status invalid_token, scope mail"));
        }
    }

    #[test]
    fn consent_without_proof_is_no_consent() {
        let secret = SecretString::from("pencil");
        let mut exchange = Exchange::new(Mechanism::ScramSha256, claim("user", &secret)).unwrap();
        assert!(exchange.accepted().is_err());
        exchange.initial();
        assert!(exchange.answer("!").is_err());
        let exchange = Exchange::new(Mechanism::Plain, claim("user", &secret)).unwrap();
        assert!(exchange.accepted().is_ok());
    }
}
