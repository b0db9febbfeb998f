//! A spooler of the simplest kind: it takes mail when it is told that there is some.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::super::{HandOver, Inbound, InboundEvents};
use super::store::Store;
use crate::mapi::MapiError;
use crate::transport::events::{Activity, Trouble};

/// What was heard of receiving.
#[derive(Default)]
pub(super) struct Events {
    pub(super) mail: Notify,
    pub(super) announcements: AtomicUsize,
    pub(super) activities: Mutex<Vec<Activity>>,
    pub(super) trouble: watch::Sender<Option<Trouble>>,
    pub(super) troubles: Mutex<Vec<Trouble>>,
    pub(super) drained: watch::Sender<usize>,
    pub(super) changes: watch::Sender<usize>,
}

impl InboundEvents for Events {
    fn new_mail(&self) {
        self.announcements.fetch_add(1, Ordering::SeqCst);
        self.mail.notify_one();
    }
    fn activity(&self, activity: Activity) {
        self.activities.lock().unwrap().push(activity);
    }
    fn trouble(&self, trouble: Option<Trouble>) {
        self.troubles.lock().unwrap().extend(trouble.clone());
        self.trouble.send_replace(trouble);
    }
    fn flush_drained(&self) {
        self.drained.send_modify(|count| *count += 1);
    }
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Takes mail with several calls at a time, until it is dropped.
pub(super) struct Host {
    task: tokio::task::JoinHandle<()>,
    pub(super) errors: Arc<watch::Sender<Vec<MapiError>>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    /// Waits until so many calls have failed, and tells how many have.
    pub(super) async fn failed(&self, count: usize) -> usize {
        let mut errors = self.errors.subscribe();
        let failed = errors.wait_for(|errors| errors.len() >= count);
        let failed = tokio::time::timeout(super::rig::LONG, failed).await;
        failed.expect("fewer calls fail").unwrap().len()
    }

    /// Takes nothing any more.
    pub(super) fn leave(&self) {
        self.task.abort();
    }

    pub(super) fn start(
        inbound: Arc<Inbound>,
        store: Arc<Store>,
        events: Arc<Events>,
        calls: usize,
    ) -> Self {
        let errors: Arc<watch::Sender<Vec<MapiError>>> = Arc::default();
        let seen = Arc::clone(&errors);
        let task = tokio::spawn(async move {
            loop {
                events.mail.notified().await;
                let mut running = tokio::task::JoinSet::new();
                for _ in 0..calls {
                    let (inbound, store) = (Arc::clone(&inbound), Arc::clone(&store));
                    let seen = Arc::clone(&seen);
                    running.spawn(async move {
                        loop {
                            match inbound.next(store.message(), CancellationToken::new()).await {
                                Ok(HandOver::Saved) => {}
                                Ok(HandOver::Nothing) => return,
                                Err(error) => {
                                    seen.send_modify(|errors| errors.push(error));
                                    return;
                                }
                            }
                        }
                    });
                }
                while running.join_next().await.is_some() {}
            }
        });
        Host { task, errors }
    }
}
