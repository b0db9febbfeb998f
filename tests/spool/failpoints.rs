//! Every step of a commit fails once, at every commit of a scenario: the spool stops there, as a
//! crash would, and the next open finds what was acknowledged, whole, and goes on from there.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postrider::spool::disk::{At, Disk, RealDisk};
use postrider::spool::*;

use crate::bench::*;

const BIG: usize = 9_000;

/// What the two rows of a message and all beside them say, in words that can be compared.
async fn state(spool: &SledSpool) -> String {
    let mut words = vec![
        format!("{:?}", spool.outbox_page(None, 99).await.unwrap()),
        format!("{:?}", spool.queue_page(None, 99).await.unwrap()),
        format!("{:?}", spool.cursor(account("smtp"), "INBOX").await.unwrap()),
        format!("{:?}", spool.delivered(account("smtp"), "INBOX", [9; 16]).await.unwrap()),
        format!("{:?}", spool.counts()),
    ];
    for number in 1..=3 {
        words.push(format!("{:?}", spool.history(&entry(number)).await.unwrap()));
    }
    for (_, record) in spool.outbox_page(None, 99).await.unwrap() {
        for body in record.bodies() {
            spool.read_body(body, u64::MAX).await.expect("a body that a record names");
        }
    }
    words.join("\n")
}

fn deferred(id: BodyId) -> OutboxRecord {
    let transport = "smtp".to_owned();
    OutboxRecord { state: OutboxState::Deferred { transport }, ..outbox(Some(id)) }
}

fn cursor(last: u32, window: u32) -> Op {
    Op::PutCursor {
        account: account("smtp"),
        mailbox: "INBOX".to_owned(),
        record: CursorRecord { last_uid: last, window_end: window, ..CursorRecord::default() },
    }
}

/// How many steps there are.
const STEPS: u64 = 14;

/// One commit of the scenario: submit, take, claim, outcome, settle, finish; a cancel; a window of
/// a mailbox.
async fn step(spool: &SledSpool, number: u64) -> Result<Durable, SpoolError> {
    let id = |message: u64| BodyId(*blake3::hash(&bytes(message, BIG)).as_bytes());
    let lease = Lease { owner: 5, expires: at(500), dot: FinalDot::NotSent };
    let row = |state, attempts| QueueRecord { state, attempts, ..queue(id(1), 7) };
    let history = |end| Box::new(HistoryRecord { end, ..history(8) });
    let batch = match number {
        0 | 1 | 8 => {
            let message = [(0, 1), (1, 2), (8, 3)].iter().find(|(at, _)| *at == number).unwrap().1;
            let mut writer = spool.new_body(None).await?;
            writer.write(&bytes(message, BIG)).await?;
            let body = writer.finish().await?;
            let put = put_outbox(message, outbox(Some(body.id())), Expect::Absent);
            Batch::new().with(put).with_body(body)
        }
        2 => Batch::new().with(put_queue(1, row(QueueState::Due, 0), Expect::Absent)),
        3 => Batch::new().with(put_outbox(1, deferred(id(1)), Expect::Revision(1))),
        4 => {
            Batch::new().with(put_queue(1, row(QueueState::Claimed(lease), 1), Expect::Revision(1)))
        }
        5 => Batch::new().with(put_queue(1, row(QueueState::Done, 1), Expect::Revision(2))),
        6 => Batch::new()
            .with(Op::DeleteQueue { entry: entry(1), expect: Expect::Revision(3) })
            .with(Op::PutHistory { entry: entry(1), record: history(HistoryEnd::Finished) }),
        7 => Batch::new().with(Op::DeleteOutbox { entry: entry(1), expect: Expect::Revision(2) }),
        9 => Batch::new()
            .with(Op::DeleteOutbox { entry: entry(2), expect: Expect::Revision(1) })
            .with(Op::PutHistory { entry: entry(2), record: history(HistoryEnd::Cancelled) }),
        10 => Batch::new().with(cursor(4, 9)),
        11 => Batch::new()
            .with(Op::AddDelivered {
                account: account("smtp"),
                mailbox: "INBOX".to_owned(),
                digest: [9; 16],
            })
            .with(cursor(9, 9)),
        12 => {
            let held = OutboxRecord { state: OutboxState::Held, ..outbox(Some(id(3))) };
            Batch::new().with(put_outbox(3, held, Expect::Revision(1)))
        }
        _ => Batch::new().with(Op::DeleteHistory { entry: entry(1) }),
    };
    spool.commit(batch).await
}

/// Steps that say what they expect of a row: a second time they are refused.
const GUARDED: [u64; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12];

