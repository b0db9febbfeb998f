//! The spooler alone, between a store in memory and transports that answer what they are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    clippy::string_slice,
    dead_code
)]

#[path = "support/memory_store.rs"]
mod memory_store;
#[path = "support/scripted_transport.rs"]
mod scripted_transport;

#[path = "spooler/breakdowns.rs"]
mod breakdowns;
#[path = "spooler/cancelling.rs"]
mod cancelling;
#[path = "spooler/deferral.rs"]
mod deferral;
#[path = "spooler/responsibility.rs"]
mod responsibility;
#[path = "spooler/services.rs"]
mod services;

use std::sync::Arc;
use std::time::Duration;

use memory_store::MemoryStore;
use postrider::clock::{Clock, ManualClock};
use postrider::mapi::{
    EntryId, FlushFlags, LogonFlags, LogonOutFlags, MapiCode, MapiError, MessageData, PropList,
    Recipient, RecipientType, SpoolerNotify, StatusCode, SysTime, TransportNotify, tags,
};
use postrider::spi::{NotifyData, OutgoingState, StatusRow};
use postrider::spooler::{Spooler, SpoolerOptions, TransportService};
use scripted_transport::{Script, ScriptedProvider, ScriptedTransport};

const GRACE: Duration = Duration::from_secs(5);

struct House {
    store: Arc<MemoryStore>,
    clock: ManualClock,
    spooler: Spooler,
}

fn service(name: &str, transport: &Arc<ScriptedTransport>) -> TransportService {
    TransportService::new(name, Arc::new(ScriptedProvider(Arc::clone(transport))))
        .sender(format!("ann@{name}"))
}

async fn house(services: Vec<TransportService>) -> House {
    house_over(MemoryStore::new(), services).await
}

/// Another session over what the last one left.
async fn house_over(store: Arc<MemoryStore>, services: Vec<TransportService>) -> House {
    let clock = ManualClock::new(SysTime::from_millis(1_000_000));
    let options = SpoolerOptions {
        logon: LogonFlags::NO_DIALOG,
        begin: TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_OUTBOUND,
        poll_interval: Duration::from_secs(60),
    };
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let spooler = Spooler::start(Arc::clone(&store) as _, shared, services, options).await.unwrap();
    House { store, clock, spooler }
}

