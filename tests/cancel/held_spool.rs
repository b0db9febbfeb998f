//! A spool that keeps those who commit something, or read a body, until they are let go: the
//! points of a message's way at which it is with the disk.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use postrider::mapi::{EntryId, SysTime};
use postrider::spool::{
    AccountKey, Batch, BodyId, BodyReader, BodyWriter, CursorRecord, DuePage, Durable, Expect,
    FetchedRecord, HistoryRecord, Op, Origin, OutboxRecord, QuarantinedRecord, QueueCounts,
    QueueRecord, QueueState, Spool, SpoolError,
};
use tokio::io::AsyncReadExt;

use crate::foreign_message::Hold;

/// The place at which it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A transport puts a message into its queue.
    Accept,
    /// The outcome of a message.
    Outcome,
    /// The end of a message the host was told of.
    Settle,
    /// How far a mailbox is fetched, with a message that was saved.
    Cursor,
    /// So many bytes of a body are read.
    Body(u64),
    /// All of a body but its last byte is read.
    EndOfBody,
}

/// Passes everything on to another spool.
pub(crate) struct HeldSpool {
    inner: Arc<dyn Spool>,
    place: Mutex<Option<(Place, Hold)>>,
}

impl HeldSpool {
    pub(crate) fn before(inner: Arc<dyn Spool>) -> Arc<Self> {
        Arc::new(HeldSpool { inner, place: Mutex::default() })
    }

    /// Keeps the next one who comes to `place`; instead of what was asked for before.
    pub(crate) fn hold(&self, place: Place) -> Hold {
        let hold = Hold::default();
        *self.place() = Some((place, hold.clone()));
        hold
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<(Place, Hold)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, is_it: impl Fn(Place) -> bool) -> Option<(Place, Hold)> {
        self.place().take_if(|(place, _)| is_it(*place))
    }
}

fn concerns(op: &Op, place: Place) -> bool {
    match (op, place) {
        (Op::PutQueue { expect, .. }, Place::Accept) => *expect == Expect::Absent,
        (Op::PutQueue { record, .. }, Place::Outcome) => record.state == QueueState::Done,
        (Op::DeleteQueue { .. }, Place::Settle) => true,
        (Op::PutCursor { record, .. }, Place::Cursor) => record.last_uid > 0,
        _ => false,
    }
}

type Result<T> = std::result::Result<T, SpoolError>;

#[async_trait]
impl Spool for HeldSpool {
    async fn commit(&self, batch: Batch) -> Result<Durable> {
        let held = self.take(|place| batch.ops().iter().any(|op| concerns(op, place)));
        if let Some((_, hold)) = held {
            hold.stop().await;
        }
        self.inner.commit(batch).await
    }

    async fn open_body(&self, body: BodyId) -> Result<BodyReader> {
        let BodyReader { size, reader } = self.inner.open_body(body).await?;
        // Until someone has read so far: a body is also opened to see whether it is there.
        let held = self.place().clone().filter(|(_, hold)| !hold.reached.is_cancelled());
        let (at, hold) = match held {
            Some((Place::Body(at), hold)) => (at, hold),
            Some((Place::EndOfBody, hold)) => (size - 1, hold),
            _ => return Ok(BodyReader { size, reader }),
        };
        // The first part has to be read to its end before the second can be.
        let mut reader = reader;
        let mut first = vec![0; usize::try_from(at).unwrap()];
        reader.read_exact(&mut first).await.unwrap();
        let held = std::io::Cursor::new(first).chain(hold.reader());
        Ok(BodyReader { size, reader: Box::pin(held.chain(reader)) })
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
    fn failure(&self) -> Option<SpoolError> {
        self.inner.failure()
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
    async fn history(&self, entry: &EntryId) -> Result<Option<HistoryRecord>> {
        self.inner.history(entry).await
    }
    async fn history_ended_before(&self, before: SysTime, limit: usize) -> Result<Vec<EntryId>> {
        self.inner.history_ended_before(before, limit).await
    }
    async fn new_body(&self, size_hint: Option<u64>) -> Result<Box<dyn BodyWriter>> {
        self.inner.new_body(size_hint).await
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
