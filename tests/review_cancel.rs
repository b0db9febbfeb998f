//! Cancel, hold and late arrivals, in the states that are easily forgotten.

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
use postrider::session::{Logon, QueueRowState, RawEnvelope, Service, TraceStepKind};
use postrider::spool::{FinalDot, HistoryEnd, Lease, QueueState, Spool, Step, StepKind};
use rows::{GRACE, House, PATIENCE, history_of, letter, queued, waits};
use tokio::io::AsyncWriteExt;

/// How far what is waited with has come when the other thing happens: at its first step, somewhere
/// amid them, at its end.
const TURNS: [usize; 6] = [0, 1, 2, 5, 20, 200];

/// Lets the others of this thread go on.
async fn a_little_later(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cancelled_message_that_a_transport_still_had_is_never_sent() {
    let doubtful = QueueState::InDoubt { since: SysTime::EPOCH, resend: true };
    for (transport, state) in
        [("work", doubtful), ("work", QueueState::Parked), ("work", QueueState::Due)]
    {
        let house = House::new().await;
        let entry = house.submitted("unwanted").await;
        let spool = house.spool().await;
        let record = queued(&spool, &entry, transport, state.clone()).await;
        house.put_queue(&spool, &entry, record).await;
        spool.close().await;

        // As an orderly end leaves it: waiting in the Outbox, and with its transport.
        let session = house.open(Logon::Offline).await;
        let answer = session.cancel(&entry).await.map_err(|error| error.code());
        // It is not sent again; that the server may have it already is said.
        let in_doubt = matches!(state, QueueState::InDoubt { .. });
        let expected = if in_doubt { Err(MapiCode::UNABLE_TO_ABORT) } else { Ok(()) };
        assert_eq!(answer, expected, "{state:?}");
        assert_eq!(session.queue_row(&entry).await.unwrap().state, QueueRowState::Cancelled);
        let counts = session.status().await.unwrap().queue;
        assert_eq!(counts.queued + counts.deferred + counts.in_doubt, 0, "{state:?}");
        session.shutdown(GRACE).await.unwrap();

        let session = house.open(Logon::Full).await;
        let other = session.submit(letter("wanted")).await.unwrap();
        session.wait(&other, Some(PATIENCE)).await.unwrap();
        session.shutdown(GRACE).await.unwrap();
        assert_eq!(house.office.accepted().len(), 1, "{state:?}");
    }
}

#[tokio::test]
async fn a_message_of_a_transport_that_cannot_be_had_can_be_cancelled() {
    let house = House::new().await;
    let entry = house.submitted("unwanted").await;
    let spool = house.spool().await;
    house.put_outbox(&spool, &entry, |row| row.state = house.deferred("work")).await;
    let record = queued(&spool, &entry, "work", QueueState::Due).await;
    house.put_queue(&spool, &entry, record).await;
    spool.close().await;

    let session = house.open(Logon::None).await;
    session.cancel(&entry).await.unwrap();
    assert_eq!(session.queue_row(&entry).await.unwrap().state, QueueRowState::Cancelled);
    assert!(session.queue(None, 10).await.unwrap().is_empty());
    session.shutdown(GRACE).await.unwrap();
}

/// The process died behind the final dot, and the account is not there to find that out.
#[tokio::test]
async fn a_cancel_without_the_transport_leaves_the_doubt_in_the_trace() {
    let house = House::new().await;
    let entry = house.submitted("perhaps there").await;
    let spool = house.spool().await;
    house.put_outbox(&spool, &entry, |row| row.state = house.deferred("work")).await;
    let left = QueueState::Claimed(Lease {
        owner: 7,
        expires: SysTime::EPOCH,
        dot: FinalDot::MayBeOut { since: SysTime::EPOCH },
    });
    let record = queued(&spool, &entry, "work", left).await;
    house.put_queue(&spool, &entry, record).await;
    spool.close().await;

    let session = house.open(Logon::None).await;
    let answer = session.cancel(&entry).await.unwrap_err();
    assert_eq!(answer.code(), MapiCode::UNABLE_TO_ABORT, "{answer}");
    let trace = session.trace(&entry.to_string()).await.unwrap();
    let doubts = trace.steps.iter().filter(|step| step.step == TraceStepKind::InDoubt);
    assert_eq!(doubts.count(), 1, "{:?}", trace.steps);
    session.shutdown(GRACE).await.unwrap();
}

/// The process died between a cancel of a message in doubt and its answer, with the message still
/// in the Outbox: a cancel in the next life must not be granted.
#[tokio::test]
async fn a_cancel_repeated_after_a_crash_says_what_the_first_would_have_said() {
    for logon in [Logon::None, Logon::Offline, Logon::Closed, Logon::Full] {
        let house = House::new().await;
        let entry = house.submitted("perhaps there").await;
        let spool = house.spool().await;
        let record = queued(&spool, &entry, "work", QueueState::Due).await;
        let mut history = history_of(&record, HistoryEnd::Cancelled);
        history.trace.push(Step { at: SysTime::EPOCH, what: StepKind::LeftInDoubt { number: 1 } });
        house.put_history(&spool, &entry, history).await;
        spool.close().await;

        let session = house.open(logon).await;
        let answer = session.cancel(&entry).await.unwrap_err().code();
        // It may have been handed over and removed meanwhile, which answers nothing.
        let gone = logon != Logon::None && answer == MapiCode::NOT_IN_QUEUE;
        assert!(answer == MapiCode::UNABLE_TO_ABORT || gone, "{logon:?}: {answer}");
        let row = session.queue_row(&entry).await.unwrap();
        assert_eq!(row.state, QueueRowState::Cancelled, "{logon:?}");
        let again = session.cancel(&entry).await.unwrap_err().code();
        assert_eq!(again, MapiCode::NOT_IN_QUEUE, "{logon:?}: it has left the queue");
        session.shutdown(GRACE).await.unwrap();
        assert_eq!(house.office.accepted().len(), 0, "{logon:?}");
    }
}

#[tokio::test]
async fn cancelling_what_was_sent_says_so() {
    let house = House::new().await;
    let entry = house.submitted("sent").await;
    let spool = house.spool().await;
    house.put_outbox(&spool, &entry, |row| row.state = house.deferred("work")).await;
    let record = queued(&spool, &entry, "work", QueueState::Done).await;
    house.put_history(&spool, &entry, history_of(&record, HistoryEnd::Finished)).await;
    spool.close().await;

    for logon in [Logon::None, Logon::Offline] {
        let session = house.open(logon).await;
        let answer = session.cancel(&entry).await.unwrap_err();
        assert_eq!(answer.code(), MapiCode::UNABLE_TO_ABORT, "{logon:?}: {answer}");
        session.shutdown(GRACE).await.unwrap();
    }
    let session = house.open(Logon::Full).await;
    session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(house.sent_copies(), 1);
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test]
async fn what_no_transport_had_is_shown_as_cancelled_and_not_as_sent() {
    let house = House::new().await;
    let session = house.open(Logon::Offline).await;
    for turns in TURNS {
        let entry = session.submit(letter("never mind")).await.unwrap();
        let waiting = session.wait(&entry, Some(PATIENCE));
        let (waited, cancelled) = tokio::join!(waiting, async {
            a_little_later(turns).await;
            session.cancel(&entry).await
        });
        cancelled.unwrap();
        assert_eq!(waited.unwrap().state, QueueRowState::Cancelled, "{turns}");
        assert_eq!(session.queue_row(&entry).await.unwrap().state, QueueRowState::Cancelled);
    }
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_message_whose_bytes_come_slowly_is_not_passed_over() {
    let house = House::new().await;
    let session = house.open(Logon::Full).await;
    let (mut writer, reader) = tokio::io::duplex(64);
    let envelope =
        RawEnvelope { recipients: vec!["bob@example.org".to_owned()], ..RawEnvelope::default() };
    let slow = session.submit_raw(envelope, Box::pin(reader));
    let (slow, _) = tokio::join!(slow, async {
        writer.write_all(b"Subject: slow\r\n\r\n").await.unwrap();
        let quick = session.submit(letter("quick")).await.unwrap();
        session.wait(&quick, Some(PATIENCE)).await.unwrap();
        writer.write_all(b"slow\r\n").await.unwrap();
        drop(writer);
    });
    let row = session.wait(&slow.unwrap(), Some(Duration::from_secs(10))).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished);
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_wait_ends_with_the_session() {
    let house = House::new().await;
    for turns in TURNS {
        let session = house.open(Logon::Closed).await;
        let entry = session.submit(letter("stays")).await.unwrap();
        let (waited, _) =
            tokio::join!(tokio::time::timeout(PATIENCE, session.wait(&entry, None)), async {
                a_little_later(turns).await;
                session.shutdown(GRACE).await.unwrap();
            });
        let answer = waited.expect("the wait goes on after the session").unwrap_err();
        assert_eq!(answer.code(), MapiCode::END_OF_SESSION, "{turns}");
    }
}

#[tokio::test]
async fn a_message_on_hold_can_be_cancelled() {
    let house = House::new().await;
    let session = house.open(Logon::Closed).await;
    let entry = session.submit(letter("held")).await.unwrap();
    // Until the first hand-over has come back, the message is locked.
    assert!(waits(|| async { session.hold(&entry).await.is_ok() }).await);
    session.cancel(&entry).await.unwrap();
    assert_eq!(session.queue_row(&entry).await.unwrap().state, QueueRowState::Cancelled);
    session.shutdown(GRACE).await.unwrap();
    let spool = house.spool().await;
    assert!(spool.outbox(&entry).await.unwrap().is_none());
    spool.close().await;
}
