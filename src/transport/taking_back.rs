//! Messages that a host wants back: the part of a TransportNotify that is about one message
//! (TN-14, TN-17, TN-18).

use super::logon::Logon;
use super::notify::MessageAction;
use super::outbound::{Abort, perhaps_delivered};
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult};
use crate::spool::HistoryEnd;

impl Logon {
    /// Carries out the part of a TransportNotify that is about one message.
    pub(super) async fn act(&self, action: MessageAction) -> MapiResult<()> {
        match action {
            MessageAction::CancelCall(reference) => match self.calls.cancel(reference) {
                Some(entry) => self.stop_accepted(&entry).await,
                None => Ok(()),
            },
            MessageAction::CancelDeferred(entry) => {
                self.abort(&entry, Abort::Cancel).await?;
                self.calls.cancel_deferred(&entry);
                Ok(())
            }
            MessageAction::ParkDeferred(entry) => self.abort(&entry, Abort::Park).await,
        }
    }

    /// Stops a message whose call was cancelled behind its acceptance, however long the host takes
    /// to call EndMessage, which tells what came of it (TN-14).
    pub(super) async fn stop_accepted(&self, entry: &EntryId) -> MapiResult<()> {
        match self.abort(entry, Abort::Cancel).await {
            Err(error) if is_too_late(&error) => Ok(()),
            answer => answer,
        }
    }

    pub(super) async fn abort(&self, entry: &EntryId, how: Abort) -> MapiResult<()> {
        let outbound = self.outbound().ok_or(MapiCode::NOT_FOUND)?;
        match outbound.abort(entry, how).await {
            Err(error) if error.code() == MapiCode::NOT_FOUND => {
                self.left_before(entry, how).await.unwrap_or(Err(error))
            }
            answer => answer,
        }
    }

    /// Whether a message has left the queue of this account by a cancel.
    pub(super) async fn was_cancelled(&self, entry: &EntryId) -> MapiResult<bool> {
        let history = self.spool.history(entry).await?.filter(|it| it.transport == self.name);
        Ok(history.is_some_and(|history| history.end == HistoryEnd::Cancelled))
    }

    /// What to answer to who wants a message back that has left the queue: it was sent, or it was
    /// cancelled before. One that was in doubt then may have been delivered, and that is the answer
    /// however often it is asked for: the one before may not have reached whom it was for, by a
    /// cancel within a call (TN-14), a connection that broke, or a crash. `None` when this account
    /// never had it, or has nothing to give back.
    async fn left_before(&self, entry: &EntryId, how: Abort) -> Option<MapiResult<()>> {
        let history = match self.spool.history(entry).await {
            Ok(history) => history.filter(|history| history.transport == self.name)?,
            Err(error) => return Some(Err(error.into())),
        };
        Some(match history.end {
            HistoryEnd::Cancelled if how != Abort::Cancel => return None,
            HistoryEnd::Cancelled if history.trace.was_in_doubt() => Err(perhaps_delivered(entry)),
            HistoryEnd::Cancelled => Ok(()),
            HistoryEnd::Finished => {
                let words = format!("{entry} was sent already");
                Err(MapiError::new(MapiCode::UNABLE_TO_ABORT, words))
            }
        })
    }
}

/// Past its final dot the outcome of a message stands (TN-14); one that has left the queue has one.
fn is_too_late(error: &MapiError) -> bool {
    matches!(error.code(), MapiCode::UNABLE_TO_ABORT | MapiCode::NOT_FOUND)
}
