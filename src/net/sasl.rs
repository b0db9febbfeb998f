//! Which login to use, and what it says (RFC 4422, RFC 4616, RFC 7628).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

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
    /// RFC 4616.
    Plain,
    /// `LOGIN`, never standardised and the only one of some servers.
    Login,
    /// Google's and Microsoft's token login.
    XOauth2,
    /// RFC 7628.
    OauthBearer,
}

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
    #[error("auth = {0:?} is not known; known are plain, login, xoauth2 and oauthbearer")]
    Unknown(String),
    /// The server does not offer what is needed.
    #[error("the server offers no login this program can use (it offers: {0})")]
    NotOffered(String),
}

impl Mechanism {
    /// Its registered name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::XOauth2 => "XOAUTH2",
            Mechanism::OauthBearer => "OAUTHBEARER",
        }
    }

    fn from_setting(setting: &str) -> Result<Self, SaslError> {
        [Mechanism::Plain, Mechanism::Login, Mechanism::XOauth2, Mechanism::OauthBearer]
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(setting))
            .ok_or_else(|| SaslError::Unknown(setting.to_owned()))
    }

    /// Chooses a mechanism from what the server offers. `wanted` is the profile's `auth`: that
    /// one and no other. Without it PLAIN comes before LOGIN, and the token logins are not
    /// chosen: a password is no token.
    ///
    /// # Errors
    /// [`SaslError`]; [`SaslError::Cleartext`] comes first, whatever is offered.
    pub(crate) fn choose<S: AsRef<str>>(
        offered: &[S],
        wanted: Option<&str>,
        channel: Channel,
    ) -> Result<Self, SaslError> {
        if channel == Channel::Clear {
            return Err(SaslError::Cleartext);
        }
        let has = |mechanism: &Mechanism| {
            offered.iter().any(|name| name.as_ref().eq_ignore_ascii_case(mechanism.name()))
        };
        let found = match wanted {
            Some(setting) => Some(Mechanism::from_setting(setting)?).filter(has),
            None => [Mechanism::Plain, Mechanism::Login].into_iter().find(has),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = offered.iter().map(AsRef::as_ref).collect();
            SaslError::NotOffered(names.join(" "))
        })
    }

    /// The answer to the challenge with this number, counted from 0, before base64. For all but
    /// LOGIN number 0 is also the initial response; later ones are empty, which ends a failed
    /// token login so that the server states the failure.
    pub(crate) fn response(
        self,
        number: usize,
        user: &str,
        secret: &SecretString,
    ) -> Zeroizing<Vec<u8>> {
        let secret = secret.expose_secret();
        let parts: &[&str] = match (self, number) {
            (Mechanism::Plain, 0) => &["\0", user, "\0", secret],
            (Mechanism::Login, 0) => &[user],
            (Mechanism::Login, 1) => &[secret],
            (Mechanism::XOauth2, 0) => &["user=", user, "\x01auth=Bearer ", secret, "\x01\x01"],
            (Mechanism::OauthBearer, 0) => {
                let escaped = user.replace('=', "=3D").replace(',', "=2C");
                return join(&["n,a=", &escaped, ",\x01auth=Bearer ", secret, "\x01\x01"]);
            }
            // RFC 7628 section 3.2.3: a lone kvsep acknowledges the error.
            (Mechanism::OauthBearer, _) => &["\x01"],
            _ => &[],
        };
        join(parts)
    }

    /// [`Mechanism::response`] as it goes over the wire.
    pub(crate) fn response_base64(
        self,
        number: usize,
        user: &str,
        secret: &SecretString,
    ) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&*self.response(number, user, secret)))
    }

    /// Whether its first response may go with the command itself (RFC 4954, RFC 4959).
    pub(crate) fn has_initial_response(self) -> bool {
        self != Mechanism::Login
    }
}

