//! Makes outcomes durable: those of all connections share commits, and none is forgotten while
//! the process lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::flight::Flight;
use super::herald::News;
use super::schedule::{self, AttemptEnd, Rules};
use super::shared::Shared;
use crate::spool::{Batch, Expect, Op, QueueRecord, QueueState, RecipientState, SpoolError};

/// What reaches the recorder, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Landing {
    /// An attempt is over.
    Attempt { flight: Arc<Flight>, end: AttemptEnd },
    /// A connection has nothing left that moves: activity ends when that is recorded (ST-4), so
    /// that a logoff that waits for it has heard of every end (TN-9).
    Rest,
}

/// Most outcomes of one commit: bounds its size, and the harm of one row that refuses it.
const MAX_BATCH: usize = 256;
/// Between two tries to write to a spool that does not take it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A landing with the row it comes to.
struct Outcome {
    flight: Arc<Flight>,
    record: QueueRecord,
    /// Whether somebody should be told: the message ended, or some of its recipients failed.
    news: bool,
    /// Whether a server heard of it, so that a flush has done its part.
    tried: bool,
}

/// Records outcomes until every sender is gone.
pub(super) async fn run(shared: Arc<Shared>, mut landings: mpsc::UnboundedReceiver<Landing>) {
    let mut landed = Vec::with_capacity(MAX_BATCH);
    while landings.recv_many(&mut landed, MAX_BATCH).await > 0 {
        let mut rests = 0_usize;
        let mut outcomes = Vec::with_capacity(landed.len());
        for landing in landed.drain(..) {
            match landing {
                Landing::Attempt { flight, end } => outcomes.push(outcome(&shared, flight, end)),
                Landing::Rest => rests += 1,
            }
        }
        if !outcomes.is_empty() {
            record(&shared, outcomes).await;
        }
        (0..rests).for_each(|_| shared.end_moving());
    }
}

fn outcome(shared: &Shared, flight: Arc<Flight>, end: AttemptEnd) -> Outcome {
    let tried = !matches!(end, AttemptEnd::Untried(_) | AttemptEnd::Paused { .. });
    let mut record = flight.record().clone();
    let step = flight.notes().step(record.attempts, &end, shared.wall.now());
    step.into_iter().for_each(|step| record.trace.push(step));
    let health = shared.lane().health();
    schedule::conclude(&mut record, &flight.before, &end, Rules { health, ..shared.rules() });
    let attempt = record.attempts;
    let failed_now = record.envelope.recipients.iter().any(|recipient| {
        matches!(recipient.state, RecipientState::Failed { attempt: of, .. } if of == attempt)
    });
    let news = record.state == QueueState::Done || failed_now;
    Outcome { flight, record, news, tried }
}

/// Writes until everything is durable. The claims stand as long, so nothing is sent again.
async fn record(shared: &Arc<Shared>, outcomes: Vec<Outcome>) {
    let mut batch = Batch::new();
    outcomes.iter().for_each(|outcome| batch.push(put(outcome, outcome.record.revision)));
    match shared.spool.commit(batch).await {
        Ok(_durable) => outcomes.iter().for_each(|outcome| landed(shared, outcome)),
        Err(error) => {
            tracing::debug!(%error, "Outcomes are recorded one by one");
            for outcome in outcomes {
                record_one(shared, &outcome).await;
            }
        }
    }
    shared.wake.notify_one();
}

async fn record_one(shared: &Arc<Shared>, outcome: &Outcome) {
    let mut revision = outcome.record.revision;
    let mut pause = FIRST_PAUSE;
    let mut in_trouble = false;
    loop {
        let error = match shared.spool.commit(Batch::new().with(put(outcome, revision))).await {
            Ok(_durable) => break landed(shared, outcome),
            Err(SpoolError::Conflict(_)) => match claim_of(shared, outcome).await {
                Ok(Some(current)) => {
                    revision = current;
                    continue;
                }
                // The row is gone or somebody else's: the outcome has nowhere to go.
                Ok(None) => break shared.flights.land(&outcome.flight),
                Err(error) => error,
            },
            // What is on disk is due at its stored time.
            Err(SpoolError::Closed) => break shared.flights.land(&outcome.flight),
            Err(error) => error,
        };
        tracing::error!(entry = %outcome.flight.entry, %error, "An outcome could not be recorded");
        in_trouble = true;
        let next = shared.clock.now().saturating_add(pause);
        shared.storage_trouble(&error, next);
        shared.clock.sleep_until(next).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    if in_trouble {
        shared.storage_mended();
    }
}

/// The revision of the row if it still is our claim.
async fn claim_of(shared: &Shared, outcome: &Outcome) -> Result<Option<u64>, SpoolError> {
    let row = shared.spool.queue(&outcome.flight.entry).await?;
    Ok(row.and_then(|row| match row.state {
        QueueState::Claimed(lease) if lease.owner == shared.owner => Some(row.revision),
        _ => None,
    }))
}

fn put(outcome: &Outcome, revision: u64) -> Op {
    Op::PutQueue {
        entry: outcome.flight.entry.clone(),
        record: Box::new(outcome.record.clone()),
        expect: Expect::Revision(revision),
    }
}

fn landed(shared: &Shared, outcome: &Outcome) {
    let entry = &outcome.flight.entry;
    if outcome.record.state != QueueState::Done {
        let mut lane = shared.lane();
        if outcome.tried {
            lane.tried(entry);
        }
        // It is in the queue again, and may be older than what comes now.
        lane.stored(outcome.record.priority);
    }
    if outcome.tried {
        shared.events.attempted(match outcome.record.state {
            QueueState::Done => "finished",
            QueueState::InDoubt { .. } => "in_doubt",
            QueueState::Held => "held",
            QueueState::Due | QueueState::Claimed(_) | QueueState::Parked => "deferred",
        });
    }
    tracing::info!(
        transport = %shared.settings.transport,
        %entry,
        state = ?outcome.record.state,
        attempts = outcome.record.attempts,
        queue_id = %queue_ids(&outcome.record),
        why = %outcome.record.last_error,
        "An attempt is recorded"
    );
    // Told before it lands: a flush is over when nothing flies, and its ends come before it.
    if outcome.news {
        shared.herald.tell(News::SentDeferred(entry.clone()));
    }
    shared.flights.land(&outcome.flight);
}

/// Under which ids servers have the message, as far as they name them.
fn queue_ids(record: &QueueRecord) -> String {
    let mut ids: Vec<&str> = Vec::new();
    for recipient in &record.envelope.recipients {
        if let RecipientState::Delivered { reply, .. } = &recipient.state
            && let Some(id) = reply.queue_id()
            && !ids.contains(&id)
        {
            ids.push(id);
        }
    }
    ids.join(" ")
}
