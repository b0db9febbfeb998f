//! The signals that end a command in good order.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};

/// SIGINT and SIGTERM, and SIGHUP for those who reload by it.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted(u8);

impl Interrupted {
    /// How a command ends that was interrupted by it.
    pub(crate) fn failure(self) -> Failure {
        Failure::silent(Exit::Signal(self.0))
    }
}

pub(crate) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Internal, format!("no signals: {error}")))
}

impl Interrupts {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Interrupts {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Interrupted {
        tokio::select! {
            _ = self.interrupt.recv() => Interrupted(2),
            _ = self.terminate.recv() => Interrupted(15),
        }
    }
}
