//! What a program waits for that calls sendmail: the whole process with the daemon running, beside
//! msmtp that delivers to a server on this machine, in turn.
//!
//! `cargo bench --bench sendmail -- [calls=N] [rounds=N] [dir=FOLDER]` (default: 100 calls a round,
//! five rounds). Both take the same message of 2 KB from a file and are waited for. msmtp has no
//! queue: it is done when smtp-sink, without TLS and without a disk, has said 250; our program is
//! done when the message is durable. The median of all calls counts.
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

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::{Home, sending_profile};
use figures::figure;
use realservers::{SinkOptions, SmtpSink};

fn main() {
    let (mut calls, mut rounds, mut dir) = (100_usize, 5_usize, std::env::temp_dir());
    // cargo itself passes `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with("--")) {
        match arg.split_once('=') {
            Some(("calls", number)) => calls = number.parse().unwrap(),
            Some(("rounds", number)) => rounds = number.parse().unwrap(),
            Some(("dir", folder)) => dir = PathBuf::from(folder),
            _ => panic!("{arg} is not known"),
        }
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(calls, rounds, &dir));
}

async fn measure(calls: usize, rounds: usize, dir: &Path) {
    let sink = SmtpSink::start(SinkOptions::default()).unwrap();
    let home = Home::new(dir, |folder| sending_profile(sink.address(), false, folder));
    let bin = home.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let sendmail = bin.join("sendmail");
    let program = std::env::var_os("POSTRIDER_PROGRAM");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_postrider").into());
    std::os::unix::fs::symlink(program, &sendmail).unwrap();
    let message = home.path("message");
    let text = format!(
        "From: ann@example.test\nTo: bob@example.org\nSubject: bench\n\
         Date: Tue, 14 Nov 2023 22:13:20 +0000\nMessage-ID: <1@example.org>\n\n{}",
        "A line of text as people write it, and not a long one.\n".repeat(36)
    );
    std::fs::write(&message, text).unwrap();
    let msmtp = [
        "--file=/dev/null",
        "--host=127.0.0.1",
        &format!("--port={}", sink.address().port()),
        "--from=ann@example.test",
        "--",
        "bob@example.org",
    ];
    let daemon = home.daemon().await;
    let ours = || {
        let mut command = Command::new(&sendmail);
        command.env("POSTRIDER_CONFIG", home.path("config"));
        command.env("POSTRIDER_STATE", home.path("state"));
        command.args(["-i", "-f", "ann@example.test", "--", "bob@example.org"]);
        once(command, &message)
    };
    let theirs = || {
        let mut command = Command::new("msmtp");
        command.args(msmtp);
        once(command, &message)
    };
    let has_msmtp = Command::new("msmtp").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_msmtp {
        println!("msmtp is missing (Debian package msmtp): nothing to compare with");
    }
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        our_times.extend((0..calls).map(|_| ours()));
        if has_msmtp {
            their_times.extend((0..calls).map(|_| theirs()));
        }
    }
    let ours = report("sendmail (durable)", &mut our_times);
    if has_msmtp {
        let theirs = report("msmtp (to the sink)", &mut their_times);
        figure("sendmail.call", ours, "ms", theirs / ours, Some(1.0));
    }
    drop(daemon);
}

/// One call to its end, in milliseconds.
fn once(mut command: Command, message: &Path) -> f64 {
    command.stdin(File::open(message).unwrap()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let started = Instant::now();
    let status = command.status().unwrap();
    let took: Duration = started.elapsed();
    assert!(status.success(), "{status}");
    took.as_secs_f64() * 1_000.0
}

/// Prints and returns the median.
fn report(who: &str, times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{who:>20}: median {:.2} ms, p90 {:.2} ms, of {}", at(50), at(90), times.len());
    at(50)
}
