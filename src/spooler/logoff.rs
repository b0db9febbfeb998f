//! The end of a session, in order and bounded in time (SP-5).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Shared;
use super::flush::END_FLUSHES;
use super::guarded_logon::{CALL_LIMIT, bounded};
use super::slot::Slot;
use crate::mapi::{
    DeinitFlags, EntryId, LogoffFlags, MapiCode, MapiResult, StatusCode, TransportNotify,
};
use crate::spi::{NotifyData, OutgoingState, XpProvider};

/// How many messages are given back at a time; their commits share flushes.
const AT_ONCE: usize = 128;

/// How long the transports may take to end their directions, all at once.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);

/// How long giving back deferred messages may take altogether. What is not reached keeps its
/// place in the transport's durable queue and is due there by itself at the next logon.
const GIVE_BACK: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    shared: &Arc<Shared>,
    providers: &[Arc<dyn XpProvider>],
    grace: Duration,
) -> MapiResult<()> {
    let hurry = grace.is_zero();
    let slots = shared.slots();
    let end = END_FLUSHES | TransportNotify::END_INBOUND | TransportNotify::END_OUTBOUND;
    let ends = slots.iter().filter_map(|slot| slot.logon().ok()).map(|logon| async move {
        // A logon that refuses is logged off all the same.
        let _ = logon.transport_notify(end, NotifyData::None).await;
    });
    if tokio::time::timeout(NOTIFY_LIMIT, join_all(ends)).await.is_err() {
        tracing::warn!("Not every transport has ended its directions in time");
    }
    // TN-9: what is on the wire is completed, and what became of it is heard.
    let deadline = tokio::time::Instant::now() + grace;
    let mut in_time = !hurry;
    if !hurry {
        let quiet = slots.iter().map(|slot| quiet(shared, slot));
        in_time = tokio::time::timeout_at(deadline, join_all(quiet)).await.is_ok();
    }
    // No new calls from here on; those that run are given their time, then cancelled below by
    // the logoff itself.
    shared.ending.cancel();
    shared.tasks.close();
    if tokio::time::timeout_at(deadline, shared.tasks.wait()).await.is_err() && !hurry {
        tracing::warn!("Some calls did not end in time and are cancelled");
    }
    if !hurry && tokio::time::timeout(GIVE_BACK, give_back(shared, &slots)).await.is_err() {
        tracing::info!("Not every deferred message was given back; the rest is due by itself");
    }
    // What had its time gets none a second time.
    let flags = if in_time { LogoffFlags::NORMAL } else { LogoffFlags::HURRY };
    let logoffs = slots
        .iter()
        .filter_map(|slot| slot.logon().ok())
        .map(|logon| async move { logon.transport_logoff(flags).await });
    let mut first_error = join_all(logoffs).await.into_iter().find_map(Result::err);
    for slot in &slots {
        slot.release();
        shared.table.remove(slot.row_id);
    }
    let flags = if hurry { DeinitFlags::HURRY } else { DeinitFlags::NORMAL };
    let shutdowns = providers.iter().map(|provider| {
        bounded("of this session", "Shutdown", CALL_LIMIT, async { provider.shutdown(flags).await })
    });
    if let Some(error) = join_all(shutdowns).await.into_iter().find_map(Result::err) {
        first_error.get_or_insert(error);
    }
    if tokio::time::timeout(GIVE_BACK, shared.tasks.wait()).await.is_err() {
        tracing::error!("Some calls did not return after the logoff and are abandoned");
        shared.abandoned.cancel();
        // Each ends at its next turn, unless a transport blocks its thread.
        let _ = tokio::time::timeout(GIVE_BACK, shared.tasks.wait()).await;
    }
    first_error.map_or(Ok(()), Err)
}

/// Waits until no message of a logon moves outwards and its ends are recorded.
async fn quiet(shared: &Shared, slot: &Slot) {
    let still = |code: StatusCode| !code.contains(StatusCode::OUTBOUND_ACTIVE);
    let ended = async {
        shared.table.wait_for(slot.row_id, still).await;
        slot.ends.zero().await;
    };
    tokio::select! {
        () = ended => {}
        () = slot.critical_error.cancelled() => {}
    }
}

/// ABORT_DEFERRED for every message a transport still has (TN-18).
async fn give_back(shared: &Arc<Shared>, slots: &[Arc<Slot>]) {
    let mut after: Option<EntryId> = None;
    loop {
        let rows = match shared.store.deferred_queue(after.as_ref(), AT_ONCE).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "Deferred messages cannot be listed");
                return;
            }
        };
        let Some(last) = rows.last() else { return };
        after = Some(last.entry.clone());
        join_all(rows.iter().map(|row| async {
            let OutgoingState::Deferred { transport } = &row.state else { return };
            let slot = slots.iter().find(|slot| slot.name == *transport);
            // A message of a transport that is no longer in the profile waits for another.
            if let Some(logon) = slot.and_then(|slot| slot.logon().ok()) {
                let data = NotifyData::EntryId(&row.entry);
                match logon.transport_notify(TransportNotify::ABORT_DEFERRED, data).await {
                    Ok(()) => {}
                    Err(error) if error.code() == MapiCode::NOT_FOUND => {}
                    // Past the final dot: its outcome is told at the next logon.
                    Err(_) => return,
                }
            }
            if let Err(error) = shared.store.set_deferred(&row.entry, None).await {
                tracing::debug!(entry = %row.entry, %error, "Not noted as given back");
            }
        }))
        .await;
    }
}
