//! The spooler's duties, before a transport that does what it is told.

use std::sync::Arc;
use std::time::Duration;

use postrider::clock::{Clock, ManualClock};
use postrider::mapi::{
    EntryId, FlushFlags, LogonFlags, LogonOutFlags, MapiCode, MessageData, PropList, Recipient,
    RecipientType, SpoolerNotify, StatusCode, SysTime, TransportNotify, tags,
};
use postrider::spi::{NotifyData, Yield};
use postrider::spooler::{Spooler, SpoolerOptions, TransportService};

use crate::house::{GRACE, PATIENCE};
use crate::memory_store::MemoryStore;
use crate::post::soon;
use crate::scripted_transport::{Script, ScriptedProvider, ScriptedTransport};

struct Host {
    store: Arc<MemoryStore>,
    clock: ManualClock,
    spooler: Spooler,
}

fn service(name: &str, transport: &Arc<ScriptedTransport>) -> TransportService {
    TransportService::new(name, Arc::new(ScriptedProvider(Arc::clone(transport))))
        .sender(format!("ann@{name}"))
}

impl Host {
    async fn start(services: Vec<TransportService>) -> Self {
        let store = MemoryStore::new();
        let clock = ManualClock::new(SysTime::from_millis(1_000_000));
        let options = SpoolerOptions {
            logon: LogonFlags::NO_DIALOG,
            begin: TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_OUTBOUND,
            poll_interval: Duration::from_secs(60),
        };
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let started = Spooler::start(Arc::clone(&store) as _, shared, services, options).await;
        Host { store, clock, spooler: started.unwrap() }
    }

    async fn one(transport: &Arc<ScriptedTransport>) -> Self {
        Host::start(vec![service("work", transport)]).await
    }

    async fn notify(&self, flags: TransportNotify) {
        self.spooler.transport_notify(Some("work"), flags, NotifyData::None).await.unwrap();
    }

    fn submit(&self, number: u8) -> EntryId {
        self.submit_from(number, "ann@work")
    }

    fn submit_from(&self, number: u8, sender: &str) -> EntryId {
        let recipient = Recipient::smtp(0, RecipientType::To, format!("to{number:03}@there"));
        let message = MessageData {
            props: PropList::new().with(tags::SENDER_EMAIL_ADDRESS, sender),
            recipients: vec![recipient],
            attachments: Vec::new(),
        };
        self.store.submit(number, message)
    }

    /// Sends a message all the way, so that whatever was signalled before has been seen.
    async fn full_round(&self, number: u8) {
        let entry = self.submit(number);
        let finished = |store: &crate::memory_store::Contents| store.finished.contains(&entry);
        self.store.wait_until("a message goes all the way", finished).await;
    }
}

fn transport() -> Arc<ScriptedTransport> {
    Arc::new(ScriptedTransport::new(&["SMTP"]))
}

fn polled() -> Arc<ScriptedTransport> {
    let mut transport = ScriptedTransport::new(&["SMTP"]);
    transport.out_flags = LogonOutFlags::SP_POLL;
    Arc::new(transport)
}

/// Proves: IB-1, TN-7, IB-3
#[tokio::test]
async fn new_mail_is_heard_only_while_inbound_is_enabled() {
    let transport = transport();
    let host = Host::one(&transport).await;
    host.notify(TransportNotify::END_INBOUND).await;
    host.full_round(1).await;
    let before = transport.count("start");
    transport.arrive([b"mail".to_vec()]);
    host.full_round(2).await;
    assert_eq!(transport.count("start"), before);
    host.notify(TransportNotify::BEGIN_INBOUND).await;
    host.store.wait_until("it is received", |store| store.received.len() == 1).await;
    // Nothing more was there, nothing more was saved, and it is not asked for again.
    host.full_round(3).await;
    let after = transport.count("start");
    host.full_round(4).await;
    assert_eq!(transport.count("start"), after);
    host.store.with(|store| assert_eq!(store.received.len(), 1));
}

/// Proves: IB-1, TN-7
#[tokio::test]
async fn a_transport_is_polled_only_while_inbound_is_enabled() {
    let transport = polled();
    let host = Host::one(&transport).await;
    transport.wait_for("poll", 1).await;
    host.notify(TransportNotify::END_INBOUND).await;
    host.full_round(1).await;
    let before = transport.count("poll");
    for number in 2..12 {
        host.clock.advance(Duration::from_secs(60));
        host.full_round(number).await;
    }
    assert_eq!(transport.count("poll"), before);
    host.notify(TransportNotify::BEGIN_INBOUND).await;
    transport.wait_for("poll", before + 1).await;
}