impl House {
    /// Lets the clock run until it comes about.
    async fn until(&self, what: &str, condition: impl Fn(&memory_store::Contents) -> bool) {
        for _ in 0..10_000 {
            if self.store.with(|contents| condition(contents)) {
                return;
            }
            self.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it did not come about that {what}");
    }

    fn row(&self, transport: &str) -> StatusRow {
        let rows = self.spooler.status_table().rows();
        rows.into_iter().find(|row| row.display_name == transport).unwrap()
    }

    fn state(&self, entry: &EntryId) -> Option<OutgoingState> {
        self.store.with(|store| store.outgoing.get(entry).map(|(state, _)| state.clone()))
    }
}

/// A message is with a transport, and no call about it runs.
fn is_deferred(store: &memory_store::Contents) -> bool {
    let deferred =
        |(state, _): &(OutgoingState, MessageData)| matches!(state, OutgoingState::Deferred { .. });
    store.outgoing.values().any(deferred) && store.locked.is_empty()
}

fn transport(types: &[&str]) -> Arc<ScriptedTransport> {
    Arc::new(ScriptedTransport::new(types))
}

fn message(sender: &str, recipients: &[(&str, &str)]) -> MessageData {
    MessageData {
        props: PropList::new().with(tags::SENDER_EMAIL_ADDRESS, sender),
        recipients: (0..)
            .zip(recipients)
            .map(|(row, (kind, address))| {
                let mut recipient = Recipient::smtp(row, RecipientType::To, *address);
                recipient.addr_type = (*kind).to_owned();
                recipient
            })
            .collect(),
        attachments: Vec::new(),
    }
}

fn smtp(sender: &str) -> MessageData {
    message(sender, &[("SMTP", "bob@there")])
}

/// Proves: LG-1
#[tokio::test]
async fn calls_come_in_the_order_of_lg_1() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let house = house(vec![service("work", &transport)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    house.store.wait_until("the message is finished", |store| !store.finished.is_empty()).await;
    house.spooler.logoff(GRACE).await.unwrap();
    assert_eq!(
        transport.calls(),
        [
            "init",
            "logon",
            "address_types",
            "notify BEGIN_INBOUND|BEGIN_OUTBOUND",
            "start",
            "start",
            "start",
            "start",
            "start",
            "start",
            "start",
            "start",
            "submit bob@there",
            "end",
            "notify END_INBOUND|END_OUTBOUND|END_INBOUND_FLUSH|END_OUTBOUND_FLUSH",
            "logoff",
            "release",
            "shutdown",
        ]
    );
    house.store.with(|store| {
        assert_eq!(store.finished, [entry]);
        assert!(store.locked.is_empty() && store.reports.is_empty());
    });
    assert_eq!(house.spooler.logoff(GRACE).await.unwrap_err().code(), MapiCode::END_OF_SESSION);
}

/// Proves: OB-11
#[tokio::test]
async fn a_deferred_message_ends_with_sentdeferred() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Defer]);
    let house = house(vec![service("work", &transport)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    house
        .store
        .wait_until("the message is deferred", |store| {
            store.outgoing.values().any(|(state, _)| {
                *state == OutgoingState::Deferred { transport: "work".to_owned() }
            })
        })
        .await;
    transport.support().spooler_notify(SpoolerNotify::SENTDEFERRED, Some(&entry));
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    let calls = transport.calls();
    let of_message: Vec<&String> =
        calls.iter().filter(|call| call.starts_with("submit") || *call == "end").collect();
    assert_eq!(of_message, ["submit bob@there", "end", "submit_deferred bob@there", "end"]);
}

/// Proves: OB-7, OB-10, SP-3
#[tokio::test]
async fn the_codes_of_submit_message_mean_what_they_say() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([
        Script::Refuse(MapiCode::WAIT, Some(Duration::from_secs(90))),
        Script::Refuse(MapiCode::NETWORK_ERROR, Some(Duration::from_secs(30))),
        Script::Refuse(MapiCode::BUSY, None),
        Script::ResendLater,
        Script::ResendNow,
    ]);
    let house = house(vec![service("work", &transport)]).await;
    house.store.submit(1, smtp("ann@work"));
    transport.wait_for("submit", 1).await;
    for (seconds, before, submits) in [(90, 1, 2), (30, 2, 3), (15, 3, 4), (15, 4, 6)] {
        house.clock.advance(Duration::from_secs(seconds - 1));
        tokio::task::yield_now().await;
        assert_eq!(transport.count("submit"), before, "before {seconds} s were over");
        house.clock.advance(Duration::from_secs(1));
        transport.wait_for("submit", submits).await;
    }
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
}

/// Proves: OB-7
#[tokio::test]
async fn a_message_the_transport_was_told_to_cancel_is_not_submitted_again() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Refuse(MapiCode::CANCEL, None), Script::RefuseAtEnd(MapiCode::CANCEL)]);
    let house = house(vec![service("work", &transport)]).await;
    for number in 1..=2 {
        let entry = house.store.submit(number, smtp("ann@work"));
        house.store.wait_until("it is aborted", |store| store.aborted.contains(&entry)).await;
    }
    assert_eq!(transport.count("submit"), 2);
    house.store.with(|store| assert!(store.outgoing.is_empty() && store.reports.is_empty()));
}

