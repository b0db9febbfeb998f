//! Taking a deferred message from the transports that have it (OB-15, TN-17, AT-3).

use std::sync::Arc;

use super::Shared;
use super::attempt;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, TransportNotify};
use crate::spi::{NotifyData, OutgoingState};

/// Asks every transport that may have some of the message's recipients. The one that is noted has
/// it for sure; another may have others of them, and after a crash or a logoff any may.
///
/// # Errors
/// `MAPI_E_UNABLE_TO_ABORT` when it is too late for one of them: what the others gave up stays
/// unsent, and the message ends with that one. `MAPI_E_END_OF_SESSION` when the transport that has
/// it is not logged on.
pub(crate) async fn abort_deferred(shared: &Arc<Shared>, entry: &EntryId) -> MapiResult<()> {
    let row = shared.store.outgoing_row(entry).await?;
    let holder = match &row.state {
        OutgoingState::Deferred { transport } => Some(transport.as_str()),
        OutgoingState::Waiting { .. } => None,
    };
    let slots = shared.slots();
    if let Some(holder) = holder
        && !slots.iter().any(|slot| slot.name == holder)
    {
        let words = format!("the profile has no transport called {holder}");
        return Err(MapiError::new(MapiCode::NOT_FOUND, words));
    }
    let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
    let (mut gave_up, mut refused) = (Vec::new(), None);
    for (index, slot) in slots.iter().enumerate() {
        let logon = match slot.logon() {
            Ok(logon) => logon,
            Err(error) if holder == Some(slot.name.as_str()) => return Err(error),
            Err(_) => continue,
        };
        match logon.transport_notify(flags, NotifyData::EntryId(entry)).await {
            Ok(()) => gave_up.push(index),
            // The transport has nothing of it; the store decides.
            Err(error) if error.code() == MapiCode::NOT_FOUND => {}
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    let Some(refused) = refused else { return Ok(()) };
    if !gave_up.is_empty() {
        // The message goes on with the others; these must not get it a second time.
        attempt::note_cancelled(shared, entry, &gave_up).await?;
    }
    Err(refused)
}
