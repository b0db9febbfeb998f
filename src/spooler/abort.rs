//! Taking a deferred message from the transports that have it (OB-15, TN-17, AT-3).

use std::sync::Arc;

use super::Shared;
use super::recipient_rows;
use super::slot::Slot;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, TransportNotify};
use crate::spi::{NotifyData, OutgoingState};

/// Asks every transport that may have some of the message's recipients. The one that is noted has
/// it for sure; another may have others of them, and after a crash or a logoff any may. `gave_up`
/// are those that were asked before and had something to give up, by their indices.
///
/// # Errors
/// `MAPI_E_UNABLE_TO_ABORT` when it is too late for one of them: what the others gave up stays
/// unsent, and the message ends with that one. `MAPI_E_END_OF_SESSION` when the transport that has
/// it is not logged on.
pub(crate) async fn abort_deferred(
    shared: &Arc<Shared>,
    entry: &EntryId,
    mut gave_up: Vec<usize>,
) -> MapiResult<()> {
    let holder = holder(shared, entry).await?;
    let mut refused = None;
    for (index, slot) in shared.slots().iter().enumerate() {
        if slot.logon().is_err() && holder != Some(index) {
            continue;
        }
        match abort_at(slot, entry).await {
            Ok(true) => gave_up.push(index),
            Ok(false) => {}
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    let Some(refused) = refused else { return Ok(()) };
    if !gave_up.is_empty() {
        // The message goes on with the others; these must not get it a second time.
        recipient_rows::note_cancelled(shared, entry, &gave_up).await?;
    }
    Err(refused)
}

/// Asks the transport that is noted to have the message, if any, while a call about it runs.
/// Returns its index when it gave something up.
///
/// # Errors
/// As [`abort_deferred`].
pub(crate) async fn abort_holder(shared: &Arc<Shared>, entry: &EntryId) -> MapiResult<Vec<usize>> {
    let slots = shared.slots();
    let holder = holder(shared, entry).await?;
    let Some((index, slot)) = holder.and_then(|index| Some((index, slots.get(index)?))) else {
        return Ok(Vec::new());
    };
    Ok(match abort_at(slot, entry).await? {
        true => vec![index],
        false => Vec::new(),
    })
}

/// Whether no transport has a message any more that none is noted to have. ABORT_DEFERRED alone
/// (TN-18) tells it: a cancel of what has ended in doubt is answered like one of what goes on.
/// Whoever has it after all gives it back, and is handed it again.
///
/// # Errors
/// Those of the store.
pub(crate) async fn is_over(shared: &Arc<Shared>, entry: &EntryId) -> MapiResult<bool> {
    if holder(shared, entry).await?.is_some() {
        return Ok(false);
    }
    for slot in shared.slots().iter().filter(|slot| slot.logon().is_ok()) {
        let park = TransportNotify::ABORT_DEFERRED;
        let asked = slot.logon()?.transport_notify(park, NotifyData::EntryId(entry)).await;
        if asked.is_ok() || asked.is_err_and(|error| error.code() != MapiCode::NOT_FOUND) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The transport that is noted to have the message, by its index.
async fn holder(shared: &Arc<Shared>, entry: &EntryId) -> MapiResult<Option<usize>> {
    let row = shared.store.outgoing_row(entry).await?;
    let OutgoingState::Deferred { transport } = &row.state else { return Ok(None) };
    let index = shared.slots().iter().position(|slot| slot.name == *transport);
    index.map(Some).ok_or_else(|| {
        let words = format!("the profile has no transport called {transport}");
        MapiError::new(MapiCode::NOT_FOUND, words)
    })
}

/// Whether a transport had something of the message, and gave it up.
async fn abort_at(slot: &Slot, entry: &EntryId) -> MapiResult<bool> {
    let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
    match slot.logon()?.transport_notify(flags, NotifyData::EntryId(entry)).await {
        Ok(()) => Ok(true),
        // It has nothing of it; the store decides.
        Err(error) if error.code() == MapiCode::NOT_FOUND => Ok(false),
        Err(error) => Err(error),
    }
}
