//! What is wrong with a profile, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::mapi::{MapiCode, MapiError};

/// What is wrong with a profile: file, line, key and what to do about it. Never contains a
/// password. In the codes of the contract it is `MAPI_E_UNCONFIGURED` (LG-8).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileError {
    /// The file, or the folder of profiles.
    pub file: PathBuf,
    /// Line, counted from 1; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// Dotted key (`transport.smtp.host`); empty when it is about no key.
    pub key: String,
    /// What is wrong and what to do.
    pub why: String,
}

impl ProfileError {
    /// An error about a file as a whole.
    pub(crate) fn of_file(file: &Path, why: impl Into<String>) -> Self {
        ProfileError { file: file.to_owned(), line: None, key: String::new(), why: why.into() }
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for ProfileError {}

impl From<ProfileError> for MapiError {
    fn from(error: ProfileError) -> Self {
        MapiError::new(MapiCode::UNCONFIGURED, error.to_string())
    }
}
