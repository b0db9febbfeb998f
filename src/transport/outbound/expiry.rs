//! Messages that have an expiry of their own (OB-19): given up and reported when it comes, whether
//! or not anything could be sent just then.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::herald::News;
use super::recovery::left_behind;
use super::schedule;
use super::shared::Shared;
use crate::mapi::{EntryId, SysTime};
use crate::spool::{Batch, Expect, Expiry, Op, QueueRecord, QueueState, SpoolError};

/// Rows looked at once at the start.
const PAGE: usize = 256;
/// When a row that could not be written is tried again.
const SPOOL_PAUSE: Duration = Duration::from_secs(30);

/// The times at which messages of the queue expire.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    times: Mutex<BTreeSet<(SysTime, EntryId)>>,
    changed: Notify,
}

impl Expiries {
    fn times(&self) -> MutexGuard<'_, BTreeSet<(SysTime, EntryId)>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a message looked at at a time.
    pub(super) fn add(&self, time: SysTime, entry: EntryId) {
        self.times().insert((time, entry));
        self.changed.notify_one();
    }

    fn next(&self) -> Option<SysTime> {
        self.times().first().map(|(time, _)| *time)
    }

    fn due(&self, now: SysTime) -> Vec<EntryId> {
        let mut times = self.times();
        let mut due = Vec::new();
        while times.first().is_some_and(|(time, _)| *time <= now)
            && let Some((_, entry)) = times.pop_first()
        {
            due.push(entry);
        }
        due
    }
}

/// Watches over a row that expires by itself.
pub(super) fn watch(shared: &Shared, entry: &EntryId, record: &QueueRecord) {
    if record.expiry == Expiry::Own {
        shared.expiries.add(record.expires, entry.clone());
    }
}

/// Gives messages up at their time, until the account ends.
pub(super) async fn run(shared: Arc<Shared>) {
    if let Err(error) = load(&shared).await {
        // Each is given up all the same when its next attempt is due.
        tracing::error!(%error, "Messages that expire cannot be listed");
    }
    loop {
        let changed = shared.expiries.changed.notified();
        match shared.expiries.next() {
            None => changed.await,
            Some(time) => {
                tokio::select! {
                    () = changed => {}
                    () = shared.clock.sleep_until(time) => {}
                }
            }
        }
        for entry in shared.expiries.due(shared.clock.now()) {
            if let Err(error) = give_up(&shared, &entry).await {
                tracing::error!(%entry, %error, "An expired message cannot be given up");
                shared.expiries.add(shared.clock.now().saturating_add(SPOOL_PAUSE), entry);
            }
        }
    }
}

/// What an earlier process left.
async fn load(shared: &Shared) -> Result<(), SpoolError> {
    let mut after: Option<(SysTime, EntryId)> = None;
    loop {
        let page = shared.spool.expiring_page(shared.account, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        page.into_iter().for_each(|(time, entry)| shared.expiries.add(time, entry));
    }
}

async fn give_up(shared: &Arc<Shared>, entry: &EntryId) -> Result<(), SpoolError> {
    loop {
        if let Some(flight) = shared.flights.of(entry) {
            // Its attempt began in time, or is about to find that it did not.
            let (shared_then, entry) = (Arc::clone(shared), entry.clone());
            shared.spawn_aside(async move {
                flight.landed().await;
                shared_then.expiries.add(SysTime::EPOCH, entry);
            });
            return Ok(());
        }
        let Some(row) = shared.spool.queue(entry).await? else { return Ok(()) };
        let mut record = left_behind(shared, &row).unwrap_or(row);
        let unwanted = schedule::is_unwanted(&record, shared.clock.now());
        if record.transport != shared.settings.transport || !unwanted || !may_end(&record.state) {
            return Ok(());
        }
        let expect = Expect::Revision(record.revision);
        schedule::expire(&mut record, shared.rules());
        let put = Op::PutQueue { entry: entry.clone(), record: Box::new(record), expect };
        match shared.spool.commit(Batch::new().with(put)).await {
            Ok(_durable) => {
                shared.herald.tell(News::SentDeferred(entry.clone()));
                shared.wake.notify_one();
                return Ok(());
            }
            // It is being claimed, or somebody changed it.
            Err(SpoolError::Conflict(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}

/// What is on hold, or in doubt and kept, waits for the user and expires when he lets it go.
fn may_end(state: &QueueState) -> bool {
    match state {
        QueueState::Due
        | QueueState::Claimed(_)
        | QueueState::Parked
        | QueueState::InDoubt { resend: true, .. } => true,
        QueueState::Held | QueueState::InDoubt { resend: false, .. } | QueueState::Done => false,
    }
}
