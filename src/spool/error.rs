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
    /// The tree itself cannot be opened.
    #[error("the spool cannot be read: {0}")]
    Unreadable(String),
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
    /// Another check of the spool runs.
    #[error("another check of the spool is running")]
    Checking,
    /// A check was ended before it was through.
    #[error("the check was ended")]
    Abandoned,
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
}

impl SpoolError {
    /// An [`SpoolError::Io`] that says what was done.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        SpoolError::Io { what: what.into(), source }
    }

    /// Whether there was no room.
    pub(crate) fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            SpoolError::DiskFull { .. } => true,
            SpoolError::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
            _ => false,
        }
    }

    /// The code by which the contract names it.
    pub fn code(&self) -> MapiCode {
        match self {
            SpoolError::Conflict(_) => MapiCode::OBJECT_CHANGED,
            SpoolError::DiskFull { .. } => MapiCode::NOT_ENOUGH_DISK,
            full if full.is_full_disk() => MapiCode::NOT_ENOUGH_DISK,
            SpoolError::Io { .. } | SpoolError::Unknown(_) => MapiCode::DISK_ERROR,
            SpoolError::Unreadable(_) => MapiCode::CORRUPT_STORE,
            SpoolError::Corrupt(_) => MapiCode::CORRUPT_DATA,
            SpoolError::Locked | SpoolError::Checking => MapiCode::BUSY,
            SpoolError::Abandoned => MapiCode::USER_CANCEL,
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
