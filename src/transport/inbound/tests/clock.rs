//! Clocks that jump, machines that sleep, and who is not to be hammered meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use postoffice::{Action, Fault, ImapPhase, PostOffice, Protocol};
use tokio::sync::watch;

use super::rig::{LONG, Life, Rig, message, struck};
use crate::clock::Clock;
use crate::mapi::SysTime;
use crate::transport::events::{Gate, Trouble, TroubleKind};

const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock that shows what it is told to, and knows who waits for it; waiting for it is
/// waking up when it is set.
struct SetClock {
    now: watch::Sender<SysTime>,
    /// Until when each of those waits.
    sleepers: watch::Sender<BTreeMap<u64, SysTime>>,
    number: AtomicU64,
}

/// Waits no more when it is dropped.
struct Sleeper {
    clock: Arc<SetClock>,
    number: u64,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.clock.sleepers.send_modify(|sleepers| _ = sleepers.remove(&self.number));
    }
}

impl SetClock {
    fn new() -> Arc<Self> {
        Arc::new(SetClock {
            now: watch::Sender::new(SysTime::from_millis(1_700_000_000_000)),
            sleepers: watch::Sender::default(),
            number: AtomicU64::new(0),
        })
    }

    fn time(&self) -> SysTime {
        *self.now.borrow()
    }

    fn forward(&self, by: Duration) {
        self.now.send_modify(|now| *now = now.saturating_add(by));
    }

    fn set(&self, to: SysTime) {
        self.now.send_replace(to);
    }

    /// Goes on by so much, which nobody waits for: nothing can come of it.
    fn pass(&self, by: Duration) {
        let then = self.time().saturating_add(by);
        let woken: Vec<SysTime> =
            self.sleepers.borrow().values().copied().filter(|until| *until <= then).collect();
        assert!(woken.is_empty(), "{by:?} from {} on somebody waits for {woken:?}", self.time());
        self.set(then);
    }

    fn back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.now.send_modify(|now| *now = SysTime::from_millis(now.as_millis() - by));
    }

    /// Waits until so many wait for a time to come that is not far: they have done what there
    /// was to do.
    async fn asleep(&self, count: usize) {
        let now = self.time();
        let soon = now..now.saturating_add(Duration::from_secs(900));
        let mut sleepers = self.sleepers.subscribe();
        let asleep = sleepers.wait_for(|sleepers| {
            sleepers.values().filter(|until| **until > now && soon.contains(*until)).count()
                >= count
        });
        tokio::time::timeout(LONG, asleep).await.expect("somebody is still at work").unwrap();
    }
}

/// The clock as the transport has it.
struct Handed(Arc<SetClock>);

impl Clock for Handed {
    fn now(&self) -> SysTime {
        self.0.time()
    }

