//! The submission loop: the outgoing queue table in ascending submit time, each message to the
//! transports its recipients call for (OB-14, AT-3, SP-3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::Shared;
use super::attempt::{self, Handed};
use super::attendance::UnderWay;
use super::calling_order::CallingOrder;
use crate::mapi::{EntryId, MapiCode, StatusCode, SysTime};
use crate::spi::{OutgoingRow, OutgoingState};

/// What becomes of a message that is being handled, for the loop.
type Report = mpsc::UnboundedSender<(EntryId, Progress)>;

/// See [`Report`].
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Its call has come to a standstill; nobody is to wait for it.
    StandsStill,
    /// It ended.
    Ended(Handed),
}

/// Rows read at a time.
const PAGE: usize = 256;

/// When a message whose handling failed by our own fault (a disk error, say) is tried again.
const AFTER_ERROR: Duration = Duration::from_secs(30);

/// What the loop knows between two looks at the table. Bounded by the number of messages that are
/// being handed over or wait for a time of their own.
#[derive(Default)]
struct Memory {
    /// Messages being handed over.
    busy: BTreeSet<EntryId>,
    /// Those of them whose calls have come to a standstill.
    standing: BTreeSet<EntryId>,
    /// Those of them that something happened to meanwhile: to be looked at once more.
    again: BTreeSet<EntryId>,
    /// Messages not to be handed over before a time.
    later: BTreeMap<EntryId, SysTime>,
    /// The table could not be read; when to try again.
    unread: Option<SysTime>,
    order: CallingOrder,
    /// Status rows of the transports that were open when the last look at the whole table began.
    /// What opens later waits for the next such look: only that finds messages in their order
    /// (OB-14), and it comes because something opened.
    open: BTreeSet<u32>,
}

/// How much of the table is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    /// All of it: something that was skipped may be possible now.
    All,
    /// These messages.
    These(BTreeSet<EntryId>),
}

/// Someone who waits until everything that waited when he asked was offered to its transport.
struct Barrier {
    left: BTreeSet<EntryId>,
    asked: oneshot::Sender<()>,
}

/// Runs until the session ends.
pub(crate) async fn run(shared: Arc<Shared>, mut barriers: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut added = shared.store.outgoing_added();
    let (report, mut reports) = mpsc::unbounded_channel::<(EntryId, Progress)>();
    let mut memory = Memory::default();
    let mut waiting: Vec<Barrier> = Vec::new();
    let mut look = Look::All;
    loop {
        match std::mem::replace(&mut look, Look::These(BTreeSet::new())) {
            Look::All => look_at_all(&shared, &mut memory, &report).await,
            Look::These(entries) => look_at(&shared, &mut memory, &report, entries).await,
        }
        waiting = still_waiting(waiting, &memory);
        tokio::select! {
            () = shared.ending.cancelled() => return,
            heard = added.recv() => match heard {
                Ok(entry) => look = drain(&mut added, &mut memory, entry),
                Err(RecvError::Lagged(_)) => look = Look::All,
                Err(RecvError::Closed) => return,
            },
            () = shared.reconsider.notified() => {
                if shared.resume.swap(false, Ordering::SeqCst) {
                    // Times from the messages themselves are read again from their rows.
                    memory.later.clear();
                }
                look = Look::All;
            }
            () = wait_until(&shared, memory.next_time()) => look = memory.due(shared.clock.now()),
            Some(asked) = barriers.recv() => {
                // All of it, because what made messages possible may not have been heard yet.
                look_at_all(&shared, &mut memory, &report).await;
                waiting.push(Barrier { left: memory.moving().cloned().collect(), asked });
            }
            Some((entry, progress)) = reports.recv() => {
                let mut entries = BTreeSet::new();
                let mut next = Some((entry, progress));
                while let Some((entry, progress)) = next {
                    match progress {
                        Progress::StandsStill => {
                            memory.standing.insert(entry);
                        }
                        Progress::Ended(handed) => {
                            if memory.handed(entry.clone(), handed, shared.clock.now()) {
                                entries.insert(entry);
                            }
                        }
                    }
                    next = reports.try_recv().ok();
                }
                look = Look::These(entries);
            }
        }
    }
}

/// Answers those who need not wait any more: nothing they wait for is being handed over.
fn still_waiting(mut barriers: Vec<Barrier>, memory: &Memory) -> Vec<Barrier> {
    for barrier in &mut barriers {
        barrier.left.retain(|entry| memory.is_moving(entry));
    }
    let (left, through): (Vec<_>, Vec<_>) =
        barriers.into_iter().partition(|barrier| !barrier.left.is_empty());
    for Barrier { asked, .. } in through {
        // An error means that whoever asked has gone.
        let _ = asked.send(());
    }
    left
}

