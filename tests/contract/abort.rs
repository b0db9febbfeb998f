//! Deferred messages that are cancelled or given back, and the logon after that.

use postoffice::{Action, Fault, SmtpPhase};
use postrider::mapi::{EntryId, MapiCode, StatusCode, TransportNotify};
use postrider::session::{FlushRequest, Logon, QueueRowState, Service, Session};

use crate::house::{GRACE, PATIENCE, await_queue_row};
use crate::maildir::messages;
use crate::post::{Post, SHORT, ended, notify_entry, send, send_large, send_put_off, soon};
use crate::watcher::Watcher;

const CANCEL: TransportNotify =
    TransportNotify::ABORT_DEFERRED.union(TransportNotify::CANCEL_MESSAGE);
const PARK: TransportNotify = TransportNotify::ABORT_DEFERRED;
const UPLOAD: FlushRequest = FlushRequest { upload: true, download: false };

async fn state(session: &Session, entry: &EntryId) -> QueueRowState {
    session.queue_row(entry).await.unwrap().state
}

async fn is_empty(session: &Session) -> bool {
    session.queue(None, 1).await.unwrap().is_empty()
}

/// Proves: TN-17, OB-15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_message_that_is_cancelled_is_gone_for_good() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = send_put_off(&session, "cancelled").await;
    notify_entry(&session, CANCEL, &entry).await.unwrap();
    assert_eq!(state(&session, &entry).await, QueueRowState::Cancelled);
    assert!(is_empty(&session).await);
    // Cancelled twice is cancelled; given back it cannot be.
    notify_entry(&session, CANCEL, &entry).await.unwrap();
    let back = notify_entry(&session, PARK, &entry).await.unwrap_err();
    assert_eq!(back.code(), MapiCode::NOT_FOUND);
    let gone = session.cancel(&entry).await.unwrap_err();
    assert_eq!(gone.code(), MapiCode::NOT_IN_QUEUE);

    // Neither a flush nor another session brings it back.
    busy.remove();
    soon("the flush", session.flush(UPLOAD)).await.unwrap();
    let other = send(&session, "not cancelled").await;
    assert_eq!(ended(&session, &other).await, QueueRowState::Finished);
    session.shutdown(GRACE).await.unwrap();
    let session = post.open(Logon::Full).await;
    let next = send(&session, "next").await;
    assert_eq!(ended(&session, &next).await, QueueRowState::Finished);
    assert_eq!(state(&session, &entry).await, QueueRowState::Cancelled);
    assert_eq!(post.accepted(), ["not cancelled", "next"]);
    session.shutdown(GRACE).await.unwrap();
    // It was given up by its sender: no report, no sent copy.
    assert!(messages(&post.maildir(), "INBOX").is_empty());
    assert_eq!(messages(&post.maildir(), "Sent").len(), 2);
}

/// Proves: TN-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_on_the_wire_before_the_final_dot_the_server_gets_nothing() {
    for phase in [SmtpPhase::Greeting, SmtpPhase::Mail, SmtpPhase::Rcpt, SmtpPhase::Body] {
        let post = Post::start().await;
        let hang = post.office.inject(Fault::smtp(phase, Action::Hang).once());
        let session = post.open(Logon::Full).await;
        let watcher = Watcher::of(&session, "work");
        let entry = send_large(&session, "cancelled").await;
        hang.reached(PATIENCE).await.unwrap();
        // The server says nothing, and the call does not wait for it.
        notify_entry(&session, CANCEL, &entry).await.unwrap();
        // It leaves the table with the end of the call that was about to return.
        assert_eq!(ended(&session, &entry).await, QueueRowState::Cancelled, "{phase:?}");
        let active = StatusCode::OUTBOUND_ACTIVE;
        watcher.until_last("nothing moves", |code| !code.contains(active)).await;
        hang.remove();
        let other = send(&session, "not cancelled").await;
        assert_eq!(ended(&session, &other).await, QueueRowState::Finished);
        assert_eq!(post.accepted(), ["not cancelled"], "{phase:?}");
        session.shutdown(GRACE).await.unwrap();
    }
}