/// Proves: IB-9
#[tokio::test]
async fn in_a_critical_section_nothing_is_asked() {
    let transport = polled();
    let host = Host::one(&transport).await;
    transport.wait_for("poll", 1).await;
    host.full_round(1).await;
    transport.signal(SpoolerNotify::CRITSEC);
    let before = transport.count("poll");
    transport.arrive([b"mail".to_vec()]);
    for number in 2..12 {
        host.clock.advance(Duration::from_secs(60));
        host.full_round(number).await;
    }
    assert_eq!(transport.count("poll"), before);
    transport.signal(SpoolerNotify::NONCRIT);
    host.store.wait_until("it is received", |store| store.received.len() == 1).await;
}

/// Proves: SP-6, SP-3
#[tokio::test]
async fn ready_to_send_resumes_what_was_told_to_wait() {
    let transport = transport();
    transport.will([
        Script::Refuse(MapiCode::WAIT, Some(Duration::from_secs(3600))),
        Script::Refuse(MapiCode::BUSY, None),
    ]);
    let host = Host::one(&transport).await;
    host.submit(1);
    transport.wait_for("submit", 1).await;
    transport.signal(SpoolerNotify::READYTOSEND);
    transport.wait_for("submit", 2).await;
    transport.signal(SpoolerNotify::READYTOSEND);
    host.store.wait_until("it is finished", |store| store.finished.len() == 1).await;
    assert_eq!(transport.count("submit"), 3);
}

/// Proves: TN-9, SP-6
#[tokio::test]
async fn ready_to_send_is_not_heard_while_outbound_is_disabled() {
    let transport = transport();
    let host = Host::one(&transport).await;
    host.notify(TransportNotify::END_OUTBOUND).await;
    host.submit(1);
    transport.signal(SpoolerNotify::READYTOSEND);
    // It has looked once it is settled; a flush of a closed direction waits for just that.
    soon("the flush", host.spooler.flush(None, FlushFlags::UPLOAD)).await.unwrap();
    assert_eq!(transport.count("submit"), 0);
    host.notify(TransportNotify::BEGIN_OUTBOUND).await;
    host.store.wait_until("it is finished", |store| store.finished.len() == 1).await;
}

/// Proves: AT-1, SP-6
#[tokio::test]
async fn a_new_configuration_is_asked_for_its_address_types() {
    let transport = transport();
    let host = Host::one(&transport).await;
    assert_eq!(transport.count("address_types"), 1);
    for times in 2..5 {
        transport.signal(SpoolerNotify::CONFIG_CHANGE);
        transport.wait_for("address_types", times).await;
    }
    host.full_round(1).await;
}

/// Proves: SP-2, OB-9
#[tokio::test]
async fn after_a_critical_error_a_logon_is_released_and_the_others_go_on() {
    let (broken, fine) = (transport(), transport());
    let host = Host::start(vec![service("work", &broken), service("home", &fine)]).await;
    host.full_round(1).await;
    let mut rows = host.spooler.status_table().subscribe();
    broken.signal(SpoolerNotify::CRITICAL_ERROR);
    broken.wait_for("release", 1).await;
    let shown = async {
        while !host.spooler.status_table().rows()[0].status_code.contains(StatusCode::FAILURE) {
            rows.changed().await;
        }
    };
    soon("the failure shows", shown).await;
    let calls = broken.calls();
    broken.arrive([b"mail".to_vec()]);
    broken.signal(SpoolerNotify::READYTOSEND | SpoolerNotify::CONFIG_CHANGE);
    let kept = host.submit(2);
    let entry = host.submit_from(3, "ann@home");
    let finished = |store: &crate::memory_store::Contents| store.finished.contains(&entry);
    host.store.wait_until("the other goes on", finished).await;
    assert_eq!(broken.calls(), calls);
    host.store
        .with(|store| assert!(store.outgoing.contains_key(&kept) && store.reports.is_empty()));
    host.spooler.logoff(GRACE).await.unwrap();
    assert_eq!(broken.count("logoff"), 0, "only the release was left");
    assert_eq!(fine.count("logoff"), 1);
}

/// Proves: LG-9, SP-5
#[tokio::test]
async fn a_session_that_is_dropped_releases_its_logons() {
    let transport = transport();
    let host = Host::one(&transport).await;
    host.full_round(1).await;
    drop(host);
    transport.wait_for("release", 1).await;
}

/// Proves: FL-5, SP-5, TN-18
#[tokio::test]
async fn at_logoff_both_flushes_end_at_once_and_deferred_messages_are_given_back() {
    let transport = transport();
    transport.will([Script::Defer]);
    let host = Host::one(&transport).await;
    let entry = host.submit(1);
    transport.wait_for("end", 1).await;
    host.spooler.logoff(GRACE).await.unwrap();
    let calls = transport.calls();
    let at = |call: &str| {
        let found = calls.iter().position(|made| made == call);
        found.unwrap_or_else(|| panic!("no {call}: {calls:?}"))
    };
    let ends = at("notify END_INBOUND|END_OUTBOUND|END_INBOUND_FLUSH|END_OUTBOUND_FLUSH");
    let back = at(&format!("abort {entry}"));
    assert!(ends < back && back < at("logoff") && at("logoff") < at("shutdown"), "{calls:?}");
}

