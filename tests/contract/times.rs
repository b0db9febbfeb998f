//! Times that a message brings with it: not before, and not after (OB-19).

use std::time::Duration;

use postrider::mapi::{EntryId, SysTime, TransportNotify, tags};
use postrider::session::{
    Logon, QueueRowState, RawEnvelope, RecipientRowState, Service, Session, Submission,
};

use crate::house::{GRACE, PATIENCE, assert_all};
use crate::letters::letter;
use crate::maildir::{await_messages, one_with};
use crate::post::{Post, ended, notify, send_put_off};

fn now() -> SysTime {
    SysTime::from(jiff::Timestamp::now())
}

/// A message that is wanted for a moment only.
fn brief(subject: &str) -> Submission {
    let mut submission = letter(subject, &["bob@example.org"]);
    let end = now().saturating_add(Duration::from_millis(1500));
    submission.message.props.set(tags::EXPIRY_TIME, end);
    submission
}

async fn assert_expired(post: &Post, session: &Session, entry: &EntryId, subject: &str) {
    let row = session.wait(entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished);
    assert_all(&row, RecipientRowState::Failed);
    let reply = &row.recipients[0].reply;
    assert!(reply.starts_with("5.4.7 not wanted any more after "), "{reply}");
    let reports = await_messages(&post.maildir(), "INBOX", 1).await;
    let report = String::from_utf8_lossy(one_with(&reports, subject)).into_owned();
    assert!(report.contains("Status: 5.4.7"), "{report}");
    assert!(report.contains("not wanted any more after"), "{report}");
    assert_eq!(post.office.accepted_count(), 0);
}

/// Proves: OB-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_outbox_expires_at_its_time() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    notify(&session, TransportNotify::END_OUTBOUND).await.unwrap();
    let entry = session.submit(brief("too late for the outbox")).await.unwrap();
    assert_expired(&post, &session, &entry, "too late for the outbox").await;
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_next_attempt_expires_at_its_time() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = session.submit(brief("too late for the queue")).await.unwrap();
    assert_expired(&post, &session, &entry, "too late for the queue").await;
    busy.remove();
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_message_expires_by_its_header() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    for (number, line) in [
        (1, "Expires: Tue, 14 Nov 2023 22:13:20 +0000"),
        (2, "Expiry-Date: Tue, 14 Nov 2023 22:13:20 GMT"),
    ] {
        let text = format!(
            "From: ann@example.org\r\nTo: bob@example.org\r\nSubject: stale {number}\r\n{line}\r\n\r\nhi\r\n"
        );
        let envelope = RawEnvelope { recipients_from_header: true, ..RawEnvelope::default() };
        let bytes = Box::pin(std::io::Cursor::new(text.into_bytes()));
        let entry = session.submit_raw(envelope, bytes).await.unwrap();
        let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
        assert_all(&row, RecipientRowState::Failed);
    }
    await_messages(&post.maildir(), "INBOX", 2).await;
    assert_eq!(post.office.accepted_count(), 0);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_later_shows_its_time_and_can_be_cancelled_until_then() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let mut later = letter("later", &["bob@example.org"]);
    // Two hours, whatever the time beside them says.
    later.message.props.set(tags::DEFERRED_SEND_NUMBER, 2);
    later.message.props.set(tags::DEFERRED_SEND_UNITS, 1);
    later.message.props.set(tags::DEFERRED_SEND_TIME, SysTime::from_millis(1));
    let entry = session.submit(later).await.unwrap();
    let row = session.queue_row(&entry).await.unwrap();
    let next: jiff::Timestamp = row.next_attempt.unwrap().parse().unwrap();
    let submitted: jiff::Timestamp = row.submitted.parse().unwrap();
    assert_eq!(next.duration_since(submitted).as_secs(), 2 * 60 * 60);
    // Its time is its owner's: nothing is to be tried before.
    assert_eq!(session.retry(Some(&entry)).await.unwrap(), 0);
    session.cancel(&entry).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Cancelled);
    assert_eq!(post.office.accepted_count(), 0);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: SP-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_counts_what_it_makes_due() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let deferred = send_put_off(&session, "put off").await;
    busy.remove();
    assert_eq!(session.retry(Some(&deferred)).await.unwrap(), 1);
    assert_eq!(ended(&session, &deferred).await, QueueRowState::Finished);
    // Before any transport has it, it is the host that looks at it again.
    notify(&session, TransportNotify::END_OUTBOUND).await.unwrap();
    let waiting = session.submit(letter("waits", &["bob@example.org"])).await.unwrap();
    assert_eq!(session.retry(Some(&waiting)).await.unwrap(), 1);
    session.hold(&waiting).await.unwrap();
    assert_eq!(session.retry(Some(&waiting)).await.unwrap(), 0, "it is on hold");
    session.shutdown(GRACE).await.unwrap();
}