/// Everything that was announced up to now.
fn drain(added: &mut broadcast::Receiver<EntryId>, memory: &mut Memory, first: EntryId) -> Look {
    let mut entries = BTreeSet::from([first]);
    loop {
        match added.try_recv() {
            Ok(entry) => {
                entries.insert(entry);
            }
            Err(TryRecvError::Lagged(_)) => return Look::All,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    // What is announced is new, or was changed by someone who wants it to go.
    memory.later.retain(|entry, _| !entries.contains(entry));
    Look::These(entries)
}

async fn wait_until(shared: &Shared, time: Option<SysTime>) {
    match time {
        Some(time) => shared.clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Memory {
    /// Messages that are being handed over and not at a standstill.
    fn moving(&self) -> impl Iterator<Item = &EntryId> {
        self.busy.difference(&self.standing)
    }

    fn is_moving(&self, entry: &EntryId) -> bool {
        self.busy.contains(entry) && !self.standing.contains(entry)
    }

    fn next_time(&self) -> Option<SysTime> {
        self.later.values().copied().chain(self.unread).min()
    }

    /// What the timer was set for.
    fn due(&self, now: SysTime) -> Look {
        if self.unread.is_some_and(|time| time <= now) {
            return Look::All;
        }
        let due = self.later.iter().filter(|(_, time)| **time <= now);
        Look::These(due.map(|(entry, _)| entry.clone()).collect())
    }

    /// Notes how the handling of a message ended; `true` when it is to be looked at once more.
    fn handed(&mut self, entry: EntryId, handed: Handed, now: SysTime) -> bool {
        self.busy.remove(&entry);
        self.standing.remove(&entry);
        let again = self.again.remove(&entry);
        match handed {
            Handed::Gone | Handed::Deferred | Handed::Unavailable => {
                self.later.remove(&entry);
            }
            Handed::Later(after) => {
                self.later.insert(entry, now.saturating_add(after));
            }
            Handed::Error => {
                self.later.insert(entry, now.saturating_add(AFTER_ERROR));
            }
        }
        again
    }
}

/// Hands over every message that is ready.
async fn look_at_all(shared: &Arc<Shared>, memory: &mut Memory, report: &Report) {
    memory.unread = None;
    let rows = shared.table.rows().into_iter();
    let open = rows.filter(|row| row.status_code.contains(StatusCode::OUTBOUND_ENABLED));
    memory.open = open.map(|row| row.row_id).collect();
    let mut after = None;
    loop {
        let rows = match shared.store.outgoing_queue(after.as_ref(), PAGE).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "The outgoing queue table cannot be read");
                memory.unread = Some(shared.clock.now().saturating_add(AFTER_ERROR));
                return;
            }
        };
        let Some(last) = rows.last() else { return };
        after = Some(last.entry.clone());
        let full_page = rows.len() >= PAGE;
        for row in rows {
            consider(shared, memory, report, row).await;
        }
        if !full_page {
            return;
        }
    }
}

/// Hands over those of some messages that are ready.
async fn look_at(
    shared: &Arc<Shared>,
    memory: &mut Memory,
    report: &Report,
    entries: BTreeSet<EntryId>,
) {
    for entry in entries {
        match shared.store.outgoing_row(&entry).await {
            Ok(row) => consider(shared, memory, report, row).await,
            Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => {
                memory.later.remove(&entry);
            }
            Err(error) => {
                tracing::error!(%entry, %error, "A row of the outgoing queue cannot be read");
                memory.later.insert(entry, shared.clock.now().saturating_add(AFTER_ERROR));
            }
        }
    }
}

/// Hands a message over when it is ready, waiting for a permit.
async fn consider(shared: &Arc<Shared>, memory: &mut Memory, report: &Report, row: OutgoingRow) {
    let OutgoingRow { entry, state, .. } = row;
    let not_before = match state {
        OutgoingState::Waiting { not_before } if not_before < SysTime::MAX => not_before,
        // With a transport, or on hold.
        OutgoingState::Waiting { .. } | OutgoingState::Deferred { .. } => {
            memory.later.remove(&entry);
            return;
        }
    };
    let due = memory.later.get(&entry).copied().unwrap_or(SysTime::EPOCH).max(not_before);
    if due > shared.clock.now() {
        memory.later.insert(entry, due);
        return;
    }
    memory.later.remove(&entry);
    if memory.busy.contains(&entry) {
        memory.again.insert(entry);
        return;
    }
    if shared.given_back().contains(&entry) || memory.open.is_empty() {
        return;
    }
    let permit = tokio::select! {
        permit = Arc::clone(&shared.hand_over).acquire_owned() => permit,
        () = shared.ending.cancelled() => return,
    };
    let Ok(permit) = permit else { return };
    memory.busy.insert(entry.clone());
    let place = memory.order.next(memory.open.clone());
    let standstill = {
        let (report, entry) = (report.clone(), entry.clone());
        move || drop(report.send((entry, Progress::StandsStill)))
    };
    let under_way = UnderWay::new(place, permit, standstill);
    let (task_shared, report) = (Arc::clone(shared), report.clone());
    shared.spawn(async move {
        let handed = attempt::hand_over(&task_shared, &entry, under_way).await;
        // An error means that the loop has ended with the session.
        let _ = report.send((entry, Progress::Ended(handed)));
    });
}
