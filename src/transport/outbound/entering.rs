//! Messages on their way into the queue. None that is younger starts before them, so that
//! messages leave in the order of their submission although many are taken at the same time
//! (OB-14); and taking them at the same time is what lets them share commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::shared::Shared;
use crate::mapi::EntryId;

/// How long a message that takes its time holds up those behind it.
const PATIENCE: Duration = Duration::from_secs(30);

/// By entry id, which ascends with the time of submission.
#[derive(Debug, Default)]
pub(super) struct Entering(Mutex<BTreeMap<EntryId, Vec<Instant>>>);

/// One message on its way; dropping it says that it is in the queue, or will not be.
pub(super) struct Entrant {
    shared: Arc<Shared>,
    entry: EntryId,
    since: Instant,
}

impl Entrant {
    pub(super) fn new(shared: &Arc<Shared>, entry: &EntryId) -> Self {
        let since = Instant::now();
        shared.entering.table().entry(entry.clone()).or_default().push(since);
        Entrant { shared: Arc::clone(shared), entry: entry.clone(), since }
    }
}

impl Drop for Entrant {
    fn drop(&mut self) {
        let mut table = self.shared.entering.table();
        if let Some(times) = table.get_mut(&self.entry) {
            if let Some(at) = times.iter().position(|since| *since == self.since) {
                times.swap_remove(at);
            }
            if times.is_empty() {
                table.remove(&self.entry);
            }
        }
        drop(table);
        self.shared.wake.notify_one();
    }
}

impl Entering {
    fn table(&self) -> MutexGuard<'_, BTreeMap<EntryId, Vec<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest message that those behind it wait for.
    pub(super) fn oldest(&self) -> Option<EntryId> {
        let holds = |times: &Vec<Instant>| times.iter().any(|since| since.elapsed() < PATIENCE);
        self.table().iter().find(|(_, times)| holds(times)).map(|(entry, _)| entry.clone())
    }

    /// Whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    /// Ends when one that is on its way now has held up the others for long enough. Cancel-safe.
    pub(super) async fn patience_ends(&self) {
        let next = {
            let table = self.table();
            let ends = table.values().flatten().map(|since| *since + PATIENCE);
            ends.filter(|end| *end > Instant::now()).min()
        };
        match next {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}
