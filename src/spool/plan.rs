//! From a batch and the rows it meets to the rows that change: records, indexes, users of bodies
//! and counters together. Pure but for reading rows; nothing here writes.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use sled::IVec;

use super::batch::{Batch, Op};
use super::bodies::StagedFile;
use super::codec::{self, ReadError, Rows};
use super::counts::{Counters, class};
use super::plan_slot::{Now, Slot};
use super::space::Need;
use super::users::{self, Users};
use super::{
    AccountKey, BodyId, Expiry, HistoryRecord, OutboxRecord, OutboxState, QueueRecord, QueueState,
    SpoolError, Step, keys,
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

/// The two rows of a message.
struct Message {
    outbox: Slot<OutboxRecord>,
    queue: Slot<QueueRecord>,
    /// Whether the Outbox row was read; if not, what follows from both rows stays as it is.
    whole: bool,
}

/// What a batch does with a message.
#[derive(Default)]
struct Wanted<'a> {
    /// The Outbox row changes, or takes over the count of the message.
    outbox: bool,
    /// Queue rows that are put.
    queue: Vec<&'a QueueRecord>,
}

impl Wanted<'_> {
    /// Whether the Outbox row has to be read beside the queue row `before`: an outcome or a claim
    /// that is written over another leaves the two as they fit together.
    fn needs_outbox(&self, before: Option<&QueueRecord>) -> bool {
        let Some(before) = before else { return true };
        let parked = |record: &QueueRecord| record.state == QueueState::Parked;
        self.outbox
            || self
                .queue
                .iter()
                .any(|after| after.transport != before.transport || parked(after) != parked(before))
    }
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
        let mut wanted: HashMap<&EntryId, Wanted<'_>> = HashMap::new();
        for op in &batch.ops {
            match op {
                Op::PutOutbox { entry, .. } | Op::DeleteOutbox { entry, .. } => {
                    wanted.entry(entry).or_default().outbox = true;
                }
                Op::DeleteQueue { entry, .. } | Op::AddStep { entry, .. } => {
                    wanted.entry(entry).or_default().outbox = true;
                    touched.load_history(entry, rows)?;
                }
                Op::PutQueue { entry, record, .. } => {
                    wanted.entry(entry).or_default().queue.push(record);
                }
                Op::PutHistory { entry, .. } | Op::DeleteHistory { entry } => {
                    wanted.entry(entry).or_default();
                    touched.load_history(entry, rows)?;
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
        for (entry, wanted) in wanted {
            let queue: Slot<QueueRecord> = Slot::load(rows, &keys::queue(entry))?;
            let whole = wanted.needs_outbox(queue.before.as_ref());
            let outbox = match whole {
                true => Slot::load(rows, &keys::outbox(entry))?,
                false => Slot::unloaded(),
            };
            if outbox.before.as_ref().is_some_and(has_notes) {
                touched.load_history(entry, rows)?;
            }
            touched.messages.insert(entry.clone(), Message { outbox, queue, whole });
        }
        Ok(touched)
    }

    fn load_history(&mut self, entry: &EntryId, rows: &impl Rows) -> Result<(), ReadError> {
        if !self.histories.contains_key(entry) {
            let slot = Slot::load(rows, &keys::history(entry))?;
            self.histories.insert(entry.clone(), slot);
        }
        Ok(())
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
        self.keep_notes();
        let mut users = Users::new();
        for (entry, message) in &self.messages {
            let message_ids = |queue: Option<&QueueRecord>, history: Option<&HistoryRecord>| {
                let queue = queue.and_then(|record| message_id_key(entry, &record.message_id));
                let history = history.and_then(|record| message_id_key(entry, &record.message_id));
                queue.into_iter().chain(history).collect::<BTreeSet<_>>()
            };
            let history = self.histories.get(entry);
            let before = history.and_then(|slot| slot.before.as_ref());
            let before = message_ids(message.queue.before.as_ref(), before);
            let after = history.and_then(Slot::current);
            let after = message_ids(message.queue.current(), after);
            before.difference(&after).for_each(|key| changes.remove(key.clone()));
            after.difference(&before).for_each(|key| changes.put(key.clone(), IVec::default()));
            outbox_changes(entry, &message.outbox, &mut changes, &mut users)?;
            queue_changes(entry, &message.queue, &mut changes, &mut users)?;
            if message.whole {
                let Message { outbox, queue, .. } = message;
                changes.index(
                    unsettled_key(entry, outbox.before.as_ref(), queue.before.as_ref()),
                    unsettled_key(entry, outbox.current(), queue.current()),
                );
            }
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

    /// What was noted in Outbox rows that go is taken over by the history.
    fn keep_notes(&mut self) {
        for (entry, message) in &self.messages {
            let Slot { before: Some(outbox), now: Now::Gone, .. } = &message.outbox else {
                continue;
            };
            let history = self.histories.get_mut(entry).filter(|_| has_notes(outbox));
            if let Some(history) = history {
                history.change(|record| record.trace.merge(outbox.noted()));
            }
        }
    }

    /// Adds a step to the history, else to the Outbox row.
    fn add_step(&mut self, entry: &EntryId, step: Step) {
        if let Some(history) = self.histories.get_mut(entry)
            && history.current().is_some()
        {
            history.change(|record| record.trace.push(step));
        } else if let Some(Message { outbox, .. }) = self.messages.get_mut(entry)
            && let Some(mut record) = outbox.current().cloned()
        {
            record.trace.push(step);
            outbox.put(record);
        }
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
            Op::PutHistory { entry, mut record } => {
                self.histories.entry(entry).and_modify(|slot| {
                    if let Some(earlier) = slot.current() {
                        record.trace.merge(earlier.trace.clone());
                    }
                    slot.now = Now::Put(*record);
                });
            }
            Op::AddStep { entry, step } => self.add_step(&entry, *step),
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
    for index in [waiting_key, deferred_key] {
        changes.index(
            slot.before.as_ref().and_then(|record| index(entry, record)),
            slot.current().and_then(|record| index(entry, record)),
        );
    }
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
    for index in [due_key, done_key, claimed_key, still_key, expiring_key] {
        changes.index(
            before.and_then(|record| index(entry, record)),
            slot.current().and_then(|record| index(entry, record)),
        );
    }
    let body = |record: Option<&QueueRecord>| record.map(|record| record.body);
    users::count(body(before), body(slot.current()), users);
    Ok(())
}

fn has_notes(record: &OutboxRecord) -> bool {
    !record.trace.is_empty() || !record.reports.is_empty()
}

/// The entry a record has in the index of Message-IDs.
pub(super) fn message_id_key(entry: &EntryId, message_id: &str) -> Option<Vec<u8>> {
    (!message_id.is_empty()).then(|| keys::message_id(message_id, entry))
}

/// The entry a record has in the index of waiting messages.
pub(super) fn waiting_key(entry: &EntryId, record: &OutboxRecord) -> Option<Vec<u8>> {
    matches!(record.state, OutboxState::Waiting { .. }).then(|| keys::waiting(entry))
}

/// The entry a record has in the index of messages that are with a transport.
pub(super) fn deferred_key(entry: &EntryId, record: &OutboxRecord) -> Option<Vec<u8>> {
    matches!(record.state, OutboxState::Deferred { .. }).then(|| keys::deferred(entry))
}

/// The entry a message has in the index of those whose two rows do not fit together: one that is
/// queued and not in the Outbox, and one that is with a transport which does not have it, or has
/// parked it. Messages pass through this on their way; what stands there at an open was caught by
/// a crash, or by a change of the profile.
pub(super) fn unsettled_key(
    entry: &EntryId,
    outbox: Option<&OutboxRecord>,
    queue: Option<&QueueRecord>,
) -> Option<Vec<u8>> {
    let unsettled = match (outbox.map(|outbox| &outbox.state), queue) {
        (None, queue) => queue.is_some(),
        (Some(OutboxState::Deferred { transport }), Some(queue)) => {
            queue.state == QueueState::Parked || queue.transport != *transport
        }
        (Some(OutboxState::Deferred { .. }), None) => true,
        (Some(OutboxState::Waiting { .. } | OutboxState::Held), _) => false,
    };
    unsettled.then(|| keys::unsettled(entry))
}

/// The entry a record has in the index of those that are neither scheduled nor done.
pub(super) fn still_key(entry: &EntryId, record: &QueueRecord) -> Option<Vec<u8>> {
    let still = record.scheduled().is_none() && record.state != QueueState::Done;
    still.then(|| keys::still(AccountKey::of(&record.transport), entry))
}

/// The entry a record has in the index of those that expire by themselves.
pub(super) fn expiring_key(entry: &EntryId, record: &QueueRecord) -> Option<Vec<u8>> {
    let expires = record.expiry == Expiry::Own && record.state != QueueState::Done;
    expires.then(|| keys::expiring(AccountKey::of(&record.transport), record.expires, entry))
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

/// The entry a record has in the index of those that are claimed.
pub(super) fn claimed_key(entry: &EntryId, record: &QueueRecord) -> Option<Vec<u8>> {
    matches!(record.state, QueueState::Claimed(_))
        .then(|| keys::claimed(AccountKey::of(&record.transport), entry))
}
