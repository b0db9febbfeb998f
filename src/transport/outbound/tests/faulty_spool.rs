//! A spool whose commits fail when told to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

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
}

impl FaultySpool {
    pub(super) fn new(inner: Arc<SledSpool>) -> Arc<Self> {
        Arc::new(FaultySpool { inner, fault: Mutex::new(None), hits: watch::Sender::new(0) })
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

    /// Waits until so many commits have failed in all.
    pub(super) async fn failed(&self, times: usize) {
        let mut hits = self.hits.subscribe();
        tokio::time::timeout(super::rig::PATIENCE, hits.wait_for(|hits| *hits >= times))
            .await
            .unwrap()
            .unwrap();
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
        self.inner.commit(batch).await
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
