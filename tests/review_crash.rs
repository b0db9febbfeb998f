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

use std::time::Duration;

use postrider::mapi::{MapiCode, SysTime};
use postrider::session::{Logon, QueueRowState, Service};
use postrider::spool::{HistoryEnd, OutboxState, QueueState, RecipientState, Spool};
use rows::{GRACE, House, PATIENCE, history_of, queued, waits};

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
