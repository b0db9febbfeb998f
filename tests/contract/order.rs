//! The order in which messages leave (OB-14): by time of submission over one connection, urgent
//! ones first.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use postoffice::{Action, Fault, SmtpPhase};
use postrider::mapi::{EntryId, TransportNotify, tags};
use postrider::session::{Logon, QueueRowState, RawEnvelope, Service, Session};

use crate::house::{GRACE, PATIENCE, await_queue_row};
use crate::letters::letter;
use crate::post::{Post, SHORT, notify, send, send_large};

/// Messages of one wave.
const MANY: usize = 200;

/// What was submitted, by entry id, which ascends with the time of submission.
type Submitted = BTreeMap<EntryId, String>;

/// Submits messages one after the other.
async fn one_by_one(session: &Session, submitted: &mut Submitted, what: &str) {
    for number in 0..MANY {
        let subject = format!("{what} {number}");
        submitted.insert(send(session, &subject).await, subject);
    }
}

/// Submits messages without waiting for one before the next.
async fn at_once(session: &Session, submitted: &mut Submitted, what: &str) {
    let subjects: Vec<String> = (0..MANY).map(|number| format!("{what} {number}")).collect();
    let entries = join_all(subjects.iter().map(|subject| send(session, subject))).await;
    submitted.extend(entries.into_iter().zip(subjects));
}

/// Every message has left, in the order of its submission.
async fn assert_left_in_order(post: &Post, submitted: &Submitted) {
    let left = post.await_accepted(submitted.len() as u64).await;
    let expected: Vec<String> = submitted.values().cloned().collect();
    let first = left.iter().zip(&expected).position(|(left, expected)| left != expected);
    let first = first.map(|at| (at, &left[at.saturating_sub(3)..(at + 4).min(left.len())]));
    assert!(left == expected, "out of order at {first:?}");
}

/// Proves: OB-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_one_connection_messages_leave_in_the_order_of_submission() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let mut submitted = Submitted::new();
    one_by_one(&session, &mut submitted, "one by one").await;
    assert_left_in_order(&post, &submitted).await;
    at_once(&session, &mut submitted, "at once").await;
    assert_left_in_order(&post, &submitted).await;
    // Behind a closed door, and what comes while it opens.
    notify(&session, TransportNotify::END_OUTBOUND).await.unwrap();
    one_by_one(&session, &mut submitted, "closed").await;
    let opening = notify(&session, TransportNotify::BEGIN_OUTBOUND);
    let (opened, ()) = tokio::join!(opening, at_once(&session, &mut submitted, "opening"));
    opened.unwrap();
    assert_left_in_order(&post, &submitted).await;
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_holds_while_sending_is_switched_off_and_on() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let mut submitted = Submitted::new();
    let submitting = async {
        one_by_one(&session, &mut submitted, "switched").await;
        at_once(&session, &mut submitted, "switched at once").await;
    };
    let switching = async {
        loop {
            notify(&session, TransportNotify::END_OUTBOUND).await.unwrap();
            tokio::task::yield_now().await;
            notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    };
    tokio::select! {
        () = submitting => {}
        () = switching => {}
    }
    notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
    assert_left_in_order(&post, &submitted).await;
    session.shutdown(GRACE).await.unwrap();
}

/// Urgent messages leave before everything that waits, whoever says that they are urgent; each lane
/// in the order of submission.
///
/// Proves: OB-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_messages_pass_a_backlog() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    // The server is busy with one message while the others gather.
    let hang = post.office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).once());
    let first = send_large(&session, "under way").await;
    hang.reached(PATIENCE).await.unwrap();
    let with = |subject: &str, tag, value: i32| {
        let mut submission = letter(subject, &["bob@example.org"]);
        submission.message.props.set(tag, value);
        submission
    };
    let mut entries = vec![first];
    for number in 0..40 {
        let submission = match number % 8 {
            1 => with(&format!("unhurried {number}"), tags::PRIORITY, -1),
            2 => with(&format!("unimportant {number}"), tags::IMPORTANCE, 0),
            _ => letter(&format!("plain {number}"), &["bob@example.org"]),
        };
        entries.push(session.submit(submission).await.unwrap());
    }
    entries.push(session.submit(with("urgent", tags::PRIORITY, 1)).await.unwrap());
    entries.push(session.submit(with("important", tags::IMPORTANCE, 2)).await.unwrap());
    for (subject, line) in [
        ("header priority", "Priority: urgent"),
        ("header importance", "Importance: High"),
        ("header x-priority", "X-Priority: 1 (Highest)"),
    ] {
        let text = format!(
            "From: ann@example.org\r\nTo: bob@example.org\r\nSubject: {subject}\r\n{line}\r\n\r\nhi\r\n"
        );
        let envelope = RawEnvelope { recipients_from_header: true, ..RawEnvelope::default() };
        let bytes = Box::pin(std::io::Cursor::new(text.into_bytes()));
        entries.push(session.submit_raw(envelope, bytes).await.unwrap());
    }
    for entry in &entries[1..] {
        await_queue_row(&session, entry, "with the transport", |row| row.transport == "work").await;
    }
    // In line, before the connection is free again.
    for entry in entries.iter().rev().take(5) {
        await_queue_row(&session, entry, "claimed", |row| row.state == QueueRowState::Sending)
            .await;
    }
    hang.remove();
    let left = post.await_accepted(entries.len() as u64).await;
    let urgent = [
        "under way",
        "urgent",
        "important",
        "header priority",
        "header importance",
        "header x-priority",
    ];
    assert_eq!(left[..urgent.len()], urgent, "{left:?}");
    let number = |subject: &str| subject.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    let of = |lane: &[&str]| -> Vec<u32> {
        let rest = left[urgent.len()..].iter();
        let in_lane = rest.filter(|subject| lane.iter().any(|word| subject.starts_with(word)));
        in_lane.map(|subject| number(subject)).collect()
    };
    let (plain, slow) = (of(&["plain"]), of(&["unhurried", "unimportant"]));
    assert_eq!((plain.len(), slow.len()), (30, 10));
    assert!(plain.is_sorted() && slow.is_sorted(), "{left:?}");
    // What is claimed already is not held up by what comes: all but that is behind.
    assert!(left.last().unwrap().starts_with("un"), "{left:?}");
    session.shutdown(SHORT).await.unwrap();
}
