//! What a server may do ends one attempt, and mail flows again when it stops doing it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postoffice::{Action, Fault, ImapAction, ImapCapability, ImapPhase, PostOffice, Protocol};

use super::rig::{LONG, Rig, message, messages, struck};
use crate::mapi::MapiCode;
use crate::transport::events::TroubleKind;

fn body(action: impl Into<ImapAction>) -> Fault {
    Fault::imap(ImapPhase::Fetch, action).matching("BODY.PEEK")
}

/// Every message comes although this fault strikes.
async fn survives(name: &str, fault: Fault) {
    let mut rig = Rig::new().await;
    rig.settings.tuning.silence = Duration::from_millis(500);
    rig.settings.tuning.batch = (4, 1 << 20);
    rig.settings.tuning.small = 2000;
    rig.settings.tuning.piece = 900;
    rig.settings.deadlines.greeting = Duration::from_millis(500);
    rig.settings.deadlines.handshake = Duration::from_millis(500);
    rig.settings.deadlines.login = Duration::from_millis(500);
    let all = messages(12);
    rig.deliver(all.clone());
    let fault = rig.office.inject(fault);
    let life = rig.start();
    rig.saved(12).await;
    assert!(fault.hits() > 0, "{name} did not strike");
    rig.assert_same(all);
    rig.cursor_when(&life, |cursor| cursor.last_uid == 12 && cursor.set_aside.is_empty()).await;
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_are_made_again() {
    use ImapPhase::{Connect, Fetch, Greeting, Login, MidLiteral, Select};
    for phase in [Connect, Greeting, Login, Select, Fetch, MidLiteral] {
        for action in [Action::Drop, Action::Reset, Action::HalfClose, Action::Hang] {
            let name = format!("{action:?} at {phase:?}");
            survives(&name, Fault::imap(phase, action).once()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_garbage_pass() {
    let garbage = b"\xff\x00 what is this\r\n* 1 FETCH (((\r\n".to_vec();
    let cases: Vec<(&str, Fault)> = vec![
        ("NO to FETCH", body(ImapAction::No("not now".into())).once()),
        ("BAD to FETCH", body(ImapAction::Bad("what".into())).once()),
        ("BYE in FETCH", body(ImapAction::Bye("shutting down".into())).once()),
        ("OK without a body", body(ImapAction::FetchNothing).once()),
        (
            "OK without a list",
            Fault::imap(ImapPhase::Fetch, ImapAction::FetchNothing).matching("RFC822.SIZE").once(),
        ),
        ("NIL bodies", body(ImapAction::FetchNil).once()),
        ("a wrong tag", body(ImapAction::WrongTag).once()),
        ("garbage", body(Action::Replace(garbage.clone())).once()),
        ("garbage before", body(Action::Inject(garbage)).once()),
        ("dribble", body(Action::Dribble { pause: Duration::ZERO }).once()),
        ("endless line", body(Action::EndlessLine { bytes: 2 << 20 }).once()),
        ("NO to SELECT", Fault::imap(ImapPhase::Select, ImapAction::No("busy".into())).once()),
        ("a flood", body(Action::Flood { line: b"* 12 EXISTS".to_vec(), times: 50_000 }).once()),
        (
            "a literal that was not asked for",
            body(Action::Inject(b"* 1 FETCH (UID 1 BODY[] {400000000}\r\n".to_vec())).once(),
        ),
        (
            "nesting",
            body(Action::Inject(
                [b"* 1 FETCH (BODYSTRUCTURE ".as_slice(), &[b'('; 100_000]].concat(),
            ))
            .once(),
        ),
        (
            // The library takes the octet behind the bracket for a blank and slices there.
            "a code without its blank",
            body(Action::Inject("* OK [ALERT]\u{e9}\r\n".as_bytes().to_vec())).once(),
        ),
        (
            "unsolicited news",
            body(Action::Inject(b"* 3 EXISTS\r\n* 1 FETCH (FLAGS (\\Seen))\r\n".to_vec())),
        ),
    ];
    for (name, fault) in cases {
        let mut rig = Rig::new().await;
        rig.settings.imap.poll_interval = Duration::from_millis(100);
        rig.settings.tuning.safety_look = Duration::from_millis(100);
        let all = messages(12);
        rig.deliver(all.clone());
        let fault = rig.office.inject(fault);
        let life = rig.start();
        rig.saved(12).await;
        assert!(fault.hits() > 0, "{name} did not strike");
        rig.assert_same(all);
        life.inbound.stop(LONG).await;
    }
}

/// What is gone between the list and the fetch counts as gone, and nothing else does.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_vanish_are_gone() {
    let rig = Rig::new().await;
    rig.deliver(messages(10));
    let hang = rig.office.inject(body(Action::Hang).once());
    let life = rig.start();
    struck(&hang, 1).await;
    for uid in [1, 5, 10] {
        rig.office.remove("ann", "INBOX", uid).unwrap();
    }
    hang.release();
    rig.saved(7).await;
    let cursor = rig.cursor_when(&life, |cursor| cursor.last_uid == 10).await;
    assert!(cursor.set_aside.is_empty(), "{cursor:?}");
    life.inbound.stop(LONG).await;
    assert_eq!(rig.store.len(), 7);
}

/// OK without a body is never success: the message is set aside in the end, shown, the rest
/// flows, and it comes when the server has found it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_body_is_set_aside_and_comes_back() {
    for action in [ImapAction::FetchNothing, ImapAction::FetchNil] {
        let rig = Rig::new().await;
        let all = messages(6);
        rig.deliver(all.clone());
        // In a batch, alone and in pieces.
        let fault = Fault::imap(ImapPhase::Fetch, action).matching("3 (UID BODY.PEEK");
        let nothing = [
            rig.office.inject(body(ImapAction::FetchNothing).matching("1:6 (UID BODY")),
            rig.office.inject(fault),
        ];
        let life = rig.start();
        let cursor = rig.cursor_when(&life, |cursor| !cursor.set_aside.is_empty()).await;
        assert_eq!(cursor.set_aside, [3]);
        let trouble = life.trouble(TroubleKind::Message).await;
        assert!(trouble.words.contains("UID 3"), "{trouble:?}");
        rig.saved(5).await;
        rig.cursor_when(&life, |cursor| cursor.last_uid == 6).await;
        // Mail behind it flows.
        rig.deliver([message(100, 100)]);
        rig.saved(6).await;
        nothing.iter().for_each(postoffice::FaultHandle::remove);
        rig.office.disconnect_all();
        rig.saved(7).await;
        rig.cursor_when(&life, |cursor| cursor.set_aside.is_empty()).await;
        life.no_trouble().await;
        life.inbound.stop(LONG).await;
        let mut wanted = all;
        wanted.push(message(100, 100));
        rig.assert_same(wanted);
    }
}

/// Proves: IB-7
#[tokio::test(flavor = "multi_thread")]
async fn one_unreadable_message_does_not_hold_up_the_others() {
    let rig = Rig::new().await;
    rig.deliver(messages(8));
    let yahoo = "[UNAVAILABLE] UID FETCH Server error while fetching messages";
    let fault = Fault::imap(ImapPhase::Message, ImapAction::No(yahoo.into())).matching("UID 4");
    // The list is answered, the message is not.
    rig.office.inject(Fault::imap(ImapPhase::Fetch, Action::Delay(Duration::ZERO)).once());
    let life = rig.start();
    rig.office
        .wait_until("the list", LONG, |office| {
            office.counters(Protocol::Imap).command("UID FETCH") > 0
        })
        .await
        .unwrap();
    drop(fault);
    let refusing =
        Fault::imap(ImapPhase::Fetch, ImapAction::No(yahoo.into())).matching("FETCH 9 (UID BODY");
    rig.office.inject(refusing);
    rig.saved(8).await;
    rig.deliver([message(50, 100)]);
    rig.cursor_when(&life, |cursor| cursor.set_aside == [9]).await;
    rig.deliver([message(51, 100)]);
    rig.saved(9).await;
    life.inbound.stop(LONG).await;
}

/// Proves: IB-7
#[tokio::test(flavor = "multi_thread")]
async fn a_message_the_store_refuses_is_set_aside() {
    let rig = Rig::new().await;
    let all = messages(6);
    rig.deliver(all.clone());
    let bad = all[2].clone();
    rig.store.refuse(move |bytes| (bytes == bad).then_some(MapiCode::CALL_FAILED));
    let life = rig.start();
    rig.saved(5).await;
    let cursor = rig.cursor_when(&life, |cursor| cursor.set_aside == [3]).await;
    assert_eq!(cursor.last_uid, 6);
    let trouble = life.trouble(TroubleKind::Message).await;
    assert!(trouble.words.contains("the store refuses it"), "{trouble:?}");
    life.host.failed(3).await;
    life.inbound.stop(LONG).await;
    assert_eq!(life.host.errors.borrow().len(), 3);
    rig.store.accept();
    rig.one_flush().await;
    rig.assert_same(all);
}

/// Proves: IB-7
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_everything_and_sets_nothing_aside() {
    let rig = Rig::new().await;
    let all = messages(20);
    rig.deliver(all.clone());
    rig.store.refuse(|_| Some(MapiCode::NOT_ENOUGH_DISK));
    let begun = Instant::now();
    let life = rig.start();
    let trouble = life.trouble(TroubleKind::Storage).await;
    assert!(trouble.words.contains("MAPI_E_NOT_ENOUGH_DISK"), "{trouble:?}");
    // Between two rounds, each of which tries a message once at the most, lies a pause; the clock
    // counts whole milliseconds.
    let rounds = life.host.failed(60).await.div_ceil(all.len());
    let pause = rig.settings.tuning.storage_pause - Duration::from_millis(1);
    let pauses = pause * (u32::try_from(rounds).unwrap() - 1);
    assert!(begun.elapsed() >= pauses, "{rounds} rounds in {:?}", begun.elapsed());
    rig.store.accept();
    rig.saved(20).await;
    life.no_trouble().await;
    assert!(rig.cursor("INBOX").await.set_aside.is_empty());
    life.inbound.stop(LONG).await;
    rig.assert_same(all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_and_comes_is_noticed() {
    let rig = Rig::new().await;
    let life = rig.start();
    rig.deliver([message(0, 100)]);
    rig.saved(1).await;
    rig.office.stop().await;
    let trouble = life.trouble(TroubleKind::Network).await;
    assert!(trouble.next_attempt.is_some());
    rig.office.restart().await.unwrap();
    rig.deliver([message(1, 100)]);
    rig.saved(2).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_shown_not_hammered_and_mended() {
    let mut rig = Rig::new().await;
    rig.settings.imap.mailboxes.push("Lists".into());
    rig.office.create_mailbox("ann", "Lists").unwrap();
    rig.settings.tuning.login_pause = (Duration::from_secs(60), Duration::from_secs(3600));
    *rig.password.0.lock().unwrap() = "wrong".into();
    rig.deliver([message(0, 100)]);
    let life = rig.start();
    let trouble = life.trouble(TroubleKind::LoginRefused).await;
    assert!(trouble.words.contains("check user and password"), "{trouble:?}");
    assert!(!trouble.words.contains("wrong\""), "{trouble:?}");
    // A look is over when every lane has come to the door and waits there.
    for _ in 0..20 {
        let refused = life.inbound.poll().await.unwrap_err();
        assert_eq!(refused.code(), MapiCode::LOGON_FAILED);
    }
    let failures = rig.office.counters(Protocol::Imap).login_failures;
    // PLAIN and LOGIN; both lanes may be on their way before the first is refused.
    assert!((1..=4).contains(&failures), "{failures} failed logins");
    *rig.password.0.lock().unwrap() = "secret".into();
    // Who has mended the password flushes.
    life.flush().await;
    assert_eq!(rig.store.len(), 1);
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

/// An attempt that began before the flush says nothing about what the flush can have.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_outlives_an_attempt_that_began_before_it() {
    let mut rig = Rig::new().await;
    rig.settings.imap.mailboxes.push("Lists".into());
    rig.office.create_mailbox("ann", "Lists").unwrap();
    rig.settings.tuning.login_pause = (Duration::from_secs(3600), Duration::from_secs(3600));
    rig.deliver([message(0, 100)]);
    rig.deliver_to("Lists", [message(1, 100)]);
    *rig.password.0.lock().unwrap() = "wrong".into();
    let hang = rig.office.inject(Fault::imap(ImapPhase::Login, Action::Hang).once());
    let life = rig.start();
    struck(&hang, 1).await;
    *rig.password.0.lock().unwrap() = "secret".into();
    let mut drained = life.events.drained.subscribe();
    life.inbound.begin_flush();
    hang.release();
    tokio::time::timeout(LONG, drained.wait_for(|count| *count > 0)).await.unwrap().unwrap();
    assert_eq!(rig.store.len(), 2);
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_no_wrong_password() {
    for words in [
        "[ALERT] Too many simultaneous connections. (Failure)",
        "[UNAVAILABLE] Temporary authentication failure.",
    ] {
        let rig = Rig::new().await;
        rig.deliver([message(0, 100)]);
        let busy = Fault::imap(ImapPhase::Login, ImapAction::No(words.into())).times(3);
        rig.office.inject(busy);
        let life = rig.start();
        rig.saved(1).await;
        let troubles = life.events.troubles.lock().unwrap().clone();
        assert!(!troubles.is_empty());
        assert!(troubles.iter().all(|it| it.kind == TroubleKind::Throttled), "{troubles:?}");
        life.inbound.stop(LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttling_server_is_left_alone_as_long_as_it_says() {
    let rig = Rig::new().await;
    rig.deliver([message(0, 100)]);
    let words = "Request is throttled. Suggested Backoff Time: 400 milliseconds";
    rig.office.inject(body(ImapAction::Bad(words.into())).once());
    let life = rig.start();
    life.trouble(TroubleKind::Throttled).await;
    let begin = std::time::Instant::now();
    // A hurry does not override what the server asks for.
    life.inbound.begin_flush();
    rig.saved(1).await;
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    assert!(rig.cursor("INBOX").await.set_aside.is_empty());
    life.inbound.stop(LONG).await;
}

/// A server that takes fewer connections than the profile asks for gets fewer, and every mailbox
/// is served.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_connections_serve_all_mailboxes() {
    let mut rig = Rig::new().await;
    rig.settings.imap.mailboxes = vec!["INBOX".into(), "A".into(), "B".into()];
    rig.settings.imap.poll_interval = Duration::from_millis(100);
    rig.settings.tuning.throttle_pause = (Duration::from_millis(100), Duration::from_secs(3600));
    for name in ["A", "B"] {
        rig.office.create_mailbox("ann", name).unwrap();
    }
    let words = "[UNAVAILABLE] Maximum number of connections from user+IP exceeded";
    rig.office.inject(Fault::imap(ImapPhase::Login, ImapAction::No(words.into())).nth(2));
    let life = rig.start();
    for (number, name) in ["INBOX", "A", "B", "INBOX", "A", "B"].into_iter().enumerate() {
        rig.deliver_to(name, [message(number, 100)]);
        rig.saved(number + 1).await;
    }
    life.flush().await;
    let counters = rig.office.counters(Protocol::Imap);
    assert_eq!(counters.open, 1, "{counters:?}");
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_not_there_does_not_stop_the_others() {
    let mut rig = Rig::new().await;
    rig.settings.imap.mailboxes = vec!["Nowhere".into(), "INBOX".into()];
    rig.settings.imap.connections = 1;
    rig.settings.imap.poll_interval = Duration::from_millis(100);
    rig.deliver([message(0, 100)]);
    let life = rig.start();
    rig.saved(1).await;
    let trouble = life.trouble(TroubleKind::Configuration).await;
    assert!(trouble.words.contains("Nowhere"), "{trouble:?}");
    rig.office.create_mailbox("ann", "Nowhere").unwrap();
    rig.deliver_to("Nowhere", [message(1, 100)]);
    rig.saved(2).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_news_is_followed_slowly() {
    let rig = Rig::new().await;
    let flood = Fault::imap(ImapPhase::Idle, ImapAction::ExistsFlood(1000)).after_effect();
    let flood = rig.office.inject(flood);
    let begun = Instant::now();
    let life = rig.start();
    // The fourth and the fifth are looked at after pauses of 400 and 800 ms.
    struck(&flood, 6).await;
    let pauses = Duration::from_millis(1200);
    assert!(begun.elapsed() >= pauses, "{} looks in {:?}", flood.hits(), begun.elapsed());
    rig.deliver([message(0, 100)]);
    rig.saved(1).await;
    flood.remove();
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_that_is_offered_and_refused_is_not_asked_for_again() {
    let mut rig = Rig::new().await;
    rig.settings.imap.poll_interval = Duration::from_millis(80);
    for refusal in [ImapAction::No("no".into()), ImapAction::Bad("what".into())] {
        let fault = rig.office.inject(Fault::imap(ImapPhase::Idle, refusal));
        let life = rig.start();
        struck(&fault, 1).await;
        let count = rig.store.len();
        rig.deliver([message(count, 100)]);
        rig.saved(count + 1).await;
        assert_eq!(fault.hits(), 1);
        assert!(!life.inbound.push_expected());
        life.inbound.stop(LONG).await;
        fault.remove();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_that_is_closed_by_the_server_is_no_loss() {
    let rig = Rig::with(PostOffice::builder().withhold(ImapCapability::SaslIr)).await;
    let life = rig.start();
    for number in 0..3 {
        let idles = rig.office.counters(Protocol::Imap).command("IDLE");
        rig.office.disconnect_all();
        rig.deliver([message(number, 100)]);
        rig.saved(number + 1).await;
        rig.office
            .wait_until("IDLE", LONG, |office| {
                office.counters(Protocol::Imap).command("IDLE") > idles
            })
            .await
            .unwrap();
    }
    assert_eq!(rig.store.repeated.load(Ordering::SeqCst), 0);
    life.inbound.stop(LONG).await;
}

/// A message of which the server tells nothing at all holds up neither the list nor the others.
///
/// Proves: IB-7
#[tokio::test(flavor = "multi_thread")]
async fn one_message_that_cannot_be_listed_does_not_hold_up_the_others() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.set_aside_pause = Duration::from_millis(50);
    rig.settings.tuning.safety_look = Duration::from_millis(100);
    let all = messages(8);
    rig.deliver(all.clone());
    let words = "[SERVERBUG] Internal error occurred";
    let broken = Fault::imap(ImapPhase::Message, ImapAction::No(words.into())).matching("UID 4");
    let broken = rig.office.inject(broken);
    let life = rig.start();
    rig.saved(7).await;
    rig.cursor_when(&life, |cursor| cursor.last_uid == 8 && cursor.set_aside == [4]).await;
    let trouble = life.trouble(TroubleKind::Message).await;
    assert!(trouble.words.contains("UID 4") && trouble.words.contains("SERVERBUG"), "{trouble:?}");
    // It is listed for the user, with the reason.
    let state = life.inbound.states().remove(0);
    assert_eq!(state.set_aside, [4]);
    assert!(state.set_aside_why.contains("SERVERBUG"), "{state:?}");
    rig.deliver([message(200, 300)]);
    rig.saved(8).await;
    // It is tried again over the same connection, and comes when it can.
    broken.remove();
    rig.saved(9).await;
    life.no_trouble().await;
    assert_eq!(life.inbound.states().remove(0).set_aside, [] as [u32; 0]);
    life.inbound.stop(LONG).await;
    rig.assert_same(all.into_iter().chain([message(200, 300)]).collect());
}

/// The reserve of the spool's disk: what comes in grows the spool and waits, what is in the store
/// is recorded all the same, and nothing has to be pushed when there is space again.
///
/// Proves: IB-6, IB-7
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_without_space_pauses_and_resumes() {
    let rig = Rig::new().await;
    rig.deliver(messages(4));
    let life = rig.start();
    rig.saved(4).await;
    rig.cursor_when(&life, |cursor| cursor.last_uid == 4).await;
    rig.free.store(400, Ordering::SeqCst);
    rig.deliver([message(50, 300), message(51, 300)]);
    let trouble = life.trouble(TroubleKind::Storage).await;
    assert!(trouble.words.contains("MAPI_E_NOT_ENOUGH_DISK"), "{trouble:?}");
    assert!(trouble.next_attempt.is_some(), "{trouble:?}");
    assert_eq!(rig.store.len(), 4);
    assert!(rig.cursor("INBOX").await.set_aside.is_empty());
    rig.free.store(u64::MAX, Ordering::SeqCst);
    rig.saved(6).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
    rig.assert_same(messages(4).into_iter().chain([message(50, 300), message(51, 300)]).collect());
}
