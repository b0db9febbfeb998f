//! A spool that dies at a chosen commit, as a process would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::mapi::{EntryId, SysTime};
use crate::spool::{
    AccountKey, Batch, BodyId, BodyReader, BodyWriter, CursorRecord, DuePage, Durable,
    FetchedRecord, HistoryRecord, Origin, OutboxRecord, QuarantinedRecord, QueueCounts,
    QueueRecord, Spool, SpoolError,
};

/// Passes everything on to another spool, until so many batches were committed.
pub(super) struct Frozen {
    inner: Arc<dyn Spool>,
    left: AtomicU32,
    pub(super) commits: AtomicU32,
    /// How long a commit takes at least.
    pub(super) delay: Duration,
}

impl Frozen {
    pub(super) fn after(inner: Arc<dyn Spool>, commits: u32) -> Arc<Self> {
        Arc::new(Self::new(inner, commits, Duration::ZERO))
    }

    pub(super) fn slow(inner: Arc<dyn Spool>, delay: Duration) -> Arc<Self> {
        Arc::new(Self::new(inner, u32::MAX, delay))
    }

    fn new(inner: Arc<dyn Spool>, commits: u32, delay: Duration) -> Self {
        Frozen { inner, left: AtomicU32::new(commits), commits: AtomicU32::new(0), delay }
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

type Result<T> = std::result::Result<T, SpoolError>;

#[async_trait]
impl Spool for Frozen {
    async fn commit(&self, batch: Batch) -> Result<Durable> {
        let take = |left: u32| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return Err(SpoolError::Closed);
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        self.inner.commit(batch).await
    }
    async fn by_message_id(&self, message_id: &str, limit: usize) -> Result<Vec<EntryId>> {
        self.inner.by_message_id(message_id, limit).await
    }
    async fn known_between(
        &self,
        first: &EntryId,
        last: &EntryId,
        limit: usize,
    ) -> Result<Vec<EntryId>> {
        self.inner.known_between(first, last, limit).await
    }
    async fn cursor(&self, account: AccountKey, mailbox: &str) -> Result<Option<CursorRecord>> {
        self.inner.cursor(account, mailbox).await
    }
    async fn delivered(&self, account: AccountKey, mailbox: &str, d: [u8; 16]) -> Result<u32> {
        self.inner.delivered(account, mailbox, d).await
    }
    async fn delivered_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 16]>> {
        self.inner.delivered_page(account, mailbox, limit).await
    }
    async fn doubtful_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: Option<[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<([u8; 16], Origin)>> {
        self.inner.doubtful_page(account, mailbox, digest, limit).await
    }
    async fn fetched_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        from: Origin,
        limit: usize,
    ) -> Result<Vec<(u32, FetchedRecord)>> {
        self.inner.fetched_page(account, mailbox, from, limit).await
    }
    async fn outbox(&self, entry: &EntryId) -> Result<Option<OutboxRecord>> {
        self.inner.outbox(entry).await
    }
    async fn outbox_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>> {
        self.inner.outbox_page(after, limit).await
    }
    async fn waiting_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>> {
        self.inner.waiting_page(after, limit).await
    }
    async fn deferred_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>> {
        self.inner.deferred_page(after, limit).await
    }
    async fn unsettled_page(&self, after: Option<&EntryId>, limit: usize) -> Result<Vec<EntryId>> {
        self.inner.unsettled_page(after, limit).await
    }
    async fn queue_accounts(&self) -> Result<Vec<AccountKey>> {
        self.inner.queue_accounts().await
    }
    async fn queue_of(&self, account: AccountKey, limit: usize) -> Result<Vec<EntryId>> {
        self.inner.queue_of(account, limit).await
    }
    fn failure(&self) -> Option<SpoolError> {
        self.inner.failure()
    }
    async fn queue(&self, entry: &EntryId) -> Result<Option<QueueRecord>> {
        self.inner.queue(entry).await
    }
    async fn queue_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, QueueRecord)>> {
        self.inner.queue_page(after, limit).await
    }
    async fn due(
        &self,
        account: AccountKey,
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
    ) -> Result<DuePage> {
        self.inner.due(account, now, limit, skip).await
    }
    async fn done_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>> {
        self.inner.done_page(account, after, limit).await
    }
    async fn claimed_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>> {
        self.inner.claimed_page(account, after, limit).await
    }
    async fn expiring_page(
        &self,
        account: AccountKey,
        after: Option<&(SysTime, EntryId)>,
        limit: usize,
    ) -> Result<Vec<(SysTime, EntryId)>> {
        self.inner.expiring_page(account, after, limit).await
    }
    async fn history(&self, entry: &EntryId) -> Result<Option<HistoryRecord>> {
        self.inner.history(entry).await
    }
    async fn history_ended_before(&self, before: SysTime, limit: usize) -> Result<Vec<EntryId>> {
        self.inner.history_ended_before(before, limit).await
    }
    async fn new_body(&self, size_hint: Option<u64>) -> Result<Box<dyn BodyWriter>> {
        self.inner.new_body(size_hint).await
    }
    async fn open_body(&self, body: BodyId) -> Result<BodyReader> {
        self.inner.open_body(body).await
    }
    async fn read_body(&self, body: BodyId, limit: u64) -> Result<Vec<u8>> {
        self.inner.read_body(body, limit).await
    }
    fn counts(&self) -> QueueCounts {
        self.inner.counts()
    }
    async fn quarantine(&self, limit: usize) -> Result<Vec<QuarantinedRecord>> {
        self.inner.quarantine(limit).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
