//! What is there after a process ended at any moment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use postrider::spool::*;

use crate::bench::*;

/// A copy of a spool as a crash would leave it at this instant.
pub(crate) fn snapshot(bench: &Bench) -> Bench {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let other = Bench::new();
    copy(&bench.dir(), &other.dir());
    other
}

#[tokio::test]
async fn what_was_committed_is_there_without_a_close() {
    let bench = Bench::new();
    let spool = bench.open();
    for number in 0..20 {
        submit(&spool, number, &bytes(number, if number % 4 == 0 { 20_000 } else { 200 })).await;
    }
    let crashed = snapshot(&bench);
    drop(spool);
    for bench in [&bench, &crashed] {
        let spool = bench.open();
        let page = spool.outbox_page(None, 99).await.unwrap();
        assert_eq!(page.len(), 20);
        for (number, (_, record)) in (0..).zip(page) {
            let content = spool.read_body(record.content.unwrap(), u64::MAX).await.unwrap();
            assert_eq!(content.len(), if number % 4 == 0 { 20_000 } else { 200 });
        }
        assert_eq!(spool.counts().queued, 20);
        assert_eq!(bench.files().1, Vec::<std::path::PathBuf>::new());
    }
}

#[tokio::test]
async fn bodies_that_were_on_their_way_are_removed_at_the_next_open() {
    let bench = Bench::new();
    let spool = bench.open();
    let kept = submit(&spool, 1, &bytes(1, 30_000)).await;
    eventually("staging to be empty", || bench.files().1.is_empty()).await;
    let staged = stage(&spool, &bytes(2, 30_000)).await;
    let mut unfinished = spool.new_body(None).await.unwrap();
    unfinished.write(&bytes(3, 30_000)).await.unwrap();
    let crashed = snapshot(&bench);
    assert_eq!((crashed.files().0.len(), crashed.files().1.len()), (2, 2));
    // As if the crash had come between the commit and the removal of the name in staging/.
    let file =
        bench.files().0.into_iter().find(|f| f.to_str().unwrap().contains(&kept.to_string()));
    let name = file.unwrap().file_name().unwrap().to_owned();
    let marker = crashed.dir().join("staging").join(name);
    std::fs::write(marker, bytes(1, 30_000)).unwrap();
    std::fs::write(crashed.dir().join("staging/something"), "else").unwrap();
    let spool = crashed.open();
    assert_eq!((crashed.files().0.len(), crashed.files().1.len()), (1, 0));
    assert_eq!(spool.read_body(kept, u64::MAX).await.unwrap(), bytes(1, 30_000));
    drop((staged, unfinished));
}

#[tokio::test]
async fn removals_that_were_interrupted_are_finished_at_the_next_open() {
    let bench = Bench::new();
    let spool = bench.open();
    let gone = submit(&spool, 1, &bytes(1, 30_000)).await;
    eventually("staging to be empty", || bench.files().1.is_empty()).await;
    let file = bench.files().0.remove(0);
    spool.commit(Batch::new().with(delete_outbox(1))).await.unwrap();
    eventually("the file to go", || bench.files().0.is_empty()).await;
    // The tombstone goes with a later group or at the end; a crash comes first.
    let crashed = snapshot(&bench);
    let name = file.file_name().unwrap();
    let back = crashed.dir().join("bodies").join(format!("{:02x}", gone.0[0])).join(name);
    std::fs::write(&back, bytes(1, 30_000)).unwrap();
    let spool = crashed.open();
    assert!(!back.exists());
    spool.close().await;
    let rows = crashed.tree().len();
    assert_eq!(rows, 3, "schema, counts and journal");
}

