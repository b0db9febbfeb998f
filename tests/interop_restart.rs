//! A session that ends in the middle and one that begins where it ended: with real servers,
//! nothing is lost and nothing comes twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    clippy::string_slice,
    unreachable_pub
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/letters.rs"]
mod letters;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/real.rs"]
mod real;

use std::collections::BTreeSet;
use std::time::Duration;

use house::{Account, GRACE, House, PATIENCE, Server};
use letters::{letter, letter_from};
use mail_parser::MessageParser;
use maildir::{await_messages, messages};
use postrider::session::{FlushRequest, Logon, QueueRowState, Service};
use real::{Provider, await_delivered, dovecot, on_server, receiver};
use realservers::{Dump, SinkOptions, SmtpSink, wait};

fn subjects(messages: &[Vec<u8>]) -> Vec<String> {
    let mut subjects: Vec<String> = messages
        .iter()
        .map(|bytes| {
            let parsed = MessageParser::default().parse(bytes).unwrap();
            parsed.subject().unwrap().to_owned()
        })
        .collect();
    subjects.sort();
    subjects
}

fn numbered(count: usize) -> Vec<String> {
    let mut subjects: Vec<String> = (0..count).map(|number| format!("number {number}")).collect();
    subjects.sort();
    subjects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outgoing_queue_goes_on_where_it_stopped() {
    let sink = SmtpSink::start(SinkOptions { dump: Dump::Messages, ..SinkOptions::default() });
    let sink = sink.unwrap();
    let server = Server::plain(sink.address()).with("connections = 2");
    let house = House::new(&[Account::new("work", "ann@example.test").smtp(server)]);

    // A session that does not connect takes some.
    let session = house.open(Logon::None).await;
    for number in 0..20 {
        session.submit(letter(&format!("number {number}"), &["bob@example.test"])).await.unwrap();
    }
    session.shutdown(GRACE).await.unwrap();

    // One that is in the middle of them ends, three times, and takes more meanwhile.
    for round in 1..4 {
        let session = house.open(Logon::Full).await;
        for number in round * 20..(round + 1) * 20 {
            let submission = letter(&format!("number {number}"), &["bob@example.test"]);
            session.submit(submission).await.unwrap();
        }
        sink.await_messages(u64::try_from(round * 10).unwrap()).unwrap();
        session.shutdown(GRACE).await.unwrap();
    }
    let session = house.open(Logon::Full).await;
    let waited = wait::until_async("an empty queue", PATIENCE, async || {
        session.queue(None, 1).await.unwrap().is_empty().then_some(())
    });
    waited.await.unwrap();
    session.shutdown(GRACE).await.unwrap();

    let sunk: Vec<Vec<u8>> =
        sink.messages().unwrap().into_iter().map(|kept| kept.content).collect();
    assert_eq!(subjects(&sunk), numbered(80));
    assert_eq!(subjects(&messages(&house.maildir(), "Sent")), numbered(80));
}

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_dropped_loses_nothing() {
    let provider = Provider::start(&[]);
    let house = House::new(&[provider.sender()]);
    for round in 0..3 {
        let session = house.open(Logon::Full).await;
        for number in round * 10..(round + 1) * 10 {
            let submission = letter(&format!("number {number}"), &["bob@example.test"]);
            session.submit(submission).await.unwrap();
        }
        drop(session);
    }
    let session = house.open(Logon::Full).await;
    let waited = wait::until_async("an empty queue", PATIENCE, async || {
        session.queue(None, 1).await.unwrap().is_empty().then_some(())
    });
    waited.await.unwrap();
    session.shutdown(GRACE).await.unwrap();
    await_delivered(&provider.dovecot, "bob", 30);
    let arrived: Vec<Vec<u8>> =
        on_server(&provider.dovecot, "bob", "INBOX").into_iter().map(|one| one.bytes).collect();
    // What was on the wire when it was dropped may come twice, everything comes.
    let found: BTreeSet<String> = subjects(&arrived).into_iter().collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), numbered(30));
    assert_eq!(subjects(&messages(&house.maildir(), "Sent")), numbered(30));
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_is_fetched_once_however_often_it_is_interrupted() {
    const COUNT: usize = 300;
    let dovecot = dovecot(&[]);
    for number in 0..COUNT {
        let mail = format!("Subject: number {number}\r\n\r\n{}\r\n", "x".repeat(number * 7));
        dovecot.lmtp_deliver("ann", mail.as_bytes()).unwrap();
    }
    let house = House::new(&[receiver(&dovecot, "after = \"seen\"")]);
    for part in 1..4 {
        let session = house.open(Logon::Full).await;
        let what = format!("part {part} of the mail");
        let waited = wait::until_async(&what, PATIENCE, async || {
            (messages(&house.maildir(), "INBOX").len() >= part * COUNT / 5).then_some(())
        });
        waited.await.unwrap();
        match part {
            1 => session.shutdown(GRACE).await.unwrap(),
            2 => session.shutdown(Duration::ZERO).await.unwrap(),
            _ => drop(session),
        }
    }
    let session = house.open(Logon::Closed).await;
    let download = FlushRequest { upload: false, download: true };
    let summary = session.flush(download).await.unwrap();
    assert!(summary.troubles.is_empty(), "{summary:?}");
    let again = session.flush(download).await.unwrap();
    assert_eq!(again.received, 0);
    session.shutdown(GRACE).await.unwrap();
    let fetched = await_messages(&house.maildir(), "INBOX", COUNT).await;
    assert_eq!(subjects(&fetched), numbered(COUNT));
    let flagged = on_server(&dovecot, "ann", "INBOX");
    assert!(flagged.iter().all(|one| one.flags.iter().any(|flag| flag == r"\Seen")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_accounts_keep_apart_over_restarts() {
    let provider = Provider::start(&[]);
    let password = |user: &str| provider.dovecot.password_of(user).unwrap();
    let house = House::new(&[
        Account::new("one", "ann@example.test")
            .smtp(provider.submissions().login("ann", &password("ann")))
            .imap(provider.imaps().login("ann", &password("ann")).with("after = \"delete\"")),
        Account::new("two", "bob@example.test")
            .smtp(provider.submission().login("bob", &password("bob")))
            .imap(provider.imap().login("bob", &password("bob"))),
    ]);
    for round in 0..3 {
        let session = house.open(Logon::Full).await;
        for (from, to) in [("ann", "bob"), ("bob", "ann")] {
            let (from, to) = (format!("{from}@example.test"), format!("{to}@example.test"));
            let subject = format!("round {round} to {to}");
            let submission = letter_from(&from, &subject, &[to.as_str()]);
            let entry = session.submit(submission).await.unwrap();
            let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
            assert_eq!(row.state, QueueRowState::Finished);
            let expected = if from.starts_with("ann") { "one" } else { "two" };
            assert_eq!(row.transport, expected);
        }
        await_messages(&house.maildir(), "INBOX", 2 * (round + 1)).await;
        session.shutdown(GRACE).await.unwrap();
    }
    let mut expected: Vec<String> = (0..3)
        .flat_map(|round| ["ann", "bob"].map(|to| format!("round {round} to {to}@example.test")))
        .collect();
    expected.sort();
    assert_eq!(subjects(&messages(&house.maildir(), "INBOX")), expected);
    assert!(on_server(&provider.dovecot, "ann", "INBOX").is_empty());
    assert_eq!(on_server(&provider.dovecot, "bob", "INBOX").len(), 3);
}

/// Puts messages into a mailbox on the server's disk, as one that is already there.
fn fill(dovecot: &realservers::Dovecot, one: &std::path::Path, count: usize) {
    use std::os::unix::fs::{MetadataExt, chown};
    let folder = one.parent().unwrap();
    let owner = std::fs::metadata(one).unwrap();
    for number in 1..count {
        let body = "some line of text\n".repeat(number % 170);
        let file = folder.join(format!("1700000000.M{number}P1.example"));
        std::fs::write(&file, format!("Subject: number {number}\n\n{body}")).unwrap();
        std::fs::set_permissions(&file, owner.permissions()).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    assert_eq!(dovecot.message_files("ann", "INBOX").unwrap().len(), count);
}

/// A server that is killed while a large mailbox is fetched, one that restarts under IDLE, and
/// one whose administrator has deleted its index and list of numbers: every message once.
///
/// Proves: IB-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_inbox_outlives_a_server_that_is_killed_and_rebuilt() {
    const COUNT: usize = 2000;
    const LONG: Duration = Duration::from_secs(240);
    let dovecot = dovecot(&[]);
    dovecot.lmtp_deliver("ann", b"Subject: number 0\r\n\r\nfirst\r\n").unwrap();
    let first = dovecot.message_files("ann", "INBOX").unwrap().remove(0);
    fill(&dovecot, &first, COUNT);
    let house = House::new(&[receiver(&dovecot, "after = \"keep\"")]);
    let session = house.open(Logon::Full).await;
    let here = || messages(&house.maildir(), "INBOX").len();
    let reached = async |count: usize| {
        let what = format!("{count} messages");
        wait::until_async(&what, LONG, async || (here() >= count).then_some(())).await.unwrap();
    };
    for part in [COUNT / 5, COUNT / 2] {
        reached(part).await;
        dovecot.kill().unwrap();
        dovecot.start_again().unwrap();
    }
    reached(COUNT).await;
    let all = messages(&house.maildir(), "INBOX");
    assert_eq!(subjects(&all), numbered(COUNT));

    // Under IDLE the server goes, loses what it knew of its numbers, and comes back.
    dovecot.stop().unwrap();
    let mut lost = 0;
    for entry in std::fs::read_dir(dovecot.maildir("ann", "INBOX")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("dovecot") && path.is_file() {
            std::fs::remove_file(&path).unwrap();
            lost += 1;
        }
    }
    assert!(lost > 1, "{lost} files with numbers");
    dovecot.start_again().unwrap();
    let new = format!("Subject: number {COUNT}\r\n\r\nnew\r\n");
    dovecot.lmtp_deliver("ann", new.as_bytes()).unwrap();
    reached(COUNT + 1).await;
    // A look at everything ends before it is counted.
    let flushed = session.flush(FlushRequest { upload: false, download: true }).await.unwrap();
    assert!(flushed.troubles.is_empty(), "{flushed:?}");
    session.shutdown(GRACE).await.unwrap();
    let all = messages(&house.maildir(), "INBOX");
    assert_eq!(subjects(&all), numbered(COUNT + 1));
}