#[tokio::test]
async fn every_commit_may_fail_and_nothing_is_lost_or_done_twice() {
    // What each step leaves.
    let bench = Bench::new();
    let spool = bench.open();
    let mut states = vec![state(&spool).await];
    for number in 0..STEPS {
        step(&spool, number).await.unwrap();
        states.push(state(&spool).await);
    }
    drop(spool);

    let mut tried = 0;
    for point in [FaultPoint::Apply, FaultPoint::Sync] {
        for fails in 0..STEPS {
            let mut bench = Bench::new();
            let left = Arc::new(AtomicU64::new(u64::MAX));
            let counter = Arc::clone(&left);
            bench.options.fault = Some(Arc::new(move |at| {
                let take = |left: u64| left.checked_sub(1);
                match at == point
                    && counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) == Err(0)
                {
                    // Once: the disk is well again at once, and must not be believed.
                    true => {
                        counter.store(u64::MAX, Ordering::SeqCst);
                        Err(io::Error::from_raw_os_error(5))
                    }
                    false => Ok(()),
                }
            }));
            let spool = bench.open();
            left.store(fails, Ordering::SeqCst);
            let mut done = 0;
            let error = loop {
                match step(&spool, done).await {
                    Ok(_) => done += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(done, fails);
            assert!(matches!(error, SpoolError::Unknown(_)), "{point:?} {fails}: {error}");
            for number in [done, 10] {
                let again = step(&spool, number).await.map(drop);
                assert!(matches!(again, Err(SpoolError::Unknown(_))), "{point:?} {fails}");
            }
            assert!(spool.failure().is_some());
            spool.close().await;
            bench.options.fault = None;

            let spool = bench.open();
            assert!(spool.failure().is_none());
            let found = state(&spool).await;
            let before = found == states[done as usize];
            let after = found == states[done as usize + 1];
            assert!(before || (after && point == FaultPoint::Sync), "{point:?} {fails}: {found}");
            let report = spool.check(CheckMode::Look, &|_| ControlFlow::Continue(())).unwrap();
            assert!(report.is_clean(), "{point:?} {fails}: {report:#?}");
            if after && GUARDED.contains(&done) {
                let twice = step(&spool, done).await;
                assert!(matches!(twice, Err(SpoolError::Conflict(_))), "{point:?} {fails}");
            }
            for number in done + u64::from(after)..STEPS {
                step(&spool, number).await.unwrap();
            }
            assert_eq!(state(&spool).await, states[STEPS as usize], "{point:?} {fails}");
            spool.close().await;
            assert_eq!(bench.files().0.len(), 1, "{point:?} {fails}: the body of the third");
            tried += 1;
        }
    }
    println!("{tried} failpoints");
}

/// A disk on which one sync of a kind fails.
#[derive(Debug)]
struct Failing {
    of_files: bool,
    armed: AtomicBool,
}

impl Failing {
    fn strike(&self, of_files: bool) -> io::Result<()> {
        match of_files == self.of_files && self.armed.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }
}

impl Disk for Failing {
    fn create(&self, at: At<'_>) -> io::Result<File> {
        RealDisk.create(at)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        RealDisk.write(file, bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.strike(true)?;
        RealDisk.sync_file(file)
    }

    fn make_folder(&self, at: At<'_>) -> io::Result<()> {
        RealDisk.make_folder(at)
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn unlink(&self, at: At<'_>) -> io::Result<()> {
        RealDisk.unlink(at)
    }

    fn sync_folder(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        self.strike(false)?;
        RealDisk.sync_folder(folder)
    }
}

#[tokio::test]
async fn a_body_whose_sync_failed_stops_the_spool() {
    for of_files in [true, false] {
        let disk = Arc::new(Failing { of_files, armed: AtomicBool::new(false) });
        let mut bench = Bench::new();
        bench.options.disk = Arc::clone(&disk) as Arc<dyn Disk>;
        let spool = bench.open();
        let kept = submit(&spool, 1, &bytes(1, BIG)).await;
        disk.armed.store(true, Ordering::SeqCst);
        let mut writer = spool.new_body(None).await.unwrap();
        writer.write(&bytes(2, BIG)).await.unwrap();
        let error = writer.finish().await.unwrap_err();
        assert_eq!(
            postrider::mapi::MapiError::from(error).code(),
            postrider::mapi::MapiCode::DISK_ERROR
        );
        // The next sync would say that all is well.
        assert!(matches!(spool.new_body(None).await.map(drop), Err(SpoolError::Unknown(_))));
        let small = Batch::new().with(put_outbox(3, outbox(None), Expect::Absent));
        assert!(matches!(spool.commit(small).await, Err(SpoolError::Unknown(_))));
        assert!(spool.failure().is_some());
        assert_eq!(spool.read_body(kept, u64::MAX).await.unwrap(), bytes(1, BIG));
        spool.close().await;
        let spool = bench.open();
        assert_eq!(spool.outbox_page(None, 9).await.unwrap().len(), 1);
        submit(&spool, 2, &bytes(2, BIG)).await;
    }
}
