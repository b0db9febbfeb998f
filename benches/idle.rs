//! An idle daemon with four accounts: memory, and how often it wakes up.
//!
//! `cargo bench --bench idle -- [seconds]` (default: 30). Each account sends and receives by TLS at
//! a post office in this process, with IDLE. A wake-up is a switch of one of its threads from
//! waiting to running (`voluntary_ctxt_switches`); what there is in the first seconds, while the
//! accounts log in, does not count.
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

use std::fmt::Write as _;
use std::time::Duration;

use daemon::Home;
use figures::figure;
use postoffice::{Listener, PostOffice};
use postrider::session::Service;

const ACCOUNTS: usize = 4;
/// Megabytes that it may need.
const MEMORY_ALLOWED: f64 = 30.0;
/// Wake-ups a minute that count as none: what the kernel and TCP do by themselves.
const WAKE_UPS_ALLOWED: f64 = 10.0;

#[tokio::main]
async fn main() {
    // cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let seconds = args.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(30);
    let mut builder = PostOffice::builder();
    for number in 0..ACCOUNTS {
        builder = builder.user(&format!("user{number}"), "secret");
    }
    let office = builder.start().await.unwrap();
    let home = Home::new(&std::env::temp_dir(), |folder| {
        let ca_file = folder.join("ca.pem");
        std::fs::write(&ca_file, office.ca_pem()).unwrap();
        let mut text = String::new();
        for number in 0..ACCOUNTS {
            let _ = writeln!(text, "[[transport]]\nname = \"account{number}\"");
            let _ = writeln!(text, "identity = \"user{number}@example.org\"");
            for (part, listener) in [("smtp", Listener::Smtps), ("imap", Listener::Imaps)] {
                let port = office.address(listener).unwrap().port();
                let _ = writeln!(text, "[transport.{part}]\nhost = \"localhost\"\nport = {port}");
                let _ = writeln!(
                    text,
                    "tls = \"implicit\"\nca_file = {:?}",
                    ca_file.display().to_string()
                );
                let _ = writeln!(text, "user = \"user{number}\"\npassword = \"secret\"");
            }
        }
        let _ =
            writeln!(text, "[store]\nmaildir = {:?}", folder.join("Mail").display().to_string());
        text
    });
    let daemon = home.daemon().await;
    while daemon.client.status().await.unwrap().inbound.len() < ACCOUNTS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let before = wake_ups(daemon.pid());
    let cpu = daemon.cpu();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = wake_ups(daemon.pid());
    let memory = daemon.status("VmRSS") as f64 / 1_024.0;
    let mut total = 0;
    for (thread, count) in &after {
        let more = count.saturating_sub(before.get(thread).copied().unwrap_or_default());
        total += more;
        if more > 0 {
            println!("{more} wake-ups of {}", thread.1);
        }
    }
    // Threads that ended meanwhile are not counted: they do not wake up any more.
    let rate = total as f64 * 60.0 / seconds as f64;
    println!("{:?} of processor in {seconds} s", daemon.cpu() - cpu);
    let beside = WAKE_UPS_ALLOWED / rate.max(1.0);
    figure("idle.memory", memory, "MB", MEMORY_ALLOWED / memory, Some(1.0));
    figure("idle.wake-ups", rate, "per-minute", beside, Some(1.0));
    daemon.stop().await;
}

type Counts = std::collections::BTreeMap<(String, String), u64>;

/// By thread: its number and its name.
fn wake_ups(pid: u32) -> Counts {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| {
            let path = task.unwrap().path();
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                Some(line.trim_start_matches(':').trim().to_owned())
            };
            let count = field("voluntary_ctxt_switches")?.parse().ok()?;
            let number = path.file_name()?.to_string_lossy().into_owned();
            Some(((number, field("Name")?), count))
        })
        .collect()
}
