//! Transports that panic and transports that hang: the message is not lost, the others go on, and
//! the session ends in time.

use super::*;

/// Waits, in the time that passes when nobody has anything to do.
async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

fn submits(transport: &ScriptedTransport) -> usize {
    transport.count("submit ")
}

/// Proves: SP-1, SP-3, ST-3
#[tokio::test]
async fn a_transport_that_panics_gives_its_message_back_and_shows_it() {
    for (script, call) in [(Script::Panic, "SubmitMessage"), (Script::PanicAtEnd, "EndMessage")] {
        let work = transport(&["SMTP"]);
        work.will([script]);
        let house = house(vec![service("work", &work)]).await;
        let entry = house.store.submit(1, smtp("ann@work"));
        work.wait_for("submit", 1).await;
        house.store.wait_until("it is free again", |store| store.locked.is_empty()).await;
        assert!(matches!(house.state(&entry), Some(OutgoingState::Waiting { .. })));
        let row = house.row("work");
        assert!(row.status_code.contains(StatusCode::FAILURE), "{row:?}");
        assert!(!row.status_code.contains(StatusCode::AVAILABLE), "{row:?}");
        let words = format!("panicked in {call}: as told");
        assert!(row.status_string.contains(&words), "{row:?}");
        house.until("it is sent after all", |store| !store.finished.is_empty()).await;
        assert_eq!(submits(&work), 2);
        let row = house.row("work");
        assert!(row.status_code.contains(StatusCode::AVAILABLE), "it works again: {row:?}");
        house.spooler.logoff(GRACE).await.unwrap();
    }
}

