//! How the tree comes to have what the journal has: a full layer rests while its rows are put into
//! the tree, in order of their keys and each in its last state, then its journal file goes.
//!
//! A crash in between costs nothing: the next open reads the journal files the tree does not have
//! whole, in order, and folds them again. The tree notes up to which number it has them, behind
//! their rows, so that a file that comes back after a power loss is not read a second time.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::{FaultPoint, Store, failed};
use crate::spool::codec::RowChanges;
use crate::spool::journal::Journal;
use crate::spool::repair::quarantine_row;
use crate::spool::{SpoolError, keys};

/// Rows that a layer may remove from the tree before it is folded: a walk comes by each of them.
const MOST_REMOVED: usize = 2_000;

/// A journal file is ended when it has so many times the octets of a full layer: most of its rows
/// have come and gone.
const FILE_PER_LAYER: u64 = 2;

/// Octets put into the tree after which it is synced: sled writes over what it has moved elsewhere,
/// and that must not wait for its sync for long.
const SYNC_EVERY: u64 = 512 * 1024;

/// A layer that is so many times full waits for the fold of the one below.
const OVERFULL: u64 = 2;

/// Octets of one damaged place that are set aside at most: what a record may hold.
const MOST_SET_ASIDE: usize = 8 * 1024 * 1024;

/// How full the layer that grows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::spool) enum Fill {
    Room,
    /// To be folded when the one below is done.
    Full,
    /// To be folded before anything else is committed.
    Overfull,
}

impl Store {
    /// How full the layer that grows is.
    pub(in crate::spool) fn fill(&self) -> Fill {
        let (octets, removed) = {
            let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
            (layers.growing().octets(), layers.growing().removed())
        };
        let written = self.journal.lock().unwrap_or_else(PoisonError::into_inner).octets();
        let times = |octets: u64, full: u64| octets / full.max(1);
        let fullness = times(octets, self.fold_at)
            .max(times(written, self.fold_at.saturating_mul(FILE_PER_LAYER)))
            .max(u64::try_from(removed / MOST_REMOVED).unwrap_or(u64::MAX));
        match fullness {
            0 => Fill::Room,
            1..OVERFULL => Fill::Full,
            _ => Fill::Overfull,
        }
    }

    /// Whether a layer is being taken over.
    pub(in crate::spool) fn is_folding(&self) -> bool {
        self.layers.read().unwrap_or_else(PoisonError::into_inner).resting().is_some()
    }

    /// Ends the layer that grows, to be folded by [`Store::fold`]. Whether there is one to be
    /// folded now. For the writer's thread alone; waits for a fold that goes on.
    pub(in crate::spool) fn rest(&self) -> bool {
        let mut folding = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        if self.usable().is_err() {
            return false;
        }
        if folding.is_some() {
            return true;
        }
        *folding = self.journal.lock().unwrap_or_else(PoisonError::into_inner).roll();
        if folding.is_some() {
            self.layers.write().unwrap_or_else(PoisonError::into_inner).rest();
        }
        folding.is_some()
    }

    /// Has the tree take over the layer that rests, if there is one. After an error nothing is
    /// folded or committed any more: a sync that failed is never tried again.
    pub(in crate::spool) fn fold(&self) -> Result<(), SpoolError> {
        let mut folding = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(number) = *folding else { return Ok(()) };
        self.heed(self.fold_file(number))?;
        *folding = None;
        if let Err(error) = self.journals.remove(number) {
            tracing::warn!(%error, "a journal file that is not needed any more stays");
        }
        Ok(())
    }

    fn fold_file(&self, number: u64) -> Result<(), SpoolError> {
        self.usable()?;
        let resting = self.layers.read().unwrap_or_else(PoisonError::into_inner).resting().cloned();
        self.fault(FaultPoint::Fold)?;
        self.disk.fold_begins();
        let mut unsynced = 0;
        let mut last: BTreeMap<u8, &[u8]> = BTreeMap::new();
        for (key, value) in resting.iter().flat_map(|layer| layer.rows()) {
            match value {
                Some(value) => {
                    last.extend(key.first().map(|table| (*table, key)));
                    unsynced += u64::try_from(key.len() + value.len()).unwrap_or(0);
                    self.put(key, value)?;
                }
                None => drop(self.tree.remove(key).map_err(|error| failed("write", error))?),
            }
            if unsynced >= SYNC_EVERY {
                unsynced = 0;
                self.sync_tree()?;
            }
        }
        // The number must not be there before the rows are, or the journal would go unread.
        self.sync_tree()?;
        self.put(keys::FOLDED_KEY, &number.to_be_bytes())?;
        self.sync_tree()?;
        self.disk.folded();
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        last.into_values().for_each(|key| layers.note(key));
        layers.note(keys::FOLDED_KEY);
        layers.folded();
        Ok(())
    }

