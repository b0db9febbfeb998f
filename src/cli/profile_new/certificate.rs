//! Trusting a server that nobody known vouches for.

use super::person::Person;
use crate::cli::exit::Failure;
use crate::net::Fingerprint;

/// Asks for a file or a fingerprint; `None` leaves it at the system's authorities.
pub(super) fn ask(person: &mut dyn Person) -> Result<Option<String>, Failure> {
    loop {
        let question =
            "PEM file with its authority, or sha256:.. of the certificate (Enter for none)";
        let answer = person.ask(question, "")?;
        if answer.is_empty() {
            return Ok(None);
        }
        if answer.starts_with("sha256:") {
            match answer.parse::<Fingerprint>() {
                Ok(digest) => return Ok(Some(digest.to_string())),
                Err(why) => person.say(&format!("  {why}"))?,
            }
            continue;
        }
        if answer.starts_with(['/', '~', '$']) {
            return Ok(Some(answer));
        }
        match std::path::absolute(&answer) {
            Ok(path) => return Ok(Some(path.display().to_string())),
            Err(error) => person.say(&format!("  {answer}: {error}"))?,
        }
    }
}
