//! The locks of those parts whose interleavings a model checker tries (feature `model-check`).

#[cfg(not(all(test, feature = "model-check")))]
pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use std::sync::PoisonError;

#[cfg(all(test, feature = "model-check"))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