/// Proves: AT-3
#[tokio::test]
async fn a_recipient_goes_on_to_the_next_match_and_then_to_a_report() {
    let first = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let second = Arc::new(ScriptedTransport::new(&["SMTP", "LOG"]));
    first.will([Script::Refuse(MapiCode::NOT_ME, None)]);
    let house = house(vec![service("one", &first), service("two", &second)]).await;
    let data = message("x", &[("SMTP", "bob@there"), ("LOG", "file"), ("FAX", "123")]);
    house.store.submit(1, data);
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    assert_eq!(first.count("submit"), 1);
    let calls = second.calls();
    let submits: Vec<&String> = calls.iter().filter(|call| call.starts_with("submit")).collect();
    assert_eq!(submits, ["submit file", "submit bob@there"]);
    house.store.with(|store| {
        assert_eq!(store.reports.len(), 1);
        assert_eq!(store.reports[0].recipients[0].0.address, "123");
        assert_eq!(store.reports[0].recipients.len(), 1);
    });
}

/// Proves: OB-4, OB-8, AT-3
#[tokio::test]
async fn a_recipient_that_was_sent_stays_sent_while_another_transport_defers() {
    let (mail, log) =
        (Arc::new(ScriptedTransport::new(&["SMTP"])), Arc::new(ScriptedTransport::new(&["LOG"])));
    mail.will([Script::Defer]);
    let house = house(vec![service("mail", &mail), service("log", &log)]).await;
    let entry =
        house.store.submit(1, message("ann@mail", &[("SMTP", "bob@there"), ("LOG", "file")]));
    let deferred = |store: &memory_store::Contents| {
        store.outgoing.values().any(|(state, _)| matches!(state, OutgoingState::Deferred { .. }))
            && store.locked.is_empty()
    };
    house.store.wait_until("one transport defers", deferred).await;
    mail.support().spooler_notify(SpoolerNotify::SENTDEFERRED, Some(&entry));
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    assert_eq!(log.count("submit"), 1, "the other transport has its recipient once");
    let again = "submit_deferred bob@there".to_owned();
    assert!(mail.calls().contains(&again), "only its own is open: {:?}", mail.calls());
}

/// Proves: SP-3
#[tokio::test]
async fn a_message_the_transport_cannot_send_ever_gives_one_report() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Refuse(MapiCode::TOO_BIG, None)]);
    let house = house(vec![service("work", &transport)]).await;
    house.store.submit(1, message("ann@work", &[("SMTP", "bob@a"), ("SMTP", "eve@b")]));
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    house.store.with(|store| {
        assert_eq!(store.reports.len(), 1);
        assert_eq!(store.reports[0].recipients.len(), 2);
    });
}

/// Proves: TN-8
#[tokio::test]
async fn a_closed_direction_keeps_mail_waiting_and_opening_it_lets_it_go() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let house = house(vec![service("work", &transport)]).await;
    let notify = |flags| house.spooler.transport_notify(Some("work"), flags, NotifyData::None);
    notify(TransportNotify::END_OUTBOUND).await.unwrap();
    house.store.submit(1, smtp("ann@work"));
    house.store.submit(2, smtp("ann@work"));
    let flush = house.spooler.flush(None, FlushFlags::UPLOAD).await;
    assert!(flush.is_ok(), "a closed direction is passed over");
    assert_eq!(transport.count("submit"), 0);
    notify(TransportNotify::BEGIN_OUTBOUND).await.unwrap();
    house.store.wait_until("both are finished", |store| store.finished.len() == 2).await;
    house.store.with(|store| assert!(store.finished.is_sorted()));
}

/// Proves: LG-8
#[tokio::test]
async fn mail_for_a_transport_that_is_not_logged_on_waits() {
    let mut failing = ScriptedTransport::new(&["SMTP"]);
    failing.logon_error = Some(MapiError::new(MapiCode::UNCONFIGURED, "smtp.host is missing"));
    let (failing, other) = (Arc::new(failing), Arc::new(ScriptedTransport::new(&["SMTP"])));
    let house = house(vec![service("broken", &failing), service("fine", &other)]).await;
    house.store.submit(1, smtp("ann@broken"));
    house.store.submit(2, smtp("ann@fine"));
    house.store.wait_until("one is finished", |store| !store.finished.is_empty()).await;
    house.store.with(|store| {
        assert_eq!(store.outgoing.len(), 1);
        assert!(store.reports.is_empty());
    });
    let rows = house.spooler.status_table().rows();
    assert_eq!(rows[0].status_code, StatusCode::FAILURE);
    assert!(rows[0].status_string.contains("smtp.host"), "{}", rows[0].status_string);
}

