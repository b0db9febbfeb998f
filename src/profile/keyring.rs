//! Passwords in the keyring of the user: the Secret Service of the desktop (GNOME Keyring, KWallet,
//! KeePassXC) over the session bus, on macOS the keychain.
//!
//! An entry is found by the attributes `service` = `postrider` and `username` = its name, which are
//! what most programs write that keep passwords there; a keychain calls the second one account.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::secret::first_line;
use crate::spi::{SecretError, SecretSource};

/// Whose entries are looked at.
const SERVICE: &str = "postrider";

/// How long an answer may take: a person may have to unlock the keyring.
const DEADLINE: Duration = Duration::from_secs(60);

/// One entry of the keyring, asked for at each login.
pub(super) struct KeyringSource {
    name: String,
    deadline: Duration,
}

/// Why there is no password.
#[derive(Debug)]
enum Fault {
    /// Nobody answers for a keyring.
    NoKeyring(String),
    /// There is no such entry.
    NoEntry,
    /// It stayed locked.
    Locked,
    /// Something else, in words.
    Other(String),
}

impl KeyringSource {
    pub(super) fn new(name: &str) -> Self {
        KeyringSource { name: name.to_owned(), deadline: DEADLINE }
    }

    fn error(&self, fault: &Fault) -> SecretError {
        let name = &self.name;
        let why = match fault {
            Fault::NoKeyring(why) => format!(
                "no keyring answers ({why}); where nobody is logged in at a desktop, let a \
                 command, a file or a credential hold the password"
            ),
            Fault::NoEntry => {
                format!("there is no such entry; make it by `{}`", platform::how_to_store(name))
            }
            Fault::Locked => "the keyring is locked; unlock it and try again".to_owned(),
            Fault::Other(why) => why.clone(),
        };
        SecretError::new(format!("the keyring entry {name:?}: {why}"))
    }
}

#[async_trait]
impl SecretSource for KeyringSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        // Dropped at the deadline, the question is withdrawn with the connection it was asked over.
        let answer = tokio::time::timeout(self.deadline, platform::look_up(&self.name)).await;
        let seconds = self.deadline.as_secs_f32();
        let late = || Fault::Other(format!("no answer within {seconds} seconds"));
        let found = answer.unwrap_or_else(|_| Err(late()));
        let secret = found.map_err(|fault| self.error(&fault))?;
        first_line(&secret).map_err(|why| self.error(&Fault::Other(why.to_owned())))
    }
}

#[cfg(not(target_os = "macos"))]
mod platform {
    use std::collections::HashMap;

    use secret_service::{EncryptionType, Error, SecretService};

    use super::{Fault, SERVICE, Zeroizing};

    pub(super) fn how_to_store(name: &str) -> String {
        format!("secret-tool store --label={SERVICE} service {SERVICE} username '{name}'")
    }

    /// Asks over the session bus. The password comes encrypted, so that no monitor of the bus and
    /// no log of its library sees it.
    pub(super) async fn look_up(name: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let service = SecretService::connect(EncryptionType::Dh).await.map_err(unreachable)?;
        let attributes = HashMap::from([("service", SERVICE), ("username", name)]);
        let found = service.search_items(attributes).await?;
        let item = match (found.unlocked.first(), found.locked.first()) {
            (Some(item), _) => item,
            (None, Some(item)) => {
                item.unlock().await?;
                item
            }
            (None, None) => return Err(Fault::NoEntry),
        };
        Ok(Zeroizing::new(item.get_secret().await?))
    }

    /// Whatever keeps us from asking: no bus, or nobody at it.
    fn unreachable(error: Error) -> Fault {
        match Fault::from(error) {
            Fault::Other(why) => {
                Fault::NoKeyring(why.strip_prefix("zbus error: ").unwrap_or(&why).to_owned())
            }
            fault => fault,
        }
    }

    impl From<Error> for Fault {
        fn from(error: Error) -> Self {
            match error {
                Error::Unavailable => {
                    Fault::NoKeyring("there is no session bus, or no Secret Service at it".into())
                }
                Error::Locked | Error::Prompt | Error::PromptDisconnected => Fault::Locked,
                Error::NoResult => Fault::NoEntry,
                other => Fault::Other(other.to_string()),
            }
        }
    }
}

#[cfg(target_os = "macos")]
mod platform {
    use security_framework::passwords::{PasswordOptions, generic_password};

    use super::{Fault, SERVICE, Zeroizing};

    /// `errSecItemNotFound`.
    const NOT_FOUND: i32 = -25300;
    /// `errSecInteractionNotAllowed`, `errSecAuthFailed`, `userCanceledErr`.
    const LOCKED: [i32; 3] = [-25308, -25293, -128];
    /// `errSecNotAvailable`, `errSecNoSuchKeychain`, `errSecNoDefaultKeychain`.
    const NO_KEYCHAIN: [i32; 3] = [-25291, -25294, -25307];

    pub(super) fn how_to_store(name: &str) -> String {
        format!("security add-generic-password -s {SERVICE} -a '{name}' -w")
    }

    /// Asks the keychain, on a thread of its own: it waits while the user is asked for consent.
    pub(super) async fn look_up(name: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let name = name.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            generic_password(PasswordOptions::new_generic_password(SERVICE, &name))
        });
        let found = asked.await.map_err(|_| Fault::Other("the question was given up".into()))?;
        found.map(Zeroizing::new).map_err(|error| match error.code() {
            NOT_FOUND => Fault::NoEntry,
            code if LOCKED.contains(&code) => Fault::Locked,
            code if NO_KEYCHAIN.contains(&code) => Fault::NoKeyring(error.to_string()),
            _ => Fault::Other(error.to_string()),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_entry_and_what_to_do() {
        let source = KeyringSource::new("ann@example.org");
        for (fault, words) in [
            (Fault::NoKeyring("no bus".into()), "let a command, a file or a credential hold"),
            (Fault::NoEntry, "ann@example.org"),
            (Fault::Locked, "unlock it"),
            (Fault::Other("odd".into()), "odd"),
        ] {
            let said = source.error(&fault).to_string();
            assert!(said.starts_with("the keyring entry \"ann@example.org\": "), "{said}");
            assert!(said.contains(words) && !said.contains('\n'), "{said}");
        }
    }
}
