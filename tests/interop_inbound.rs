//! Receiving from Dovecot: push, poll, what happens to a message afterwards, several mailboxes.

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

use std::time::{Duration, Instant};

use house::{Account, GRACE, House, PATIENCE};
use maildir::{await_messages, one_with};
use postrider::session::{FlushRequest, InboundMode, InboundState, Logon, Service, Session};
use real::{dovecot, imaps, on_server, receiver};
use realservers::{Dovecot, DovecotOptions, Fetched, Mailbox, wait};

const DOWNLOAD: FlushRequest = FlushRequest { upload: false, download: true };

fn message(subject: &str) -> Vec<u8> {
    format!("From: bob@example.test\r\nSubject: {subject}\r\n\r\n.\r\nGr\u{fc}\u{df}e\r\n").into()
}

fn deliver(dovecot: &Dovecot, subject: &str) {
    dovecot.lmtp_deliver("ann", &message(subject)).unwrap();
}

/// Waits until the mailbox is watched in this way.
async fn await_mode(session: &Session, mailbox: &str, mode: InboundMode) {
    let what = format!("{mailbox} to be watched by {mode:?}");
    let waited = wait::until_async(&what, PATIENCE, async || {
        let inbound = session.status().await.unwrap().inbound;
        let is_so = |state: &InboundState| state.mailbox == mailbox && state.mode == mode;
        inbound.iter().any(is_so).then_some(())
    });
    if let Err(error) = waited.await {
        panic!("{error}: {:?}", session.status().await.unwrap().inbound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_brings_mail_without_a_look() {
    let dovecot = dovecot(&[]);
    deliver(&dovecot, "there before");
    let house = House::new(&[receiver(&dovecot, "poll_interval = \"1h\"")]);
    let session = house.open(Logon::Full).await;
    let first = await_messages(&house.maildir(), "INBOX", 1).await;
    await_mode(&session, "INBOX", InboundMode::Idle).await;

    deliver(&dovecot, "pushed");
    let began = Instant::now();
    let both = await_messages(&house.maildir(), "INBOX", 2).await;
    // The next look is due in minutes; what came in seconds came by push.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // And again on the same IDLE or the next.
    await_mode(&session, "INBOX", InboundMode::Idle).await;
    deliver(&dovecot, "pushed again");
    deliver(&dovecot, "and once more");
    let all = await_messages(&house.maildir(), "INBOX", 4).await;
    session.shutdown(GRACE).await.unwrap();

    let server: Vec<Vec<u8>> =
        on_server(&dovecot, "ann", "INBOX").into_iter().map(|one| one.bytes).collect();
    for (subject, local) in [("there before", &first), ("pushed\r\n", &both), ("once more", &all)] {
        let (local, server) = (one_with(local, subject), one_with(&server, subject));
        assert!(local == server, "{}", String::from_utf8_lossy(local));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_survives_the_end_of_its_connection() {
    let dovecot = dovecot(&[]);
    let house = House::new(&[receiver(&dovecot, "poll_interval = \"1h\"")]);
    let session = house.open(Logon::Full).await;
    for count in 1..=3 {
        await_mode(&session, "INBOX", InboundMode::Idle).await;
        assert!(dovecot.kick("ann").unwrap(), "nobody was logged in");
        deliver(&dovecot, &format!("after kick {count}"));
        await_messages(&house.maildir(), "INBOX", count).await;
    }
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_push_it_polls() {
    let dovecot = dovecot(&[]);
    let house = House::new(&[receiver(&dovecot, "push = false\npoll_interval = \"1s\"")]);
    let session = house.open(Logon::Full).await;
    await_mode(&session, "INBOX", InboundMode::Poll).await;
    for count in 1..=2 {
        deliver(&dovecot, &format!("polled {count}"));
        await_messages(&house.maildir(), "INBOX", count).await;
    }
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_idle_is_polled() {
    let options = DovecotOptions {
        extra_config: "imap_capability = IMAP4rev1 SASL-IR UIDPLUS".to_owned(),
        ..DovecotOptions::default()
    };
    let dovecot = Dovecot::start(options).unwrap();
    let house = House::new(&[receiver(&dovecot, "poll_interval = \"1s\"")]);
    let session = house.open(Logon::Full).await;
    await_mode(&session, "INBOX", InboundMode::Poll).await;
    deliver(&dovecot, "polled");
    await_messages(&house.maildir(), "INBOX", 1).await;
    session.shutdown(GRACE).await.unwrap();
}

/// Fetches three messages, one of them seen already, and gives what the server has then.
async fn fetched_with(after: &str) -> (Dovecot, Vec<Fetched>) {
    let dovecot = dovecot(&[]);
    for number in 0..3 {
        deliver(&dovecot, &format!("number {number}"));
    }
    let mut probe = dovecot.log_in("ann").unwrap();
    probe.command("SELECT INBOX").unwrap();
    probe.command(r"UID STORE 2 +FLAGS.SILENT (\Seen \Flagged)").unwrap();
    drop(probe);
    let house = House::new(&[receiver(&dovecot, after)]);
    let session = house.open(Logon::Closed).await;
    let summary = session.flush(DOWNLOAD).await.unwrap();
    assert_eq!(summary.received, 3, "{summary:?}");
    // Again: nothing is fetched twice, whatever the server still has.
    let summary = session.flush(DOWNLOAD).await.unwrap();
    assert_eq!(summary.received, 0, "{summary:?}");
    session.shutdown(GRACE).await.unwrap();
    await_messages(&house.maildir(), "INBOX", 3).await;
    let left = on_server(&dovecot, "ann", "INBOX");
    (dovecot, left)
}

fn has(message: &Fetched, flag: &str) -> bool {
    message.flags.iter().any(|set| set.eq_ignore_ascii_case(flag))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_changes_nothing() {
    let (_dovecot, left) = fetched_with("after = \"keep\"").await;
    let seen: Vec<bool> = left.iter().map(|message| has(message, r"\Seen")).collect();
    assert_eq!(seen, [false, true, false]);
    assert!(has(&left[1], r"\Flagged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seen_flags_them() {
    let (_dovecot, left) = fetched_with("after = \"seen\"").await;
    let seen: Vec<bool> = left.iter().map(|message| has(message, r"\Seen")).collect();
    assert_eq!(seen, [true, true, true]);
    assert!(has(&left[1], r"\Flagged") && !has(&left[0], r"\Flagged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_removes_them() {
    let (dovecot, left) = fetched_with("after = \"delete\"").await;
    assert!(left.is_empty(), "{}", left.len());
    assert!(on_server(&dovecot, "ann", "Archive").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_leaves_alone_what_others_marked() {
    let dovecot = dovecot(&[]);
    deliver(&dovecot, "marked by another program");
    let house = House::new(&[receiver(&dovecot, "after = \"delete\"")]);
    let session = house.open(Logon::Closed).await;
    assert_eq!(session.flush(DOWNLOAD).await.unwrap().received, 1);
    let mut probe = dovecot.log_in("ann").unwrap();
    probe.command("SELECT INBOX").unwrap();
    let mail = String::from_utf8(message("appended")).unwrap();
    // A message that arrives marked as deleted belongs to the one who marked it.
    let tag = probe.start(&format!("APPEND INBOX (\\Deleted) {{{}+}}\r\n{mail}", mail.len()));
    probe.finish("APPEND", &tag.unwrap()).unwrap();
    deliver(&dovecot, "new");
    let summary = session.flush(DOWNLOAD).await.unwrap();
    session.shutdown(GRACE).await.unwrap();
    let left = on_server(&dovecot, "ann", "INBOX");
    let appended = left.iter().filter(|one| maildir::contains(&one.bytes, b"appended")).count();
    let new = left.iter().filter(|one| maildir::contains(&one.bytes, b"Subject: new")).count();
    assert_eq!(new, 0, "the fetched message is still there");
    // Either it was fetched, and then it may go, or it is still there.
    assert_eq!(appended as u64 + summary.received, 2, "{summary:?}, {appended} left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn move_puts_them_elsewhere() {
    for mailbox in ["Archive", "Made by us"] {
        let (dovecot, left) = fetched_with(&format!("after = {{ move = {mailbox:?} }}")).await;
        assert!(left.is_empty(), "{}", left.len());
        let moved = on_server(&dovecot, "ann", mailbox);
        let mut subjects: Vec<_> = (0..3).map(|number| format!("number {number}\r\n")).collect();
        subjects.retain(|subject| {
            !moved.iter().any(|one| maildir::contains(&one.bytes, subject.as_bytes()))
        });
        assert!(subjects.is_empty() && moved.len() == 3, "{mailbox}: {} moved", moved.len());
        let flagged = moved.iter().filter(|one| has(one, r"\Flagged")).count();
        assert_eq!(flagged, 1, "flags go with the message");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn move_without_the_extension_copies_first() {
    let options = DovecotOptions {
        extra_config: "imap_capability = IMAP4rev1 SASL-IR UIDPLUS IDLE".to_owned(),
        ..DovecotOptions::default()
    };
    let dovecot = Dovecot::start(options).unwrap();
    deliver(&dovecot, "to be moved");
    let house = House::new(&[receiver(&dovecot, "after = { move = \"Archive\" }")]);
    let session = house.open(Logon::Closed).await;
    assert_eq!(session.flush(DOWNLOAD).await.unwrap().received, 1);
    session.shutdown(GRACE).await.unwrap();
    assert!(on_server(&dovecot, "ann", "INBOX").is_empty());
    assert_eq!(on_server(&dovecot, "ann", "Archive").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_mailboxes_go_to_folders_of_their_own() {
    let names = ["Lists.rust", "Archive", "B&APw-cher"];
    let mailbox = |name: &str| Mailbox { name: name.to_owned(), special_use: None };
    let options = DovecotOptions {
        mailboxes: ["Lists.rust", "Archive", "Bücher"].map(mailbox).to_vec(),
        ..DovecotOptions::default()
    };
    let dovecot = Dovecot::start(options).unwrap();
    let mut probe = dovecot.log_in("ann").unwrap();
    for name in names {
        let mail = String::from_utf8(message(&format!("in {name}"))).unwrap();
        let tag = probe.start(&format!("APPEND {name:?} {{{}+}}\r\n{mail}", mail.len())).unwrap();
        probe.finish("APPEND", &tag).unwrap();
    }
    deliver(&dovecot, "in INBOX");
    let login = imaps(&dovecot).login("ann", &dovecot.password_of("ann").unwrap());
    // Fewer connections than mailboxes: the last one takes turns.
    let server = login
        .with("mailboxes = [\"INBOX\", \"Lists.rust\", \"Archive\", \"Bücher\"]")
        .with("connections = 2")
        .with("poll_interval = \"1s\"");
    let house = House::new(&[Account::new("work", "ann@example.test").imap(server)]);
    let session = house.open(Logon::Full).await;
    let folders = ["INBOX", "Lists.rust", "Archive", "Bücher"];
    for (folder, name) in folders.into_iter().zip(["INBOX"].into_iter().chain(names)) {
        let found = await_messages(&house.maildir(), folder, 1).await;
        one_with(&found, &format!("Subject: in {name}\r\n"));
    }
    // And what comes later.
    for name in names {
        let mail = String::from_utf8(message("later")).unwrap();
        let tag = probe.start(&format!("APPEND {name:?} {{{}+}}\r\n{mail}", mail.len())).unwrap();
        probe.finish("APPEND", &tag).unwrap();
    }
    for folder in &folders[1..] {
        await_messages(&house.maildir(), folder, 2).await;
    }
    let inbound = session.status().await.unwrap().inbound;
    assert_eq!(inbound.len(), 4, "{inbound:?}");
    assert!(inbound.iter().all(|state| state.mode != InboundMode::Off), "{inbound:?}");
    session.shutdown(GRACE).await.unwrap();
}
