//! Clocks that jump, machines that sleep, and who is not to be hammered meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use postoffice::{Action, Fault, ImapPhase, PostOffice, Protocol};
use tokio::sync::watch;

use super::rig::{LONG, Rig, message, struck};
use crate::clock::Clock;
use crate::mapi::SysTime;
use crate::transport::events::{Gate, TroubleKind};

const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock that shows what it is told to; waiting for it is waking up when it is set.
struct SetClock(watch::Sender<SysTime>);

impl SetClock {
    fn new() -> Arc<Self> {
        Arc::new(SetClock(watch::Sender::new(SysTime::from_millis(1_700_000_000_000))))
    }

    fn forward(&self, by: Duration) {
        self.0.send_modify(|now| *now = now.saturating_add(by));
    }

    fn back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.send_modify(|now| *now = SysTime::from_millis(now.as_millis() - by));
    }
}

impl Clock for SetClock {
    fn now(&self) -> SysTime {
        *self.0.borrow()
    }

    fn sleep_until(&self, until: SysTime) -> BoxFuture<'static, ()> {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            if now.wait_for(|now| *now >= until).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

async fn rig() -> (Rig, Arc<SetClock>) {
    let mut rig = Rig::new().await;
    let clock = SetClock::new();
    rig.clock = clock.clone();
    (rig, clock)
}

fn commands(rig: &Rig, verb: &str) -> u64 {
    rig.office.counters(Protocol::Imap).command(verb)
}

async fn until(rig: &Rig, what: &str, condition: impl Fn(&PostOffice) -> bool) {
    rig.office.wait_until(what, LONG, condition).await.unwrap();
}

/// Long enough for everything that happens at once to have happened.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(300)).await;
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
        a_while().await;
        clock.forward(HOUR);
        until(&rig, "a look", |office| {
            office.counters(Protocol::Imap).command("EXAMINE") > looks + 1
        })
        .await;
        a_while().await;
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
    a_while().await;
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
    let mut attempts = Vec::new();
    let mut waited = 0;
    struck(&down, 1).await;
    // Jitter is at most a quarter, downwards.
    for step in 0..80 {
        a_step().await;
        let hits = down.hits();
        if usize::try_from(hits).unwrap() > attempts.len() {
            assert_eq!(usize::try_from(hits).unwrap(), attempts.len() + 1, "at {waited} s");
            attempts.push(waited);
        }
        if attempts.len() == 5 {
            break;
        }
        assert!(step < 79, "{attempts:?}");
        clock.forward(seconds(20));
        waited += 20;
    }
    let pauses: Vec<i64> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
    for (pause, full) in pauses.iter().zip([100, 200, 300, 300]) {
        assert!(*pause <= full + 20 && *pause >= full * 3 / 4 - 20, "{pauses:?}");
    }
    down.remove();
    rig.deliver_to("C", [message(0, 100)]);
    clock.forward(HOUR);
    rig.saved(1).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

/// Long enough for an attempt on this machine.
async fn a_step() {
    tokio::time::sleep(Duration::from_millis(60)).await;
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
        life.trouble(TroubleKind::LoginRefused).await;
        a_while().await;
        assert_eq!(tries() - before, 1, "one of two connections asks");
        clock.forward(Duration::from_secs(20));
        a_while().await;
        assert_eq!(tries() - before, 1);
        clock.forward(Duration::from_secs(11));
        a_while().await;
        assert_eq!(tries() - before, 2);
        clock.forward(Duration::from_secs(44));
        a_while().await;
        assert_eq!(tries() - before, 2, "the second pause is longer");
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
