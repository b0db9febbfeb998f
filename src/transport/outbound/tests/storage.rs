//! Disks that fail, and deliveries that break down.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::rig::{Note, PATIENCE, Rig, Told, entry};
use crate::mapi::MapiCode;
use crate::spool::{QueueState, Spool, SpoolError};
use crate::transport::events::TroubleKind;
use crate::transport::outbound::capabilities::Capabilities;
use crate::transport::outbound::connection::Connection;
use crate::transport::outbound::login::{Dial, SmtpDialer};
use crate::transport::outbound::reply::Failure;
use crate::transport::outbound::shared::Parts;
use crate::transport::outbound::{Abort, Outbound, OutboundEvents, Taken};

fn disk_error() -> SpoolError {
    SpoolError::io("write", std::io::Error::other("the disk is on fire"))
}

#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_kept_and_never_sent_again() {
    let rig = Rig::new().await;
    rig.faulty.fail("Delivered", 4, disk_error);
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    // The commit together, then one by one, again after each pause.
    for failed in 2..=4 {
        rig.faulty.failed(failed).await;
        assert!(matches!(rig.row(&entry).await.unwrap().state, QueueState::Claimed(_)));
        rig.clock.advance(Duration::from_secs(3600));
    }
    assert_eq!(rig.hears_trouble().await.kind, TroubleKind::Storage);
    let row = rig.hears_end_of(&entry).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
    rig.hears("the end of trouble", |told| told.contains(&Told::Trouble(None))).await;
    assert_eq!(rig.office.accepted_count(), 1);
}

#[tokio::test]
async fn one_bad_outcome_does_not_hold_up_the_others_of_its_batch() {
    let rig = Rig::new().await;
    for number in 1..=8 {
        rig.send(number, &["bob@x.org"]).await;
    }
    rig.faulty.fail("Delivered", 1, || SpoolError::Conflict("row".to_owned()));
    rig.open();
    for number in 1..=8 {
        assert_eq!(rig.hears_end_of(&entry(number)).await.state, QueueState::Done);
    }
    assert_eq!(rig.office.accepted_count(), 8);
}

#[tokio::test]
async fn a_claim_that_cannot_be_written_opens_no_connection() {
    let rig = Rig::new().await;
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.faulty.fail("Claimed", 2, disk_error);
    rig.open();
    assert_eq!(rig.hears_trouble().await.kind, TroubleKind::Storage);
    assert_eq!(rig.office.counters(postoffice::Protocol::Smtp).connections, 0);
    rig.clock.advance(Duration::from_secs(10));
    rig.faulty.failed(2).await;
    rig.clock.advance(Duration::from_secs(10));
    let row = rig.hears_end_of(&entry).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
}

/// Proves: OB-7
#[tokio::test]
async fn a_full_disk_asks_the_host_to_wait_and_to_come_again() {
    let rig = Rig::new().await;
    rig.open();
    let first = rig.send(1, &["bob@x.org"]).await;
    rig.hears_end_of(&first).await;
    rig.faulty.fail("PutQueue", 1, || SpoolError::DiskFull { free: 0, reserve: 1 });
    let error = rig.submit(Note::to(&entry(2), &["bob@x.org"])).await.unwrap_err();
    assert_eq!(error.error.code(), MapiCode::WAIT);
    assert!(error.retry_after.is_some());
    assert!(rig.row(&entry(2)).await.is_none());
    assert!(!rig.told().contains(&Told::ReadyToSend));
    rig.outbound.settle(&first).await.unwrap();
    rig.hears("that messages may come again", |told| told.contains(&Told::ReadyToSend)).await;
    let second = rig.send(2, &["bob@x.org"]).await;
    rig.hears_end_of(&second).await;
}

#[tokio::test]
async fn an_abort_that_cannot_be_written_says_so_and_changes_nothing() {
    let rig = Rig::new().await;
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.faulty.fail("Cancelled", 1, disk_error);
    let error = rig.outbound.abort(&entry, Abort::Cancel).await.unwrap_err();
    assert_eq!(error.code(), MapiCode::DISK_ERROR);
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Due);
    rig.outbound.abort(&entry, Abort::Cancel).await.unwrap();
    assert!(rig.row(&entry).await.is_none());
}

#[tokio::test]
async fn a_damaged_body_is_set_aside_and_no_other_message_with_it() {
    let rig = Rig::new().await;
    let content = format!("Subject: x\r\n\r\n{}", "line of a large text\r\n".repeat(50_000));
    let note = Note::to(&entry(1), &["bob@x.org"]).content(content);
    assert!(matches!(rig.submit(note).await.unwrap(), Taken::Deferred));
    assert_eq!(damage_bodies(&rig.folder.path().join("bodies")), 1);
    rig.open();
    let row = rig.row_when(&entry(1), |row| row.state == QueueState::Held).await;
    assert_eq!(rig.recipient(&entry(1), 0).await, "pending", "nobody failed");
    let why = &row.last_error;
    assert!(why.starts_with("MAPI_E_CORRUPT_DATA: the stored message is damaged"), "{why}");
    let next = rig.send(2, &["bob@x.org"]).await;
    rig.hears_end_of(&next).await;
    assert_eq!(rig.office.accepted_count(), 1);
    // The bytes come back, from a copy of the disk perhaps, and somebody lets it go.
    assert_eq!(damage_bodies(&rig.folder.path().join("bodies")), 1);
    rig.outbound.release(&entry(1)).await.unwrap();
    assert_eq!(rig.hears_end_of(&entry(1)).await.state, QueueState::Done);
    assert_eq!(rig.office.accepted_count(), 2);
}

