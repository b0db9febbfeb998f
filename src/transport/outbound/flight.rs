//! Messages that are claimed: from the claim to the durable outcome nobody else touches their
//! rows, but who stops them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::attempt_notes::AttemptNotes;
use super::progress::Progress;
use super::schedule::Before;
use crate::mapi::EntryId;
use crate::spool::QueueRecord;

/// A claimed message.
#[derive(Debug)]
pub(super) struct Flight {
    /// The message.
    pub(super) entry: EntryId,
    /// What the row was before the claim.
    pub(super) before: Before,
    /// How far it is.
    pub(super) progress: Progress,
    /// The row as claimed, with the outcomes had so far.
    record: Mutex<QueueRecord>,
    notes: Mutex<AttemptNotes>,
    landed: CancellationToken,
}

impl Flight {
    /// `record` is the row as claimed, with the revision it will have.
    pub(super) fn new(entry: EntryId, before: Before, record: QueueRecord) -> Arc<Self> {
        Arc::new(Flight {
            entry,
            before,
            progress: Progress::default(),
            record: Mutex::new(record),
            notes: Mutex::default(),
            landed: CancellationToken::new(),
        })
    }

    /// The row with the outcomes had so far.
    pub(super) fn record(&self) -> MutexGuard<'_, QueueRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the attempt met with so far.
    pub(super) fn notes(&self) -> MutexGuard<'_, AttemptNotes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the outcome is durable or the claim is gone. Cancel-safe.
    pub(super) async fn landed(&self) {
        self.landed.cancelled().await;
    }
}

/// All claimed messages of an account.
#[derive(Debug)]
pub(super) struct Flights {
    table: Mutex<HashMap<EntryId, Arc<Flight>>>,
    count: watch::Sender<usize>,
}

impl Default for Flights {
    fn default() -> Self {
        Flights { table: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl Flights {
    fn table(&self) -> MutexGuard<'_, HashMap<EntryId, Arc<Flight>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a flight; `false` when the message has one.
    pub(super) fn add(&self, flight: &Arc<Flight>) -> bool {
        let mut table = self.table();
        if table.contains_key(&flight.entry) {
            return false;
        }
        table.insert(flight.entry.clone(), Arc::clone(flight));
        self.count.send_replace(table.len());
        true
    }

    /// Ends a flight: its outcome is durable, or its claim never was.
    pub(super) fn land(&self, flight: &Flight) {
        let mut table = self.table();
        table.remove(&flight.entry);
        self.count.send_replace(table.len());
        drop(table);
        flight.landed.cancel();
    }

    /// The flight of a message.
    pub(super) fn of(&self, entry: &EntryId) -> Option<Arc<Flight>> {
        self.table().get(entry).cloned()
    }

    /// Whether a message is claimed.
    pub(super) fn has(&self, entry: &EntryId) -> bool {
        self.table().contains_key(entry)
    }

    /// Whether none is claimed.
    pub(super) fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Flight>> {
        self.table().values().cloned().collect()
    }

    /// Waits until none is left. Cancel-safe.
    pub(super) async fn all_landed(&self) {
        // The sender lives as long as self.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}
