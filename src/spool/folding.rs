//! The thread in which full layers are folded into the tree, beside the traffic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use super::SpoolError;
use super::store::{Fill, Store};
use super::writer::Bulletin;

/// The writer's end of it.
pub(super) struct Folding {
    orders: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    bulletin: Arc<Bulletin>,
}

impl Folding {
    /// Starts the thread.
    pub(super) fn start(store: Arc<Store>, bulletin: Arc<Bulletin>) -> Result<Folding, SpoolError> {
        let (orders, taken) = mpsc::channel();
        let told = Arc::clone(&bulletin);
        let thread = std::thread::Builder::new()
            .name("spool-fold".to_owned())
            .spawn(move || {
                while taken.recv().is_ok() {
                    // sled panics at some kinds of damage.
                    let folded = std::panic::catch_unwind(AssertUnwindSafe(|| store.fold()));
                    let breakdown = || SpoolError::Unknown("the fold broke down".to_owned());
                    if let Err(error) = folded.unwrap_or_else(|_| Err(breakdown())) {
                        told.fail(&error);
                        break;
                    }
                }
            })
            .map_err(|error| SpoolError::io("start a thread", error))?;
        Ok(Folding { orders: Some(orders), thread: Some(thread), bulletin })
    }

    /// Has the layer that grows folded when it is full; one that is far too full waits for the one
    /// before.
    pub(super) fn tend(&self, store: &Store) {
        if self.bulletin.poison().is_some() {
            return;
        }
        let due = match store.fill() {
            Fill::Room => false,
            Fill::Full => !store.is_folding(),
            Fill::Overfull => true,
        };
        if due
            && store.rest()
            && let Some(orders) = &self.orders
            && orders.send(()).is_err()
        {
            self.bulletin.fail(&SpoolError::Unknown("nobody folds any more".to_owned()));
        }
    }

    /// Waits until what was begun is done.
    pub(super) fn close(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
