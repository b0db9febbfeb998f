//! The spool on sled and body files.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use sled::IVec;
use tokio::io::AsyncReadExt;
use tokio::sync::{oneshot, watch};

use super::batch::{Batch, Durable};
use super::bodies::{BodyFolder, make_private_dir, sync_dir};
use super::body_io::{SpoolBodyWriter, Verified};
use super::body_row::{BodyPlace, BodyRow};
use super::codec::{FORMAT, ReadError, Rows};
use super::janitor::Janitor;
use super::space::Space;
use super::store::Store;
use super::writer::{Bulletin, Request, Requests, Writer, writer_gone};
use super::{
    AccountKey, BodyId, BodyReader, BodyWriter, CursorRecord, DuePage, FetchedRecord,
    HistoryRecord, Origin, OutboxRecord, QuarantinedRecord, QueueCounts, QueueRecord, Spool,
    SpoolError, SpoolOptions, keys, lock, migrations, recover,
};
use crate::mapi::{EntryId, SysTime};

/// How often a read is repeated that met a row which went meanwhile, or to quarantine.
const READ_ATTEMPTS: usize = 4;

/// How much of a body file is read at once.
const READ_CHUNK: usize = 256 * 1024;

/// The spool in a folder: `db/` (sled), `bodies/` and `staging/` (see [`Spool`] for the contract).
///
/// Commits, rows and small bodies need no runtime of any kind. Bodies too large for a row are
/// written and read through [`tokio::task::spawn_blocking`], so those calls must come from within
/// a tokio runtime.
///
/// Dropping it without [`Spool::close`] ends it as well, behind everything that was committed, but
/// does not wait for that.
#[derive(Debug)]
pub struct SledSpool {
    store: RwLock<Option<Arc<Store>>>,
    requests: RwLock<Option<Requests>>,
    folder: Arc<BodyFolder>,
    space: Arc<Space>,
    bulletin: Arc<Bulletin>,
    /// Held by the check that runs.
    pub(super) checking: Mutex<()>,
    /// Closed when the store is.
    ended: watch::Receiver<()>,
}

