//! What is no message's fault: wrong passwords and servers that are away. Nothing is lost, the
//! status says why, and it goes on when it can.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/letters.rs"]
mod letters;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/real.rs"]
mod real;

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use house::{Account, GRACE, House, PATIENCE, Server, assert_all, await_queue_row, await_row};
use letters::letter;
use maildir::{await_messages, messages};
use postrider::mapi::StatusCode;
use postrider::session::{FlushRequest, Logon, QueueRowState, RecipientRowState, Service, Session};
use postrider::spi::StatusRow;
use real::{Provider, await_delivered, dovecot, imaps, on_server};
use realservers::Dovecot;

const DOWNLOAD: FlushRequest = FlushRequest { upload: false, download: true };
const MESSAGE: &[u8] = b"From: bob@example.test\r\nSubject: hello\r\n\r\nHello\r\n";

fn refused(row: &StatusRow) -> bool {
    row.status_code.contains(StatusCode::FAILURE)
        && row.status_string.contains("MAPI_E_LOGON_FAILED")
}

fn unreachable(row: &StatusRow) -> bool {
    row.status_code.contains(StatusCode::OFFLINE)
        && row.status_string.contains("MAPI_E_NETWORK_ERROR")
}

fn well(row: &StatusRow) -> bool {
    let code = row.status_code;
    code.contains(StatusCode::AVAILABLE)
        && !code.intersects(StatusCode::FAILURE | StatusCode::OFFLINE)
        && !row.status_string.contains("MAPI_E_")
}

/// Writes a password file as its owner would: private, whole at every instant.
fn write_password(file: &Path, password: &str) {
    use std::io::Write as _;
    let fresh = file.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut open =
        options.create(true).write(true).truncate(true).mode(0o600).open(&fresh).unwrap();
    writeln!(open, "{password}").unwrap();
    drop(open);
    std::fs::rename(&fresh, file).unwrap();
}

async fn await_well(session: &Session) {
    await_row(session, "work", "well again", well).await;
}