/// Changes one byte in the middle of every large file below `folder`.
fn damage_bodies(folder: &std::path::Path) -> usize {
    let mut damaged = 0;
    for item in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = item.path();
        if path.is_dir() {
            damaged += damage_bodies(&path);
        } else if item.metadata().unwrap().len() > 100_000 {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    damaged
}

/// A stream on which the second write panics.
struct Explosive {
    writes: usize,
}

impl AsyncRead for Explosive {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        panic!("a fault of ours")
    }
}

impl AsyncWrite for Explosive {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.writes += 1;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct ExplodesOnce {
    exploded: AtomicBool,
    good: SmtpDialer,
}

#[async_trait]
impl Dial for ExplodesOnce {
    async fn dial(&self) -> Result<Connection, Failure> {
        if self.exploded.swap(true, Ordering::SeqCst) {
            return self.good.dial().await;
        }
        let stream = Box::new(Explosive { writes: 0 });
        Ok(Connection::new(stream, "mx", Capabilities::default(), Default::default()))
    }
}

/// The same account with another way to connect.
async fn with_dialer(rig: &mut Rig, dialer: Arc<dyn Dial>) {
    rig.outbound.stop(Duration::ZERO).await;
    let parts = Parts {
        settings: rig.settings.clone(),
        spool: Arc::clone(&rig.faulty) as Arc<dyn Spool>,
        clock: Arc::new(rig.clock.clone()),
        runtime: tokio::runtime::Handle::current(),
        dialer,
        dice: Box::new(|| 0.0),
    };
    rig.outbound = Outbound::assemble(parts, Arc::clone(&rig.ears) as Arc<dyn OutboundEvents>);
}

#[tokio::test]
async fn a_delivery_that_panics_is_one_failed_attempt() {
    let mut rig = Rig::new().await;
    let settings = &rig.settings;
    let good = SmtpDialer::new(
        &settings.smtp,
        &settings.helo,
        settings.deadlines.clone(),
        Arc::new(crate::clock::SystemClock),
    );
    let dialer = ExplodesOnce { exploded: AtomicBool::new(false), good };
    with_dialer(&mut rig, Arc::new(dialer)).await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let row = rig.deferred(&entry).await;
    assert_eq!(row.attempts, 1);
    assert!(row.last_error.contains("broke down"), "{}", row.last_error);
    rig.wait_for_due(&row);
    assert_eq!(rig.hears_end_of(&entry).await.attempts, 2);
    tokio::time::timeout(PATIENCE, rig.outbound.stop(PATIENCE)).await.unwrap();
}

struct Breaks;

#[async_trait]
impl Dial for Breaks {
    async fn dial(&self) -> Result<Connection, Failure> {
        panic!("a fault of ours")
    }
}

fn final_troubles(told: &[Told]) -> Vec<TroubleKind> {
    let kinds = told.iter().filter_map(|told| match told {
        Told::Trouble(Some(trouble)) => Some(trouble.kind),
        _ => None,
    });
    kinds.filter(|kind| kind.is_final()).collect()
}

/// Whoever drives the queue is gone: only another logon helps, and it finds the message due.
///
/// Proves: OB-9, SP-1
#[tokio::test]
async fn a_task_that_panics_is_beyond_recovery_and_loses_nothing() {
    let mut rig = Rig::new().await;
    with_dialer(&mut rig, Arc::new(Breaks)).await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.hears("the breakdown", |told| final_troubles(told) == [TroubleKind::Breakdown]).await;
    let trouble = rig.hears_trouble().await;
    assert!(trouble.words.contains("a fault of ours"), "{trouble:?}");
    rig.restart(None).await;
    rig.open();
    let row = rig.row(&entry).await.unwrap();
    rig.wait_for_due(&row);
    assert_eq!(rig.hears_end_of(&entry).await.state, QueueState::Done);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: OB-9
#[tokio::test]
async fn a_flush_that_failed_is_beyond_recovery_at_once() {
    let rig = Rig::new().await;
    rig.faulty.fail("Delivered", 2, || SpoolError::Unknown("the flush failed".to_owned()));
    rig.open();
    rig.send(1, &["bob@x.org"]).await;
    rig.hears("the end", |told| final_troubles(told) == [TroubleKind::SpoolLost]).await;
}

/// Proves: OB-9
#[tokio::test]
async fn a_disk_that_fails_without_end_is_beyond_recovery_in_the_end() {
    let rig = Rig::new().await;
    rig.faulty.fail("Delivered", usize::MAX, disk_error);
    rig.open();
    rig.send(1, &["bob@x.org"]).await;
    // The commit together, then one by one.
    for failed in 2..=60 {
        rig.faulty.failed(failed).await;
        assert!(final_troubles(&rig.told()).is_empty(), "after {failed} failures");
        tokio::task::yield_now().await;
        rig.clock.advance(Duration::from_secs(60));
    }
    rig.hears("the end", |told| final_troubles(told).contains(&TroubleKind::SpoolLost)).await;
}

/// Space may be freed at any time.
///
/// Proves: OB-9
#[tokio::test]
async fn a_full_disk_is_never_beyond_recovery() {
    let rig = Rig::new().await;
    rig.faulty.fail("Delivered", 100, || SpoolError::DiskFull { free: 1, reserve: 2 });
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    for failed in 2..=100 {
        rig.faulty.failed(failed).await;
        tokio::task::yield_now().await;
        rig.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(rig.hears_end_of(&entry).await.state, QueueState::Done);
    assert!(final_troubles(&rig.told()).is_empty());
}
