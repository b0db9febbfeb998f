//! The calls about messages that run, and the messages nobody wants any more: how a cancel reaches
//! into a SubmitMessage (TN-14).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mapi::{EntryId, MapiResult, MessageRef, TransportNotify};
use crate::spi::{NotifyData, XpLogon};

/// At most one call about each message, because they take turns.
#[derive(Default)]
pub(crate) struct RunningCalls(Mutex<State>);

#[derive(Default)]
struct State {
    calls: BTreeMap<EntryId, Call>,
    /// How many cancel it.
    unwanted: BTreeMap<EntryId, usize>,
}

#[derive(Clone)]
struct Call {
    logon: Arc<dyn XpLogon>,
    reference: MessageRef,
}

/// A call that runs, until this is dropped.
pub(crate) struct Running<'a> {
    calls: &'a RunningCalls,
    entry: EntryId,
}

/// A message that is being cancelled, until this is dropped.
pub(crate) struct Unwanted<'a> {
    calls: &'a RunningCalls,
    entry: EntryId,
}

impl RunningCalls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call about a message; its transport calls it by this reference.
    pub(crate) fn note(
        &self,
        entry: EntryId,
        logon: &Arc<dyn XpLogon>,
        reference: MessageRef,
    ) -> Running<'_> {
        let call = Call { logon: Arc::clone(logon), reference };
        self.state().calls.insert(entry.clone(), call);
        Running { calls: self, entry }
    }

    /// Notes that a message is being cancelled.
    pub(crate) fn unwanted(&self, entry: &EntryId) -> Unwanted<'_> {
        *self.state().unwanted.entry(entry.clone()).or_default() += 1;
        Unwanted { calls: self, entry: entry.clone() }
    }

    /// Whether a message is being cancelled.
    pub(crate) fn is_unwanted(&self, entry: &EntryId) -> bool {
        self.state().unwanted.contains_key(entry)
    }

    /// Cancels the call about a message that runs, if one does.
    ///
    /// # Errors
    /// Those of the transport.
    pub(crate) async fn cancel(&self, entry: &EntryId) -> MapiResult<()> {
        let call = self.state().calls.get(entry).cloned();
        // The values 0 and 1 would mean the calls about other messages too (TN-15).
        let Some(call) = call.filter(|call| call.reference >= MessageRef::FIRST) else {
            return Ok(());
        };
        let data = NotifyData::Reference(call.reference);
        call.logon.transport_notify(TransportNotify::CANCEL_MESSAGE, data).await
    }
}

impl Running<'_> {
    /// Cancels the call if its message became unwanted before the call was noted.
    pub(crate) async fn heed(&self) {
        if self.calls.is_unwanted(&self.entry)
            && let Err(error) = self.calls.cancel(&self.entry).await
        {
            tracing::warn!(entry = %self.entry, %error, "A call could not be cancelled");
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.calls.state().calls.remove(&self.entry);
    }
}

impl Drop for Unwanted<'_> {
    fn drop(&mut self) {
        let mut state = self.calls.state();
        if let Some(count) = state.unwanted.get_mut(&self.entry) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.unwanted.remove(&self.entry);
            }
        }
    }
}
