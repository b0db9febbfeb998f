//! What an account may do at a moment: gate, flush mode, trouble, connections. Pure: no I/O, no
//! clock; whoever changes it looks at it again.

mod ahead;
mod health;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::rate::Rate;
use super::reply::{Cause, Failure, Scope};
use crate::mapi::{EntryId, Priority, SysTime};
use crate::transport::events::Gate;
use ahead::Aheads;
use health::Paused;

pub(super) use ahead::WentAhead;
pub(super) use health::{Health, Outage, Reaction};

/// Claims kept ready for each connection, so that none waits for the disk between two messages.
const AHEAD: usize = 16;
/// Messages a flush remembers as tried; a flush that meets more failures than this ends.
const MAX_TRIED: usize = 100_000;
/// How long fewer connections are opened after a server refused one beside others that work.
const CAP_LASTS: Duration = Duration::from_secs(60);

/// State of the sending side of one account; `F` is a claimed message.
#[derive(Debug)]
pub(super) struct Lane<F> {
    gate: Gate,
    stopping: bool,
    flush: Option<Flush>,
    /// The last flush, when it ended by itself and could go on.
    flushed: Option<Flush>,
    trouble: Option<Paused>,
    health: Health,
    limit: usize,
    cap: Option<(usize, SysTime)>,
    ahead: Aheads,
    /// How many messages may begin.
    rate: Rate,
    /// Claimed and waiting for a connection, urgent ones first.
    ready: VecDeque<(Priority, F)>,
    /// Something urgent is in the queue that is not claimed: it does not wait for room in line.
    urgent: bool,
    /// Connection tasks.
    workers: usize,
    /// Those of them that wait for work on an open connection.
    idle: usize,
    /// Those of them that have an open connection.
    connected: usize,
    moving: usize,
    /// Whether messages wait in the queue that nothing new may overtake.
    backlog: Backlog,
    /// How often messages were sent back to their places in the queue.
    recalls: u64,
    /// Grows with everything that makes an earlier look at the queue worth nothing.
    asked: u64,
}

/// What is known of the messages that are due and not claimed.
#[derive(Clone, Copy, Debug, Default)]
struct Backlog {
    /// At the last look more was due than could be claimed.
    more: bool,
    /// A look at the queue is under way.
    looking: bool,
    /// The last look was for something urgent.
    urgent: bool,
    /// Messages put into the queue without a claim so far, and how many of them had been when
    /// the last look began.
    stored: u64,
    looked: u64,
}

#[derive(Debug, Default)]
struct Flush {
    tried: HashSet<EntryId>,
    /// Their attempts began before the flush: if those fail, they are tried again.
    under_way: HashSet<EntryId>,
    /// Nothing was left to move when last looked.
    announced: bool,
    /// Trouble is not waited for before the first look.
    probed: bool,
}

impl<F> Lane<F> {
    /// A closed lane for at most `limit` connections.
    pub(super) fn new(limit: usize) -> Self {
        Lane {
            gate: Gate::Closed,
            stopping: false,
            flush: None,
            flushed: None,
            trouble: None,
            health: Health::default(),
            limit: limit.max(1),
            cap: None,
            ahead: Aheads::default(),
            rate: Rate::default(),
            ready: VecDeque::new(),
            urgent: false,
            workers: 0,
            idle: 0,
            connected: 0,
            moving: 0,
            // What an earlier process left has not been looked at yet.
            backlog: Backlog { more: true, ..Backlog::default() },
            recalls: 0,
            asked: 0,
        }
    }

    /// The same lane for at most `limit` messages a minute.
    pub(super) fn paced(mut self, limit: Option<u32>) -> Self {
        self.rate = Rate::new(limit);
        self
    }

    /// Until when nothing may begin because of the limit on messages.
    pub(super) fn throttled_until(&self, now: SysTime) -> Option<SysTime> {
        self.rate.until(now)
    }

    /// Notes that a message, or another transaction of one, begins; says whether it may.
    pub(super) fn begin_one(&mut self, now: SysTime) -> bool {
        self.rate.begin(now)
    }

