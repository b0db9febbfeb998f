//! A spool that passes everything on to another one, but for what a test has its own way with.

use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;

use crate::mapi::{EntryId, SysTime};
use crate::spool::{
    AccountKey, Batch, BodyId, BodyReader, BodyWriter, CursorRecord, DuePage, Durable,
    FetchedRecord, HistoryRecord, Origin, OutboxRecord, QuarantinedRecord, QueueCounts,
    QueueRecord, Spool, SpoolError,
};

type Result<T> = std::result::Result<T, SpoolError>;

/// What a test has its own way with.
#[async_trait]
pub(crate) trait Ways: Send + Sync + 'static {
    /// The spool that is wrapped.
    fn inner(&self) -> &Arc<dyn Spool>;

    /// [`Spool::commit`].
    async fn commit(&self, batch: Batch) -> Result<Durable>;

    /// [`Spool::open_body`].
    async fn open_body(&self, body: BodyId) -> Result<BodyReader> {
        self.inner().open_body(body).await
    }

    /// [`Spool::queue`].
    async fn queue(&self, entry: &EntryId) -> Result<Option<QueueRecord>> {
        self.inner().queue(entry).await
    }
}

/// A spool with such ways.
pub(crate) struct Wrapped<W>(pub(crate) W);

impl<W> Deref for Wrapped<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.0
    }
}

#[async_trait]
impl<W: Ways> Spool for Wrapped<W> {
    async fn commit(&self, batch: Batch) -> Result<Durable> {
        self.0.commit(batch).await
    }
    async fn open_body(&self, body: BodyId) -> Result<BodyReader> {
        self.0.open_body(body).await
    }
    async fn by_message_id(&self, message_id: &str, limit: usize) -> Result<Vec<EntryId>> {
        self.0.inner().by_message_id(message_id, limit).await
    }
    async fn known_between(
        &self,
        first: &EntryId,
        last: &EntryId,
        limit: usize,
    ) -> Result<Vec<EntryId>> {
        self.0.inner().known_between(first, last, limit).await
    }
    async fn cursor(&self, account: AccountKey, mailbox: &str) -> Result<Option<CursorRecord>> {
        self.0.inner().cursor(account, mailbox).await
    }
    async fn delivered(&self, account: AccountKey, mailbox: &str, d: [u8; 16]) -> Result<u32> {
        self.0.inner().delivered(account, mailbox, d).await
    }
    async fn delivered_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 16]>> {
        self.0.inner().delivered_page(account, mailbox, limit).await
    }
    async fn doubtful_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: Option<[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<([u8; 16], Origin)>> {
        self.0.inner().doubtful_page(account, mailbox, digest, limit).await
    }
    async fn fetched_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        from: Origin,
        limit: usize,
    ) -> Result<Vec<(u32, FetchedRecord)>> {
        self.0.inner().fetched_page(account, mailbox, from, limit).await
    }
    async fn outbox(&self, entry: &EntryId) -> Result<Option<OutboxRecord>> {
        self.0.inner().outbox(entry).await
    }
    async fn outbox_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>> {
        self.0.inner().outbox_page(after, limit).await
    }
    async fn waiting_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>> {
        self.0.inner().waiting_page(after, limit).await
    }
    async fn deferred_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>> {
        self.0.inner().deferred_page(after, limit).await
    }
    async fn unsettled_page(&self, after: Option<&EntryId>, limit: usize) -> Result<Vec<EntryId>> {
        self.0.inner().unsettled_page(after, limit).await
    }
    async fn queue_accounts(&self) -> Result<Vec<AccountKey>> {
        self.0.inner().queue_accounts().await
    }
    async fn queue_of(&self, account: AccountKey, limit: usize) -> Result<Vec<EntryId>> {
        self.0.inner().queue_of(account, limit).await
    }
    fn failure(&self) -> Option<SpoolError> {
        self.0.inner().failure()
    }
    async fn queue(&self, entry: &EntryId) -> Result<Option<QueueRecord>> {
        self.0.queue(entry).await
    }
    async fn queue_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, QueueRecord)>> {
        self.0.inner().queue_page(after, limit).await
    }
    async fn due(
        &self,
        account: AccountKey,
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
    ) -> Result<DuePage> {
        self.0.inner().due(account, now, limit, skip).await
    }
    async fn done_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>> {
        self.0.inner().done_page(account, after, limit).await
    }
    async fn claimed_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>> {
        self.0.inner().claimed_page(account, after, limit).await
    }
    async fn expiring_page(
        &self,
        account: AccountKey,
        after: Option<&(SysTime, EntryId)>,
        limit: usize,
    ) -> Result<Vec<(SysTime, EntryId)>> {
        self.0.inner().expiring_page(account, after, limit).await
    }
    async fn history(&self, entry: &EntryId) -> Result<Option<HistoryRecord>> {
        self.0.inner().history(entry).await
    }
    async fn history_ended_before(&self, before: SysTime, limit: usize) -> Result<Vec<EntryId>> {
        self.0.inner().history_ended_before(before, limit).await
    }
    async fn new_body(&self, size_hint: Option<u64>) -> Result<Box<dyn BodyWriter>> {
        self.0.inner().new_body(size_hint).await
    }
    async fn read_body(&self, body: BodyId, limit: u64) -> Result<Vec<u8>> {
        self.0.inner().read_body(body, limit).await
    }
    fn counts(&self) -> QueueCounts {
        self.0.inner().counts()
    }
    async fn quarantine(&self, limit: usize) -> Result<Vec<QuarantinedRecord>> {
        self.0.inner().quarantine(limit).await
    }
    async fn close(&self) {
        self.0.inner().close().await;
    }
}
