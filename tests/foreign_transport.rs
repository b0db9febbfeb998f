//! A transport of another provider as a part of a session.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    unreachable_pub
)]

#[path = "support/scripted_transport.rs"]
mod scripted_transport;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider::mapi::{MapiCode, MessageData, PropList, Recipient, RecipientType, tags};
use postrider::profile::{Environment, Profile};
use postrider::session::{
    QueueRow, QueueRowState, RecipientRowState, Service, Session, SessionOptions, Submission,
    TraceStepKind,
};
use postrider::spooler::TransportService;
use scripted_transport::{ScriptedProvider, ScriptedTransport};

const PATIENCE: Duration = Duration::from_secs(30);

/// A profile whose only transport of its own has a server that is never asked.
fn profile(folder: &Path) -> Profile {
    let text = format!(
        "[[transport]]\nname = \"work\"\nidentity = \"ann@example.org\"\n\
         smtp = {{ host = \"localhost\", port = 1 }}\n[store]\nmaildir = {:?}\n",
        folder.join("Mail").display().to_string()
    );
    Profile::parse("test", &text, &folder.join("test.toml"), &Environment::empty()).unwrap()
}

fn service(name: &str, transport: &Arc<ScriptedTransport>) -> TransportService {
    TransportService::new(name, Arc::new(ScriptedProvider(Arc::clone(transport))))
}

/// Proves: AT-2, AT-3, LG-1
#[tokio::test]
async fn a_transport_of_another_provider_gets_the_recipients_of_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(ScriptedTransport::new(&["LOG"]));
    let options = SessionOptions::new(folder.path().join("state")).transport(service("log", &log));
    let session = Session::open(&profile(folder.path()), options).await.unwrap();
    let rows = session.status_table().unwrap().rows();
    let names: Vec<&str> = rows.iter().map(|row| row.display_name.as_str()).collect();
    assert_eq!(names, ["work", "log", "spooler"], "behind the profile's own");
    let recipient =
        Recipient { addr_type: "LOG".to_owned(), ..Recipient::smtp(0, RecipientType::To, "audit") };
    let message = MessageData {
        props: PropList::new().with(tags::SUBJECT, "hello"),
        recipients: vec![recipient],
        attachments: Vec::new(),
    };
    let entry = session.submit(Submission { message }).await.unwrap();
    tokio::time::timeout(PATIENCE, log.wait_for("end", 1)).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!((row.state, row.transport.as_str()), (QueueRowState::Finished, "log"));
    assert_eq!(states(&row), [("audit", RecipientRowState::Delivered)]);
    // Also for who asks when it is over.
    let later = session.queue_row(&entry).await.unwrap();
    assert_eq!(later, row);
    assert_eq!(later.subject, "hello");
    // What is known of it without a queue of ours.
    let trace = session.trace(&entry.to_string()).await.unwrap();
    let kinds: Vec<_> = trace.steps.iter().map(|step| step.step).collect();
    use TraceStepKind::{Delivered, Finished, Submitted};
    assert_eq!(kinds, [Submitted, Delivered, Finished], "{trace:?}");
    assert_eq!(trace.recipients[0].state, RecipientRowState::Delivered);
    assert_eq!(session.trace(&trace.message_id).await.unwrap(), trace);
    session.shutdown(PATIENCE).await.unwrap();
    let calls = log.calls();
    assert!(calls.contains(&"submit audit".to_owned()), "{calls:?}");
    assert_eq!(calls[calls.len() - 3..], ["logoff", "release", "shutdown"]);
}

/// Proves: AT-3
#[tokio::test]
async fn the_queue_shows_the_recipients_of_all_transports() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(ScriptedTransport::new(&["LOG"]));
    let options = SessionOptions::new(folder.path().join("state")).transport(service("log", &log));
    let session = Session::open(&profile(folder.path()), options).await.unwrap();
    let recipients = [("LOG", "audit"), ("SMTP", "bob@example.org"), ("FAX", "555")];
    let recipients = (0..).zip(recipients).map(|(row, (kind, address))| {
        let recipient = Recipient::smtp(row, RecipientType::To, address);
        Recipient { addr_type: kind.to_owned(), ..recipient }
    });
    let message = MessageData {
        props: PropList::new().with(tags::SUBJECT, "for all"),
        recipients: recipients.collect(),
        attachments: Vec::new(),
    };
    let entry = session.submit(Submission { message }).await.unwrap();
    let expected = [
        ("audit", RecipientRowState::Delivered),
        ("bob@example.org", RecipientRowState::Pending),
        ("555", RecipientRowState::Failed),
    ];
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            let row = session.queue_row(&entry).await.unwrap();
            if states(&row) == expected {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let row = match seen.await {
        Ok(row) => row,
        Err(_) => panic!("{:?}", session.queue_row(&entry).await),
    };
    assert_eq!(row.transport, "work", "it is with the one that has not finished");
    assert!(row.recipients[2].reply.starts_with("5.3.3 "), "{row:?}");
    session.cancel(&entry).await.unwrap();
    // How the others ended is not forgotten with it.
    let ended = session.queue_row(&entry).await.unwrap();
    assert_eq!(ended.state, QueueRowState::Cancelled);
    assert_eq!(states(&ended), expected);
    session.shutdown(PATIENCE).await.unwrap();
}

fn states(row: &QueueRow) -> Vec<(&str, RecipientRowState)> {
    row.recipients.iter().map(|one| (one.address.as_str(), one.state)).collect()
}

#[tokio::test]
async fn two_transports_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(ScriptedTransport::new(&["LOG"]));
    for names in [vec!["work"], vec!["log", "log"]] {
        let options = SessionOptions::new(folder.path().join("state"));
        let options =
            names.iter().fold(options, |options, name| options.transport(service(name, &log)));
        let opened = Session::open(&profile(folder.path()), options).await;
        let error = opened.err().unwrap();
        assert_eq!(error.code(), MapiCode::INVALID_PARAMETER, "{error}");
        assert!(error.detail().contains(names[0]), "{error}");
    }
    assert!(log.calls().is_empty(), "nobody was logged on");
}
