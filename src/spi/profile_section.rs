//! The settings of one logon, as the profile hands them to its provider (LG-3).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::mapi::{MapiCode, MapiError, MapiResult};

/// A place a password or token comes from. Asked anew for every login, so that a mended
/// password is used without a restart.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The secret as of now. Bounded in time by the source itself.
    ///
    /// # Errors
    /// A sentence that names the source and never the secret.
    async fn secret(&self) -> Result<SecretString, SecretError>;

    /// What the secret is; decides which logins it fits. Default: a password.
    fn kind(&self) -> SecretKind {
        SecretKind::Password
    }

    /// Another secret in place of one that a server has just refused, which
    /// [`secret`](SecretSource::secret) answers from then on; `None` when there is no other and a
    /// further try would only be refused again. Default: `None`.
    ///
    /// # Errors
    /// As of [`secret`](SecretSource::secret).
    async fn renew(&self, refused: &SecretString) -> Result<Option<SecretString>, SecretError> {
        let _ = refused;
        Ok(None)
    }
}

/// What a secret is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// A password.
    #[default]
    Password,
    /// An access token (RFC 6749), for XOAUTH2 and OAUTHBEARER.
    Token,
    /// None: the certificate that is shown in the TLS handshake says who logs in (EXTERNAL).
    Certificate,
}

/// Why a secret could not be had; never contains the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct SecretError {
    /// What kind of failure it is.
    pub kind: SecretErrorKind,
    /// A sentence that names the source and says what to do.
    pub words: String,
}

/// Kinds of [`SecretError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretErrorKind {
    /// The source does not give it.
    Unavailable,
    /// The source is out of reach: the network, or a server that cannot just now. Waiting helps.
    OutOfReach,
    /// A person has to sign in again; nothing else helps.
    NeedsSignIn,
}

impl SecretError {
    /// The source does not give it.
    pub fn new(words: impl Into<String>) -> Self {
        SecretError { kind: SecretErrorKind::Unavailable, words: words.into() }
    }

    /// The source is out of reach.
    pub fn out_of_reach(words: impl Into<String>) -> Self {
        SecretError { kind: SecretErrorKind::OutOfReach, words: words.into() }
    }

    /// A person has to sign in again.
    pub fn needs_sign_in(words: impl Into<String>) -> Self {
        SecretError { kind: SecretErrorKind::NeedsSignIn, words: words.into() }
    }
}

/// A setting.
#[derive(Clone)]
pub enum SectionValue {
    /// Text.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Switch(bool),
    /// A list of texts.
    List(Vec<String>),
    /// A password or token.
    Secret(Arc<dyn SecretSource>),
}

impl fmt::Debug for SectionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionValue::Text(text) => write!(f, "{text:?}"),
            SectionValue::Number(number) => write!(f, "{number}"),
            SectionValue::Switch(value) => write!(f, "{value}"),
            SectionValue::List(list) => write!(f, "{list:?}"),
            SectionValue::Secret(_) => f.write_str("<secret>"),
        }
    }
}

/// The settings of one logon by dotted key (`smtp.host`).
#[derive(Clone, Debug, Default)]
pub struct ProfileSection {
    values: BTreeMap<String, SectionValue>,
}

impl ProfileSection {
    /// An empty section.
    pub fn new() -> Self {
        Self::default()
    }

    /// The section with one more setting; for building in one expression.
    #[must_use]
    pub fn with(mut self, key: &str, value: SectionValue) -> Self {
        self.set(key, value);
        self
    }

    /// Sets a setting.
    pub fn set(&mut self, key: &str, value: SectionValue) {
        self.values.insert(key.to_owned(), value);
    }

    /// Whether any key is `prefix` or lies below it (`smtp` matches `smtp.host`).
    pub fn has(&self, prefix: &str) -> bool {
        self.values.keys().any(|key| {
            key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The text at `key`.
    ///
    /// # Errors
    /// `MAPI_E_UNCONFIGURED` naming the key when it is there with another type (LG-8).
    pub fn text(&self, key: &str) -> MapiResult<Option<&str>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(SectionValue::Text(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(key, "a text")),
        }
    }

    /// The text at `key`, which must be there.
    ///
    /// # Errors
    /// `MAPI_E_UNCONFIGURED` naming the key (LG-8).
    pub fn required_text(&self, key: &str) -> MapiResult<&str> {
        self.text(key)?.ok_or_else(|| {
            MapiError::new(MapiCode::UNCONFIGURED, format!("the profile lacks the key {key}"))
        })
    }

    /// The number at `key`.
    ///
    /// # Errors
    /// As [`ProfileSection::text`].
    pub fn number(&self, key: &str) -> MapiResult<Option<u64>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(SectionValue::Number(number)) => Ok(Some(*number)),
            Some(_) => Err(wrong_type(key, "a number")),
        }
    }

    /// The switch at `key`.
    ///
    /// # Errors
    /// As [`ProfileSection::text`].
    pub fn switch(&self, key: &str) -> MapiResult<Option<bool>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(SectionValue::Switch(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong_type(key, "true or false")),
        }
    }

    /// The list at `key`; empty when it is not there.
    ///
    /// # Errors
    /// As [`ProfileSection::text`].
    pub fn list(&self, key: &str) -> MapiResult<&[String]> {
        match self.values.get(key) {
            None => Ok(&[]),
            Some(SectionValue::List(list)) => Ok(list),
            Some(_) => Err(wrong_type(key, "a list of texts")),
        }
    }

    /// The secret at `key`.
    ///
    /// # Errors
    /// As [`ProfileSection::text`].
    pub fn secret(&self, key: &str) -> MapiResult<Option<Arc<dyn SecretSource>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(SectionValue::Secret(source)) => Ok(Some(Arc::clone(source))),
            Some(_) => Err(wrong_type(key, "a password")),
        }
    }
}

fn wrong_type(key: &str, wanted: &str) -> MapiError {
    MapiError::new(MapiCode::UNCONFIGURED, format!("the key {key} must be {wanted}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key() {
        let section = ProfileSection::new().with("smtp.port", SectionValue::Number(25));
        let missing = section.required_text("smtp.host").unwrap_err();
        assert_eq!(missing.code(), MapiCode::UNCONFIGURED);
        assert!(missing.detail().contains("smtp.host"), "{missing}");
        assert!(section.text("smtp.port").unwrap_err().detail().contains("smtp.port"));
    }

    #[test]
    fn has_looks_at_whole_words() {
        let section = ProfileSection::new().with("smtp.port", SectionValue::Number(25));
        assert!(section.has("smtp"));
        assert!(!section.has("smt"));
    }
}
