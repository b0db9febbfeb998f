//! One sync of a folder for all who wait for one.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// See the module. Whoever comes while a sync runs waits for the next one, together with all
/// others who do: that one surely begins behind what they did.
#[derive(Debug, Default)]
pub(super) struct SharedSync {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many have come, and how many of them are served.
    asked: u64,
    served: u64,
    /// The sync that failed last: whom it was for, and why.
    failed: Option<(u64, Failure)>,
    running: bool,
}

/// An error for several.
#[derive(Debug)]
pub(super) struct Failure {
    code: Option<i32>,
    kind: io::ErrorKind,
    words: String,
}

impl Failure {
    pub(super) fn of(error: &io::Error) -> Self {
        Failure { code: error.raw_os_error(), kind: error.kind(), words: error.to_string() }
    }

    fn is_full_disk(&self) -> bool {
        super::is_full_disk(self.kind)
    }

    pub(super) fn error(&self) -> io::Error {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.words.clone()),
        }
    }
}

impl SharedSync {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a sync has ended that began after this call did. Blocks.
    ///
    /// # Errors
    /// Why that sync failed, to each who waited for it and, but for a full disk, to whoever comes
    /// later: it is not tried again for any of them.
    pub(super) fn wait(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        state.asked += 1;
        let mine = state.asked;
        loop {
            if let Some((until, failure)) = &state.failed
                && (mine <= *until || !failure.is_full_disk())
            {
                return Err(failure.error());
            }
            if state.served >= mine {
                return Ok(());
            }
            if !state.running {
                break;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.running = true;
        let mut turn = Turn { shared: self, covers: state.asked, outcome: None };
        drop(state);
        let outcome = sync();
        turn.outcome = Some(outcome.as_ref().err().map(Failure::of));
        outcome
    }
}

/// A sync that runs. Dropping it ends it, also in a panic.
struct Turn<'a> {
    shared: &'a SharedSync,
    covers: u64,
    outcome: Option<Option<Failure>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.running = false;
        state.served = state.served.max(self.covers);
        let panicked = || io::Error::other("the sync broke down");
        match self.outcome.take() {
            Some(None) => {}
            Some(Some(failure)) => state.failed = Some((self.covers, failure)),
            None => state.failed = Some((self.covers, Failure::of(&panicked()))),
        }
        drop(state);
        self.shared.ended.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    /// A sync runs, and so many others wait for the next one.
    fn with_waiters(count: usize, outcome: fn() -> io::Result<()>) -> (usize, Vec<bool>) {
        let shared: Arc<SharedSync> = Arc::default();
        let syncs: Arc<AtomicUsize> = Arc::default();
        let (go, gate) = mpsc::channel::<()>();
        let (entered, inside) = mpsc::channel();
        let first = {
            let (shared, syncs) = (Arc::clone(&shared), Arc::clone(&syncs));
            std::thread::spawn(move || {
                shared.wait(|| {
                    syncs.fetch_add(1, Ordering::SeqCst);
                    entered.send(()).unwrap();
                    gate.recv().unwrap();
                    Ok(())
                })
            })
        };
        inside.recv().unwrap();
        let others: Vec<_> = (0..count)
            .map(|_| {
                let (shared, syncs) = (Arc::clone(&shared), Arc::clone(&syncs));
                std::thread::spawn(move || {
                    shared.wait(|| {
                        syncs.fetch_add(1, Ordering::SeqCst);
                        outcome()
                    })
                })
            })
            .collect();
        while shared.state().asked < 1 + u64::try_from(count).unwrap() {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        first.join().unwrap().unwrap();
        let good = others.into_iter().map(|other| other.join().unwrap().is_ok()).collect();
        (syncs.load(Ordering::SeqCst), good)
    }

    #[test]
    fn who_comes_during_a_sync_shares_the_next() {
        let (syncs, good) = with_waiters(20, || Ok(()));
        assert_eq!(syncs, 2);
        assert!(good.into_iter().all(|good| good));
    }

    #[test]
    fn a_failed_sync_is_everybodys_and_is_not_tried_again() {
        let (syncs, good) = with_waiters(20, || Err(io::Error::from_raw_os_error(5)));
        assert_eq!(syncs, 2);
        assert!(good.into_iter().all(|good| !good));
    }

    /// The system tells of an error once, and calls the next sync a success.
    #[test]
    fn behind_a_sync_that_failed_none_is_believed() {
        let shared = SharedSync::default();
        let code = |error: io::Error| error.raw_os_error();
        let io_error = || Err(io::Error::from_raw_os_error(5));
        assert_eq!(shared.wait(io_error).map_err(code), Err(Some(5)));
        assert_eq!(shared.wait(|| Ok(())).map_err(code), Err(Some(5)));
        // A disk that was full may have room again.
        let shared = SharedSync::default();
        let full = || Err(io::Error::from_raw_os_error(28));
        assert_eq!(shared.wait(full).map_err(code), Err(Some(28)));
        assert!(shared.wait(|| Ok(())).is_ok());
    }

    #[test]
    fn one_after_the_other_each_has_its_own() {
        let (shared, mut syncs) = (SharedSync::default(), 0);
        for _ in 0..3 {
            shared
                .wait(|| {
                    syncs += 1;
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(syncs, 3);
    }
}
