//! The daemon with 1,000,000 messages queued: start, memory, the first page of `queue`, cancelling
//! one, and how fast it sends when the server is there again.
//!
//! `cargo bench --bench backlog -- [messages] [folder]`; 1,000,000 need about 3 GB of disk and
//! nearly two minutes to be filled in. All are due, and share one small body, so that the rows are measured.
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
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::{Home, PATIENCE};
use figures::figure;
use postrider::mapi::TransportNotify;
use postrider::session::{NotifyRequest, Service};
use realservers::{SinkOptions, SmtpSink};

const PAGE: usize = 100;
/// What a start may take.
const START_ALLOWED: Duration = Duration::from_secs(3);
/// Resident megabytes that are no more than with an empty queue, in round figures.
const MEMORY_ALLOWED: f64 = 128.0;
/// Milliseconds for a look that must not depend on the length of the queue, and for a change,
/// which is a few commits.
const LOOK_ALLOWED: f64 = 50.0;
const CHANGE_ALLOWED: f64 = 100.0;
/// How long sending is looked at.
const SENDING: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let messages: u64 = args.next().and_then(|number| number.parse().ok()).unwrap_or(1_000_000);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let sink = SmtpSink::start(SinkOptions::default()).unwrap();
    let home = Home::new(&parent, |folder| {
        let mut text = format!("[[transport]]\nname = {:?}\n", backlog::ACCOUNT);
        let _ = writeln!(text, "identity = \"me@example.org\"\n[transport.smtp]");
        let _ = writeln!(text, "host = \"localhost\"\ntls = \"none\"");
        let _ = writeln!(text, "port = {}", sink.address().port());
        let maildir = folder.join("Mail").display().to_string();
        let _ = writeln!(text, "[store]\nmaildir = {maildir:?}\nsent = false");
        text
    });
    sink.stop().unwrap();
    let filled = Instant::now();
    backlog::fill(&home.path("state/test/spool"), messages).await;
    println!("filled in {:.1} s", filled.elapsed().as_secs_f64());

    let daemon = home.daemon().await;
    let start = daemon.start.as_secs_f64();
    let (cpu, started) = (daemon.cpu(), Instant::now());
    let page = daemon.client.queue(None, PAGE).await.unwrap();
    assert_eq!(page.len(), PAGE);
    let first_page = millis(started);
    let started = Instant::now();
    daemon.client.cancel(&backlog::entry(messages / 2)).await.unwrap();
    let cancel = millis(started);
    // What it does by itself behind a start.
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("{:?} of processor in the first seconds", daemon.cpu() - cpu);
    let memory = daemon.status("VmHWM") as f64 / 1_024.0;
    sink.start_again().unwrap();
    let flags = TransportNotify::BEGIN_OUTBOUND_FLUSH.bits();
    daemon.client.notify(NotifyRequest { flags, ..NotifyRequest::default() }).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while sink.counts().unwrap().messages == 0 {
        assert!(Instant::now() < deadline, "nothing comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (before, cpu, started) = (sink.counts().unwrap().messages, daemon.cpu(), Instant::now());
    tokio::time::sleep(SENDING).await;
    let sent = (sink.counts().unwrap().messages - before) as f64;
    let rate = sent / started.elapsed().as_secs_f64();
    let cpu = (daemon.cpu() - cpu).as_secs_f64() * 1_000.0 / sent.max(1.0);
    let peak = daemon.status("VmHWM") as f64 / 1_024.0;
    println!("{cpu:.2} CPU ms each while sending, {peak:.0} MB at most");
    figure("backlog.start", start, "s", START_ALLOWED.as_secs_f64() / start, Some(1.0));
    figure("backlog.memory", memory, "MB", MEMORY_ALLOWED / memory, Some(1.0));
    figure("backlog.first-page", first_page, "ms", LOOK_ALLOWED / first_page, Some(1.0));
    figure("backlog.cancel", cancel, "ms", CHANGE_ALLOWED / cancel, Some(1.0));
    figure("backlog.sending", rate, "msg/s", rate / 1_000.0, None);
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}
