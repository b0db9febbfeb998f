//! The whole way on one machine, without configuration and without a network: a mail server in
//! this process, a profile for it, a session that sends three messages and fetches them again.
//!
//! `cargo run --example roundtrip` prints every change of the status table and the Maildir at the
//! end, and exits with 0 only if everything arrived byte for byte.

#[path = "support/expectations.rs"]
mod expectations;
#[path = "support/post_office.rs"]
mod post_office;
#[path = "support/status_rows.rs"]
mod status_rows;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use expectations::expect;
use postoffice::PostOffice;
use postrider::mapi::{Attachment, MessageData, PropList, Recipient, RecipientType, tags};
use postrider::session::{
    FlushRequest, Logon, QueueRow, RecipientRowState, Service, Session, SessionOptions, Submission,
};

/// Nothing here waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many recipients the third message has; one more is refused by the server.
const CROWD: usize = 24;

#[tokio::main]
async fn main() -> ExitCode {
    let start = Instant::now();
    match run().await {
        Ok(()) => {
            println!("\nEverything arrived byte for byte, in {} ms.", start.elapsed().as_millis());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("roundtrip: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let office = PostOffice::builder().user("ann", "secret").start().await?;
    let profile = post_office::profile("roundtrip", folder.path(), &office)?;
    let options = SessionOptions::new(folder.path().join("state")).logon(Logon::Closed);
    let session = Session::open(&profile, options).await?;
    let table = session.status_table().ok_or("the session has no status table")?;
    let printer = tokio::spawn(status_rows::print_changes(std::sync::Arc::clone(table)));

    let mut entries = Vec::new();
    for message in messages() {
        let subject = message.props.text(tags::SUBJECT).unwrap_or_default().to_owned();
        let entry = session.submit(Submission { message }).await?;
        println!("submitted {entry}  {subject}");
        entries.push(entry);
    }

    let flush = FlushRequest { upload: true, download: true };
    let summary = tokio::time::timeout(PATIENCE, session.flush(flush)).await??;
    println!("flushed: {} sent, {} received", summary.sent, summary.received);
    let mut rows = Vec::new();
    for entry in &entries {
        rows.push(session.wait(entry, Some(PATIENCE)).await?);
    }
    session.shutdown(Duration::from_secs(5)).await?;
    printer.abort();

    print_outcomes(&rows);
    check(&office, profile.store.maildir.as_deref().ok_or("the profile has no Maildir")?, &rows)
}

/// One plain, one with an attachment and a subject beyond ASCII, one to many of whom one is not
/// known to the server.
fn messages() -> Vec<MessageData> {
    let to = |row, address: &str| Recipient::smtp(row, RecipientType::To, address);
    let plain = MessageData {
        props: PropList::new()
            .with(tags::SUBJECT, "Plain")
            .with(tags::BODY, "Hello Ann,\n.\nthe line above is a single dot.\n"),
        recipients: vec![to(0, "ann@example.org").named("Ann Example")],
        attachments: Vec::new(),
    };
    let attached = MessageData {
        props: PropList::new()
            .with(tags::SUBJECT, "Grüße aus Zürich 🚂")
            .with(tags::BODY, "Im Anhang: alle 256 Bytes, viermal.\n"),
        recipients: vec![to(0, "ann@example.org")],
        attachments: vec![Attachment {
            filename: "übersicht.bin".to_owned(),
            mime_tag: "application/octet-stream".to_owned(),
            content_id: String::new(),
            data: (0..4).flat_map(|_| 0..=255_u8).collect(),
        }],
    };
    let crowd = (0..).zip((0..CROWD).map(|number| format!("ann+{number}@example.org")));
    let mut recipients: Vec<Recipient> = crowd.map(|(row, address)| to(row, &address)).collect();
    recipients.push(to(1000, "550-5.1.1@example.org"));
    let many = MessageData {
        props: PropList::new()
            .with(tags::SUBJECT, "To many")
            .with(tags::BODY, "One of you is not known there.\n"),
        recipients,
        attachments: Vec::new(),
    };
    vec![plain, attached, many]
}

fn print_outcomes(rows: &[QueueRow]) {
    println!("\nOutcomes");
    for row in rows {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for recipient in &row.recipients {
            let state = match recipient.state {
                RecipientRowState::Pending => "pending",
                RecipientRowState::Delivered => "delivered",
                RecipientRowState::Deferred => "deferred",
                RecipientRowState::Failed => "failed",
            };
            *counts.entry(state).or_default() += 1;
        }
        println!("  {:<24} {counts:?}", row.subject);
        for failed in row.recipients.iter().filter(|one| one.state == RecipientRowState::Failed) {
            println!("    {}: {}", failed.address, failed.reply);
        }
    }
}

/// Compares what the server has with what the Maildir has.
fn check(office: &PostOffice, maildir: &Path, rows: &[QueueRow]) -> Result<(), Box<dyn Error>> {
    let inbox = files(&maildir.join("new"))?;
    let sent = files(&maildir.join(".Sent/cur"))?;
    println!("\nMaildir");
    for (path, bytes) in inbox.iter().chain(&sent) {
        println!("  {:>6} bytes  {}", bytes.len(), path.strip_prefix(maildir)?.display());
    }
    let served: Vec<Vec<u8>> =
        office.messages("ann", "INBOX")?.iter().map(|message| message.bytes.to_vec()).collect();
    let (reports, mail): (Vec<_>, Vec<_>) =
        inbox.into_values().partition(|bytes| contains(bytes, b"multipart/report"));
    let mut missing = served.clone();
    for bytes in &mail {
        let at = missing.iter().position(|one| one == bytes);
        missing.remove(at.ok_or("a file in the Maildir is not what the server has")?);
    }
    expect(missing.is_empty(), "a message on the server is not in the Maildir")?;
    expect(mail.len() >= 3, "fewer than three messages came back")?;
    expect(sent.len() == 3, "there are not three sent copies")?;
    expect(reports.len() == 1, "there is not exactly one report for the refused recipient")?;
    expect(contains(&reports.concat(), b"550-5.1.1@example.org"), "the report names nobody")?;
    expect(office.violations().is_empty(), "the server saw a violation of the protocol")?;
    let states = rows.iter().flat_map(|row| &row.recipients);
    let failed: Vec<&str> = states
        .clone()
        .filter(|recipient| recipient.state == RecipientRowState::Failed)
        .map(|recipient| recipient.address.as_str())
        .collect();
    expect(failed == ["550-5.1.1@example.org"], "not exactly the unknown recipient failed")?;
    let delivered = states.filter(|one| one.state == RecipientRowState::Delivered).count();
    expect(delivered == 2 + CROWD, "not every other recipient was delivered to")
}

fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
