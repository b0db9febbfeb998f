//! TransportNotify and flushes of a running session, over a server that can be made to wait.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    clippy::string_slice,
    unreachable_pub
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/letters.rs"]
mod letters;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/office.rs"]
mod office;

use house::{GRACE, House, PATIENCE, assert_all, await_queue_row, await_row};
use letters::letter;
use maildir::{await_messages, messages};
use office::{account, office, sender};
use postoffice::{
    Action, Fault, ImapAction, ImapPhase, PostOffice, Protocol, SmtpAction, SmtpPhase,
};
use postrider::mapi::{EntryId, MapiCode, StatusCode, TransportNotify};
use postrider::session::{
    FlushRequest, Logon, NotifyRequest, QueueRowState, RecipientRowState, Service, Session,
};
use realservers::wait;

const UPLOAD: FlushRequest = FlushRequest { upload: true, download: false };
const DOWNLOAD: FlushRequest = FlushRequest { upload: false, download: true };

async fn notify(session: &Session, flags: TransportNotify) {
    let request = NotifyRequest { flags: flags.bits(), ..NotifyRequest::default() };
    session.notify(request).await.unwrap();
}

fn code(session: &Session) -> StatusCode {
    let rows = session.status_table().unwrap().rows();
    rows.iter().find(|row| row.display_name == "work").unwrap().status_code
}

async fn submit(session: &Session, subject: &str) -> EntryId {
    session.submit(letter(subject, &["bob@example.org"])).await.unwrap()
}

async fn assert_delivered(session: &Session, entry: &EntryId) {
    let row = session.wait(entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished, "{row:?}");
    assert_all(&row, RecipientRowState::Delivered);
}

/// A post office, and a house whose only connection to it is ann's.
async fn settled_with(lines: &[&str]) -> (PostOffice, House) {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[sender(&office, folder.path(), lines)]);
    house.keep(folder);
    (office, house)
}

