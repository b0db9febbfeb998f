//! The tree, the journal and the layers between them while they are open, and what is read from
//! them. A commit goes to the journal and, when it is durable there, into the layer that grows;
//! a full layer is folded into the tree.

mod fold;
mod pages;

pub(super) use fold::Fill;

use std::fs::File;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::{fmt, io};

use serde::de::DeserializeOwned;
use sled::IVec;

use super::body_row::BodyRow;
use super::check::census::Census;
use super::codec::{self, ReadError, RowChanges, Rows};
use super::disk::Disk;
use super::journal::{Journal, JournalFolder};
use super::layers::{Direction, Layers, Said};
use super::lock::SpoolLock;
use super::merged::Merged;
use super::{BodyId, QuarantinedRecord, SpoolError, SpoolOptions, keys};
use crate::migrations;

/// A step of a commit at which a test may let the disk fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// Before a group of batches is written to the journal.
    Apply,
    /// Before it is made durable there.
    Sync,
    /// Before rows of the journal are taken over by the tree.
    Fold,
}

/// Makes the disk fail at will: an error takes the place of the step.
pub type Fault = Arc<dyn Fn(FaultPoint) -> io::Result<()> + Send + Sync>;

/// The open tree. Fields are dropped in this order: the lock goes when all else is closed.
pub(super) struct Store {
    tree: sled::Db,
    /// The file of the tree once more, to be synced by ourselves.
    log: File,
    /// What the tree does not have yet; changed by the writer's thread, and when a fold is done.
    layers: Arc<RwLock<Layers>>,
    journal: Mutex<Journal>,
    journals: Arc<JournalFolder>,
    /// The journal file of the layer that rests; held by whoever folds it.
    folding: Mutex<Option<u64>>,
    /// Octets of a layer from which on it is folded.
    fold_at: u64,
    disk: Arc<dyn Disk>,
    /// Why nothing is written any more.
    broken: OnceLock<String>,
    /// Held by whoever applies a batch, and shared by those who read a record of several rows:
    /// sled has no snapshot in which they would belong together.
    applying: RwLock<()>,
    fault: Option<Fault>,
    /// A count that a check is about; the writer keeps it exact.
    census: Mutex<Option<Census>>,
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
        match self.layers.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            Said::There(value) => return Ok(Some(value.clone())),
            Said::Absent => return Ok(None),
            Said::Nothing => {}
        }
        // What a layer has said until just now the tree has when it does not say it any more.
        self.tree.get(key).map_err(|error| failed("read", error))
    }
}

