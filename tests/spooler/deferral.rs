//! Deferral, whole: END_DONT_RESEND, NOTIFY_SENTDEFERRED, SubmitMessage(BEGIN_DEFERRED), EndMessage,
//! FinishedMsg, and what each answer on that way means (item by item of OB-7, OB-10, OB-11).

use super::*;

fn ended(transport: &ScriptedTransport, entry: &EntryId) {
    transport.support().spooler_notify(SpoolerNotify::SENTDEFERRED, Some(entry));
}

/// The calls about messages, in order.
fn about_messages(transport: &ScriptedTransport) -> Vec<String> {
    let calls = transport.calls().into_iter();
    calls.filter(|call| call.starts_with("submit") || call == "end").collect()
}

/// Each answer to SubmitMessage(BEGIN_DEFERRED) or its EndMessage: when it is called again.
///
/// Proves: OB-7, OB-10, OB-11, SP-3
#[tokio::test]
async fn each_answer_at_the_end_of_a_deferred_message() {
    let wait = Duration::from_secs(90);
    let soon = Duration::from_secs(40);
    let answers = [
        (Script::Refuse(MapiCode::WAIT, Some(wait)), 90),
        (Script::Refuse(MapiCode::NETWORK_ERROR, Some(soon)), 40),
        (Script::Refuse(MapiCode::BUSY, None), 15),
        (Script::Refuse(MapiCode::NOT_ME, None), 15),
        (Script::Refuse(MapiCode::DISK_ERROR, None), 15),
        (Script::Refuse(MapiCode::USER_CANCEL, None), 15),
        (Script::ResendLater, 15),
        (Script::RefuseAtEnd(MapiCode::BUSY), 15),
        (Script::ResendNow, 0),
    ];
    for (answer, seconds) in answers {
        let work = transport(&["SMTP"]);
        work.will([Script::Defer, answer.clone()]);
        let house = house(vec![service("work", &work)]).await;
        let entry = house.store.submit(1, smtp("ann@work"));
        house.store.wait_until("it is deferred", is_deferred).await;
        ended(&work, &entry);
        work.wait_for("submit_deferred", 1).await;
        if seconds > 0 {
            house.store.wait_until("the answer is there", |store| store.locked.is_empty()).await;
            // The timer is set right behind; nothing shows when.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            house.clock.advance(Duration::from_secs(seconds - 1));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(work.count("submit_deferred"), 1, "{answer:?}: too early");
            assert!(house.state(&entry).is_some(), "{answer:?}");
            house.clock.advance(Duration::from_secs(1));
        }
        house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
        assert_eq!(work.count("submit_deferred"), 2, "{answer:?}");
        house.store.with(|store| {
            assert_eq!(store.finished, std::slice::from_ref(&entry), "{answer:?}");
            assert!(store.reports.is_empty() && store.locked.is_empty(), "{answer:?}");
        });
        house.spooler.logoff(GRACE).await.unwrap();
        let calls = work.calls();
        assert_eq!(calls[calls.len() - 3..], ["logoff", "release", "shutdown"], "{answer:?}");
    }
}

/// Each error of EndMessage behind a SubmitMessage that succeeded.
///
/// Proves: OB-7, OB-10, SP-3
#[tokio::test]
async fn each_error_of_end_message() {
    for (code, seconds) in [
        (MapiCode::BUSY, 15),
        (MapiCode::WAIT, 15),
        (MapiCode::NETWORK_ERROR, 15),
        (MapiCode::TIMEOUT, 15),
        (MapiCode::DISK_ERROR, 30),
    ] {
        let work = transport(&["SMTP"]);
        work.will([Script::RefuseAtEnd(code)]);
        let house = house(vec![service("work", &work)]).await;
        house.store.submit(1, smtp("ann@work"));
        work.wait_for("end", 1).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        house.clock.advance(Duration::from_secs(seconds - 1));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(work.count("submit"), 1, "{code}: too early");
        house.clock.advance(Duration::from_secs(1));
        house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
        assert_eq!(work.count("submit"), 2, "{code}");
    }
}

/// Proves: OB-7, TN-17
#[tokio::test]
async fn a_deferred_message_its_transport_has_cancelled_leaves_unsent() {
    for answer in [Script::Refuse(MapiCode::CANCEL, None), Script::RefuseAtEnd(MapiCode::CANCEL)] {
        let work = transport(&["SMTP"]);
        work.will([Script::Defer, answer]);
        let house = house(vec![service("work", &work)]).await;
        let entry = house.store.submit(1, smtp("ann@work"));
        house.store.wait_until("it is deferred", is_deferred).await;
        ended(&work, &entry);
        house.store.wait_until("it is gone", |store| store.outgoing.is_empty()).await;
        house.store.with(|store| {
            assert_eq!(store.aborted, [entry]);
            assert!(store.finished.is_empty() && store.reports.is_empty());
        });
    }
}

