//! Claiming what is due: attempt + 1, the time it is due again if this process dies, a lease; all
//! durable before a socket is opened, and many in one commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::flight::Flight;
use super::herald::News;
use super::schedule::{self, Before, retry_delay};
use super::shared::Shared;
use crate::mapi::{EntryId, SysTime};
use crate::spool::{Batch, Expect, Lease, Op, QueueRecord, QueueState, SpoolError};

/// What a look at the queue came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claimed {
    /// More was due than asked for.
    pub(super) more: bool,
    /// Something was found that is due.
    pub(super) any: bool,
    /// Something is due and waits for an older message that is not in the queue yet.
    pub(super) held: bool,
    /// When the next one will be due.
    pub(super) next: Option<SysTime>,
}

/// A claim on its way to the disk.
struct Claim {
    flight: Arc<Flight>,
    /// The revision it was decided on.
    revision: u64,
    /// Given up instead of sent: nothing is left to do but to write it.
    expired: bool,
}

/// Makes the record of a claim: what is durable before the connection.
pub(super) fn claim(shared: &Shared, record: &mut QueueRecord) {
    let rules = shared.rules();
    record.attempts = record.attempts.saturating_add(1);
    let delay = retry_delay(&rules.queue.retry, record.attempts, rules.unit);
    record.due = rules.now.saturating_add(delay);
    record.state = QueueState::Claimed(Lease {
        owner: shared.owner,
        expires: shared.lease_until(record.envelope.recipients.len(), record.size),
    });
}

/// Claims up to `limit` messages and puts them in line.
///
/// # Errors
/// Those of the spool; nothing is claimed then.
pub(super) async fn claim_due(shared: &Arc<Shared>, limit: usize) -> Result<Claimed, SpoolError> {
    let flushing = shared.lane().is_flushing();
    let until = if flushing { SysTime::MAX } else { shared.clock.now() };
    let oldest = shared.entering.oldest();
    let held = AtomicBool::new(false);
    let skip = |entry: &EntryId| {
        if shared.flights.has(entry) || shared.lane().was_tried(entry) {
            return true;
        }
        let younger = oldest.as_ref().is_some_and(|oldest| entry > oldest);
        held.fetch_or(younger, Ordering::Relaxed);
        younger
    };
    let page = shared.spool.due(shared.account, until, limit, &skip).await?;
    let mut claimed = Claimed {
        more: page.entries.len() >= limit,
        any: !page.entries.is_empty(),
        held: held.load(Ordering::Relaxed),
        next: page.next,
    };
    let mut claims = Vec::with_capacity(page.entries.len());
    for entry in page.entries {
        match decide(shared, &entry).await? {
            Some(claim) => claims.push(claim),
            // The index knows it and the row does not: looked at again after the next change.
            None => claimed.more = false,
        }
    }
    commit(shared, claims).await?;
    Ok(claimed)
}

/// Looks at one row and decides what becomes of it.
async fn decide(shared: &Arc<Shared>, entry: &EntryId) -> Result<Option<Claim>, SpoolError> {
    let Some(row) = shared.spool.queue(entry).await? else { return Ok(None) };
    let before = match &row.state {
        // One process owns the spool, so the lease of another is of one that died: its message is
        // due at the stored time, and the attempt counts.
        QueueState::Claimed(_) => QueueState::Due,
        QueueState::Due | QueueState::InDoubt { resend: true, .. } => row.state.clone(),
        QueueState::InDoubt { resend: false, .. }
        | QueueState::Held
        | QueueState::Parked
        | QueueState::Done => return Ok(None),
    };
    let revision = row.revision;
    let before = Before { state: before, due: row.due };
    let mut record = row;
    let expired = schedule::is_unwanted(&record, &shared.settings.queue, shared.clock.now());
    if expired {
        record.state = before.state.clone();
        schedule::expire(&mut record, shared.rules());
    } else {
        claim(shared, &mut record);
    }
    record.revision = revision.saturating_add(1);
    let flight = Flight::new(entry.clone(), before, record);
    if !shared.flights.add(&flight) {
        return Ok(None);
    }
    Ok(Some(Claim { flight, revision, expired }))
}

/// Makes claims durable: together, and one by one when a row has changed meanwhile.
async fn commit(shared: &Arc<Shared>, claims: Vec<Claim>) -> Result<(), SpoolError> {
    if claims.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    claims.iter().for_each(|claim| batch.push(put(claim)));
    match shared.spool.commit(batch).await {
        Ok(_durable) => {
            claims.into_iter().for_each(|claim| line_up(shared, claim));
            Ok(())
        }
        Err(SpoolError::Conflict(_)) => {
            let mut last = Ok(());
            for claim in claims {
                match shared.spool.commit(Batch::new().with(put(&claim))).await {
                    Ok(_durable) => line_up(shared, claim),
                    Err(SpoolError::Conflict(_)) => shared.flights.land(&claim.flight),
                    Err(error) => {
                        shared.flights.land(&claim.flight);
                        last = Err(error);
                    }
                }
            }
            last
        }
        Err(error) => {
            claims.iter().for_each(|claim| shared.flights.land(&claim.flight));
            Err(error)
        }
    }
}

fn put(claim: &Claim) -> Op {
    Op::PutQueue {
        entry: claim.flight.entry.clone(),
        record: Box::new(claim.flight.record().clone()),
        expect: Expect::Revision(claim.revision),
    }
}

fn line_up(shared: &Shared, claim: Claim) {
    if claim.expired {
        shared.flights.land(&claim.flight);
        shared.herald.tell(News::SentDeferred(claim.flight.entry.clone()));
    } else {
        shared.lane().push(claim.flight);
        shared.work.notify_waiters();
    }
}
