//! Flushing: mail is queued while the server is down, and one flush moves everything both ways
//! once it is up again.
//!
//! `cargo run --example flush` starts a mail server in this process, needs no configuration and
//! no network, prints every change of the status table, and exits with 0 only if everything
//! arrived (spec sections 7 and 8).

#[path = "support/expectations.rs"]
mod expectations;
#[path = "support/post_office.rs"]
mod post_office;
#[path = "support/status_rows.rs"]
mod status_rows;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use expectations::expect;
use postoffice::PostOffice;
use postrider::mapi::{MessageData, PropList, Recipient, RecipientType, tags};
use postrider::session::{
    FlushRequest, FlushSummary, QueueRowState, Service, Session, SessionOptions, Submission,
};

/// Nothing here waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages sent, and messages that wait on the server.
const OUT: u64 = 3;
const IN: u64 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => {
            println!("\nOne flush moved everything, both ways.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flush: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let office = PostOffice::builder().user("ann", "secret").start().await?;
    let profile = post_office::profile("flush", folder.path(), &office)?;
    office.stop().await;
    println!("the server is down");
    let options = SessionOptions::new(folder.path().join("state"));
    let session = Session::open(&profile, options).await?;
    let table = session.status_table().ok_or("the session has no status table")?;
    let printer = tokio::spawn(status_rows::print_changes(Arc::clone(table)));

    let mut entries = Vec::new();
    for number in 1..=OUT {
        let entry = session.submit(letter(number)).await?;
        println!("submitted {entry}");
        entries.push(entry);
    }
    let down = flush(&session).await?;
    expect(down.sent + down.received == 0 && down.left == OUT, "something moved without a server")?;
    expect(!down.troubles.is_empty(), "the flush does not say why nothing moved")?;

    for number in 1..=IN {
        let mail = format!("From: bob@example.org\r\nSubject: Mail {number}\r\n\r\nHello.\r\n");
        office.deliver("ann", "INBOX", mail.into_bytes())?;
    }
    office.restart().await?;
    println!("the server is up, and {IN} messages wait there");
    let up = flush(&session).await?;
    for entry in &entries {
        let row = session.wait(entry, Some(PATIENCE)).await?;
        expect(row.state == QueueRowState::Finished, "a message has not ended well")?;
    }
    session.shutdown(Duration::from_secs(5)).await?;
    printer.abort();

    expect(up.left == 0 && up.troubles.is_empty(), "something is left, or still in trouble")?;
    expect(office.accepted_count() == OUT, "the server did not get every message once")?;
    let maildir = profile.store.maildir.as_deref().ok_or("the profile has no Maildir")?;
    let arrived = std::fs::read_dir(maildir.join("new"))?.count();
    expect(u64::try_from(arrived)? == IN, "not every message of the server is in the Maildir")
}

/// Flushes outbound, then inbound (FL-4); returns when both are done (FL-7).
async fn flush(session: &Session) -> Result<FlushSummary, Box<dyn Error>> {
    println!("flush");
    let both = FlushRequest { upload: true, download: true };
    let summary = tokio::time::timeout(PATIENCE, session.flush(both)).await??;
    println!(
        "flushed: {} sent, {} received, {} left",
        summary.sent, summary.received, summary.left
    );
    summary.troubles.iter().for_each(|trouble| println!("          {trouble}"));
    Ok(summary)
}

fn letter(number: u64) -> Submission {
    Submission {
        message: MessageData {
            props: PropList::new()
                .with(tags::SUBJECT, format!("Letter {number}"))
                .with(tags::BODY, "Written while the server was down.\n"),
            recipients: vec![Recipient::smtp(0, RecipientType::To, "bob@example.org")],
            attachments: Vec::new(),
        },
    }
}
