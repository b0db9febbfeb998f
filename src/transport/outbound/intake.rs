//! The inside of SubmitMessage: from a message object to a durable row of the queue.

mod content;
mod envelope;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::abort::{Abort, abort};
use super::claims::{self, Road};
use super::expiry;
use super::flight::Flight;
use super::herald::News;
use super::schedule::{self, Before};
use super::shared::Shared;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, Priority, SysTime, tags};
use crate::spi::{Message, SubmitError};
use crate::spool::{
    Batch, BodyKind, Expect, Expiry, HistoryEnd, HistoryRecord, Op, QueueRecord, QueueState,
    SpoolError, StagedBody, Step, StepKind, Trace,
};
use content::{ConvertError, Converted};
use envelope::Addressed;

/// What became of a message that was submitted.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is in the queue, durable (END_DONT_RESEND).
    Deferred,
    /// It was sent before and the host has forgotten: this is how it ended. Nothing is sent.
    Ended(Box<HistoryRecord>),
}

/// When a message that found the disk full is worth another try.
const DISK_FULL_WAIT: Duration = Duration::from_secs(30);
/// Longest subject that is kept, in characters.
const MAX_SUBJECT: usize = 200;

/// See [`Outbound::take`](super::Outbound::take).
pub(super) async fn take(
    shared: &Arc<Shared>,
    entry: EntryId,
    message: Arc<dyn Message>,
    cancel: CancellationToken,
) -> Result<Taken, SubmitError> {
    loop {
        if shared.lane().is_stopping() {
            return Err(MapiCode::END_OF_SESSION.into());
        }
        if let Some(taken) = known(shared, &entry).await.map_err(|e| refusal(shared, e))?? {
            return Ok(taken);
        }
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(MapiCode::CANCEL.into()),
            // Not MAPI_E_CANCEL, which would have the host forget the message.
            () = shared.end.cancelled() => return Err(MapiCode::END_OF_SESSION.into()),
            prepared = prepare(shared, &entry, message.as_ref()) => match prepared {
                Ok(prepared) => prepared,
                Err(ConvertError::Mapi(error)) => return Err(error.into()),
                Err(ConvertError::Spool(error)) => return Err(refusal(shared, error)),
            },
        };
        match store(shared, &entry, prepared).await {
            Ok(()) => break,
            // Somebody was faster with the same message.
            Err(SpoolError::Conflict(_)) => {}
            Err(error) => return Err(refusal(shared, error)),
        }
    }
    if cancel.is_cancelled() {
        match abort(shared, &entry, Abort::Cancel).await {
            Ok(()) => return Err(MapiCode::CANCEL.into()),
            // Past the final dot the outcome stands (TN-14).
            Err(error) if error.code() == MapiCode::UNABLE_TO_ABORT => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Taken::Deferred)
}