/// Keys from one bound to the other.
pub(super) type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Store {
    /// Opens the tree in the folder `db` of `dir`, which this process has locked, and the journal
    /// beside it. Blocks on the disk.
    pub(super) fn open(
        dir: &Path,
        options: &SpoolOptions,
        lock: SpoolLock,
        ended: tokio::sync::watch::Sender<()>,
    ) -> Result<Store, SpoolError> {
        let folder = dir.join("db");
        remove_half_snapshots(&folder)?;
        let config = sled::Config::new()
            .path(&folder)
            .cache_capacity(options.cache)
            // We flush; a flusher of sled's own would only wake up an idle machine.
            .flush_every_ms(None);
        // A damaged file makes sled panic in some places; that is not the end of the process.
        let tree = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| {
                SpoolError::Unreadable(format!("opening {} breaks down", folder.display()))
            })?
            .map_err(|error| match failed("open", error) {
                SpoolError::Corrupt(why) => SpoolError::Unreadable(why),
                other => other,
            })?;
        let file = folder.join("db");
        let log = File::open(&file)
            .map_err(|error| SpoolError::io(format!("open {}", file.display()), error))?;
        let journals = Arc::new(JournalFolder::open(dir, Arc::clone(&options.disk))?);
        let store = Store {
            tree,
            log,
            layers: Arc::default(),
            // Which number is next is known when those that are there have been read.
            journal: Mutex::new(Journal::new(Arc::clone(&journals), 1)),
            journals,
            folding: Mutex::default(),
            fold_at: options.fold_at,
            disk: Arc::clone(&options.disk),
            broken: OnceLock::new(),
            applying: RwLock::new(()),
            fault: options.fault.clone(),
            census: Mutex::default(),
            #[cfg(test)]
            reads: Arc::default(),
            _lock: lock,
            _ended: ended,
        };
        store.survey()?;
        Ok(store)
    }

    /// Brings the tree to today's schema; no layer may cover it.
    pub(super) fn migrate(&self) -> Result<(), SpoolError> {
        migrations::apply(&self.tree, || self.sync_tree())?;
        self.survey()
    }

    /// Finds the last key of each table: one look at the tree for each.
    fn survey(&self) -> Result<(), SpoolError> {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        let mut last = self.tree.last().map_err(|error| failed("read", error))?;
        while let Some((key, _)) = last {
            layers.note(&key);
            let Some(table) = key.first() else { break };
            last = self.tree.get_lt([*table]).map_err(|error| failed("read", error))?;
        }
        Ok(())
    }

    /// Changes rows; durable when it returns, and seen by readers from then on. A census that goes
    /// on is kept exact. For the writer's thread alone; after an error nothing may be changed any
    /// more.
    pub(super) fn commit(&self, rows: RowChanges) -> Result<(), SpoolError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.usable()?;
        let written = self.write(&rows).and_then(|()| self.take_up(rows));
        self.heed(written)
    }

    /// Makes rows durable in the journal.
    fn write(&self, rows: &RowChanges) -> Result<(), SpoolError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.fault(FaultPoint::Apply)?;
        journal.append(rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))?;
        self.fault(FaultPoint::Sync)?;
        journal.sync()
    }

    /// Whether everything that was written so far went well.
    fn usable(&self) -> Result<(), SpoolError> {
        self.broken.get().map_or(Ok(()), |why| Err(SpoolError::Unknown(why.clone())))
    }

    /// Has an error end all writing.
    fn heed<T>(&self, done: Result<T, SpoolError>) -> Result<T, SpoolError> {
        if let Err(error) = &done {
            self.broken.get_or_init(|| error.to_string());
        }
        done
    }

    /// Has the layer that grows cover the tree with these rows.
    fn take_up(&self, rows: RowChanges) -> Result<(), SpoolError> {
        let mut changes = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            // Only this thread changes what is asked for here: a fold keeps it as it is.
            let is_below = value.is_none() && self.is_below(&key)?;
            changes.push((key, value, is_below));
        }
        let _applying = self.applying.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(census) = self.census().as_mut() {
            let rows = changes.iter().map(|(key, value, _)| (key.clone(), value.clone()));
            census.observe(self, &rows.collect());
        }
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value, is_below) in changes {
            layers.growing_mut().change(key, value, is_below);
        }
        Ok(())
    }

    /// Whether there is a row below the layer that grows.
    fn is_below(&self, key: &[u8]) -> Result<bool, SpoolError> {
        match self.layers.read().unwrap_or_else(PoisonError::into_inner).below(key) {
            Said::There(_) => return Ok(true),
            Said::Absent => return Ok(false),
            Said::Nothing => {}
        }
        self.tree.contains_key(key).map_err(|error| failed("read", error))
    }

    /// The census that goes on, if one does.
    pub(super) fn census(&self) -> MutexGuard<'_, Option<Census>> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a census in place of any other.
    pub(super) fn begin_census(&self, census: Census) {
        *self.census() = Some(census);
    }

    /// Ends it.
    pub(super) fn end_census(&self) {
        *self.census() = None;
    }

    /// Takes the census a page further; whether there is more to count.
    pub(super) fn advance_census(&self) -> Result<bool, SpoolError> {
        let _quiet = self.applying.read().unwrap_or_else(PoisonError::into_inner);
        match self.census().as_mut() {
            Some(census) => census.advance(self),
            None => Ok(false),
        }
    }

    /// Makes durable what the tree has been given.
    pub(super) fn sync_tree(&self) -> Result<(), SpoolError> {
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

    /// How many rows were read so far.
    #[cfg(test)]
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The tree itself, for what stands only there.
    pub(super) fn tree(&self) -> &sled::Tree {
        &self.tree
    }

    /// Rows in order of their keys.
    pub(super) fn range(
        &self,
        range: Range,
    ) -> impl Iterator<Item = Result<(IVec, IVec), SpoolError>> + use<> {
        self.walk(range, Direction::Forward)
    }

    /// Rows in order of their keys, the last one first.
    pub(super) fn range_back(
        &self,
        range: Range,
    ) -> impl Iterator<Item = Result<(IVec, IVec), SpoolError>> + use<> {
        self.walk(range, Direction::Backward)
    }

    fn walk(
        &self,
        range: Range,
        direction: Direction,
    ) -> impl Iterator<Item = Result<(IVec, IVec), SpoolError>> + use<> {
        let rows = Merged::new(Arc::clone(&self.layers), (*self.tree).clone(), range, direction);
        // The end may be behind rows that were removed; what comes in front of them is not met.
        let rows = rows.fuse();
        #[cfg(test)]
        let reads = Arc::clone(&self.reads);
        #[cfg(test)]
        let rows = rows.inspect(move |_| {
            reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
        rows
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

    /// The row of a body.
    pub(super) fn body(&self, body: BodyId) -> Result<Option<BodyRow>, ReadError> {
        self.record(&keys::body(body))
    }

    /// What could not be read, behind the row `after`; and the last row of the page.
    pub(super) fn quarantine(
        &self,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<QuarantinedRecord>, Option<Vec<u8>>), SpoolError> {
        let (mut page, mut last) = (Vec::new(), None);
        for row in self.range(keys::table_after(keys::QUARANTINE, after)).take(limit) {
            let (key, head) = row?;
            last = Some(key.to_vec());
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
        Ok((page, last))
    }

    /// How many records are in quarantine.
    pub(super) fn count_quarantined(&self) -> Result<u64, SpoolError> {
        self.range(keys::table(keys::QUARANTINE)).try_fold(0, |count, row| row.map(|_| count + 1))
    }

    /// Whether something is in quarantine that may name bodies: a message, or a piece of a journal.
    pub(super) fn has_quarantined_messages(&self) -> Result<bool, SpoolError> {
        for row in self.range(keys::table(keys::QUARANTINE)) {
            let original = row?.0;
            let original = keys::parse_quarantine(&original);
            let table = original.first().copied();
            if matches!(table, Some(keys::OUTBOX | keys::QUEUE)) || keys::is_journal(original) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a piece of a journal is in quarantine: it may hold rows of any body.
    pub(super) fn has_quarantined_journals(&self) -> Result<bool, SpoolError> {
        let first = self.range(keys::prefix(keys::quarantine(keys::JOURNAL))).next();
        Ok(first.transpose()?.is_some())
    }

    /// A number for inline bodies above all that are in use.
    pub(super) fn next_slot(&self) -> Result<u64, SpoolError> {
        let last = self.range_back(keys::table(keys::INLINE)).next().transpose()?;
        Ok(last
            .and_then(|(key, _)| keys::parse_inline(&key))
            .map_or(0, |slot| slot.saturating_add(1)))
    }
}

/// Removes the snapshots that sled was writing when its process ended. It means to leave them alone,
/// but looks for another ending than it gives them, and takes one that is empty for the newest.
fn remove_half_snapshots(tree: &Path) -> Result<(), SpoolError> {
    let failed = |error| SpoolError::io(format!("look through {}", tree.display()), error);
    let entries = match std::fs::read_dir(tree) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Some(name) = entry.file_name().to_str()
            && name.starts_with("snap.")
            && name.ends_with(".generating")
        {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
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
