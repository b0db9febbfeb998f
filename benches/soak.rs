//! Mixed traffic for a long time: does the daemon's memory stay flat, are file descriptors given
//! back, is every message accounted for?
//!
//! `cargo bench --bench soak -- [seconds] [seed]` (default: 60). The real daemon sends to and
//! fetches from a post office in this process, which defers, refuses, drops connections and loses
//! replies now and then. Four submitters hand over mail of 1 KB to 4 MB, cancel some of it, and a
//! mail program empties the Maildir. The end is a balance; it fails when something does not add up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    dead_code,
    missing_docs
)]

#[path = "../tests/support/house.rs"]
mod house;
#[path = "../tests/support/office.rs"]
mod office;
#[path = "../tests/support/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postoffice::{Action, Fault, PostOffice, SmtpAction, SmtpPhase};
use postrider::control::Client;
use postrider::mapi::{EntryId, MapiCode};
use postrider::session::{RawEnvelope, Service};
use program::Program;
use rustix::process::Signal;

/// What was handed over and what became of it, by the token in its subject.
#[derive(Default)]
struct Book {
    /// Recipients it must reach; those that are refused are not among them.
    sent: BTreeMap<String, Vec<&'static str>>,
    /// With a recipient that is refused.
    refused: BTreeMap<String, EntryId>,
    cancelled: BTreeMap<String, EntryId>,
    /// How often the server took it for a recipient.
    reached: BTreeMap<(String, String), u32>,
    injected: BTreeMap<String, u32>,
    /// Reports of non-delivery, by the token of the original.
    reports: BTreeMap<String, u32>,
    copies: u64,
    octets: u64,
    /// Replies that were withheld: each may make one message arrive twice.
    lost_replies: u32,
    cut_connections: u32,
}

type Shared = Arc<Mutex<Book>>;

/// A reading of `/proc`.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident_kib: u64,
    descriptors: u64,
    threads: u64,
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let seconds = args.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seed = args.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{seconds} s of mixed traffic, seed {seed}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let good = runtime.block_on(soak(Duration::from_secs(seconds), seed));
    std::process::exit(i32::from(!good));
}

async fn soak(lasts: Duration, seed: u64) -> bool {
    let office = Arc::new(office::office().await);
    let program = Program::new(&office, &["after = \"delete\""]);
    let daemon = program.daemon().await;
    let book = Shared::default();
    let until = Instant::now() + lasts;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut tasks = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let client = Client::connect(&program.socket()).await.unwrap();
        tasks.spawn(submit(sender, client, Arc::clone(&book), until, rng.fork()));
    }
    tasks.spawn(inject(Arc::clone(&office), Arc::clone(&book), until, rng.fork()));
    tasks.spawn(make_trouble(Arc::clone(&office), Arc::clone(&book), until, rng.fork()));
    let mut samples = Vec::new();
    let start = Instant::now();
    let mut told = start;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(2)).await;
        empty(&program.maildir(), &book);
        collect(&office, &book);
        samples.push(sample(daemon.pid()));
        if told.elapsed() >= Duration::from_secs(300) {
            told = Instant::now();
            let book = book.lock().unwrap();
            println!(
                "after {} s: {:?}, {} sent, {} fetched",
                start.elapsed().as_secs(),
                samples[samples.len() - 1],
                book.sent.len(),
                book.injected.len()
            );
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    office.remove_faults();
    drain(&program, &office, &book).await;
    let last = sample(daemon.pid());
    let stopped = daemon.stop(Signal::TERM).await;
    let clean = left_over(&program.path("state"));
    report(&book.lock().unwrap(), &samples, last, stopped, &clean)
}

async fn pause(rng: &mut fastrand::Rng, longest: u64) {
    tokio::time::sleep(Duration::from_millis(rng.u64(0..longest))).await;
}

fn body(rng: &mut fastrand::Rng) -> String {
    let size = match rng.u8(0..100) {
        0 => rng.usize(1_000_000..4_000_000),
        1..10 => rng.usize(50_000..200_000),
        _ => rng.usize(100..10_000),
    };
    "seventy octets of text that nobody reads, over and over and over.....\r\n"
        .repeat(size / 71 + 1)
}

