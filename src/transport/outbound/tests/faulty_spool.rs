//! A spool whose commits fail, or wait, when told to, and whose next read waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mapi::EntryId;
use crate::spool::{Batch, Durable, QueueRecord, SledSpool, Spool, SpoolError};
use crate::transport::wrapped_spool::{Ways, Wrapped};

type Make = Box<dyn Fn() -> SpoolError + Send>;

/// Fails commits whose batch shows a certain word, so many times.
pub(super) type FaultySpool = Wrapped<Faults>;

/// The ways of [`FaultySpool`].
pub(super) struct Faults {
    inner: Arc<dyn Spool>,
    fault: Mutex<Option<(&'static str, usize, Make)>>,
    hits: watch::Sender<usize>,
    commits: AtomicUsize,
    hold: Mutex<Option<Hold>>,
    /// Of one read.
    read: Mutex<Option<Hold>>,
}

/// When a commit that is held waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before it reaches the disk.
    Before,
    /// When it is durable and nobody knows.
    After,
}

#[derive(Clone)]
struct Hold {
    word: &'static str,
    moment: Moment,
    reached: CancellationToken,
    released: CancellationToken,
}

/// Lets what is held go when it is dropped.
pub(super) struct Held {
    reached: CancellationToken,
    _release: DropGuard,
}

impl Hold {
    fn new(word: &'static str, moment: Moment) -> (Hold, Held) {
        let (reached, released) = (CancellationToken::new(), CancellationToken::new());
        let held = Held { reached: reached.clone(), _release: released.clone().drop_guard() };
        (Hold { word, moment, reached, released }, held)
    }

    async fn wait(self) {
        self.reached.cancel();
        self.released.cancelled().await;
    }
}

impl Held {
    /// Waits until something is held.
    pub(super) async fn reached(&self) {
        tokio::time::timeout(super::rig::PATIENCE, self.reached.cancelled()).await.unwrap();
    }
}

impl FaultySpool {
    pub(super) fn new(inner: Arc<SledSpool>) -> Arc<Self> {
        Arc::new(Wrapped(Faults {
            inner,
            fault: Mutex::new(None),
            hits: watch::Sender::new(0),
            commits: AtomicUsize::new(0),
            hold: Mutex::new(None),
            read: Mutex::new(None),
        }))
    }

    /// The next `times` commits that mention `word` fail.
    pub(super) fn fail(
        &self,
        word: &'static str,
        times: usize,
        error: impl Fn() -> SpoolError + Send + 'static,
    ) {
        *self.fault.lock().unwrap() = Some((word, times, Box::new(error)));
    }

    /// Commits that mention `word` wait as long as the answer is kept.
    pub(super) fn hold(&self, word: &'static str, moment: Moment) -> Held {
        let (hold, held) = Hold::new(word, moment);
        *self.hold.lock().unwrap() = Some(hold);
        held
    }

    /// The next read of a queue row, and no other, waits as long as the answer is kept.
    pub(super) fn hold_read(&self) -> Held {
        let (hold, held) = Hold::new("", Moment::Before);
        *self.read.lock().unwrap() = Some(hold);
        held
    }

    /// Waits until so many commits have failed in all.
    pub(super) async fn failed(&self, times: usize) {
        let mut hits = self.hits.subscribe();
        tokio::time::timeout(super::rig::PATIENCE, hits.wait_for(|hits| *hits >= times))
            .await
            .unwrap()
            .unwrap();
    }

    /// How many commits were tried that did not fail by order.
    pub(super) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

impl Faults {
    fn strike(&self, batch: &Batch) -> Option<SpoolError> {
        let mut fault = self.fault.lock().unwrap();
        let (word, left, make) = fault.as_mut()?;
        if *left == 0 || !format!("{batch:?}").contains(*word) {
            return None;
        }
        *left -= 1;
        self.hits.send_modify(|hits| *hits += 1);
        Some(make())
    }
}

#[async_trait]
impl Ways for Faults {
    fn inner(&self) -> &Arc<dyn Spool> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Durable, SpoolError> {
        if let Some(error) = self.strike(&batch) {
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        let hold = self.hold.lock().unwrap().clone();
        let hold = hold.filter(|hold| format!("{batch:?}").contains(hold.word));
        let wait = |moment: Moment| {
            let hold = hold.clone().filter(|hold| hold.moment == moment);
            async move {
                if let Some(hold) = hold {
                    hold.wait().await;
                }
            }
        };
        wait(Moment::Before).await;
        let done = self.inner.commit(batch).await;
        wait(Moment::After).await;
        done
    }

    async fn queue(&self, entry: &EntryId) -> Result<Option<QueueRecord>, SpoolError> {
        let hold = self.read.lock().unwrap().take();
        if let Some(hold) = hold {
            hold.wait().await;
        }
        self.inner.queue(entry).await
    }
}
