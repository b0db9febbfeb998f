//! Cancel: a message is taken from whoever has it (OB-15, TN-14, TN-17).

use std::task::Poll;
use std::time::Duration;

use super::Spooler;
use super::abort;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, TransportNotify};
use crate::spi::NotifyData;

/// How long a cancel waits for a running call about its message.
const CANCEL_WAIT: Duration = Duration::from_secs(15);

impl Spooler {
    /// Cancels a message for good, wherever it is (OB-15, TN-17). A transport that is at work on
    /// it just now is told by CANCEL_MESSAGE (TN-14) and by SpoolerYield (OB-18).
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` when it is too late, `MAPI_E_NOT_IN_QUEUE` when it is gone;
    /// `MAPI_E_END_OF_SESSION` when the transport that has it is not logged on.
    pub async fn cancel(&self, entry: &EntryId) -> MapiResult<()> {
        // From now on no SubmitMessage for it begins; while we have the turn, nothing at all does.
        let unwanted = self.shared.wishes.cancel(entry);
        let turn = self.shared.turns.take(entry);
        tokio::pin!(turn);
        let (_turn, gave_up) = match futures_util::poll!(turn.as_mut()) {
            Poll::Ready(turn) => (turn, Vec::new()),
            Poll::Pending => {
                let gave_up = self.reach_into(entry).await?;
                let turn = tokio::time::timeout(CANCEL_WAIT, turn).await.map_err(|_| {
                    let words = format!("{entry} is being handed to a transport");
                    MapiError::new(MapiCode::UNABLE_TO_ABORT, words)
                })?;
                (turn, gave_up)
            }
        };
        // Goes before the turn does: whoever has that next takes the transport's word again.
        let _unwanted = unwanted;
        let store = &self.shared.store;
        let answer = abort::abort_deferred(&self.shared, entry, gave_up).await;
        if let Err(error) = answer {
            // A message that is in doubt ends with its cancel all the same. Where no transport is
            // noted to have it, none will tell of that end.
            let over = error.code() == MapiCode::UNABLE_TO_ABORT
                && abort::is_over(&self.shared, entry).await?;
            if over {
                store.abort_submit(entry).await?;
                self.shared.given_back().remove(entry);
                self.shared.ended(entry);
            }
            return Err(error);
        }
        // Should this be the end, the message is handed over again, and the transport that has
        // cancelled it says so.
        store.set_deferred(entry, None).await?;
        store.abort_submit(entry).await?;
        self.shared.given_back().remove(entry);
        self.shared.ended(entry);
        Ok(())
    }

    /// Ends the call about a message that runs, as far as that can be. Says who gave it up.
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` when it tells the end of the message: that need not be waited for.
    async fn reach_into(&self, entry: &EntryId) -> MapiResult<Vec<usize>> {
        let gave_up = abort::abort_holder(&self.shared, entry).await?;
        self.cancel_calls(entry).await;
        Ok(gave_up)
    }

    /// Cancels the calls about a message that run (TN-14).
    async fn cancel_calls(&self, entry: &EntryId) {
        for slot in self.shared.slots() {
            let (Some(reference), Ok(logon)) = (slot.submits.reference(entry), slot.logon()) else {
                continue;
            };
            let data = NotifyData::Reference(reference);
            let cancel = TransportNotify::CANCEL_MESSAGE;
            if let Err(error) = logon.transport_notify(cancel, data).await {
                tracing::warn!(transport = %slot.name, %error, "A call could not be cancelled");
            }
        }
    }
}
