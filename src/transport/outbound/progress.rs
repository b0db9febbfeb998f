//! How far a claimed message is, and who may still stop it: one shared word of state.
//!
//! The sender and whoever aborts race for it. Whoever moves the word first has the message: the
//! sender past the final dot, after which nobody can call it back; or the aborter, after which the
//! final dot is never sent, so that the abort can be made durable without waiting for the server.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

/// Where a claimed message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Claimed, or on its way with the final dot not sent.
    Stoppable = 0,
    /// The final dot is out, or about to be written: only the server decides now.
    DotOut = 1,
    /// The attempt is over, its outcome is on its way to the disk.
    Over = 2,
    /// Stopped; the final dot will not be sent.
    Stopped = 3,
}

impl Stage {
    fn of(word: u8) -> Self {
        [Stage::Stoppable, Stage::DotOut, Stage::Over]
            .into_iter()
            .find(|stage| *stage as u8 == word)
            .unwrap_or(Stage::Stopped)
    }
}

/// The message was stopped; its connection is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// The state word of one claimed message.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    word: AtomicU8,
    stop: CancellationToken,
}

impl Progress {
    /// Where the message is.
    pub(crate) fn stage(&self) -> Stage {
        Stage::of(self.word.load(Ordering::SeqCst))
    }

    fn step(&self, from: Stage, to: Stage) -> Result<(), Stage> {
        self.word
            .compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst)
            .map(drop)
            .map_err(Stage::of)
    }

    /// For the sender, right before the bytes with the final dot are written.
    ///
    /// # Errors
    /// [`Stopped`]: they must not be written.
    pub(crate) fn cross_dot(&self) -> Result<(), Stopped> {
        self.step(Stage::Stoppable, Stage::DotOut).map_err(|_| Stopped)
    }

    /// For the sender, when recipients are left for a further transaction.
    pub(crate) fn next_transaction(&self) {
        // Fails only where there was no dot to come back from.
        let _ = self.step(Stage::DotOut, Stage::Stoppable);
    }

    /// For the sender, when the attempt is over and its outcome is to be recorded.
    ///
    /// # Errors
    /// [`Stopped`]: the row belongs to whoever stopped it.
    pub(crate) fn over(&self) -> Result<(), Stopped> {
        self.step(Stage::Stoppable, Stage::Over)
            .or_else(|_| self.step(Stage::DotOut, Stage::Over))
            .map_err(|_| Stopped)
    }

    /// For who aborts: the sender lets go of the message at once, and the row is the caller's.
    ///
    /// # Errors
    /// The stage that makes it impossible.
    pub(crate) fn stop(&self) -> Result<(), Stage> {
        self.step(Stage::Stoppable, Stage::Stopped)?;
        self.stop.cancel();
        Ok(())
    }

    /// For a logoff that cannot wait: the connection is dropped wherever it is. The stage stays,
    /// because it tells what is to be recorded.
    pub(crate) fn cut(&self) {
        self.stop.cancel();
    }

    /// Ends when the sender is to drop the connection. Cancel-safe.
    pub(crate) async fn dropped(&self) {
        self.stop.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_side_gets_the_message() {
        let progress = Progress::default();
        assert_eq!(progress.stop(), Ok(()));
        assert_eq!(progress.cross_dot(), Err(Stopped));
        assert_eq!(progress.over(), Err(Stopped));
        assert_eq!(progress.stop(), Err(Stage::Stopped));

        let progress = Progress::default();
        assert_eq!(progress.cross_dot(), Ok(()));
        assert_eq!(progress.stop(), Err(Stage::DotOut));
        progress.next_transaction();
        assert_eq!(progress.stage(), Stage::Stoppable);
        assert_eq!(progress.over(), Ok(()));
        assert_eq!(progress.stop(), Err(Stage::Over));
    }

    /// Proves: TN-19
    #[test]
    fn a_race_has_exactly_one_winner() {
        for _ in 0..200 {
            let progress = Progress::default();
            let (dot, stop) = std::thread::scope(|scope| {
                let dot = scope.spawn(|| progress.cross_dot().is_ok());
                let stop = scope.spawn(|| progress.stop().is_ok());
                (dot.join().unwrap_or(false), stop.join().unwrap_or(false))
            });
            assert!(dot != stop);
        }
    }

    #[tokio::test]
    async fn a_cut_wakes_the_sender_and_keeps_the_stage() {
        let progress = Progress::default();
        assert!(progress.cross_dot().is_ok());
        progress.cut();
        progress.dropped().await;
        assert_eq!(progress.stage(), Stage::DotOut);
    }
}
