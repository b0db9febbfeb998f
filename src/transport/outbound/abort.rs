//! What users and hosts do to queued messages: cancel, park, hold, release, retry.

use std::sync::Arc;
use std::time::Duration;

use super::expiry;
use super::flight::Flight;
use super::herald::News;
use super::progress::Stage;
use super::recovery::{is_in_flight, left_behind};
use super::reply::own_reply;
use super::shared::Shared;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, SysTime};
use crate::spool::{
    Batch, Expect, HistoryEnd, HistoryRecord, Op, QueueRecord, QueueState, RecipientState,
    SpoolError, Step, StepKind,
};

/// How a deferred message is taken from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abort {
    /// It leaves the queue for good (TN-17).
    Cancel,
    /// It is given back and waits for its message (TN-18).
    Park,
    /// The user keeps it from being sent.
    Hold,
}

/// How long the recorder may take over an outcome that is decided. It waits for the disk only,
/// never for a server.
const RECORDER_PATIENCE: Duration = Duration::from_secs(30);

/// How often a claim without a flight is looked at again: the one is made with the other, so that a
/// second look finds both or neither. No more, so that nothing can keep a caller for ever.
const LOOKS: usize = 100;

/// TN-17, TN-18. See [`Outbound::abort`](super::Outbound::abort).
pub(super) async fn abort(shared: &Arc<Shared>, entry: &EntryId, how: Abort) -> MapiResult<()> {
    let mut looks = 0;
    loop {
        let Some(flight) = shared.flights.of(entry) else {
            match abort_row(shared, entry, how, None).await {
                Err(SpoolError::Conflict(_)) if looks < LOOKS => {
                    looks += 1;
                    tokio::task::yield_now().await;
                    continue;
                }
                result => return result.map_err(MapiError::from)?,
            }
        };
        // A message on its way into the queue has its first claim before it has its row. Nobody was
        // told of it yet, and stopping the claim would only put the message off.
        if shared.spool.queue(entry).await?.is_none() {
            return Err(not_found(shared, entry));
        }
        match flight.progress.stop() {
            Ok(()) => {
                // Nobody else touches the row any more, but the claim itself may be on its way.
                let result = loop {
                    match abort_row(shared, entry, how, Some(&flight)).await {
                        Err(SpoolError::Conflict(_)) => tokio::task::yield_now().await,
                        result => break result,
                    }
                };
                shared.flights.land(&flight);
                shared.wake.notify_one();
                return result.map_err(MapiError::from)?;
            }
            Err(Stage::DotOut) => return Err(too_late(entry)),
            // Decided, though not on disk yet: no need to wait for that.
            Err(Stage::Over) if flight.record().is_conclusive() => return Err(too_late(entry)),
            Err(Stage::Over | Stage::Stopped | Stage::Stoppable) => {
                let landed = tokio::time::timeout(RECORDER_PATIENCE, flight.landed());
                if landed.await.is_err() {
                    let why = format!("the last attempt of {entry} cannot be recorded");
                    return Err(MapiError::new(MapiCode::DISK_ERROR, why));
                }
            }
        }
    }
}

