//! Is everything in the spool as it should be, and if not, can it be mended?
//!
//! A check walks rows and files in pages and holds none of them, so it costs the same memory for
//! ten messages and for a million. It runs beside the traffic: what it sees may be half way, so
//! whatever looks wrong is only a [`Suspect`](judge::Suspect) that the writer's thread looks at
//! again between two groups, when nothing moves ([`judge`]). What it cannot look at again row by
//! row (how many messages are in which state, how many records name each body) is summed up by a
//! [`census`] that the writer keeps exact under the walk.
//!
//! Mending never deletes what may be somebody's message: rows that make no sense go to quarantine,
//! and a message whose body is lost is put on hold with the reason.

pub(super) mod census;
mod find_bodies;
mod judge;
mod report;
mod salvage;
mod walk;

pub use report::{CheckMode, CheckPhase, CheckProgress, CheckReport, Finding, FindingKind, Remedy};

pub use salvage::{Place, Salvaged, set_aside_unreadable};

use std::ops::ControlFlow;
use std::sync::{PoisonError, TryLockError};

use super::{SledSpool, SpoolError};
use walk::Walk;

/// How a reason begins that says why a message was set aside.
const SET_ASIDE: &str = "MAPI_E_CORRUPT_DATA";

impl SledSpool {
    /// Checks every row, every body and every file, and in [`CheckMode::Repair`] mends what it
    /// finds, each piece durably and whole, so that a repair that was cut off is simply begun
    /// again. Runs beside the traffic and finds nothing wrong with what is on its way. Blocks the
    /// thread: call it from `spawn_blocking`. `progress` is told now and then how far it is and
    /// may end it.
    ///
    /// # Errors
    /// [`SpoolError::Checking`] while another check runs, [`SpoolError::Closed`] when the spool
    /// was closed meanwhile, [`SpoolError::Abandoned`] when `progress` ended it; I/O errors of the
    /// tree itself.
    pub fn check(
        &self,
        mode: CheckMode,
        progress: &dyn Fn(CheckProgress) -> ControlFlow<()>,
    ) -> Result<CheckReport, SpoolError> {
        let _one_at_a_time = match self.checking.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::WouldBlock) => return Err(SpoolError::Checking),
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
        };
        let store = self.store()?;
        let checked = Walk::new(self, mode, progress)?.run();
        store.end_census();
        checked
    }
}
