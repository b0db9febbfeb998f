//! Flushing: transports one after the other in transport order, upload before download (FL-4).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::open_calls::GIVEN_UP;
use super::slot::Slot;
use crate::mapi::{FlushFlags, MapiCode, MapiError, MapiResult, StatusCode, TransportNotify};
use crate::spi::{NotifyData, OutgoingRow, OutgoingState};

/// Refuses flags that nobody knows (FL-6).
pub(crate) fn check(flags: FlushFlags) -> MapiResult<()> {
    match FlushFlags::unknown_bits(flags.bits()) {
        0 => Ok(()),
        unknown => Err(MapiError::new(
            MapiCode::UNKNOWN_FLAGS,
            format!("unknown FlushQueues bits 0x{unknown:X}"),
        )),
    }
}

/// Flushes the given logons and returns when each has left flush mode (FL-7). A transport that is
/// closed for a direction is passed over: its flush would only be remembered (TN-13).
///
/// Cancel-safe: dropping it leaves a transport in flush mode, which ends by itself.
pub(crate) async fn flush(
    shared: &Arc<Shared>,
    slots: &[Arc<Slot>],
    flags: FlushFlags,
) -> MapiResult<()> {
    for slot in slots {
        for (flag, enabled, bit) in [
            (FlushFlags::UPLOAD, StatusCode::OUTBOUND_ENABLED, StatusCode::OUTBOUND_FLUSH),
            (FlushFlags::DOWNLOAD, StatusCode::INBOUND_ENABLED, StatusCode::INBOUND_FLUSH),
        ] {
            let code = shared.table.status_code(slot.row_id).unwrap_or_default();
            if flags.contains(flag) && code.contains(enabled) {
                flush_one(
                    shared,
                    slot,
                    flags & !(FlushFlags::UPLOAD | FlushFlags::DOWNLOAD) | flag,
                    bit,
                )
                .await?;
            }
        }
    }
    Ok(())
}

async fn flush_one(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    flags: FlushFlags,
    bit: StatusCode,
) -> MapiResult<()> {
    let Ok(logon) = slot.logon() else { return Ok(()) };
    let upload = bit == StatusCode::OUTBOUND_FLUSH;
    if upload {
        // What waits in the table is the transport's before it looks for what to send.
        shared.settled().await;
    }
    logon.flush_queues(flags).await?;
    if upload && !has_deferred(shared, slot).await? {
        // FL-2: the queue is empty, so nobody else will end it.
        logon.transport_notify(TransportNotify::END_OUTBOUND_FLUSH, NotifyData::None).await?;
    }
    let flushed = async {
        shared.table.wait_for(slot.row_id, |code| !code.contains(bit)).await;
        // What the transport has finished leaves the table, and what it has handed over is in the
        // store, before the flush is over.
        match upload {
            true => slot.ends.zero().await,
            false => slot.starts.zero().await,
        }
    };
    tokio::select! {
        () = flushed => {}
        () = standstill(slot, upload) => {
            tracing::warn!(transport = %slot.name, "A flush is given up: the transport stands still");
            logon.transport_notify(END_FLUSHES, NotifyData::None).await?;
        }
        () = slot.critical_error.cancelled() => {}
        () = shared.ending.cancelled() => {}
    }
    Ok(())
}

/// Waits until a transport shows no life, so that the flush of the next need not wait for it.
async fn standstill(slot: &Slot, upload: bool) {
    if upload {
        return slot.standstill().await;
    }
    loop {
        let before = slot.returns.load(Ordering::SeqCst);
        tokio::time::sleep(GIVEN_UP).await;
        if slot.returns.load(Ordering::SeqCst) == before {
            return;
        }
    }
}

/// Whether the transport has messages of ours that it has not finished.
async fn has_deferred(shared: &Shared, slot: &Slot) -> MapiResult<bool> {
    let mut after = None;
    loop {
        let rows = shared.store.deferred_queue(after.as_ref(), 256).await?;
        let mine = |row: &OutgoingRow| matches!(&row.state, OutgoingState::Deferred { transport } if *transport == slot.name);
        if rows.iter().any(mine) {
            return Ok(true);
        }
        match rows.into_iter().last() {
            Some(last) => after = Some(last.entry),
            None => return Ok(false),
        }
    }
}

/// Ends both flushes of a logon at once, as a host that shuts down does (FL-5).
pub(crate) const END_FLUSHES: TransportNotify =
    TransportNotify::END_INBOUND_FLUSH.union(TransportNotify::END_OUTBOUND_FLUSH);