/// Proves: TN-17, TN-18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_final_dot_it_is_too_late() {
    let post = Post::start().await;
    let hang = post.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let session = post.open(Logon::Full).await;
    let entry = send(&session, "out").await;
    hang.reached(PATIENCE).await.unwrap();
    for flags in [CANCEL, PARK] {
        let late = notify_entry(&session, flags, &entry).await.unwrap_err();
        assert_eq!(late.code(), MapiCode::UNABLE_TO_ABORT, "{flags:?}");
    }
    let late = session.cancel(&entry).await.unwrap_err();
    assert_eq!(late.code(), MapiCode::UNABLE_TO_ABORT);
    hang.release();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    assert_eq!(post.accepted(), ["out"]);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_id_nobody_knows_is_not_found() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let unknown = EntryId::from_bytes(&[7; 16]).unwrap();
    for flags in [CANCEL, PARK] {
        let error = notify_entry(&session, flags, &unknown).await.unwrap_err();
        assert_eq!(error.code(), MapiCode::NOT_FOUND, "{flags:?}");
    }
    let known = send(&session, "known").await;
    assert_eq!(ended(&session, &known).await, QueueRowState::Finished);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_given_back_is_sent_once_at_the_next_logon() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = send_put_off(&session, "given back").await;
    notify_entry(&session, PARK, &entry).await.unwrap();
    assert_eq!(state(&session, &entry).await, QueueRowState::Parked);
    busy.remove();

    // In this session it rests, whatever is sent or flushed.
    soon("the flush", session.flush(UPLOAD)).await.unwrap();
    let other = send(&session, "other").await;
    assert_eq!(ended(&session, &other).await, QueueRowState::Finished);
    assert_eq!(state(&session, &entry).await, QueueRowState::Parked);
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(post.accepted(), ["other"]);

    // Its retry time is kept, and a flush does not wait for that.
    let session = post.open(Logon::Full).await;
    soon("the flush", session.flush(UPLOAD)).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let next = send(&session, "next").await;
    assert_eq!(ended(&session, &next).await, QueueRowState::Finished);
    assert_eq!(post.accepted(), ["other", "given back", "next"]);
    assert!(is_empty(&session).await);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_back_on_the_wire_it_is_dropped_there_and_sent_once_later() {
    for phase in [SmtpPhase::Mail, SmtpPhase::Body] {
        let post = Post::start().await;
        let hang = post.office.inject(Fault::smtp(phase, Action::Hang).once());
        let session = post.open(Logon::Full).await;
        let entry = send_large(&session, "given back").await;
        hang.reached(PATIENCE).await.unwrap();
        notify_entry(&session, PARK, &entry).await.unwrap();
        assert_eq!(state(&session, &entry).await, QueueRowState::Parked, "{phase:?}");
        hang.remove();
        session.shutdown(GRACE).await.unwrap();
        assert_eq!(post.office.accepted_count(), 0, "{phase:?}");
        let session = post.open(Logon::Full).await;
        assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
        assert_eq!(post.accepted(), ["given back"], "{phase:?}");
        session.shutdown(GRACE).await.unwrap();
    }
}

/// Proves: TN-18, SP-5, LG-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logging_off_gives_everything_back_and_loses_nothing() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let mut entries = Vec::new();
    for number in 0..5 {
        entries.push(send_put_off(&session, &format!("put off {number}.")).await);
    }
    busy.remove();
    let hang = post.office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).once());
    entries.push(send_large(&session, "on the wire").await);
    hang.reached(PATIENCE).await.unwrap();
    // The server never says anything more, and the logoff does not wait for it for ever.
    soon("the logoff", session.shutdown(SHORT)).await.unwrap();
    assert_eq!(post.office.accepted_count(), 0);
    let session = post.open(Logon::Offline).await;
    for entry in &entries {
        assert_ne!(state(&session, entry).await, QueueRowState::Sending);
    }
    session.shutdown(GRACE).await.unwrap();

    hang.remove();
    let session = post.open(Logon::Full).await;
    soon("the flush", session.flush(UPLOAD)).await.unwrap();
    for entry in &entries {
        assert_eq!(ended(&session, entry).await, QueueRowState::Finished);
    }
    let mut accepted = post.accepted();
    accepted.sort_unstable();
    let expected =
        ["on the wire", "put off 0.", "put off 1.", "put off 2.", "put off 3.", "put off 4."];
    assert_eq!(accepted, expected);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-17, OB-15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_what_is_in_doubt_ends_it_and_says_that_it_may_have_been_sent() {
    let post = Post::start().await;
    let lost = Fault::smtp(SmtpPhase::FinalDot, Action::Drop).after_effect().once();
    let lost = post.office.inject(lost);
    let session = post.open(Logon::Full).await;
    let entry = send(&session, "perhaps").await;
    lost.reached(PATIENCE).await.unwrap();
    await_queue_row(&session, &entry, "in doubt", |row| row.state == QueueRowState::InDoubt).await;
    let answer = session.cancel(&entry).await.unwrap_err();
    assert_eq!(answer.code(), MapiCode::UNABLE_TO_ABORT);
    assert!(answer.detail().contains("may have been delivered"), "{answer}");
    assert_eq!(ended(&session, &entry).await, QueueRowState::Cancelled);
    assert!(is_empty(&session).await);
    soon("the flush", session.flush(UPLOAD)).await.unwrap();
    assert_eq!(post.accepted(), ["perhaps"], "it is not sent again");
    session.shutdown(GRACE).await.unwrap();
    assert!(messages(&post.maildir(), "Sent").is_empty());
}

/// Proves: TN-18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_back_can_be_put_on_hold() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = send_put_off(&session, "parked, then held").await;
    notify_entry(&session, PARK, &entry).await.unwrap();
    assert_eq!(state(&session, &entry).await, QueueRowState::Parked);
    session.hold(&entry).await.unwrap();
    assert_eq!(state(&session, &entry).await, QueueRowState::Held);
    session.shutdown(GRACE).await.unwrap();
    busy.remove();
    let session = post.open(Logon::Full).await;
    soon("the flush", session.flush(UPLOAD)).await.unwrap();
    assert_eq!(state(&session, &entry).await, QueueRowState::Held);
    session.release(&entry).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    assert_eq!(post.accepted(), ["parked, then held"]);
    session.shutdown(GRACE).await.unwrap();
}