/// Changes the row. `stopped` is a flight that was stopped: its recipients know more than the row,
/// and stopping it was no reason to put it off.
///
/// The outer error is the spool's, the inner one the answer.
async fn abort_row(
    shared: &Shared,
    entry: &EntryId,
    how: Abort,
    stopped: Option<&Flight>,
) -> Result<MapiResult<()>, SpoolError> {
    let Some(mut row) = shared.spool.queue(entry).await?.filter(|row| is_ours(shared, row)) else {
        return Ok(Err(not_found(shared, entry)));
    };
    if stopped.is_none() {
        if is_in_flight(shared, &row) {
            return Err(SpoolError::Conflict(format!("{entry} has just been claimed")));
        }
        if let Some(left) = left_behind(shared, &row) {
            row = left;
        }
    }
    if let Some(stopped) = stopped {
        let record = stopped.record();
        row.envelope = record.envelope.clone();
        row.last_error = record.last_error.clone();
        row.due = stopped.before.due;
        row.state = stopped.before.state.clone();
    }
    if row.state == QueueState::Done {
        return Ok(Err(too_late(entry)));
    }
    let (expect, now) = (Expect::Revision(row.revision), shared.clock.now());
    let in_doubt = row.may_be_delivered();
    let batch = match how {
        Abort::Cancel => Batch::new()
            .with(Op::DeleteQueue { entry: entry.clone(), expect })
            .with(Op::PutHistory { entry: entry.clone(), record: Box::new(cancelled(&row, now)) }),
        Abort::Park => {
            match row.state {
                QueueState::Due | QueueState::Claimed(_) => row.state = QueueState::Parked,
                // Its attempt was stopped: it is in doubt as before.
                QueueState::InDoubt { .. } if stopped.is_some() => {}
                // Nobody works on these, and what they say must outlive the logoff.
                QueueState::InDoubt { .. }
                | QueueState::Held
                | QueueState::Parked
                | QueueState::Done => return Ok(Ok(())),
            }
            row.trace.push(Step { at: now, what: StepKind::GivenBack });
            Batch::new().with(Op::PutQueue { entry: entry.clone(), record: Box::new(row), expect })
        }
        Abort::Hold => {
            if row.state == QueueState::Held {
                return Ok(Ok(()));
            }
            row.state = QueueState::Held;
            row.trace.push(Step { at: now, what: StepKind::Held });
            Batch::new().with(Op::PutQueue { entry: entry.clone(), record: Box::new(row), expect })
        }
    };
    shared.spool.commit(batch).await?;
    if how == Abort::Cancel && in_doubt {
        // The host learns by the answer that it may have been delivered, and by this that the
        // message has ended here all the same.
        shared.herald.tell(News::SentDeferred(entry.clone()));
        return Ok(Err(perhaps_delivered(entry)));
    }
    Ok(Ok(()))
}

/// The answer to the cancel of a message in doubt: it will not be sent again, and nobody can say
/// that it was not.
pub(crate) fn perhaps_delivered(entry: &EntryId) -> MapiError {
    let why = format!(
        "{entry} may have been delivered: the reply to its final dot was lost; it is not sent again"
    );
    MapiError::new(MapiCode::UNABLE_TO_ABORT, why)
}

/// The history of a message that is cancelled. Whom it may have reached although nobody knows is
/// kept as such.
pub(crate) fn cancelled(row: &QueueRecord, now: SysTime) -> HistoryRecord {
    let mut history = history(row, HistoryEnd::Cancelled, now);
    if row.may_be_delivered() {
        if !history.trace.was_in_doubt() {
            // Its attempt ended with its process, and nobody has met the row since.
            history
                .trace
                .push(Step { at: now, what: StepKind::LeftInDoubt { number: row.attempts } });
        }
        let open = history.envelope.recipients.iter_mut();
        for recipient in open.filter(|recipient| !recipient.state.is_conclusive()) {
            let words = format!("in doubt when it was cancelled; {}", row.last_error);
            recipient.state = RecipientState::Deferred { reply: own_reply("4.4.2", &words) };
        }
    }
    history
}

fn is_ours(shared: &Shared, row: &QueueRecord) -> bool {
    row.transport == shared.settings.transport
}

fn not_found(shared: &Shared, entry: &EntryId) -> MapiError {
    let why = format!("{entry} is not deferred by {}", shared.settings.transport);
    MapiError::new(MapiCode::NOT_FOUND, why)
}

fn too_late(entry: &EntryId) -> MapiError {
    let why = format!("the final dot of {entry} is out: only the server decides now");
    MapiError::new(MapiCode::UNABLE_TO_ABORT, why)
}

