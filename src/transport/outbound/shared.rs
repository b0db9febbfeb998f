//! What the tasks of one account share.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::deadlines::Deadlines;
use super::entering::Entering;
use super::expiry::Expiries;
use super::flight::{Flight, Flights};
use super::herald::{Herald, News, OutboundEvents};
use super::lane::{Health, Lane, Reaction};
use super::login::Dial;
use super::recorder::Landing;
use super::reply::{Cause, Failure, Permanence};
use super::schedule::{AttemptEnd, Rules, lane_pause};
use crate::clock::{Clock, SteadyClock};
use crate::mapi::{EntryId, MapiCode, SysTime};
use crate::spool::{AccountKey, Spool, SpoolError};
use crate::transport::events::{Activity, SendingNotes, Trouble, TroubleKind};
use crate::transport::{Identity, QueueSettings, SmtpSettings};

/// What one account's sending side is made of.
#[derive(Clone, Debug)]
pub(crate) struct OutboundSettings {
    /// Name of the transport; rows of the queue carry it.
    pub(crate) transport: String,
    /// Who sends.
    pub(crate) identity: Identity,
    /// The server.
    pub(crate) smtp: SmtpSettings,
    /// Retries and lifetime.
    pub(crate) queue: QueueSettings,
    /// How we name ourselves in EHLO.
    pub(crate) helo: String,
    /// How long each phase may take.
    pub(crate) deadlines: Deadlines,
}

impl OutboundSettings {
    /// Settings with the defaults of what a profile does not say: the deadlines of RFC 5321, and
    /// the address literal by which a machine without a name of its own says EHLO (RFC 5321
    /// section 4.1.3).
    pub(crate) fn new(
        transport: &str,
        identity: Identity,
        smtp: SmtpSettings,
        queue: QueueSettings,
    ) -> Self {
        OutboundSettings {
            transport: transport.to_owned(),
            identity,
            smtp,
            queue,
            helo: "[127.0.0.1]".to_owned(),
            deadlines: Deadlines::default(),
        }
    }
}

/// A random number from 0 to 1.
pub(super) type Dice = Box<dyn Fn() -> f64 + Send + Sync>;

/// The parts that differ in tests.
pub(super) struct Parts {
    pub(super) settings: OutboundSettings,
    pub(super) spool: Arc<dyn Spool>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) dice: Dice,
}

/// So many failures of the spool in a row, seconds apart, are no passing trouble.
const HOPELESS: u32 = 60;

/// See the module.
pub(super) struct Shared {
    pub(super) settings: OutboundSettings,
    pub(super) account: AccountKey,
    pub(super) spool: Arc<dyn Spool>,
    /// For everything that is scheduled: never runs backwards.
    pub(super) clock: Arc<dyn Clock>,
    /// For what is told to people: when something happened.
    pub(super) wall: Arc<dyn Clock>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) dialer: Arc<dyn Dial>,
    /// Names this process in leases.
    pub(super) owner: u64,
    pub(super) flights: Flights,
    pub(super) entering: Entering,
    pub(super) expiries: Expiries,
    lane: Mutex<Lane<Arc<Flight>>>,
    /// Wakes the dispatcher.
    pub(super) wake: Notify,
    /// Wakes connections that wait for work.
    pub(super) work: Notify,
    pub(super) herald: Herald,
    /// For what cannot wait its turn: see [`OutboundEvents`].
    pub(super) events: Arc<dyn OutboundEvents>,
    /// How often the spool has failed in a row.
    storage_failures: AtomicU32,
    pub(super) landings: mpsc::UnboundedSender<Landing>,
    /// What was asked for when a look found nothing under way and nothing that can be tried.
    pub(super) quiet_since: watch::Sender<u64>,
    /// Ends every task.
    pub(super) end: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Messages were sent away because the disk was full.
    pub(super) refused: AtomicBool,
    /// What the owner was told of.
    notes: Mutex<SendingNotes>,
    /// Messages with a transaction that waits for its turn.
    pub(super) waiting: AtomicUsize,
    dice: Dice,
}

impl Shared {
    pub(super) fn new(
        parts: Parts,
        herald: Herald,
        events: Arc<dyn OutboundEvents>,
        landings: mpsc::UnboundedSender<Landing>,
        end: CancellationToken,
    ) -> Self {
        Shared {
            account: AccountKey::of(&parts.settings.transport),
            lane: Mutex::new(
                Lane::new(parts.settings.smtp.connections)
                    .paced(parts.settings.smtp.messages_per_minute),
            ),
            settings: parts.settings,
            spool: parts.spool,
            clock: Arc::new(SteadyClock::new(Arc::clone(&parts.clock))),
            wall: parts.clock,
            runtime: parts.runtime,
            dialer: parts.dialer,
            owner: fastrand::u64(..),
            flights: Flights::default(),
            entering: Entering::default(),
            expiries: Expiries::default(),
            wake: Notify::new(),
            work: Notify::new(),
            herald,
            events,
            storage_failures: AtomicU32::new(0),
            landings,
            quiet_since: watch::Sender::new(0),
            end,
            tasks: TaskTracker::new(),
            refused: AtomicBool::new(false),
            notes: Mutex::default(),
            waiting: AtomicUsize::new(0),
            dice: parts.dice,
        }
    }

