//! The outgoing queue table over the spool (OB-14, OB-15).

use std::collections::HashSet;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncRead;
use tokio::sync::broadcast;

use super::object;
use super::outbox_message::OutboxMessage;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, PropList, SubmitFlags, SysTime, tags};
use crate::mime::{Defaults, compose};
use crate::spi::{Content, Message, OutgoingRow, OutgoingState};
use crate::spool::{
    Batch, Durable, Envelope, Expect, HistoryEnd, HistoryRecord, Op, OutboxRecord, OutboxState,
    QueueRecipient, RecipientState, Spool, SpoolError, StagedBody, Step, StepKind, Trace,
};

/// How often a change is tried again that met another one.
const TRIES: usize = 8;

/// Announcements kept for who is slow to hear them.
const ANNOUNCED: usize = 4096;

pub(super) struct Outbox {
    spool: Arc<dyn Spool>,
    added: broadcast::Sender<EntryId>,
    /// Messages some transport works on; gone with the process (OB-14).
    locked: Mutex<HashSet<EntryId>>,
}

impl Outbox {
    pub(super) fn new(spool: Arc<dyn Spool>) -> Self {
        Outbox { spool, added: broadcast::Sender::new(ANNOUNCED), locked: Mutex::default() }
    }

    pub(super) fn added(&self) -> broadcast::Receiver<EntryId> {
        self.added.subscribe()
    }

    fn announce(&self, entry: &EntryId) {
        // An error means that nobody listens.
        let _ = self.added.send(entry.clone());
    }

    /// Puts a new message; when this returns it is durable (SP-1).
    pub(super) async fn add(
        &self,
        entry: &EntryId,
        record: OutboxRecord,
        bodies: impl IntoIterator<Item = StagedBody>,
    ) -> MapiResult<Durable> {
        let batch = bodies.into_iter().fold(Batch::new(), Batch::with_body).with(Op::PutOutbox {
            entry: entry.clone(),
            record: Box::new(record),
            expect: Expect::Absent,
        });
        let durable = self.spool.commit(batch).await?;
        self.announce(entry);
        Ok(durable)
    }

    pub(super) async fn record(&self, entry: &EntryId) -> MapiResult<OutboxRecord> {
        self.spool.outbox(entry).await?.ok_or_else(|| not_in_queue(entry))
    }