/// Proves: SP-2
#[tokio::test]
async fn a_critical_error_releases_that_logon_only() {
    let failing = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let other = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let house = house(vec![service("broken", &failing), service("fine", &other)]).await;
    let mut rows = house.spooler.status_table().subscribe();
    failing.signal(SpoolerNotify::CRITICAL_ERROR);
    tokio::time::timeout(GRACE, async {
        while !house.spooler.status_table().rows()[0].status_code.contains(StatusCode::FAILURE) {
            rows.changed().await;
        }
    })
    .await
    .unwrap();
    let before = failing.calls().len();
    house.store.submit(1, smtp("ann@fine"));
    house.store.wait_until("the other goes on", |store| !store.finished.is_empty()).await;
    assert_eq!(failing.calls().len(), before);
}

/// Proves: IB-4
#[tokio::test]
async fn received_mail_is_taken_until_nothing_is_left() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let house = house(vec![service("work", &transport)]).await;
    transport.arrive((0..50_u8).map(|number| vec![number]));
    house.store.wait_until("all is received", |store| store.received.len() == 50).await;
    assert_eq!(house.spooler.traffic().1, 50);
}

/// Proves: IB-1
#[tokio::test]
async fn a_transport_that_cannot_push_is_polled() {
    let mut pulled = ScriptedTransport::new(&["SMTP"]);
    pulled.out_flags = LogonOutFlags::SP_POLL;
    let transport = Arc::new(pulled);
    let house = house(vec![service("work", &transport)]).await;
    transport.wait_for("poll", 1).await;
    let polls = transport.count("poll");
    assert_eq!(transport.count("start"), 0, "Poll said that nothing is there");
    // Until the timer is set, advancing the clock would go unnoticed: advance step by step.
    for _ in 0..100 {
        if transport.count("poll") > polls {
            break;
        }
        house.clock.advance(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
    transport.wait_for("poll", polls + 1).await;
}

/// Proves: FL-2, FL-3, FL-4
#[tokio::test]
async fn both_flushes_end_when_there_is_nothing_more() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let house = house(vec![service("work", &transport)]).await;
    let flags = FlushFlags::UPLOAD | FlushFlags::DOWNLOAD;
    tokio::time::timeout(GRACE, house.spooler.flush(None, flags)).await.unwrap().unwrap();
    let calls = transport.calls();
    let at = |wanted: &str| calls.iter().position(|call| call == wanted);
    let upload_end = at("notify END_OUTBOUND_FLUSH").expect("upload ended");
    let download_end = at("notify END_INBOUND_FLUSH").expect("download ended");
    assert!(upload_end < download_end, "upload before download (FL-4): {calls:?}");
}

/// Proves: TN-18
#[tokio::test]
async fn a_message_given_back_waits_for_the_next_session() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Defer]);
    let house = house(vec![service("work", &transport)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    let is_deferred = |store: &memory_store::Contents| {
        store.outgoing.values().any(|(state, _)| matches!(state, OutgoingState::Deferred { .. }))
    };
    house.store.wait_until("it is deferred", is_deferred).await;
    let data = NotifyData::EntryId(&entry);
    house.spooler.transport_notify(None, TransportNotify::ABORT_DEFERRED, data).await.unwrap();
    house.store.submit(2, smtp("ann@work"));
    house.store.wait_until("a later one passes", |store| !store.finished.is_empty()).await;
    assert_eq!(transport.count("submit"), 2);
    house.store.with(|store| assert_eq!(store.outgoing.len(), 1));
    house.spooler.logoff(GRACE).await.unwrap();
}

/// Proves: TN-17
#[tokio::test]
async fn cancelling_takes_a_deferred_message_from_its_transport() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Defer]);
    let house = house(vec![service("work", &transport)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    let is_deferred = |store: &memory_store::Contents| {
        store.outgoing.values().any(|(state, _)| matches!(state, OutgoingState::Deferred { .. }))
    };
    house.store.wait_until("it is deferred", is_deferred).await;
    house.spooler.cancel(&entry).await.unwrap();
    assert_eq!(transport.count(&format!("abort {entry}")), 1);
    house.store.with(|store| assert_eq!(store.aborted, std::slice::from_ref(&entry)));
    assert_eq!(house.spooler.cancel(&entry).await.unwrap_err().code(), MapiCode::NOT_IN_QUEUE);
}

/// Proves: TN-18
#[tokio::test]
async fn logging_off_gives_deferred_messages_back() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Defer, Script::Defer]);
    let house = house(vec![service("work", &transport)]).await;
    house.store.submit(1, smtp("ann@work"));
    house.store.submit(2, smtp("ann@work"));
    let both = |store: &memory_store::Contents| {
        let deferred = |(state, _): &&(OutgoingState, MessageData)| {
            matches!(state, OutgoingState::Deferred { .. })
        };
        store.outgoing.values().filter(deferred).count() == 2 && store.locked.is_empty()
    };
    house.store.wait_until("both are deferred", both).await;
    house.spooler.logoff(GRACE).await.unwrap();
    assert_eq!(transport.count("abort"), 2);
    let calls = transport.calls();
    assert_eq!(calls[calls.len() - 3..], ["logoff", "release", "shutdown"]);
    house.store.with(|store| {
        assert!(
            store
                .outgoing
                .values()
                .all(|(state, _)| matches!(state, OutgoingState::Waiting { .. }))
        );
    });
}

