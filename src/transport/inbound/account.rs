//! What the lanes of an account share with each other and with the logon.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::fault::LaneFault;
use super::lane::Lane;
use super::mailbox::Mailbox;
use super::queue::{Budget, Queue};
use super::{InboundEvents, InboundSettings};
use crate::clock::Clock;
use crate::net::{Connector, LoginMemory};
use crate::transport::events::{Activity, Gate, Trouble, TroubleKind};

/// What the lanes are asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) gate: Gate,
    /// Raised to ask every lane to look at every mailbox now.
    pub(super) look: u64,
    /// Raised when a pause is not to be waited for: the gate opened, a flush began.
    pub(super) hurry: u64,
    pub(super) stopping: bool,
}

/// Where a trouble is. The order is that of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A connection, by lane.
    Lane(usize),
    /// The local spool or store.
    Storage,
    /// A mailbox, by its number in the profile.
    Mailbox(usize),
    /// What is owed to a mailbox.
    Owed(usize),
    /// Messages of a mailbox.
    Messages(usize),
}

/// A flush that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flush {
    /// The look that has to be over.
    look: u64,
    drained: bool,
}

/// Whether the server offers IDLE, as far as is known.
const PUSH_UNKNOWN: u8 = 0;
const PUSH_OFFERED: u8 = 1;
const PUSH_MISSING: u8 = 2;

