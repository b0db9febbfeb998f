//! The tree and its files while they are open, and what is read from them.

use std::fs::File;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::{fmt, io};

use serde::de::DeserializeOwned;
use sled::IVec;

use super::body_row::BodyRow;
use super::codec::{self, ReadError, Rows};
use super::lock::SpoolLock;
use super::{
    AccountKey, BodyId, DUE_ORDER, DuePage, FetchedRecord, Origin, OutboxRecord, OutboxState,
    QuarantinedRecord, SpoolError, keys,
};
use crate::mapi::{EntryId, Priority, SysTime};

/// Most rows that `due` looks at in one lane beside those it lists: a bound on what a caller who
/// leaves out everything can cost.
const MOST_SKIPPED: usize = 50_000;

/// A step of a commit at which a test may let the disk fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// Before a group of batches is applied.
    Apply,
    /// Before it is made durable.
    Sync,
}

/// Makes the disk fail at will: an error takes the place of the step.
pub type Fault = Arc<dyn Fn(FaultPoint) -> io::Result<()> + Send + Sync>;

/// The open tree. Fields are dropped in this order: the lock goes when all else is closed.
pub(super) struct Store {
    tree: sled::Db,
    /// The file of the tree once more, to be synced by ourselves.
    log: File,
    /// Held by whoever applies a batch, and shared by those who read a record of several rows:
    /// sled has no snapshot in which they would belong together.
    applying: RwLock<()>,
    fault: Option<Fault>,
    /// How many rows were read.
    #[cfg(test)]
    reads: Arc<std::sync::atomic::AtomicU64>,
    _lock: SpoolLock,
    /// Dropped last; whoever waits for the end of the store sees it.
    _ended: tokio::sync::watch::Sender<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("log", &self.log).finish_non_exhaustive()
    }
}

/// An entry of quarantine.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct QuarantineRow {
    pub(super) reason: String,
    pub(super) bytes: Vec<u8>,
}

impl Rows for Store {
    fn value(&self, key: &[u8]) -> Result<Option<IVec>, SpoolError> {
        #[cfg(test)]
        self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.tree.get(key).map_err(|error| failed("read", error))
    }
}

