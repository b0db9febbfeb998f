//! TransportNotify while mail moves: both directions, their flushes, and what may stand together.

use postoffice::{Action, Fault, ImapPhase, Protocol, SmtpPhase};
use postrider::mapi::{MapiCode, StatusCode, TransportNotify};
use postrider::session::{Logon, NotifyRequest, QueueRowState, Service};

use crate::house::{GRACE, PATIENCE, await_queue_row};
use crate::maildir::{await_messages, messages, one_with};
use crate::post::{Post, Shape, code, ended, notify, notify_with, send, send_put_off, soon};
use crate::watcher::{Watcher, times_set};

const BOTH: TransportNotify = TransportNotify::BEGIN_INBOUND.union(TransportNotify::BEGIN_OUTBOUND);

/// Proves: TN-6, IB-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begin_inbound_shows_before_it_returns_and_lets_mail_in() {
    let post = Post::start().await;
    post.arrive("waiting");
    let session = post.open(Logon::Closed).await;
    let watcher = Watcher::of(&session, "work");
    assert!(!code(&session).contains(StatusCode::INBOUND_ENABLED));
    // What the closed direction does is nothing: it has not even connected.
    assert_eq!(post.office.counters(Protocol::Imap).connections, 0);

    notify(&session, TransportNotify::BEGIN_INBOUND).await.unwrap();
    assert!(code(&session).contains(StatusCode::INBOUND_ENABLED));
    notify(&session, TransportNotify::BEGIN_INBOUND).await.unwrap();
    await_messages(&post.maildir(), "INBOX", 1).await;
    post.arrive("pushed");
    let received = await_messages(&post.maildir(), "INBOX", 2).await;
    one_with(&received, "Subject: waiting");
    one_with(&received, "Subject: pushed");
    assert_eq!(times_set(&watcher.codes(), StatusCode::INBOUND_ENABLED), 1);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-7, TN-2, ST-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_inbound_lets_the_message_in_process_finish() {
    let post = Post::start().await;
    let hang = post.office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Hang).once());
    post.arrive_large("in process");
    let session = post.open(Logon::Full).await;
    let watcher = Watcher::of(&session, "work");
    hang.reached(PATIENCE).await.unwrap();
    let (enabled, active) = (StatusCode::INBOUND_ENABLED, StatusCode::INBOUND_ACTIVE);
    watcher.until_last("it moves", |code| code.contains(active)).await;

    notify(&session, TransportNotify::END_INBOUND).await.unwrap();
    let now = code(&session);
    assert!(!now.contains(enabled) && now.contains(active), "{now:?}");
    hang.release();
    watcher.until_last("it moved", |code| !code.contains(active)).await;
    let received = await_messages(&post.maildir(), "INBOX", 1).await;
    one_with(&received, "Subject: in process");

    // Nothing comes in any more, until the direction begins again.
    post.arrive("later");
    let sent = send(&session, "a full round meanwhile").await;
    assert_eq!(ended(&session, &sent).await, QueueRowState::Finished);
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 1);
    notify(&session, TransportNotify::BEGIN_INBOUND).await.unwrap();
    one_with(&await_messages(&post.maildir(), "INBOX", 2).await, "Subject: later");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-14, ST-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_cancelled_on_its_way_in_comes_again_and_once() {
    let post = Post::start().await;
    let hang = post.office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Hang).once());
    post.arrive_large("in process");
    let session = post.open(Logon::Full).await;
    let watcher = Watcher::of(&session, "work");
    hang.reached(PATIENCE).await.unwrap();
    let active = StatusCode::INBOUND_ACTIVE;
    watcher.until_last("it moves", |code| code.contains(active)).await;
    // Its reference is one of the first; the others are unknown, which is no error (TN-16).
    for reference in 2..40 {
        let flags = TransportNotify::CANCEL_MESSAGE.bits();
        let request =
            NotifyRequest { flags, reference: Some(reference), ..NotifyRequest::default() };
        notify_with(&session, request).await.unwrap();
    }
    watcher.until_last("it was stopped", |code| !code.contains(active)).await;
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 0, "nothing half is there");
    hang.release();
    let received = await_messages(&post.maildir(), "INBOX", 1).await;
    one_with(&received, "Subject: in process");
    let codes = watcher.until_last("it moved", |code| !code.contains(active)).await;
    assert!(times_set(&codes, active) >= 2, "{codes:?}");
    let sent = send(&session, "a full round meanwhile").await;
    assert_eq!(ended(&session, &sent).await, QueueRowState::Finished);
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 1);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begin_outbound_shows_before_it_returns_and_what_waits_flows() {
    let post = Post::start().await;
    let session = post.open(Logon::Closed).await;
    let entries = [send(&session, "one").await, send(&session, "two").await];
    let watcher = Watcher::of(&session, "work");
    assert_eq!(post.office.counters(Protocol::Smtp).connections, 0);
    notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
    assert!(code(&session).contains(StatusCode::OUTBOUND_ENABLED));
    notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
    for entry in &entries {
        assert_eq!(ended(&session, entry).await, QueueRowState::Finished);
    }
    assert_eq!(post.office.accepted_count(), 2);
    assert_eq!(times_set(&watcher.codes(), StatusCode::OUTBOUND_ENABLED), 1);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-9, TN-2, ST-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_outbound_completes_the_transaction_on_the_wire_and_starts_none() {
    for phase in [SmtpPhase::Rcpt, SmtpPhase::Body, SmtpPhase::FinalDot] {
        let post = Post::start().await;
        let hang = post.office.inject(Fault::smtp(phase, Action::Hang).once());
        let session = post.open(Logon::Full).await;
        let watcher = Watcher::of(&session, "work");
        let on_the_wire = send(&session, "on the wire").await;
        hang.reached(PATIENCE).await.unwrap();
        send(&session, "behind it").await;
        let (enabled, active) = (StatusCode::OUTBOUND_ENABLED, StatusCode::OUTBOUND_ACTIVE);
        watcher.until_last("it moves", |code| code.contains(active)).await;

        notify(&session, TransportNotify::END_OUTBOUND).await.unwrap();
        let now = code(&session);
        assert!(!now.contains(enabled) && now.contains(active), "{phase:?}: {now:?}");
        let late = send(&session, "too late").await;
        hang.release();
        watcher.until_last("it moved", |code| !code.contains(active)).await;
        assert_eq!(ended(&session, &on_the_wire).await, QueueRowState::Finished);
        assert_eq!(post.accepted(), ["on the wire"], "{phase:?}");
        assert_eq!(post.office.counters(Protocol::Smtp).command("MAIL"), 1);

        notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
        assert_eq!(ended(&session, &late).await, QueueRowState::Finished);
        let mut accepted = post.await_accepted(3).await;
        accepted.sort_unstable();
        assert_eq!(accepted, ["behind it", "on the wire", "too late"]);
        session.shutdown(GRACE).await.unwrap();
    }
}

/// Proves: TN-10, FL-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbound_flush_brings_everything_and_ends_by_itself() {
    let post = Post::start().await;
    for number in 0..120 {
        post.arrive(&format!("number {number}."));
    }
    let session = post.open(Logon::Closed).await;
    let watcher = Watcher::of(&session, "work");
    let flush = TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_INBOUND_FLUSH;
    notify(&session, flush).await.unwrap();
    let bit = StatusCode::INBOUND_FLUSH;
    let codes = watcher
        .until("the flush is over", |codes| {
            times_set(codes, bit) == 1 && !codes.last().unwrap().contains(bit)
        })
        .await;
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 120, "{codes:?}");
    assert!(codes.last().unwrap().contains(StatusCode::INBOUND_ENABLED));
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloading_goes_on_in_the_background_after_an_inbound_flush() {
    let post = Post::start().await;
    let hang = post.office.inject(Fault::imap(ImapPhase::Fetch, Action::Hang).once());
    for number in 0..20 {
        post.arrive(&format!("number {number}."));
    }
    let session = post.open(Logon::Closed).await;
    let flush = TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_INBOUND_FLUSH;
    notify(&session, flush).await.unwrap();
    assert!(code(&session).contains(StatusCode::INBOUND_FLUSH));
    hang.reached(PATIENCE).await.unwrap();
    notify(&session, TransportNotify::END_INBOUND_FLUSH).await.unwrap();
    let now = code(&session);
    assert!(!now.contains(StatusCode::INBOUND_FLUSH), "{now:?}");
    assert!(now.contains(StatusCode::INBOUND_ENABLED), "{now:?}");
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 0);
    hang.release();
    await_messages(&post.maildir(), "INBOX", 20).await;
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_flush_ignores_retry_times_and_ends_by_itself() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entries = [send_put_off(&session, "one").await, send_put_off(&session, "two").await];
    busy.remove();
    let watcher = Watcher::of(&session, "work");
    notify(&session, TransportNotify::BEGIN_OUTBOUND_FLUSH).await.unwrap();
    // The next attempt would be in an hour.
    for entry in &entries {
        assert_eq!(ended(&session, entry).await, QueueRowState::Finished);
    }
    let bit = StatusCode::OUTBOUND_FLUSH;
    watcher
        .until("the flush is over", |codes| {
            times_set(codes, bit) == 1 && !codes.last().unwrap().contains(bit)
        })
        .await;
    assert_eq!(post.office.accepted_count(), 2);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-12, FL-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outbound_flush_that_ended_by_itself_retry_times_count_again() {
    let post = Post::shaped(Shape { retry: "1s", ..Shape::default() }).await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = send_put_off(&session, "put off").await;
    let watcher = Watcher::of(&session, "work");
    notify(&session, TransportNotify::BEGIN_OUTBOUND_FLUSH).await.unwrap();
    let bit = StatusCode::OUTBOUND_FLUSH;
    watcher
        .until("the flush is over", |codes| {
            times_set(codes, bit) == 1 && !codes.last().unwrap().contains(bit)
        })
        .await;
    let tried = session.queue_row(&entry).await.unwrap().attempts;
    await_queue_row(&session, &entry, "tried again", |row| row.attempts > tried + 1).await;
    busy.remove();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    assert_eq!(post.office.accepted_count(), 1);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_outbound_flush_leaves_what_was_not_reached_to_its_retry_time() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entries = [send_put_off(&session, "one").await, send_put_off(&session, "two").await];
    busy.remove();
    let hang = post.office.inject(Fault::smtp(SmtpPhase::Mail, Action::Hang).once());
    let attempts = session.queue_row(&entries[1]).await.unwrap().attempts;
    notify(&session, TransportNotify::BEGIN_OUTBOUND_FLUSH).await.unwrap();
    hang.reached(PATIENCE).await.unwrap();
    notify(&session, TransportNotify::END_OUTBOUND_FLUSH).await.unwrap();
    let now = code(&session);
    assert!(!now.contains(StatusCode::OUTBOUND_FLUSH), "{now:?}");
    assert!(now.contains(StatusCode::OUTBOUND_ENABLED), "{now:?}");
    hang.release();
    // What the flush had claimed is finished in the background; nothing is lost or doubled.
    for entry in &entries {
        let row = session.queue_row(entry).await.unwrap();
        if row.attempts > attempts {
            assert_eq!(ended(&session, entry).await, QueueRowState::Finished);
        }
    }
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_flush_of_a_closed_direction_runs_when_it_begins() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = send_put_off(&session, "put off").await;
    busy.remove();
    notify(&session, TransportNotify::END_OUTBOUND).await.unwrap();
    let watcher = Watcher::of(&session, "work");
    notify(&session, TransportNotify::BEGIN_OUTBOUND_FLUSH).await.unwrap();
    assert!(!code(&session).contains(StatusCode::OUTBOUND_FLUSH));
    assert_eq!(post.office.accepted_count(), 0);

    notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let bit = StatusCode::OUTBOUND_FLUSH;
    let codes = watcher
        .until("the flush is over", |codes| {
            times_set(codes, bit) == 1 && !codes.last().unwrap().contains(bit)
        })
        .await;
    // Both bits in one step (TN-3).
    let both = StatusCode::OUTBOUND_ENABLED | StatusCode::OUTBOUND_FLUSH;
    let begun = codes.iter().find(|code| code.contains(StatusCode::OUTBOUND_ENABLED)).unwrap();
    assert!(begun.contains(both), "{codes:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbound_flush_of_a_closed_direction_runs_when_it_begins() {
    let post = Post::start().await;
    let session = post.open(Logon::Closed).await;
    post.arrive("waiting");
    let watcher = Watcher::of(&session, "work");
    notify(&session, TransportNotify::BEGIN_INBOUND_FLUSH).await.unwrap();
    assert!(!code(&session).contains(StatusCode::INBOUND_FLUSH));
    assert_eq!(post.office.counters(Protocol::Imap).connections, 0);
    notify(&session, TransportNotify::BEGIN_INBOUND).await.unwrap();
    let bit = StatusCode::INBOUND_FLUSH;
    watcher
        .until("the flush is over", |codes| {
            times_set(codes, bit) == 1 && !codes.last().unwrap().contains(bit)
        })
        .await;
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 1);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remembered_flush_that_was_ended_does_not_run() {
    let post = Post::start().await;
    let session = post.open(Logon::Closed).await;
    let watcher = Watcher::of(&session, "work");
    let begin = TransportNotify::BEGIN_INBOUND_FLUSH | TransportNotify::BEGIN_OUTBOUND_FLUSH;
    let end = TransportNotify::END_INBOUND_FLUSH | TransportNotify::END_OUTBOUND_FLUSH;
    for flags in [begin, end, BOTH] {
        notify(&session, flags).await.unwrap();
    }
    let entry = send(&session, "as usual").await;
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let flushes = StatusCode::INBOUND_FLUSH | StatusCode::OUTBOUND_FLUSH;
    let codes = watcher.codes();
    assert!(codes.iter().all(|code| !code.intersects(flushes)), "{codes:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_flags_are_one_step_and_one_change_of_the_row() {
    let post = Post::start().await;
    // Both flushes have something to wait for, so that neither is over at once.
    let hang_in = post.office.inject(Fault::imap(ImapPhase::Greeting, Action::Hang));
    let hang_out = post.office.inject(Fault::smtp(SmtpPhase::Greeting, Action::Hang));
    let session = post.open(Logon::Closed).await;
    send(&session, "one").await;
    let watcher = Watcher::of(&session, "work");
    let flags = BOTH | TransportNotify::BEGIN_INBOUND_FLUSH | TransportNotify::BEGIN_OUTBOUND_FLUSH;
    notify(&session, flags).await.unwrap();
    let all = StatusCode::INBOUND_ENABLED
        | StatusCode::OUTBOUND_ENABLED
        | StatusCode::INBOUND_FLUSH
        | StatusCode::OUTBOUND_FLUSH;
    let codes = watcher.until("it has begun", |codes| codes.len() > 1).await;
    assert!(!codes[0].intersects(all) && codes[1].contains(all), "{codes:?}");
    hang_in.remove();
    hang_out.remove();
    watcher
        .until_last("both are over", |code| {
            !code.intersects(StatusCode::INBOUND_FLUSH | StatusCode::OUTBOUND_FLUSH)
        })
        .await;
    post.await_accepted(1).await;

    notify(&session, TransportNotify::END_INBOUND | TransportNotify::END_OUTBOUND).await.unwrap();
    let enabled = StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
    let codes = watcher.until_last("both ended", |code| !code.intersects(enabled)).await;
    let half = codes.iter().filter(|code| code.intersects(enabled) && !code.contains(enabled));
    assert_eq!(half.count(), 0, "one direction was seen without the other: {codes:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-4, TN-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_changes_nothing() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let entry = send(&session, "before").await;
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let idle = StatusCode::INBOUND_ACTIVE | StatusCode::OUTBOUND_ACTIVE;
    let settling = Watcher::of(&session, "work");
    settling.until_last("nothing moves", |code| !code.intersects(idle)).await;
    let watcher = Watcher::of(&session, "work");
    let pairs = [
        (TransportNotify::BEGIN_INBOUND, TransportNotify::END_INBOUND),
        (TransportNotify::BEGIN_OUTBOUND, TransportNotify::END_OUTBOUND),
        (TransportNotify::BEGIN_INBOUND_FLUSH, TransportNotify::END_INBOUND_FLUSH),
        (TransportNotify::BEGIN_OUTBOUND_FLUSH, TransportNotify::END_OUTBOUND_FLUSH),
    ];
    for (begin, end) in pairs {
        // END_OUTBOUND and END_INBOUND beside it must not come through either.
        for more in [TransportNotify::empty(), TransportNotify::END_INBOUND] {
            let refused = notify(&session, begin | end | more).await.unwrap_err();
            assert_eq!(refused.code(), MapiCode::INVALID_PARAMETER, "{begin:?} {more:?}");
        }
    }
    for unknown in [0x10, 0x8000, 0x10_0000, 0x2000_0000] {
        let flags = TransportNotify::from_bits_retain(unknown) | TransportNotify::END_OUTBOUND;
        let refused = notify(&session, flags).await.unwrap_err();
        assert_eq!(refused.code(), MapiCode::UNKNOWN_FLAGS, "{unknown:#x}");
    }
    notify(&session, TransportNotify::empty()).await.unwrap();
    let entry = send(&session, "after").await;
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let enabled = StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
    let codes = watcher.codes();
    assert!(codes.iter().all(|code| code.contains(enabled)), "{codes:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: TN-16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_nobody_knows_is_no_error_and_stops_nothing() {
    let post = Post::start().await;
    let hang = post.office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).once());
    let session = post.open(Logon::Full).await;
    let entry = send(&session, "on the wire").await;
    hang.reached(PATIENCE).await.unwrap();
    for reference in [0, 1, 2, 3, 4711, u32::MAX] {
        let flags = TransportNotify::CANCEL_MESSAGE.bits();
        let request =
            NotifyRequest { flags, reference: Some(reference), ..NotifyRequest::default() };
        notify_with(&session, request).await.unwrap();
    }
    hang.release();
    assert_eq!(soon("the end", ended(&session, &entry)).await, QueueRowState::Finished);
    assert_eq!(post.accepted(), ["on the wire"]);
    session.shutdown(GRACE).await.unwrap();
}