impl SledSpool {
    /// Opens the spool in `dir`, which is made when it is not there, brings it to today's schema
    /// and clears away what a crash left. Blocks the thread on the disk and at most
    /// `options.lock_wait` on another process; in async code call it from `spawn_blocking`.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] when another process uses it all that time;
    /// [`SpoolError::NewerSchema`] when a newer version of this program made it, nothing was
    /// changed then; [`SpoolError::Corrupt`] when sled cannot open it; I/O errors.
    pub fn open(dir: &Path, options: SpoolOptions) -> Result<SledSpool, SpoolError> {
        let at = |error| SpoolError::io(format!("make folder {}", dir.display()), error);
        std::fs::create_dir_all(dir).map_err(at)?;
        let dir = &dir.canonicalize().map_err(at)?;
        make_private_dir(dir)?;
        if let Some(parent) = dir.parent() {
            // Folders above need not be ours to open.
            let _ = sync_dir(options.disk.as_ref(), parent);
        }
        let lock = lock::acquire(dir, options.lock_wait)?;
        let (ending, ended) = watch::channel(());
        let tree = dir.join("db");
        make_private_dir(&tree)?;
        let store = Store::open(dir, &options, lock, ending)?;
        for folder in [&tree, dir] {
            sync_dir(options.disk.as_ref(), folder)?;
        }
        migrations::check(store.tree())?;
        // Before the steps: they know the tree alone. Pages are read and written here that the open
        // has not looked at, and sled panics at some kinds of damage.
        std::panic::catch_unwind(AssertUnwindSafe(|| store.replay()))
            .unwrap_or_else(|_| Err(SpoolError::Unreadable("replaying breaks down".to_owned())))
            .map_err(|error| match error {
                SpoolError::Corrupt(why) => SpoolError::Unreadable(why),
                other => other,
            })?;
        store.migrate()?;
        let bulletin = Arc::new(Bulletin::default());
        let disk = options.disk;
        let folder = BodyFolder::open(dir, disk, Arc::clone(&bulletin))?;
        let folder = Arc::new(folder);
        recover::recover(&store, &folder)?;
        let counters = recover::counters(&store)?;
        let store = Arc::new(store);
        let space = Arc::new(Space::new(dir, options.reserve, options.free_space));
        let writer = Writer::new(
            Arc::clone(&store),
            Arc::clone(&space),
            Arc::clone(&bulletin),
            Janitor::start(Arc::clone(&folder))?,
            counters,
        )?;
        let (requests, orders) = mpsc::channel();
        std::thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || writer.run(&orders))
            .map_err(|error| SpoolError::io("start a thread", error))?;
        let (store, requests) = (RwLock::new(Some(store)), RwLock::new(Some(requests)));
        Ok(SledSpool {
            store,
            requests,
            folder,
            space,
            bulletin,
            checking: Mutex::default(),
            ended,
        })
    }

    pub(super) fn store(&self) -> Result<Arc<Store>, SpoolError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or(SpoolError::Closed)
    }

    /// How many rows were read so far.
    #[cfg(test)]
    pub(crate) fn reads(&self) -> u64 {
        self.store().map_or(0, |store| store.reads())
    }

    /// The folders of body files.
    pub(super) fn folder(&self) -> &Arc<BodyFolder> {
        &self.folder
    }

    /// What became of a request that got no answer.
    pub(super) fn gone(&self) -> SpoolError {
        writer_gone(&self.bulletin)
    }

    pub(super) fn send(&self, request: Request) -> Result<(), SpoolError> {
        let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        let requests = requests.as_ref().ok_or(SpoolError::Closed)?;
        requests.send(request).map_err(|_| writer_gone(&self.bulletin))
    }

    /// Reads from the store. A row that cannot be read is set aside by the writer, then the read
    /// is repeated and does not meet it any more.
    async fn read<T>(
        &self,
        read: impl Fn(&Store) -> Result<T, ReadError> + Send,
    ) -> Result<T, SpoolError> {
        let mut left = READ_ATTEMPTS;
        loop {
            let result = read(&*self.store()?);
            let (key, reason) = match result {
                Ok(found) => return Ok(found),
                Err(ReadError::Failed(error)) => return Err(error),
                Err(ReadError::Unreadable { key, reason }) => (key, reason),
            };
            left -= 1;
            if left == 0 {
                let what = keys::describe(&key);
                return Err(SpoolError::Corrupt(format!("{what}: {reason}")));
            }
            let (reply, answer) = oneshot::channel();
            self.send(Request::Inspect { key, reply })?;
            // Without an answer the writer is gone, and the next look says what is to be said.
            let _ = answer.await;
        }
    }

    async fn body_row(&self, body: BodyId) -> Result<BodyRow, SpoolError> {
        self.read(|store| store.body(body)).await?.ok_or_else(|| missing(body))
    }

    /// The bytes of a body at `place`; `None` when they are not there (any more).
    async fn body_bytes(
        &self,
        body: BodyId,
        row: BodyRow,
    ) -> Result<Option<BodyReader>, SpoolError> {
        match row.place {
            BodyPlace::Inline { slot } => {
                let Some(bytes) = self.store()?.value(&keys::inline(slot))? else {
                    return Ok(None);
                };
                if bytes.first() != Some(&FORMAT) {
                    return Err(SpoolError::Corrupt(format!("body {body} has an unknown format")));
                }
                let bytes = io::Cursor::new(InlineBytes(bytes));
                let reader = Box::pin(Verified::new(bytes, body, row.size));
                Ok(Some(BodyReader { size: row.size, reader }))
            }
            BodyPlace::File { number } => {
                let folder = Arc::clone(&self.folder);
                let opened =
                    tokio::task::spawn_blocking(move || folder.open_file(body, number)).await;
                let file = match opened.unwrap_or_else(|error| Err(io::Error::other(error))) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(SpoolError::io(format!("open body {body}"), error)),
                };
                let mut file = tokio::fs::File::from_std(file);
                file.set_max_buf_size(READ_CHUNK);
                let reader = Box::pin(Verified::new(file, body, row.size));
                Ok(Some(BodyReader { size: row.size, reader }))
            }
        }
    }
}

/// Reads the value of an inline body without its format byte.
pub(super) fn inline_bytes(value: IVec) -> impl tokio::io::AsyncRead + Send + 'static {
    io::Cursor::new(InlineBytes(value))
}

/// The value of an inline body without its format byte.
struct InlineBytes(IVec);

impl AsRef<[u8]> for InlineBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }
}

fn missing(body: BodyId) -> SpoolError {
    SpoolError::Corrupt(format!("body {body} is missing"))
}

impl From<migrations::MigrationError> for SpoolError {
    fn from(error: migrations::MigrationError) -> Self {
        match error {
            migrations::MigrationError::Newer(found) => {
                SpoolError::NewerSchema { found, known: migrations::CURRENT }
            }
            migrations::MigrationError::Tree(error) => super::store::failed("migrate", error),
            other => SpoolError::Corrupt(other.to_string()),
        }
    }
}