async fn submit(sender: u32, client: Client, book: Shared, until: Instant, mut rng: fastrand::Rng) {
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let token = format!("out-{sender}-{number}");
        let mut recipients = vec!["bob@example.org"];
        if rng.u8(0..10) == 0 {
            recipients.push("grey@example.org");
        }
        let refused = rng.u8(0..50) == 0;
        let text = format!("Subject: {token}\r\n\r\n{}", body(&mut rng));
        let envelope = RawEnvelope {
            from: Some("ann@example.org".to_owned()),
            recipients: recipients
                .iter()
                .copied()
                .chain(refused.then_some("nobody@example.org"))
                .map(str::to_owned)
                .collect(),
            ..RawEnvelope::default()
        };
        let size = text.len() as u64;
        let entry = client.submit_raw(envelope, Box::pin(std::io::Cursor::new(text))).await;
        let entry = entry.unwrap();
        {
            let mut book = book.lock().unwrap();
            book.octets += size;
            book.sent.insert(token.clone(), recipients);
            if refused {
                book.refused.insert(token.clone(), entry.clone());
            }
        }
        if rng.u8(0..20) == 0 {
            match client.cancel(&entry).await {
                Ok(()) => _ = book.lock().unwrap().cancelled.insert(token, entry),
                Err(error) => assert!(
                    matches!(error.code(), MapiCode::UNABLE_TO_ABORT | MapiCode::NOT_IN_QUEUE),
                    "{error}"
                ),
            }
        }
        pause(&mut rng, 400).await;
    }
}

async fn inject(office: Arc<PostOffice>, book: Shared, until: Instant, mut rng: fastrand::Rng) {
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let token = format!("in-{number}");
        let text = format!("From: bob@example.org\r\nSubject: {token}\r\n\r\n{}", body(&mut rng));
        book.lock().unwrap().injected.insert(token, 0);
        office.deliver("ann", "INBOX", text.into_bytes()).unwrap();
        pause(&mut rng, 400).await;
    }
}

async fn make_trouble(
    office: Arc<PostOffice>,
    book: Shared,
    until: Instant,
    mut rng: fastrand::Rng,
) {
    let refuse = SmtpAction::reply(550, "5.1.1", "no such user");
    office.inject(Fault::smtp(SmtpPhase::Rcpt, refuse).matching("nobody@"));
    while Instant::now() < until {
        pause(&mut rng, 10_000).await;
        let later = |code, enhanced| SmtpAction::reply(code, enhanced, "later");
        match rng.u8(0..6) {
            0 | 1 => {
                _ = office.inject(
                    Fault::smtp(SmtpPhase::Rcpt, later(450, "4.2.1")).matching("grey@").times(3),
                )
            }
            2 => _ = office.inject(Fault::smtp(SmtpPhase::Mail, later(421, "4.3.2")).once()),
            3 => _ = office.inject(Fault::smtp(SmtpPhase::FinalDot, later(451, "4.3.0")).once()),
            4 => {
                // The server has the message, and nobody is told.
                book.lock().unwrap().lost_replies += 1;
                let cut = Fault::smtp(SmtpPhase::FinalDot, Action::Drop).after_effect().once();
                office.inject(cut);
            }
            _ => {
                book.lock().unwrap().cut_connections += 1;
                office.disconnect_all();
            }
        }
    }
}

/// The first subject in a text: that of the message, or of the original in a report.
fn token(text: &str, kind: &str) -> Option<String> {
    let at = text.find(&format!("Subject: {kind}-"))?;
    text[at + "Subject: ".len()..].lines().next().map(|line| line.trim().to_owned())
}

fn collect(office: &PostOffice, book: &Shared) {
    for accepted in office.take_accepted() {
        let text = String::from_utf8_lossy(accepted.bytes().unwrap()).into_owned();
        let token = token(&text, "out").expect("one of ours");
        let mut book = book.lock().unwrap();
        for recipient in accepted.recipients() {
            *book.reached.entry((token.clone(), recipient.to_owned())).or_default() += 1;
        }
    }
}

