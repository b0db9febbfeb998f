//! What a process that died had on the wire. Found by an index at the start, and by whoever meets
//! such a row before.
//!
//! One process owns the spool, so a claim of another owner is of one that died. Its message is due
//! again at the stored time, and the attempt counts; unless its final dot may be out, then it is
//! in doubt and the policy of the profile decides.

use std::sync::Arc;

use super::shared::Shared;
use crate::mapi::EntryId;
use crate::spool::{
    Batch, Expect, FinalDot, Op, QueueRecord, QueueState, SpoolError, Step, StepKind,
};
use crate::transport::InDoubtPolicy;

/// Rows looked at, and written, at once.
const PAGE: usize = 256;

/// Gives every row of the account that was left claimed the state it has after a crash.
///
/// # Errors
/// Those of the spool; what was not reached is found at the next try.
pub(super) async fn recover(shared: &Arc<Shared>) -> Result<(), SpoolError> {
    let mut after = None;
    loop {
        let page = shared.spool.claimed_page(shared.account, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let mut rows = Vec::with_capacity(page.len());
        for entry in page {
            let row = shared.spool.queue(&entry).await?;
            let Some(left) = row.and_then(|row| left_behind(shared, &row)) else { continue };
            tracing::info!(
                transport = %shared.settings.transport,
                %entry,
                state = ?left.state,
                "An attempt ended with an earlier process"
            );
            rows.push((entry, left));
        }
        commit(shared, &rows).await?;
    }
}

/// Together, and one by one when a row has changed meanwhile: who changed it has seen to it.
async fn commit(shared: &Shared, rows: &[(EntryId, QueueRecord)]) -> Result<(), SpoolError> {
    if rows.is_empty() {
        return Ok(());
    }
    let together = rows.iter().map(put).fold(Batch::new(), Batch::with);
    match shared.spool.commit(together).await {
        Ok(_durable) => return Ok(()),
        Err(SpoolError::Conflict(_)) => {}
        Err(error) => return Err(error),
    }
    for row in rows {
        match shared.spool.commit(Batch::new().with(put(row))).await {
            Ok(_) | Err(SpoolError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn put((entry, left): &(EntryId, QueueRecord)) -> Op {
    Op::PutQueue {
        entry: entry.clone(),
        record: Box::new(left.clone()),
        expect: Expect::Revision(left.revision),
    }
}

/// Whether this process claimed the row: only who has its flight may change it. Whoever finds none
/// looked before the claim was made, or the outcome has been recorded since he read the row.
pub(super) fn is_in_flight(shared: &Shared, row: &QueueRecord) -> bool {
    matches!(&row.state, QueueState::Claimed(lease) if lease.owner == shared.owner)
}

/// What is left of a claim whose owner died; `None` for any other row.
pub(super) fn left_behind(shared: &Shared, row: &QueueRecord) -> Option<QueueRecord> {
    let QueueState::Claimed(lease) = &row.state else { return None };
    if lease.owner == shared.owner {
        return None;
    }
    let mut left = row.clone();
    let number = row.attempts;
    let what = match lease.dot {
        FinalDot::NotSent => StepKind::Interrupted { number },
        FinalDot::MayBeOut { .. } => StepKind::LeftInDoubt { number },
    };
    left.trace.push(Step { at: shared.wall.now(), what });
    left.state = match lease.dot {
        FinalDot::NotSent => QueueState::Due,
        FinalDot::MayBeOut { since } => {
            left.last_error = "the program ended before the server's reply to the end of the \
                               message was recorded: the server may have taken it"
                .to_owned();
            let resend = shared.settings.queue.in_doubt == InDoubtPolicy::Resend;
            QueueState::InDoubt { since, resend }
        }
    };
    Some(left)
}
