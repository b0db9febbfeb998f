//! NOTIFY_SENTDEFERRED of one logon: each message is taken up again to hear its end (OB-11).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Shared;
use super::attempt::{self, Handed};
use super::attendance::UnderWay;
use super::calling_order::Place;
use super::slot::Slot;
use crate::mapi::EntryId;

/// When the end of a message that could not be recorded is taken up again.
const AGAIN: Duration = Duration::from_secs(15);

/// Runs until the session ends or the logon reports a critical error.
pub(crate) async fn run(
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    mut notified: mpsc::UnboundedReceiver<EntryId>,
) {
    let (report, mut reports) = mpsc::unbounded_channel::<(EntryId, Handed)>();
    // A second notification for a message that is being handled is kept for afterwards.
    let mut busy: BTreeSet<EntryId> = BTreeSet::new();
    let mut again: BTreeSet<EntryId> = BTreeSet::new();
    loop {
        let entry = tokio::select! {
            () = shared.ending.cancelled() => return,
            () = slot.critical_error.cancelled() => return,
            Some((entry, handed)) = reports.recv() => {
                busy.remove(&entry);
                slot.ends.remove();
                match handed {
                    Handed::Gone | Handed::Deferred | Handed::Unavailable => {}
                    Handed::Later(after) => notify_later(&shared, &slot, entry.clone(), after),
                    Handed::Error => notify_later(&shared, &slot, entry.clone(), AGAIN),
                }
                if !again.remove(&entry) {
                    continue;
                }
                entry
            }
            entry = notified.recv() => match entry {
                Some(entry) => entry,
                None => return,
            },
        };
        if busy.contains(&entry) {
            if !again.insert(entry) {
                slot.ends.remove();
            }
            continue;
        }
        let permit = tokio::select! {
            permit = Arc::clone(&shared.finish).acquire_owned() => permit,
            () = shared.ending.cancelled() => return,
        };
        let Ok(permit) = permit else { return };
        busy.insert(entry.clone());
        let (task_shared, slot, report) = (Arc::clone(&shared), Arc::clone(&slot), report.clone());
        // Its permit is all that a standstill holds from others here.
        let under_way = UnderWay::new(Place::default(), permit, || {});
        shared.spawn(async move {
            let handed = attempt::finish_deferred(&task_shared, &slot, &entry, under_way).await;
            // An error means that the loop has ended with the session.
            let _ = report.send((entry, handed));
        });
    }
}

fn notify_later(shared: &Arc<Shared>, slot: &Arc<Slot>, entry: EntryId, after: Duration) {
    let (task_shared, slot) = (Arc::clone(shared), Arc::clone(slot));
    shared.spawn(async move {
        let until = task_shared.clock.now().saturating_add(after);
        tokio::select! {
            () = task_shared.ending.cancelled() => {}
            () = task_shared.clock.sleep_until(until) => {
                slot.deferred_ended(&entry);
            }
        }
    });
}
