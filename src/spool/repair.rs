//! What happens when a row is met that cannot be read: every such row goes to quarantine, the
//! indexes are made to fit the rows again, and the messages are counted anew. This walks the whole
//! spool; it runs only when there is damage, or no counters. Users of bodies are left as they are:
//! what a record in quarantine named stays.

use sled::IVec;

use super::body_row::BodyRow;
use super::codec::{self, ReadError, Rows};
use super::counts::{Counters, class};
use super::plan::{done_key, due_key, waiting_key};
use super::store::{QuarantineRow, Store};
use super::{
    CursorRecord, FetchedRecord, HistoryRecord, OutboxRecord, QueueRecord, SpoolError, keys,
};
use crate::mapi::EntryId;

/// Tables whose values are records.
const RECORDS: [u8; 7] = [
    keys::OUTBOX,
    keys::QUEUE,
    keys::HISTORY,
    keys::BODY,
    keys::CURSOR,
    keys::DELIVERED,
    keys::FETCHED,
];

/// Changes after which they are applied, so that memory stays bounded. Each part leaves the spool
/// in order, so a crash between them costs nothing.
const PART: usize = 500;

/// Changes on their way to the tree.
struct Mending<'a> {
    store: &'a Store,
    batch: sled::Batch,
    pending: usize,
}

impl Mending<'_> {
    fn put(&mut self, key: impl Into<IVec>, value: impl Into<IVec>) {
        self.batch.insert(key, value);
        self.pending += 1;
    }

    fn remove(&mut self, key: impl Into<IVec>) {
        self.batch.remove(key);
        self.pending += 1;
    }

    fn apply_if_many(&mut self) -> Result<(), SpoolError> {
        if self.pending < PART { Ok(()) } else { self.apply() }
    }

    fn apply(&mut self) -> Result<(), SpoolError> {
        self.pending = 0;
        self.store.apply(std::mem::take(&mut self.batch))
    }
}

/// Sets aside what cannot be read, mends the indexes and returns the counters, which are stored.
/// Durable when it returns.
pub(super) fn repair(store: &Store) -> Result<Counters, SpoolError> {
    let mut mending = Mending { store, batch: sled::Batch::default(), pending: 0 };
    for table in RECORDS {
        set_aside(&mut mending, table)?;
    }
    mending.apply()?;
    for table in [keys::WAITING, keys::DUE, keys::DONE, keys::ENDED] {
        drop_strays(&mut mending, table)?;
    }
    let counters = count_and_index(&mut mending)?;
    mending.put(keys::COUNTS_KEY, codec::encode(&counters)?);
    mending.apply()?;
    store.sync()?;
    tracing::warn!(quarantined = counters.quarantined, "the spool was repaired");
    Ok(counters)
}

/// Whether the row at `key` is there and makes no sense.
pub(super) fn is_unreadable(store: &Store, key: &[u8]) -> bool {
    let Ok(Some(head)) = store.value(key) else { return false };
    matches!(reason(store, key, head), Ok(Some(_)))
}

