//! Durable acceptance: how many messages a second the spool takes, beside what the disk allows.
//!
//! `cargo bench --bench spool_commit -- [seconds] [folder]`. Each of 1, 16 and 64 submitters
//! stages a body of 4 KB, puts an Outbox row that names it and waits until both are durable. The
//! floor is measured in the same run on the same disk: as many bodies of 4 KB as there are
//! submitters appended to a file with one `fdatasync`, over and over. No store that shares one
//! sync among all who wait can be faster than that; the ratio says how much of it is left.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::mapi::{EntryId, PropList, Recipient, RecipientType, SysTime, tags};
use postrider::spool::*;

const BODY: usize = 4_096;

fn main() {
    // cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let seconds = args.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(5);
    let lasts = Duration::from_secs(seconds);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("4 KB bodies, {seconds} s each, in {}", parent.display());
    println!(
        "{:>10} {:>12} {:>12} {:>7} {:>9} {:>9} {:>12}",
        "submitters", "commits/s", "floor/s", "ratio", "p50 ms", "p99 ms", "disk/message"
    );
    for submitters in [1, 16, 64] {
        let dir = tempfile::tempdir_in(&parent).unwrap();
        let floor = floor(&dir.path().join("floor"), submitters, lasts.min(Duration::from_secs(2)));
        let mut waits = runtime.block_on(accept(&dir.path().join("spool"), submitters, lasts));
        waits.sort();
        let rate = waits.len() as f64 / lasts.as_secs_f64();
        let wait = |percent: usize| waits[waits.len() * percent / 100].as_secs_f64() * 1_000.0;
        println!(
            "{submitters:>10} {rate:>12.0} {floor:>12.0} {:>7.2} {:>9.2} {:>9.2} {:>12}",
            rate / floor,
            wait(50),
            wait(99),
            used(dir.path()) / waits.len() as u64,
        );
    }
}

/// Bodies a second that are durable when `group` of them share one `fdatasync`.
fn floor(path: &Path, group: usize, lasts: Duration) -> f64 {
    let mut file = File::create(path).unwrap();
    let body = vec![b'x'; BODY * group];
    let started = Instant::now();
    let mut bodies = 0;
    while started.elapsed() < lasts {
        file.write_all(&body).unwrap();
        file.sync_data().unwrap();
        bodies += group;
    }
    let rate = bodies as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

/// How long each message took to be durable.
async fn accept(dir: &Path, submitters: usize, lasts: Duration) -> Vec<Duration> {
    let spool = Arc::new(SledSpool::open(dir, SpoolOptions::default()).unwrap());
    let until = Instant::now() + lasts;
    let tasks: Vec<_> = (0..submitters)
        .map(|submitter| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let started = Instant::now();
                    submit(&*spool, submitter, waits.len()).await;
                    waits.push(started.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    spool.close().await;
    waits
}

async fn submit(spool: &dyn Spool, submitter: usize, number: usize) {
    let mut content = format!("Subject: {submitter} {number}\r\n\r\n").into_bytes();
    content.resize(BODY, b'x');
    let mut writer = spool.new_body(Some(BODY as u64)).await.unwrap();
    writer.write(&content).await.unwrap();
    let body = writer.finish().await.unwrap();
    let record = OutboxRecord {
        revision: 0,
        submitted: SysTime::from_millis(1_700_000_000_000),
        state: OutboxState::Waiting { not_before: SysTime::EPOCH },
        props: PropList::new().with(tags::SUBJECT, "a subject of the usual length"),
        recipients: vec![Recipient::smtp(0, RecipientType::To, "somebody@example.org")],
        object: None,
        content: Some(body.id()),
        size: BODY as u64,
        trace: Trace::default(),
        reports: Vec::new(),
    };
    let entry = EntryId::from_ulid(ulid::Ulid::new());
    let op = Op::PutOutbox { entry, record: Box::new(record), expect: Expect::Absent };
    spool.commit(Batch::new().with(op).with_body(body)).await.unwrap();
}

/// Bytes of all files below a folder, as `du` counts them.
fn used(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            found if found.is_dir() => used(&entry.path()),
            found => found.blocks() * 512,
        })
        .sum()
}