/// Everything that is shared.
pub(super) struct Account {
    pub(super) settings: InboundSettings,
    pub(super) connector: Connector,
    pub(super) memory: LoginMemory,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: Arc<dyn InboundEvents>,
    pub(super) control: watch::Sender<Control>,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) queue: Queue,
    pub(super) budget: Budget,
    pub(super) door: Door,
    /// Raised by everything a call may be waiting for.
    pub(super) tick: watch::Sender<u64>,
    /// Ends calls that are running.
    pub(super) kill: CancellationToken,
    announced: AtomicBool,
    /// What stands between the levels of a mailbox name on this server.
    delimiter: Mutex<Option<char>>,
    push: AtomicU8,
    moving: Mutex<usize>,
    handing_over: AtomicUsize,
    troubles: Mutex<BTreeMap<Place, Trouble>>,
    flush: Mutex<Option<Flush>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    pub(super) fn new(
        settings: InboundSettings,
        clock: Arc<dyn Clock>,
        events: Arc<dyn InboundEvents>,
        mailboxes: Vec<Arc<Mailbox>>,
        lanes: Vec<Arc<Lane>>,
    ) -> Self {
        let connector = Connector::new(
            settings.imap.server.clone(),
            settings.deadlines,
            settings.imap.cleartext,
        );
        Account {
            connector,
            memory: LoginMemory::default(),
            clock,
            events,
            control: watch::Sender::default(),
            mailboxes,
            lanes,
            queue: Queue::default(),
            budget: Budget::new(settings.tuning.budget),
            door: Door::default(),
            tick: watch::Sender::default(),
            kill: CancellationToken::new(),
            announced: AtomicBool::new(false),
            delimiter: Mutex::new(None),
            push: AtomicU8::new(PUSH_UNKNOWN),
            moving: Mutex::default(),
            handing_over: AtomicUsize::new(0),
            troubles: Mutex::default(),
            flush: Mutex::default(),
            settings,
        }
    }

    /// Wakes every call that waits for something to change.
    pub(super) fn tick(&self) {
        self.tick.send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    // ----- new mail -----

    /// Tells the host that mail is there, unless it was told and has not come yet (IB-1).
    pub(super) fn announce(&self) {
        self.tick();
        if !self.queue.is_empty() && !self.announced.swap(true, Ordering::SeqCst) {
            self.events.new_mail();
        }
    }

    /// The host has come; it is told again when more is there (IB-4).
    pub(super) fn answered(&self) {
        self.announced.store(false, Ordering::SeqCst);
    }

    // ----- names -----

    /// Whether any mailbox may have levels in its name.
    pub(super) fn has_levels(&self) -> bool {
        self.mailboxes.iter().any(|mailbox| !mailbox.name.eq_ignore_ascii_case("INBOX"))
    }

    pub(super) fn note_delimiter(&self, delimiter: Option<char>) {
        // A server that names a letter would have us tear names apart.
        *lock(&self.delimiter) = delimiter.filter(char::is_ascii_punctuation);
    }

    /// The name of a mailbox as the host has it: with `/` between the levels.
    pub(super) fn name_for_host(&self, name: &str) -> String {
        match *lock(&self.delimiter) {
            _ if name.eq_ignore_ascii_case("INBOX") => name.to_owned(),
            Some(delimiter) if delimiter != '/' => {
                name.chars().map(|sign| if sign == delimiter { '/' } else { sign }).collect()
            }
            _ => name.to_owned(),
        }
    }

    // ----- push -----

    /// Notes whether the server offers IDLE.
    pub(super) fn note_push(&self, offered: bool) {
        let value = if offered { PUSH_OFFERED } else { PUSH_MISSING };
        self.push.store(value, Ordering::Relaxed);
    }

    pub(super) fn push_expected(&self) -> bool {
        self.settings.imap.push && self.push.load(Ordering::Relaxed) != PUSH_MISSING
    }

    // ----- activity -----

    /// Notes that a message moves, until the result is dropped (ST-4).
    pub(super) fn moving(self: &Arc<Self>) -> Moving {
        let mut moving = lock(&self.moving);
        *moving += 1;
        if *moving == 1 {
            // Under the lock, so that the order of the news is that of the events.
            self.events.activity(Activity::Moving);
        }
        drop(moving);
        Moving(Arc::clone(self))
    }

    // ----- troubles -----

    /// Notes a fault of a lane.
    pub(super) fn lane_fault(&self, lane: usize, fault: &LaneFault, pause: Duration) {
        let trouble = Trouble {
            kind: fault.kind(),
            words: fault.words(self.connector.name()),
            next_attempt: Some(self.clock.now().saturating_add(pause)),
        };
        tracing::info!(
            transport = %self.settings.transport, lane, pause_ms = pause.as_millis(),
            "{}", trouble.words
        );
        self.trouble(Place::Lane(lane), Some(trouble));
    }

    /// Notes a fault of one mailbox; the others go on.
    pub(super) fn mailbox_fault(&self, mailbox: usize, fault: &LaneFault) {
        self.note_fault(Place::Mailbox(mailbox), fault);
    }

    /// Notes that what is owed to a mailbox is refused.
    pub(super) fn owed_fault(&self, mailbox: usize, fault: &LaneFault) {
        self.note_fault(Place::Owed(mailbox), fault);
    }

    fn note_fault(&self, place: Place, fault: &LaneFault) {
        let trouble = Trouble {
            kind: fault.kind(),
            words: fault.words(self.connector.name()),
            next_attempt: Some(self.clock.now().saturating_add(self.settings.imap.poll_interval)),
        };
        tracing::warn!(transport = %self.settings.transport, "{}", trouble.words);
        self.trouble(place, Some(trouble));
    }

    /// Notes that the local store or spool takes nothing.
    pub(super) fn storage_fault(&self, words: String, pause: Duration) {
        let next_attempt = Some(self.clock.now().saturating_add(pause));
        let trouble = Trouble { kind: TroubleKind::Storage, words, next_attempt };
        self.trouble(Place::Storage, Some(trouble));
    }

    /// Shows what of a mailbox is set aside, or that nothing is.
    pub(super) fn show_set_aside(&self, mailbox: &Mailbox) {
        let place = Place::Messages(mailbox.number);
        let (uids, why) = mailbox.all_set_aside();
        let (one, more) = match uids.as_slice() {
            [] => {
                self.trouble(place, None);
                return;
            }
            [_] => ("a message", ""),
            [_, _, _, _, _, _, ..] => ("some messages", ", .."),
            _ => ("some messages", ""),
        };
        let first: Vec<String> = uids.iter().take(5).map(u32::to_string).collect();
        let words = format!(
            "{one} of {} could not be fetched and was set aside, the others are not held up \
             (UID {}{more}){}{why}",
            mailbox.name,
            first.join(", "),
            if why.is_empty() { "" } else { ": " },
        );
        let trouble = Trouble { kind: TroubleKind::Message, words, next_attempt: None };
        self.trouble(place, Some(trouble));
    }

    /// Sets or ends a trouble; the host hears of the most important one.
    pub(super) fn trouble(&self, place: Place, trouble: Option<Trouble>) {
        if trouble.as_ref().is_some_and(|trouble| trouble.kind.is_final()) {
            // Whatever else is wrong: it is the end (OB-9).
            return self.events.trouble(trouble);
        }
        let mut troubles = lock(&self.troubles);
        let before = shown(&troubles).map(|(_, trouble)| trouble.clone());
        match trouble {
            Some(trouble) => troubles.insert(place, trouble),
            None => troubles.remove(&place),
        };
        let now = shown(&troubles).map(|(_, trouble)| trouble.clone());
        if before != now {
            self.events.trouble(now);
        }
        drop(troubles);
        self.tick();
    }

    /// The trouble that keeps a lane from connecting.
    pub(super) fn connection_trouble(&self) -> Option<Trouble> {
        let troubles = lock(&self.troubles);
        let (place, trouble) = shown(&troubles)?;
        matches!(place, Place::Lane(_)).then(|| trouble.clone())
    }

    // ----- looks and flushes -----

    /// Asks every lane to look at every mailbox now and returns the number of that look.
    pub(super) fn ask_for_look(&self, hurry: bool) -> u64 {
        let mut look = 0;
        self.control.send_modify(|control| {
            control.look += 1;
            control.hurry += u64::from(hurry);
            look = control.look;
        });
        look
    }

    pub(super) fn begin_flush(&self) {
        let mut flush = lock(&self.flush);
        *flush = Some(Flush { look: self.ask_for_look(true), drained: false });
        drop(flush);
        self.tick();
    }

    pub(super) fn end_flush(&self) {
        *lock(&self.flush) = None;
        self.queue.arrived.notify_waiters();
        self.tick();
    }

    /// Ends a flush that is over; `false` when none is.
    pub(super) fn end_drained_flush(&self) -> bool {
        lock(&self.flush).take_if(|flush| flush.drained).is_some()
    }

    /// Whether a flush runs that has not brought everything yet.
    pub(super) fn is_flushing(&self) -> bool {
        lock(&self.flush).is_some_and(|flush| !flush.drained)
    }

    /// Whether every lane has had that look, or could not.
    pub(super) fn has_looked(&self, look: u64) -> bool {
        self.lanes.iter().all(|lane| lane.report().looked >= look)
    }

    /// Says so when everything a flush asked for is handed over or could not be had (TN-10).
    pub(super) fn check_flush(&self) {
        let drained = match lock(&self.flush).as_mut() {
            Some(flush) if !flush.drained => {
                flush.drained = self.handing_over.load(Ordering::SeqCst) == 0
                    && self.queue.is_empty()
                    && self.lanes.iter().all(|lane| lane.report().drained >= flush.look);
                flush.drained
            }
            _ => false,
        };
        if drained {
            // Without the lock: the host may end the flush right here.
            self.events.flush_drained();
            self.queue.arrived.notify_waiters();
            self.tick();
        }
    }

    /// Notes that a message may be with the host, until the result is dropped.
    pub(super) fn handing_over(self: &Arc<Self>) -> HandingOver {
        self.handing_over.fetch_add(1, Ordering::SeqCst);
        HandingOver(Arc::clone(self))
    }

    /// Notes that a call that might hand over a message only waits for one.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.handing_over.fetch_sub(1, Ordering::SeqCst);
        self.check_flush();
        Waiting(self)
    }
}

