//! The message store as the spooler uses it (`IMsgStore`, outgoing queue table, OB-14 to OB-17).

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{Message, RecipientReport};
use crate::mapi::{EntryId, MapiResult, PropList, Recipient, SubmitFlags, SysTime};

/// Where a message of the outgoing queue table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingState {
    /// Waits to be handed to a transport, not before the given time (OB-19).
    Waiting {
        /// `PR_DEFERRED_SEND_TIME`, or the epoch.
        not_before: SysTime,
    },
    /// A transport accepted it and has not finished (END_DONT_RESEND).
    Deferred {
        /// Name of the transport.
        transport: String,
    },
}

/// One row of the outgoing queue table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingRow {
    /// The message.
    pub entry: EntryId,
    /// When it was submitted; rows come in ascending order of it (OB-14).
    pub submitted: SysTime,
    /// Where it stands.
    pub state: OutgoingState,
}

/// A report message for the sender's Inbox (SP-4, RFC 3464).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The message it is about.
    pub original: EntryId,
    /// The attempt it is about; with the entry id it makes a repeated delivery harmless.
    pub attempt: u32,
    /// What happened, with the row each line is about.
    pub recipients: Vec<(Recipient, RecipientReport)>,
    /// Properties of the original.
    pub original_props: PropList,
}

/// What the host tells its store about a message on its way, for who asks later what happened to
/// it.
#[derive(Clone, Copy, Debug)]
pub enum OutgoingNote<'a> {
    /// A transport ended what it had of the message.
    SentBy {
        /// Its name.
        transport: &'a str,
    },
    /// What became of recipients, whether or not a report was asked for.
    Outcomes(&'a [RecipientReport]),
}

/// The store of a session.
#[async_trait]
pub trait MessageStore: Send + Sync {
    /// Up to `limit` messages that wait to be handed over, in ascending submit time, those after
    /// `after` (OB-14).
    ///
    /// # Errors
    /// `MAPI_E_DISK_ERROR`.
    async fn outgoing_queue(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>>;

    /// Up to `limit` messages that a transport has accepted and not finished, those after
    /// `after`.
    ///
    /// # Errors
    /// `MAPI_E_DISK_ERROR`.
    async fn deferred_queue(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>>;

    /// One row of the outgoing queue table, waiting or deferred.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE` when it is not there (any more).
    async fn outgoing_row(&self, entry: &EntryId) -> MapiResult<OutgoingRow>;

    /// Announces messages that wait in the outgoing queue table from now on: added, released, or
    /// no longer deferred. A message is announced after it can be read, in any order. A receiver
    /// that falls behind is told so, and looks at the whole table.
    fn outgoing_added(&self) -> broadcast::Receiver<EntryId>;

    /// Opens a message of the outgoing queue table.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`, `MAPI_E_CORRUPT_DATA`.
    async fn open_message(&self, entry: &EntryId) -> MapiResult<Arc<dyn Message>>;

    /// Locks or unlocks a message for the time a transport works on it (OB-14). A lock does not
    /// outlive the process.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`; `MAPI_E_BUSY` when it is locked already.
    async fn set_lock_state(&self, entry: &EntryId, flags: SubmitFlags) -> MapiResult<()>;

    /// Notes that a transport deferred the message (END_DONT_RESEND), or with `None` that it is
    /// to be handed over again. Need not be durable: a repeated hand-over is harmless.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`, `MAPI_E_DISK_ERROR`.
    async fn set_deferred(&self, entry: &EntryId, transport: Option<&str>) -> MapiResult<()>;

    /// Asks the store to look whether what it has of a message is damaged, and if so to keep it from
    /// being handed over until somebody has seen to it. Returns whether it did. A store that
    /// cannot tell does nothing, which is the default.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`, `MAPI_E_DISK_ERROR`.
    async fn set_aside_if_damaged(&self, entry: &EntryId) -> MapiResult<bool> {
        let _ = entry;
        Ok(false)
    }

    /// Notes what happened to a message. Returns at once; a store that keeps no history forgets
    /// it, and so may any store before [`MessageStore::finished_msg`].
    fn note(&self, _entry: &EntryId, _note: OutgoingNote<'_>) {}

    /// Ends a message that was sent: unlock, sent copy, removal (OB-16). Harmless when repeated.
    ///
    /// # Errors
    /// `MAPI_E_DISK_ERROR`, `MAPI_E_NOT_ENOUGH_DISK`; the message then stays in the table.
    async fn finished_msg(&self, entry: &EntryId) -> MapiResult<()>;

    /// Removes a message that no transport has (OB-15).
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` while locked or deferred, `MAPI_E_NOT_IN_QUEUE` once gone.
    async fn abort_submit(&self, entry: &EntryId) -> MapiResult<()>;

    /// A new, empty message for StartMessage to fill (IB-2).
    ///
    /// # Errors
    /// `MAPI_E_NOT_ENOUGH_DISK`.
    async fn new_incoming(&self) -> MapiResult<Arc<dyn Message>>;

    /// Puts a report into the Inbox; the same report again changes nothing.
    ///
    /// # Errors
    /// `MAPI_E_DISK_ERROR`, `MAPI_E_NOT_ENOUGH_DISK`.
    async fn deliver_report(&self, report: Report) -> MapiResult<()>;
}
