//! A spool whose commits fail, or wait, when told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mapi::{EntryId, SysTime};
use crate::spool::{
    AccountKey, Batch, BodyId, BodyReader, BodyWriter, CursorRecord, DuePage, Durable,
    FetchedRecord, HistoryRecord, Origin, OutboxRecord, QuarantinedRecord, QueueCounts,
    QueueRecord, SledSpool, Spool, SpoolError,
};

type Make = Box<dyn Fn() -> SpoolError + Send>;

/// Fails commits whose batch shows a certain word, so many times.
pub(super) struct FaultySpool {
    inner: Arc<SledSpool>,
    fault: Mutex<Option<(&'static str, usize, Make)>>,
    hits: watch::Sender<usize>,
    commits: AtomicUsize,
    hold: Mutex<Option<Hold>>,
}

/// When a commit that is held waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before it reaches the disk.
    Before,
    /// When it is durable and nobody knows.
    After,
}

#[derive(Clone)]
struct Hold {
    word: &'static str,
    moment: Moment,
    reached: CancellationToken,
    released: CancellationToken,
}

/// Lets the commits that are held go when it is dropped.
pub(super) struct Held {
    reached: CancellationToken,
    _release: DropGuard,
}

impl Held {
    /// Waits until a commit is held.
    pub(super) async fn reached(&self) {
        tokio::time::timeout(super::rig::PATIENCE, self.reached.cancelled()).await.unwrap();
    }
}

impl FaultySpool {
    pub(super) fn new(inner: Arc<SledSpool>) -> Arc<Self> {
        Arc::new(FaultySpool {
            inner,
            fault: Mutex::new(None),
            hits: watch::Sender::new(0),
            commits: AtomicUsize::new(0),
            hold: Mutex::new(None),
        })
    }

    /// The next `times` commits that mention `word` fail.
    pub(super) fn fail(
        &self,
        word: &'static str,
        times: usize,
        error: impl Fn() -> SpoolError + Send + 'static,
    ) {
        *self.fault.lock().unwrap() = Some((word, times, Box::new(error)));
    }

    /// Commits that mention `word` wait as long as the answer is kept.
    pub(super) fn hold(&self, word: &'static str, moment: Moment) -> Held {
        let (reached, released) = (CancellationToken::new(), CancellationToken::new());
        let held = Held { reached: reached.clone(), _release: released.clone().drop_guard() };
        *self.hold.lock().unwrap() = Some(Hold { word, moment, reached, released });
        held
    }

    /// Waits until so many commits have failed in all.
    pub(super) async fn failed(&self, times: usize) {
        let mut hits = self.hits.subscribe();
        tokio::time::timeout(super::rig::PATIENCE, hits.wait_for(|hits| *hits >= times))
            .await
            .unwrap()
            .unwrap();
    }

    /// How many commits were tried that did not fail by order.
    pub(super) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    fn strike(&self, batch: &Batch) -> Option<SpoolError> {
        let mut fault = self.fault.lock().unwrap();
        let (word, left, make) = fault.as_mut()?;
        if *left == 0 || !format!("{batch:?}").contains(*word) {
            return None;
        }
        *left -= 1;
        self.hits.send_modify(|hits| *hits += 1);
        Some(make())
    }
}

#[async_trait]
impl Spool for FaultySpool {
    async fn commit(&self, batch: Batch) -> Result<Durable, SpoolError> {
        if let Some(error) = self.strike(&batch) {
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        let hold = self.hold.lock().unwrap().clone();
        let hold = hold.filter(|hold| format!("{batch:?}").contains(hold.word));
        let wait = |moment: Moment| {
            let hold = hold.clone().filter(|hold| hold.moment == moment);
            async move {
                if let Some(hold) = hold {
                    hold.reached.cancel();
                    hold.released.cancelled().await;
                }
            }
        };
        wait(Moment::Before).await;
        let done = self.inner.commit(batch).await;
        wait(Moment::After).await;
        done
    }

    async fn outbox(&self, entry: &EntryId) -> Result<Option<OutboxRecord>, SpoolError> {
        self.inner.outbox(entry).await
    }

    async fn outbox_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError> {
        self.inner.outbox_page(after, limit).await
    }

    async fn waiting_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError> {
        self.inner.waiting_page(after, limit).await
    }

    async fn deferred_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, SpoolError> {
        self.inner.deferred_page(after, limit).await
    }

    async fn unsettled_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.inner.unsettled_page(after, limit).await
    }