/// Reads and removes what is in the Maildir, as a mail program would.
fn empty(maildir: &Path, book: &Shared) {
    let files = |folder: &str| {
        let listed = std::fs::read_dir(maildir.join(folder)).ok();
        listed.into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    for file in files("new") {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        let mut book = book.lock().unwrap();
        match token(&text, "in") {
            Some(token) => *book.injected.get_mut(&token).expect("one of ours") += 1,
            None => {
                let original = token_of_report(&text);
                *book.reports.entry(original).or_default() += 1;
            }
        }
        std::fs::remove_file(file).unwrap();
    }
    for folder in [".Sent/new", ".Sent/cur"] {
        for file in files(folder) {
            std::fs::remove_file(file).unwrap();
            book.lock().unwrap().copies += 1;
        }
    }
}

fn token_of_report(text: &str) -> String {
    token(text, "out").unwrap_or_else(|| panic!("what is this? {text}"))
}

fn sample(pid: u32) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    Sample { resident_kib: number("VmRSS:"), descriptors, threads: number("Threads:") }
}

/// Waits until nothing moves any more.
async fn drain(program: &Program, office: &PostOffice, book: &Shared) {
    let client = Client::connect(&program.socket()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        empty(&program.maildir(), book);
        collect(office, book);
        let queue = client.queue(None, 10).await.unwrap();
        let arrived = book.lock().unwrap().injected.values().all(|count| *count > 0);
        if queue.is_empty() && arrived {
            break;
        }
        assert!(Instant::now() < deadline, "still there: {queue:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // What should not come has had its time when a flush has come back after it.
    client.flush(postrider::session::FlushRequest { upload: true, download: true }).await.unwrap();
    empty(&program.maildir(), book);
    collect(office, book);
}

/// Files that should not be there once all is sent.
fn left_over(state: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(state).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("/bodies/") || name.contains("/staging/") {
                found.push(name);
            }
        }
    }
    found
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn report(book: &Book, samples: &[Sample], last: Sample, stopped: i32, left: &[String]) -> bool {
    let mut wrong = Vec::new();
    let mut twice = 0;
    for (token, recipients) in &book.sent {
        for recipient in recipients {
            let key = (token.clone(), (*recipient).to_owned());
            match book.reached.get(&key).copied().unwrap_or_default() {
                0 if book.cancelled.contains_key(token) => {}
                1 => {}
                0 => wrong.push(format!("{token} never reached {recipient}")),
                2 => twice += 1,
                more => wrong.push(format!("{token} reached {recipient} {more} times")),
            }
        }
    }
    for token in book.refused.keys().filter(|token| !book.cancelled.contains_key(*token)) {
        if book.reports.get(token) != Some(&1) {
            wrong.push(format!("{token}: reports {:?}", book.reports.get(token)));
        }
    }
    for (token, count) in book.injected.iter().filter(|(_, count)| **count != 1) {
        wrong.push(format!("{token} arrived {count} times"));
    }
    if twice > book.lost_replies + book.cut_connections * 4 {
        wrong.push(format!("{twice} arrived twice"));
    }
    let (first, end) = samples.split_at(samples.len() / 3);
    let end = &end[end.len() / 2..];
    println!(
        "out: {} messages, {} MB, {} recipients reached, {} cancelled, {} refused and reported, \
         {twice} twice ({} replies withheld, {} times all connections cut)",
        book.sent.len(),
        book.octets / 1_000_000,
        book.reached.len(),
        book.cancelled.len(),
        book.reports.len(),
        book.lost_replies,
        book.cut_connections,
    );
    println!("in: {} messages, each once; {} sent copies", book.injected.len(), book.copies);
    for (what, of) in [
        ("resident KiB", (|s| s.resident_kib) as fn(&Sample) -> u64),
        ("file descriptors", |s| s.descriptors),
        ("threads", |s| s.threads),
    ] {
        println!(
            "{what}: median of the first third {}, of the last third {}, most {}, at the end {}",
            median(first, of),
            median(end, of),
            samples.iter().map(of).max().unwrap_or_default(),
            of(&last),
        );
    }
    let drift = |of: fn(&Sample) -> u64, slack: u64| median(end, of) > median(first, of) + slack;
    // In a short run the caches are still filling.
    if samples.len() > 300 {
        let warm = median(first, |s| s.resident_kib);
        if drift(|s| s.resident_kib, warm / 4) {
            wrong.push("memory grows".to_owned());
        }
        if drift(|s| s.descriptors, 4) || drift(|s| s.threads, 4) {
            wrong.push("descriptors or threads are not given back".to_owned());
        }
    }
    println!("exit code of the daemon {stopped}; files left: {}", left.len());
    if !left.is_empty() {
        wrong.push(format!("left: {left:?}"));
    }
    for fault in wrong.iter().take(20) {
        println!("WRONG: {fault}");
    }
    wrong.is_empty() && stopped == 0
}
