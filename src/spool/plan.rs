//! From a batch and the rows it meets to the rows that change: records, indexes, users of bodies
//! and counters together. Pure but for reading rows; nothing here writes.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::IVec;

use super::batch::{Batch, Expect, Op};
use super::bodies::StagedFile;
use super::codec::{self, ReadError, Rows};
use super::counts::{Counters, class};
use super::space::Need;
use super::users::{self, Users};
use super::{
    AccountKey, BodyId, HistoryRecord, OutboxRecord, OutboxState, QueueRecord, QueueState,
    SpoolError, keys,
};
use crate::mapi::EntryId;

/// What is kept beside the rows and follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Books {
    /// How many messages are in which state.
    pub(super) counters: Counters,
    /// The slot of the next inline body.
    pub(super) slot: u64,
}

/// What a batch comes to.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rows to put, or to remove where there is no value. No key stands here twice.
    pub(super) rows: Vec<(Vec<u8>, Option<IVec>)>,
    /// Body files that rows name from now on.
    pub(super) adopted: Vec<StagedFile>,
    /// Body files that no row names any more.
    pub(super) gone: Vec<(BodyId, u64)>,
    /// What space is needed for.
    pub(super) need: Need,
    /// Whether a row was met that cannot be read and is in nobody's way.
    pub(super) damage: bool,
}

impl Changes {
    pub(super) fn put(&mut self, key: Vec<u8>, value: impl Into<IVec>) {
        self.rows.push((key, Some(value.into())));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.rows.push((key, None));
    }

    pub(super) fn raise_need(&mut self, need: Need) {
        self.need = self.need.max(need);
    }

    /// Bytes of the new values.
    pub(super) fn bytes(&self) -> u64 {
        let values = self.rows.iter().filter_map(|(_, value)| value.as_ref());
        values.map(|value| u64::try_from(value.len()).unwrap_or(0)).sum()
    }

    /// Moves an entry of an index.
    fn index(&mut self, before: Option<Vec<u8>>, after: Option<Vec<u8>>) {
        if before == after {
            return;
        }
        before.into_iter().for_each(|key| self.remove(key));
        after.into_iter().for_each(|key| self.put(key, IVec::default()));
    }

    /// Writes a record over one that had `overflow` rows behind its head.
    pub(super) fn record<T: Serialize>(
        &mut self,
        key: &[u8],
        record: Option<&T>,
        overflow: u16,
    ) -> Result<(), SpoolError> {
        let rows = match record {
            Some(record) => codec::split(key, codec::encode(record)?),
            None => vec![],
        };
        let kept = u16::try_from(rows.len().saturating_sub(1)).unwrap_or(u16::MAX);
        (kept..overflow).for_each(|number| self.remove(keys::overflow(key, number)));
        if rows.is_empty() {
            self.remove(key.to_vec());
        }
        rows.into_iter().for_each(|(key, value)| self.put(key, value));
        Ok(())
    }
}

/// A record as the batch met it and as it leaves it.
struct Slot<T> {
    before: Option<T>,
    /// Overflow rows of `before`.
    overflow: u16,
    now: Now<T>,
}

enum Now<T> {
    Same,
    Put(T),
    Gone,
}

impl<T: DeserializeOwned> Slot<T> {
    fn load(rows: &impl Rows, key: &[u8]) -> Result<Self, ReadError> {
        let Some(head) = rows.value(key)? else { return Ok(Self::unloaded()) };
        let overflow = codec::overflow_rows(&head);
        let before = Some(codec::load_from(rows, key, head)?);
        Ok(Slot { before, overflow, now: Now::Same })
    }
}

impl<T> Slot<T> {
    /// A row that is absent or does not matter.
    fn unloaded() -> Self {
        Slot { before: None, overflow: 0, now: Now::Same }
    }

    fn current(&self) -> Option<&T> {
        match &self.now {
            Now::Same => self.before.as_ref(),
            Now::Put(record) => Some(record),
            Now::Gone => None,
        }
    }

    fn changed(&self) -> bool {
        !matches!(self.now, Now::Same)
    }
}

/// A record with a revision.
trait Revised {
    fn revision(&self) -> u64;
    fn with_revision(self, revision: u64) -> Self;
}

impl Revised for OutboxRecord {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn with_revision(self, revision: u64) -> Self {
        OutboxRecord { revision, ..self }
    }
}

impl Revised for QueueRecord {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn with_revision(self, revision: u64) -> Self {
        QueueRecord { revision, ..self }
    }
}

impl<T: Revised> Slot<T> {
    fn check(&self, expect: Expect, table: &str, entry: &EntryId) -> Result<(), SpoolError> {
        let met = match (expect, self.current()) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::Revision(expected), Some(record)) => record.revision() == expected,
            (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => false,
        };
        if met { Ok(()) } else { Err(SpoolError::Conflict(format!("{table}/{entry}"))) }
    }

    fn put(&mut self, record: T) {
        let revision = self.current().map_or(0, Revised::revision).saturating_add(1);
        self.now = Now::Put(record.with_revision(revision));
    }
}