/// Proves: SP-5
#[tokio::test]
async fn a_transport_that_never_answers_does_not_hold_up_the_logoff() {
    let transport = transport();
    transport.will([Script::Hang]);
    let host = Host::one(&transport).await;
    host.submit(1);
    transport.wait_for("submit", 1).await;
    // The spooler's own bounds, beside the grace it was given.
    let answer = tokio::time::timeout(PATIENCE, host.spooler.logoff(Duration::ZERO)).await;
    answer.expect("the logoff waits for a call that hangs").unwrap();
    // The call that hangs holds the logon until it is let go.
    let calls = transport.calls();
    assert_eq!(calls[calls.len() - 3..], ["logoff", "shutdown", "release"]);
    host.store.with(|store| assert_eq!(store.outgoing.len(), 1));
}

/// Proves: OB-18
#[tokio::test]
async fn spooler_yield_says_go_on_until_the_session_ends() {
    let transport = transport();
    let host = Host::one(&transport).await;
    let support = Arc::clone(transport.support());
    let entry = EntryId::from_bytes(&[1]).unwrap();
    assert_eq!(support.spooler_yield(None).await, Yield::Continue);
    assert_eq!(support.spooler_yield(Some(&entry)).await, Yield::Continue);
    host.spooler.logoff(GRACE).await.unwrap();
    assert_eq!(support.spooler_yield(None).await, Yield::CancelMessage);
    assert_eq!(support.spooler_yield(Some(&entry)).await, Yield::CancelMessage);
}

/// Proves: FL-6, FL-7
#[tokio::test]
async fn flush_refuses_what_it_does_not_know_and_can_return_at_once() {
    let (work, home) = (transport(), transport());
    let host = Host::start(vec![service("work", &work), service("home", &home)]).await;
    let unknown = FlushFlags::from_bits_retain(0x8000) | FlushFlags::UPLOAD;
    for name in [None, Some("work")] {
        let refused = host.spooler.flush(name, unknown).await.unwrap_err();
        assert_eq!(refused.code(), MapiCode::UNKNOWN_FLAGS);
    }
    let nobody = host.spooler.flush(Some("nobody"), FlushFlags::UPLOAD).await.unwrap_err();
    assert_eq!(nobody.code(), MapiCode::NOT_FOUND);
    assert_eq!(work.count("flush_queues") + home.count("flush_queues"), 0);

    soon("one flush", host.spooler.flush(Some("home"), FlushFlags::UPLOAD)).await.unwrap();
    assert_eq!((work.count("flush_queues"), home.count("flush_queues")), (0, 1));

    // A message in the middle of its SubmitMessage would be waited for otherwise.
    work.will([Script::Hang]);
    host.submit(1);
    work.wait_for("submit", 1).await;
    let flags = FlushFlags::UPLOAD | FlushFlags::ASYNC_OK;
    soon("the call returns", host.spooler.flush(None, flags)).await.unwrap();
    soon("the logoff", host.spooler.logoff(Duration::ZERO)).await.unwrap();
}

/// Proves: OB-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submit_message_is_called_in_ascending_submit_time() {
    let transport = transport();
    let host = Host::one(&transport).await;
    host.notify(TransportNotify::END_OUTBOUND).await;
    for number in 1..=200 {
        host.submit(number);
    }
    host.notify(TransportNotify::BEGIN_OUTBOUND).await;
    host.store.wait_until("all are finished", |store| store.finished.len() == 200).await;
    let calls = transport.calls();
    let submits: Vec<&String> = calls.iter().filter(|call| call.starts_with("submit")).collect();
    assert_eq!(submits.len(), 200);
    assert!(submits.is_sorted(), "{submits:?}");
}

/// Proves: OB-14
#[tokio::test]
async fn a_later_message_passes_one_whose_transport_is_unavailable() {
    let (work, home) = (transport(), transport());
    let host = Host::start(vec![service("work", &work), service("home", &home)]).await;
    host.notify(TransportNotify::END_OUTBOUND).await;
    let oldest = host.submit(1);
    let later = host.submit_from(2, "ann@home");
    host.store
        .wait_until("the later one is finished", |store| store.finished == [later.clone()])
        .await;
    host.store.with(|store| assert!(store.locked.is_empty()));
    host.notify(TransportNotify::BEGIN_OUTBOUND).await;
    host.store
        .wait_until("the oldest too", |store| store.finished == [later.clone(), oldest.clone()])
        .await;
}

/// Proves: TN-1, TN-3
#[tokio::test]
async fn flags_reach_the_transport_as_they_were_given() {
    let transport = transport();
    let host = Host::one(&transport).await;
    let flags = TransportNotify::END_INBOUND | TransportNotify::BEGIN_OUTBOUND_FLUSH;
    host.notify(flags).await;
    let calls = transport.calls();
    assert!(
        calls.iter().any(|call| call == "notify BEGIN_OUTBOUND_FLUSH|END_INBOUND"),
        "{calls:?}"
    );
}