    /// Puts a row into the tree. One by one: what the layer covers nobody reads there, so they need
    /// no batch, and a batch of sled's makes it write a buffer for each few rows.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), SpoolError> {
        self.tree.insert(key, value).map(drop).map_err(|error| failed("write", error))
    }

    /// Folds in this thread when the layer is full.
    pub(in crate::spool) fn fold_if_due(&self) -> Result<(), SpoolError> {
        if self.fill() == Fill::Room { Ok(()) } else { self.fold_all() }
    }

    /// Folds everything, in this thread: the tree has all there is, and there is no journal.
    pub(in crate::spool) fn fold_all(&self) -> Result<(), SpoolError> {
        self.fold()?;
        self.rest();
        self.fold()
    }

    /// Has the tree take over what the journals of earlier processes hold.
    pub(in crate::spool) fn replay(&self) -> Result<(), SpoolError> {
        let folded = self.tree.get(keys::FOLDED_KEY).map_err(|error| failed("read", error))?;
        let folded =
            folded.and_then(|number| Some(u64::from_be_bytes(number.as_ref().try_into().ok()?)));
        let folded = folded.unwrap_or(0);
        let numbers = self.journals.numbers()?;
        let last = numbers.last().copied().unwrap_or(0).max(folded);
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) =
            Journal::new(self.journals.clone(), last.saturating_add(1));
        let (known, new): (Vec<u64>, Vec<u64>) =
            numbers.into_iter().partition(|number| *number <= folded);
        let mut damaged = false;
        let mut before = folded;
        for number in new.iter().copied() {
            if number != before.saturating_add(1) {
                // A file that is behind another was answered for, whole.
                damaged = true;
                self.set_aside(before.saturating_add(1), 0, &[], "it is missing")?;
            }
            damaged |= self.read_journal(number, number == last)?;
            before = number;
        }
        if damaged {
            // Without its counters a spool is repaired.
            self.take_up(RowChanges::from([(keys::COUNTS_KEY.to_vec(), None)]))?;
        }
        if !new.is_empty() {
            *self.folding.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
            self.layers.write().unwrap_or_else(PoisonError::into_inner).rest();
            self.fold()?;
        }
        // The last one went with the fold.
        for number in known.into_iter().chain(new.into_iter().filter(|number| *number != last)) {
            if let Err(error) = self.journals.remove(number) {
                tracing::warn!(%error, "a journal file that is not needed any more stays");
            }
        }
        Ok(())
    }

    /// Takes up the rows of a journal file; whether there was damage, which goes to quarantine.
    /// What is torn at the end of the last file was promised to nobody; in any other it is damage.
    fn read_journal(&self, number: u64, is_last: bool) -> Result<bool, SpoolError> {
        let (contents, bytes) = self.journals.read(number)?;
        let (count, torn) = (contents.rows.len(), contents.torn);
        let mut damage = contents.damage;
        if torn > 0 && !is_last {
            damage.push(bytes.len().saturating_sub(torn)..bytes.len());
        }
        self.take_up(contents.rows.into_iter().collect())?;
        for place in &damage {
            let lost = bytes.get(place.clone()).unwrap_or_default();
            self.set_aside(number, place.start, lost, "it is damaged")?;
        }
        tracing::info!(journal = number, rows = count, torn, "read what was committed last");
        Ok(!damage.is_empty())
    }

    /// Puts what a journal file should have held into quarantine.
    fn set_aside(&self, number: u64, at: usize, lost: &[u8], why: &str) -> Result<(), SpoolError> {
        let kept = lost.get(..MOST_SET_ASIDE).unwrap_or(lost);
        let reason = format!(
            "journal {number:016x} from octet {at}: {why}; {} octets, of which {} are kept",
            lost.len(),
            kept.len()
        );
        tracing::error!(reason, "a journal file is not what it was");
        let key = keys::journal(number, at);
        let rows = quarantine_row(self, &key, kept.to_vec(), reason)?;
        self.take_up(rows.collect())
    }
}