/// The two rows of a message.
struct Message {
    outbox: Slot<OutboxRecord>,
    queue: Slot<QueueRecord>,
}

/// Everything a batch touches, as it was.
#[derive(Default)]
pub(super) struct Touched {
    messages: HashMap<EntryId, Message>,
    histories: HashMap<EntryId, Slot<HistoryRecord>>,
    delivered: HashMap<Vec<u8>, u32>,
    /// Rows that are put or removed without a look at what was there.
    plain: HashMap<Vec<u8>, Option<IVec>>,
}

impl Touched {
    /// Reads the rows of a batch.
    ///
    /// # Errors
    /// [`ReadError::Unreadable`] when a row must go to quarantine first.
    pub(super) fn load(batch: &Batch, rows: &impl Rows) -> Result<Touched, ReadError> {
        let mut touched = Touched::default();
        // Whether the Outbox row matters: when it changes, or takes over the count of the message.
        let mut wanted: HashMap<&EntryId, bool> = HashMap::new();
        for op in &batch.ops {
            match op {
                Op::PutOutbox { entry, .. }
                | Op::DeleteOutbox { entry, .. }
                | Op::DeleteQueue { entry, .. } => {
                    wanted.insert(entry, true);
                }
                Op::PutQueue { entry, .. } => {
                    wanted.entry(entry).or_insert(false);
                }
                Op::PutHistory { entry, .. } | Op::DeleteHistory { entry } => {
                    let slot = Slot::load(rows, &keys::history(entry))?;
                    touched.histories.insert(entry.clone(), slot);
                }
                Op::AddDelivered { account, mailbox, digest }
                | Op::TakeDelivered { account, mailbox, digest } => {
                    let key = keys::delivered(*account, mailbox, digest);
                    let count = codec::load(rows, &key)?.unwrap_or(0);
                    touched.delivered.insert(key, count);
                }
                Op::PutCursor { .. }
                | Op::ForgetDelivered { .. }
                | Op::PutFetched { .. }
                | Op::DeleteFetched { .. }
                | Op::PutDoubtful { .. }
                | Op::DeleteDoubtful { .. } => {}
            }
        }
        for (entry, outbox) in wanted {
            let queue: Slot<QueueRecord> = Slot::load(rows, &keys::queue(entry))?;
            let outbox = if outbox || queue.before.is_none() {
                Slot::load(rows, &keys::outbox(entry))?
            } else {
                Slot::unloaded()
            };
            touched.messages.insert(entry.clone(), Message { outbox, queue });
        }
        Ok(touched)
    }

    /// The changes of the batch these rows were read for.
    ///
    /// # Errors
    /// [`SpoolError::Conflict`] when an expectation is not met, [`SpoolError::Corrupt`] when a
    /// record names a body that is not there, [`ReadError::Unreadable`] when the row of a body is
    /// damaged. Then `books` are of no use any more.
    pub(super) fn plan(
        mut self,
        batch: Batch,
        rows: &impl Rows,
        books: &mut Books,
    ) -> Result<Changes, ReadError> {
        let mut changes = Changes::default();
        for op in batch.ops {
            self.apply(op, &mut changes)?;
        }
        let mut users = Users::new();
        for (entry, message) in &self.messages {
            outbox_changes(entry, &message.outbox, &mut changes, &mut users)?;
            queue_changes(entry, &message.queue, &mut changes, &mut users)?;
            books.counters.change(
                class(message.outbox.before.as_ref(), message.queue.before.as_ref()),
                class(message.outbox.current(), message.queue.current()),
            );
        }
        for (entry, slot) in self.histories.iter().filter(|(_, slot)| slot.changed()) {
            changes.record(&keys::history(entry), slot.current(), slot.overflow)?;
            let ended =
                |record: Option<&HistoryRecord>| record.map(|r| keys::ended(r.ended, entry));
            changes.index(ended(slot.before.as_ref()), ended(slot.current()));
        }
        for (key, count) in &self.delivered {
            changes.record(key, Some(count).filter(|count| **count > 0), 0)?;
        }
        changes.rows.extend(self.plain);
        users::settle(users, batch.bodies, rows, books, &mut changes)?;
        Ok(changes)
    }

