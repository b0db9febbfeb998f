//! Where a transport keeps copies of what was sent (beside the contract, which leaves them to the
//! host, OB-16).

use std::pin::Pin;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::Repetition;
use crate::mapi::{MapiResult, SysTime};

/// A copy of a sent message.
pub struct SentCopy {
    /// `Message-ID` with its angle brackets, by which the copy is found again; may be empty.
    pub message_id: String,
    /// When it was submitted.
    pub date: SysTime,
    /// Size in octets.
    pub size: u64,
    /// The RFC 5322 octets, as many as `size` says.
    pub content: Pin<Box<dyn AsyncRead + Send>>,
    /// Whether it may have been stored before.
    pub repetition: Repetition,
}

/// The mailbox of sent mail of an account.
#[async_trait]
pub trait SentFolder: Send + Sync {
    /// Stores a copy. When this returns `Ok`, the account's server has it; one that may have been
    /// stored before is looked for first. A dropped future leaves it stored or not.
    ///
    /// # Errors
    /// `MAPI_E_NETWORK_ERROR` when it may be stored or not; `MAPI_E_LOGON_FAILED`, `MAPI_E_WAIT`;
    /// `MAPI_E_CALL_FAILED` when the server does not take this copy; `MAPI_E_CORRUPT_DATA` when its
    /// content cannot be read.
    async fn append(&self, copy: SentCopy) -> MapiResult<()>;

    /// Nothing more comes for now: a connection that was kept is closed.
    async fn rest(&self);
}
