//! From a batch and the rows it meets to the rows that change: records, indexes, users of bodies
//! and counters together. Pure but for reading rows; nothing here writes.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::IVec;

use super::batch::{Batch, Expect, Op, StagedBody, StagedPlace};
use super::bodies::StagedFile;
use super::body_row::{BodyPlace, BodyRow, file_name};
use super::codec::{self, ReadError, Rows};
use super::counts::{Counters, class};
use super::space::Need;
use super::{
    AccountKey, BodyId, HistoryRecord, OutboxRecord, OutboxState, QueueRecord, QueueState,
    SpoolError, keys,
};
use crate::mapi::EntryId;

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
    fn put(&mut self, key: Vec<u8>, value: impl Into<IVec>) {
        self.rows.push((key, Some(value.into())));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.rows.push((key, None));
    }

    fn raise_need(&mut self, need: Need) {
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
    fn record<T: Serialize>(
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
                Op::AddDelivered { account, mailbox, digest } => {
                    let key = keys::delivered(*account, mailbox, digest);
                    let count = codec::load(rows, &key)?.unwrap_or(0);
                    touched.delivered.insert(key, count);
                }
                Op::PutCursor { .. } => {}
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

    /// The changes of the batch these rows were read for. `slots` gives out numbers for inline
    /// bodies.
    ///
    /// # Errors
    /// [`SpoolError::Conflict`] when an expectation is not met, [`SpoolError::Corrupt`] when a
    /// record names a body that is not there, [`ReadError::Unreadable`] when the row of a body is
    /// damaged. Then `counters` are of no use any more.
    pub(super) fn plan(
        mut self,
        batch: Batch,
        rows: &impl Rows,
        counters: &mut Counters,
        slots: &mut u64,
    ) -> Result<Changes, ReadError> {
        let mut changes = Changes::default();
        for op in batch.ops {
            self.apply(op, &mut changes)?;
        }
        let mut users: BTreeMap<BodyId, i64> = BTreeMap::new();
        for (entry, message) in &self.messages {
            outbox_changes(entry, &message.outbox, &mut changes, &mut users)?;
            queue_changes(entry, &message.queue, &mut changes, &mut users)?;
            counters.change(
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
            changes.record(key, Some(count), 0)?;
        }
        settle_bodies(users, batch.bodies, rows, &mut changes, slots)?;
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
        }
        Ok(())
    }
}

fn outbox_changes(
    entry: &EntryId,
    slot: &Slot<OutboxRecord>,
    changes: &mut Changes,
    users: &mut BTreeMap<BodyId, i64>,
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
    count_users(bodies(slot.before.as_ref()), bodies(slot.current()), users);
    Ok(())
}

fn queue_changes(
    entry: &EntryId,
    slot: &Slot<QueueRecord>,
    changes: &mut Changes,
    users: &mut BTreeMap<BodyId, i64>,
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
    count_users(body(before), body(slot.current()), users);
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

fn count_users(
    before: impl IntoIterator<Item = BodyId>,
    after: impl IntoIterator<Item = BodyId>,
    users: &mut BTreeMap<BodyId, i64>,
) {
    before.into_iter().for_each(|body| *users.entry(body).or_default() -= 1);
    after.into_iter().for_each(|body| *users.entry(body).or_default() += 1);
}

fn settle_bodies(
    users: BTreeMap<BodyId, i64>,
    staged: Vec<StagedBody>,
    rows: &impl Rows,
    changes: &mut Changes,
    slots: &mut u64,
) -> Result<(), ReadError> {
    // What is staged and not needed is removed when the map is dropped.
    let mut staged: HashMap<BodyId, StagedBody> =
        staged.into_iter().map(|body| (body.id(), body)).collect();
    for (body, delta) in users.into_iter().filter(|(_, delta)| *delta != 0) {
        let key = keys::body(body);
        match codec::load::<BodyRow>(rows, &key) {
            Ok(Some(row)) => change_body(body, row, delta, changes)?,
            Ok(None) if delta > 0 => {
                let staged = staged.remove(&body).ok_or_else(|| missing(body))?;
                adopt_body(staged, delta, rows, changes, slots)?;
            }
            // Already in quarantine: what goes now was not counted by any row.
            Ok(None) => {}
            // A message may leave although the row of its body is damaged.
            Err(ReadError::Unreadable { .. }) if delta < 0 => changes.damage = true,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn missing(body: BodyId) -> SpoolError {
    SpoolError::Corrupt(format!("body {body} is not there"))
}

fn change_body(
    body: BodyId,
    row: BodyRow,
    delta: i64,
    changes: &mut Changes,
) -> Result<(), SpoolError> {
    let key = keys::body(body);
    let after = row.with_users(delta);
    if after.is_none() {
        match row.place {
            BodyPlace::Inline { slot } => changes.remove(keys::inline(slot)),
            BodyPlace::File { number } => {
                changes.put(keys::gone(&file_name(body, number)), IVec::default());
                changes.gone.push((body, number));
            }
        }
    }
    changes.record(&key, after.as_ref(), 0)
}

fn adopt_body(
    staged: StagedBody,
    users: i64,
    rows: &impl Rows,
    changes: &mut Changes,
    slots: &mut u64,
) -> Result<(), SpoolError> {
    let (body, size) = (staged.id(), staged.size());
    let place = match staged.place {
        StagedPlace::Inline(bytes) => {
            let slot = *slots;
            *slots = slot.saturating_add(1);
            changes.put(keys::inline(slot), bytes);
            BodyPlace::Inline { slot }
        }
        StagedPlace::File(file) => {
            let number = file.number;
            changes.adopted.push(file);
            BodyPlace::File { number }
        }
    };
    changes.raise_need(Need::Progress);
    let key = keys::body(body);
    let users = if rows.value(&keys::quarantine(&key))?.is_some() {
        BodyRow::PINNED
    } else {
        u32::try_from(users).unwrap_or(BodyRow::PINNED)
    };
    changes.record(&key, Some(&BodyRow { users, size, place }), 0)
}