    pub(super) async fn waiting(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>> {
        let page = self.spool.waiting_page(after, limit).await?;
        Ok(page.iter().map(|(entry, record)| row(entry, record)).collect())
    }

    pub(super) async fn deferred(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>> {
        let page = self.spool.deferred_page(after, limit).await?;
        Ok(page.iter().map(|(entry, record)| row(entry, record)).collect())
    }

    pub(super) async fn row(&self, entry: &EntryId) -> MapiResult<OutgoingRow> {
        Ok(row(entry, &self.record(entry).await?))
    }

    pub(super) async fn open_message(&self, entry: &EntryId) -> MapiResult<Arc<dyn Message>> {
        let record = self.spool.outbox(entry).await?.ok_or_else(|| not_found(entry))?;
        Ok(Arc::new(OutboxMessage::new(Arc::clone(&self.spool), entry.clone(), record)))
    }

    /// The RFC 5322 bytes of a message: those submitted, or composed now.
    pub(super) async fn content(&self, entry: &EntryId) -> MapiResult<Content> {
        let record = self.spool.outbox(entry).await?.ok_or_else(|| not_found(entry))?;
        self.content_of(&record).await
    }

    pub(super) async fn content_of(&self, record: &OutboxRecord) -> MapiResult<Content> {
        if let Some(body) = record.content {
            let reader = self.spool.open_body(body).await?;
            return Ok(Content { size: reader.size, digest: Some(body.0), reader: reader.reader });
        }
        let message = object::whole(record, self.spool.as_ref()).await?;
        // The submission has given it all of these.
        let defaults =
            Defaults { from: None, date: record.submitted, message_id: "<none@invalid>".into() };
        let bytes = compose(&message, &defaults)?;
        Ok(Content { size: bytes.len() as u64, digest: None, reader: Box::pin(Cursor::new(bytes)) })
    }

    pub(super) async fn set_lock_state(
        &self,
        entry: &EntryId,
        flags: SubmitFlags,
    ) -> MapiResult<()> {
        if !flags.contains(SubmitFlags::LOCKED) {
            self.unlock(entry);
            return Ok(());
        }
        if !self.locks().insert(entry.clone()) {
            return Err(busy(entry, "is locked by a call that runs"));
        }
        let mut unlock = Unlock { outbox: self, entry: Some(entry) };
        // Looked at under the lock, so that neither a hold nor an abort slips in between.
        if self.record(entry).await?.state == OutboxState::Held {
            return Err(busy(entry, "is on hold"));
        }
        unlock.entry = None;
        Ok(())
    }

    pub(super) fn unlock(&self, entry: &EntryId) {
        self.locks().remove(entry);
    }

    fn locks(&self) -> std::sync::MutexGuard<'_, HashSet<EntryId>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn set_deferred(
        &self,
        entry: &EntryId,
        transport: Option<&str>,
        now: SysTime,
    ) -> MapiResult<()> {
        let state = |record: &OutboxRecord| match (transport, &record.state) {
            (Some(transport), _) => OutboxState::Deferred { transport: transport.to_owned() },
            (None, OutboxState::Deferred { .. }) => waiting(&record.props, record.submitted, now),
            (None, state) => state.clone(),
        };
        self.change_state(entry, |record| Ok(state(record)), None).await?;
        if transport.is_none() {
            self.announce(entry);
        }
        Ok(())
    }

    pub(super) async fn hold(&self, entry: &EntryId, now: SysTime) -> MapiResult<()> {
        let held = |record: &OutboxRecord| match &record.state {
            OutboxState::Waiting { .. } | OutboxState::Held => Ok(OutboxState::Held),
            OutboxState::Deferred { transport } => {
                Err(unable(entry, &format!("is with the transport {transport}")))
            }
        };
        self.guarded(entry, self.change_state(entry, held, Some((now, StepKind::Held)))).await
    }

    /// Puts a message on hold, with the reason, when a body of it cannot be read whole.
    pub(super) async fn set_aside_if_damaged(&self, entry: &EntryId) -> MapiResult<bool> {
        let record = self.record(entry).await?;
        let mut damage = None;
        for body in record.bodies() {
            let read = match self.spool.open_body(body).await {
                Ok(body) => read_through(body.reader).await,
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(()) => {}
                Err(error) if error.code() == MapiCode::CORRUPT_DATA => damage = Some(error),
                Err(error) => return Err(error),
            }
        }
        let Some(damage) = damage else { return Ok(false) };
        let why = format!("{}: the stored message is damaged: {}", damage.code(), damage.detail());
        update(self.spool.as_ref(), entry, |record| {
            record.state = OutboxState::Held;
            record.props.set(tags::REPORT_TEXT, why.as_str());
            Ok(true)
        })
        .await?;
        Ok(true)
    }

    pub(super) async fn release(&self, entry: &EntryId, now: SysTime) -> MapiResult<()> {
        let released = |record: &OutboxRecord| {
            Ok(match &record.state {
                OutboxState::Held => waiting(&record.props, record.submitted, now),
                state => state.clone(),
            })
        };
        self.change_state(entry, released, Some((now, StepKind::Released))).await?;
        self.announce(entry);
        Ok(())
    }

    /// Removes a message no transport has, and keeps in mind that it was cancelled.
    pub(super) async fn abort_submit(&self, entry: &EntryId, now: SysTime) -> MapiResult<()> {
        self.guarded(entry, async {
            let record = self.record(entry).await?;
            if let OutboxState::Deferred { transport } = &record.state {
                return Err(unable(entry, &format!("is with the transport {transport}")));
            }
            let delete = Op::DeleteOutbox { entry: entry.clone(), expect: Expect::Any };
            let mut batch = Batch::new().with(delete);
            if self.spool.history(entry).await?.is_none() {
                let record = Box::new(cancelled(&record, now));
                batch.push(Op::PutHistory { entry: entry.clone(), record });
            }
            self.spool.commit(batch).await?;
            Ok(())
        })
        .await
    }

    /// Removes a message, together with its history where that is new; gone already is as good.
    pub(super) async fn delete(
        &self,
        entry: &EntryId,
        history: Option<HistoryRecord>,
    ) -> MapiResult<()> {
        let op = Op::DeleteOutbox { entry: entry.clone(), expect: Expect::Any };
        let mut batch = Batch::new().with(op);
        if let Some(record) = history {
            batch.push(Op::PutHistory { entry: entry.clone(), record: Box::new(record) });
        }
        self.spool.commit(batch).await?;
        Ok(())
    }

    /// Runs a change under the lock of the message, or refuses when someone works on it.
    async fn guarded(
        &self,
        entry: &EntryId,
        change: impl Future<Output = MapiResult<()>>,
    ) -> MapiResult<()> {
        if !self.locks().insert(entry.clone()) {
            return Err(unable(entry, "is being handed to a transport"));
        }
        let _unlock = Unlock { outbox: self, entry: Some(entry) };
        change.await
    }

    /// Changes the state of a row, again when someone else changed it meanwhile. The step is noted
    /// when the state is another one then.
    async fn change_state(
        &self,
        entry: &EntryId,
        state: impl Fn(&OutboxRecord) -> MapiResult<OutboxState>,
        step: Option<(SysTime, StepKind)>,
    ) -> MapiResult<()> {
        update(self.spool.as_ref(), entry, |record| {
            let state = state(record)?;
            let changed = record.state != state;
            record.state = state;
            if let (true, Some((at, what))) = (changed, step.clone()) {
                record.trace.push(Step { at, what });
            }
            Ok(changed)
        })
        .await
    }
}

/// Gives a lock back also when its future is dropped, unless it was told to keep it.
struct Unlock<'a> {
    outbox: &'a Outbox,
    entry: Option<&'a EntryId>,
}

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            self.outbox.unlock(entry);
        }
    }
}