    /// Messages go back to their places in the queue: what was claimed behind them follows.
    pub(super) fn recalled(&mut self) {
        self.recalls = self.recalls.wrapping_add(1);
    }

    /// How often messages went back.
    pub(super) fn recalls(&self) -> u64 {
        self.recalls
    }

    pub(super) fn set_gate(&mut self, gate: Gate) {
        // Whoever opens the gate wants to see it tried.
        if gate == Gate::Open && self.gate == Gate::Closed {
            self.try_now();
        }
        if gate == Gate::Closed {
            self.flushed = None;
        }
        self.gate = gate;
    }

    /// Ends all work for good.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(super) fn begin_flush(&mut self) {
        self.asked += 1;
        self.flush = Some(Flush::default());
        self.flushed = None;
        self.cap = None;
    }

    /// Goes on with a flush that ended by itself: what it has tried is not tried again.
    pub(super) fn go_on_flushing(&mut self) {
        if let (None, Some(flushed)) = (&self.flush, self.flushed.take()) {
            self.flush = Some(Flush { announced: false, ..flushed });
            self.asked += 1;
        }
    }

    /// Notes whose attempts began before the flush that has just begun.
    pub(super) fn not_tried_yet(&mut self, under_way: impl Iterator<Item = EntryId>) {
        if let Some(flush) = &mut self.flush {
            flush.under_way.extend(under_way);
        }
    }

    pub(super) fn end_flush(&mut self) {
        self.flush = None;
    }

    /// Ends a flush that is over; `false` when none is, or it has something to do again.
    pub(super) fn end_drained_flush(&mut self) -> bool {
        self.flushed = self.flush.take_if(|flush| flush.announced);
        self.flushed.is_some()
    }

    /// Whether retry times are ignored (TN-12).
    pub(super) fn is_flushing(&self) -> bool {
        self.flush.is_some()
    }

    /// Does not wait for trouble to pass before the next try.
    pub(super) fn try_now(&mut self) {
        if let Some(paused) = &mut self.trouble {
            paused.until = SysTime::EPOCH;
        }
        self.cap = None;
    }

    /// What a look at the queue is an answer to; when it differs afterwards, look again.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether a new transaction may start (TN-8, TN-9).
    pub(super) fn is_open(&self) -> bool {
        self.gate == Gate::Open && !self.stopping
    }

    fn is_paused(&self, now: SysTime) -> bool {
        let probe = self.flush.as_ref().is_some_and(|flush| !flush.probed);
        self.trouble.as_ref().is_some_and(|paused| now < paused.until) && !probe
    }

    /// The trouble there is, and until when it is waited for.
    pub(super) fn trouble(&self) -> Option<(&Failure, SysTime)> {
        self.trouble.as_ref().map(|paused| (&paused.why, paused.until))
    }

    /// Until when trouble is waited for.
    pub(super) fn paused_until(&self, now: SysTime) -> Option<SysTime> {
        self.trouble.as_ref().map(|paused| paused.until).filter(|_| self.is_paused(now))
    }

    fn connections(&self, now: SysTime) -> usize {
        if self.trouble.is_some() {
            return 1;
        }
        match self.cap {
            Some((cap, until)) if now < until => self.limit.min(cap).max(1),
            _ => self.limit,
        }
    }

    /// How many messages should be claimed now; 0 also while enough are ready.
    pub(super) fn to_claim(&self, now: SysTime) -> usize {
        let left = self.rate.left(now);
        if !self.is_open() || self.is_paused(now) || left == 0 {
            return 0;
        }
        if self.trouble.is_some() {
            // One at a time, to see whether it works again.
            return usize::from(self.ready.is_empty() && self.workers == self.idle);
        }
        let wanted = self.connections(now) * AHEAD;
        if self.urgent {
            return wanted.min(left);
        }
        let more = if self.ready.len() > wanted / 2 { 0 } else { wanted - self.ready.len() };
        more.min(left.saturating_sub(self.ready.len()))
    }

    /// Whether a message that is being accepted may be claimed in the same commit.
    pub(super) fn may_claim_new(&self, now: SysTime) -> bool {
        self.is_open()
            && self.trouble.is_none()
            && !(self.backlog.more || self.backlog.looking)
            && self.backlog.looked == self.backlog.stored
            && self.ready.len() < (self.connections(now) * AHEAD).min(self.rate.left(now))
    }

    /// A message is in the queue and not claimed.
    pub(super) fn stored(&mut self, priority: Priority) {
        self.urgent |= priority == Priority::Urgent;
        self.backlog.stored = self.backlog.stored.wrapping_add(1);
    }

    /// A look at the queue begins; the answer is for its end.
    pub(super) fn begin_look(&mut self) -> u64 {
        self.backlog.looking = true;
        self.backlog.urgent = std::mem::take(&mut self.urgent);
        self.backlog.stored
    }

    /// A look has ended with its claims in line; `more` was due than was claimed.
    pub(super) fn end_look(&mut self, begun: u64, more: bool) {
        self.backlog = Backlog { more, looking: false, looked: begun, ..self.backlog };
    }

    /// What the look found waits for an older message on its way: the urgent ones that it was for
    /// are still to be claimed.
    pub(super) fn held_up(&mut self) {
        self.urgent |= self.backlog.urgent;
    }

    /// Puts a claimed message in line, behind those that are as urgent.
    pub(super) fn push(&mut self, priority: Priority, flight: F) {
        let at = self.ready.partition_point(|(other, _)| *other <= priority);
        self.ready.insert(at, (priority, flight));
        self.new_work();
    }

    /// How many connection tasks should be started; they are counted as running from now on.
    pub(super) fn hire(&mut self, now: SysTime) -> usize {
        if !self.is_open() || self.is_paused(now) || self.rate.left(now) == 0 {
            return 0;
        }
        let wanted = self.ready.len().saturating_sub(self.idle);
        let free = self.connections(now).saturating_sub(self.workers);
        let hired = wanted.min(free);
        self.workers += hired;
        hired
    }

    /// The next message for a connection.
    pub(super) fn take(&mut self) -> Option<F> {
        let first = if self.is_open() { self.ready.pop_front() } else { None };
        let taken = first.map(|(_, flight)| flight);
        if taken.is_some()
            && let Some(flush) = &mut self.flush
        {
            flush.probed = true;
        }
        taken
    }

    /// Everything that is ready and may not start: to be given back.
    pub(super) fn take_back(&mut self, now: SysTime) -> Vec<F> {
        if self.is_open() && !self.is_paused(now) && self.rate.left(now) > 0 {
            return Vec::new();
        }
        self.recall()
    }

    /// The next message for a connection, if the limit on messages lets one begin.
    pub(super) fn take_in_turn(&mut self, now: SysTime) -> Option<F> {
        if self.rate.left(now) == 0 {
            return None;
        }
        let taken = self.take();
        if taken.is_some() {
            self.rate.begin(now);
        }
        taken
    }

    /// The message whose envelope leaves before the one in front of it is answered: only while more
    /// are in line than other connections could begin with, and none that is urgent.
    pub(super) fn take_following(&mut self, now: SysTime) -> Option<F> {
        let urgent = matches!(self.ready.front(), Some((Priority::Urgent, _)));
        if self.is_one_by_one(now)
            || !self.may_go_on(now)
            || self.ready.len() <= self.workers
            || urgent
        {
            return None;
        }
        self.take_in_turn(now)
    }

    /// Notes how a server took an envelope ahead of its turn.
    pub(super) fn went_ahead(&mut self, end: WentAhead, now: SysTime) {
        self.ahead.went(end, now);
    }

    /// Whether no envelope is written ahead of its turn.
    pub(super) fn is_one_by_one(&self, now: SysTime) -> bool {
        self.ahead.is_one_by_one(now)
    }

    /// Whether a message that is on a connection already may begin.
    pub(super) fn may_go_on(&self, now: SysTime) -> bool {
        self.is_open() && !self.is_paused(now)
    }

    /// Everything that is ready, to be given back.
    pub(super) fn recall(&mut self) -> Vec<F> {
        self.ready.drain(..).map(|(_, flight)| flight).collect()
    }

    /// A connection task ends.
    pub(super) fn fire(&mut self) {
        self.workers = self.workers.saturating_sub(1);
    }

    /// A connection opened.
    pub(super) fn connected(&mut self) {
        self.connected += 1;
    }

    /// Whether a connection is open.
    pub(super) fn is_connected(&self) -> bool {
        self.connected > 0
    }

    /// A connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.connected = self.connected.saturating_sub(1);
    }

    pub(super) fn rest(&mut self) {
        self.idle += 1;
    }

    pub(super) fn wake(&mut self) {
        self.idle = self.idle.saturating_sub(1);
    }

    /// A message begins to move; `true` when none moved before. `None`: it may not (TN-9).
    pub(super) fn begin_moving(&mut self) -> Option<bool> {
        self.is_open().then(|| {
            self.moving += 1;
            self.moving == 1
        })
    }

    /// A message moves no more; `true` when none moves now.
    pub(super) fn end_moving(&mut self) -> bool {
        self.moving = self.moving.saturating_sub(1);
        self.moving == 0
    }

    /// A transaction went through. `true` when there was trouble before.
    pub(super) fn mended(&mut self, now: SysTime) -> bool {
        self.health.last_success = Some(now);
        let Some(trouble) = self.trouble.take() else { return false };
        self.health.last_outage = Some(Outage { since: trouble.since, until: now });
        true
    }

    /// How the account worked.
    pub(super) fn health(&self) -> Health {
        self.health
    }

    /// Something failed that is no message's fault; `pause` tells how long to wait after so many
    /// failures in a row. `others` says whether other connections of this account work.
    pub(super) fn failed(
        &mut self,
        failure: &Failure,
        now: SysTime,
        pause: impl FnOnce(u32) -> Duration,
    ) -> Reaction {
        let others_work = self.connected > 0 && self.trouble.is_none();
        let one_connection = failure.verdict.scope == Scope::Network || !failure.is_transaction();
        if others_work && one_connection {
            self.cap = Some((self.connected, now.saturating_add(CAP_LASTS)));
            return Reaction::FewerConnections;
        }
        let (failures, since) =
            self.trouble.as_ref().map_or((0, now), |paused| (paused.failures, paused.since));
        let failures = failures.saturating_add(1);
        let until = now.saturating_add(pause(failures));
        self.trouble = Some(Paused { since, failures, until, why: failure.clone() });
        if failure.verdict.cause == Cause::Throttled && self.connected > 0 {
            self.cap = Some((1, until.saturating_add(CAP_LASTS)));
        }
        Reaction::Pause(until)
    }

    /// A message was tried and is still in the queue: the flush that runs has done its part for
    /// it, and so has one that ended by itself and may go on.
    pub(super) fn tried(&mut self, entry: &EntryId) {
        if let Some(flush) = self.flush.as_mut().or(self.flushed.as_mut())
            && !flush.under_way.remove(entry)
            && flush.tried.len() < MAX_TRIED
        {
            flush.tried.insert(entry.clone());
        }
    }

    /// Whether a flush has tried it already.
    pub(super) fn was_tried(&self, entry: &EntryId) -> bool {
        self.flush.as_ref().is_some_and(|flush| flush.tried.contains(entry))
    }

    fn flush_is_spent(&self) -> bool {
        self.flush.as_ref().is_some_and(|flush| flush.tried.len() >= MAX_TRIED)
    }

    /// New work has come: a flush that had ended has something to do again.
    pub(super) fn new_work(&mut self) {
        self.asked += 1;
        if let Some(flush) = &mut self.flush {
            flush.announced = false;
        }
    }

    /// Whether the flush is to be announced as drained: nothing is claimed, and nothing that is
    /// queued can move now (`nothing_due`, or trouble keeps it all).
    pub(super) fn drained(&mut self, now: SysTime, in_flight: bool, nothing_due: bool) -> bool {
        let stuck = self.is_paused(now) || self.flush_is_spent();
        let open = self.is_open();
        let Some(flush) = &mut self.flush else { return false };
        if flush.announced || in_flight || !open || !(nothing_due || stuck) {
            return false;
        }
        flush.announced = true;
        flush.probed = true;
        true
    }
}

#[cfg(test)]
#[path = "lane/tests.rs"]
mod tests;
