//! What has to hold whatever a profile says.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use secrecy::ExposeSecret;

use super::{Environment, Password, Profile, sections};

/// A profile is read or refused; neither the refusal nor what is shown of the profile repeats a
/// password; every transport has its section.
pub fn profile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let environment = Environment::empty().with("HOME", "/home/ann");
    let read = Profile::parse("fuzz", &text, Path::new("/c/fuzz.toml"), &environment);
    match read {
        Ok(profile) => {
            let sections = sections(&profile);
            assert_eq!(sections.len(), profile.transports.len());
            let shown = format!("{profile:?} {sections:?}");
            let logins = profile.transports.iter().flat_map(|transport| {
                let smtp = transport.smtp.as_ref().and_then(|smtp| smtp.login.as_ref());
                smtp.into_iter().chain(transport.imap.as_ref().map(|imap| &imap.login))
            });
            for login in logins {
                let Password::Text(secret) = &login.password else { continue };
                let secret = secret.expose_secret();
                // Where it is also somebody's name it is shown as that.
                if secret.len() > 5 && text.matches(secret).count() == 1 {
                    assert!(!shown.contains(secret), "{shown}");
                }
            }
        }
        Err(error) => {
            assert!(!error.why.is_empty());
            let lines = text.matches('\n').count() + 1;
            assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}");
            // The corpus has it as a password and nowhere else.
            if let Some(value) = error.to_string().find("hunter2-xyzzy") {
                panic_unless_key(&error.key, value);
            }
        }
    }
}

/// A mutation may make a key of the password; keys are named.
fn panic_unless_key(key: &str, at: usize) {
    assert!(key.contains("hunter2-xyzzy"), "a password is repeated at {at}");
}
