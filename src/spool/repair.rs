//! What happens when a row is met that cannot be read: every such row goes to quarantine, the
//! indexes are made to fit the rows again, and the messages are counted anew. This walks the whole
//! spool; it runs only when there is damage, or no counters. Users of bodies are left as they are:
//! what a record in quarantine named stays.

use sled::IVec;

use super::body_row::BodyRow;
use super::codec::{self, ReadError, RowChange, RowChanges, Rows};
use super::counts::{Counters, class};
use super::plan::{
    claimed_key, deferred_key, done_key, due_key, expiring_key, message_id_key, still_key,
    unsettled_key, waiting_key,
};
use super::store::{QuarantineRow, Store};
use super::{
    CursorRecord, FetchedRecord, HistoryRecord, OutboxRecord, QueueRecord, SpoolError, keys,
};
use crate::mapi::EntryId;

/// Tables of records, and of rows whose key says all.
pub(super) const RECORDS: [u8; 8] = [
    keys::OUTBOX,
    keys::QUEUE,
    keys::HISTORY,
    keys::BODY,
    keys::CURSOR,
    keys::DELIVERED,
    keys::FETCHED,
    keys::DOUBTFUL,
];

/// Tables that are indexes of others.
pub(super) const INDEXES: [u8; 10] = [
    keys::WAITING,
    keys::DEFERRED,
    keys::UNSETTLED,
    keys::DUE,
    keys::DONE,
    keys::CLAIMED,
    keys::STILL,
    keys::EXPIRING,
    keys::ENDED,
    keys::MESSAGE_ID,
];

/// Changes after which they are applied, so that memory stays bounded. Each part leaves the spool
/// in order, so a crash between them costs nothing.
const PART: usize = 500;

/// Changes on their way to the tree.
struct Mending<'a> {
    store: &'a Store,
    changes: RowChanges,
}

impl Mending<'_> {
    fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<IVec>) {
        self.changes.insert(key.into(), Some(value.into()));
    }

    fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.insert(key.into(), None);
    }

    fn apply_if_many(&mut self) -> Result<(), SpoolError> {
        if self.changes.len() < PART { Ok(()) } else { self.apply() }
    }

    /// Durable when it returns.
    fn apply(&mut self) -> Result<(), SpoolError> {
        self.store.commit(std::mem::take(&mut self.changes))?;
        self.store.fold_if_due()
    }
}

/// Sets aside what cannot be read, mends the indexes and returns the counters, which are stored.
/// Durable when it returns.
pub(super) fn repair(store: &Store) -> Result<Counters, SpoolError> {
    let mut mending = Mending { store, changes: RowChanges::default() };
    for table in RECORDS {
        set_aside(&mut mending, table)?;
    }
    mending.apply()?;
    for table in INDEXES {
        drop_strays(&mut mending, table)?;
    }
    let counters = count_and_index(&mut mending)?;
    mending.put(keys::COUNTS_KEY, codec::encode(&counters)?);
    mending.apply()?;
    tracing::warn!(quarantined = counters.quarantined, "the spool was repaired");
    Ok(counters)
}

/// Whether the row at `key` is there and makes no sense.
pub(super) fn is_unreadable(store: &Store, key: &[u8]) -> bool {
    let Ok(Some(head)) = store.value(key) else { return false };
    matches!(reason(store, key, head), Ok(Some(_)))
}

