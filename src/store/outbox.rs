//! The outgoing queue table over the spool (OB-14, OB-15).

use std::collections::{BTreeSet, HashSet};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncRead;
use tokio::sync::broadcast;

use super::entry_ids::EntryIds;
use super::object;
use super::outbox_message::OutboxMessage;
use crate::clock::Clock;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, PropList, SubmitFlags, SysTime, tags};
use crate::mime::{Defaults, compose};
use crate::spi::{Content, Message, OutgoingRow, OutgoingState};
use crate::spool::{
    Batch, Durable, Expect, HistoryEnd, HistoryRecord, Op, OutboxRecord, OutboxState, Spool,
    SpoolError, StagedBody, Step, StepKind,
};

/// How often a change is tried again that met another one.
const TRIES: usize = 8;

/// Announcements kept for who is slow to hear them.
const ANNOUNCED: usize = 4096;

pub(super) struct Outbox {
    spool: Arc<dyn Spool>,
    added: broadcast::Sender<EntryId>,
    turnstile: Mutex<Turnstile>,
    /// Messages some transport works on; gone with the process (OB-14).
    locked: Mutex<HashSet<EntryId>>,
}

/// New messages on their way to the disk. None is seen in the table before those that were
/// submitted earlier, whatever the order in which their commits end (OB-14).
#[derive(Debug, Default)]
struct Turnstile {
    entering: BTreeSet<EntryId>,
    /// Durable, and not announced because an older one is still entering.
    waiting: BTreeSet<EntryId>,
}

/// A new message's place among those that enter; it is given up when this is dropped.
pub(super) struct Entering<'a> {
    outbox: &'a Outbox,
    entry: EntryId,
    /// Nothing was stored.
    failed: bool,
}

impl Entering<'_> {
    pub(super) fn entry(&self) -> &EntryId {
        &self.entry
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        let mut turnstile = self.outbox.turnstile();
        turnstile.entering.remove(&self.entry);
        if !self.failed {
            turnstile.waiting.insert(self.entry.clone());
        }
        let oldest = turnstile.entering.first().cloned();
        while let Some(next) = turnstile.waiting.first()
            && oldest.as_ref().is_none_or(|oldest| next < oldest)
            && let Some(next) = turnstile.waiting.pop_first()
        {
            // Under the lock, so that they are announced in their order.
            self.outbox.announce(&next);
        }
    }
}

impl Outbox {
    pub(super) fn new(spool: Arc<dyn Spool>) -> Self {
        Outbox {
            spool,
            added: broadcast::Sender::new(ANNOUNCED),
            turnstile: Mutex::default(),
            locked: Mutex::default(),
        }
    }

    fn turnstile(&self) -> MutexGuard<'_, Turnstile> {
        self.turnstile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the entry id of a new message, with the time of its submission. To be followed by
    /// [`Outbox::add`] at once: what is younger is not seen meanwhile.
    pub(super) fn enter(&self, entries: &EntryIds, clock: &dyn Clock) -> (Entering<'_>, SysTime) {
        let (entry, now) = entries.next(clock, |entry| {
            self.turnstile().entering.insert(entry.clone());
        });
        (Entering { outbox: self, entry, failed: false }, now)
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
        mut place: Entering<'_>,
        record: OutboxRecord,
        bodies: impl IntoIterator<Item = StagedBody>,
    ) -> MapiResult<Durable> {
        let batch = bodies.into_iter().fold(Batch::new(), Batch::with_body).with(Op::PutOutbox {
            entry: place.entry.clone(),
            record: Box::new(record),
            expect: Expect::Absent,
        });
        let stored = self.spool.commit(batch).await;
        place.failed = stored.is_err();
        Ok(stored?)
    }

    pub(super) async fn record(&self, entry: &EntryId) -> MapiResult<OutboxRecord> {
        self.spool.outbox(entry).await?.ok_or_else(|| not_in_queue(entry))
    }

    pub(super) async fn waiting(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>> {
        // Looked at before the table, so that none slips in between.
        let entering = self.turnstile().entering.first().cloned();
        let page = self.spool.waiting_page(after, limit).await?;
        let seen = |entry: &EntryId| entering.as_ref().is_none_or(|entering| entry < entering);
        let mut rows = Vec::with_capacity(page.len());
        for (entry, record) in page.iter().filter(|(entry, _)| seen(entry)) {
            rows.push(self.waiting_row(entry, record).await?);
        }
        Ok(rows)
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
        self.waiting_row(entry, &self.record(entry).await?).await
    }

    /// The row with its expiry, which a transport that has the message looks after itself.
    async fn waiting_row(&self, entry: &EntryId, record: &OutboxRecord) -> MapiResult<OutgoingRow> {
        let mut row = row(entry, record);
        let expires = match record.state {
            OutboxState::Waiting { .. } => record.props.time(tags::EXPIRY_TIME),
            OutboxState::Deferred { .. } | OutboxState::Held => None,
        };
        if expires.is_some() && self.spool.queue(entry).await?.is_none() {
            row.expires = expires;
        }
        Ok(row)
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
            let history = match self.spool.history(entry).await? {
                None => Some(record.history(HistoryEnd::Cancelled, now)),
                Some(known) => with_others(known, &record, now),
            };
            if let Some(history) = history {
                let record = Box::new(history);
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

/// A history together with the recipients it does not list, if there are any.
fn with_others(
    mut history: HistoryRecord,
    record: &OutboxRecord,
    now: SysTime,
) -> Option<HistoryRecord> {
    let others = record.others(&history.envelope.recipients, now);
    if others.is_empty() {
        return None;
    }
    history.envelope.recipients.extend(others);
    history.envelope.recipients.sort_by_key(|recipient| recipient.row);
    Some(history)
}

fn row(entry: &EntryId, record: &OutboxRecord) -> OutgoingRow {
    let state = match &record.state {
        OutboxState::Waiting { not_before } => OutgoingState::Waiting { not_before: *not_before },
        OutboxState::Deferred { transport } => {
            OutgoingState::Deferred { transport: transport.clone() }
        }
        OutboxState::Held => OutgoingState::Waiting { not_before: SysTime::MAX },
    };
    OutgoingRow { entry: entry.clone(), submitted: record.submitted, state, expires: None }
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