/// A message that was submitted before is answered from what is known of it.
async fn known(
    shared: &Arc<Shared>,
    entry: &EntryId,
) -> Result<Result<Option<Taken>, SubmitError>, SpoolError> {
    while let Some(mut row) = shared.spool.queue(entry).await? {
        if row.transport != shared.settings.transport {
            let why = format!("{entry} is in the queue of {}", row.transport);
            return Ok(Err(MapiError::new(MapiCode::BUSY, why).into()));
        }
        match row.state {
            QueueState::Parked => {
                // At its stored time: a restart is no reason to hurry a server that said later.
                row.state = QueueState::Due;
                row.trace.push(Step { at: shared.clock.now(), what: StepKind::TakenUp });
                expiry::watch(shared, entry, &row);
                let expect = Expect::Revision(row.revision);
                let put = Op::PutQueue { entry: entry.clone(), record: Box::new(row), expect };
                match shared.spool.commit(Batch::new().with(put)).await {
                    Ok(_durable) => {
                        shared.lane().new_work();
                        shared.wake.notify_one();
                    }
                    Err(SpoolError::Conflict(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            // The host did not hear of it, or forgot.
            QueueState::Done => shared.herald.tell(News::SentDeferred(entry.clone())),
            QueueState::Due
            | QueueState::Claimed(_)
            | QueueState::InDoubt { .. }
            | QueueState::Held => {}
        }
        return Ok(Ok(Some(Taken::Deferred)));
    }
    Ok(match shared.spool.history(entry).await? {
        Some(history) if history.end == HistoryEnd::Cancelled => Err(MapiCode::CANCEL.into()),
        Some(history) if history.transport == shared.settings.transport => {
            Ok(Some(Taken::Ended(Box::new(history))))
        }
        // It ended with another transport, which left some recipients to us (AT-3).
        Some(_) | None => Ok(None),
    })
}

/// A row ready to be stored.
struct Prepared {
    record: QueueRecord,
    staged: Option<StagedBody>,
}

async fn prepare(
    shared: &Arc<Shared>,
    entry: &EntryId,
    message: &dyn Message,
) -> Result<Prepared, ConvertError> {
    let now = shared.clock.now();
    let recipients = message.recipients().await?;
    let mut props = message.props().await?;
    let identity = &shared.settings.identity;
    let addressed = Addressed::new(entry, &props, &recipients, identity, now)?;
    envelope::stamp(&mut props, identity, now);
    // The host saves the message if it likes to; the queue does not depend on it (OB-8, OB-13).
    if let Err(error) = message.set_props(props.clone()).await {
        tracing::debug!(%entry, %error, "The message does not take the sender's properties");
    }
    let Converted { staged, body, size, subject, message_id, eight_bit, smtputf8 } =
        content::convert(shared, entry, message, &props, &recipients, addressed.smtputf8, now)
            .await?;
    let submitted = props.time(tags::CLIENT_SUBMIT_TIME).unwrap_or(now);
    let end_of_life = submitted.saturating_add(shared.settings.queue.lifetime);
    let own_expiry = props.time(tags::EXPIRY_TIME).filter(|time| *time < end_of_life);
    let mut envelope = addressed.envelope;
    envelope.smtputf8 = smtputf8;
    envelope.body = if eight_bit { BodyKind::EightBit } else { BodyKind::SevenBit };
    let mut record = QueueRecord {
        revision: 0,
        transport: shared.settings.transport.clone(),
        state: QueueState::Due,
        priority: Priority::lane(&props),
        submitted,
        expires: own_expiry.unwrap_or(end_of_life),
        expiry: if own_expiry.is_some() { Expiry::Own } else { Expiry::Lifetime },
        // Due by the time of submission, which is the order in which messages leave.
        due: submitted.min(now),
        attempts: 0,
        envelope,
        body,
        size,
        subject: subject.chars().take(MAX_SUBJECT).collect(),
        message_id,
        last_error: String::new(),
        trace: Trace::of(now, StepKind::Accepted { transport: shared.settings.transport.clone() }),
    };
    if schedule::is_unwanted(&record, now) {
        schedule::expire(&mut record, shared.rules());
    }
    if record.is_conclusive() {
        record.state = QueueState::Done;
    }
    Ok(Prepared { record, staged })
}

/// Makes the row durable, with the first claim in the same commit when a connection can have it.
async fn store(
    shared: &Arc<Shared>,
    entry: &EntryId,
    prepared: Prepared,
) -> Result<(), SpoolError> {
    let Prepared { mut record, staged } = prepared;
    let done = record.state == QueueState::Done;
    let claimed = if done { None } else { first_claim(shared, entry, &mut record) };
    if !done {
        expiry::watch(shared, entry, &record);
    }
    let priority = record.priority;
    let mut batch = Batch::new();
    batch.push(Op::PutQueue {
        entry: entry.clone(),
        record: Box::new(record),
        expect: Expect::Absent,
    });
    if let Some(staged) = staged {
        batch = batch.with_body(staged);
    }
    let stored = shared.spool.commit(batch).await;
    match (&stored, claimed) {
        (Ok(_durable), Some(flight)) => {
            shared.line_up(flight);
        }
        (Ok(_durable), None) => {
            let mut lane = shared.lane();
            if done {
                shared.herald.tell(News::SentDeferred(entry.clone()));
            } else {
                // Nothing that comes now may overtake it on its way from the queue.
                lane.stored(priority);
            }
            lane.new_work();
        }
        (Err(_), Some(flight)) => shared.flights.land(&flight),
        (Err(_), None) => {}
    }
    shared.wake.notify_one();
    stored.map(drop)
}

/// Claims a message that is being accepted, when it is its turn. What is younger than others on
/// their way waits in the queue, where the claims follow the order of submission (OB-14).
fn first_claim(
    shared: &Arc<Shared>,
    entry: &EntryId,
    record: &mut QueueRecord,
) -> Option<Arc<Flight>> {
    // Held until the flight is known, so that no gate closes and opens in between.
    let lane = shared.lane();
    let may = lane.may_claim_new(shared.clock.now());
    if !may || shared.oldest_on_its_way().is_some_and(|oldest| *entry > oldest) {
        return None;
    }
    let before = Before { state: QueueState::Due, due: record.due };
    let mut claimed = record.clone();
    claims::claim(shared, &mut claimed, Road::of(&lane));
    // What the row is stored with: it has none before.
    claimed.revision = 1;
    let flight = Flight::new(entry.clone(), before, claimed.clone());
    shared.flights.add(&flight).then(|| {
        *record = claimed;
        flight
    })
}

/// A spool that takes nothing more now is a reason to wait (OB-7); anything else is an error.
fn refusal(shared: &Shared, error: SpoolError) -> SubmitError {
    shared.is_spool_lost(&error);
    match error {
        SpoolError::DiskFull { .. } => {
            shared.refused.store(true, std::sync::atomic::Ordering::SeqCst);
            SubmitError {
                error: MapiError::new(MapiCode::WAIT, error.to_string()),
                retry_after: Some(DISK_FULL_WAIT),
            }
        }
        other => MapiError::from(other).into(),
    }
}

/// Ends a message whose outcome the host has (S3 to S4). Idempotent.
pub(super) async fn settle(shared: &Arc<Shared>, entry: &EntryId) -> MapiResult<()> {
    loop {
        let Some(row) = shared.spool.queue(entry).await? else { return Ok(()) };
        if row.state != QueueState::Done {
            let why = format!("{entry} has not ended yet");
            return Err(MapiError::new(MapiCode::BUSY, why));
        }
        let now: SysTime = shared.clock.now();
        let mut history = super::abort::history(&row, HistoryEnd::Finished, now);
        if let Some(earlier) = shared.spool.history(entry).await? {
            // Another transport had some of them before (AT-3).
            let ours = history.envelope.recipients.len();
            for other in earlier.envelope.recipients {
                let known = history.envelope.recipients.get(..ours).unwrap_or_default();
                if !known.iter().any(|recipient| recipient.row == other.row) {
                    history.envelope.recipients.push(other);
                }
            }
        }
        let batch = Batch::new()
            .with(Op::DeleteQueue { entry: entry.clone(), expect: Expect::Revision(row.revision) })
            .with(Op::PutHistory { entry: entry.clone(), record: Box::new(history) });
        match shared.spool.commit(batch).await {
            Ok(_durable) => {
                if shared.refused.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    shared.herald.tell(News::ReadyToSend);
                }
                return Ok(());
            }
            Err(SpoolError::Conflict(_)) => {}
            Err(error) => {
                shared.is_spool_lost(&error);
                return Err(error.into());
            }
        }
    }
}
