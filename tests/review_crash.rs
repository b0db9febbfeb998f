//! What a session makes of rows that an earlier one left behind: after a crash between two
//! commits, after a change of the profile, after a record was lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    clippy::indexing_slicing,
    clippy::string_slice,
    dead_code,
    unreachable_pub
)]

#[path = "support/rows.rs"]
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::mapi::{MapiCode, SysTime};
use postrider::session::{Logon, QueueRowState, Service};
use postrider::spool::{
    FaultPoint, HistoryEnd, OutboxState, QueueState, RecipientState, Spool, SpoolOptions,
};
use rows::{GRACE, House, PATIENCE, history_of, letter, queued, waits};

#[tokio::test]
async fn a_message_that_was_settled_and_not_removed_leaves_the_table() {
    let house = House::new().await;
    let entry = house.submitted("settled").await;
    let spool = house.spool().await;
    house.put_outbox(&spool, &entry, |row| row.state = house.deferred("work")).await;
    let record = queued(&spool, &entry, "work", QueueState::Done).await;
    house.put_history(&spool, &entry, history_of(&record, HistoryEnd::Finished)).await;
    spool.close().await;

    let session = house.open(Logon::Full).await;
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished);
    assert_eq!(house.sent_copies(), 1);
    assert_eq!(house.office.accepted().len(), 0, "it was sent before");
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_message_that_was_cancelled_and_not_removed_leaves_the_table_unsent() {
    let house = House::new().await;
    let entry = house.submitted("cancelled").await;
    let spool = house.spool().await;
    house.put_outbox(&spool, &entry, |row| row.state = house.deferred("work")).await;
    let record = queued(&spool, &entry, "work", QueueState::Due).await;
    house.put_history(&spool, &entry, history_of(&record, HistoryEnd::Cancelled)).await;
    spool.close().await;

    let session = house.open(Logon::Full).await;
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Cancelled);
    assert_eq!(house.sent_copies(), 0);
    assert_eq!(house.office.accepted().len(), 0);
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test]
async fn mail_of_a_transport_that_left_the_profile_is_sent_by_another() {
    for (outbox, state) in [("waiting", QueueState::Parked), ("deferred", QueueState::Due)] {
        let house = House::new().await;
        let entry = house.submitted("renamed").await;
        let spool = house.spool().await;
        if outbox == "deferred" {
            house.put_outbox(&spool, &entry, |row| row.state = house.deferred("old")).await;
        }
        let record = queued(&spool, &entry, "old", state).await;
        house.put_queue(&spool, &entry, record).await;
        spool.close().await;

        let session = house.open(Logon::Full).await;
        let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
        assert_eq!((row.state, row.transport.as_str()), (QueueRowState::Finished, "work"));
        assert_eq!(house.office.accepted().len(), 1, "{outbox}");
        session.shutdown(GRACE).await.unwrap();
    }
}

/// Proves: SP-1
#[tokio::test]
async fn a_queued_message_whose_outbox_row_was_lost_is_shown_and_ends_in_order() {
    let house = House::new().await;
    let entry = house.submitted("orphan").await;
    let spool = house.spool().await;
    let record = queued(&spool, &entry, "work", QueueState::Held).await;
    house.put_queue(&spool, &entry, record).await;
    house.delete_outbox(&spool, &entry).await;
    spool.close().await;

    let session = house.open(Logon::Full).await;
    let shown = session.queue(None, 10).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].id.clone(), shown[0].state), (entry.to_string(), QueueRowState::Held));
    session.release(&entry).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished);
    assert_eq!((house.office.accepted().len(), house.sent_copies()), (1, 1));
    assert!(session.queue(None, 10).await.unwrap().is_empty());
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: SP-1
#[tokio::test]
async fn a_deferred_message_whose_queue_row_was_lost_is_handed_over_again() {
    let house = House::new().await;
    let entry = house.submitted("rowless").await;
    let spool = house.spool().await;
    house.put_outbox(&spool, &entry, |row| row.state = house.deferred("work")).await;
    spool.close().await;

    let session = house.open(Logon::Full).await;
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished);
    assert_eq!(house.office.accepted().len(), 1);
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_unless_its_message_is_still_there() {
    let house = House::new().await;
    let (kept, gone) = (house.submitted("kept").await, house.submitted("gone").await);
    let spool = house.spool().await;
    for entry in [&kept, &gone] {
        let record = queued(&spool, entry, "work", QueueState::Done).await;
        let mut history = history_of(&record, HistoryEnd::Finished);
        history.ended = SysTime::from_millis(1_000);
        house.put_history(&spool, entry, history).await;
    }
    house.delete_outbox(&spool, &gone).await;
    house
        .put_outbox(&spool, &kept, |row| {
            row.state = OutboxState::Waiting { not_before: SysTime::MAX };
        })
        .await;
    spool.close().await;

    let session = house.open(Logon::Offline).await;
    let forgotten = || async {
        let answer = session.queue_row(&gone).await;
        answer.err().map(|error| error.code()) == Some(MapiCode::NOT_FOUND)
    };
    assert!(waits(forgotten).await, "the history of 1970 is still there");
    session.shutdown(GRACE).await.unwrap();
    let spool = house.spool().await;
    assert!(spool.history(&kept).await.unwrap().is_some(), "it would be sent again without it");
    spool.close().await;
}

