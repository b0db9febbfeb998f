//! A long queue: what opening, looking, cancelling and accepting cost with many messages waiting.
//!
//! `cargo bench --bench spool_backlog -- [messages] [folder]`; 1,000,000 messages need about
//! 3 GB. Every message has an Outbox row, a queue row and its place in the due index; they share a
//! body, so that the rows are measured and not the bodies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/backlog.rs"]
mod backlog;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backlog::{ACCOUNT, began, entry, fill, message, stage};
use postrider::mapi::SysTime;
use postrider::profile::{Environment, Profile};
use postrider::session::{Logon, Session, SessionOptions};
use postrider::spool::*;

const PAGE: usize = 100;

/// Set for the process that opens what its parent has filled, so that its memory is its own.
const FILLED: &str = "SPOOL_BACKLOG_FILLED";

fn main() {
    // cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let messages = args.next().and_then(|messages| messages.parse().ok()).unwrap_or(100_000);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(dir) = std::env::var_os(FILLED) {
        runtime.block_on(look(Path::new(&dir), messages));
        return;
    }
    let dir = tempfile::tempdir_in(&parent).unwrap();
    let spool = dir.path().join("spool");
    let started = Instant::now();
    runtime.block_on(fill(&spool, messages));
    say("filled", started, messages);
    println!("disk: {} MB", used(&spool) >> 20);
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .arg(messages.to_string())
        .env(FILLED, &spool)
        .env("BACKLOG_BEGAN", began().to_string())
        .status();
    assert!(child.unwrap().success());
}

/// What a whole session needs to open, with nothing for it to set right.
async fn open_session(dir: &Path) {
    let state = dir.parent().unwrap();
    let text = format!(
        "[[transport]]\nname = \"{ACCOUNT}\"\nidentity = \"me@example.org\"\n[transport.smtp]\n\
         host = \"localhost\"\nuser = \"me\"\npassword = \"x\"\n[store]\nmaildir = {:?}\n",
        state.join("Mail").display().to_string()
    );
    let file = state.join("bench.toml");
    let profile = Profile::parse("bench", &text, &file, &Environment::empty()).unwrap();
    let options = SessionOptions::new(state).logon(Logon::None);
    let started = Instant::now();
    let session = Session::open(&profile, options).await.unwrap();
    say("open as a session", started, 1);
    session.shutdown(Duration::ZERO).await.unwrap();
}

/// What a check of everything costs.
async fn check(dir: &Path) {
    let spool = Arc::new(open(dir));
    let before = memory();
    let started = Instant::now();
    let checked = Arc::clone(&spool);
    let report = tokio::task::spawn_blocking(move || {
        checked.check(CheckMode::Look, &|_| std::ops::ControlFlow::Continue(()))
    });
    let report = report.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report:#?}");
    say("fsck", started, report.messages);
    println!("memory: {} MB after fsck, {before} MB before", memory());
    spool.close().await;
}

async fn look(dir: &Path, messages: u64) {
    open_session(dir).await;
    check(dir).await;
    let empty = memory();
    let started = Instant::now();
    let spool = open(dir);
    say("open", started, 1);
    assert_eq!(spool.counts().queued, messages);
    println!("memory: {} MB after open, {empty} MB before", memory());

    let now = SysTime::from_millis(u64::MAX / 2);
    let started = Instant::now();
    let due = spool.due(AccountKey::of(ACCOUNT), now, PAGE, &|_| false).await.unwrap();
    assert_eq!(due.entries.len(), PAGE);
    say("first page of what is due", started, 1);
    let started = Instant::now();
    assert_eq!(spool.queue_page(None, PAGE).await.unwrap().len(), PAGE);
    say("first page of the queue", started, 1);
    let started = Instant::now();
    cancel(&spool, messages / 2).await;
    say("cancel one in the middle", started, 1);

    let (started, more) = (Instant::now(), 20_000);
    let spool = Arc::new(spool);
    let submitters: Vec<_> = (0..64)
        .map(|submitter| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move {
                for number in (messages + submitter..messages + more).step_by(64) {
                    let body = stage(&*spool, &number.to_string().repeat(600)).await;
                    let ops = message(number, body.id());
                    let batch = ops.into_iter().fold(Batch::new(), Batch::with).with_body(body);
                    spool.commit(batch).await.unwrap();
                }
            })
        })
        .collect();
    for submitter in submitters {
        submitter.await.unwrap();
    }
    say("accepted and queued behind them", started, more);
    println!("memory: {} MB at the end", memory());
    spool.close().await;
}

fn open(dir: &Path) -> SledSpool {
    SledSpool::open(dir, SpoolOptions::default()).unwrap()
}

async fn cancel(spool: &SledSpool, number: u64) {
    let (entry, expect) = (entry(number), Expect::Any);
    let batch = Batch::new()
        .with(Op::DeleteQueue { entry: entry.clone(), expect })
        .with(Op::DeleteOutbox { entry, expect });
    spool.commit(batch).await.unwrap();
}

fn say(what: &str, started: Instant, times: u64) {
    let took = started.elapsed();
    let rate = times as f64 / took.as_secs_f64();
    match times {
        1 => println!("{what}: {:.2} ms", took.as_secs_f64() * 1_000.0),
        _ => println!("{what}: {times} in {:.1} s, {rate:.0}/s", took.as_secs_f64()),
    }
}

/// Resident megabytes of this process.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) >> 10
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
