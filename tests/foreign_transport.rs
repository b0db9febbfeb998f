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
    QueueRowState, RecipientRowState, Service, Session, SessionOptions, Submission, TraceStepKind,
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