/// Proves: OB-19
#[tokio::test]
async fn a_message_for_later_waits_for_its_time() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let house = house(vec![service("work", &transport)]).await;
    let later = house.clock.now().saturating_add(Duration::from_secs(3600));
    house.store.submit_at(1, smtp("ann@work"), later);
    house.store.submit(2, smtp("ann@work"));
    house.store.wait_until("the other passes", |store| store.finished.len() == 1).await;
    house.clock.advance(Duration::from_secs(3600));
    house.store.wait_until("its time has come", |store| store.finished.len() == 2).await;
}

/// Proves: FL-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_takes_what_waited_while_the_direction_was_closed() {
    // What the loop turns to first, when several things are ready, is left to chance.
    for round in 0..50 {
        let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
        let other = Arc::new(ScriptedTransport::new(&["SMTP"]));
        let house = house(vec![service("work", &transport), service("other", &other)]).await;
        let notify = |flags| house.spooler.transport_notify(Some("work"), flags, NotifyData::None);
        notify(TransportNotify::END_OUTBOUND).await.unwrap();
        (0..3).for_each(|number| drop(house.store.submit(number, smtp("ann@work"))));
        // Once this one has passed, the others were looked at in vain.
        house.store.submit(3, smtp("ann@other"));
        house.store.wait_until("the last has passed", |store| store.finished.len() == 1).await;
        notify(TransportNotify::BEGIN_OUTBOUND).await.unwrap();
        let flush = house.spooler.flush(Some("work"), FlushFlags::UPLOAD);
        tokio::time::timeout(GRACE, flush).await.unwrap().unwrap();
        // They are the transport's before it looks for what to send.
        let calls = transport.calls();
        let flush = calls.iter().position(|call| call == "flush_queues").unwrap();
        let submits = calls[..flush].iter().filter(|call| call.starts_with("submit"));
        assert_eq!(submits.count(), 3, "round {round}: {calls:?}");
    }
}

