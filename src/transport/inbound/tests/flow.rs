//! Push, poll, gate, flush, cancel, large messages, several mailboxes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postoffice::{
    Action, Fault, Feature, ImapAction, ImapCapability, ImapPhase, PostOffice, Protocol,
};
use tokio_util::sync::CancellationToken;

use super::super::{HandOver, Watched};
use super::rig::{LONG, Rig, message, messages, struck};
use crate::mapi::MapiCode;
use crate::spi::Incoming;
use crate::transport::events::{Activity, Gate, TroubleKind};

#[tokio::test(flavor = "multi_thread")]
async fn idle_brings_mail_at_once() {
    let rig = Rig::new().await;
    rig.deliver([message(0, 100)]);
    let life = rig.start();
    rig.saved(1).await;
    life.state_when(|states| states[0].mode == Watched::Idle).await;
    assert!(life.inbound.push_expected());
    for number in 1..4 {
        let begin = Instant::now();
        rig.deliver([message(number, 100)]);
        rig.saved(number + 1).await;
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(1500), "{took:?}");
        life.state_when(|states| states[0].mode == Watched::Idle).await;
    }
    life.state_when(|states| states[0].last_uid == 4).await;
    life.inbound.stop(LONG).await;
    assert!(rig.office.violations().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_is_renewed_and_survives() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.idle_renew = Duration::from_millis(100);
    let life = rig.start();
    let idles = |office: &PostOffice| office.counters(Protocol::Imap).command("IDLE");
    rig.office.wait_until("renewals", LONG, |office| idles(office) >= 4).await.unwrap();
    rig.deliver([message(0, 100)]);
    rig.saved(1).await;
    assert_eq!(rig.office.counters(Protocol::Imap).connections, 1);
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_that_does_not_end_is_given_up() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.idle_renew = Duration::from_millis(100);
    rig.settings.tuning.idle_done = Duration::from_millis(200);
    let hang = rig.office.inject(Fault::imap(ImapPhase::Idle, Action::Hang).after_effect().once());
    let life = rig.start();
    rig.office
        .wait_until("a second connection", LONG, |office| {
            office.counters(Protocol::Imap).connections >= 2
        })
        .await
        .unwrap();
    assert!(hang.hits() >= 1);
    rig.deliver([message(0, 100)]);
    rig.saved(1).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

/// The UIDNEXT of a SELECT is older than what comes before its end.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_mailbox_is_opened_is_fetched() {
    for there in [0, 3] {
        let rig = Rig::new().await;
        rig.deliver((0..there).map(|number| message(number, 100)));
        let hang = rig.office.inject(Fault::imap(ImapPhase::MidSelect, Action::Hang).once());
        let life = rig.start();
        hang.reached(LONG).await.unwrap();
        rig.deliver([message(there, 100)]);
        hang.release();
        rig.saved(there + 1).await;
        life.no_trouble().await;
        life.inbound.stop(LONG).await;
    }
}

/// What a list with an end says beside it is not forgotten over the next one.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_between_two_lists_is_fetched() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.window = 2;
    rig.deliver((0..4).map(|number| message(number, 100)));
    let hang = rig.office.inject(Fault::imap(ImapPhase::Fetch, Action::Hang).once());
    let life = rig.start();
    hang.reached(LONG).await.unwrap();
    rig.deliver([message(4, 100)]);
    hang.release();
    rig.saved(5).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

/// A connection that serves several mailboxes comes back to the one it watches.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_another_mailbox_is_looked_at_is_fetched() {
    let mut rig = Rig::new().await;
    rig.office.create_mailbox("ann", "Other").unwrap();
    rig.settings.imap.mailboxes.push("Other".into());
    rig.settings.imap.connections = 1;
    let other = Fault::imap(ImapPhase::Select, Action::Hang).matching("Other").once();
    let hang = rig.office.inject(other);
    let life = rig.start();
    hang.reached(LONG).await.unwrap();
    rig.deliver([message(0, 100)]);
    hang.release();
    rig.saved(1).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