#[async_trait]
impl Spool for SledSpool {
    async fn commit(&self, batch: Batch) -> Result<Durable, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Commit { batch, reply })?;
        answer.await.unwrap_or_else(|_| Err(writer_gone(&self.bulletin)))
    }

    async fn outbox(&self, entry: &EntryId) -> Result<Option<OutboxRecord>, SpoolError> {
        self.read(|store| store.record(&keys::outbox(entry))).await
    }

    async fn outbox_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError> {
        self.read(|store| store.page(keys::OUTBOX, after, limit)).await
    }

    async fn waiting_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError> {
        self.read(|store| store.waiting_page(after, limit)).await
    }

    async fn deferred_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError> {
        self.read(|store| store.deferred_page(after, limit)).await
    }

    async fn unsettled_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.store()?.unsettled_page(after, limit)
    }

    async fn queue_accounts(&self) -> Result<Vec<AccountKey>, SpoolError> {
        self.store()?.accounts()
    }

    async fn queue_of(
        &self,
        account: AccountKey,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.store()?.of_account(account, limit)
    }

    fn failure(&self) -> Option<SpoolError> {
        self.bulletin.poison()
    }

    async fn queue(&self, entry: &EntryId) -> Result<Option<QueueRecord>, SpoolError> {
        self.read(|store| store.record(&keys::queue(entry))).await
    }

    async fn queue_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, QueueRecord)>, SpoolError> {
        self.read(|store| store.page(keys::QUEUE, after, limit)).await
    }

    async fn due(
        &self,
        account: AccountKey,
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
    ) -> Result<DuePage, SpoolError> {
        self.store()?.due(account, now, limit, skip)
    }

    async fn done_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.store()?.done_page(account, after, limit)
    }

    async fn claimed_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.store()?.claimed_page(account, after, limit)
    }

    async fn expiring_page(
        &self,
        account: AccountKey,
        after: Option<&(SysTime, EntryId)>,
        limit: usize,
    ) -> Result<Vec<(SysTime, EntryId)>, SpoolError> {
        self.store()?.expiring_page(account, after, limit)
    }

    async fn history(&self, entry: &EntryId) -> Result<Option<HistoryRecord>, SpoolError> {
        self.read(|store| store.record(&keys::history(entry))).await
    }

    async fn history_ended_before(
        &self,
        before: SysTime,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.store()?.ended_before(before, limit)
    }

    async fn by_message_id(
        &self,
        message_id: &str,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.store()?.by_message_id(message_id, limit)
    }

    async fn known_between(
        &self,
        first: &EntryId,
        last: &EntryId,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.store()?.known_between(first, last, limit)
    }

    async fn cursor(
        &self,
        account: AccountKey,
        mailbox: &str,
    ) -> Result<Option<CursorRecord>, SpoolError> {
        self.read(|store| store.record(&keys::cursor(account, mailbox))).await
    }

    async fn delivered(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: [u8; 16],
    ) -> Result<u32, SpoolError> {
        let key = keys::delivered(account, mailbox, &digest);
        Ok(self.read(|store| store.record(&key)).await?.unwrap_or(0))
    }

    async fn delivered_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 16]>, SpoolError> {
        self.store()?.delivered_page(account, mailbox, limit)
    }

    async fn doubtful_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: Option<[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<([u8; 16], Origin)>, SpoolError> {
        self.store()?.doubtful_page(account, mailbox, digest.as_ref(), limit)
    }

    async fn fetched_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        from: Origin,
        limit: usize,
    ) -> Result<Vec<(u32, FetchedRecord)>, SpoolError> {
        self.read(|store| store.fetched_page(account, mailbox, from, limit)).await
    }

    async fn new_body(&self, size_hint: Option<u64>) -> Result<Box<dyn BodyWriter>, SpoolError> {
        self.store()?;
        if let Some(error) = self.bulletin.poison() {
            return Err(error);
        }
        let (folder, space) = (Arc::clone(&self.folder), Arc::clone(&self.space));
        Ok(Box::new(SpoolBodyWriter::new(folder, space, size_hint)?))
    }

    async fn open_body(&self, body: BodyId) -> Result<BodyReader, SpoolError> {
        // Between row and bytes the body may go and another with the same digest may come.
        for _ in 0..READ_ATTEMPTS {
            let row = self.body_row(body).await?;
            if let Some(reader) = self.body_bytes(body, row).await? {
                return Ok(reader);
            }
        }
        Err(missing(body))
    }

    async fn read_body(&self, body: BodyId, limit: u64) -> Result<Vec<u8>, SpoolError> {
        let BodyReader { size, mut reader } = self.open_body(body).await?;
        if size > limit {
            return Err(SpoolError::Corrupt(format!(
                "body {body} has {size} bytes, more than {limit}"
            )));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        match reader.read_to_end(&mut bytes).await {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(SpoolError::Corrupt(error.to_string()))
            }
            Err(error) => Err(SpoolError::io(format!("read body {body}"), error)),
        }
    }

    fn counts(&self) -> QueueCounts {
        self.bulletin.counters().into()
    }

    async fn quarantine(&self, limit: usize) -> Result<Vec<QuarantinedRecord>, SpoolError> {
        self.store()?.quarantine(None, limit).map(|(page, _)| page)
    }

    async fn close(&self) {
        // Without senders the writer ends behind what was sent, and drops the last of the store.
        *self.requests.write().unwrap_or_else(PoisonError::into_inner) = None;
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = None;
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}
