//! The one door through which all lanes of an account connect: one at a time, and none while the
//! server wants to be left alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::moment::Moment;
use crate::transport::events::TroubleKind;

/// See the module.
#[derive(Default)]
pub(super) struct Door {
    /// Held by the lane that is connecting.
    pub(super) turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    failures: u32,
    not_before: Moment,
    /// A pause the server asked for is kept in a hurry too.
    asked: bool,
    /// The hurry the attempt knew of that closed the door.
    tried: u64,
}

impl Default for State {
    fn default() -> Self {
        State { failures: 0, not_before: Moment::PAST, asked: false, tried: 0 }
    }
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next attempt may be made.
    pub(super) fn not_before(&self) -> Moment {
        self.state().not_before
    }

    /// Lets the next attempt be made at once, if none was made since this hurry began and the
    /// server did not ask for patience.
    pub(super) fn hurry(&self, hurry: u64) {
        let mut state = self.state();
        if !state.asked && state.tried < hurry {
            state.not_before = Moment::PAST;
        }
    }

    /// Counts a failure and returns how many there were in a row.
    pub(super) fn failed(&self) -> u32 {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.failures
    }

    /// Closes the door until then, after an attempt that knew of this hurry.
    pub(super) fn close(&self, until: Moment, kind: TroubleKind, tried: u64) {
        let mut state = self.state();
        state.not_before = state.not_before.last(until);
        state.asked = kind == TroubleKind::Throttled;
        state.tried = state.tried.max(tried);
    }

    /// A lane has done some work.
    pub(super) fn succeeded(&self) {
        *self.state() = State::default();
    }
}