/// A list that is refused is asked for again at the next round, not over and over.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_list_waits_for_the_next_round() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.idle_renew = Duration::from_millis(30);
    rig.office.inject(Fault::imap(ImapPhase::Fetch, ImapAction::No("not now".into())));
    rig.office.inject(Fault::imap(ImapPhase::Search, ImapAction::No("not now".into())));
    rig.deliver([message(0, 100)]);
    let life = rig.start();
    rig.idles(1).await;
    let fetches = rig.office.counters(Protocol::Imap).command("UID FETCH");
    assert!(fetches >= 1);
    rig.idles(10).await;
    assert_eq!(rig.office.counters(Protocol::Imap).command("UID FETCH"), fetches);
    life.inbound.stop(LONG).await;
}

/// Without UIDNEXT only a list says whether there is more: one for each look. A connection that comes
/// back from another mailbox needs none.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_tells_no_uidnext_is_not_looked_at_for_nothing() {
    let mut rig = Rig::with(PostOffice::builder().withhold(Feature::UidNext)).await;
    rig.office.create_mailbox("ann", "Other").unwrap();
    rig.settings.imap.mailboxes.push("Other".into());
    rig.settings.imap.connections = 1;
    rig.settings.imap.poll_interval = Duration::from_millis(30);
    rig.deliver((0..3).map(|number| message(number, 100)));
    let life = rig.start();
    rig.saved(3).await;
    let count = |command| rig.office.counters(Protocol::Imap).command(command);
    rig.idles(2).await;
    let (looks, fetches, examines) = (count("IDLE"), count("UID FETCH"), count("EXAMINE"));
    rig.idles(10).await;
    // A round is a look at either, and the way back.
    let (fetches, looks) = (count("UID FETCH") - fetches, count("IDLE") - looks);
    assert!(fetches <= looks + 1, "{fetches} lists in {looks} rounds");
    assert!(count("EXAMINE") - examines > 2 * looks, "it did not come back to INBOX");
    // What is pushed is found, and what comes while it is being opened.
    rig.deliver([message(3, 100)]);
    rig.saved(4).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
    let hang = rig.office.inject(Fault::imap(ImapPhase::MidSelect, Action::Hang).once());
    let life = rig.start();
    hang.reached(LONG).await.unwrap();
    rig.deliver([message(4, 100)]);
    hang.release();
    rig.saved(5).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_idle_is_polled() {
    let builder = PostOffice::builder().withhold(ImapCapability::Idle);
    let mut rig = Rig::with(builder).await;
    rig.settings.imap.poll_interval = Duration::from_millis(80);
    let life = rig.start();
    life.state_when(|states| states[0].mode == Watched::Poll).await;
    assert!(!life.inbound.push_expected());
    rig.deliver([message(0, 100)]);
    rig.saved(1).await;
    assert_eq!(rig.office.counters(Protocol::Imap).command("IDLE"), 0);
    life.inbound.stop(LONG).await;
}

