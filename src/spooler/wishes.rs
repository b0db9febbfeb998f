//! Messages that somebody wants to cancel while a transport may be at work on them (OB-15, OB-18).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mapi::EntryId;

/// The cancels that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    wishes: Mutex<BTreeMap<EntryId, Wish>>,
}

#[derive(Debug, Default)]
struct Wish {
    /// How many want it.
    by: usize,
    granted: bool,
}

/// Somebody wants a message cancelled as long as this lives.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    wishes: &'a Wishes,
    entry: &'a EntryId,
}

impl Wishes {
    pub(crate) fn cancel<'a>(&'a self, entry: &'a EntryId) -> Wanted<'a> {
        self.lock().entry(entry.clone()).or_default().by += 1;
        Wanted { wishes: self, entry }
    }

    /// Whether somebody wants this message cancelled.
    pub(crate) fn is_unwanted(&self, entry: &EntryId) -> bool {
        self.lock().contains_key(entry)
    }

    /// A transport let go of the message, and it has left the table unsent.
    pub(crate) fn grant(&self, entry: &EntryId) {
        if let Some(wish) = self.lock().get_mut(entry) {
            wish.granted = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EntryId, Wish>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted<'_> {
    /// Whether the message is gone as wanted.
    pub(crate) fn is_granted(&self) -> bool {
        self.wishes.lock().get(self.entry).is_some_and(|wish| wish.granted)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wishes = self.wishes.lock();
        if let Some(wish) = wishes.get_mut(self.entry) {
            wish.by -= 1;
            if wish.by == 0 {
                wishes.remove(self.entry);
            }
        }
    }
}