    fn sleep_until(&self, until: SysTime) -> BoxFuture<'static, ()> {
        let clock = Arc::clone(&self.0);
        Box::pin(async move {
            let mut now = clock.now.subscribe();
            let number = clock.number.fetch_add(1, Ordering::SeqCst);
            clock.sleepers.send_modify(|sleepers| _ = sleepers.insert(number, until));
            let _sleeper = Sleeper { clock, number };
            if now.wait_for(|now| *now >= until).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

async fn rig() -> (Rig, Arc<SetClock>) {
    let mut rig = Rig::new().await;
    let clock = SetClock::new();
    rig.clock = Arc::new(Handed(clock.clone()));
    (rig, clock)
}

fn commands(rig: &Rig, verb: &str) -> u64 {
    rig.office.counters(Protocol::Imap).command(verb)
}

async fn until(rig: &Rig, what: &str, condition: impl Fn(&PostOffice) -> bool) {
    rig.office.wait_until(what, LONG, condition).await.unwrap();
}

/// The trouble after which the next attempt is still to come.
async fn trouble_ahead(life: &Life, clock: &SetClock) -> Trouble {
    let now = clock.time();
    let mut trouble = life.events.trouble.subscribe();
    let ahead = trouble.wait_for(|trouble| {
        trouble.as_ref().and_then(|trouble| trouble.next_attempt).is_some_and(|next| next > now)
    });
    let waited = tokio::time::timeout(LONG, ahead).await;
    waited.expect("no trouble").unwrap().clone().unwrap()
}

/// A machine that slept for an hour looks once, not sixty times, and idles again.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_sleep_is_followed_by_one_look() {
    let (mut rig, clock) = rig().await;
    for push in [true, false] {
        rig.settings.imap.push = push;
        rig.settings.imap.poll_interval = Duration::from_secs(60);
        let (looks, idles) = (commands(&rig, "EXAMINE"), commands(&rig, "IDLE"));
        let life = rig.start();
        until(&rig, "the first look", |office| {
            office.counters(Protocol::Imap).command("EXAMINE") > looks
        })
        .await;
        clock.asleep(1).await;
        clock.forward(HOUR);
        until(&rig, "a look", |office| {
            office.counters(Protocol::Imap).command("EXAMINE") > looks + 1
        })
        .await;
        // Who waits for the clock again has looked as often as is needed.
        clock.asleep(1).await;
        assert_eq!(commands(&rig, "EXAMINE"), looks + 2, "push {push}");
        let idled = commands(&rig, "IDLE") - idles;
        assert!(if push { (2..=3).contains(&idled) } else { idled == 0 }, "{idled}");
        // And mail comes as before.
        let saved = rig.store.len();
        rig.deliver([message(saved, 100)]);
        if !push {
            clock.forward(Duration::from_secs(61));
        }
        rig.saved(saved + 1).await;
        life.no_trouble().await;
        life.inbound.stop(LONG).await;
    }
}

/// The connection died while the machine slept, and nobody said so: it is found out at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_in_the_sleep_is_found_out() {
    let (mut rig, clock) = rig().await;
    rig.settings.tuning.idle_done = Duration::from_millis(200);
    let dead = rig.office.inject(Fault::imap(ImapPhase::Done, Action::Hang).once());
    let life = rig.start();
    until(&rig, "IDLE", |office| office.counters(Protocol::Imap).command("IDLE") > 0).await;
    clock.asleep(1).await;
    clock.forward(HOUR);
    struck(&dead, 1).await;
    let trouble = life.trouble(TroubleKind::Network).await;
    assert!(trouble.words.contains("the connection is dead"), "{trouble:?}");
    rig.deliver([message(0, 100)]);
    rig.saved(1).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

/// A clock that was set back by an hour makes nothing wait an hour longer: not a poll, not the
/// renewal of IDLE, not the next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_puts_nothing_off() {
    let (mut rig, clock) = rig().await;
    rig.settings.imap.push = false;
    rig.settings.imap.poll_interval = Duration::from_millis(300);
    let life = rig.start();
    until(&rig, "a look", |office| office.counters(Protocol::Imap).command("EXAMINE") > 0).await;
    clock.back(HOUR);
    rig.deliver([message(0, 100)]);
    rig.saved(1).await;
    life.inbound.stop(LONG).await;

    rig.settings.imap.push = true;
    rig.settings.tuning.idle_renew = Duration::from_millis(300);
    let life = rig.start();
    let idles = commands(&rig, "IDLE");
    until(&rig, "IDLE", |office| office.counters(Protocol::Imap).command("IDLE") > idles).await;
    clock.back(HOUR);
    until(&rig, "a new IDLE", |office| office.counters(Protocol::Imap).command("IDLE") > idles + 2)
        .await;
    life.inbound.stop(LONG).await;

    rig.settings.tuning.network_pause = (Duration::from_millis(400), Duration::from_millis(400));
    let drop = rig.office.inject(Fault::imap(ImapPhase::Connect, Action::Drop).once());
    let life = rig.start();
    struck(&drop, 1).await;
    life.trouble(TroubleKind::Network).await;
    clock.back(HOUR);
    rig.deliver([message(1, 100)]);
    rig.saved(2).await;
    life.inbound.stop(LONG).await;
}

/// However many connections an account has, a server that is down is asked by one of them, and
/// the pauses grow.
#[tokio::test(flavor = "multi_thread")]
async fn one_probe_at_a_time_with_growing_pauses() {
    let (mut rig, clock) = rig().await;
    rig.settings.imap.mailboxes = vec!["INBOX".into(), "A".into(), "B".into(), "C".into()];
    for name in ["A", "B", "C"] {
        rig.office.create_mailbox("ann", name).unwrap();
    }
    let seconds = Duration::from_secs;
    rig.settings.tuning.network_pause = (seconds(100), seconds(300));
    let down = rig.office.inject(Fault::imap(ImapPhase::Greeting, Action::Drop));
    let life = rig.start();
    // Jitter is at most a quarter, downwards.
    for (attempt, full) in (1..).zip([100, 200, 300, 300]) {
        struck(&down, attempt).await;
        let again = trouble_ahead(&life, &clock).await.next_attempt.unwrap();
        assert_eq!(down.hits(), attempt, "more than one lane asks");
        let pause = again.saturating_since(clock.time());
        assert!(pause <= seconds(full) && pause >= seconds(full) * 3 / 4, "{pause:?} for {full} s");
        // All four wait, and none is done with it before its time.
        clock.asleep(4).await;
        clock.pass(pause - Duration::from_millis(1));
        clock.set(again);
    }
    struck(&down, 5).await;
    trouble_ahead(&life, &clock).await;
    assert_eq!(down.hits(), 5);
    down.remove();
    rig.deliver_to("C", [message(0, 100)]);
    clock.forward(HOUR);
    rig.saved(1).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

/// A refused password is tried again after half a minute, then ever more rarely; whoever has
/// mended it need not wait: BEGIN_INBOUND, a flush and a changed configuration try at once.
///
/// Proves: TN-6, TN-10
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_not_hammered() {
    let (mut rig, clock) = rig().await;
    rig.settings.tuning.login_pause = (Duration::from_secs(30), Duration::from_secs(900));
    rig.settings.imap.auth = Some("plain".into());
    rig.settings.imap.mailboxes.push("Lists".into());
    rig.office.create_mailbox("ann", "Lists").unwrap();
    for way in ["gate", "flush", "configuration"] {
        *rig.password.0.lock().unwrap() = "wrong".into();
        let tries = || rig.office.counters(Protocol::Imap).login_failures;
        let before = tries();
        let mut life = rig.start();
        let refused = trouble_ahead(&life, &clock).await;
        assert_eq!(refused.kind, TroubleKind::LoginRefused);
        assert_eq!(tries() - before, 1, "one of two connections asks");
        clock.asleep(2).await;
        clock.pass(Duration::from_secs(20));
        clock.forward(Duration::from_secs(11));
        trouble_ahead(&life, &clock).await;
        assert_eq!(tries() - before, 2);
        // The second pause is longer.
        clock.asleep(2).await;
        clock.pass(Duration::from_secs(44));
        *rig.password.0.lock().unwrap() = "secret".into();
        let saved = rig.store.len();
        rig.deliver([message(saved, 100)]);
        match way {
            "gate" => {
                life.inbound.set_gate(Gate::Closed);
                life.inbound.set_gate(Gate::Open);
            }
            "flush" => life.inbound.begin_flush(),
            // Taking up a configuration begins anew.
            _ => {
                life.inbound.stop(LONG).await;
                life = rig.start();
            }
        }
        rig.saved(saved + 1).await;
        life.no_trouble().await;
        assert_eq!(tries() - before, 2, "{way}");
        life.inbound.stop(LONG).await;
    }
}