/// Proves: IB-1
#[tokio::test(flavor = "multi_thread")]
async fn poll_looks_at_the_server() {
    let mut rig = Rig::new().await;
    rig.settings.imap.push = false;
    let life = rig.closed_with(rig.spool.clone());
    assert!(!life.inbound.push_expected());
    assert_eq!(life.inbound.poll().await, Ok(Incoming::None), "the gate is closed");
    life.host.leave();
    life.inbound.set_gate(Gate::Open);
    assert_eq!(life.inbound.poll().await, Ok(Incoming::None));
    rig.deliver([message(0, 100), message(1, 100)]);
    assert_eq!(life.inbound.poll().await, Ok(Incoming::Waiting));
    for _ in 0..2 {
        let token = CancellationToken::new();
        let handed = life.inbound.next(rig.store.message(), token).await;
        assert_eq!(handed, Ok(HandOver::Saved));
    }
    let token = CancellationToken::new();
    let handed = life.inbound.next(rig.store.message(), token).await;
    assert_eq!(handed, Ok(HandOver::Nothing));
    assert_eq!(life.inbound.poll().await, Ok(Incoming::None));
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poll_names_the_trouble() {
    let mut rig = Rig::new().await;
    rig.settings.imap.push = false;
    *rig.password.0.lock().unwrap() = "wrong".into();
    let life = rig.start();
    let error = life.inbound.poll().await.unwrap_err();
    assert_eq!(error.code(), MapiCode::LOGON_FAILED, "{error}");
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_need_no_runtime() {
    let rig = Rig::new().await;
    rig.deliver([message(0, 100)]);
    let life = rig.start_alone();
    let inbound = life.inbound.clone();
    let thread = std::thread::spawn(move || {
        inbound.begin_flush();
        let poll = block_on(inbound.poll());
        block_on(inbound.stop(LONG));
        poll
    });
    let poll = tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    assert_eq!(poll, Ok(Incoming::Waiting));
}

/// Blocks a thread that belongs to no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = Box::pin(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// Proves: TN-7
/// TN-7: the message in process is completed, the others stay where they are.
#[tokio::test(flavor = "multi_thread")]
async fn closing_the_gate_completes_what_was_begun() {
    for piece in [1 << 20, 300] {
        let mut rig = Rig::new().await;
        rig.calls = 1;
        rig.settings.tuning.small = piece;
        rig.settings.tuning.piece = piece;
        rig.deliver(messages(10));
        rig.store.hold(true);
        let life = rig.start();
        let mut writing = rig.store.writing.subscribe();
        writing.wait_for(|count| *count == 1).await.unwrap();
        life.inbound.set_gate(Gate::Closed);
        let token = CancellationToken::new();
        let nothing = life.inbound.next(rig.store.message(), token).await;
        assert_eq!(nothing, Ok(HandOver::Nothing));
        rig.store.hold(false);
        let closed = |office: &PostOffice| office.counters(Protocol::Imap).open == 0;
        rig.office.wait_until("the connection to close", LONG, closed).await.unwrap();
        assert_eq!(rig.store.len(), 1, "pieces of {piece}");
        assert_eq!(rig.cursor("INBOX").await.last_uid, 1);
        assert_eq!(rig.office.counters(Protocol::Imap).command("LOGOUT"), 1);
        life.state_when(|states| states[0].mode == Watched::Off).await;
        life.inbound.set_gate(Gate::Open);
        rig.saved(10).await;
        life.inbound.stop(LONG).await;
        rig.assert_same(messages(10));
    }
}

/// Proves: TN-14
/// TN-14: nothing is saved, the message is handed over again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_message_comes_again() {
    for piece in [1 << 20, 300] {
        let mut rig = Rig::new().await;
        rig.settings.tuning.small = piece;
        rig.settings.tuning.piece = piece;
        let all = vec![message(0, 5000)];
        rig.deliver(all.clone());
        let life = rig.start_alone();
        life.events.mail.notified().await;
        rig.store.hold(true);
        let token = CancellationToken::new();
        let (inbound, store) = (life.inbound.clone(), rig.store.clone());
        let cancel = token.clone();
        let call = tokio::spawn(async move { inbound.next(store.message(), cancel).await });
        let mut writing = rig.store.writing.subscribe();
        writing.wait_for(|count| *count > 0).await.unwrap();
        token.cancel();
        let error = tokio::time::timeout(LONG, call).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.code(), MapiCode::CANCEL);
        assert_eq!(rig.store.len(), 0);
        rig.store.hold(false);
        life.events.mail.notified().await;
        let token = CancellationToken::new();
        let handed = life.inbound.next(rig.store.message(), token).await;
        assert_eq!(handed, Ok(HandOver::Saved), "pieces of {piece}");
        rig.assert_same(all);
        // A connection that was in the middle of the text is thrown away.
        assert!(rig.office.counters(Protocol::Imap).connections <= 2);
        life.inbound.stop(LONG).await;
    }
}