async fn assert_sent(session: &Session, entry: &postrider::mapi::EntryId) {
    let row = session.wait(entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished, "{row:?}");
    assert_all(&row, RecipientRowState::Delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_keeps_mail_until_the_file_is_mended() {
    let provider = Provider::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write_password(&file, "not ann's password");
    let smtp = provider.submission().login_by_file("ann", &file);
    let house = House::new(&[Account::new("work", "ann@example.test").smtp(smtp)]);
    let session = house.open(Logon::Full).await;

    let entry = session.submit(letter("held back", &["bob@example.test"])).await.unwrap();
    let row = await_row(&session, "work", "a refused login", refused).await;
    assert!(!row.status_string.contains("not ann's"), "{row:?}");
    let row = await_queue_row(&session, &entry, "the reason in the queue", |row| {
        row.last_error.is_some() && row.state != QueueRowState::Sending
    })
    .await;
    // The message is not to blame: it waits, nobody gets a report.
    assert_all(&row, RecipientRowState::Pending);
    assert!(row.next_attempt.is_some(), "{row:?}");
    assert!(messages(&house.maildir(), "INBOX").is_empty());

    write_password(&file, &provider.dovecot.password_of("ann").unwrap());
    assert_sent(&session, &entry).await;
    await_well(&session).await;
    await_delivered(&provider.dovecot, "bob", 1);
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(on_server(&provider.dovecot, "bob", "INBOX").len(), 1);
    assert!(messages(&house.maildir(), "INBOX").is_empty(), "a report about a refused login");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_keeps_inbound_waiting_until_the_server_takes_it() {
    let dovecot = dovecot(&[]);
    dovecot.lmtp_deliver("ann", MESSAGE).unwrap();
    let imap = imaps(&dovecot).login("ann", "mended");
    let house = House::new(&[Account::new("work", "ann@example.test").imap(imap)]);
    let session = house.open(Logon::Full).await;
    await_row(&session, "work", "a refused login", refused).await;
    assert!(messages(&house.maildir(), "INBOX").is_empty());

    dovecot.set_password("ann", "mended").unwrap();
    // After a refusal the account waits long, so that nobody is locked out; a flush does not.
    let flushed = session.flush(DOWNLOAD).await.unwrap();
    assert!(flushed.troubles.is_empty(), "{flushed:?}");
    await_messages(&house.maildir(), "INBOX", 1).await;
    await_well(&session).await;
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_says_why_it_could_not() {
    let provider = Provider::start(&[]);
    let smtp = provider.submissions().login("ann", "wrong");
    let imap = provider.imap().login("ann", "wrong too");
    let house = House::new(&[Account::new("work", "ann@example.test").smtp(smtp).imap(imap)]);
    let session = house.open(Logon::Closed).await;
    let entry = session.submit(letter("stays", &["bob@example.test"])).await.unwrap();
    let both = FlushRequest { upload: true, download: true };
    let flushed = session.flush(both).await.unwrap();
    assert_eq!((flushed.sent, flushed.left, flushed.received), (0, 1, 0));
    assert!(flushed.troubles.iter().any(|one| one.contains("MAPI_E_LOGON_FAILED")), "{flushed:?}");
    let row = session.queue_row(&entry).await.unwrap();
    assert_all(&row, RecipientRowState::Pending);
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_while_the_server_is_down_goes_out_when_it_is_back() {
    let provider = Provider::start(&[]);
    let house = House::new(&[provider.sender()]);
    let session = house.open(Logon::Full).await;
    provider.postfix.stop().unwrap();

    let mut entries = Vec::new();
    for number in 0..5 {
        let submission = letter(&format!("down {number}"), &["bob@example.test"]);
        entries.push(session.submit(submission).await.unwrap());
    }
    await_row(&session, "work", "offline", unreachable).await;
    let queue = session.queue(None, 100).await.unwrap();
    assert_eq!(queue.len(), 5);
    for row in &queue {
        assert_all(row, RecipientRowState::Pending);
    }

    provider.postfix.start_again().unwrap();
    for entry in &entries {
        assert_sent(&session, entry).await;
    }
    await_well(&session).await;
    await_delivered(&provider.dovecot, "bob", 5);
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(on_server(&provider.dovecot, "bob", "INBOX").len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_amid_traffic_loses_and_doubles_nothing() {
    let provider = Provider::start(&[]);
    let house = House::new(&[provider.sender()]);
    let session = house.open(Logon::Full).await;
    let mut entries = Vec::new();
    for number in 0..60 {
        let submission = letter(&format!("number {number}."), &["bob@example.test"]);
        entries.push(session.submit(submission).await.unwrap());
        if number == 30 {
            // Some are on the wire now.
            session.wait(&entries[5], Some(PATIENCE)).await.unwrap();
            provider.postfix.kill().unwrap();
        }
    }
    await_row(&session, "work", "offline", unreachable).await;
    provider.postfix.start_again().unwrap();
    for entry in &entries {
        assert_sent(&session, entry).await;
    }
    session.shutdown(GRACE).await.unwrap();
    let subject = |number: usize| format!("Subject: number {number}.\r\n");
    await_delivered(&provider.dovecot, "bob", 60);
    let arrived: Vec<_> =
        on_server(&provider.dovecot, "bob", "INBOX").into_iter().map(|one| one.bytes).collect();
    for number in 0..60 {
        let copies = arrived
            .iter()
            .filter(|bytes| maildir::contains(bytes, subject(number).as_bytes()))
            .count();
        // Only a server that dies between its promise and its reply may get a message twice.
        assert!((1..=2).contains(&copies), "{copies} copies of number {number}");
    }
}

fn receiver(dovecot: &Dovecot, server: Server) -> Account {
    let password = dovecot.password_of("ann").unwrap();
    Account::new("work", "ann@example.test").imap(server.login("ann", &password))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbound_goes_on_when_the_server_is_back() {
    let dovecot = dovecot(&[]);
    let house = House::new(&[receiver(&dovecot, imaps(&dovecot))]);
    dovecot.lmtp_deliver("ann", MESSAGE).unwrap();
    let session = house.open(Logon::Full).await;
    await_messages(&house.maildir(), "INBOX", 1).await;

    dovecot.stop().unwrap();
    await_row(&session, "work", "offline", unreachable).await;
    dovecot.start_again().unwrap();
    dovecot.lmtp_deliver("ann", MESSAGE).unwrap();
    await_messages(&house.maildir(), "INBOX", 2).await;
    await_well(&session).await;

    dovecot.kill().unwrap();
    await_row(&session, "work", "offline", unreachable).await;
    dovecot.start_again().unwrap();
    dovecot.lmtp_deliver("ann", MESSAGE).unwrap();
    await_messages(&house.maildir(), "INBOX", 3).await;
    session.shutdown(GRACE).await.unwrap();
}
