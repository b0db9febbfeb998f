//! What can go wrong in the spool.

use crate::mapi::{MapiCode, MapiError};

/// An error of the spool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// A row was not as the batch expected it; read again and decide anew.
    #[error("{0} was changed by someone else meanwhile")]
    Conflict(String),
    /// Nothing may be added until space is freed; what is there stays safe.
    #[error("the disk of the spool is nearly full ({free} bytes free, {reserve} kept in reserve)")]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes kept in reserve.
        reserve: u64,
    },
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done, on which file.
        what: String,
        /// The reason.
        source: std::io::Error,
    },
    /// Something stored is missing or damaged.
    #[error("{0}")]
    Corrupt(String),
    /// The flush failed: whether the last batches are kept is not known until the next open.
    #[error("the spool could not be flushed ({0}); restart once the disk is well again")]
    Unknown(String),
    /// The spool is used by another process.
    #[error("the spool is in use by another process")]
    Locked,
    /// The spool was made by a newer version of this program.
    #[error("the spool has schema version {found}, this program knows up to {known}")]
    NewerSchema {
        /// What was found.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
}

impl SpoolError {
    /// An [`SpoolError::Io`] that says what was done.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        SpoolError::Io { what: what.into(), source }
    }

    /// The code by which the contract names it.
    pub fn code(&self) -> MapiCode {
        match self {
            SpoolError::Conflict(_) => MapiCode::OBJECT_CHANGED,
            SpoolError::DiskFull { .. } => MapiCode::NOT_ENOUGH_DISK,
            SpoolError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                MapiCode::NOT_ENOUGH_DISK
            }
            SpoolError::Io { .. } | SpoolError::Unknown(_) => MapiCode::DISK_ERROR,
            SpoolError::Corrupt(_) => MapiCode::CORRUPT_DATA,
            SpoolError::Locked => MapiCode::BUSY,
            SpoolError::NewerSchema { .. } => MapiCode::VERSION,
            SpoolError::Closed => MapiCode::END_OF_SESSION,
        }
    }
}

impl From<SpoolError> for MapiError {
    fn from(error: SpoolError) -> Self {
        MapiError::new(error.code(), error.to_string())
    }
}
