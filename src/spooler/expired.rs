//! Messages that have passed their expiry before any transport had them (OB-19).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::abort;
use super::attempt::{Handed, guarded, unlock};
use super::recipient_rows::{fail, failures, open_rows};
use super::submit_call::LATER;
use crate::mapi::{EntryId, MapiCode, MapiResult, SubmitFlags};

/// Gives up a message that waits and has passed its expiry (OB-19): whoever has not got it is
/// reported, and it leaves the table.
pub(crate) async fn expire(shared: &Arc<Shared>, entry: &EntryId) -> Handed {
    guarded(shared, entry, expire_in_turn(shared, entry)).await
}

async fn expire_in_turn(shared: &Arc<Shared>, entry: &EntryId) -> Handed {
    let _turn = shared.turns.take(entry).await;
    match shared.store.set_lock_state(entry, SubmitFlags::LOCKED).await {
        Ok(()) => {}
        Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => return Handed::Gone,
        Err(_) => return Handed::Later(LATER),
    }
    let handed = match expire_locked(shared, entry).await {
        Ok(handed) => handed,
        Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => Handed::Gone,
        Err(error) => {
            tracing::error!(%entry, %error, "An expired message could not be given up");
            Handed::Error
        }
    };
    if handed != Handed::Gone {
        unlock(shared, entry).await;
    }
    handed
}

async fn expire_locked(shared: &Arc<Shared>, entry: &EntryId) -> MapiResult<Handed> {
    let row = shared.store.outgoing_row(entry).await?;
    let Some(expires) = row.expires.filter(|expires| *expires <= shared.clock.now()) else {
        // A transport has it by now.
        return Ok(Handed::Later(Duration::ZERO));
    };
    match abort::abort_deferred(shared, entry, Vec::new()).await {
        Ok(()) => {}
        // One that is past its final dot, or cannot be asked, has it: its end is heard of.
        Err(_) => return Ok(Handed::Later(LATER)),
    }
    let message = shared.store.open_message(entry).await?;
    let rows: BTreeSet<u32> = open_rows(&message.recipients().await?).collect();
    let words = format!("not wanted any more after {expires}, and not sent until then");
    fail(shared, &message, failures(shared, &rows, "5.4.7", &words).collect()).await?;
    shared.store.finished_msg(entry).await?;
    shared.sent.fetch_add(1, Ordering::Relaxed);
    shared.ended(entry);
    Ok(Handed::Gone)
}
