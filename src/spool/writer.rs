//! The one thread that changes the tree. It takes what callers have sent meanwhile, forms one
//! group of it, applies the group as one sled batch and makes it durable with one sync; only then
//! do the callers get their answers.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sled::IVec;
use tokio::sync::oneshot;

use super::batch::{Batch, Durable};
use super::codec::{self, ReadError, Rows};
use super::counts::Counters;
use super::janitor::{Janitor, Job};
use super::plan::{Books, Changes, Touched};
use super::repair;
use super::space::Space;
use super::store::Store;
use super::{SpoolError, keys};

/// Most batches of a group, and bytes of new rows after which it is closed: a bound on how long
/// readers wait for sled while a group is applied.
const MOST_BATCHES: usize = 1_000;
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// The answer a caller waits for.
pub(super) type Reply = oneshot::Sender<Result<Durable, SpoolError>>;

/// What the writer is asked to do.
pub(super) enum Request {
    /// Apply a batch.
    Commit {
        /// The batch.
        batch: Batch,
        /// Who waits for it.
        reply: Reply,
    },
    /// Look at a row that a reader could not read, and set it aside if it cannot be read.
    Inspect {
        /// The row.
        key: Vec<u8>,
        /// Who waits for it.
        reply: oneshot::Sender<()>,
    },
}

/// What the writer tells everybody.
#[derive(Debug, Default)]
pub(super) struct Bulletin {
    /// Counts as of the last group.
    counters: Mutex<Counters>,
    /// Why nothing can be written any more.
    poison: OnceLock<String>,
}

impl Bulletin {
    pub(super) fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, counters: Counters) {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    /// The error of every commit after the one that failed.
    pub(super) fn poison(&self) -> Option<SpoolError> {
        self.poison.get().map(|why| SpoolError::Unknown(why.clone()))
    }
}

/// The state of the writer's thread.
pub(super) struct Writer {
    store: Arc<Store>,
    space: Arc<Space>,
    bulletin: Arc<Bulletin>,
    janitor: Janitor,
    books: Books,
}

/// Batches that are applied and synced together.
struct Group {
    /// Every row that changes; reads of later batches of the group see it.
    rows: HashMap<Vec<u8>, Option<IVec>>,
    bytes: u64,
    books: Books,
    replies: Vec<Reply>,
    job: Job,
    /// Whether a row was met that belongs into quarantine.
    damage: bool,
}

/// What becomes of a batch.
enum Planned {
    Changes(Box<Changes>),
    /// Tried again when what it met was set aside.
    NeedsRepair(Batch),
}

/// The tree as it will be when the group is applied.
struct View<'a>(&'a Store, &'a Group);

