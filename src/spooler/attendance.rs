//! Waiting for a SubmitMessage and its EndMessage: as long as it shows signs of life, without
//! holding anybody else up when it shows none, and not for ever (SP-1, SP-5).

use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::calling_order::Place;
use super::open_calls::{CANCEL_PATIENCE, GIVEN_UP, OpenCall, STANDSTILL};
use super::slot::Slot;
use crate::mapi::{MapiCode, MapiError, MessageRef, TransportNotify};
use crate::spi::{NotifyData, SubmitError, XpLogon};

/// What a message holds while it is handed over.
pub(crate) struct UnderWay {
    /// Its place in the line of SubmitMessage calls (OB-14).
    pub(crate) place: Place,
    pub(crate) hold: Hold,
}

/// Its share of what there is a limit of, given up when its call comes to a standstill.
pub(crate) struct Hold {
    permit: Option<OwnedSemaphorePermit>,
    /// Told of the standstill, once.
    standstill: Option<Box<dyn FnOnce() + Send>>,
}

impl UnderWay {
    pub(crate) fn new(
        place: Place,
        permit: OwnedSemaphorePermit,
        standstill: impl FnOnce() + Send + 'static,
    ) -> Self {
        let hold = Hold { permit: Some(permit), standstill: Some(Box::new(standstill)) };
        UnderWay { place, hold }
    }
}

impl Hold {
    fn let_go(&mut self) {
        self.permit = None;
        if let Some(tell) = self.standstill.take() {
            tell();
        }
    }
}

/// A standstill of a transport, shown in its row as long as it lasts.
struct Standstill<'a> {
    shared: &'a Shared,
    slot: &'a Slot,
}

impl<'a> Standstill<'a> {
    fn begin(shared: &'a Shared, slot: &'a Slot) -> Self {
        let limit = humantime::format_duration(STANDSTILL);
        let words = format!("SubmitMessage shows no sign of life for {limit}");
        tracing::warn!(transport = %slot.name, "{words}");
        slot.stand_still();
        shared.table.trouble(slot.row_id, Some(words));
        Standstill { shared, slot }
    }
}

impl Drop for Standstill<'_> {
    fn drop(&mut self) {
        if self.slot.move_on() {
            self.shared.table.trouble(self.slot.row_id, None);
            // What was kept from it meanwhile.
            self.shared.reconsider();
        }
    }
}

/// Waits for `work`, which is `call` on `logon`.
///
/// # Errors
/// Those of the call; `MAPI_E_TIMEOUT` when it had to be given up.
pub(crate) async fn attend<T>(
    shared: &Shared,
    slot: &Slot,
    logon: &dyn XpLogon,
    call: &OpenCall,
    hold: &mut Hold,
    work: impl Future<Output = Result<T, SubmitError>>,
) -> Result<T, SubmitError> {
    tokio::pin!(work);
    tokio::select! {
        biased;
        ended = &mut work => return ended,
        () = call.silent_for(STANDSTILL) => {}
    }
    let _standstill = Standstill::begin(shared, slot);
    hold.let_go();
    tokio::select! {
        biased;
        ended = &mut work => return ended,
        () = call.silent_for(GIVEN_UP) => {}
    }
    let given_up = async {
        let reference = call.cell.reference();
        // By the value before, the calls about other messages would be cancelled as well (TN-15).
        if reference != MessageRef::OUTBOUND_UNSET {
            let cancel = TransportNotify::CANCEL_MESSAGE;
            // It is given up in any case.
            let _ = logon.transport_notify(cancel, NotifyData::Reference(reference)).await;
        }
        tokio::time::sleep(CANCEL_PATIENCE).await;
    };
    let ended = tokio::select! {
        biased;
        ended = &mut work => ended.ok(),
        () = given_up => None,
    };
    // An error now only says that we have cancelled it: the message is still wanted.
    ended.ok_or_else(|| {
        let limit = humantime::format_duration(GIVEN_UP);
        let words = format!("the transport {} did not move for {limit}", slot.name);
        tracing::error!("{words}");
        MapiError::new(MapiCode::TIMEOUT, words).into()
    })
}