/// Runs one of the tests below in a process of its own.
fn child(test: &str, dir: &Path, start: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("SPOOL_TEST_DIR", dir)
        .env("SPOOL_TEST_START", start.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The folder a child works in and the number it begins with.
fn orders() -> Option<(std::path::PathBuf, u64)> {
    let dir = std::env::var_os("SPOOL_TEST_DIR")?;
    Some((dir.into(), std::env::var("SPOOL_TEST_START").ok()?.parse().ok()?))
}

fn say(line: &str) {
    // Past the capture of the test harness, one write per line.
    let _ = std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes());
}

const WRITERS: u64 = 6;

fn size_of(number: u64) -> usize {
    if number.is_multiple_of(7) { 15_000 } else { 500 }
}

/// Submits for ever and says what was acknowledged; ended by SIGKILL.
#[test]
#[ignore = "the child of `nothing_acknowledged_is_lost_by_a_kill`"]
fn child_that_is_killed() {
    let Some((dir, start)) = orders() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async move {
        // Every other time in the midst of folds.
        let fold_at = if start.is_multiple_of(2) { 6_000 } else { 4 << 20 };
        let options = SpoolOptions { fold_at, ..Bench::new().options };
        let spool = Arc::new(SledSpool::open(&dir, options).unwrap());
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let spool = Arc::clone(&spool);
                tokio::spawn(async move {
                    for number in (start + writer..).step_by(WRITERS as usize) {
                        let content = bytes(number, size_of(number));
                        let id = submit(&*spool, number, &content).await;
                        say(&format!("put {number}"));
                        if number.is_multiple_of(3) {
                            let batch =
                                Batch::new().with(put_queue(number, queue(id, 1), Expect::Absent));
                            spool.commit(batch).await.unwrap();
                            say(&format!("queued {number}"));
                        }
                        if number.is_multiple_of(5) {
                            let batch =
                                Batch::new().with(delete_outbox(number)).with(delete_queue(number));
                            spool.commit(batch).await.unwrap();
                            say(&format!("gone {number}"));
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Acknowledged {
    Put,
    Queued,
    Gone,
}

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let bench = Bench::new();
    let mut acknowledged = BTreeMap::new();
    let mut start = 0;
    for round in 0..10 {
        let mut child = child("crash::child_that_is_killed", &bench.dir(), start);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed in the middle of its work: after a number of acknowledgements that differs from
        // round to round.
        let enough = 40 + 37 * round;
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            let word = match line.split_once(' ') {
                Some(("put", number)) => (number, Acknowledged::Put),
                Some(("queued", number)) => (number, Acknowledged::Queued),
                Some(("gone", number)) => (number, Acknowledged::Gone),
                _ => continue,
            };
            let Ok(number) = word.0.parse::<u64>() else { continue };
            acknowledged.insert(number, word.1);
            start = start.max(number + 100);
            seen += 1;
            if seen == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= enough, "round {round}: {seen} of {enough}");
        start += (start + round) % 2;
        check(&bench, &acknowledged).await;
    }
}

async fn check(bench: &Bench, acknowledged: &BTreeMap<u64, Acknowledged>) {
    let spool = bench.open();
    for (number, word) in acknowledged {
        let (outbox, queue) = (
            spool.outbox(&entry(*number)).await.unwrap(),
            spool.queue(&entry(*number)).await.unwrap(),
        );
        // The next change may have been made and not been acknowledged.
        let may_be_gone = number.is_multiple_of(5) && *word == last_before_gone(*number);
        match (word, outbox) {
            (Acknowledged::Gone, found) => assert!(found.is_none() && queue.is_none(), "{number}"),
            (_, None) => assert!(may_be_gone && queue.is_none(), "{number} {word:?} is lost"),
            (word, Some(record)) => {
                assert!(*word != Acknowledged::Queued || queue.is_some(), "{number}");
                let content = spool.read_body(record.content.unwrap(), u64::MAX).await.unwrap();
                assert_eq!(content, bytes(*number, size_of(*number)));
            }
        }
    }
    let outbox = spool.outbox_page(None, usize::MAX).await.unwrap();
    assert_eq!(spool.counts().queued, outbox.len() as u64);
    let due = spool.due(account("smtp"), at(1), usize::MAX, &|_| false).await.unwrap().entries;
    let queue: Vec<_> = spool.queue_page(None, usize::MAX).await.unwrap();
    assert_eq!(due, queue.into_iter().map(|(entry, _)| entry).collect::<Vec<_>>());
    let mut bodies: Vec<_> = outbox.iter().filter_map(|(_, record)| record.content).collect();
    bodies.sort();
    bodies.dedup();
    let mut large = 0;
    for body in bodies {
        large += usize::from(spool.open_body(body).await.unwrap().size > 10_000);
    }
    assert_eq!((bench.files().0.len(), bench.files().1.len()), (large, 0), "orphans");
    assert_eq!(spool.quarantine(9).await.unwrap(), []);
    spool.close().await;
}

fn last_before_gone(number: u64) -> Acknowledged {
    if number.is_multiple_of(3) { Acknowledged::Queued } else { Acknowledged::Put }
}

/// Holds the spool until it is killed.
#[test]
#[ignore = "the child of `a_second_process_waits_for_the_first`"]
fn child_that_holds_the_spool() {
    let Some((dir, _)) = orders() else { return };
    let _spool = SledSpool::open(&dir, Bench::new().options).unwrap();
    say("open");
    std::thread::sleep(Duration::from_secs(600));
}

#[tokio::test]
async fn a_second_process_waits_for_the_first() {
    let bench = Bench::new();
    let mut child = child("crash::child_that_holds_the_spool", &bench.dir(), 0);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "open"));
    for lock_wait in [Duration::ZERO, Duration::from_millis(30)] {
        let options = SpoolOptions { lock_wait, ..bench.options.clone() };
        let error = SledSpool::open(&bench.dir(), options).unwrap_err();
        assert!(matches!(error, SpoolError::Locked), "{error}");
    }
    let (dir, options) = (bench.dir(), bench.options.clone());
    let second = std::thread::spawn(move || SledSpool::open(&dir, options));
    child.kill().unwrap();
    child.wait().unwrap();
    let spool = second.join().unwrap().unwrap();
    submit(&spool, 1, b"mine now").await;
}

#[tokio::test]
async fn a_spool_opens_again_right_after_its_close() {
    let bench = Bench::new();
    for number in 0..20 {
        let spool = bench.open();
        submit(&spool, number, &bytes(number, 10_000)).await;
        spool.close().await;
        // Closed for everybody, and a second close is no harm.
        spool.close().await;
        assert!(matches!(spool.outbox(&entry(1)).await, Err(SpoolError::Closed)));
        assert!(matches!(spool.new_body(None).await, Err(SpoolError::Closed)));
        assert!(matches!(spool.commit(Batch::new()).await, Err(SpoolError::Closed)));
        assert_eq!(spool.counts().queued, number + 1);
    }
}

#[tokio::test]
async fn a_close_waits_for_what_was_sent_before() {
    let bench = Bench::new();
    let spool = Arc::new(bench.open());
    let mut sent = Vec::new();
    for number in 0..50 {
        let spool = Arc::clone(&spool);
        sent.push(tokio::spawn(async move {
            let batch = Batch::new().with(put_outbox(number, outbox(None), Expect::Absent));
            spool.commit(batch).await
        }));
    }
    tokio::task::yield_now().await;
    spool.close().await;
    let mut durable = 0;
    for commit in sent {
        match commit.await.unwrap() {
            Ok(_) => durable += 1,
            Err(error) => assert!(matches!(error, SpoolError::Closed), "{error}"),
        }
    }
    assert!(durable > 0);
    assert_eq!(bench.open().outbox_page(None, 99).await.unwrap().len(), durable);
}