/// A message moves.
pub(super) struct Moving(Arc<Account>);

impl Drop for Moving {
    fn drop(&mut self) {
        let mut moving = lock(&self.0.moving);
        *moving = moving.saturating_sub(1);
        if *moving == 0 {
            self.0.events.activity(Activity::Idle);
        }
    }
}

/// The trouble the host hears of: the most important one. All lanes wait at one door, so that of
/// theirs it is the last that counts, whichever lane it was that tried.
fn shown(troubles: &BTreeMap<Place, Trouble>) -> Option<(&Place, &Trouble)> {
    let lanes = troubles.iter().take_while(|(place, _)| matches!(place, Place::Lane(_)));
    let last = lanes.max_by_key(|(_, trouble)| trouble.next_attempt);
    last.or_else(|| troubles.first_key_value())
}

/// A message is with the host.
pub(super) struct HandingOver(Arc<Account>);

impl Drop for HandingOver {
    fn drop(&mut self) {
        self.0.handing_over.fetch_sub(1, Ordering::SeqCst);
        for lane in &self.0.lanes {
            lane.wake();
        }
        self.0.check_flush();
    }
}

/// A call that might hand over a message waits for one.
pub(super) struct Waiting<'a>(&'a Account);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.handing_over.fetch_add(1, Ordering::SeqCst);
    }
}