/// The history of a message that leaves the queue.
pub(super) fn history(row: &QueueRecord, end: HistoryEnd, now: SysTime) -> HistoryRecord {
    HistoryRecord {
        transport: row.transport.clone(),
        end,
        ended: now,
        submitted: row.submitted,
        attempts: row.attempts,
        envelope: row.envelope.clone(),
        subject: row.subject.clone(),
        message_id: row.message_id.clone(),
        size: row.size,
        trace: row.trace.clone(),
    }
}

/// What a user may do to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Release,
    Retry,
}

/// Grants a wish; `true` when the row changed.
pub(super) async fn grant(shared: &Arc<Shared>, entry: &EntryId, wish: Wish) -> MapiResult<bool> {
    let mut looks = 0;
    loop {
        if let Some(flight) = shared.flights.of(entry) {
            match flight.progress.stage() {
                // It is being tried at this moment.
                Stage::Stoppable | Stage::DotOut => return Ok(false),
                Stage::Over | Stage::Stopped => {
                    let landed = tokio::time::timeout(RECORDER_PATIENCE, flight.landed());
                    landed.await.map_err(|_| MapiError::from(MapiCode::DISK_ERROR))?;
                    continue;
                }
            }
        }
        let row = shared.spool.queue(entry).await?.filter(|row| is_ours(shared, row));
        let Some(row) = row else {
            let why = format!("{entry} is not in the queue of {}", shared.settings.transport);
            return Err(MapiError::new(MapiCode::NOT_IN_QUEUE, why));
        };
        if is_in_flight(shared, &row) {
            looks += 1;
            if looks > LOOKS {
                // Somebody works on it.
                return Ok(false);
            }
            tokio::task::yield_now().await;
            continue;
        }
        let row = left_behind(shared, &row).unwrap_or(row);
        let Some(changed) = granted(&row, wish, shared.clock.now()) else {
            return Ok(false);
        };
        let put = Op::PutQueue {
            entry: entry.clone(),
            record: Box::new(changed),
            expect: Expect::Revision(row.revision),
        };
        match shared.spool.commit(Batch::new().with(put)).await {
            Ok(_durable) => {
                expiry::watch(shared, entry, &row);
                return Ok(true);
            }
            Err(SpoolError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The row after a wish; `None` when there is nothing to change.
fn granted(row: &QueueRecord, wish: Wish, now: SysTime) -> Option<QueueRecord> {
    let state = match (wish, &row.state) {
        (Wish::Release, QueueState::Held | QueueState::InDoubt { resend: false, .. })
        | (Wish::Retry, QueueState::Due | QueueState::Claimed(_) | QueueState::InDoubt { .. }) => {
            QueueState::Due
        }
        _ => return None,
    };
    let what = match wish {
        Wish::Release => StepKind::Released,
        Wish::Retry => StepKind::Hurried,
    };
    let mut changed = QueueRecord { state, due: now, ..row.clone() };
    changed.trace.push(Step { at: now, what });
    Some(changed)
}

/// Rows looked at, and written, at once.
const PAGE: usize = 256;

/// Makes everything that waits for its time due now.
pub(super) async fn retry_all(shared: &Arc<Shared>) -> MapiResult<u64> {
    let (mut after, mut count): (Option<EntryId>, u64) = (None, 0);
    loop {
        let page = shared.spool.queue_page(after.as_ref(), PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        after = Some(last.clone());
        let now = shared.clock.now();
        let waiting: Vec<EntryId> = page
            .into_iter()
            .filter(|(entry, row)| {
                is_ours(shared, row)
                    && row.scheduled().is_some_and(|due| due > now)
                    && !shared.flights.has(entry)
            })
            .map(|(entry, _)| entry)
            .collect();
        // Together they share commits.
        let granted = waiting.iter().map(|entry| grant(shared, entry, Wish::Retry));
        for result in futures_util::future::join_all(granted).await {
            match result {
                Ok(changed) => count += u64::from(changed),
                // It ended meanwhile.
                Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => {}
                Err(error) => return Err(error),
            }
        }
    }
}