    async fn queue_accounts(&self) -> Result<Vec<AccountKey>, SpoolError> {
        self.inner.queue_accounts().await
    }

    async fn queue_of(
        &self,
        account: AccountKey,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.inner.queue_of(account, limit).await
    }

    fn failure(&self) -> Option<SpoolError> {
        self.inner.failure()
    }

    async fn queue(&self, entry: &EntryId) -> Result<Option<QueueRecord>, SpoolError> {
        self.inner.queue(entry).await
    }

    async fn queue_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, QueueRecord)>, SpoolError> {
        self.inner.queue_page(after, limit).await
    }

    async fn due(
        &self,
        account: AccountKey,
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
    ) -> Result<DuePage, SpoolError> {
        self.inner.due(account, now, limit, skip).await
    }

    async fn done_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.inner.done_page(account, after, limit).await
    }

    async fn claimed_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.inner.claimed_page(account, after, limit).await
    }

    async fn expiring_page(
        &self,
        account: AccountKey,
        after: Option<&(SysTime, EntryId)>,
        limit: usize,
    ) -> Result<Vec<(SysTime, EntryId)>, SpoolError> {
        self.inner.expiring_page(account, after, limit).await
    }

    async fn history(&self, entry: &EntryId) -> Result<Option<HistoryRecord>, SpoolError> {
        self.inner.history(entry).await
    }

    async fn history_ended_before(
        &self,
        before: SysTime,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.inner.history_ended_before(before, limit).await
    }

    async fn by_message_id(
        &self,
        message_id: &str,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.inner.by_message_id(message_id, limit).await
    }

    async fn known_between(
        &self,
        first: &EntryId,
        last: &EntryId,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.inner.known_between(first, last, limit).await
    }

    async fn cursor(
        &self,
        account: AccountKey,
        mailbox: &str,
    ) -> Result<Option<CursorRecord>, SpoolError> {
        self.inner.cursor(account, mailbox).await
    }

    async fn delivered(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: [u8; 16],
    ) -> Result<u32, SpoolError> {
        self.inner.delivered(account, mailbox, digest).await
    }
    async fn delivered_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 16]>, SpoolError> {
        self.inner.delivered_page(account, mailbox, limit).await
    }
    async fn doubtful_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: Option<[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<([u8; 16], Origin)>, SpoolError> {
        self.inner.doubtful_page(account, mailbox, digest, limit).await
    }
    async fn fetched_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        from: Origin,
        limit: usize,
    ) -> Result<Vec<(u32, FetchedRecord)>, SpoolError> {
        self.inner.fetched_page(account, mailbox, from, limit).await
    }

    async fn new_body(&self, size_hint: Option<u64>) -> Result<Box<dyn BodyWriter>, SpoolError> {
        self.inner.new_body(size_hint).await
    }

    async fn open_body(&self, body: BodyId) -> Result<BodyReader, SpoolError> {
        self.inner.open_body(body).await
    }

    async fn read_body(&self, body: BodyId, limit: u64) -> Result<Vec<u8>, SpoolError> {
        self.inner.read_body(body, limit).await
    }

    fn counts(&self) -> QueueCounts {
        self.inner.counts()
    }

    async fn quarantine(&self, limit: usize) -> Result<Vec<QuarantinedRecord>, SpoolError> {
        self.inner.quarantine(limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
