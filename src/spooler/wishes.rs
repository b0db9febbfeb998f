//! Messages that somebody wants to cancel while a transport may be at work on them (OB-15, OB-18).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mapi::EntryId;

/// The cancels that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// How many want each cancelled.
    wishes: Mutex<BTreeMap<EntryId, usize>>,
}

/// Somebody wants a message cancelled as long as this lives.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    wishes: &'a Wishes,
    entry: &'a EntryId,
}

impl Wishes {
    pub(crate) fn cancel<'a>(&'a self, entry: &'a EntryId) -> Wanted<'a> {
        *self.lock().entry(entry.clone()).or_default() += 1;
        Wanted { wishes: self, entry }
    }

    /// Whether somebody wants this message cancelled.
    pub(crate) fn is_unwanted(&self, entry: &EntryId) -> bool {
        self.lock().contains_key(entry)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EntryId, usize>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wishes = self.wishes.lock();
        if let Some(by) = wishes.get_mut(self.entry) {
            *by = by.saturating_sub(1);
            if *by == 0 {
                wishes.remove(self.entry);
            }
        }
    }
}
