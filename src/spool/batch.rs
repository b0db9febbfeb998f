//! A set of changes that is applied whole or not at all.

use super::bodies::StagedFile;
use super::{
    AccountKey, BodyId, CursorRecord, FetchedRecord, HistoryRecord, Origin, OutboxRecord,
    QueueRecord, Step,
};
use crate::mapi::EntryId;

/// What a row must be like for a batch to be applied. The revision is that of the record as it
/// was read; a put stores the record with the next revision, whatever the given record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such row.
    Absent,
    /// The row has this revision.
    Revision(u64),
    /// Anything goes.
    Any,
}

/// One change.
#[derive(Debug)]
pub enum Op {
    /// Puts a message of the Outbox.
    PutOutbox {
        /// Its key.
        entry: EntryId,
        /// The record.
        record: Box<OutboxRecord>,
        /// The condition.
        expect: Expect,
    },
    /// Removes a message of the Outbox.
    DeleteOutbox {
        /// Its key.
        entry: EntryId,
        /// The condition.
        expect: Expect,
    },
    /// Puts a message of the queue.
    PutQueue {
        /// Its key.
        entry: EntryId,
        /// The record.
        record: Box<QueueRecord>,
        /// The condition.
        expect: Expect,
    },
    /// Removes a message of the queue.
    DeleteQueue {
        /// Its key.
        entry: EntryId,
        /// The condition.
        expect: Expect,
    },
    /// Puts the history of a message. The steps of a history that is there already, and those of
    /// an Outbox row that goes, are taken over.
    PutHistory {
        /// Its key.
        entry: EntryId,
        /// The record.
        record: Box<HistoryRecord>,
    },
    /// Removes the history of a message.
    DeleteHistory {
        /// Its key.
        entry: EntryId,
    },
    /// Adds a step to the history of a message or, while there is none, to its Outbox row. Of a
    /// message that is neither, nothing is kept.
    AddStep {
        /// Its key.
        entry: EntryId,
        /// The step.
        step: Box<Step>,
    },
    /// Puts the cursor of a mailbox.
    PutCursor {
        /// The account.
        account: AccountKey,
        /// The mailbox, as the profile names it.
        mailbox: String,
        /// The record.
        record: CursorRecord,
    },
    /// Counts one more delivered message with this digest.
    AddDelivered {
        /// The account.
        account: AccountKey,
        /// The mailbox.
        mailbox: String,
        /// The first half of the BLAKE3 digest of the message.
        digest: [u8; 16],
    },
    /// Counts one delivered message less with this digest; the row goes with the last one.
    TakeDelivered {
        /// The account.
        account: AccountKey,
        /// The mailbox.
        mailbox: String,
        /// The digest.
        digest: [u8; 16],
    },
    /// Forgets all delivered messages with this digest.
    ForgetDelivered {
        /// The account.
        account: AccountKey,
        /// The mailbox.
        mailbox: String,
        /// The digest.
        digest: [u8; 16],
    },
    /// Puts what a message of a mailbox is.
    PutFetched {
        /// The account.
        account: AccountKey,
        /// The mailbox.
        mailbox: String,
        /// Where in it.
        at: Origin,
        /// The record.
        record: FetchedRecord,
    },
    /// Removes it.
    DeleteFetched {
        /// The account.
        account: AccountKey,
        /// The mailbox.
        mailbox: String,
        /// Where in it.
        at: Origin,
    },
    /// Notes that a message with this digest may have been saved under the key of `origin`.
    PutDoubtful {
        /// The account.
        account: AccountKey,
        /// The mailbox.
        mailbox: String,
        /// The digest.
        digest: [u8; 16],
        /// The place its key was made from.
        origin: Origin,
    },
    /// Removes that note.
    DeleteDoubtful {
        /// The account.
        account: AccountKey,
        /// The mailbox.
        mailbox: String,
        /// The digest.
        digest: [u8; 16],
        /// The place.
        origin: Origin,
    },
}

/// Changes that belong together, and the new bodies they use.
///
/// Users of a body are counted by the spool from the records themselves: a body goes when the
/// last record that names it goes.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) ops: Vec<Op>,
    pub(super) bodies: Vec<StagedBody>,
}

impl Batch {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a change.
    #[must_use]
    pub fn with(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Adds a change.
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Adds a body that a record of this batch names.
    #[must_use]
    pub fn with_body(mut self, body: StagedBody) -> Self {
        self.bodies.push(body);
        self
    }

    /// The changes, for a spool that stands before another.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// A body that was written and synced but is not used by any record yet; dropping it removes it.
#[derive(Debug)]
pub struct StagedBody {
    id: BodyId,
    size: u64,
    pub(super) place: StagedPlace,
}

/// Where a staged body is.
#[derive(Debug)]
pub(super) enum StagedPlace {
    /// In memory, to be stored in a row: the format byte, then the bytes.
    Inline(sled::IVec),
    /// In a synced file, which is removed when this is dropped.
    File(StagedFile),
}

impl StagedBody {
    pub(super) fn new(id: BodyId, size: u64, place: StagedPlace) -> Self {
        StagedBody { id, size, place }
    }

    /// Its name, for the record that uses it.
    pub fn id(&self) -> BodyId {
        self.id
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Proof that a batch is durable; only the spool can make one, behind the flush.
#[derive(Debug)]
pub struct Durable(pub(super) ());
