//! What can be wrong with a message or an address.

use crate::mapi::{MapiCode, MapiError};

/// Why something cannot be a message on the internet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MimeError {
    /// A NUL octet; RFC 5322 section 2.2 and 3.5 leave no place for it.
    #[error(
        "the message has a NUL octet at offset {offset}; remove it or attach the data as a file"
    )]
    Nul {
        /// Octets before it.
        offset: u64,
    },
    /// The header block is larger than [`MAX_HEADER`](super::MAX_HEADER).
    #[error("the header of the message is larger than {limit} octets")]
    HeaderTooLarge {
        /// The limit in octets.
        limit: usize,
    },
    /// A carriage return in the middle of a header line.
    #[error("the header line starting with {line:?} has a carriage return in it")]
    BareCr {
        /// The beginning of the line.
        line: String,
    },
    /// Something that cannot be an address.
    #[error("{what}: {address:?} is no mail address: {why}")]
    BadAddress {
        /// Which address (`To`, `From`, `recipient`).
        what: String,
        /// What was given.
        address: String,
        /// Why not.
        why: &'static str,
    },
    /// A value that cannot stand in a header.
    #[error("{what}: {why}")]
    BadHeader {
        /// Which value (`Subject`).
        what: String,
        /// Why not.
        why: &'static str,
    },
    /// Nobody to put into `From`.
    #[error("the message has no sender")]
    NoSender,
}

impl From<MimeError> for MapiError {
    fn from(error: MimeError) -> Self {
        let code = match error {
            MimeError::Nul { .. } | MimeError::HeaderTooLarge { .. } | MimeError::BareCr { .. } => {
                MapiCode::CORRUPT_DATA
            }
            MimeError::BadAddress { .. } | MimeError::BadHeader { .. } | MimeError::NoSender => {
                MapiCode::INVALID_PARAMETER
            }
        };
        MapiError::new(code, error.to_string())
    }
}
