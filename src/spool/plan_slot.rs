//! A record as a batch meets it and as it leaves it.

use serde::de::DeserializeOwned;

use super::batch::Expect;
use super::codec::{self, ReadError, Rows};
use super::{OutboxRecord, QueueRecord, SpoolError};
use crate::mapi::EntryId;

/// A record as the batch met it and as it leaves it.
pub(super) struct Slot<T> {
    pub(super) before: Option<T>,
    /// Overflow rows of `before`.
    pub(super) overflow: u16,
    pub(super) now: Now<T>,
}

pub(super) enum Now<T> {
    Same,
    Put(T),
    Gone,
}

impl<T: DeserializeOwned> Slot<T> {
    pub(super) fn load(rows: &impl Rows, key: &[u8]) -> Result<Self, ReadError> {
        let Some(head) = rows.value(key)? else { return Ok(Self::unloaded()) };
        let overflow = codec::overflow_rows(&head);
        let before = Some(codec::load_from(rows, key, head)?);
        Ok(Slot { before, overflow, now: Now::Same })
    }
}

impl<T> Slot<T> {
    /// A row that is absent or does not matter.
    pub(super) fn unloaded() -> Self {
        Slot { before: None, overflow: 0, now: Now::Same }
    }

    pub(super) fn current(&self) -> Option<&T> {
        match &self.now {
            Now::Same => self.before.as_ref(),
            Now::Put(record) => Some(record),
            Now::Gone => None,
        }
    }

    pub(super) fn changed(&self) -> bool {
        !matches!(self.now, Now::Same)
    }
}

impl<T: Clone + PartialEq> Slot<T> {
    /// Changes the record, if there is one.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut T)) {
        if let Some(mut record) = self.current().cloned() {
            change(&mut record);
            if self.current() != Some(&record) {
                self.now = Now::Put(record);
            }
        }
    }
}

/// A record with a revision.
pub(super) trait Revised {
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
    pub(super) fn check(
        &self,
        expect: Expect,
        table: &str,
        entry: &EntryId,
    ) -> Result<(), SpoolError> {
        let met = match (expect, self.current()) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::Revision(expected), Some(record)) => record.revision() == expected,
            (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => false,
        };
        if met { Ok(()) } else { Err(SpoolError::Conflict(format!("{table}/{entry}"))) }
    }

    pub(super) fn put(&mut self, record: T) {
        let revision = self.current().map_or(0, Revised::revision).saturating_add(1);
        self.now = Now::Put(record.with_revision(revision));
    }
}
