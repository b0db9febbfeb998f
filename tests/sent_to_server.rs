//! Sent copies that go to the account's own mailbox on the server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    unreachable_pub
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/letters.rs"]
mod letters;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;
#[path = "support/real.rs"]
mod real;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use house::{Account, GRACE, House, PATIENCE, Server, profile_text_with};
use letters::letter;
use office::{account, office, subjects};
use postoffice::{Action, Fault, ImapAction, ImapPhase, Listener, PostOffice};
use postrider::session::{Logon, Service};
use program::Program;
use real::{imaps, on_server};
use realservers::{Dovecot, DovecotOptions, Mailbox, wait};
use rustix::process::Signal;

/// How many owed copies wait below the state folder.
fn owed(state: &Path) -> usize {
    let Ok(folders) = fs::read_dir(state.join("owed-sent")) else { return 0 };
    folders
        .flatten()
        .filter_map(|folder| fs::read_dir(folder.path().join("cur")).ok())
        .map(Iterator::count)
        .sum()
}

/// How often each subject is in ann's mailbox of sent mail.
fn stored(office: &PostOffice) -> BTreeMap<String, usize> {
    let stored = office.messages("ann", "Sent").unwrap_or_default();
    subjects(stored.iter().map(|message| &*message.bytes))
}

async fn await_stored(office: &PostOffice, count: usize) -> BTreeMap<String, usize> {
    let waited = wait::until_async("sent copies on the server", PATIENCE, async || {
        let stored = stored(office);
        (stored.values().sum::<usize>() >= count).then_some(stored)
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {:?}", stored(office)))
}

async fn await_nothing_owed(state: &Path) {
    let waited = wait::until_async("nothing to be owed", PATIENCE, async || {
        (owed(state) == 0).then_some(())
    });
    waited.await.unwrap();
}

/// Dovecot marks the mailbox of sent mail, whatever it is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dovecot_gets_the_copy_into_the_mailbox_it_marks() {
    dovecot_gets_the_copy(DovecotOptions::default(), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dovecot_gets_the_copy_over_a_compressed_connection() {
    let extra_config = "protocol imap {\n  mail_plugins = $mail_plugins imap_zlib\n}\n".to_owned();
    let options = DovecotOptions { extra_config, ..DovecotOptions::default() };
    dovecot_gets_the_copy(options, "compress = true").await;
}

async fn dovecot_gets_the_copy(mut options: DovecotOptions, line: &str) {
    options
        .mailboxes
        .push(Mailbox { name: "Gesendet".to_owned(), special_use: Some("\\Sent".to_owned()) });
    let dovecot = Dovecot::start(options).unwrap();
    let office = office().await;
    let certificates = tempfile::tempdir().unwrap();
    let ca_file = certificates.path().join("ca.pem");
    fs::write(&ca_file, office.ca_pem()).unwrap();
    let smtp = Server::implicit(office.address(Listener::Smtps).unwrap(), &ca_file);
    let imap = imaps(&dovecot).login("ann", &dovecot.password_of("ann").unwrap()).with(line);
    let account = Account::new("work", "Ann Example <ann@example.org>")
        .smtp(smtp.login("ann", "secret"))
        .imap(imap);
    // No Maildir at all: received mail goes elsewhere, sent copies to the server.
    let house = House::with_store(&[account], "mda = \"cat\"\nsent = \"server\"");
    let session = house.open(Logon::Full).await;
    session.submit(letter("kept by the server", &["bob@example.org"])).await.unwrap();
    let waited = wait::until_async("the copy", PATIENCE, async || {
        let files = dovecot.message_files("ann", "Gesendet").unwrap();
        (files.len() == 1).then_some(())
    });
    waited.await.unwrap();
    await_nothing_owed(&house.path("state")).await;
    session.shutdown(GRACE).await.unwrap();

    let copies = on_server(&dovecot, "ann", "Gesendet");
    assert_eq!(copies.len(), 1);
    let sent = office.accepted();
    assert!(copies[0].bytes == sent[0].bytes().unwrap()[..], "the very octets that were sent");
    assert!(format!("{:?}", copies[0].flags).contains("Seen"), "{:?}", copies[0].flags);
    assert!(!house.maildir().exists());
}

/// Proves: OB-16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_owed_over_crashes_and_lost_replies_and_stored_once() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let state = program.path("state/test");
    let account = account(&office, &program.path("config"), &[]);
    let maildir = program.maildir().display().to_string();
    let store = format!("maildir = {maildir:?}\nsent = \"server\"");
    program.write_profile(&profile_text_with(&[account], &store));

    // Killed before the server has the copy.
    // Never let go: the server has read the copy and would store it then.
    let first = office.inject(Fault::imap(ImapPhase::Append, Action::Hang).once());
    let daemon = program.daemon().await;
    program.send("one", "bob@example.org").await;
    first.reached(PATIENCE).await.unwrap();
    daemon.crash().await;
    assert_eq!((owed(&state), stored(&office).len()), (1, 0));
    let status = program.json(&["status"]).await;
    assert_eq!(status["owed_copies"], serde_json::json!([{"transport": "work", "count": 1}]));

    // Killed when the server has it and the reply has not come.
    let hang = office.inject(Fault::imap(ImapPhase::Append, Action::Hang).after_effect().once());
    let daemon = program.daemon().await;
    hang.reached(PATIENCE).await.unwrap();
    daemon.crash().await;
    hang.remove();
    assert_eq!((owed(&state), stored(&office).len()), (1, 1));

    // It is looked for and not stored again; the next one is.
    let daemon = program.daemon().await;
    await_nothing_owed(&state).await;
    program.send("two", "bob@example.org").await;
    let stored = await_stored(&office, 2).await;
    assert!(stored.len() == 2 && stored.values().all(|count| *count == 1), "{stored:?}");
    await_nothing_owed(&state).await;
    let status = program.json(&["status"]).await;
    assert_eq!(status.get("owed_copies"), None, "{status}");

    // Refused: the status says why.
    let full = ImapAction::No("[OVERQUOTA] full".to_owned());
    let refused = office.inject(Fault::imap(ImapPhase::Append, full));
    program.send("three", "bob@example.org").await;
    let last = std::sync::Mutex::new(serde_json::Value::Null);
    let waited = wait::until_async("the reason in the status", PATIENCE, async || {
        let status = program.json(&["status"]).await;
        let owed = &status["owed_copies"][0];
        let why = owed["why"].as_str().is_some_and(|why| why.contains("full"));
        last.lock().unwrap().clone_from(owed);
        (why && owed["count"] == 1).then_some(())
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {:?}", last.lock().unwrap()));
    let shown = program.run(&["status"]).await.out;
    assert!(shown.contains("sent mail: 1 copy not on the server of work yet"), "{shown}");
    refused.remove();
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    assert_eq!(office.accepted_count(), 3);
    assert!(!program.maildir().join(".Sent").exists(), "none in the Maildir");
}
