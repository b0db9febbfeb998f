//! How the tree comes to have what the journal has: a full layer rests while its rows are put into
//! the tree, in order of their keys and each in its last state, then its journal file goes.
//!
//! A crash in between costs nothing: the next open reads the journal files the tree does not have
//! whole, in order, and folds them again. The tree notes up to which number it has them, behind
//! their rows, so that a file that comes back after a power loss is not read a second time.

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
const FILE_PER_LAYER: u64 = 4;

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
        if folding.is_some() {
            return true;
        }
        *folding = self.journal.lock().unwrap_or_else(PoisonError::into_inner).roll();
        if folding.is_some() {
            self.layers.write().unwrap_or_else(PoisonError::into_inner).rest();
        }
        folding.is_some()
    }

    /// Has the tree take over the layer that rests, if there is one. After an error nothing may be
    /// committed any more.
    pub(in crate::spool) fn fold(&self) -> Result<(), SpoolError> {
        let mut folding = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(number) = *folding else { return Ok(()) };
        let resting = self.layers.read().unwrap_or_else(PoisonError::into_inner).resting().cloned();
        self.fault(FaultPoint::Fold)?;
        self.disk.fold_begins();
        for (key, value) in resting.iter().flat_map(|layer| layer.rows()) {
            let done = match value {
                Some(value) => self.tree.insert(key, value),
                None => self.tree.remove(key),
            };
            done.map_err(|error| failed("write", error))?;
        }
        self.tree
            .insert(keys::FOLDED_KEY, &number.to_be_bytes())
            .map_err(|error| failed("write", error))?;
        self.sync_tree()?;
        self.disk.folded();
        {
            let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
            layers.folded();
            layers.note(keys::FOLDED_KEY);
        }
        *folding = None;
        if let Err(error) = self.journals.remove(number) {
            tracing::warn!(%error, "a journal file that is not needed any more stays");
        }
        Ok(())
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
            numbers.iter().partition(|number| **number <= folded);
        for number in &new {
            self.read_journal(*number)?;
        }
        if !new.is_empty() {
            *self.folding.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
            self.layers.write().unwrap_or_else(PoisonError::into_inner).rest();
            self.fold()?;
        }
        // The last one went with the fold.
        for number in known.iter().chain(&new).filter(|number| new.is_empty() || **number != last) {
            self.journals.remove(*number)?;
        }
        Ok(())
    }

    /// Takes up the rows of a journal file. What in it makes no sense goes to quarantine.
    fn read_journal(&self, number: u64) -> Result<(), SpoolError> {
        let (contents, bytes) = self.journals.read(number)?;
        let groups = contents.rows.len();
        let mut rows: RowChanges = contents.rows.into_iter().collect();
        for range in contents.damage {
            let reason = format!("octets {}..{} of journal {number:016x}", range.start, range.end);
            tracing::error!(reason, "a journal file is damaged");
            let key = keys::journal(number, range.start);
            let end = range.end.min(range.start.saturating_add(MOST_SET_ASIDE));
            let lost = bytes.get(range.start..end).unwrap_or_default();
            rows.extend(quarantine_row(self, &key, lost.to_vec(), reason)?);
            // Without its counters a spool is repaired.
            rows.insert(keys::COUNTS_KEY.to_vec(), None);
        }
        tracing::info!(
            journal = number,
            rows = groups,
            torn = contents.torn,
            "read what was committed last"
        );
        self.take_up(rows)
    }
}
