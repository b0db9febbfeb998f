//! The status table while mail moves.

use postoffice::{Action, Fault, ImapPhase, Protocol, SmtpPhase};
use postrider::mapi::{EntryId, ResourceFlags, ResourceMethods, StatusCode, TransportNotify};
use postrider::session::{Logon, QueueRowState, Service};
use postrider::spi::{StatusRow, StatusRowKind};

use crate::house::{GRACE, PATIENCE, await_row};
use crate::maildir::await_messages;
use crate::post::{Post, Shape, code, ended, notify, row, send};
use crate::watcher::{Watcher, times_set};

const OUT: StatusCode = StatusCode::OUTBOUND_ACTIVE;
const IN: StatusCode = StatusCode::INBOUND_ACTIVE;

/// Proves: ST-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbound_is_active_exactly_while_a_message_moves() {
    let post = Post::start().await;
    let phases = [
        SmtpPhase::Greeting,
        SmtpPhase::Ehlo,
        SmtpPhase::Mail,
        SmtpPhase::Rcpt,
        SmtpPhase::FinalDot,
    ];
    let hangs = phases.map(|phase| post.office.inject(Fault::smtp(phase, Action::Hang).once()));
    let session = post.open(Logon::Full).await;
    let watcher = Watcher::of(&session, "work");
    let entry = send(&session, "one").await;
    for (phase, hang) in phases.iter().zip(&hangs) {
        hang.reached(PATIENCE).await.unwrap();
        match phase {
            // Connecting moves nothing yet.
            SmtpPhase::Greeting | SmtpPhase::Ehlo => assert!(!code(&session).contains(OUT)),
            _ => {
                watcher.until_last("it moves", |code| code.contains(OUT)).await;
            }
        }
        hang.release();
    }
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    watcher.until_last("it moved", |code| !code.contains(OUT)).await;
    // The connection is kept for a while; that is no movement.
    assert!(post.office.counters(Protocol::Smtp).open <= 1);
    let entry = send(&session, "two").await;
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let codes = watcher.until_last("it moved", |code| !code.contains(OUT)).await;
    assert_eq!(times_set(&codes, OUT), 2, "{codes:?}");
    assert_eq!(times_set(&codes, IN), 0, "{codes:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: ST-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbound_is_active_exactly_while_a_message_moves() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let watcher = Watcher::of(&session, "work");
    let phases = [ImapPhase::Search, ImapPhase::MidLiteral];
    let search = post.office.inject(Fault::imap(phases[0], Action::Hang).once());
    let literal = post.office.inject(Fault::imap(phases[1], Action::Hang).once());
    post.arrive_large("one");
    // Whatever the server is asked before, the message moves from its first bytes on.
    tokio::select! {
        reached = search.reached(PATIENCE) => {
            reached.unwrap();
            assert!(!code(&session).contains(IN));
            search.release();
        }
        reached = literal.reached(PATIENCE) => reached.unwrap(),
    }
    literal.reached(PATIENCE).await.unwrap();
    watcher.until_last("it moves", |code| code.contains(IN)).await;
    literal.release();
    await_messages(&post.maildir(), "INBOX", 1).await;
    let codes = watcher.until_last("it moved", |code| !code.contains(IN)).await;
    assert_eq!(times_set(&codes, IN), 1, "{codes:?}");
    assert_eq!(times_set(&codes, OUT), 0, "{codes:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: ST-5, TN-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_sees_every_change_in_order() {
    let post = Post::shaped(Shape { connections: 3, ..Shape::default() }).await;
    let session = post.open(Logon::Closed).await;
    let watchers: Vec<Watcher> = (0..3).map(|_| Watcher::of(&session, "work")).collect();
    let mut entries = Vec::new();
    for number in 0..30 {
        post.arrive(&format!("in {number}."));
        entries.push(send(&session, &format!("out {number}.")).await);
    }
    let both = [
        TransportNotify::BEGIN_OUTBOUND | TransportNotify::BEGIN_INBOUND,
        TransportNotify::END_OUTBOUND | TransportNotify::END_INBOUND,
    ];
    for flags in both.iter().cycle().take(41) {
        notify(&session, *flags).await.unwrap();
    }
    for entry in &entries {
        assert_eq!(ended(&session, entry).await, QueueRowState::Finished);
    }
    await_messages(&post.maildir(), "INBOX", 30).await;
    notify(&session, both[1]).await.unwrap();
    let busy = IN | OUT | StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
    let mut seen = Vec::new();
    for watcher in &watchers {
        watcher.until_last("all is quiet", |code| !code.intersects(busy)).await;
        seen.push(watcher.rows());
    }
    let rows = &seen[0];
    assert!(seen.iter().all(|other| other == rows), "{seen:#?}");
    assert_eq!(rows.last(), Some(&row(&session, "work")));
    assert!(rows.windows(2).all(|two| two[0] != two[1]), "a change that is none: {rows:#?}");
    // 21 times opened and 21 times closed, and each of the calls showed.
    let codes = watchers[0].codes();
    assert_eq!(times_set(&codes, StatusCode::OUTBOUND_ENABLED), 21, "{codes:?}");
    assert_eq!(times_set(&codes, StatusCode::INBOUND_ENABLED), 21, "{codes:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: ST-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn availability_follows_the_servers() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    await_row(&session, "work", "available", |row| row.status_code.contains(StatusCode::AVAILABLE))
        .await;
    post.office.stop().await;
    let entry = send(&session, "nobody there").await;
    let away =
        await_row(&session, "work", "offline", |row| row.status_code.contains(StatusCode::OFFLINE))
            .await;
    let wrong = StatusCode::AVAILABLE | StatusCode::FAILURE;
    assert!(!away.status_code.intersects(wrong), "{away:?}");
    post.office.restart().await.unwrap();
    let retried = session.retry(None).await;
    assert!(retried.is_ok(), "{retried:?}");
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    session.shutdown(GRACE).await.unwrap();

    // By choice: without a connection (LG-4).
    let session = post.open(Logon::Offline).await;
    let now = code(&session);
    assert!(now.contains(StatusCode::OFFLINE) && !now.contains(StatusCode::AVAILABLE), "{now:?}");
    session.shutdown(GRACE).await.unwrap();

    post.office.set_password("ann", "another");
    let session = post.open(Logon::Full).await;
    let refused = await_row(&session, "work", "a failure", |row| {
        row.status_code.contains(StatusCode::FAILURE)
    })
    .await;
    assert!(!refused.status_code.contains(StatusCode::AVAILABLE), "{refused:?}");
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: LG-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_connections_none_is_made_whatever_is_asked() {
    let post = Post::start().await;
    post.arrive("unfetched");
    let session = post.open(Logon::Offline).await;
    send(&session, "unsent").await;
    let all = TransportNotify::BEGIN_INBOUND
        | TransportNotify::BEGIN_OUTBOUND
        | TransportNotify::BEGIN_INBOUND_FLUSH
        | TransportNotify::BEGIN_OUTBOUND_FLUSH;
    notify(&session, all).await.unwrap();
    let flushes = StatusCode::INBOUND_FLUSH | StatusCode::OUTBOUND_FLUSH;
    assert!(!code(&session).intersects(flushes));
    session.shutdown(GRACE).await.unwrap();
    for protocol in [Protocol::Smtp, Protocol::Imap] {
        assert_eq!(post.office.counters(protocol).connections, 0, "{protocol:?}");
    }
}

/// Proves: ST-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_logon_has_one_row_with_its_columns() {
    let transports = vec![("work", "ann"), ("home", "eve")];
    let post = Post::shaped(Shape { transports, ..Shape::default() }).await;
    let session = post.open(Logon::Closed).await;
    let rows = session.status_table().unwrap().rows();
    let of_kind = |kind| rows.iter().filter(|row| row.kind == kind).count();
    assert_eq!(of_kind(StatusRowKind::Transport), 2);
    assert_eq!(of_kind(StatusRowKind::Spooler), 1);
    let work = row(&session, "work");
    assert_eq!(work.identity_display, "ann@example.org");
    assert_eq!(work.provider, "SMTP/IMAP");
    let methods = ResourceMethods::VALIDATE_STATE | ResourceMethods::FLUSH_QUEUES;
    assert_eq!(work.resource_methods, methods);
    assert!(work.resource_flags.contains(ResourceFlags::DEFAULT_OUTBOUND));
    assert!(!work.status_string.is_empty());
    let home = row(&session, "home");
    assert!(!home.resource_flags.contains(ResourceFlags::DEFAULT_OUTBOUND));
    assert_ne!(work.row_id, home.row_id);
    assert_ne!(work.entry_id, home.entry_id);
    assert_ne!(work.instance_key, home.instance_key);
    assert_eq!((StatusRow::OBJECT_TYPE, work.kind.number()), (10, 36));
    let identity = EntryId::one_off("", "SMTP", "ann@example.org").unwrap();
    assert_eq!(work.identity_entry_id, Some(identity));
    assert_eq!(work.identity_search_key, b"SMTP:ANN@EXAMPLE.ORG\0");
    assert!(work.resource_flags.contains(ResourceFlags::PRIMARY_IDENTITY));
    assert!(!home.resource_flags.contains(ResourceFlags::PRIMARY_IDENTITY));
    let spooler = rows.iter().find(|row| row.kind == StatusRowKind::Spooler).unwrap();
    assert_eq!(spooler.kind.number(), 37);
    assert_eq!(spooler.resource_methods, ResourceMethods::FLUSH_QUEUES);
    assert!(spooler.identity_search_key.is_empty() && spooler.identity_entry_id.is_none());
    // The rows go with their logons (LG-9).
    let table = std::sync::Arc::clone(session.status_table().unwrap());
    session.shutdown(GRACE).await.unwrap();
    assert!(table.rows().iter().all(|row| row.kind != StatusRowKind::Transport));
}