/// Proves: TN-14
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_in_a_flush_can_be_cancelled() {
    let rig = Rig::new().await;
    let hang = rig.office.inject(Fault::imap(ImapPhase::Select, Action::Hang).once());
    let life = rig.start_alone();
    life.inbound.begin_flush();
    let token = CancellationToken::new();
    let (inbound, store, cancel) = (life.inbound.clone(), rig.store.clone(), token.clone());
    let call = tokio::spawn(async move { inbound.next(store.message(), cancel).await });
    struck(&hang, 1).await;
    token.cancel();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), MapiCode::CANCEL);
    hang.release();
    life.inbound.stop(LONG).await;
}

/// Proves: TN-10
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_ends_when_everything_is_there() {
    let rig = Rig::new().await;
    let life = rig.closed_with(rig.spool.clone());
    rig.deliver(messages(50));
    life.inbound.begin_flush();
    assert_eq!(*life.events.drained.borrow(), 0);
    // TN-13: it runs when the direction begins.
    life.inbound.set_gate(Gate::Open);
    let mut drained = life.events.drained.subscribe();
    tokio::time::timeout(LONG, drained.wait_for(|count| *count == 1)).await.unwrap().unwrap();
    assert_eq!(rig.store.len(), 50);
    life.inbound.end_flush();
    rig.deliver(messages(3).into_iter().map(|mut it| {
        it.extend_from_slice(b"more\r\n");
        it
    }));
    life.flush().await;
    assert_eq!(rig.store.len(), 53);
    life.inbound.stop(LONG).await;
}

