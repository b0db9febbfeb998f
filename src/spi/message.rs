//! The message object that a host lends to a transport for the time of a call.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::mapi::{Attachment, EntryId, MapiResult, MessageRef, PropList, Recipient};

/// A message reference that the host can read while the call that sets it still runs (OB-1,
/// TN-15).
#[derive(Debug)]
pub struct MessageRefCell(AtomicU32);

impl MessageRefCell {
    /// The cell of a SubmitMessage; reads 0 until the transport sets it.
    pub const fn outbound() -> Self {
        MessageRefCell(AtomicU32::new(MessageRef::OUTBOUND_UNSET.0))
    }

    /// The cell of a StartMessage; reads 1 until the transport sets it.
    pub const fn inbound() -> Self {
        MessageRefCell(AtomicU32::new(MessageRef::INBOUND_UNSET.0))
    }

    /// Stores the reference where the host sees it at once.
    pub fn set(&self, reference: MessageRef) {
        self.0.store(reference.0, Ordering::SeqCst);
    }

    /// The reference as of now.
    pub fn reference(&self) -> MessageRef {
        MessageRef(self.0.load(Ordering::SeqCst))
    }
}

/// RFC 5322 bytes of a message, to be read once from the start.
pub struct Content {
    /// How many bytes the reader will yield.
    pub size: u64,
    /// BLAKE3 digest of the bytes where the host knows it; a transport that keeps bodies by
    /// digest need not store them again.
    pub digest: Option<[u8; 32]>,
    /// The bytes, line ends as CR LF.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Takes the RFC 5322 bytes of a message that is being received.
///
/// Dropping it unfinished discards what was written.
#[async_trait]
pub trait ContentSink: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// `MAPI_E_NOT_ENOUGH_DISK` or `MAPI_E_DISK_ERROR`; the sink is then only to be dropped.
    async fn write(&mut self, bytes: &[u8]) -> MapiResult<()>;

    /// Hands the bytes to the message; they become durable with [`Message::save_changes`].
    ///
    /// # Errors
    /// As [`ContentSink::write`].
    async fn finish(self: Box<Self>) -> MapiResult<()>;

    /// Gives the message up for now: the rest cannot be had. A sink of
    /// [`Message::resume_content`] keeps what was written, durably, for the next try; any other
    /// discards it, which is the default.
    ///
    /// # Errors
    /// As [`ContentSink::write`]; then nothing, or less, is kept.
    async fn keep(self: Box<Self>) -> MapiResult<()> {
        Ok(())
    }

    /// Discards what was written, also what an earlier try had kept: it is not the message.
    async fn discard(self: Box<Self>) {}
}

/// Content that may come in several tries.
pub struct ResumedContent {
    /// Takes the bytes behind those that are there. Dropping it keeps what was durable already.
    pub sink: Box<dyn ContentSink>,
    /// What an earlier try has kept, to be read before the first write: byte for byte what was
    /// written then.
    pub before: Option<Content>,
}

impl std::fmt::Debug for ResumedContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumedContent").field("before", &self.before).finish_non_exhaustive()
    }
}

/// What a transport knows about whether it has handed over the same message before (IB-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// This is the first time.
    First,
    /// It may have been saved before a crash; the store looks for its `PR_SEARCH_KEY` everywhere,
    /// and saving what is already there changes nothing and succeeds.
    Possible,
}

/// A message object of the host.
///
/// A message has either a [`Content`] (its RFC 5322 bytes, which are sent as they are) or body
/// properties and attachments from which the transport makes one.
#[async_trait]
pub trait Message: Send + Sync {
    /// The entry id; `None` for a new message that was not saved yet.
    fn entry_id(&self) -> Option<EntryId>;

    /// All properties of the message.
    ///
    /// # Errors
    /// `MAPI_E_CORRUPT_DATA`, `MAPI_E_DISK_ERROR`.
    async fn props(&self) -> MapiResult<PropList>;

    /// Sets properties; they are kept by [`Message::save_changes`] only.
    ///
    /// # Errors
    /// `MAPI_E_NO_ACCESS` when the message may not be changed.
    async fn set_props(&self, props: PropList) -> MapiResult<()>;

    /// The recipient table.
    ///
    /// # Errors
    /// As [`Message::props`].
    async fn recipients(&self) -> MapiResult<Vec<Recipient>>;

    /// Replaces the rows with the same numbers and adds the others.
    ///
    /// # Errors
    /// As [`Message::set_props`].
    async fn modify_recipients(&self, rows: Vec<Recipient>) -> MapiResult<()>;

    /// The attachment table with its data.
    ///
    /// # Errors
    /// As [`Message::props`].
    async fn attachments(&self) -> MapiResult<Vec<Attachment>>;

    /// The RFC 5322 bytes, if the message has any.
    ///
    /// # Errors
    /// As [`Message::props`].
    async fn content(&self) -> MapiResult<Option<Content>>;

    /// Starts to give the message its RFC 5322 bytes.
    ///
    /// # Errors
    /// `MAPI_E_NOT_ENOUGH_DISK`, `MAPI_E_DISK_ERROR`, `MAPI_E_NO_ACCESS`.
    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>>;

    /// As [`Message::set_content`], for a message that may come in several tries: what was written
    /// to a message with the same `PR_SEARCH_KEY` and the same size, and was
    /// [kept](ContentSink::keep) or became durable before a crash, is taken up. `size` is the
    /// announced one. Which beginnings are kept for how long is the store's affair; a store that
    /// keeps none begins anew, which is the default.
    ///
    /// # Errors
    /// As [`Message::set_content`].
    async fn resume_content(&self, size: u64) -> MapiResult<ResumedContent> {
        let _ = size;
        Ok(ResumedContent { sink: self.set_content().await?, before: None })
    }

    /// Makes the message durable: when this returns `Ok`, it survives a power loss (IB-6, OB-8).
    ///
    /// # Errors
    /// As [`ContentSink::write`]; nothing is kept then.
    async fn save_changes(&self, repetition: Repetition) -> MapiResult<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: TN-15
    #[test]
    fn cells_start_with_the_values_of_tn_15() {
        let cell = MessageRefCell::outbound();
        assert_eq!(cell.reference(), MessageRef(0));
        cell.set(MessageRef(7));
        assert_eq!(cell.reference(), MessageRef(7));
        assert_eq!(MessageRefCell::inbound().reference(), MessageRef(1));
    }
}
