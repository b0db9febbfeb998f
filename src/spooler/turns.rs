//! One call about a message at a time: its end may be told before the call that handed it over
//! has returned.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::mapi::EntryId;

/// The messages that calls are about just now.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<BTreeSet<EntryId>>,
    over: Notify,
}

impl Turns {
    /// Waits until no other call is about this message. Cancel-safe.
    pub(crate) async fn take<'a>(&'a self, entry: &'a EntryId) -> Turn<'a> {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            // Before the look, so that an end in between is not missed.
            over.as_mut().enable();
            if self.taken().insert(entry.clone()) {
                return Turn { turns: self, entry };
            }
            over.await;
        }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<EntryId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to call about a message; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    entry: &'a EntryId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken().remove(self.entry);
        self.turns.over.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_others_do_not() {
        let turns = Turns::default();
        let (one, two) = (EntryId::from_bytes(&[1]).unwrap(), EntryId::from_bytes(&[2]).unwrap());
        let first = turns.take(&one).await;
        drop(turns.take(&two).await);
        let second = turns.take(&one);
        tokio::pin!(second);
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        second.await;
    }
}
