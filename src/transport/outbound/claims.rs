//! Claiming what is due: attempt + 1, the time it is due again if this process dies, a lease; all
//! durable before a socket is opened, and many in one commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::body::ONE_PIECE;
use super::flight::Flight;
use super::herald::News;
use super::lane::Lane;
use super::recovery::left_behind;
use super::schedule::{self, Before, retry_delay};
use super::shared::Shared;
use crate::mapi::{EntryId, SysTime};
use crate::spool::{Batch, Expect, FinalDot, Lease, Op, QueueRecord, QueueState, SpoolError};
use crate::transport::InDoubtPolicy;

/// What a look at the queue came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claimed {
    /// More was due than asked for.
    pub(super) more: bool,
    /// Something that is due was not claimed: nothing new may be claimed before it.
    pub(super) left: bool,
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

/// How a message that is claimed comes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Road {
    /// A connection is open, and the message leaves as soon as it is its turn.
    Open,
    /// One has to be opened first, which may take long or fail.
    ToOpen,
}

impl Road {
    pub(super) fn of<F>(lane: &Lane<F>) -> Self {
        if lane.is_connected() { Road::Open } else { Road::ToOpen }
    }
}

/// What a claim says of the final dot. A message that is sent in one piece over a connection that
/// is open will have its final dot out so soon that a note of its own would only be one more
/// commit: the claim is the note. Where the profile resends what is in doubt, that changes nothing
/// but the words; where it is held for somebody to decide, the note waits until it is needed.
fn dot_of(shared: &Shared, record: &QueueRecord, road: Road) -> FinalDot {
    let short = record.size < ONE_PIECE;
    let resent = shared.settings.queue.in_doubt == InDoubtPolicy::Resend;
    match road {
        Road::Open if short && resent => FinalDot::MayBeOut { since: shared.wall.now() },
        Road::Open | Road::ToOpen => FinalDot::NotSent,
    }
}

/// Makes the record of a claim: what is durable before the connection.
pub(super) fn claim(shared: &Shared, record: &mut QueueRecord, road: Road) {
    let rules = shared.rules();
    record.attempts = record.attempts.saturating_add(1);
    let delay = retry_delay(&rules.queue.retry, record.attempts, rules.unit);
    record.due = rules.now.saturating_add(delay);
    record.state = QueueState::Claimed(Lease {
        owner: shared.owner,
        expires: shared.lease_until(record.envelope.recipients.len(), record.size),
        dot: dot_of(shared, record, road),
    });
}

/// Rows looked at while the account is in trouble: one becomes the probe, and those that are not
/// wanted any more are given up without each waiting for a probe of its own.
const PROBE_PAGE: usize = 64;

/// Claims up to `limit` messages and puts them in line.
///
/// # Errors
/// Those of the spool; nothing is claimed then.
pub(super) async fn claim_due(shared: &Arc<Shared>, limit: usize) -> Result<Claimed, SpoolError> {
    let (flushing, trouble, recalls, road) = {
        let lane = shared.lane();
        let trouble = lane.trouble().map(|(why, _)| why.words());
        (lane.is_flushing(), trouble, lane.recalls(), Road::of(&lane))
    };
    let until = if flushing { SysTime::MAX } else { shared.clock.now() };
    let oldest = shared.oldest_on_its_way();
    let held = AtomicBool::new(false);
    let skip = |entry: &EntryId| {
        if shared.flights.has(entry) {
            return true;
        }
        let lane = shared.lane();
        // A flush that ended meanwhile has forgotten what it tried, and retry times count again.
        if lane.was_tried(entry) || (flushing && !lane.is_flushing()) {
            return true;
        }
        drop(lane);
        let younger = oldest.as_ref().is_some_and(|oldest| entry > oldest);
        held.fetch_or(younger, Ordering::Relaxed);
        younger
    };
    let look_at = if trouble.is_some() { limit.max(PROBE_PAGE) } else { limit };
    let page = shared.spool.due(shared.account, until, look_at, &skip).await?;
    let mut claimed = Claimed {
        more: page.entries.len() >= look_at,
        any: !page.entries.is_empty(),
        held: held.load(Ordering::Relaxed),
        next: page.next,
        left: false,
    };
    let mut claims: Vec<Claim> = Vec::with_capacity(page.entries.len());
    let mut left = false;
    for entry in page.entries {
        let Some(row) = claimable(shared, &entry).await? else {
            // The index knows it and the row does not: looked at again after the next change.
            claimed.more = false;
            continue;
        };
        let sending = claims.iter().filter(|claim| !claim.expired).count();
        let claim = match (&trouble, sending < limit) {
            (None, _) | (Some(_), true) => decide(shared, entry, row, road, recalls),
            (Some(why), false) => give_up(shared, entry, row, why, recalls),
        };
        left |= claim.is_none();
        claims.extend(claim);
    }
    claimed.left = left || claimed.more;
    commit(shared, claims).await?;
    Ok(claimed)
}

