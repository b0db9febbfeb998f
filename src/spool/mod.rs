//! The one durable store: rows by key and bodies beside them, behind a narrow trait.
//!
//! Everything that must survive a crash goes through [`Spool::commit`]: a [`Batch`] is applied
//! whole or not at all, and when the call returns `Ok` it survives a power loss.
//!
//! [`SledSpool`] keeps it on sled. The way of a batch through the files of this folder: `writer`
//! (one thread, forms groups) asks `plan` and `users` (pure: which rows change) over `keys` and
//! `codec` (what rows look like), has `store` append the group to the `journal` and sync it, answers,
//! and leaves what is to be unlinked to `janitor`. What the journal has and the tree does not is
//! in `layers`, which `merged` walks together with the tree; `folding` is the thread in which a
//! full layer goes into the tree. Bodies are written and read by `body_io` in the files of
//! `bodies`. At open, `lock` keeps other processes out, `store/fold` reads the journals that were
//! left, `migrations` brings the schema to today's and `recover` finishes what a crash interrupted;
//! `repair` sets aside what cannot be read.

mod batch;
mod bodies;
mod body_io;
mod body_row;
mod check;
mod codec;
mod counts;
pub mod disk;
mod envelope;
mod error;
mod folding;
mod janitor;
mod journal;
mod keys;
mod layers;
mod lock;
mod mailbox_record;
mod merged;
mod names;
mod options;
mod plan;
mod plan_slot;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod queue_id;
mod record;
mod recover;
mod repair;
mod sled_spool;
mod space;
mod store;
mod trace;
mod users;
mod writer;

pub use batch::{Batch, Durable, Expect, Op, StagedBody};
pub use check::{
    CheckMode, CheckPhase, CheckProgress, CheckReport, Finding, FindingKind, Place, Remedy,
    Salvaged, set_aside_unreadable,
};
pub use envelope::{
    BodyKind, DsnNotify, DsnReturn, Envelope, QueueRecipient, RecipientState, Reply, Reporter,
};
pub use error::SpoolError;
pub use mailbox_record::{CopyIntent, CursorRecord, FetchedRecord, Origin, Retired, UidRange};
pub use names::{AccountKey, BodyId};
pub use options::SpoolOptions;
pub use record::{
    Expiry, FinalDot, HistoryEnd, HistoryRecord, Lease, OutboxRecord, OutboxState, QueueRecord,
    QueueState, ReportMade,
};
pub use sled_spool::SledSpool;
pub use space::FreeSpace;
pub use store::{Fault, FaultPoint};
pub use trace::{
    AttemptPhase, AttemptStep, AttemptStepEnd, RefusalStep, ReportStep, StatusReportLine,
    StatusReportStep, Step, StepKind, TiedBy, Trace,
};

use std::pin::Pin;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::mapi::{EntryId, Priority, SysTime};
use crate::migrations;

/// Bytes of a body, verified against its digest while they are read: a mismatch is an error of
/// kind `InvalidData` at the end.
pub struct BodyReader {
    /// How many bytes there are.
    pub size: u64,
    /// The bytes.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
}

/// Takes the bytes of a new body. Dropping it discards them.
#[async_trait]
pub trait BodyWriter: Send {
    /// Appends bytes. When the future is dropped before it is done, the body is lost and every
    /// later call fails.
    ///
    /// # Errors
    /// [`SpoolError::DiskFull`] before the lower half of the reserve of free space is touched; I/O
    /// errors. After an error every later call fails.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError>;

    /// Makes the bytes durable and gives them a name. They are kept only if a committed batch
    /// uses them; dropping the result discards them.
    ///
    /// # Errors
    /// As [`BodyWriter::write`].
    async fn finish(self: Box<Self>) -> Result<StagedBody, SpoolError>;
}

/// What is due at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DuePage {
    /// Due now, urgent first, then by due time.
    pub entries: Vec<EntryId>,
    /// When the next one neither listed nor skipped will be due, a time that has passed when more
    /// is due than was asked for; `None` when there is none.
    pub next: Option<SysTime>,
}

