//! What a logon is busy with as a whole, so that nothing else of the kind begins meanwhile: a
//! trial login, or a critical section (IB-9, ST-7).

use std::sync::{Arc, Weak};

use super::hub::Hub;
use crate::mapi::{MapiCode, MapiError, MapiResult, SpoolerNotify};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// What a logon is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Task {
    /// Nothing that excludes anything.
    #[default]
    None,
    /// ValidateState tries the servers out.
    Check,
    /// The configuration is taken up; between NOTIFY_CRITSEC and NOTIFY_NONCRIT.
    CriticalSection,
}

/// What a logon is busy with, one thing at a time.
#[derive(Debug, Default)]
pub(crate) struct Occupation(Mutex<Task>);

/// The logon is busy as long as this lives.
pub(crate) struct Busy {
    occupation: Arc<Occupation>,
    hub: Weak<Hub>,
    task: Task,
}

impl Occupation {
    /// Begins a task.
    ///
    /// # Errors
    /// `MAPI_E_BUSY` while there is another.
    pub(crate) fn begin(self: &Arc<Self>, hub: &Arc<Hub>, task: Task) -> MapiResult<Busy> {
        let mut now = self.lock();
        let words = match *now {
            Task::None => {
                *now = task;
                drop(now);
                if task == Task::CriticalSection {
                    hub.row.notify(SpoolerNotify::CRITSEC, None);
                }
                return Ok(Busy { occupation: Arc::clone(self), hub: Arc::downgrade(hub), task });
            }
            Task::Check => "another ValidateState is trying the servers out",
            Task::CriticalSection => "the transport is in a critical section",
        };
        Err(MapiError::new(MapiCode::BUSY, words))
    }

    /// # Errors
    /// `MAPI_E_BUSY` in a critical section.
    pub(crate) fn not_critical(&self) -> MapiResult<()> {
        match *self.lock() {
            Task::CriticalSection => {
                Err(MapiError::new(MapiCode::BUSY, "the transport is in a critical section"))
            }
            Task::None | Task::Check => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Task> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.occupation.lock() = Task::None;
        if let (Task::CriticalSection, Some(hub)) = (self.task, self.hub.upgrade()) {
            hub.row.notify(SpoolerNotify::NONCRIT, None);
        }
    }
}