/// Keys from one bound to the other.
pub(super) type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Store {
    /// Opens the tree in `dir`, which this process has locked. Blocks on the disk.
    pub(super) fn open(
        dir: &Path,
        cache: u64,
        fault: Option<Fault>,
        lock: SpoolLock,
        ended: tokio::sync::watch::Sender<()>,
    ) -> Result<Store, SpoolError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache)
            // The writer flushes; a flusher of sled's own would only wake up an idle machine.
            .flush_every_ms(None);
        // A damaged file makes sled panic in some places; that is not the end of the process.
        let tree = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| SpoolError::Corrupt(format!("{} cannot be opened", dir.display())))?
            .map_err(|error| failed("open", error))?;
        let file = dir.join("db");
        let log = File::open(&file)
            .map_err(|error| SpoolError::io(format!("open {}", file.display()), error))?;
        Ok(Store {
            tree,
            log,
            applying: RwLock::new(()),
            fault,
            #[cfg(test)]
            reads: Arc::default(),
            _lock: lock,
            _ended: ended,
        })
    }

    /// Applies a batch; it is durable after [`Store::sync`].
    pub(super) fn apply(&self, batch: sled::Batch) -> Result<(), SpoolError> {
        self.fault(FaultPoint::Apply)?;
        let _applying = self.applying.write().unwrap_or_else(PoisonError::into_inner);
        self.tree.apply_batch(batch).map_err(|error| failed("write", error))
    }

    /// Makes everything durable that was applied.
    pub(super) fn sync(&self) -> Result<(), SpoolError> {
        self.fault(FaultPoint::Sync)?;
        self.tree.flush().map_err(|error| failed("flush", error))?;
        // On Linux sled only waits for `sync_file_range`, which writes neither the size of a file
        // that has grown nor the cache of the disk: a power loss could take back what it promised.
        if cfg!(target_os = "linux") {
            self.log.sync_data().map_err(|error| SpoolError::io("sync the spool", error))?;
        }
        Ok(())
    }

    fn fault(&self, point: FaultPoint) -> Result<(), SpoolError> {
        match &self.fault {
            Some(fault) => {
                fault(point).map_err(|error| SpoolError::io(format!("{point:?}"), error))
            }
            None => Ok(()),
        }
    }

    /// The tree itself, for the migrations.
    pub(super) fn tree(&self) -> &sled::Tree {
        &self.tree
    }

    /// Rows in order of their keys.
    pub(super) fn range(
        &self,
        range: Range,
    ) -> impl DoubleEndedIterator<Item = Result<(IVec, IVec), SpoolError>> + use<> {
        #[cfg(test)]
        let reads = Arc::clone(&self.reads);
        self.tree.range(range).map(move |row| {
            #[cfg(test)]
            reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            row.map_err(|error| failed("read", error))
        })
    }

    /// A record.
    pub(super) fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, ReadError> {
        match self.value(key)? {
            Some(head) => self.record_from(key, head),
            None => Ok(None),
        }
    }

    /// The record at `key` that had this head an instant ago.
    fn record_from<T: DeserializeOwned>(
        &self,
        key: &[u8],
        head: IVec,
    ) -> Result<Option<T>, ReadError> {
        if codec::overflow_rows(&head) == 0 {
            return codec::load_from(self, key, head).map(Some);
        }
        let _quiet = self.applying.read().unwrap_or_else(PoisonError::into_inner);
        codec::load(self, key)
    }

    /// Records of a table by entry id.
    pub(super) fn page<T: DeserializeOwned>(
        &self,
        table: u8,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, T)>, ReadError> {
        let mut page = Vec::new();
        for row in self.range(keys::prefix_after(vec![table], after)) {
            if page.len() >= limit {
                break;
            }
            let (key, head) = row?;
            if let Some(entry) = keys::parse_entry(&key)
                && let Some(record) = self.record_from(&key, head)?
            {
                page.push((entry, record));
            }
        }
        Ok(page)
    }

    /// Messages of the Outbox that wait.
    pub(super) fn waiting_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, ReadError> {
        let mut page = Vec::new();
        for row in self.range(keys::prefix_after(vec![keys::WAITING], after)) {
            if page.len() >= limit {
                break;
            }
            let Some(entry) = keys::parse_entry(&row?.0) else { continue };
            // A batch may come between the index and the row.
            match self.record::<OutboxRecord>(&keys::outbox(&entry))? {
                Some(record) if matches!(record.state, OutboxState::Waiting { .. }) => {
                    page.push((entry, record));
                }
                _ => {}
            }
        }
        Ok(page)
    }

    /// What is due; only rows of the due index of this account are read.
    pub(super) fn due(
        &self,
        account: AccountKey,
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
    ) -> Result<DuePage, SpoolError> {
        let mut page = DuePage::default();
        for priority in DUE_ORDER {
            let left = limit.saturating_sub(page.entries.len());
            let next = self.due_lane((account, priority), now, left, skip, &mut page.entries)?;
            page.next = [page.next, next].into_iter().flatten().min();
        }
        Ok(page)
    }

    /// Adds what is due in one lane and returns when the first one not added will be.
    fn due_lane(
        &self,
        (account, priority): (AccountKey, Priority),
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
        entries: &mut Vec<EntryId>,
    ) -> Result<Option<SysTime>, SpoolError> {
        let mut listed = 0;
        let mut skipped = 0;
        for row in self.range(keys::prefix(keys::due_lane(account, priority))) {
            let Some((time, entry)) = keys::parse_due(&row?.0) else { continue };
            if skip(&entry) && skipped < MOST_SKIPPED {
                skipped += 1;
            } else if time > now || listed >= limit || skipped >= MOST_SKIPPED {
                return Ok(Some(time));
            } else {
                entries.push(entry);
                listed += 1;
            }
        }
        Ok(None)
    }

    /// Messages of an account that are done.
    pub(super) fn done_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let range = keys::prefix_after(keys::done_of(account), after);
        self.entries(range, limit, keys::parse_done)
    }

    /// Histories that ended before `before`.
    pub(super) fn ended_before(
        &self,
        before: SysTime,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let range =
            (Bound::Included(vec![keys::ENDED]), Bound::Excluded(keys::ended_bound(before)));
        self.entries(range, limit, |key| keys::parse_ended(key).map(|(_, entry)| entry))
    }

    fn entries(
        &self,
        range: Range,
        limit: usize,
        parse: impl Fn(&[u8]) -> Option<EntryId>,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let rows = self.range(range).take(limit);
        rows.filter_map(|row| row.map(|(key, _)| parse(&key)).transpose()).collect()
    }

    /// Digests of a mailbox in the delivered table.
    pub(super) fn delivered_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 16]>, SpoolError> {
        let rows = self.range(keys::prefix(keys::delivered_of(account, mailbox))).take(limit);
        rows.filter_map(|row| row.map(|(key, _)| keys::parse_delivered(&key)).transpose()).collect()
    }

    /// Rows of a mailbox in the doubtful table.
    pub(super) fn doubtful_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: Option<&[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<([u8; 16], Origin)>, SpoolError> {
        let range = keys::prefix(keys::doubtful_of(account, mailbox, digest));
        let rows = self.range(range).take(limit);
        rows.filter_map(|row| row.map(|(key, _)| keys::parse_doubtful(&key)).transpose()).collect()
    }

    /// Rows of a mailbox in the fetched table.
    pub(super) fn fetched_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        from: Origin,
        limit: usize,
    ) -> Result<Vec<(u32, FetchedRecord)>, ReadError> {
        let (_, end) = keys::prefix(keys::fetched_of(account, mailbox, from.uid_validity));
        let start = Bound::Included(keys::fetched(account, mailbox, from));
        let mut page = Vec::new();
        for row in self.range((start, end)).take(limit) {
            let (key, head) = row?;
            if let Some(uid) = keys::parse_fetched(&key)
                && let Some(record) = self.record_from(&key, head)?
            {
                page.push((uid, record));
            }
        }
        Ok(page)
    }

    /// The row of a body.
    pub(super) fn body(&self, body: BodyId) -> Result<Option<BodyRow>, ReadError> {
        self.record(&keys::body(body))
    }

    /// What could not be read.
    pub(super) fn quarantine(&self, limit: usize) -> Result<Vec<QuarantinedRecord>, SpoolError> {
        let mut page = Vec::new();
        for row in self.range(keys::table(keys::QUARANTINE)).take(limit) {
            let (key, head) = row?;
            let key_text = keys::describe(keys::parse_quarantine(&key));
            page.push(match codec::load_from::<QuarantineRow>(self, &key, head.clone()) {
                Ok(QuarantineRow { reason, bytes }) => {
                    QuarantinedRecord { key: key_text, reason, bytes }
                }
                Err(ReadError::Unreadable { reason, .. }) => {
                    QuarantinedRecord { key: key_text, reason, bytes: head.to_vec() }
                }
                Err(ReadError::Failed(error)) => return Err(error),
            });
        }
        Ok(page)
    }

    /// A number for inline bodies above all that are in use.
    pub(super) fn next_slot(&self) -> Result<u64, SpoolError> {
        let last = self.range(keys::table(keys::INLINE)).next_back().transpose()?;
        Ok(last
            .and_then(|(key, _)| keys::parse_inline(&key))
            .map_or(0, |slot| slot.saturating_add(1)))
    }
}

/// An error of sled in our words.
pub(super) fn failed(what: &str, error: sled::Error) -> SpoolError {
    match error {
        sled::Error::Io(error) => SpoolError::io(format!("{what} the spool"), error),
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => {
            SpoolError::Corrupt(format!("the spool is damaged: {error}"))
        }
        other => SpoolError::io(format!("{what} the spool"), io::Error::other(other)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