/// Proves: SP-1
#[tokio::test]
async fn a_panic_at_the_end_of_a_deferred_message_is_no_end() {
    let work = transport(&["SMTP"]);
    work.will([Script::Defer, Script::Panic]);
    let house = house(vec![service("work", &work)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    house.store.wait_until("it is deferred", is_deferred).await;
    work.support().spooler_notify(SpoolerNotify::SENTDEFERRED, Some(&entry));
    house.until("its end is heard in the end", |store| !store.finished.is_empty()).await;
    assert_eq!(work.count("submit_deferred"), 2);
}

/// Proves: SP-1, IB-7
#[tokio::test]
async fn a_panic_in_start_message_does_not_end_receiving() {
    let work = transport(&["SMTP"]);
    let house = house(vec![service("work", &work)]).await;
    work.wait_for("start", 8).await;
    work.panics.lock().unwrap().push("start");
    work.arrive([b"mail".to_vec()]);
    house.store.wait_until("it is received all the same", |store| store.received.len() == 1).await;
    work.arrive([b"more".to_vec()]);
    house.store.wait_until("and more", |store| store.received.len() == 2).await;
}

/// More messages than there are calls at a time hang in one transport.
///
/// Proves: SP-1, SP-3, OB-14
#[tokio::test(start_paused = true)]
async fn a_transport_at_a_standstill_holds_up_nobody() {
    let (stuck, fine) = (transport(&["SMTP"]), transport(&["SMTP"]));
    stuck.will(vec![Script::Hang; 200]);
    let house = house(vec![service("stuck", &stuck), service("fine", &fine)]).await;
    for number in 1..=150 {
        house.store.submit(number, smtp("ann@stuck"));
    }
    let entry = house.store.submit(200, smtp("ann@fine"));
    seconds(45).await;
    house.store.with(|store| assert_eq!(store.finished, std::slice::from_ref(&entry)));
    let hanging = submits(&stuck);
    assert!((1..150).contains(&hanging), "{hanging} are enough to see that it hangs");
    let row = house.row("stuck");
    assert!(row.status_code.contains(StatusCode::FAILURE), "{row:?}");
    assert!(row.status_string.contains("no sign of life"), "{row:?}");
    assert!(house.row("fine").status_code.contains(StatusCode::AVAILABLE));
    // Nor does a flush of the other wait for them.
    let flush = house.spooler.flush(Some("fine"), FlushFlags::UPLOAD);
    tokio::time::timeout(Duration::from_secs(5), flush).await.unwrap().unwrap();
    house.store.submit(201, smtp("ann@stuck"));
    house.store.submit(202, smtp("ann@fine"));
    seconds(5).await;
    house.store.with(|store| assert_eq!(store.finished.len(), 2));
    assert_eq!(submits(&stuck), hanging, "it gets nothing more as long");
    // In the end the calls are cancelled by their references and let go.
    seconds(650).await;
    assert_eq!(stuck.count("cancel "), hanging);
    house.store.with(|store| assert!(store.reports.is_empty() && store.aborted.is_empty()));
    let started = tokio::time::Instant::now();
    house.spooler.logoff(GRACE).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    house.store.with(|store| assert_eq!(store.outgoing.len(), 151, "nothing is lost"));
}

/// Proves: FL-4, FL-5
#[tokio::test(start_paused = true)]
async fn a_flush_of_all_passes_a_transport_that_stands_still() {
    // At the end of a deferred message, and in StartMessage.
    let mut silent = ScriptedTransport::new(&["SMTP"]);
    silent.hangs = vec!["start"];
    let (stuck, silent) = (transport(&["SMTP"]), Arc::new(silent));
    let fine = transport(&["SMTP"]);
    stuck.will([Script::Defer, Script::Hang]);
    let house =
        house(vec![service("stuck", &stuck), service("silent", &silent), service("fine", &fine)])
            .await;
    let entry = house.store.submit(1, smtp("ann@stuck"));
    house.store.wait_until("it is deferred", is_deferred).await;
    stuck.support().spooler_notify(SpoolerNotify::SENTDEFERRED, Some(&entry));
    stuck.wait_for("submit_deferred", 1).await;
    let both = FlushFlags::UPLOAD | FlushFlags::DOWNLOAD;
    let flush = house.spooler.flush(None, both);
    tokio::time::timeout(Duration::from_secs(1_500), flush).await.unwrap().unwrap();
    assert_eq!(fine.count("flush_queues"), 2);
    let flushes = StatusCode::OUTBOUND_FLUSH | StatusCode::INBOUND_FLUSH;
    for name in ["stuck", "silent", "fine"] {
        assert!(!house.row(name).status_code.intersects(flushes), "{name}");
    }
    house.spooler.logoff(GRACE).await.unwrap();
}

/// Proves: SP-1, TN-14
#[tokio::test(start_paused = true)]
async fn a_call_that_was_given_up_is_made_again() {
    for script in [Script::Hang, Script::HangAtEnd, Script::HangUntilCancelled] {
        let work = transport(&["SMTP"]);
        work.will([script.clone()]);
        let house = house(vec![service("work", &work)]).await;
        let entry = house.store.submit(1, smtp("ann@work"));
        seconds(590).await;
        assert_eq!((submits(&work), work.count("cancel ")), (1, 0), "{script:?}");
        seconds(60).await;
        assert_eq!(work.count("cancel "), 1, "{script:?}");
        assert!(house.state(&entry).is_some(), "{script:?}: nobody wanted it cancelled");
        house.until("it is sent", |store| !store.finished.is_empty()).await;
        assert_eq!(submits(&work), 2, "{script:?}");
        assert!(house.row("work").status_code.contains(StatusCode::AVAILABLE));
    }
}

/// Proves: OB-18
#[tokio::test(start_paused = true)]
async fn a_long_call_that_yields_is_left_alone() {
    let work = transport(&["SMTP"]);
    work.will([Script::Yield]);
    let house = house(vec![service("work", &work)]).await;
    house.store.submit(1, smtp("ann@work"));
    seconds(1_300).await;
    assert!(work.count("yield") > 100);
    assert_eq!(work.count("cancel "), 0);
    house.store.submit(2, smtp("ann@work"));
    seconds(1).await;
    house.store.with(|store| assert_eq!(store.finished.len(), 1, "others pass it"));
}

/// Whichever call hangs or panics: the session starts, another transport works, and it ends.
///
/// Proves: SP-5, SP-2
#[tokio::test(start_paused = true)]
async fn no_call_of_a_broken_transport_stops_the_others_or_the_logoff() {
    let calls = ["logon", "address_types", "notify", "start", "flush_queues", "logoff", "shutdown"];
    for call in calls {
        for hangs in [true, false] {
            let mut broken = ScriptedTransport::new(&["SMTP"]);
            match hangs {
                true => broken.hangs = vec![call],
                false => broken.panics.lock().unwrap().push(call),
            }
            let (broken, fine) = (Arc::new(broken), transport(&["SMTP"]));
            let house = house(vec![service("broken", &broken), service("fine", &fine)]).await;
            house.store.submit(1, smtp("ann@fine"));
            house.store.submit(2, smtp("ann@broken"));
            fine.arrive([b"mail".to_vec()]);
            let both = FlushFlags::UPLOAD | FlushFlags::DOWNLOAD;
            let _ = house.spooler.flush(Some("broken"), both | FlushFlags::ASYNC_OK).await;
            seconds(5).await;
            house.store.with(|store| {
                assert!(!store.finished.is_empty(), "{call} {hangs}");
                assert_eq!(store.received.len(), 1, "{call} {hangs}");
            });
            let began = ["logon", "address_types", "notify"].contains(&call);
            let failure = house.row("broken").status_code.contains(StatusCode::FAILURE);
            assert_eq!(failure, began, "{call} {hangs}: {:?}", house.row("broken"));
            let started = tokio::time::Instant::now();
            let ended = house.spooler.logoff(GRACE).await;
            let bad = ["logoff", "shutdown"].contains(&call);
            assert_eq!(ended.is_err(), bad, "{call} {hangs}: {ended:?}");
            assert!(started.elapsed() < Duration::from_secs(90), "{call} {hangs}");
            assert_eq!(fine.calls().last().map(String::as_str), Some("shutdown"), "{call}");
            house.store.with(|store| assert_eq!(store.reports.len(), 0, "{call} {hangs}"));
        }
    }
}

/// A call that never returns is let go with the session, and with it all it holds.
///
/// Proves: SP-5, LG-9
#[tokio::test(start_paused = true)]
async fn what_hangs_is_let_go_with_the_session() {
    for logs_off in [true, false] {
        let work = transport(&["SMTP"]);
        work.will([Script::Hang]);
        let house = house(vec![service("work", &work)]).await;
        house.store.submit(1, smtp("ann@work"));
        work.wait_for("submit", 1).await;
        if logs_off {
            house.spooler.logoff(GRACE).await.unwrap();
        }
        let store = Arc::downgrade(&house.store);
        drop(house);
        let gone = async {
            while store.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let gone = tokio::time::timeout(GRACE, gone).await;
        assert!(gone.is_ok(), "the store is still held (logged off: {logs_off})");
    }
}
