//! The SubmitMessage calls that run on one logon: their signs of life, how one is cancelled, and
//! what is done about one that has come to a standstill.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::mapi::{EntryId, MessageRef};
use crate::spi::MessageRefCell;

/// A call without a sign of life for so long has come to a standstill: it keeps its message, and
/// the transport gets no other until it returns, but nobody else waits for it.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(30);

/// A call without a sign of life for so long is cancelled (TN-14), and soon after let go.
pub(crate) const GIVEN_UP: Duration = Duration::from_secs(600);

/// How long a cancelled call may take to return.
pub(crate) const CANCEL_PATIENCE: Duration = Duration::from_secs(15);

/// The calls of one logon that run, by message.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls {
    calls: Mutex<BTreeMap<EntryId, Arc<OpenCall>>>,
}

/// One call, from SubmitMessage to the end of its EndMessage.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) cell: MessageRefCell,
    signs: watch::Sender<Instant>,
}

/// Keeps a call on the list.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    calls: &'a OpenCalls,
    entry: EntryId,
    pub(crate) call: Arc<OpenCall>,
}

impl OpenCalls {
    /// Lists a call; there is one at a time about a message.
    pub(crate) fn begin(&self, entry: &EntryId) -> Listed<'_> {
        let call = Arc::new(OpenCall {
            cell: MessageRefCell::outbound(),
            signs: watch::Sender::new(Instant::now()),
        });
        self.lock().insert(entry.clone(), Arc::clone(&call));
        Listed { calls: self, entry: entry.clone(), call }
    }

    /// SpoolerYield: the call about this message is alive; without a message, all are.
    pub(crate) fn alive(&self, entry: Option<&EntryId>) {
        let calls = self.lock();
        calls
            .iter()
            .filter(|(of, _)| entry.is_none_or(|entry| entry == *of))
            .for_each(|(_, call)| call.alive());
    }

    /// The reference of the call about a message, once the transport has given it one. By the
    /// value before, every call that has none yet would be cancelled (TN-15).
    pub(crate) fn reference(&self, entry: &EntryId) -> Option<MessageRef> {
        let reference = self.lock().get(entry)?.cell.reference();
        (reference != MessageRef::OUTBOUND_UNSET).then_some(reference)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EntryId, Arc<OpenCall>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenCall {
    fn alive(&self) {
        self.signs.send_replace(Instant::now());
    }

    /// Waits until there was no sign of life for `limit`. Cancel-safe.
    pub(crate) async fn silent_for(&self, limit: Duration) {
        let mut signs = self.signs.subscribe();
        loop {
            let until = *signs.borrow_and_update() + limit;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                // The sender is `self`, so it cannot be gone.
                _ = signs.changed() => {}
            }
        }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.entry);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn entry(number: u8) -> EntryId {
        EntryId::from_bytes(&[number]).unwrap()
    }

    /// Proves: OB-18
    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_is_about_the_call_it_comes_from() {
        let calls = OpenCalls::default();
        let (one, two) = (calls.begin(&entry(1)), calls.begin(&entry(2)));
        tokio::time::advance(Duration::from_secs(20)).await;
        calls.alive(Some(&entry(2)));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(one.call.silent_for(STANDSTILL).now_or_never().is_some());
        assert!(two.call.silent_for(STANDSTILL).now_or_never().is_none());
        calls.alive(None);
        assert!(one.call.silent_for(STANDSTILL).now_or_never().is_none());
        tokio::time::timeout(STANDSTILL * 2, one.call.silent_for(STANDSTILL)).await.unwrap();
    }

    /// Proves: TN-15
    #[tokio::test]
    async fn a_call_without_a_reference_has_no_name_to_cancel_it_by() {
        let calls = OpenCalls::default();
        let listed = calls.begin(&entry(1));
        assert_eq!(calls.reference(&entry(1)), None);
        listed.call.cell.set(MessageRef(7));
        assert_eq!(calls.reference(&entry(1)), Some(MessageRef(7)));
        drop(listed);
        assert_eq!(calls.reference(&entry(1)), None);
    }
}