/// Proves: LG-9
#[tokio::test]
async fn a_spooler_that_is_dropped_or_logged_off_releases_its_logons() {
    for logs_off in [true, false] {
        let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
        let house = house(vec![service("work", &transport)]).await;
        if logs_off {
            house.spooler.logoff(GRACE).await.unwrap();
        }
        let logon = Arc::downgrade(&transport);
        drop((transport, house));
        let released = async {
            while logon.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let released = tokio::time::timeout(GRACE, released).await;
        assert!(released.is_ok(), "the logon lives on (logged off: {logs_off})");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direction_that_opens_while_messages_are_looked_at_lets_them_all_go() {
    for _ in 0..50 {
        let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
        let house = house(vec![service("work", &transport)]).await;
        let notify = |flags| house.spooler.transport_notify(None, flags, NotifyData::None);
        notify(TransportNotify::END_OUTBOUND).await.unwrap();
        (0..50).for_each(|number| drop(house.store.submit(number, smtp("ann@work"))));
        tokio::task::yield_now().await;
        notify(TransportNotify::BEGIN_OUTBOUND).await.unwrap();
        house.store.wait_until("all are finished", |store| store.finished.len() == 50).await;
    }
}

/// Proves: OB-11
#[tokio::test]
async fn an_end_that_comes_before_endmessage_has_returned_is_taken_up_at_once() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::DeferBriefly]);
    let house = house(vec![service("work", &transport)]).await;
    house.store.submit(1, smtp("ann@work"));
    // The clock stands still: what is put off never comes.
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    let calls = transport.calls();
    let of_message: Vec<&String> =
        calls.iter().filter(|call| call.starts_with("submit") || *call == "end").collect();
    assert_eq!(of_message, ["submit bob@there", "end", "submit_deferred bob@there", "end"]);
}

#[tokio::test]
async fn a_flush_ends_when_its_transport_breaks_with_ends_untold() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Defer]);
    let house = house(vec![service("work", &transport)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    let is_deferred = |store: &memory_store::Contents| {
        store.outgoing.values().any(|(state, _)| matches!(state, OutgoingState::Deferred { .. }))
            && store.locked.is_empty()
    };
    house.store.wait_until("it is deferred", is_deferred).await;
    let flush = house.spooler.flush(None, FlushFlags::UPLOAD);
    let broken = async {
        transport.wait_for("flush_queues", 1).await;
        transport.signal(SpoolerNotify::CRITICAL_ERROR);
        tokio::task::yield_now().await;
        transport.support().spooler_notify(SpoolerNotify::SENTDEFERRED, Some(&entry));
    };
    let (flushed, ()) = tokio::join!(tokio::time::timeout(GRACE, flush), broken);
    assert!(flushed.is_ok(), "the flush waits for an end that nobody will take up");
}

#[tokio::test]
async fn a_deferred_message_its_transport_has_lost_is_handed_over_again() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    transport.will([Script::Defer, Script::Refuse(MapiCode::NOT_FOUND, None)]);
    let house = house(vec![service("work", &transport)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    let is_deferred = |store: &memory_store::Contents| {
        store.outgoing.values().any(|(state, _)| matches!(state, OutgoingState::Deferred { .. }))
            && store.locked.is_empty()
    };
    house.store.wait_until("it is deferred", is_deferred).await;
    transport.support().spooler_notify(SpoolerNotify::SENTDEFERRED, Some(&entry));
    house.store.wait_until("it is sent after all", |store| store.finished.len() == 1).await;
}

/// An entry id may be drawn long before the message is there.
#[tokio::test]
async fn a_message_with_an_earlier_entry_id_is_not_passed_over() {
    let transport = Arc::new(ScriptedTransport::new(&["SMTP"]));
    let house = house(vec![service("work", &transport)]).await;
    house.store.submit(9, smtp("ann@work"));
    house.store.wait_until("the first is sent", |store| store.finished.len() == 1).await;
    house.store.submit(1, smtp("ann@work"));
    house.store.wait_until("both are sent", |store| store.finished.len() == 2).await;
}