    /// Tells the owner what is no trouble, when it has changed.
    pub(super) fn note(&self, change: impl FnOnce(&mut SendingNotes)) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = notes.clone();
        change(&mut notes);
        if *notes != before {
            self.herald.tell(News::Notes(notes.clone()));
        }
    }

    /// Waits until the limit on messages lets another transaction begin. Cancel-safe.
    pub(super) async fn turn(&self) {
        if self.lane().begin_one(self.clock.now()) {
            return;
        }
        let _waiting = WaitsForTurn::new(self);
        loop {
            let until = {
                let (now, mut lane) = (self.clock.now(), self.lane());
                if lane.begin_one(now) {
                    return;
                }
                lane.throttled_until(now).unwrap_or(now)
            };
            self.clock.sleep_until(until).await;
        }
    }

    /// The lane. Held for moments only, never across a wait.
    pub(super) fn lane(&self) -> MutexGuard<'_, Lane<Arc<Flight>>> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rules(&self) -> Rules<'_> {
        Rules {
            queue: &self.settings.queue,
            now: self.clock.now(),
            unit: (self.dice)(),
            health: Health::default(),
        }
    }

    /// A lease for an attempt that begins now.
    pub(super) fn lease_until(&self, recipients: usize, size: u64) -> SysTime {
        let longest = self.settings.deadlines.longest_attempt(recipients, size);
        self.clock.now().saturating_add(longest)
    }

    /// Starts a task that ends with the account. Without it the account cannot go on: a panic of
    /// it is beyond recovery (OB-9), and what it had in hand is due at its stored time.
    pub(super) fn spawn(
        self: &Arc<Self>,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let (end, events) = (self.end.clone(), Arc::clone(&self.events));
        let work = AssertUnwindSafe(work).catch_unwind();
        let work = async move {
            let ended = tokio::select! {
                biased;
                () = end.cancelled() => Ok(()),
                ended = work => ended,
            };
            if let Err(panic) = ended {
                events.trouble(Some(Trouble::breakdown(task, panic.as_ref())));
            }
        };
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Starts a task that ends with the account and that nothing depends on.
    pub(super) fn spawn_aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        let work = async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = work => {}
            }
        };
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Hands an outcome to the recorder. From now on nobody can stop the message.
    pub(super) fn land(&self, flight: Arc<Flight>, end: AttemptEnd) {
        if flight.progress.over().is_err() {
            // Whoever stopped it has its row.
            return;
        }
        // The recorder lives as long as the account; without it the row is due at its stored
        // time.
        let _ = self.landings.send(Landing::Attempt { flight, end });
    }

    /// A connection has nothing that moves any more; told when what it has sent is recorded.
    pub(super) fn rest(&self) {
        let _ = self.landings.send(Landing::Rest);
    }

    /// The oldest message that is on its way into the queue, or back into it: none that is
    /// younger is claimed before it (OB-14).
    pub(super) fn oldest_on_its_way(&self) -> Option<EntryId> {
        self.entering.oldest().into_iter().chain(self.flights.oldest_returning()).min()
    }

    /// Notes that messages go back to their places, and with them what was to stand behind them.
    /// Under the lock, so that nothing younger is claimed or put in line before that is known.
    pub(super) fn go_back(&self, lane: &mut Lane<Arc<Flight>>, flights: &[Arc<Flight>]) {
        if !flights.is_empty() {
            flights.iter().for_each(|flight| flight.returns());
            self.flights.recall_claims();
            lane.recalled();
        }
    }

    /// Puts a message in line whose claim is durable; while it was made, older ones may have gone
    /// back, which it follows then.
    pub(super) fn line_up(&self, flight: Arc<Flight>) {
        let mut lane = self.lane();
        if !flight.lines_up() {
            drop(lane);
            return self.land(flight, AttemptEnd::Untried(None));
        }
        let priority = flight.record().priority;
        lane.push(priority, flight);
        drop(lane);
        self.work.notify_waiters();
    }

    /// Gives claims back that no server heard of.
    pub(super) fn give_back(&self, flights: Vec<Arc<Flight>>, why: Option<&Failure>) {
        self.go_back(&mut self.lane(), &flights);
        for flight in flights {
            self.land(flight, AttemptEnd::Untried(why.cloned()));
        }
    }

    /// Trouble that is no message's fault: the account pauses, or makes do with fewer
    /// connections. Says until when.
    pub(super) fn trouble(&self, failure: &Failure) -> Option<SysTime> {
        let (now, unit) = (self.clock.now(), (self.dice)());
        let retry = &self.settings.queue.retry;
        let mut lane = self.lane();
        let reaction = lane.failed(failure, now, |n| lane_pause(retry, failure, n, unit));
        let Reaction::Pause(until) = reaction else {
            tracing::info!(
                transport = %self.settings.transport,
                why = %failure.words(),
                "A connection failed beside others that work"
            );
            return None;
        };
        let back = lane.take_back(now);
        self.go_back(&mut lane, &back);
        self.herald.tell(News::Trouble(Some(trouble_of(failure, until))));
        drop(lane);
        tracing::warn!(
            transport = %self.settings.transport,
            why = %failure.words(),
            %until,
            "Sending waits"
        );
        self.give_back(back, Some(failure));
        self.wake.notify_one();
        Some(until)
    }

    /// A transaction went through.
    pub(super) fn mended(&self) {
        let now = self.clock.now();
        let mut lane = self.lane();
        if lane.mended(now) {
            self.herald.tell(News::Trouble(None));
            drop(lane);
            self.wake.notify_one();
        }
    }

    /// The spool cannot be worked on until then; or not any more (OB-9).
    pub(super) fn storage_trouble(&self, error: &SpoolError, until: SysTime) {
        let full = error.code() == MapiCode::NOT_ENOUGH_DISK;
        let failures = match full {
            // Space may be freed at any time.
            true => 0,
            false => self.storage_failures.fetch_add(1, Ordering::Relaxed) + 1,
        };
        if failures >= HOPELESS {
            let words = format!("the spool has failed {failures} times in a row: {error}");
            let kind = TroubleKind::SpoolLost;
            self.events.trouble(Some(Trouble { kind, words, next_attempt: None }));
            return;
        }
        if self.is_spool_lost(error) {
            return;
        }
        self.herald.tell(News::Trouble(Some(Trouble {
            kind: TroubleKind::Storage,
            words: error.to_string(),
            next_attempt: Some(until),
        })));
    }

    /// Tells at once when an error of the spool is beyond recovery (OB-9), and says whether it is.
    pub(super) fn is_spool_lost(&self, error: &SpoolError) -> bool {
        let lost = Trouble::spool_lost(error);
        let is_lost = lost.is_some();
        if is_lost {
            self.events.trouble(lost);
        }
        is_lost
    }

    /// The spool works again; what else is wrong shows again.
    pub(super) fn storage_mended(&self) {
        self.storage_failures.store(0, Ordering::Relaxed);
        let lane = self.lane();
        let left = lane.trouble().map(|(failure, until)| trouble_of(failure, until));
        self.herald.tell(News::Trouble(left));
    }

    /// A message begins to move. When none may start any more (TN-9) it is given back, and what
    /// stands in line behind it with it, so that it is not passed when the gate opens at once.
    pub(super) fn begin_moving(&self, flight: &Arc<Flight>) -> bool {
        let mut lane = self.lane();
        let begun = lane.begin_moving();
        if begun == Some(true) {
            self.herald.tell(News::Activity(Activity::Moving));
        }
        if begun.is_none() {
            let mut back = vec![Arc::clone(flight)];
            back.extend(lane.recall());
            self.go_back(&mut lane, &back);
            drop(lane);
            self.give_back(back, None);
        }
        begun.is_some()
    }

    /// What a connection moved has come to rest, and is recorded.
    pub(super) fn end_moving(&self) {
        let mut lane = self.lane();
        if lane.end_moving() {
            self.herald.tell(News::Activity(Activity::Idle));
        }
    }
}

/// Counts a wait for a turn, which the dispatcher tells of.
struct WaitsForTurn<'a>(&'a Shared);

impl<'a> WaitsForTurn<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        shared.wake.notify_one();
        WaitsForTurn(shared)
    }
}

impl Drop for WaitsForTurn<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.wake.notify_one();
    }
}

fn trouble_of(failure: &Failure, until: SysTime) -> Trouble {
    Trouble {
        kind: failure.trouble_kind(),
        words: words_for_people(failure),
        next_attempt: Some(until),
    }
}

/// One sentence: what failed and what to do.
fn words_for_people(failure: &Failure) -> String {
    let advice = match (failure.trouble_kind(), failure.verdict.cause) {
        (TroubleKind::LoginRefused, _) => "; check user and password",
        (TroubleKind::Credentials, _) => "; check where the password comes from",
        // The words say what to do.
        (TroubleKind::NeedsSignIn, _) => "",
        (_, Cause::Throttled) => "; the server wants less for a while",
        (TroubleKind::Server, _) if failure.verdict.permanence == Permanence::Permanent => {
            "; check the smtp part of the profile"
        }
        _ => "",
    };
    format!("{}{advice}", failure.words())
}