    fn apply(&mut self, op: Op, changes: &mut Changes) -> Result<(), SpoolError> {
        match op {
            Op::PutOutbox { entry, record, expect } => {
                if let Some(Message { outbox, .. }) = self.messages.get_mut(&entry) {
                    outbox.check(expect, "outbox", &entry)?;
                    outbox.put(*record);
                }
            }
            Op::DeleteOutbox { entry, expect } => {
                if let Some(Message { outbox, .. }) = self.messages.get_mut(&entry) {
                    outbox.check(expect, "outbox", &entry)?;
                    outbox.now = Now::Gone;
                }
            }
            Op::PutQueue { entry, record, expect } => {
                if let Some(Message { queue, .. }) = self.messages.get_mut(&entry) {
                    queue.check(expect, "queue", &entry)?;
                    queue.put(*record);
                }
            }
            Op::DeleteQueue { entry, expect } => {
                if let Some(Message { queue, .. }) = self.messages.get_mut(&entry) {
                    queue.check(expect, "queue", &entry)?;
                    queue.now = Now::Gone;
                }
            }
            Op::PutHistory { entry, record } => {
                self.histories.entry(entry).and_modify(|slot| slot.now = Now::Put(*record));
            }
            Op::DeleteHistory { entry } => {
                self.histories.entry(entry).and_modify(|slot| slot.now = Now::Gone);
            }
            Op::PutCursor { account, mailbox, record } => {
                let key = keys::cursor(account, &mailbox);
                // A later cursor of the same batch stands for the earlier one.
                changes.rows.retain(|(other, _)| *other != key);
                changes.record(&key, Some(&record), 0)?;
            }
            Op::AddDelivered { account, mailbox, digest } => {
                let key = keys::delivered(account, &mailbox, &digest);
                self.delivered.entry(key).and_modify(|count| *count = count.saturating_add(1));
            }
            Op::TakeDelivered { account, mailbox, digest } => {
                let key = keys::delivered(account, &mailbox, &digest);
                self.delivered.entry(key).and_modify(|count| *count = count.saturating_sub(1));
            }
            Op::ForgetDelivered { account, mailbox, digest } => {
                let key = keys::delivered(account, &mailbox, &digest);
                self.delivered.insert(key, 0);
            }
            Op::PutFetched { account, mailbox, at, record } => {
                let value = codec::encode(&record)?;
                // Mail that comes in grows the spool: not beyond half of the reserve.
                changes.raise_need(Need::Progress);
                self.plain.insert(keys::fetched(account, &mailbox, at), Some(value.into()));
            }
            Op::DeleteFetched { account, mailbox, at } => {
                self.plain.insert(keys::fetched(account, &mailbox, at), None);
            }
            Op::PutDoubtful { account, mailbox, digest, origin } => {
                let key = keys::doubtful(account, &mailbox, &digest, origin);
                self.plain.insert(key, Some(IVec::default()));
            }
            Op::DeleteDoubtful { account, mailbox, digest, origin } => {
                self.plain.insert(keys::doubtful(account, &mailbox, &digest, origin), None);
            }
        }
        Ok(())
    }
}

fn outbox_changes(
    entry: &EntryId,
    slot: &Slot<OutboxRecord>,
    changes: &mut Changes,
    users: &mut Users,
) -> Result<(), SpoolError> {
    if !slot.changed() {
        return Ok(());
    }
    if slot.before.is_none() && slot.current().is_some() {
        changes.raise_need(Need::Acceptance);
    }
    changes.record(&keys::outbox(entry), slot.current(), slot.overflow)?;
    changes.index(
        slot.before.as_ref().and_then(|record| waiting_key(entry, record)),
        slot.current().and_then(|record| waiting_key(entry, record)),
    );
    let bodies = |record: Option<&OutboxRecord>| {
        record.map(|record| record.bodies().collect::<Vec<_>>()).unwrap_or_default()
    };
    users::count(bodies(slot.before.as_ref()), bodies(slot.current()), users);
    Ok(())
}

fn queue_changes(
    entry: &EntryId,
    slot: &Slot<QueueRecord>,
    changes: &mut Changes,
    users: &mut Users,
) -> Result<(), SpoolError> {
    if !slot.changed() {
        return Ok(());
    }
    if slot.before.is_none() && slot.current().is_some() {
        changes.raise_need(Need::Progress);
    }
    changes.record(&keys::queue(entry), slot.current(), slot.overflow)?;
    let before = slot.before.as_ref();
    for index in [due_key, done_key] {
        changes.index(
            before.and_then(|record| index(entry, record)),
            slot.current().and_then(|record| index(entry, record)),
        );
    }
    let body = |record: Option<&QueueRecord>| record.map(|record| record.body);
    users::count(body(before), body(slot.current()), users);
    Ok(())
}

/// The entry a record has in the index of waiting messages.
pub(super) fn waiting_key(entry: &EntryId, record: &OutboxRecord) -> Option<Vec<u8>> {
    matches!(record.state, OutboxState::Waiting { .. }).then(|| keys::waiting(entry))
}

/// The entry a record has in the due index.
pub(super) fn due_key(entry: &EntryId, record: &QueueRecord) -> Option<Vec<u8>> {
    let time = record.scheduled()?;
    Some(keys::due(AccountKey::of(&record.transport), record.priority, time, entry))
}

/// The entry a record has in the index of those that are done.
pub(super) fn done_key(entry: &EntryId, record: &QueueRecord) -> Option<Vec<u8>> {
    (record.state == QueueState::Done).then(|| keys::done(AccountKey::of(&record.transport), entry))
}
