//! The same with a real account: reads a profile, sends a message to its own address through it,
//! waits for the outcome and fetches what has come.
//!
//! `cargo run --example real_account -- NAME` reads `~/.config/postrider/NAME.toml`; the spool
//! goes into a temporary folder, the mail into the profile's Maildir.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use postrider::mapi::{MessageData, PropList, Recipient, RecipientType, tags};
use postrider::profile::{Dirs, Environment, Profile};
use postrider::session::{
    FlushRequest, Logon, Service, Session, SessionOptions, StatusReport, Submission,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("usage: real_account PROFILE")?;
    let environment = Environment::of_process();
    let dirs = Dirs::resolve(None, None, &environment, Path::new("."))?;
    let profile = Profile::load(&dirs, &name.parse()?, &environment)?;
    let own = profile
        .transports
        .iter()
        .find(|transport| transport.smtp.is_some())
        .map(|transport| transport.identity.address.clone())
        .ok_or("no transport of this profile sends")?;

    let folder = tempfile::tempdir()?;
    let options = SessionOptions::new(folder.path()).logon(Logon::Closed);
    let session = Session::open(&profile, options).await?;
    let message = MessageData {
        props: PropList::new()
            .with(tags::SUBJECT, "postrider was here")
            .with(tags::BODY, "This message went out and came back through your account.\n"),
        recipients: vec![Recipient::smtp(0, RecipientType::To, own)],
        attachments: Vec::new(),
    };
    let entry = session.submit(Submission { message }).await?;
    println!("submitted {entry}");
    let sent = session.flush(FlushRequest { upload: true, download: false }).await?;
    print_status(&session.status().await?);
    println!("{} sent, {} left {:?}", sent.sent, sent.left, sent.troubles);
    for recipient in session.queue_row(&entry).await?.recipients {
        println!("{}: {:?} {}", recipient.address, recipient.state, recipient.reply);
    }
    let fetched = session.flush(FlushRequest { upload: false, download: true }).await?;
    println!("{} received", fetched.received);
    session.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

fn print_status(report: &StatusReport) {
    for row in &report.rows {
        println!("{:<12} {}", row.name, row.status_string);
    }
}
