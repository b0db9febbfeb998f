//! SubmitMessage and EndMessage with one transport, and what their answers mean (OB-7, OB-10, SP-3).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Shared;
use super::attendance::{UnderWay, attend};
use super::calling_order::Place;
use super::open_calls::OpenCall;
use super::slot::Slot;
use crate::mapi::{
    EndMessageFlags, EntryId, MapiCode, MapiError, MessageRef, StatusCode, SubmitMessageFlags,
    TransportNotify,
};
use crate::spi::{Message, NotifyData, SubmitError, XpLogon};

/// E_BUSY and END_RESEND_LATER name no time; NOTIFY_READYTOSEND may come before it is over.
pub(super) const LATER: Duration = Duration::from_secs(15);

/// How often END_RESEND_NOW is obeyed before it counts as END_RESEND_LATER.
const RESEND_NOW_LIMIT: usize = 3;

/// What one transport answered.
#[derive(Debug)]
pub(super) enum Answer {
    Sent,
    Deferred,
    Unavailable,
    Later(Duration),
    NotMe,
    /// The transport wants the message forgotten as far as it had it (OB-7).
    Cancelled,
    /// Somebody cancels the message at this moment and sees to it at every transport.
    Unwanted,
    /// This message cannot be sent by this transport, ever.
    Refused(MapiError),
    /// Something on our side failed.
    Error(MapiError),
}

/// SubmitMessage and EndMessage with one transport.
pub(super) async fn submit(
    shared: &Shared,
    slot: &Slot,
    message: Arc<dyn Message>,
    flags: SubmitMessageFlags,
    under_way: &mut UnderWay,
) -> Answer {
    let UnderWay { place, hold } = under_way;
    let deferred = flags.contains(SubmitMessageFlags::BEGIN_DEFERRED);
    let Some(entry) = message.entry_id() else {
        return Answer::Error(MapiError::new(MapiCode::CALL_FAILED, "it has no entry id"));
    };
    let may_call = |place: &Place| {
        // The end of a deferred message is told whatever the gate; it starts no transaction.
        !slot.stands_still() && (deferred || is_open(shared, slot, place))
    };
    for _ in 0..RESEND_NOW_LIMIT {
        let Ok(logon) = slot.logon() else { return Answer::Unavailable };
        if !may_call(place) {
            return Answer::Unavailable;
        }
        place.comes().await;
        // Once more: the one before may just have found it closed, and must not be passed.
        if !may_call(place) {
            return Answer::Unavailable;
        }
        if !deferred && shared.wishes.is_unwanted(&entry) {
            return Answer::Unwanted;
        }
        let listed = slot.submits.begin(&entry);
        let cell = &listed.call.cell;
        let work = async {
            let mut call = logon.submit_message(flags, Arc::clone(&message), cell);
            // A call that waits has begun; the next one need not wait for its end.
            let begun = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
            place.leave();
            match begun {
                Poll::Ready(submitted) => submitted?,
                Poll::Pending => {
                    tokio::join!(call, heed(shared, logon.as_ref(), &listed.call, &entry)).0?;
                }
            }
            Ok(logon.end_message(cell.reference()).await?)
        };
        let end = match attend(shared, slot, logon.as_ref(), &listed.call, hold, work).await {
            Ok(end) => end,
            Err(error) => return refusal(shared, &entry, error),
        };
        slot.works(&shared.table);
        if end.contains(EndMessageFlags::RESEND_NOW) {
            continue;
        }
        if end.contains(EndMessageFlags::RESEND_LATER) {
            return Answer::Later(LATER);
        }
        if end.contains(EndMessageFlags::DONT_RESEND) {
            return Answer::Deferred;
        }
        return Answer::Sent;
    }
    Answer::Later(LATER)
}

/// Whether a message with this place may be handed to a transport now.
fn is_open(shared: &Shared, slot: &Slot, place: &Place) -> bool {
    let code = shared.table.status_code(slot.row_id).unwrap_or_default();
    code.contains(StatusCode::OUTBOUND_ENABLED)
        && place.may_use(slot.row_id, slot.outbound_opening())
}

/// Cancels a call whose message became unwanted before it had a reference (TN-15).
async fn heed(shared: &Shared, logon: &dyn XpLogon, call: &OpenCall, entry: &EntryId) {
    let reference = call.cell.reference();
    if reference == MessageRef::OUTBOUND_UNSET || !shared.wishes.is_unwanted(entry) {
        return;
    }
    let cancel = TransportNotify::CANCEL_MESSAGE;
    if let Err(error) = logon.transport_notify(cancel, NotifyData::Reference(reference)).await {
        tracing::warn!(%entry, %error, "A call could not be cancelled");
    }
}

/// What an error of SubmitMessage or EndMessage means (SP-3).
fn refusal(shared: &Shared, entry: &EntryId, error: SubmitError) -> Answer {
    let after = error.retry_after.unwrap_or(LATER);
    let unwanted = shared.wishes.is_unwanted(entry);
    match error.error.code() {
        MapiCode::NOT_ME => Answer::NotMe,
        MapiCode::BUSY => Answer::Later(LATER),
        MapiCode::WAIT | MapiCode::NETWORK_ERROR | MapiCode::TIMEOUT => Answer::Later(after),
        MapiCode::CANCEL | MapiCode::USER_CANCEL if unwanted => Answer::Unwanted,
        // A call that is cut short by the end of the session, by the transport or by our own
        // SpoolerYield, is no reason to give a message up: the next session asks again (SP-1).
        MapiCode::CANCEL if !shared.ending.is_cancelled() => Answer::Cancelled,
        MapiCode::CANCEL | MapiCode::USER_CANCEL => Answer::Later(LATER),
        MapiCode::END_OF_SESSION | MapiCode::NOT_INITIALIZED => Answer::Unavailable,
        MapiCode::INVALID_PARAMETER
        | MapiCode::TOO_BIG
        | MapiCode::CORRUPT_DATA
        | MapiCode::NO_SUPPORT
        | MapiCode::NO_RECIPIENTS => Answer::Refused(error.error),
        _ => Answer::Error(error.error),
    }
}
