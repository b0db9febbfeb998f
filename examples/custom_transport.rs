//! A transport of one's own beside the SMTP one: a message to an internet address and to a log,
//! each recipient through its own transport, driven by the same spooler.
//!
//! The transport is `support/log_transport.rs`; this file hosts it with
//! [`SessionOptions::transport`]. `cargo run --example custom_transport` needs no configuration
//! and no network, prints what happens, and exits with 0 only if each of the recipients was
//! reached once and by its own transport.

#[path = "support/expectations.rs"]
mod expectations;
#[path = "support/log_transport.rs"]
mod log_transport;
#[path = "support/post_office.rs"]
mod post_office;
#[path = "support/status_rows.rs"]
mod status_rows;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use expectations::expect;
use log_transport::{FOLDER, LOG, LogProvider};
use postoffice::PostOffice;
use postrider::mapi::{MessageData, PropList, Recipient, RecipientType, tags};
use postrider::session::{QueueRowState, Service, Session, SessionOptions, Submission};
use postrider::spi::{ProfileSection, SectionValue};
use postrider::spooler::TransportService;

/// Nothing here waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

const SUBJECT: &str = "Two ways at once";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => {
            println!("\nEach recipient was reached once, through its own transport.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("custom_transport: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs)?;
    let office = PostOffice::builder().user("ann", "secret").start().await?;
    let profile = post_office::profile("custom", folder.path(), &office)?;
    let options =
        SessionOptions::new(folder.path().join("state")).transport(log_service("diary", &logs));
    let session = Session::open(&profile, options).await?;
    let table = session.status_table().ok_or("the session has no status table")?;
    let printer = tokio::spawn(status_rows::print_changes(Arc::clone(table)));

    let entry = session.submit(Submission { message: message() }).await?;
    println!("submitted {entry}  {SUBJECT}");
    let row = session.wait(&entry, Some(PATIENCE)).await?;
    session.shutdown(Duration::from_secs(5)).await?;
    printer.abort();

    expect(row.state == QueueRowState::Finished, "the message has not ended well")?;
    check_server(&office)?;
    check_logs(&logs)?;
    let maildir = profile.store.maildir.as_deref().ok_or("the profile has no Maildir")?;
    let sent = std::fs::read_dir(maildir.join(".Sent/cur"))?.count();
    expect(sent == 1, "there is not one sent copy")?;
    let reports = std::fs::read_dir(maildir.join("new"))?.count();
    expect(reports == 1, "there is not one report about the log that cannot be")
}

/// What makes a transport a part of a session: its provider, and the settings of its logon. With
/// [`TransportService::service`] several transports stand and fall together (LG-8); with
/// [`TransportService::sender`] an address of the sender chooses this one.
fn log_service(name: &str, logs: &Path) -> TransportService {
    let section = ProfileSection::new()
        .with("name", SectionValue::Text(name.to_owned()))
        .with(FOLDER, SectionValue::Text(logs.display().to_string()));
    TransportService::new(name, Arc::new(LogProvider::default()))
        .provider_name("log files")
        .section(section)
}

/// To an internet address, to a log, and to a log with a name that cannot be.
fn message() -> MessageData {
    let log = |row, address: &str| Recipient {
        addr_type: LOG.to_owned(),
        ..Recipient::smtp(row, RecipientType::To, address)
    };
    MessageData {
        props: PropList::new()
            .with(tags::SUBJECT, SUBJECT)
            .with(tags::BODY, "For Bob's mailbox\nand for the audit log.\n"),
        recipients: vec![
            Recipient::smtp(0, RecipientType::To, "bob@example.org").named("Bob Example"),
            log(1, "audit"),
            log(2, "../elsewhere"),
        ],
        attachments: Vec::new(),
    }
}

/// The server got one message, for the one recipient that is its own.
fn check_server(office: &PostOffice) -> Result<(), Box<dyn Error>> {
    let accepted = office.accepted();
    println!("\nThe mail server");
    for message in &accepted {
        println!("  {:?} from {}", message.recipients(), message.envelope.from);
    }
    let [message] = accepted.as_slice() else {
        return Err("the server did not get exactly one message".into());
    };
    expect(message.recipients() == ["bob@example.org"], "the server got other recipients")?;
    let text = message.body.text();
    expect(text.contains(SUBJECT), "the server got another message")?;
    expect(!text.contains("audit\r\n"), "an address of the log is in the mail's header")?;
    expect(office.violations().is_empty(), "the server saw a violation of the protocol")
}

/// The log has one line, and there is no other log.
fn check_logs(logs: &Path) -> Result<(), Box<dyn Error>> {
    println!("The logs");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(logs)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    expect(names == ["audit.log"], "there are other logs than the one that was addressed")?;
    let text = std::fs::read_to_string(logs.join("audit.log"))?;
    print!("  audit.log: {text}");
    expect(text.lines().count() == 1, "the log does not have exactly one line")?;
    expect(text.contains(SUBJECT), "the log has another message")
}
