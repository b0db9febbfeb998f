//! Durable acceptance through the library: how many messages of 4 KB a second a session takes from
//! 64 submitters, each of which waits until its message is durable.
//!
//! `cargo bench --bench acceptance -- [seconds] [folder]` (default: 5). The floor is measured in
//! the same run on the same disk: 64 bodies appended to a file with one `fdatasync`, over and over.
//! The allocator is the program's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/figures.rs"]
mod figures;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use figures::figure;
use postrider::profile::{Environment, Profile};
use postrider::session::{Logon, RawEnvelope, Service, Session, SessionOptions};

#[cfg(all(feature = "jemalloc", target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SUBMITTERS: usize = 64;
const SIZE: usize = 4_096;
/// Messages a second that are aimed at.
const WANTED: f64 = 15_000.0;

fn main() {
    // cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let seconds = args.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(5);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let lasts = Duration::from_secs(seconds);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let floor = floor(&dir.path().join("floor"), lasts.min(Duration::from_secs(2)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cpu = cpu();
    let mut waits = runtime.block_on(accept(dir.path(), lasts));
    let cpu = (self::cpu() - cpu).as_secs_f64() * 1_000.0 / waits.len() as f64;
    waits.sort();
    let rate = waits.len() as f64 / lasts.as_secs_f64();
    let wait = |percent: usize| waits[waits.len() * percent / 100].as_secs_f64() * 1_000.0;
    println!(
        "{rate:.0}/s, floor {floor:.0}/s, {cpu:.3} CPU ms each, waits {:.2} ms (p50), {:.2} ms (p99)",
        wait(50),
        wait(99)
    );
    figure("acceptance.rate", rate, "msg/s", rate / WANTED, Some(1.0));
    figure("acceptance.of-floor", rate, "msg/s", rate / floor, None);
}

/// Bodies a second that are durable when all submitters share one `fdatasync`.
fn floor(path: &Path, lasts: Duration) -> f64 {
    let mut file = std::fs::File::create(path).unwrap();
    let group = vec![b'x'; SIZE * SUBMITTERS];
    let (started, mut bodies) = (Instant::now(), 0);
    while started.elapsed() < lasts {
        file.write_all(&group).unwrap();
        file.sync_data().unwrap();
        bodies += SUBMITTERS;
    }
    bodies as f64 / started.elapsed().as_secs_f64()
}

/// Processor time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    Duration::from_millis(
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() * 10,
    )
}

/// How long each message took to be durable.
async fn accept(dir: &Path, lasts: Duration) -> Vec<Duration> {
    let text = format!(
        "[[transport]]\nname = \"work\"\nidentity = \"ann@example.test\"\n[transport.smtp]\n\
         host = \"localhost\"\ntls = \"none\"\n[store]\nmaildir = {:?}\n",
        dir.join("Mail").display().to_string()
    );
    let file = dir.join("bench.toml");
    let profile = Profile::parse("bench", &text, &file, &Environment::empty()).unwrap();
    let options = SessionOptions::new(dir.join("state")).logon(Logon::None);
    let session = Arc::new(Session::open(&profile, options).await.unwrap());
    let until = Instant::now() + lasts;
    let tasks: Vec<_> = (0..SUBMITTERS)
        .map(|submitter| {
            let session = Arc::clone(&session);
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let text = message(submitter, waits.len());
                    let envelope = RawEnvelope {
                        from: Some("ann@example.test".to_owned()),
                        recipients: vec!["bob@example.net".to_owned()],
                        ..RawEnvelope::default()
                    };
                    let started = Instant::now();
                    session.submit_raw(envelope, Box::pin(Cursor::new(text))).await.unwrap();
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
    session.shutdown(Duration::ZERO).await.unwrap();
    waits
}

fn message(submitter: usize, number: usize) -> Vec<u8> {
    let mut text = format!(
        "From: ann@example.test\r\nTo: bob@example.net\r\nSubject: {number}\r\n\
         Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <{submitter}.{number}@example.test>\r\n\r\n"
    )
    .into_bytes();
    while text.len() < SIZE {
        text.extend_from_slice(
            b"seventy octets of text that nobody reads, over and over and over.....\r\n",
        );
    }
    text
}