/// Proves: TN-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_outbound_lets_the_transaction_finish_and_holds_the_rest() {
    let (office, house) = settled_with(&["connections = 2"]).await;
    let dot = office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let session = house.open(Logon::Full).await;
    let on_the_wire = submit(&session, "on the wire").await;
    dot.reached(PATIENCE).await.unwrap();

    notify(&session, TransportNotify::END_OUTBOUND).await;
    // The row has changed before the call returned (TN-9), and the transaction goes on.
    assert!(!code(&session).contains(StatusCode::OUTBOUND_ENABLED));
    assert!(code(&session).contains(StatusCode::OUTBOUND_ACTIVE));
    let mut held = Vec::new();
    for number in 0..5 {
        held.push(submit(&session, &format!("held {number}")).await);
    }
    dot.release();
    assert_delivered(&session, &on_the_wire).await;
    let active = StatusCode::OUTBOUND_ACTIVE;
    await_row(&session, "work", "quiet", |row| !row.status_code.contains(active)).await;
    assert_eq!(office.accepted_count(), 1);
    for entry in &held {
        let row = session.queue_row(entry).await.unwrap();
        assert_eq!((row.state, row.attempts), (QueueRowState::Queued, 0), "{row:?}");
    }
    // A flush of a closed direction does not open it.
    let flushed = session.flush(UPLOAD).await.unwrap();
    assert_eq!((flushed.sent, flushed.left), (0, 5));

    notify(&session, TransportNotify::BEGIN_OUTBOUND).await;
    assert!(code(&session).contains(StatusCode::OUTBOUND_ENABLED));
    for entry in &held {
        assert_delivered(&session, entry).await;
    }
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(office.accepted_count(), 6);
    assert!(office.violations().is_empty(), "{:?}", office.violations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_outbound_and_begin_again_amid_a_transaction_doubles_nothing() {
    let (office, house) = settled_with(&["connections = 1"]).await;
    let dot = office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let session = house.open(Logon::Full).await;
    let first = submit(&session, "first").await;
    let second = submit(&session, "second").await;
    dot.reached(PATIENCE).await.unwrap();
    for _ in 0..20 {
        notify(&session, TransportNotify::END_OUTBOUND).await;
        notify(&session, TransportNotify::BEGIN_OUTBOUND).await;
    }
    dot.release();
    assert_delivered(&session, &first).await;
    assert_delivered(&session, &second).await;
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(office.accepted_count(), 2);
}

/// Proves: TN-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_the_retry_schedule_goes_on() {
    let (office, house) = settled_with(&[]).await;
    let later = SmtpAction::reply(450, "4.2.1", "later");
    let refusal = office.inject(Fault::smtp(SmtpPhase::Rcpt, later).times(3));
    let session = house.open(Logon::Full).await;
    let entry = submit(&session, "again and again").await;
    refusal.reached(PATIENCE).await.unwrap();
    let flushed = session.flush(UPLOAD).await.unwrap();
    assert!(flushed.left <= 1, "{flushed:?}");
    assert!(!code(&session).contains(StatusCode::OUTBOUND_FLUSH));
    // Nobody flushes again, yet the times of the profile come.
    assert_delivered(&session, &entry).await;
    assert_eq!(refusal.hits(), 3);
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_sends_everything_that_waits_every_time() {
    let (office, house) = settled_with(&[]).await;
    let session = house.open(Logon::Closed).await;
    for round in 1..=30 {
        for number in 0..4 {
            submit(&session, &format!("round {round} number {number}")).await;
        }
        let flushed = session.flush(UPLOAD).await.unwrap();
        assert_eq!((flushed.sent, flushed.left), (4, 0), "round {round}: {flushed:?}");
        assert_eq!(office.accepted_count(), 4 * round);
    }
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(messages(&house.maildir(), "Sent").len(), 120);
}

/// Proves: TN-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_inbound_stops_and_begin_inbound_goes_on() {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[account(&office, folder.path(), &["poll_interval = \"1s\""])]);
    let session = house.open(Logon::Full).await;
    office.deliver("ann", "INBOX", *b"Subject: one\r\n\r\n").unwrap();
    await_messages(&house.maildir(), "INBOX", 1).await;

    notify(&session, TransportNotify::END_INBOUND).await;
    assert!(!code(&session).contains(StatusCode::INBOUND_ENABLED));
    let active = StatusCode::INBOUND_ACTIVE;
    await_row(&session, "work", "quiet", |row| !row.status_code.contains(active)).await;
    office.deliver("ann", "INBOX", *b"Subject: two\r\n\r\n").unwrap();
    // Sending is another direction; when this has passed, the other had time to be wrong.
    let sent = submit(&session, "passes").await;
    assert_delivered(&session, &sent).await;
    assert_eq!(messages(&house.maildir(), "INBOX").len(), 1);

    notify(&session, TransportNotify::BEGIN_INBOUND).await;
    await_messages(&house.maildir(), "INBOX", 2).await;
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_returns_when_everything_is_there() {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[account(&office, folder.path(), &[])]);
    let session = house.open(Logon::Closed).await;
    for round in 1..=20 {
        let mail = |number| format!("Subject: {round} {number}\r\n\r\nx\r\n").into_bytes();
        office.deliver_all("ann", "INBOX", (0..5).map(mail)).unwrap();
        let flushed = session.flush(DOWNLOAD).await.unwrap();
        assert_eq!(flushed.received, 5, "round {round}: {flushed:?}");
        assert_eq!(messages(&house.maildir(), "INBOX").len(), 5 * round);
    }
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_on_the_wire_can_be_cancelled_before_its_final_dot_only() {
    let (office, house) = settled_with(&["connections = 1"]).await;
    let session = house.open(Logon::Full).await;
    let data = office.inject(Fault::smtp(SmtpPhase::Data, Action::Hang).once());
    let entry = submit(&session, "cancelled").await;
    data.reached(PATIENCE).await.unwrap();
    session.cancel(&entry).await.unwrap();
    data.release();
    let row = session.queue_row(&entry).await.unwrap();
    assert_eq!(row.state, QueueRowState::Cancelled);

    let dot = office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let entry = submit(&session, "too late").await;
    dot.reached(PATIENCE).await.unwrap();
    let error = session.cancel(&entry).await.unwrap_err();
    assert_eq!(error.code(), MapiCode::UNABLE_TO_ABORT, "{error}");
    dot.release();
    assert_delivered(&session, &entry).await;
    session.shutdown(GRACE).await.unwrap();
    let accepted = office.accepted();
    assert_eq!(accepted.len(), 1);
    assert!(maildir::contains(accepted[0].bytes().unwrap(), b"Subject: too late\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_shown_as_in_doubt() {
    let (office, house) = settled_with(&[]).await;
    let drop = office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Drop).after_effect().once());
    let session = house.open(Logon::Full).await;
    let entry = submit(&session, "in doubt").await;
    drop.reached(PATIENCE).await.unwrap();
    // It stays in doubt until the next attempt, a second later.
    let row = await_queue_row(&session, &entry, "doubt", |row| {
        row.state == QueueRowState::InDoubt || row.state == QueueRowState::Finished
    })
    .await;
    assert_eq!(row.state, QueueRowState::InDoubt, "{row:?}");
    assert_delivered(&session, &entry).await;
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(office.accepted_count(), 2, "resent by the policy of the profile");
}

/// One message through each fault of the sending side.
async fn send_through_faults(session: &Session, office: &PostOffice) {
    let garbage = Action::Replace(b"\x00\xff\xfe nonsense \x80\r\n".to_vec());
    let faults = [
        (SmtpPhase::Ehlo, Action::Drop),
        (SmtpPhase::Mail, garbage.clone()),
        (SmtpPhase::Rcpt, Action::Reset),
        (SmtpPhase::Data, Action::HalfClose),
        (SmtpPhase::Body, Action::Reset),
        (SmtpPhase::FinalDot, garbage),
    ];
    for (phase, action) in faults {
        // A connection that is kept would meet no EHLO.
        session.flush(UPLOAD).await.unwrap();
        office.disconnect_all();
        let fault = office.inject(Fault::smtp(phase, action).once());
        let entry = submit(session, &format!("{phase:?}")).await;
        fault.reached(PATIENCE).await.unwrap();
        assert_delivered(session, &entry).await;
    }
}

/// The same for the receiving side.
async fn receive_through_faults(office: &PostOffice, maildir: &std::path::Path) {
    let faults = [(ImapPhase::Fetch, Action::Reset), (ImapPhase::MidLiteral, Action::Drop)];
    for (number, (phase, action)) in faults.into_iter().enumerate() {
        let mail = format!("Subject: {number}\r\n\r\n{}\r\n", "x".repeat(2000));
        let fault = office.inject(Fault::imap(phase, ImapAction::from(action)).once());
        office.deliver("ann", "INBOX", mail.into_bytes()).unwrap();
        await_messages(maildir, "INBOX", number + 1).await;
        assert_eq!(fault.hits(), 1, "{phase:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_does_to_us_ends_one_attempt() {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[account(&office, folder.path(), &["poll_interval = \"1s\""])]);
    let session = house.open(Logon::Full).await;
    let maildir = house.maildir();
    tokio::join!(send_through_faults(&session, &office), receive_through_faults(&office, &maildir));
    session.shutdown(GRACE).await.unwrap();
    // The text that was answered by garbage was not taken, and the other five came once.
    assert_eq!(office.accepted_count(), 6);
    wait::until("the connections to end", PATIENCE, || {
        (office.counters(Protocol::Imap).open == 0).then_some(())
    })
    .unwrap();
}
