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
use super::calling_order::{CallingOrder, Handling, Last, Openings};
use super::expired;
use super::slot::Slot;
use crate::mapi::{EntryId, MapiCode, StatusCode, SysTime};
use crate::spi::{OutgoingRow, OutgoingState};

/// What becomes of a message that is being handled, for the loop.
type Report = mpsc::UnboundedSender<(EntryId, Arc<Handling>, Progress)>;

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
    busy: BTreeMap<EntryId, Arc<Handling>>,
    /// Those of them whose calls have come to a standstill.
    standing: BTreeSet<EntryId>,
    /// Those of them that something happened to meanwhile: to be looked at once more.
    again: BTreeSet<EntryId>,
    /// Messages that are given up at a time unless a transport has them by then.
    expiries: BTreeMap<EntryId, SysTime>,
    /// Messages not to be handed over before a time.
    later: BTreeMap<EntryId, SysTime>,
    /// The table could not be read; when to try again.
    unread: Option<SysTime>,
    order: CallingOrder,
    /// The transports that were open when the last look at the whole table began. What opens
    /// later waits for the next such look: only that finds messages in their order (OB-14), and
    /// it comes because something opened.
    open: Openings,
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
    let (report, mut reports) = mpsc::unbounded_channel();
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
            Some(first) = reports.recv() => {
                let mut entries = BTreeSet::new();
                let mut next = Some(first);
                while let Some((entry, handling, progress)) = next {
                    let now = shared.clock.now();
                    if memory.heard(&entry, &handling, progress, now) {
                        entries.insert(entry);
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
        self.busy.keys().filter(|entry| !self.standing.contains(*entry))
    }

    fn is_moving(&self, entry: &EntryId) -> bool {
        self.busy.contains_key(entry) && !self.standing.contains(entry)
    }

    /// Notes that a message is being handled from now on.
    fn begin(&mut self, entry: &EntryId) -> Arc<Handling> {
        let handling = Arc::new(Handling::default());
        self.busy.insert(entry.clone(), Arc::clone(&handling));
        self.standing.remove(entry);
        handling
    }

    /// Takes up what became of a message; `true` when it is to be looked at once more. Of a
    /// handling that another one has followed nothing is of interest any more.
    fn heard(
        &mut self,
        entry: &EntryId,
        handling: &Arc<Handling>,
        progress: Progress,
        now: SysTime,
    ) -> bool {
        if self.busy.get(entry).is_none_or(|newest| !Arc::ptr_eq(newest, handling)) {
            return false;
        }
        match progress {
            Progress::StandsStill => {
                self.standing.insert(entry.clone());
                false
            }
            Progress::Ended(handed) => self.handed(entry.clone(), handed, now),
        }
    }

    fn next_time(&self) -> Option<SysTime> {
        self.later.values().chain(self.expiries.values()).copied().chain(self.unread).min()
    }

    /// What the timer was set for.
    fn due(&self, now: SysTime) -> Look {
        if self.unread.is_some_and(|time| time <= now) {
            return Look::All;
        }
        let times = self.later.iter().chain(&self.expiries);
        let due = times.filter(|(_, time)| **time <= now);
        Look::These(due.map(|(entry, _)| entry.clone()).collect())
    }

    /// Notes how the handling of a message ended; `true` when it is to be looked at once more.
    fn handed(&mut self, entry: EntryId, handed: Handed, now: SysTime) -> bool {
        self.busy.remove(&entry);
        self.standing.remove(&entry);
        let again = self.again.remove(&entry);
        match handed {
            Handed::Gone | Handed::Deferred => {
                self.later.remove(&entry);
                self.expiries.remove(&entry);
            }
            Handed::Unavailable => {
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
    let slots = shared.slots();
    // The number first: an opening that comes between the two is left to the look it causes.
    let numbers = slots.iter().map(|slot| (slot, slot.outbound_opening()));
    let is_open = |slot: &Slot| {
        let code = shared.table.status_code(slot.row_id).unwrap_or_default();
        code.contains(StatusCode::OUTBOUND_ENABLED) && !slot.stands_still()
    };
    let open = numbers.filter(|(slot, _)| is_open(slot));
    memory.open = open.map(|(slot, number)| (slot.row_id, number)).collect();
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
                memory.expiries.remove(&entry);
            }
            Err(error) => {
                tracing::error!(%entry, %error, "A row of the outgoing queue cannot be read");
                memory.expiries.remove(&entry);
                memory.later.insert(entry, shared.clock.now().saturating_add(AFTER_ERROR));
            }
        }
    }
}

/// Gives a message up that has passed its expiry, waiting for a permit (OB-19).
async fn give_up(shared: &Arc<Shared>, memory: &mut Memory, report: &Report, entry: EntryId) {
    memory.later.remove(&entry);
    let permit = tokio::select! {
        permit = Arc::clone(&shared.finish).acquire_owned() => permit,
        () = shared.ending.cancelled() => return,
    };
    let Ok(permit) = permit else { return };
    let handling = memory.begin(&entry);
    let (task_shared, report) = (Arc::clone(shared), report.clone());
    shared.spawn(async move {
        let handed = expired::expire(&task_shared, &entry).await;
        let _none = handling.next(Last::Handled);
        drop(permit);
        // An error means that the loop has ended with the session.
        let _ = report.send((entry, handling, Progress::Ended(handed)));
    });
}

/// Hands a message over when it is ready, waiting for a permit.
async fn consider(shared: &Arc<Shared>, memory: &mut Memory, report: &Report, row: OutgoingRow) {
    let OutgoingRow { entry, state, expires, .. } = row;
    let not_before = match state {
        OutgoingState::Waiting { not_before } if not_before < SysTime::MAX => not_before,
        // With a transport, or on hold.
        OutgoingState::Waiting { .. } | OutgoingState::Deferred { .. } => {
            memory.later.remove(&entry);
            memory.expiries.remove(&entry);
            return;
        }
    };
    let expired = expires.is_some_and(|time| time <= shared.clock.now());
    match expires.filter(|_| !expired) {
        Some(time) => memory.expiries.insert(entry.clone(), time),
        None => memory.expiries.remove(&entry),
    };
    if expired && !memory.busy.contains_key(&entry) {
        return give_up(shared, memory, report, entry).await;
    }
    let due = memory.later.get(&entry).copied().unwrap_or(SysTime::EPOCH).max(not_before);
    if due > shared.clock.now() {
        memory.later.insert(entry, due);
        return;
    }
    memory.later.remove(&entry);
    if let Some(handling) = memory.busy.get(&entry) {
        memory.again.insert(entry.clone());
        if handling.again(memory.order.next(memory.open.clone())).is_none() {
            return;
        }
        memory.again.remove(&entry);
    }
    if shared.given_back().contains(&entry) || memory.open.is_empty() {
        return;
    }
    let permit = tokio::select! {
        permit = Arc::clone(&shared.hand_over).acquire_owned() => permit,
        () = shared.ending.cancelled() => return,
    };
    let Ok(permit) = permit else { return };
    let handling = memory.begin(&entry);
    let place = memory.order.next(memory.open.clone()).of(&handling);
    let standstill = {
        let (report, entry, handling) = (report.clone(), entry.clone(), Arc::clone(&handling));
        move || drop(report.send((entry, handling, Progress::StandsStill)))
    };
    let mut under_way = UnderWay::new(place, permit, standstill);
    let (task_shared, report) = (Arc::clone(shared), report.clone());
    shared.spawn(async move {
        let handed = loop {
            let handed = attempt::hand_over(&task_shared, &entry, &mut under_way).await;
            let last = match handed {
                Handed::Unavailable => Last::Closed,
                Handed::Gone | Handed::Deferred | Handed::Later(_) | Handed::Error => Last::Handled,
            };
            match handling.next(last) {
                Some(again) => under_way.place = again.of(&handling),
                None => break handed,
            }
        };
        drop(under_way);
        // An error means that the loop has ended with the session.
        let _ = report.send((entry, handling, Progress::Ended(handed)));
    });
}
