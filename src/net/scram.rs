//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): the client proves the password without
//! saying it, and the server proves that it knows it too. Pure but for the nonce.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2, rand};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::binding::ChannelBinding;

/// Fewest rounds that are taken (RFC 7677 section 4): fewer would help who guesses passwords.
const FEWEST_ROUNDS: u32 = 4096;

/// Most rounds that are taken, some tenths of a second: a server must not keep us busy for ever.
const MOST_ROUNDS: u32 = 600_000;

/// Longest salt and nonce that are taken, in bytes.
const LONGEST_PART: usize = 1024;

/// The client's side of one exchange.
pub(super) struct Scram {
    /// `client-first-message-bare`.
    first_bare: String,
    nonce: String,
    /// What stands before it, and behind that in the final message.
    header: String,
    bound_to: Vec<u8>,
    /// What the server must sign in the end, and by which key, once the proof is out.
    expected: Option<(hmac::Key, String)>,
    proven: bool,
}

/// What a client says of channel binding (RFC 5802 section 6).
#[derive(Clone, Copy)]
pub(super) enum Bound<'a> {
    /// It cannot, or does not want to.
    No,
    /// It could, and the server does not offer it: one that does offer it learns by this that
    /// somebody has taken that out of its words.
    NotOffered,
    /// To this.
    To(&'a ChannelBinding),
}

impl Scram {
    /// An exchange for `user` with a nonce of its own.
    pub(super) fn new(user: &str, bound: Bound<'_>) -> Result<Self, &'static str> {
        let random: [u8; 32] = rand::generate(&rand::SystemRandom::new())
            .map_err(|_| "the system has no random numbers")?
            .expose();
        Ok(Self::with_nonce(user, STANDARD.encode(random), bound))
    }

    fn with_nonce(user: &str, nonce: String, bound: Bound<'_>) -> Self {
        let user = prepare(user).replace('=', "=3D").replace(',', "=2C");
        // No name to act for behind the flag.
        let (header, bound_to) = match bound {
            Bound::No => ("n,,".to_owned(), Vec::new()),
            Bound::NotOffered => ("y,,".to_owned(), Vec::new()),
            Bound::To(binding) => (format!("p={},,", binding.kind), binding.data.clone()),
        };
        let first_bare = format!("n={user},r={nonce}");
        Scram { first_bare, nonce, header, bound_to, expected: None, proven: false }
    }

    /// `client-first-message`.
    pub(super) fn first(&self) -> String {
        format!("{}{}", self.header, self.first_bare)
    }

    /// `client-final-message` for the server's first one.
    pub(super) fn proof(
        &mut self,
        server_first: &str,
        password: &SecretString,
    ) -> Result<String, &'static str> {
        let mut parts = server_first.split(',');
        // A part for an extension that must be understood (`m=`) fails here, as it has to.
        let nonce = field(parts.next(), "r=").ok_or("SCRAM: the server's nonce is missing")?;
        let salt = field(parts.next(), "s=").ok_or("SCRAM: the salt is missing")?;
        let rounds = field(parts.next(), "i=").ok_or("SCRAM: the number of rounds is missing")?;
        let extends = nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce);
        if !extends || nonce.len() > LONGEST_PART || salt.len() > LONGEST_PART {
            return Err("SCRAM: the server's nonce does not continue ours, or is too long");
        }
        let salt = STANDARD.decode(salt).map_err(|_| "SCRAM: the salt is not base64")?;
        let rounds = rounds.parse().ok().filter(|n| (FEWEST_ROUNDS..=MOST_ROUNDS).contains(n));
        let rounds = rounds
            .and_then(std::num::NonZeroU32::new)
            .ok_or("SCRAM: the number of rounds is out of bounds (4096 to 600000)")?;

        let password = Zeroizing::new(prepare(password.expose_secret()));
        let mut salted = Zeroizing::new([0_u8; digest::SHA256_OUTPUT_LEN]);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, rounds, &salt, password.as_bytes(), &mut *salted);
        let salted_key = hmac::Key::new(hmac::HMAC_SHA256, &*salted);
        let client_key = hmac::sign(&salted_key, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let stored_key = hmac::Key::new(hmac::HMAC_SHA256, stored_key.as_ref());
        let binding = [self.header.as_bytes(), &self.bound_to].concat();
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(binding));
        let words = format!("{},{server_first},{without_proof}", self.first_bare);
        let signature = hmac::sign(&stored_key, words.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = hmac::sign(&salted_key, b"Server Key");
        let server_key = hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref());
        self.expected = Some((server_key, words));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Takes the server's final message. `Ok` also for its error (`e=`), which it repeats in the
    /// reply to the login.
    pub(super) fn verify(&mut self, server_final: &str) -> Result<(), &'static str> {
        let first = server_final.split(',').next().unwrap_or_default();
        if first.starts_with("e=") {
            return Ok(());
        }
        let shown = field(Some(first), "v=").and_then(|text| STANDARD.decode(text).ok());
        let (Some(shown), Some((key, words))) = (shown, &self.expected) else {
            return Err(UNPROVEN);
        };
        hmac::verify(key, words.as_bytes(), &shown).map_err(|_| UNPROVEN)?;
        self.proven = true;
        Ok(())
    }

    /// Whether the server has proved that it knows the password.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }
}