/// Proves: LG-9
#[tokio::test]
async fn a_session_that_is_dropped_lets_go_of_everything() {
    let house = House::new().await;
    let entry = house.submitted("left behind").await;
    house.office.stop().await;
    let session = house.open(Logon::Full).await;
    let taken = || async { session.queue_row(&entry).await.unwrap().transport == "work" };
    assert!(waits(taken).await);
    drop(session);
    let spool = tokio::time::timeout(Duration::from_secs(8), house.spool()).await;
    let spool = spool.expect("the dropped session still holds the spool");
    let row = spool.queue(&entry).await.unwrap().unwrap();
    assert!(row.envelope.recipients.iter().all(|one| one.state == RecipientState::Pending));
    spool.close().await;
}

/// Options of a spool whose commits fail once so many were made; the disk is well again at once.
fn failing(point: FaultPoint, after: u64) -> (SpoolOptions, Arc<AtomicU64>) {
    let left = Arc::new(AtomicU64::new(after));
    let counter = Arc::clone(&left);
    let fault = move |at| {
        let take = |left: u64| left.checked_sub(1);
        match at == point
            && counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) == Err(0)
        {
            true => {
                counter.store(u64::MAX, Ordering::SeqCst);
                Err(std::io::Error::from_raw_os_error(5))
            }
            false => Ok(()),
        }
    };
    (SpoolOptions { fault: Some(Arc::new(fault)), ..SpoolOptions::default() }, left)
}

/// How often the server accepted each subject.
fn accepted(house: &House) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in house.office.accepted() {
        let text = String::from_utf8_lossy(message.bytes().unwrap()).into_owned();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
        *counts.entry(subject.to_owned()).or_default() += 1;
    }
    counts
}

/// The whole way of two messages, with the spool failing at each of its commits in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_stops_at_any_commit_loses_nothing() {
    let (mut stops, mut windows) = (0, 0);
    for after in 0.. {
        let point = if after % 2 == 0 { FaultPoint::Sync } else { FaultPoint::Apply };
        let house = House::new().await;
        let (options, left) = failing(point, after);
        let session = match house.try_open(Logon::Full, options).await {
            Ok(session) => session,
            Err(error) => {
                assert_eq!(error.code(), MapiCode::DISK_ERROR, "{error}");
                stops += 1;
                continue;
            }
        };
        let mut promised = Vec::new();
        for subject in ["one", "two"] {
            match session.submit(letter(subject)).await {
                Ok(entry) => promised.push((entry, subject)),
                Err(error) => assert_eq!(error.code(), MapiCode::DISK_ERROR, "{error}"),
            }
        }
        let settled = waits(async || {
            let status = session.status().await.unwrap();
            status.last_error.is_some() || session.queue(None, 9).await.unwrap().is_empty()
        });
        assert!(settled.await, "neither sent nor stopped at {after}");
        let stopped = session.status().await.unwrap().last_error.is_some();
        if stopped {
            stops += 1;
            let words = session.status().await.unwrap().last_error.unwrap();
            assert!(words.contains("MAPI_E_DISK_ERROR"), "{words}");
            // The disk is well again, and is not believed.
            for _ in 0..2 {
                let error = session.submit(letter("late")).await.unwrap_err();
                assert_eq!(error.code(), MapiCode::DISK_ERROR, "{error}");
            }
        }
        let before = accepted(&house);
        let _ = tokio::time::timeout(GRACE, session.shutdown(Duration::ZERO)).await;
        drop(session);
        if left.load(Ordering::SeqCst) < u64::MAX / 2 && !stopped {
            // The scenario was through before the failure came.
            break;
        }

        let session = house.open(Logon::Full).await;
        for (entry, _) in &promised {
            let row = session.wait(entry, Some(PATIENCE)).await.unwrap();
            assert_eq!(row.state, QueueRowState::Finished, "stopped at {after}");
        }
        assert!(session.queue(None, 9).await.unwrap().len() <= 2 - promised.len());
        session.shutdown(GRACE).await.unwrap();
        let counts = accepted(&house);
        for (_, subject) in &promised {
            let count = counts.get(*subject).copied().unwrap_or(0);
            // Twice only where the failed commit was the one that would have told of the first.
            let window = before.get(*subject).copied().unwrap_or(0);
            assert!(
                count == 1 || (count == 2 && window == 1),
                "{subject} {count} times at {after}"
            );
            windows += count - 1;
        }
        assert!(!counts.contains_key("late"), "refused, and sent all the same");
    }
    println!("{stops} stops, {windows} sent again in the one window");
    assert!(stops >= 6, "{stops} stops");
}