/// Whether anything is due that nobody works on; claims nothing.
pub(super) async fn is_anything_due(shared: &Shared) -> Result<bool, SpoolError> {
    let flushing = shared.lane().is_flushing();
    let until = if flushing { SysTime::MAX } else { shared.clock.now() };
    let skip = |entry: &EntryId| shared.flights.has(entry) || shared.lane().was_tried(entry);
    let page = shared.spool.due(shared.account, until, 1, &skip).await?;
    Ok(!page.entries.is_empty())
}

/// The row, if it may be claimed, with the state it has without a claim.
async fn claimable(shared: &Shared, entry: &EntryId) -> Result<Option<QueueRecord>, SpoolError> {
    let Some(mut row) = shared.spool.queue(entry).await? else { return Ok(None) };
    if let Some(left) = left_behind(shared, &row) {
        row = left;
    }
    match &row.state {
        QueueState::Claimed(_) => return Ok(None),
        QueueState::Due | QueueState::InDoubt { resend: true, .. } => {}
        QueueState::InDoubt { resend: false, .. }
        | QueueState::Held
        | QueueState::Parked
        | QueueState::Done => return Ok(None),
    }
    Ok(Some(row))
}

/// Claims a row, or gives it up when it may not be sent any more.
fn decide(
    shared: &Shared,
    entry: EntryId,
    row: QueueRecord,
    road: Road,
    recalls: u64,
) -> Option<Claim> {
    let mut record = row.clone();
    let expired = schedule::is_unwanted(&record, shared.clock.now());
    if expired {
        schedule::expire(&mut record, shared.rules());
    } else {
        claim(shared, &mut record, road);
    }
    fly(shared, entry, &row, record, Look { expired, recalls })
}

/// Gives up a row that nobody wants sent any more while the account does not work. The lifetime
/// of the profile is no reason: it does not run out while the account is the trouble.
fn give_up(
    shared: &Shared,
    entry: EntryId,
    row: QueueRecord,
    why: &str,
    recalls: u64,
) -> Option<Claim> {
    if !schedule::is_unwanted(&row, shared.clock.now()) {
        return None;
    }
    let mut record = row.clone();
    if record.last_error.is_empty() {
        record.last_error = why.to_owned();
    }
    schedule::expire(&mut record, shared.rules());
    fly(shared, entry, &row, record, Look { expired: true, recalls })
}

/// What a look at the queue found of a row.
struct Look {
    /// It is given up instead of sent.
    expired: bool,
    /// How often messages had gone back when the look began.
    recalls: u64,
}

fn fly(
    shared: &Shared,
    entry: EntryId,
    row: &QueueRecord,
    mut record: QueueRecord,
    Look { expired, recalls }: Look,
) -> Option<Claim> {
    let before = Before { state: row.state.clone(), due: row.due };
    record.revision = row.revision.saturating_add(1);
    let flight = Flight::new(entry, before, record);
    let lane = shared.lane();
    if lane.recalls() != recalls {
        // An older message went back since the look, and may be due before this one.
        return None;
    }
    shared.flights.add(&flight).then_some(Claim { flight, revision: row.revision, expired })
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
        shared.herald.tell(News::SentDeferred(claim.flight.entry.clone()));
        shared.flights.land(&claim.flight);
    } else {
        shared.line_up(claim.flight);
    }
}
