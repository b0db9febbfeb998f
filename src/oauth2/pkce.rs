//! Proof Key for Code Exchange (RFC 7636), the state of a request, and the address a browser is
//! sent to. Pure but for the random numbers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, rand};
use secrecy::{ExposeSecret, SecretString};

/// The secret of one authorization request.
pub(super) struct Proof {
    /// `code_verifier`: shown only to the token endpoint.
    pub(super) verifier: SecretString,
    /// `state`: what the browser has to bring back.
    pub(super) state: String,
}

impl Proof {
    /// A new one.
    ///
    /// # Errors
    /// A sentence when the system lacks random numbers.
    pub(super) fn new() -> Result<Self, &'static str> {
        Ok(Proof { verifier: SecretString::from(random()?), state: random()? })
    }

    /// `code_challenge` by the method S256.
    pub(super) fn challenge(&self) -> String {
        challenge(self.verifier.expose_secret())
    }
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// 256 random bits as 43 letters.
fn random() -> Result<String, &'static str> {
    let bits: rand::Random<[u8; 32]> = rand::generate(&rand::SystemRandom::new())
        .map_err(|_| "the system has no random numbers")?;
    Ok(URL_SAFE_NO_PAD.encode(bits.expose()))
}

/// `base` with further parameters in its query.
pub(super) fn with_query(base: &str, parameters: &[(&str, &str)]) -> String {
    let mut url = base.to_owned();
    let mut separator = if base.contains('?') { '&' } else { '?' };
    for (name, value) in parameters {
        url.push(separator);
        separator = '&';
        url.push_str(name);
        url.push('=');
        url.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }
    url
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn each_request_has_its_own_secret() {
        let (one, other) = (Proof::new().unwrap(), Proof::new().unwrap());
        assert_ne!(one.state, other.state);
        assert_ne!(one.verifier.expose_secret(), other.verifier.expose_secret());
        assert_ne!(one.state, one.verifier.expose_secret());
        assert_eq!(one.verifier.expose_secret().len(), 43);
    }

    #[test]
    fn parameters_are_encoded_behind_those_there_are() {
        let parameters = [("scope", "a b"), ("state", "x&y")];
        let bare = with_query("https://e.org/a", &parameters);
        assert_eq!(bare, "https://e.org/a?scope=a+b&state=x%26y");
        let more = with_query("https://e.org/a?t=1", &parameters);
        assert_eq!(more, "https://e.org/a?t=1&scope=a+b&state=x%26y");
    }
}