/// Proves: TN-10
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_ends_also_without_a_server() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    let life = rig.start();
    life.flush().await;
    life.trouble(TroubleKind::Network).await;
    rig.office.restart().await.unwrap();
    rig.deliver([message(0, 100)]);
    life.flush().await;
    assert_eq!(rig.store.len(), 1);
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_passes_through_in_pieces() {
    let rig = Rig::new().await;
    let all = vec![message(0, 40 << 20), message(1, 100), message(2, 3 << 20)];
    rig.deliver(all.clone());
    let life = rig.start();
    rig.saved(3).await;
    rig.assert_same(all);
    let peak = life.inbound.peak_buffered();
    assert!(peak <= 4 << 20, "{peak} bytes were held at one time");
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_host_bounds_what_is_fetched() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.budget = 64 << 10;
    rig.settings.tuning.batch = (100, 16 << 10);
    rig.calls = 1;
    let all: Vec<Vec<u8>> = (0..100).map(|number| message(number, 8 << 10)).collect();
    rig.deliver(all.clone());
    let life = rig.start();
    rig.saved(100).await;
    rig.assert_same(all);
    let peak = life.inbound.peak_buffered();
    assert!(peak <= 80 << 10, "{peak} bytes were held at one time");
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_mailboxes_share_the_connections() {
    for connections in [1, 2, 5] {
        let mut rig = Rig::new().await;
        let names = ["INBOX", "Lists", "Entw\u{fc}rfe", "Tom & Jerry"];
        let wire = ["INBOX", "Lists", "Entw&APw-rfe", "Tom &- Jerry"];
        rig.settings.imap.mailboxes = names.map(str::to_owned).to_vec();
        rig.settings.imap.connections = connections;
        rig.settings.imap.poll_interval = Duration::from_millis(100);
        for name in &wire[1..] {
            rig.office.create_mailbox("ann", name).unwrap();
        }
        let mut number = 0;
        let mut deliver = |rig: &Rig| {
            for name in wire {
                number += 1;
                rig.deliver_to(name, [message(number, 100)]);
            }
        };
        deliver(&rig);
        let life = rig.start();
        rig.saved(4).await;
        deliver(&rig);
        rig.saved(8).await;
        let mut mailboxes: Vec<String> =
            rig.store.all().into_iter().map(|saved| saved.mailbox).collect();
        mailboxes.sort();
        mailboxes.dedup();
        assert_eq!(mailboxes.len(), 4);
        let counters = rig.office.counters(Protocol::Imap);
        let expected = u64::try_from(connections.min(4)).unwrap();
        assert_eq!(counters.connections, expected);
        life.inbound.stop(LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_gets_names_with_slashes() {
    for (delimiter, name, wanted) in
        [('.', "Lists.rust", "Lists/rust"), ('/', "Lists/a.b", "Lists/a.b")]
    {
        let mut rig = Rig::with(PostOffice::builder().delimiter(delimiter)).await;
        rig.settings.imap.mailboxes = vec![name.into()];
        rig.office.create_mailbox("ann", name).unwrap();
        rig.deliver_to(name, [message(0, 100)]);
        rig.one_flush().await;
        assert_eq!(rig.store.all()[0].mailbox, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transport_lets_go_of_everything() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.small = 300;
    rig.deliver(messages(50));
    for commands in [0, 1, 3, 5] {
        let life = rig.start();
        rig.said(commands).await;
        drop(life);
        let alone = async || (std::sync::Arc::strong_count(&rig.spool) == 1).then_some(());
        let what = format!("nobody holds the spool, {commands} commands on");
        realservers::wait::until_async(&what, LONG, alone).await.unwrap();
    }
}

/// Proves: IB-1
#[tokio::test(flavor = "multi_thread")]
async fn new_mail_is_announced_once_until_somebody_comes() {
    let rig = Rig::new().await;
    rig.deliver(messages(20));
    let life = rig.start_alone();
    life.state_when(|states| states[0].pending == 20).await;
    life.state_when(|states| states[0].mode == Watched::Idle).await;
    assert_eq!(life.events.announcements.load(Ordering::SeqCst), 1);
    let token = CancellationToken::new();
    let handed = life.inbound.next(rig.store.message(), token).await;
    assert_eq!(handed, Ok(HandOver::Saved));
    // IB-4: more is waiting.
    assert_eq!(life.events.announcements.load(Ordering::SeqCst), 2);
    life.inbound.stop(LONG).await;
}

/// Proves: ST-4
#[tokio::test(flavor = "multi_thread")]
async fn activity_frames_the_traffic() {
    let rig = Rig::new().await;
    rig.deliver(messages(20));
    rig.one_flush().await;
    let life = rig.start();
    life.flush().await;
    assert!(life.events.activities.lock().unwrap().is_empty(), "nothing moved");
    rig.deliver([message(99, 100)]);
    rig.saved(21).await;
    life.inbound.stop(LONG).await;
    let activities = life.events.activities.lock().unwrap();
    assert!(!activities.is_empty());
    for (number, activity) in activities.iter().enumerate() {
        let wanted = if number % 2 == 0 { Activity::Moving } else { Activity::Idle };
        assert_eq!(*activity, wanted, "{activities:?}");
    }
    assert_eq!(activities.last(), Some(&Activity::Idle));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_old_messages_cost_nothing() {
    let rig = Rig::new().await;
    // Sparse numbers: the first that is left has a high one.
    rig.deliver((0..2000).map(|number| message(number, 1)));
    for uid in 1..=1990 {
        rig.office.remove("ann", "INBOX", uid).unwrap();
    }
    rig.one_flush().await;
    assert_eq!(rig.store.len(), 10);
    let before = rig.office.counters(Protocol::Imap).command("UID FETCH");
    rig.one_flush().await;
    assert_eq!(rig.office.counters(Protocol::Imap).command("UID FETCH"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_what_is_there() {
    let mut rig = Rig::new().await;
    rig.settings.imap.mailboxes = vec!["INBOX".into(), "Nowhere".into()];
    rig.deliver(messages(3));
    let report = super::super::probe(&rig.settings).await.unwrap();
    assert!(report.capabilities.iter().any(|name| name == "IDLE"), "{report:?}");
    assert_eq!(report.mailboxes[0].messages, Ok(3));
    assert!(report.mailboxes[1].messages.is_err());
    *rig.password.0.lock().unwrap() = "wrong".into();
    let error = super::super::probe(&rig.settings).await.unwrap_err();
    assert_eq!(error.code(), MapiCode::LOGON_FAILED);
}
