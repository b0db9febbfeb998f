//! What an open does about what an earlier process left unfinished. The work is in proportion to
//! what was in flight, never to what is stored.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::bodies::BodyFolder;
use super::body_row::{BodyPlace, parse_file_name};
use super::codec::{self, ReadError, RowChanges, Rows};
use super::counts::Counters;
use super::repair::repair;
use super::store::Store;
use super::{BodyId, SpoolError, keys};

/// Removes body files that no row names.
pub(super) fn recover(store: &Store, folder: &BodyFolder) -> Result<(), SpoolError> {
    for name in folder.staged()? {
        let removed = match parse_file_name(&name) {
            Some((body, number)) if !is_wanted(store, body, number)? => {
                folder.unlink(body, number).and_then(|_| folder.unstage(&name))
            }
            _ => folder.unstage(&name),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "something in staging/ cannot be removed");
        }
    }
    finish_removals(store, folder)
}

/// Whether a body file may be needed: a row names it, or a row that cannot be read might.
fn is_wanted(store: &Store, body: BodyId, number: u64) -> Result<bool, SpoolError> {
    match store.body(body) {
        Ok(Some(row)) => Ok(row.place == BodyPlace::File { number }),
        Ok(None) => Ok(store.value(&keys::quarantine(&keys::body(body)))?.is_some()
            || store.has_quarantined_journals()?),
        Err(ReadError::Unreadable { .. }) => Ok(true),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

/// Unlinks the files that tombstones name.
fn finish_removals(store: &Store, folder: &BodyFolder) -> Result<(), SpoolError> {
    let mut changes = RowChanges::default();
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    for row in store.range(keys::table(keys::GONE)) {
        let (key, _) = row?;
        let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
        if let Some((body, number)) = name.and_then(parse_file_name) {
            folders.insert(folder.unlink(body, number)?);
        }
        changes.insert(key.to_vec(), None);
    }
    if changes.is_empty() {
        return Ok(());
    }
    for touched in folders.iter().filter(|touched| touched.exists()) {
        folder.sync(touched)?;
    }
    store.commit(changes)
}

/// The counters as stored; they are counted anew when they are missing or damaged.
pub(super) fn counters(store: &Store) -> Result<Counters, SpoolError> {
    match codec::load(store, keys::COUNTS_KEY) {
        Ok(Some(counters)) => Ok(counters),
        Ok(None) if is_empty(store)? => Ok(Counters::default()),
        Ok(None) | Err(ReadError::Unreadable { .. }) => repair(store),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

fn is_empty(store: &Store) -> Result<bool, SpoolError> {
    for table in [keys::OUTBOX, keys::QUEUE, keys::QUARANTINE] {
        if store.range(keys::table(table)).next().transpose()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