/// Changes a row by `change`, which answers whether there is anything to be stored; again from
/// the row's new form when someone else changed it meanwhile.
pub(super) async fn update(
    spool: &dyn Spool,
    entry: &EntryId,
    change: impl Fn(&mut OutboxRecord) -> MapiResult<bool>,
) -> MapiResult<()> {
    for _ in 0..TRIES {
        let mut record = spool.outbox(entry).await?.ok_or_else(|| not_in_queue(entry))?;
        let expect = Expect::Revision(record.revision);
        if !change(&mut record)? {
            return Ok(());
        }
        let record = Box::new(record);
        let batch = Batch::new().with(Op::PutOutbox { entry: entry.clone(), record, expect });
        match spool.commit(batch).await {
            Ok(_) => return Ok(()),
            Err(SpoolError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(busy(entry, "is changed by others all the time"))
}

/// Reads a body to its end, where its digest is compared.
async fn read_through(mut reader: std::pin::Pin<Box<dyn AsyncRead + Send>>) -> MapiResult<()> {
    match tokio::io::copy(&mut reader, &mut tokio::io::sink()).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(MapiError::new(MapiCode::CORRUPT_DATA, error.to_string()))
        }
        Err(error) => Err(MapiError::new(MapiCode::DISK_ERROR, error.to_string())),
    }
}

/// The history of a message that was cancelled before a transport had it.
fn cancelled(record: &OutboxRecord, now: SysTime) -> HistoryRecord {
    let text = |tag| record.props.text(tag).map(str::to_owned);
    let recipients = record.recipients.iter().map(|recipient| QueueRecipient {
        row: recipient.row,
        address: recipient.address.clone(),
        state: RecipientState::Pending,
        notify: None,
    });
    HistoryRecord {
        transport: String::new(),
        end: HistoryEnd::Cancelled,
        ended: now,
        submitted: record.submitted,
        attempts: 0,
        envelope: Envelope {
            from: text(tags::ENVELOPE_SENDER)
                .or(text(tags::SENDER_EMAIL_ADDRESS))
                .unwrap_or_default(),
            recipients: recipients.collect(),
            ..Envelope::default()
        },
        subject: text(tags::SUBJECT).unwrap_or_default(),
        message_id: text(tags::INTERNET_MESSAGE_ID).unwrap_or_default(),
        size: record.size,
        trace: Trace::default(),
    }
}

fn row(entry: &EntryId, record: &OutboxRecord) -> OutgoingRow {
    let state = match &record.state {
        OutboxState::Waiting { not_before } => OutgoingState::Waiting { not_before: *not_before },
        OutboxState::Deferred { transport } => {
            OutgoingState::Deferred { transport: transport.clone() }
        }
        OutboxState::Held => OutgoingState::Waiting { not_before: SysTime::MAX },
    };
    OutgoingRow { entry: entry.clone(), submitted: record.submitted, state }
}

/// The state of a message that may be handed over from its deferred send time on (OB-19).
pub(super) fn waiting(props: &PropList, submitted: SysTime, now: SysTime) -> OutboxState {
    let computed =
        match (props.long(tags::DEFERRED_SEND_NUMBER), props.long(tags::DEFERRED_SEND_UNITS)) {
            (Some(number), Some(units)) => {
                interval(number, units).map(|interval| submitted.saturating_add(interval))
            }
            _ => None,
        };
    let not_before = computed
        .or(props.time(tags::DEFERRED_SEND_TIME))
        .filter(|time| *time > now)
        .unwrap_or(SysTime::EPOCH);
    OutboxState::Waiting { not_before }
}

/// NUMBER x UNITS; `None` for units that do not exist.
fn interval(number: i32, units: i32) -> Option<std::time::Duration> {
    let seconds: u64 = match units {
        0 => 60,
        1 => 60 * 60,
        2 => 24 * 60 * 60,
        3 => 7 * 24 * 60 * 60,
        _ => return None,
    };
    let number = u64::try_from(number).unwrap_or(0);
    Some(std::time::Duration::from_secs(number.saturating_mul(seconds)))
}

fn not_in_queue(entry: &EntryId) -> MapiError {
    let words = format!("the message {entry} is not in the outgoing queue (any more)");
    MapiError::new(MapiCode::NOT_IN_QUEUE, words)
}

fn not_found(entry: &EntryId) -> MapiError {
    MapiError::new(MapiCode::NOT_FOUND, format!("there is no message {entry} in the Outbox"))
}

fn busy(entry: &EntryId, why: &str) -> MapiError {
    MapiError::new(MapiCode::BUSY, format!("the message {entry} {why}"))
}

fn unable(entry: &EntryId, why: &str) -> MapiError {
    MapiError::new(MapiCode::UNABLE_TO_ABORT, format!("the message {entry} {why}"))
}