/// What is wrong with a server that does not know the password it asks for.
pub(super) const UNPROVEN: &str =
    "SCRAM: the server did not prove that it knows the password; it may not be the right one";

fn field<'a>(part: Option<&'a str>, name: &str) -> Option<&'a str> {
    part?.strip_prefix(name).filter(|value| !value.is_empty())
}

/// RFC 4013; what it forbids is used as it is, as the server that stored it must have done.
fn prepare(text: &str) -> String {
    stringprep::saslprep(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // The example of RFC 7677 section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn example() -> (Scram, SecretString) {
        let scram = Scram::with_nonce("user", NONCE.to_owned(), Bound::No);
        (scram, SecretString::from("pencil"))
    }

    #[test]
    fn the_exchange_of_the_rfc() {
        let (mut scram, password) = example();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(
            scram.proof(SERVER_FIRST, &password).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!scram.is_proven());
        scram.verify(SERVER_FINAL).unwrap();
        assert!(scram.is_proven());
    }

    #[test]
    fn what_it_is_bound_to_stands_in_the_final_message() {
        let password = SecretString::from("pencil");
        let binding = ChannelBinding { kind: "tls-exporter", data: vec![0, 1, 255] };
        for (bound, header, data) in [
            (Bound::No, "n,,", &[][..]),
            (Bound::NotOffered, "y,,", &[]),
            (Bound::To(&binding), "p=tls-exporter,,", &[0, 1, 255]),
        ] {
            let mut scram = Scram::with_nonce("user", NONCE.to_owned(), bound);
            assert_eq!(scram.first(), format!("{header}n=user,r={NONCE}"));
            let proof = scram.proof(SERVER_FIRST, &password).unwrap();
            let said = proof.split(',').next().and_then(|part| part.strip_prefix("c="));
            let wanted = [header.as_bytes(), data].concat();
            assert_eq!(STANDARD.decode(said.unwrap()).unwrap(), wanted);
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        for wrong in ["v=AAAA", "v=", "", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="] {
            let (mut scram, password) = example();
            scram.proof(SERVER_FIRST, &password).unwrap();
            assert_eq!(scram.verify(wrong), Err(UNPROVEN), "{wrong}");
            assert!(!scram.is_proven());
        }
        let (mut early, _) = example();
        assert_eq!(early.verify(SERVER_FINAL), Err(UNPROVEN));
        let (mut refused, password) = example();
        refused.proof(SERVER_FIRST, &password).unwrap();
        assert_eq!(refused.verify("e=invalid-proof"), Ok(()));
        assert!(!refused.is_proven());
    }

    #[test]
    fn what_a_server_may_ask_for_has_bounds() {
        let long = "x".repeat(LONGEST_PART);
        for (first, word) in [
            ("r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096".to_owned(), "nonce"),
            ("r=another,s=W22Z,i=4096".to_owned(), "nonce"),
            (format!("r={NONCE}{long},s=W22Z,i=4096"), "nonce"),
            (format!("r={NONCE}x,s=!,i=4096"), "base64"),
            (format!("r={NONCE}x,s=W22Z,i=4095"), "rounds"),
            (format!("r={NONCE}x,s=W22Z,i=4294967295"), "rounds"),
            (format!("m=ext,r={NONCE}x,s=W22Z,i=4096"), "nonce"),
            (String::new(), "nonce"),
        ] {
            let (mut scram, password) = example();
            let why = scram.proof(&first, &password).unwrap_err();
            assert!(why.contains(word), "{first}: {why}");
        }
    }

    #[test]
    fn names_and_passwords_are_prepared() {
        let scram = Scram::with_nonce("a=b,c\u{ad}", "n".to_owned(), Bound::No);
        assert_eq!(scram.first(), "n,,n=a=3Db=2Cc,r=n");
        assert_eq!(prepare("\u{2168}"), "IX");
        assert_eq!(prepare("a\u{7}"), "a\u{7}");
    }
}
