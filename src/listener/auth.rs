//! AUTH PLAIN (RFC 4616) and LOGIN, on the server's side.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::settings::ListenLogin;

/// Name and password a client gave.
pub(super) struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

/// A response that is no base64 or no message of the mechanism.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Credentials {
    /// Reads the one message of PLAIN. An authorization identity must be the user's own.
    pub(super) fn plain(response: &str) -> Result<Self, Malformed> {
        let message = text(response)?;
        let mut parts = message.split('\0');
        let (Some(acting), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed);
        };
        if user.is_empty() || !(acting.is_empty() || acting == user) {
            return Err(Malformed);
        }
        Ok(Credentials {
            user: Zeroizing::new(user.to_owned()),
            password: Zeroizing::new(password.to_owned()),
        })
    }

    /// Reads the two messages of LOGIN.
    pub(super) fn login(user: &str, password: &str) -> Result<Self, Malformed> {
        Ok(Credentials { user: text(user)?, password: text(password)? })
    }

    /// Whether they are those of `login`. `None` when the password cannot be had now.
    pub(super) async fn match_login(&self, login: &ListenLogin) -> Option<bool> {
        let known = match login.password.secret().await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "The password of the listener cannot be had");
                return None;
            }
        };
        // Digests are compared in constant time, and both always.
        let same =
            |one: &str, other: &str| blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes());
        Some(same(&self.user, &login.user) & same(&self.password, known.expose_secret()))
    }
}

fn text(response: &str) -> Result<Zeroizing<String>, Malformed> {
    let octets = STANDARD.decode(response.trim()).map(Zeroizing::new).map_err(|_| Malformed)?;
    let text = std::str::from_utf8(&octets).map_err(|_| Malformed)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plain(message: &str) -> Option<(String, String)> {
        let read = Credentials::plain(&STANDARD.encode(message)).ok()?;
        Some((read.user.to_string(), read.password.to_string()))
    }

    #[test]
    fn plain_has_three_parts_and_nobody_acts_for_another() {
        let ann = Some(("ann".to_owned(), "secret".to_owned()));
        assert_eq!(plain("\0ann\0secret"), ann);
        assert_eq!(plain("ann\0ann\0secret"), ann);
        for wrong in ["", "ann", "\0ann", "\0ann\0secret\0", "bob\0ann\0secret", "\0\0secret"] {
            assert_eq!(plain(wrong), None, "{wrong:?}");
        }
        assert!(Credentials::plain("no base64!").is_err());
    }
}