impl Rows for View<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<IVec>, SpoolError> {
        match self.1.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.0.value(key),
        }
    }
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        space: Arc<Space>,
        bulletin: Arc<Bulletin>,
        janitor: Janitor,
        counters: Counters,
    ) -> Result<Writer, SpoolError> {
        let books = Books { counters, slot: store.next_slot()? };
        bulletin.publish(counters);
        Ok(Writer { store, space, bulletin, janitor, books })
    }

    /// Works until all senders are gone and everything that was sent is done.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            let mut next = Some(request);
            let mut group = self.begin();
            let mut waiting = None;
            while let Some(request) = next {
                waiting = self.admit(&mut group, request);
                if waiting.is_some() || group.is_full() {
                    break;
                }
                next = requests.try_recv().ok();
            }
            let damage = group.damage;
            self.finish(group);
            if damage {
                self.repair();
            }
            if let Some(request) = waiting {
                self.admit_alone(request);
            }
        }
        self.end();
    }

    fn begin(&self) -> Group {
        Group {
            rows: HashMap::with_capacity(512),
            bytes: 0,
            books: self.books,
            replies: Vec::new(),
            job: Job::default(),
            damage: false,
        }
    }

    /// Takes up a request that had to wait for a repair.
    fn admit_alone(&mut self, request: Request) {
        let mut group = self.begin();
        match self.admit(&mut group, request) {
            None => {}
            Some(Request::Commit { reply, .. }) => {
                let why = "a row of the batch is damaged and cannot be set aside".to_owned();
                let _ = reply.send(Err(SpoolError::Corrupt(why)));
            }
            // The reader looks again and says what it finds.
            Some(Request::Inspect { reply, .. }) => {
                let _ = reply.send(());
            }
        }
        self.finish(group);
    }

    /// Takes a request into the group. What is returned must wait until the group and a repair
    /// are through.
    fn admit(&mut self, group: &mut Group, request: Request) -> Option<Request> {
        match request {
            Request::Commit { batch, reply } => self.admit_batch(group, batch, reply),
            Request::Inspect { key, reply } => {
                if self.bulletin.poison().is_none() && repair::is_unreadable(&self.store, &key) {
                    group.damage = true;
                    return Some(Request::Inspect { key, reply });
                }
                let _ = reply.send(());
                None
            }
        }
    }

    fn admit_batch(&mut self, group: &mut Group, batch: Batch, reply: Reply) -> Option<Request> {
        if let Some(error) = self.bulletin.poison() {
            let _ = reply.send(Err(error));
            return None;
        }
        match self.plan(group, batch) {
            Ok(Planned::Changes(changes)) => {
                group.take(*changes);
                group.replies.push(reply);
            }
            Ok(Planned::NeedsRepair(batch)) => {
                group.damage = true;
                return Some(Request::Commit { batch, reply });
            }
            Err(ReadError::Failed(error)) => {
                let _ = reply.send(Err(error));
            }
            Err(ReadError::Unreadable { key, reason }) => {
                group.damage = true;
                let what = format!("{}: {reason}", keys::describe(&key));
                let _ = reply.send(Err(SpoolError::Corrupt(what)));
            }
        }
        None
    }

    fn plan(&self, group: &mut Group, batch: Batch) -> Result<Planned, ReadError> {
        let view = View(&self.store, group);
        let touched = match Touched::load(&batch, &view) {
            Ok(touched) => touched,
            Err(ReadError::Unreadable { .. }) => return Ok(Planned::NeedsRepair(batch)),
            Err(failed) => return Err(failed),
        };
        let mut books = group.books;
        let changes = touched.plan(batch, &view, &mut books)?;
        self.space.admit(changes.need, changes.bytes())?;
        group.books = books;
        Ok(Planned::Changes(Box::new(changes)))
    }

    /// Applies a group, makes it durable and answers.
    fn finish(&mut self, mut group: Group) {
        if !group.rows.is_empty()
            && let Err(error) = self.write(&mut group)
        {
            let why = error.to_string();
            tracing::error!(error = %why, "the spool takes no more batches");
            let _ = self.bulletin.poison.set(why.clone());
            for reply in group.replies {
                let _ = reply.send(Err(SpoolError::Unknown(why.clone())));
            }
            return;
        }
        self.books = group.books;
        self.bulletin.publish(self.books.counters);
        for reply in group.replies {
            let _ = reply.send(Ok(Durable(())));
        }
        self.janitor.give(group.job);
    }

    fn write(&mut self, group: &mut Group) -> Result<(), SpoolError> {
        if group.books.counters != self.books.counters {
            let counts = codec::encode(&group.books.counters)?;
            group.rows.insert(keys::COUNTS_KEY.to_vec(), Some(IVec::from(counts)));
        }
        for key in self.janitor.swept() {
            // A tombstone that this very group has put is not the one that was swept: names of
            // body files are never used twice.
            group.rows.entry(key).or_insert(None);
        }
        let mut batch = sled::Batch::default();
        for (key, value) in std::mem::take(&mut group.rows) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.store.apply(batch)?;
        self.store.sync()
    }

    fn repair(&mut self) {
        if self.bulletin.poison().is_some() {
            return;
        }
        match repair::repair(&self.store) {
            Ok(counters) => {
                self.books.counters = counters;
                self.bulletin.publish(counters);
            }
            Err(error) => {
                let why = format!("a repair failed: {error}");
                tracing::error!(error = %why, "the spool takes no more batches");
                let _ = self.bulletin.poison.set(why);
            }
        }
    }

    /// The last tombstones go, so that the next open has nothing to do.
    fn end(mut self) {
        self.janitor.close();
        if self.bulletin.poison().is_none() {
            let mut group = self.begin();
            group.rows.extend(self.janitor.swept().map(|key| (key, None)).collect::<Vec<_>>());
            self.finish(group);
        }
    }
}

impl Group {
    fn is_full(&self) -> bool {
        self.replies.len() >= MOST_BATCHES || self.bytes >= MOST_BYTES
    }

    fn take(&mut self, changes: Changes) {
        self.bytes = self.bytes.saturating_add(changes.bytes());
        self.damage |= changes.damage;
        self.rows.extend(changes.rows);
        // Kept before the group is applied: from then on a row may name them, whatever comes.
        self.job.markers.extend(changes.adopted.into_iter().map(|file| file.keep()));
        self.job.gone.extend(changes.gone);
    }
}

/// What a caller is told who asks when the writer is gone.
pub(super) fn writer_gone(bulletin: &Bulletin) -> SpoolError {
    bulletin.poison().unwrap_or_else(|| SpoolError::Unknown("the writer has stopped".to_owned()))
}

/// The end of the channel at which requests are sent.
pub(super) type Requests = Sender<Request>;