/// Why a row cannot be read; `None` when it can.
fn reason(store: &Store, key: &[u8], head: IVec) -> Result<Option<String>, SpoolError> {
    let found = match key.first().copied() {
        Some(keys::OUTBOX) => codec::load_from::<OutboxRecord>(store, key, head).map(drop),
        Some(keys::QUEUE) => codec::load_from::<QueueRecord>(store, key, head).map(drop),
        Some(keys::HISTORY) => codec::load_from::<HistoryRecord>(store, key, head).map(drop),
        Some(keys::BODY) => codec::load_from::<BodyRow>(store, key, head).map(drop),
        Some(keys::CURSOR) => codec::load_from::<CursorRecord>(store, key, head).map(drop),
        Some(keys::DELIVERED) => codec::load_from::<u32>(store, key, head).map(drop),
        Some(keys::FETCHED) => codec::load_from::<FetchedRecord>(store, key, head).map(drop),
        _ => return Ok(None),
    };
    match found {
        Ok(()) if keyed_by_entry(key) && keys::parse_entry(key).is_none() => {
            Ok(Some("its key is no entry id".to_owned()))
        }
        Ok(()) => Ok(None),
        Err(ReadError::Unreadable { reason, .. }) => Ok(Some(reason)),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

fn keyed_by_entry(key: &[u8]) -> bool {
    matches!(key.first().copied(), Some(keys::OUTBOX | keys::QUEUE | keys::HISTORY))
}

/// Moves the unreadable rows of a table to quarantine, with all their bytes.
fn set_aside(mending: &mut Mending<'_>, table: u8) -> Result<(), SpoolError> {
    let store = mending.store;
    for row in store.range(keys::table(table)) {
        let (key, head) = row?;
        let Some(reason) = reason(store, &key, head.clone())? else { continue };
        tracing::error!(key = keys::describe(&key), reason, "a record goes to quarantine");
        let mut bytes = head.to_vec();
        for number in 0..codec::overflow_rows(&head) {
            let part = keys::overflow(&key, number);
            if let Some(value) = store.value(&part)? {
                bytes.extend_from_slice(&value);
                mending.remove(part);
            }
        }
        mending.remove(&key);
        let row = codec::encode(&QuarantineRow { reason, bytes })?;
        let mut aside = keys::quarantine(&key);
        while store.value(&aside)?.is_some() {
            aside = keys::quarantine(&aside);
        }
        for (key, value) in codec::split(&aside, row) {
            mending.put(key, value);
        }
        mending.apply_if_many()?;
    }
    Ok(())
}

/// Removes entries of an index to which no row leads.
fn drop_strays(mending: &mut Mending<'_>, table: u8) -> Result<(), SpoolError> {
    let store = mending.store;
    for row in store.range(keys::table(table)) {
        let (key, _) = row?;
        if indexed(store, table, &key)?.as_deref() != Some(&*key) {
            mending.remove(&key);
            mending.apply_if_many()?;
        }
    }
    mending.apply()
}

/// The entry of an index that the row has to which the entry at `key` points.
fn indexed(store: &Store, table: u8, key: &[u8]) -> Result<Option<Vec<u8>>, SpoolError> {
    let entry = match table {
        keys::WAITING => keys::parse_entry(key),
        keys::DUE => keys::parse_due(key).map(|(_, entry)| entry),
        keys::DONE => keys::parse_done(key),
        _ => keys::parse_ended(key).map(|(_, entry)| entry),
    };
    let Some(entry) = entry else { return Ok(None) };
    Ok(match table {
        keys::WAITING => readable(store, &keys::outbox(&entry))?
            .and_then(|record: OutboxRecord| waiting_key(&entry, &record)),
        keys::DUE => readable(store, &keys::queue(&entry))?
            .and_then(|record: QueueRecord| due_key(&entry, &record)),
        keys::DONE => readable(store, &keys::queue(&entry))?
            .and_then(|record: QueueRecord| done_key(&entry, &record)),
        _ => readable(store, &keys::history(&entry))?
            .map(|record: HistoryRecord| keys::ended(record.ended, &entry)),
    })
}

/// A record, if it is there and can be read.
fn readable<T: serde::de::DeserializeOwned>(
    store: &Store,
    key: &[u8],
) -> Result<Option<T>, SpoolError> {
    match store.record(key) {
        Ok(record) => Ok(record),
        Err(ReadError::Unreadable { .. }) => Ok(None),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

/// Counts the messages and adds what their indexes lack.
fn count_and_index(mending: &mut Mending<'_>) -> Result<Counters, SpoolError> {
    let store = mending.store;
    let mut counters = Counters::default();
    for_each::<QueueRecord>(store, keys::QUEUE, |entry, record| {
        counters.change(None, class(None, Some(&record)));
        ensure(mending, [due_key(entry, &record), done_key(entry, &record)])
    })?;
    for_each::<OutboxRecord>(store, keys::OUTBOX, |entry, record| {
        if store.value(&keys::queue(entry))?.is_none() {
            counters.change(None, class(Some(&record), None));
        }
        ensure(mending, [waiting_key(entry, &record)])
    })?;
    for_each::<HistoryRecord>(store, keys::HISTORY, |entry, record| {
        ensure(mending, [Some(keys::ended(record.ended, entry))])
    })?;
    for row in store.range(keys::table(keys::QUARANTINE)) {
        row?;
        counters.quarantined += 1;
    }
    Ok(counters)
}

/// Adds the entries of an index that are not there.
fn ensure(
    mending: &mut Mending<'_>,
    entries: impl IntoIterator<Item = Option<Vec<u8>>>,
) -> Result<(), SpoolError> {
    for key in entries.into_iter().flatten() {
        if mending.store.value(&key)?.is_none() {
            mending.put(key, IVec::default());
        }
    }
    mending.apply_if_many()
}

fn for_each<T: serde::de::DeserializeOwned>(
    store: &Store,
    table: u8,
    mut work: impl FnMut(&EntryId, T) -> Result<(), SpoolError>,
) -> Result<(), SpoolError> {
    for row in store.range(keys::table(table)) {
        let (key, head) = row?;
        let Some(entry) = keys::parse_entry(&key) else { continue };
        match codec::load_from(store, &key, head) {
            Ok(record) => work(&entry, record)?,
            Err(ReadError::Unreadable { .. }) => {}
            Err(ReadError::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}
