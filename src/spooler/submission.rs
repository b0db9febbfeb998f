//! The submission loop: the outgoing queue table in ascending submit time, each message to the
//! transports its recipients call for (OB-14, AT-3, SP-3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::attempt::{self, Handed};
use super::turn::Turns;
use crate::mapi::{EntryId, SysTime};
use crate::spi::{OutgoingRow, OutgoingState};

/// Rows read at a time.
const PAGE: usize = 256;

/// When a message whose handling failed by our own fault (a disk error, say) is tried again.
const AFTER_ERROR: Duration = Duration::from_secs(30);

/// What the loop remembers between two looks at the table. Bounded by the number of messages
/// that wait for a time of their own.
#[derive(Default)]
struct Memory {
    /// Everything up to here was looked at.
    seen: Option<EntryId>,
    /// Messages not to be handed over before a time.
    later: BTreeMap<EntryId, SysTime>,
    turns: Turns,
}

/// Runs until the session ends.
pub(crate) async fn run(shared: Arc<Shared>, mut barriers: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut added = shared.store.outgoing_changes();
    let (report, mut reports) = mpsc::unbounded_channel::<(EntryId, Handed)>();
    let mut memory = Memory::default();
    let mut busy: BTreeSet<EntryId> = BTreeSet::new();
    let mut settled: Vec<oneshot::Sender<()>> = Vec::new();
    let mut look = Look::All;
    loop {
        // Noted before the look, so that what comes while looking is not missed.
        added.mark_unchanged();
        if look == Look::All {
            memory.seen = None;
        }
        if shared.resume.swap(false, Ordering::SeqCst) {
            // Times from the message itself are read again from its row.
            memory.later.clear();
        }
        look_through(&shared, &mut memory, &mut busy, &report).await;
        if busy.is_empty() {
            // An error means that whoever asked has gone.
            settled.drain(..).for_each(|asked| drop(asked.send(())));
        }
        let timer = wait_until(&shared, memory.later.values().min().copied());
        tokio::select! {
            () = shared.ending.cancelled() => return,
            changed = added.changed() => {
                if changed.is_err() {
                    return;
                }
                look = Look::New;
            }
            () = shared.reconsider.notified() => look = Look::All,
            () = timer => look = Look::All,
            Some(asked) = barriers.recv() => {
                settled.push(asked);
                // Also what was skipped: a direction may have opened just before.
                look = Look::All;
            }
            Some((entry, handed)) = reports.recv() => {
                settle(&shared, &mut memory, &mut busy, entry, handed);
                while let Ok((entry, handed)) = reports.try_recv() {
                    settle(&shared, &mut memory, &mut busy, entry, handed);
                }
                look = Look::New;
            }
        }
    }
}

/// How much of the table is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// All of it: something that was skipped may be possible now.
    All,
    /// What was added since.
    New,
}

async fn wait_until(shared: &Shared, time: Option<SysTime>) {
    match time {
        Some(time) => shared.clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Notes how the handling of a message ended.
fn settle(
    shared: &Shared,
    memory: &mut Memory,
    busy: &mut BTreeSet<EntryId>,
    entry: EntryId,
    handed: Handed,
) {
    busy.remove(&entry);
    match handed {
        Handed::Gone | Handed::Deferred | Handed::Unavailable => {
            memory.later.remove(&entry);
        }
        Handed::Later(after) => {
            memory.later.insert(entry, shared.clock.now().saturating_add(after));
        }
        Handed::Error => {
            memory.later.insert(entry, shared.clock.now().saturating_add(AFTER_ERROR));
        }
    }
}

/// Hands over every message that is ready, as many at once as there are permits.
async fn look_through(
    shared: &Arc<Shared>,
    memory: &mut Memory,
    busy: &mut BTreeSet<EntryId>,
    report: &mpsc::UnboundedSender<(EntryId, Handed)>,
) {
    let now = shared.clock.now();
    loop {
        let rows = match shared.store.outgoing_queue(memory.seen.as_ref(), PAGE).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "The outgoing queue table cannot be read");
                return;
            }
        };
        let full_page = rows.len() >= PAGE;
        for OutgoingRow { entry, state, .. } in rows {
            memory.seen = Some(entry.clone());
            let not_before = match state {
                OutgoingState::Waiting { not_before } => not_before,
                OutgoingState::Deferred { .. } => continue,
            };
            let due = memory.later.get(&entry).copied().unwrap_or(SysTime::EPOCH).max(not_before);
            if due > now {
                memory.later.insert(entry, due);
                continue;
            }
            memory.later.remove(&entry);
            if busy.contains(&entry) || shared.given_back().contains(&entry) {
                continue;
            }
            let permit = tokio::select! {
                permit = Arc::clone(&shared.hand_over).acquire_owned() => permit,
                () = shared.ending.cancelled() => return,
            };
            let Ok(permit) = permit else { return };
            busy.insert(entry.clone());
            let turn = memory.turns.next();
            let (shared, report) = (Arc::clone(shared), report.clone());
            shared.clone().tasks.spawn(async move {
                let handed = attempt::hand_over(&shared, &entry, turn).await;
                drop(permit);
                // An error means that the loop has ended with the session.
                let _ = report.send((entry, handed));
            });
        }
        if !full_page {
            return;
        }
    }
}
