//! The thread in which full layers are folded into the tree, beside the traffic.

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
}

impl Folding {
    /// Starts the thread.
    pub(super) fn start(store: Arc<Store>, bulletin: Arc<Bulletin>) -> Result<Folding, SpoolError> {
        let (orders, taken) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("spool-fold".to_owned())
            .spawn(move || {
                while taken.recv().is_ok() {
                    if let Err(error) = store.fold() {
                        bulletin.fail(&error);
                    }
                }
            })
            .map_err(|error| SpoolError::io("start a thread", error))?;
        Ok(Folding { orders: Some(orders), thread: Some(thread) })
    }

    /// Has the layer that grows folded when it is full; one that is far too full waits for the one
    /// before.
    pub(super) fn tend(&self, store: &Store) {
        let due = match store.fill() {
            Fill::Room => false,
            Fill::Full => !store.is_folding(),
            Fill::Overfull => true,
        };
        if due
            && store.rest()
            && let Some(orders) = &self.orders
        {
            // Without the thread the spool is at its end anyway.
            let _ = orders.send(());
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
