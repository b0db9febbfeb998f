//! Flushing whole sessions: the order of transports, and how a flush ends.

use postrider::mapi::StatusCode;
use postrider::session::{FlushRequest, Logon, QueueRowState, Service};
use postrider::spi::StatusRow;

use crate::house::GRACE;
use crate::letters::letter_from;
use crate::maildir::messages;
use crate::post::{Post, Shape, code, ended, send, send_put_off, soon};
use crate::watcher::{Watcher, times_set};

const UPLOAD: FlushRequest = FlushRequest { upload: true, download: false };
const DOWNLOAD: FlushRequest = FlushRequest { upload: false, download: true };
const BOTH: FlushRequest = FlushRequest { upload: true, download: true };

/// The flushes in the order in which they began and ended.
fn edges(rows: &[StatusRow]) -> Vec<String> {
    let mut edges = Vec::new();
    let mut before: Vec<(String, StatusCode)> = Vec::new();
    for row in rows {
        let known = before.iter().position(|(name, _)| *name == row.display_name);
        let last = known.map_or(StatusCode::empty(), |at| before.remove(at).1);
        for (bit, word) in
            [(StatusCode::OUTBOUND_FLUSH, "upload"), (StatusCode::INBOUND_FLUSH, "download")]
        {
            match (last.contains(bit), row.status_code.contains(bit)) {
                (false, true) => edges.push(format!("{} {word}", row.display_name)),
                (true, false) => edges.push(format!("{} {word} over", row.display_name)),
                _ => {}
            }
        }
        before.push((row.display_name.clone(), row.status_code));
    }
    edges
}

/// Proves: FL-4, FL-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transports_are_flushed_one_after_the_other_upload_before_download() {
    let transports = vec![("work", "ann"), ("home", "eve")];
    let post = Post::shaped(Shape { transports, ..Shape::default() }).await;
    post.arrive("for ann");
    let text = b"Subject: for eve\r\n\r\nhello\r\n".to_vec();
    post.office.deliver("eve", "INBOX", text).unwrap();
    let session = post.open(Logon::Closed).await;
    // The second transport's message is the older one.
    for sender in ["eve@example.org", "ann@example.org"] {
        let submission = letter_from(sender, sender, &["bob@example.org"]);
        session.submit(submission).await.unwrap();
    }
    let watcher = Watcher::on(session.status_table().unwrap(), |_| true);
    let summary = soon("the flush", session.flush(BOTH)).await.unwrap();
    assert_eq!((summary.sent, summary.received, summary.left), (2, 2, 0), "{summary:?}");
    let enabled = StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
    watcher.until_last("it is closed again", |code| !code.intersects(enabled)).await;
    assert_eq!(
        edges(&watcher.rows()),
        [
            "work upload",
            "work upload over",
            "work download",
            "work download over",
            "home upload",
            "home upload over",
            "home download",
            "home download over",
        ]
    );
    assert_eq!(post.accepted(), ["ann@example.org", "eve@example.org"]);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: FL-1, FL-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_wakes_what_was_deferred_and_ends_with_an_empty_queue() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    for number in 0..3 {
        send_put_off(&session, &format!("put off {number}.")).await;
    }
    busy.remove();
    let watcher = Watcher::of(&session, "work");
    let summary = soon("the flush", session.flush(UPLOAD)).await.unwrap();
    assert_eq!((summary.sent, summary.left), (3, 0), "{summary:?}");
    assert_eq!(post.office.accepted_count(), 3);
    let bit = StatusCode::OUTBOUND_FLUSH;
    let codes = watcher.until_last("it is over", |code| !code.contains(bit)).await;
    assert_eq!(times_set(&codes, bit), 1);
    assert!(session.queue(None, 1).await.unwrap().is_empty());
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: FL-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_cannot_send_it_all_ends_the_flush_itself() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = send_put_off(&session, "put off").await;
    let summary = soon("the flush", session.flush(UPLOAD)).await.unwrap();
    assert_eq!((summary.sent, summary.left), (0, 1), "{summary:?}");
    assert!(!code(&session).contains(StatusCode::OUTBOUND_FLUSH));
    let row = session.queue_row(&entry).await.unwrap();
    assert_eq!((row.state, row.attempts), (QueueRowState::Deferred, 2));
    // The next flush tries it again.
    busy.remove();
    let summary = soon("the flush", session.flush(UPLOAD)).await.unwrap();
    assert_eq!((summary.sent, summary.left), (1, 0), "{summary:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: FL-3, TN-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_is_over_when_all_that_was_there_is_in_the_store() {
    let post = Post::start().await;
    for number in 0..60 {
        post.arrive(&format!("number {number}."));
    }
    let session = post.open(Logon::Closed).await;
    let watcher = Watcher::of(&session, "work");
    for (arrived, expected) in [(0, 60), (15, 15), (0, 0)] {
        for number in 0..arrived {
            post.arrive(&format!("later {number}."));
        }
        let summary = soon("the flush", session.flush(DOWNLOAD)).await.unwrap();
        assert_eq!(summary.received, expected, "{summary:?}");
        assert!(!code(&session).contains(StatusCode::INBOUND_FLUSH));
    }
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 75);
    assert_eq!(times_set(&watcher.codes(), StatusCode::INBOUND_FLUSH), 3);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-12, TN-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_direction_ends_its_flush() {
    use postrider::mapi::TransportNotify;
    let post = Post::start().await;
    let hang = post
        .office
        .inject(postoffice::Fault::smtp(postoffice::SmtpPhase::Greeting, postoffice::Action::Hang));
    let session = post.open(Logon::Full).await;
    let entry = send(&session, "held up").await;
    let watcher = Watcher::of(&session, "work");
    crate::post::notify(&session, TransportNotify::BEGIN_OUTBOUND_FLUSH).await.unwrap();
    hang.reached(crate::house::PATIENCE).await.unwrap();
    crate::post::notify(&session, TransportNotify::END_OUTBOUND).await.unwrap();
    let bits = StatusCode::OUTBOUND_ENABLED | StatusCode::OUTBOUND_FLUSH;
    assert!(!code(&session).intersects(bits));
    hang.remove();
    // It does not come back by itself.
    crate::post::notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    assert_eq!(times_set(&watcher.codes(), StatusCode::OUTBOUND_FLUSH), 1);
    session.shutdown(GRACE).await.unwrap();
}

/// Without a daemon the directions are opened for the flush: opening and flushing is one step, so
/// that a message is tried once, and also the one that still waits in the Outbox.
///
/// Proves: TN-3, TN-12, FL-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_of_a_closed_session_tries_each_message_once() {
    let post = Post::start().await;
    let busy = post.busy();
    for round in 1..=3_u64 {
        let session = post.open(Logon::Closed).await;
        // The first are with the transport already, one is new each time.
        send(&session, "put off").await;
        soon("the flush", session.flush(UPLOAD)).await.unwrap();
        let rows = session.queue(None, 10).await.unwrap();
        let mut attempts: Vec<u32> = rows.iter().map(|row| row.attempts).collect();
        attempts.sort_unstable();
        let expected: Vec<u32> = (1..=u32::try_from(round).unwrap()).collect();
        assert_eq!(attempts, expected, "{rows:?}");
        session.shutdown(GRACE).await.unwrap();
    }
    busy.remove();
    let session = post.open(Logon::Closed).await;
    let summary = soon("the flush", session.flush(UPLOAD)).await.unwrap();
    assert_eq!((summary.sent, summary.left), (3, 0), "{summary:?}");
    session.shutdown(GRACE).await.unwrap();
}