/// Some recipients of a deferred message end before the others.
///
/// Proves: OB-11, OB-4
#[tokio::test]
async fn a_message_that_ended_in_part_stays_deferred_until_it_ends_again() {
    let work = transport(&["SMTP"]);
    work.will([Script::Defer, Script::Defer, Script::Defer]);
    let house = house(vec![service("work", &work)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    for times in 1..=3 {
        work.wait_for("end", times).await;
        house.store.wait_until("it is deferred", is_deferred).await;
        ended(&work, &entry);
    }
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    let again = ["submit_deferred bob@there", "end"];
    let expected = [["submit bob@there", "end"], again, again, again].concat();
    assert_eq!(about_messages(&work), expected);
}

/// The signal may be repeated, come for what is unknown, or before anything is open.
///
/// Proves: OB-11
#[tokio::test]
async fn sentdeferred_for_what_is_not_there_is_passed_over() {
    let work = transport(&["SMTP"]);
    work.will([Script::Defer]);
    let house = house(vec![service("work", &work)]).await;
    ended(&work, &EntryId::from_bytes(&[99; 16]).unwrap());
    let entry = house.store.submit(1, smtp("ann@work"));
    house.store.wait_until("it is deferred", is_deferred).await;
    for _ in 0..5 {
        ended(&work, &entry);
    }
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    ended(&work, &entry);
    house.store.submit(2, smtp("ann@work"));
    house.store.wait_until("the next is sent", |store| store.finished.len() == 2).await;
    assert_eq!(work.count("submit_deferred"), 1);
    house.store.with(|store| assert_eq!(store.finished.len(), 2));
}

/// A closed gate keeps no end from being told: it starts no transaction (TN-9).
///
/// Proves: OB-11, TN-9
#[tokio::test]
async fn the_end_of_a_deferred_message_is_told_through_a_closed_gate() {
    let work = transport(&["SMTP"]);
    work.will([Script::Defer]);
    let house = house(vec![service("work", &work)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    house.store.wait_until("it is deferred", is_deferred).await;
    let end = TransportNotify::END_OUTBOUND;
    house.spooler.transport_notify(None, end, NotifyData::None).await.unwrap();
    ended(&work, &entry);
    house.store.wait_until("it is finished", |store| store.finished == [entry.clone()]).await;
}

/// Proves: TN-17, OB-15
#[tokio::test]
async fn what_the_user_cancelled_is_not_there_at_the_next_logon() {
    let work = transport(&["SMTP"]);
    work.will([Script::Defer]);
    let house = house(vec![service("work", &work)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    house.store.wait_until("it is deferred", is_deferred).await;
    let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
    let data = NotifyData::EntryId(&entry);
    house.spooler.transport_notify(Some("work"), flags, data).await.unwrap();
    house.store.with(|store| assert_eq!(store.aborted, std::slice::from_ref(&entry)));
    // A signal that was under way changes nothing.
    ended(&work, &entry);
    house.spooler.logoff(GRACE).await.unwrap();
    assert_eq!(work.count("submit_deferred"), 0);
    let next = transport(&["SMTP"]);
    let house = house_over(Arc::clone(&house.store), vec![service("work", &next)]).await;
    house.store.submit(2, smtp("ann@work"));
    house.store.wait_until("another is sent", |store| store.finished.len() == 1).await;
    assert_eq!(next.count("submit"), 1);
}

/// Proves: TN-18, SP-5, SP-1
#[tokio::test]
async fn what_was_given_back_at_logoff_goes_the_whole_way_at_the_next_logon() {
    let work = transport(&["SMTP"]);
    work.will([Script::Defer, Script::Defer]);
    let house = house(vec![service("work", &work)]).await;
    let entries = [1, 2].map(|number| house.store.submit(number, smtp("ann@work")));
    let both = |store: &memory_store::Contents| {
        let deferred = |(state, _): &&(OutgoingState, MessageData)| {
            matches!(state, OutgoingState::Deferred { .. })
        };
        store.outgoing.values().filter(deferred).count() == 2 && store.locked.is_empty()
    };
    house.store.wait_until("both are deferred", both).await;
    house.spooler.logoff(GRACE).await.unwrap();
    for entry in &entries {
        assert!(matches!(house.state(entry), Some(OutgoingState::Waiting { .. })));
    }
    let next = transport(&["SMTP"]);
    next.will([Script::Defer, Script::Send]);
    let house = house_over(Arc::clone(&house.store), vec![service("work", &next)]).await;
    house.store.wait_until("one is finished", |store| store.finished.len() == 1).await;
    house.store.wait_until("one is deferred", is_deferred).await;
    assert_eq!(about_messages(&next).iter().filter(|call| *call != "end").count(), 2);
    entries.iter().for_each(|entry| ended(&next, entry));
    house.store.wait_until("both are finished", |store| store.finished.len() == 2).await;
    assert_eq!(next.count("submit_deferred"), 1);
}
