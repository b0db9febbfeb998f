//! The one door through which all lanes of an account connect: one at a time, and none while the
//! server wants to be left alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mapi::SysTime;
use crate::transport::events::TroubleKind;

/// See the module.
#[derive(Default)]
pub(super) struct Door {
    /// Held by the lane that is connecting.
    pub(super) turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    failures: u32,
    not_before: SysTime,
    /// A pause the server asked for is kept in a hurry too.
    asked: bool,
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next attempt may be made.
    pub(super) fn not_before(&self) -> SysTime {
        self.state().not_before
    }

    /// Lets the next attempt be made at once, unless the server asked for patience.
    pub(super) fn hurry(&self) {
        let mut state = self.state();
        if !state.asked {
            state.not_before = SysTime::EPOCH;
        }
    }

    /// Counts a failure and returns how many there were in a row.
    pub(super) fn failed(&self) -> u32 {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.failures
    }

    /// Closes the door until then.
    pub(super) fn close(&self, until: SysTime, kind: TroubleKind) {
        let mut state = self.state();
        state.not_before = state.not_before.max(until);
        state.asked = kind == TroubleKind::Throttled;
    }

    /// A lane has done some work.
    pub(super) fn succeeded(&self) {
        *self.state() = State::default();
    }
}