/// Why a row cannot be read; `None` when it can.
pub(super) fn reason(
    store: &impl Rows,
    key: &[u8],
    head: IVec,
) -> Result<Option<String>, SpoolError> {
    let found = match key.first().copied() {
        Some(keys::OUTBOX) => codec::load_from::<OutboxRecord>(store, key, head).map(drop),
        Some(keys::QUEUE) => codec::load_from::<QueueRecord>(store, key, head).map(drop),
        Some(keys::HISTORY) => codec::load_from::<HistoryRecord>(store, key, head).map(drop),
        Some(keys::BODY) => codec::load_from::<BodyRow>(store, key, head).map(drop),
        Some(keys::CURSOR) => codec::load_from::<CursorRecord>(store, key, head).map(drop),
        Some(keys::DELIVERED) => codec::load_from::<u32>(store, key, head).map(drop),
        Some(keys::FETCHED) => codec::load_from::<FetchedRecord>(store, key, head).map(drop),
        Some(keys::DOUBTFUL) if head.is_empty() => Ok(()),
        Some(keys::DOUBTFUL) => return Ok(Some("it has a value".to_owned())),
        _ => return Ok(None),
    };
    match found {
        Ok(()) => Ok(misshapen(key).map(str::to_owned)),
        Err(ReadError::Unreadable { reason, .. }) => Ok(Some(reason)),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

/// What is wrong with a key of one of [`RECORDS`].
fn misshapen(key: &[u8]) -> Option<&'static str> {
    let (fits, reason) = match key.first().copied() {
        Some(keys::OUTBOX | keys::QUEUE | keys::HISTORY) => {
            (keys::parse_entry(key).is_some(), "its key is no entry id")
        }
        Some(keys::BODY) => (keys::parse_body(key).is_some(), "its key is no digest"),
        Some(keys::CURSOR) => (keys::parse_account(key).is_some(), "its key is no mailbox"),
        Some(keys::DELIVERED) => {
            (keys::parse_delivered(key).is_some(), "its key is no digest of a mailbox")
        }
        Some(keys::FETCHED) => {
            (keys::parse_fetched(key).is_some(), "its key is no place in a mailbox")
        }
        Some(keys::DOUBTFUL) => {
            (keys::parse_doubtful(key).is_some(), "its key is no digest and place of a mailbox")
        }
        _ => return None,
    };
    (!fits).then_some(reason)
}

/// Moves the unreadable rows of a table to quarantine, with all their bytes.
fn set_aside(mending: &mut Mending<'_>, table: u8) -> Result<(), SpoolError> {
    let store = mending.store;
    for row in store.range(keys::table(table)) {
        let (key, head) = row?;
        let Some(reason) = reason(store, &key, head.clone())? else { continue };
        tracing::error!(key = keys::describe(&key), reason, "a record goes to quarantine");
        for (key, value) in quarantine_rows(store, &key, &head, reason)? {
            match value {
                Some(value) => mending.put(key, value),
                None => mending.remove(key),
            }
        }
        mending.apply_if_many()?;
    }
    Ok(())
}

/// What changes when the row at `key` with this head goes to quarantine, with all its bytes.
pub(super) fn quarantine_rows(
    rows: &impl Rows,
    key: &[u8],
    head: &IVec,
    reason: String,
) -> Result<Vec<RowChange>, SpoolError> {
    let mut changes = vec![(key.to_vec(), None)];
    let mut bytes = head.to_vec();
    for number in 0..codec::overflow_rows(head) {
        let part = keys::overflow(key, number);
        if let Some(value) = rows.value(&part)? {
            bytes.extend_from_slice(&value);
            changes.push((part, None));
        }
    }
    changes.extend(quarantine_row(rows, key, bytes, reason)?);
    Ok(changes)
}

/// The rows that hold these bytes of `key` in quarantine.
pub(super) fn quarantine_row(
    rows: &impl Rows,
    key: &[u8],
    bytes: Vec<u8>,
    reason: String,
) -> Result<impl Iterator<Item = RowChange>, SpoolError> {
    let row = codec::encode(&QuarantineRow { reason, bytes })?;
    let mut aside = keys::quarantine(key);
    while rows.value(&aside)?.is_some() {
        aside = keys::quarantine(&aside);
    }
    Ok(codec::split(&aside, row).into_iter().map(|(key, value)| (key, Some(value))))
}

/// Removes entries of an index to which no row leads.
fn drop_strays(mending: &mut Mending<'_>, table: u8) -> Result<(), SpoolError> {
    let store = mending.store;
    for row in store.range(keys::table(table)) {
        let (key, _) = row?;
        if indexed(store, table, &key)?.as_deref() != Some(&*key) {
            mending.remove(key.to_vec());
            mending.apply_if_many()?;
        }
    }
    mending.apply()
}

/// The entry of an index that the row has to which the entry at `key` points.
pub(super) fn indexed(
    rows: &impl Rows,
    table: u8,
    key: &[u8],
) -> Result<Option<Vec<u8>>, SpoolError> {
    let Some(entry) = indexed_entry(table, key) else { return Ok(None) };
    let outbox = || readable::<OutboxRecord>(rows, &keys::outbox(&entry));
    let queue = || readable::<QueueRecord>(rows, &keys::queue(&entry));
    Ok(match table {
        keys::WAITING => outbox()?.and_then(|record| waiting_key(&entry, &record)),
        keys::DEFERRED => outbox()?.and_then(|record| deferred_key(&entry, &record)),
        keys::UNSETTLED => unsettled_key(&entry, outbox()?.as_ref(), queue()?.as_ref()),
        keys::DUE => queue()?.and_then(|record| due_key(&entry, &record)),
        keys::DONE => queue()?.and_then(|record| done_key(&entry, &record)),
        keys::CLAIMED => queue()?.and_then(|record| claimed_key(&entry, &record)),
        keys::STILL => queue()?.and_then(|record| still_key(&entry, &record)),
        keys::EXPIRING => queue()?.and_then(|record| expiring_key(&entry, &record)),
        keys::MESSAGE_ID => {
            let history: Option<HistoryRecord> = readable(rows, &keys::history(&entry))?;
            let ids = queue()?.map(|record| record.message_id).into_iter();
            ids.chain(history.map(|record| record.message_id))
                .filter_map(|id| message_id_key(&entry, &id))
                .find(|indexed| indexed == key)
        }
        _ => readable(rows, &keys::history(&entry))?
            .map(|record: HistoryRecord| keys::ended(record.ended, &entry)),
    })
}

/// The message that the entry of an index at `key` is about.
pub(super) fn indexed_entry(table: u8, key: &[u8]) -> Option<EntryId> {
    match table {
        keys::WAITING | keys::DEFERRED | keys::UNSETTLED => keys::parse_entry(key),
        keys::DUE => keys::parse_due(key).map(|(_, entry)| entry),
        keys::DONE | keys::CLAIMED | keys::STILL => keys::parse_of_account(key),
        keys::EXPIRING => keys::parse_expiring(key).map(|(_, entry)| entry),
        keys::MESSAGE_ID => keys::parse_message_id(key),
        _ => keys::parse_ended(key).map(|(_, entry)| entry),
    }
}

/// The entries of the indexes that this history has to have.
pub(super) fn history_keys(
    entry: &EntryId,
    record: &HistoryRecord,
) -> impl Iterator<Item = Vec<u8>> {
    let ended = keys::ended(record.ended, entry);
    [Some(ended), message_id_key(entry, &record.message_id)].into_iter().flatten()
}

/// The entries of the indexes that a message with these rows has to have.
pub(super) fn index_keys(
    entry: &EntryId,
    outbox: Option<&OutboxRecord>,
    queue: Option<&QueueRecord>,
) -> impl Iterator<Item = Vec<u8>> {
    [
        outbox.and_then(|record| waiting_key(entry, record)),
        outbox.and_then(|record| deferred_key(entry, record)),
        unsettled_key(entry, outbox, queue),
        queue.and_then(|record| due_key(entry, record)),
        queue.and_then(|record| done_key(entry, record)),
        queue.and_then(|record| message_id_key(entry, &record.message_id)),
        queue.and_then(|record| claimed_key(entry, record)),
        queue.and_then(|record| still_key(entry, record)),
        queue.and_then(|record| expiring_key(entry, record)),
    ]
    .into_iter()
    .flatten()
}

/// A record, if it is there and can be read.
pub(super) fn readable<T: serde::de::DeserializeOwned>(
    rows: &impl Rows,
    key: &[u8],
) -> Result<Option<T>, SpoolError> {
    match codec::load(rows, key) {
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
        let outbox = readable(store, &keys::outbox(entry))?;
        ensure(mending, index_keys(entry, outbox.as_ref(), Some(&record)))
    })?;
    for_each::<OutboxRecord>(store, keys::OUTBOX, |entry, record| {
        if store.value(&keys::queue(entry))?.is_none() {
            counters.change(None, class(Some(&record), None));
            return ensure(mending, index_keys(entry, Some(&record), None));
        }
        Ok(())
    })?;
    for_each::<HistoryRecord>(store, keys::HISTORY, |entry, record| {
        ensure(mending, history_keys(entry, &record))
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
    entries: impl IntoIterator<Item = Vec<u8>>,
) -> Result<(), SpoolError> {
    for key in entries {
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
