//! One message of 200 MB on its way out: what the daemon needs above what it needs idle.
//!
//! `cargo bench --bench large -- [megabytes] [folder]` (default: 200). `smtp-source` hands it over
//! by SMTP and `smtp-sink` takes it. The peak is the kernel's (`VmHWM`) over acceptance and
//! sending; the daemon has sent a small message before, so that its connection and its pools are
//! not counted as the large one's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code
)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/figures.rs"]
mod figures;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::{Home, PATIENCE, sending_profile};
use figures::figure;
use realservers::{SinkOptions, SmtpSink};

/// Megabytes that it may need.
const ALLOWED: f64 = 16.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let megabytes: u64 = args.next().and_then(|number| number.parse().ok()).unwrap_or(200);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let sink = SmtpSink::start(SinkOptions::default()).unwrap();
    let home = Home::new(&parent, |folder| sending_profile(sink.address(), false, folder));
    let daemon = home.daemon().await;
    let to = daemon.listens.expect("it listens").to_string();
    send(&sink, &to, 4_096, 1).await;
    // The connection to the server is kept for some seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let idle = daemon.status("VmRSS") as f64 / 1_024.0;
    daemon.reset_peak();
    let (cpu, started) = (daemon.cpu(), Instant::now());
    send(&sink, &to, megabytes << 20, 2).await;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = (daemon.cpu() - cpu).as_secs_f64();
    let above = daemon.status("VmHWM") as f64 / 1_024.0 - idle;
    println!("{megabytes} MB in {seconds:.1} s, {cpu:.1} s of processor; idle {idle:.1} MB");
    figure("large.memory", above, "MB", ALLOWED / above, Some(1.0));
    daemon.stop().await;
}

async fn send(sink: &SmtpSink, to: &str, size: u64, until: u64) {
    let mut source = tokio::process::Command::new("/usr/sbin/smtp-source");
    source.args(["-l", &size.to_string(), "-f", "ann@example.test", "-t", "bob@example.net", to]);
    assert!(source.status().await.expect("smtp-source starts").success());
    let deadline = Instant::now() + PATIENCE;
    while sink.counts().unwrap().messages < until {
        assert!(Instant::now() < deadline, "it does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
