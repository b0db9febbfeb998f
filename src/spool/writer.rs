//! The one thread that changes rows. It takes what callers have sent meanwhile, forms one group of
//! it and makes the group durable with one write and one sync of the journal; only then do the
//! callers get their answers.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sled::IVec;
use tokio::sync::oneshot;

use super::batch::{Batch, Durable};
use super::body_row::file_name;
use super::codec::{self, ReadError, RowChanges, Rows};
use super::counts::Counters;
use super::folding::Folding;
use super::janitor::{Janitor, Job};
use super::plan::{Books, Changes, Touched};
use super::repair;
use super::space::Space;
use super::store::Store;
use super::{BodyId, SpoolError, keys};

/// Most batches of a group, and bytes of new rows after which it is closed: a bound on how long
/// readers wait for sled while a group is applied.
const MOST_BATCHES: usize = 1_000;
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// A group of at least so many batches says that many are at work: the next one waits a moment for
/// them. A sync costs the processor the same whatever is in it.
const CROWD: usize = 4;
/// How long it waits: about as long as a group takes.
const GATHER: Duration = Duration::from_micros(800);

/// The answer a caller waits for.
pub(super) type Reply = oneshot::Sender<Result<Durable, SpoolError>>;

/// Done in the writer's thread between two groups, when nothing moves. What it leaves on the desk is
/// applied as a group of its own; then what it returns is called, with why that failed.
pub(super) type Work = Box<dyn FnOnce(&mut Desk<'_>) -> WorkDone + Send>;

/// Hears how the group of a piece of work ended.
pub(super) type WorkDone = Box<dyn FnOnce(Option<SpoolError>) + Send>;

/// What a piece of work has before it.
pub(super) struct Desk<'a> {
    /// The tree.
    pub(super) store: &'a Store,
    group: &'a mut Group,
}

impl Rows for Desk<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<IVec>, SpoolError> {
        View(self.store, self.group).value(key)
    }
}

impl Desk<'_> {
    pub(super) fn put(&mut self, key: Vec<u8>, value: impl Into<IVec>) {
        self.group.rows.insert(key, Some(value.into()));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.group.rows.insert(key, None);
    }

    /// The counts of messages.
    pub(super) fn counters(&mut self) -> &mut Counters {
        &mut self.group.books.counters
    }

    /// Removes a body file once the group is durable.
    pub(super) fn remove_file(&mut self, body: BodyId, number: u64) {
        self.put(keys::gone(&file_name(body, number)), IVec::default());
        self.group.job.gone.push((body, number));
    }

    /// Applies a batch of records, whatever the space.
    ///
    /// # Errors
    /// As when it is committed; nothing of it is applied then.
    pub(super) fn apply(&mut self, batch: Batch) -> Result<(), ReadError> {
        let view = View(self.store, self.group);
        let mut books = self.group.books;
        let changes = Touched::load(&batch, &view)?.plan(batch, &view, &mut books)?;
        self.group.books = books;
        self.group.take(changes);
        Ok(())
    }
}

/// What the writer is asked to do.
pub(super) enum Request {
    /// Apply a batch.
    Commit {
        /// The batch.
        batch: Batch,
        /// Who waits for it.
        reply: Reply,
    },
    /// Do something while nothing moves.
    Work(Work),
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

    /// Notes that a write or a sync has failed: from now on nothing is taken until the next open.
    /// To try again would be no use: what the operating system could not write it may have
    /// forgotten, and it calls the next sync a success. Returns the first reason there was.
    pub(super) fn fail(&self, error: &SpoolError) -> String {
        tracing::error!(%error, "the spool takes no more batches");
        self.poison.get_or_init(|| error.to_string()).clone()
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
    folding: Folding,
    books: Books,
}

/// Batches that are applied and synced together.
struct Group {
    /// Every row that changes; reads of later batches of the group see it.
    rows: RowChanges,
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
        let folding = Folding::start(Arc::clone(&store), Arc::clone(&bulletin))?;
        Ok(Writer { store, space, bulletin, janitor, folding, books })
    }

    /// Works until all senders are gone and everything that was sent is done.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        let mut crowded = false;
        while let Ok(request) = requests.recv() {
            if crowded {
                std::thread::sleep(GATHER);
            }
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
            crowded = group.replies.len() >= CROWD;
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
            rows: RowChanges::with_capacity(512),
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
        let request = match request {
            Request::Work(work) => {
                let done = work(&mut Desk { store: &self.store, group: &mut group });
                self.finish(group);
                return done(self.bulletin.poison());
            }
            request => request,
        };
        match self.admit(&mut group, request) {
            None => {}
            Some(Request::Commit { reply, .. }) => {
                let why = "a row of the batch is damaged and cannot be set aside".to_owned();
                let _ = reply.send(Err(SpoolError::Corrupt(why)));
            }
            // Not reached: work is done above.
            Some(Request::Work(_)) => {}
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
            Request::Work(work) => Some(Request::Work(work)),
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
        if !group.is_empty(&self.books.counters)
            && let Err(error) = self.write(&mut group)
        {
            let failure = self.bulletin.fail(&error);
            for reply in group.replies {
                let _ = reply.send(Err(SpoolError::Unknown(failure.clone())));
            }
            return;
        }
        self.books = group.books;
        self.bulletin.publish(self.books.counters);
        for reply in group.replies {
            let _ = reply.send(Ok(Durable(())));
        }
        self.janitor.give(group.job);
        self.folding.tend(&self.store);
    }

    fn write(&mut self, group: &mut Group) -> Result<(), SpoolError> {
        if let Some(error) = self.bulletin.poison() {
            return Err(error);
        }
        if group.books.counters != self.books.counters {
            let counts = codec::encode(&group.books.counters)?;
            group.rows.insert(keys::COUNTS_KEY.to_vec(), Some(IVec::from(counts)));
        }
        for key in self.janitor.swept() {
            // A tombstone that this very group has put is not the one that was swept: names of
            // body files are never used twice.
            group.rows.entry(key).or_insert(None);
        }
        self.store.commit(std::mem::take(&mut group.rows))
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
                self.bulletin.fail(&error);
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
        self.folding.close();
        // A spool that was closed is a tree and nothing else. After an error the journal keeps
        // what the tree may not have.
        if self.bulletin.poison().is_none()
            && let Err(error) = self.store.fold_all()
        {
            self.bulletin.fail(&error);
        }
    }
}

impl Group {
    fn is_empty(&self, counters: &Counters) -> bool {
        self.rows.is_empty() && self.books.counters == *counters
    }

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