/// How many messages are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// In the Outbox and not yet with a transport, or with it and never tried.
    pub queued: u64,
    /// Claimed.
    pub sending: u64,
    /// Tried and due again.
    pub deferred: u64,
    /// In doubt.
    pub in_doubt: u64,
    /// On hold.
    pub held: u64,
    /// Parked.
    pub parked: u64,
    /// Done, the host not yet told.
    pub done: u64,
    /// Records that could not be read and were set aside.
    pub quarantined: u64,
}

/// A record that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRecord {
    /// Its key as it was, for people: table and entry id or hexadecimal.
    pub key: String,
    /// Why it could not be read.
    pub reason: String,
    /// Its bytes as they were.
    pub bytes: Vec<u8>,
}

/// The durable store (see the module). Reads see every batch that was committed, and only what is
/// durable; a batch may be seen an instant before its caller hears of it.
#[async_trait]
pub trait Spool: Send + Sync + 'static {
    /// Applies a batch whole or not at all; on `Ok` it is durable. Batches of many callers share
    /// one flush. Cancel-safe: a batch whose caller went away is applied or not, never in part.
    ///
    /// # Errors
    /// [`SpoolError::Conflict`] when an [`Expect`] of the batch is not met, nothing was changed;
    /// [`SpoolError::Corrupt`] when a record names a body that is neither there nor in the batch,
    /// nothing was changed; [`SpoolError::DiskFull`] for a new Outbox row while the reserve of free
    /// space is touched, and for a new queue row or body while half of it is (what was accepted
    /// must get on, and outcomes, cursors and removals always pass), nothing was changed;
    /// [`SpoolError::Unknown`] when the flush failed: whether the batch is kept is not known, and
    /// the spool takes no more batches. The bodies of a batch that was refused are gone and must be
    /// staged again.
    async fn commit(&self, batch: Batch) -> Result<Durable, SpoolError>;

    /// A message of the Outbox.
    async fn outbox(&self, entry: &EntryId) -> Result<Option<OutboxRecord>, SpoolError>;

    /// Messages of the Outbox after `after`, in order of entry id, whatever their state. A page
    /// shorter than `limit` is the last.
    async fn outbox_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError>;

    /// Messages of the Outbox in [`OutboxState::Waiting`] after `after`, in order of entry id,
    /// found by an index and not by a walk.
    async fn waiting_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError>;

    /// Messages of the Outbox in [`OutboxState::Deferred`] after `after`, in order of entry id,
    /// found by an index and not by a walk.
    async fn deferred_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError>;

    /// Messages after `after` whose rows in Outbox and queue do not fit together: queued and not
    /// in the Outbox, or with a transport that does not have them or has parked them. Found by an
    /// index: an open costs what a crash left, however long the queue is.
    async fn unsettled_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError>;

    /// The accounts that have messages in the queue. Costs as many looks as there are accounts.
    async fn queue_accounts(&self) -> Result<Vec<AccountKey>, SpoolError>;

    /// At most `limit` messages in the queue of an account, in any state and no order.
    async fn queue_of(&self, account: AccountKey, limit: usize)
    -> Result<Vec<EntryId>, SpoolError>;

    /// Why the spool takes no more batches, once a write or a sync has failed; a new open is
    /// needed then. `None` while all is well.
    fn failure(&self) -> Option<SpoolError>;

    /// A message of the queue.
    async fn queue(&self, entry: &EntryId) -> Result<Option<QueueRecord>, SpoolError>;

    /// Messages of the queue after `after`, in order of entry id. A page shorter than `limit` is
    /// the last.
    async fn queue_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, QueueRecord)>, SpoolError>;

    /// What is due for `account` at `now`: at most `limit` entries. Those in `skip` are left out,
    /// of [`DuePage::next`] too. Costs the rows listed and skipped, however long the queue is.
    async fn due(
        &self,
        account: AccountKey,
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
    ) -> Result<DuePage, SpoolError>;

    /// Messages of `account` in [`QueueState::Done`] after `after`, found by an index.
    async fn done_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError>;

    /// Messages of `account` in [`QueueState::Claimed`] after `after`, found by an index: what a
    /// process that died had on the wire is known without a walk.
    async fn claimed_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError>;

    /// Messages of `account` with an expiry of their own that have not ended, behind `after`, by the
    /// time at which they expire; found by an index.
    async fn expiring_page(
        &self,
        account: AccountKey,
        after: Option<&(SysTime, EntryId)>,
        limit: usize,
    ) -> Result<Vec<(SysTime, EntryId)>, SpoolError>;

    /// How a message ended.
    async fn history(&self, entry: &EntryId) -> Result<Option<HistoryRecord>, SpoolError>;

    /// Histories that ended before `before`, at most `limit`, oldest first.
    async fn history_ended_before(
        &self,
        before: SysTime,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError>;

    /// Messages that were queued, or ended, with this `Message-ID`, with or without its angle
    /// brackets; the latest first, at most `limit`. Found by an index that lives as long as the
    /// history of the message.
    async fn by_message_id(
        &self,
        message_id: &str,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError>;

    /// Messages of the Outbox and of the history whose entry ids lie between two that are
    /// included, in their order, at most `limit`.
    async fn known_between(
        &self,
        first: &EntryId,
        last: &EntryId,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError>;

    /// How far a mailbox was fetched.
    async fn cursor(
        &self,
        account: AccountKey,
        mailbox: &str,
    ) -> Result<Option<CursorRecord>, SpoolError>;

    /// Whether a message with this digest was delivered from this mailbox under an earlier
    /// UIDVALIDITY and not met again since, and how often.
    async fn delivered(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: [u8; 16],
    ) -> Result<u32, SpoolError>;

    /// Digests of which [`Spool::delivered`] knows a message of this mailbox, at most `limit`.
    async fn delivered_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 16]>, SpoolError>;

    /// Messages of a mailbox that may have been saved under an earlier UIDVALIDITY, with this
    /// digest or with any, at most `limit`.
    async fn doubtful_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: Option<[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<([u8; 16], Origin)>, SpoolError>;

    /// What was fetched from a mailbox under a UIDVALIDITY, by UID from `from` on, at most
    /// `limit`. A page shorter than `limit` is the last.
    async fn fetched_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        from: Origin,
        limit: usize,
    ) -> Result<Vec<(u32, FetchedRecord)>, SpoolError>;

    /// Starts a body. `size_hint` lets a large one be refused early.
    ///
    /// # Errors
    /// [`SpoolError::DiskFull`], I/O errors.
    async fn new_body(&self, size_hint: Option<u64>) -> Result<Box<dyn BodyWriter>, SpoolError>;

    /// Opens a body.
    ///
    /// # Errors
    /// [`SpoolError::Corrupt`] when it is missing.
    async fn open_body(&self, body: BodyId) -> Result<BodyReader, SpoolError>;

    /// A body whole, verified, when it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`SpoolError::Corrupt`] when it is missing, damaged or larger.
    async fn read_body(&self, body: BodyId, limit: u64) -> Result<Vec<u8>, SpoolError>;

    /// How many messages are in which state; kept as rows change, never counted by a walk.
    fn counts(&self) -> QueueCounts;

    /// Records that could not be read, at most `limit`. A read that meets such a record sets it
    /// aside and answers as if it were not there; it is never deleted, and neither are the bodies
    /// it may have named.
    async fn quarantine(&self, limit: usize) -> Result<Vec<QuarantinedRecord>, SpoolError>;

    /// Ends the spool: what was sent to [`Spool::commit`] before is finished first. Later calls
    /// fail.
    async fn close(&self);
}

/// The order in which due messages of one account are taken: all urgent ones that are due come
/// before the first normal one.
pub(crate) const DUE_ORDER: [Priority; 3] = Priority::ALL;