/// A server's words without the secret, where it repeats what it was told; some do that in a
/// refusal, and a refusal goes into logs, status lines and errors.
pub(crate) fn conceal(words: &str, user: &str, secret: &SecretString) -> String {
    let plain = secret.expose_secret();
    let mechanisms =
        [Mechanism::Plain, Mechanism::Login, Mechanism::XOauth2, Mechanism::OauthBearer];
    let encoded = mechanisms
        .into_iter()
        .flat_map(|mechanism| [0, 1].map(|number| mechanism.response_base64(number, user, secret)))
        // The user's name alone is no secret, and the empty answer is everywhere.
        .filter(|form| form.len() > 4 && **form != STANDARD.encode(user));
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn chooses_what_both_sides_know() {
        use Channel::{ClearAllowed, Encrypted, Loopback};
        let choose = Mechanism::choose::<&str>;
        assert_eq!(choose(&["LOGIN", "plain"], None, Encrypted), Ok(Mechanism::Plain));
        assert_eq!(choose(&["LOGIN", "XOAUTH2"], None, Loopback), Ok(Mechanism::Login));
        assert_eq!(choose(&["PLAIN", "LOGIN"], Some("login"), Encrypted), Ok(Mechanism::Login));
        assert_eq!(
            choose(&["PLAIN", "XOAUTH2"], Some("xoauth2"), ClearAllowed),
            Ok(Mechanism::XOauth2)
        );
        assert_eq!(
            choose(&["XOAUTH2", "GSSAPI"], None, Encrypted),
            Err(SaslError::NotOffered("XOAUTH2 GSSAPI".into()))
        );
        assert!(matches!(
            choose(&["LOGIN"], Some("plain"), Encrypted),
            Err(SaslError::NotOffered(_))
        ));
        assert!(matches!(
            choose(&["PLAIN"], Some("kerberos"), Encrypted),
            Err(SaslError::Unknown(_))
        ));
    }

    #[test]
    fn a_repeated_secret_is_concealed_and_the_rest_is_not() {
        let secret = SecretString::from("hunter2");
        let plain = STANDARD.encode("\0ann\0hunter2");
        for (words, shown) in [
            ("5.7.8 ann: wrong password", "5.7.8 ann: wrong password"),
            ("5.7.8 \"hunter2\" is wrong", "5.7.8 \"***\" is wrong"),
            (&format!("bad response {plain}"), "bad response ***"),
            (&format!("bad {}", STANDARD.encode("hunter2")), "bad ***"),
            (&format!("bad {}", STANDARD.encode("hunter2").trim_end_matches('=')), "bad ***"),
            (&format!("who is {}?", STANDARD.encode("ann")), "who is YW5u?"),
        ] {
            assert_eq!(conceal(words, "ann", &secret), shown);
        }
        // What stands for the user stays, also where both are the same.
        assert!(!conceal("hunter2 hunter2", "hunter2", &secret).contains("hunter2"));
    }

    #[test]
    fn nothing_is_chosen_in_clear() {
        let error = Mechanism::choose(&["PLAIN"], None, Channel::Clear).unwrap_err();
        assert_eq!(error, SaslError::Cleartext);
    }

    #[test]
    fn responses_are_those_of_the_rfcs() {
        let secret = SecretString::from("tanstaaftanstaaf");
        // The example of RFC 4616 section 4.
        assert_eq!(*Mechanism::Plain.response(0, "tim", &secret), b"\0tim\0tanstaaftanstaaf");
        assert_eq!(*Mechanism::Login.response(0, "tim", &secret), b"tim");
        assert_eq!(*Mechanism::Login.response(1, "tim", &secret), b"tanstaaftanstaaf");
        let token = SecretString::from("ya29.vF9dft4");
        assert_eq!(
            *Mechanism::XOauth2.response_base64(0, "someuser@example.com", &token),
            *STANDARD.encode("user=someuser@example.com\x01auth=Bearer ya29.vF9dft4\x01\x01")
        );
        assert_eq!(
            *Mechanism::OauthBearer.response(0, "a=b,c", &token),
            b"n,a=a=3Db=2Cc,\x01auth=Bearer ya29.vF9dft4\x01\x01"
        );
        assert!(Mechanism::XOauth2.response(1, "a", &token).is_empty());
    }
}
