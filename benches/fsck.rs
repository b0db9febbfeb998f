//! `postrider fsck` over a spool of 1,000,000 messages: time and memory, and the same for a tenth of
//! it, so that what grows faster than the spool shows.
//!
//! `cargo bench --bench fsck -- [messages] [folder]`; 1,000,000 need about 3 GB of disk. Every eighth
//! message has a body of its own, the others share one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code
)]

#[path = "support/backlog.rs"]
mod backlog;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/figures.rs"]
mod figures;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::Home;
use figures::figure;
use postrider::spool::{Batch, SledSpool, Spool, SpoolOptions};

/// Messages that share a body, for each with its own.
const SHARING: u64 = 8;
/// Seconds a check of a million messages may take: what a person waits for without a daemon.
const TIME_ALLOWED: f64 = 120.0;
/// Megabytes that it may need: opening a tree of a million messages takes 290 of them by itself.
const MEMORY_ALLOWED: f64 = 384.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let messages: u64 = args.next().and_then(|number| number.parse().ok()).unwrap_or(1_000_000);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let small = round(&parent, messages / 10).await;
    let large = round(&parent, messages).await;
    println!("ten times as many: {:.1} x the time", large.0 / small.0);
    figure("fsck.time", large.0, "s", TIME_ALLOWED / large.0, Some(1.0));
    figure("fsck.memory", large.1, "MB", MEMORY_ALLOWED / large.1, Some(1.0));
}

/// Fills a spool and checks it. Seconds and megabytes of the check.
async fn round(parent: &Path, messages: u64) -> (f64, f64) {
    let home = Home::new(parent, |folder| {
        let mut text = format!("[[transport]]\nname = {:?}\n", backlog::ACCOUNT);
        let _ = writeln!(text, "identity = \"me@example.org\"\n[transport.smtp]");
        let _ = writeln!(text, "host = \"localhost\"\ntls = \"none\"\nport = 9");
        let maildir = folder.join("Mail").display().to_string();
        let _ = writeln!(text, "[store]\nmaildir = {maildir:?}\nsent = false");
        text
    });
    let started = Instant::now();
    fill(&home.path("state/test/spool"), messages).await;
    println!("{messages} messages filled in in {:.1} s", started.elapsed().as_secs_f64());
    let (mut seconds, mut megabytes) = (0.0, 0.0);
    for arguments in [&["fsck"][..], &["fsck", "--repair"]] {
        (seconds, megabytes) = check(&home, arguments).await;
        println!("{messages} messages, {arguments:?}: {seconds:.1} s, {megabytes:.0} MB at most");
    }
    (seconds, megabytes)
}

async fn fill(dir: &Path, messages: u64) {
    let spool = SledSpool::open(dir, SpoolOptions::default()).unwrap();
    let shared = backlog::stage(&spool, "shared by all").await;
    let shared_id = shared.id();
    let mut batch = Batch::new().with_body(shared);
    for number in 0..messages {
        let mut body = shared_id;
        if number % SHARING == 0 {
            let own = backlog::stage(&spool, &format!("the text of number {number}")).await;
            body = own.id();
            batch = batch.with_body(own);
        }
        backlog::message(number, body).into_iter().for_each(|op| batch.push(op));
        if number % 900 == 899 || number + 1 == messages {
            spool.commit(std::mem::take(&mut batch)).await.unwrap();
        }
    }
    spool.close().await;
}

/// Runs a check that finds nothing.
async fn check(home: &Home, arguments: &[&str]) -> (f64, f64) {
    let started = Instant::now();
    let mut child = home.command(arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    let file = format!("/proc/{}/status", child.id().unwrap());
    let mut peak = 0.0_f64;
    loop {
        // The peak so far, until the process is gone.
        let status = std::fs::read_to_string(&file).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or_default() / 1_024.0);
        match tokio::time::timeout(Duration::from_millis(20), child.wait()).await {
            Ok(ended) => {
                assert!(ended.unwrap().success(), "{arguments:?} finds something");
                return (started.elapsed().as_secs_f64(), peak);
            }
            Err(_) => continue,
        }
    }
}
