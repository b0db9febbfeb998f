//! Sending to servers nobody here wrote: many messages over few connections, refused recipients,
//! and END_OUTBOUND amid it all.

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

use std::collections::HashSet;

use house::{Account, GRACE, House, PATIENCE, Server, assert_all, await_queue_row, await_row};
use letters::letter;
use mail_parser::MessageParser;
use maildir::{await_messages, contains, messages, one_with};
use postrider::mapi::{StatusCode, TransportNotify, tags};
use postrider::session::{
    FlushRequest, Logon, NotifyRequest, QueueRowState, RecipientRowState, Service, Session,
    TraceStep, TraceStepKind,
};
use real::{Provider, await_delivered, dovecot, on_server};
use realservers::{Dump, Postfix, PostfixOptions, SinkOptions, SmtpSink, wait};

fn sink(flags: &[&str], dump: Dump) -> SmtpSink {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    SmtpSink::start(SinkOptions { flags, dump }).unwrap()
}

fn sender_to(sink: &SmtpSink) -> Account {
    let server = Server::plain(sink.address()).with("connections = 4");
    Account::new("work", "Ann Example <ann@example.test>").smtp(server)
}

async fn notify(session: &Session, flag: TransportNotify) {
    let request = NotifyRequest { flags: flag.bits(), ..NotifyRequest::default() };
    session.notify(request).await.unwrap();
}

/// Waits until nothing is in the queue any more.
async fn await_empty_queue(session: &Session) {
    let waited = wait::until_async("an empty queue", PATIENCE, async || {
        session.queue(None, 1).await.unwrap().is_empty().then_some(())
    });
    if let Err(error) = waited.await {
        let left = session.queue(None, 10_000).await.unwrap();
        panic!("{error}: {} left, the first is {:?}", left.len(), left.first());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_messages_go_over_few_connections() {
    let sink = sink(&[], Dump::Messages);
    let house = House::new(&[sender_to(&sink)]);
    let session = house.open(Logon::Full).await;
    for number in 0..500 {
        let submission = letter(&format!("number {number}."), &["bob@example.test"]);
        session.submit(submission).await.unwrap();
    }
    await_empty_queue(&session).await;
    session.shutdown(GRACE).await.unwrap();

    let counts = sink.await_messages(500).unwrap();
    let kept = sink.messages().unwrap();
    assert_eq!((counts.messages, kept.len()), (500, 500));
    let ids: HashSet<_> = kept
        .iter()
        .map(|kept| {
            let parsed = MessageParser::default().parse(&kept.content).unwrap();
            parsed.message_id().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 500, "a message came twice");
    // The sink counts a session when it has ended.
    let counts = wait::until("the sessions to end", PATIENCE, || {
        let counts = sink.counts().unwrap();
        (counts.sessions > 0).then_some(counts)
    })
    .unwrap();
    assert!(counts.sessions <= 4, "{counts:?}: the connections are not used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_esmtp_gets_its_mail_too() {
    // Neither EHLO nor, with that, PIPELINING, SIZE or 8BITMIME.
    let sink = sink(&["-e", "-f", "EHLO"], Dump::Messages);
    let house = House::new(&[sender_to(&sink)]);
    let session = house.open(Logon::Full).await;
    let mut submission = letter("Grüße", &["bob@example.test", "eve@example.test"]);
    submission.message.props.set(tags::BODY, "Füße\n.\n");
    let entry = session.submit(submission).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_all(&row, RecipientRowState::Delivered);
    session.shutdown(GRACE).await.unwrap();
    sink.await_messages(1).unwrap();
    let kept = sink.messages().unwrap().remove(0);
    assert_eq!(kept.recipients, ["<bob@example.test>", "<eve@example.test>"]);
    assert!(kept.content.is_ascii());
    let parsed = MessageParser::default().parse(&kept.content).unwrap();
    assert_eq!(parsed.subject(), Some("Grüße"));
    assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n"), "Füße\n.\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_refused_for_now_is_tried_again() {
    for command in ["RCPT", "DATA"] {
        let sink = sink(&["-r", command], Dump::Nothing);
        let house = House::new(&[sender_to(&sink)]);
        let session = house.open(Logon::Full).await;
        let entry = session.submit(letter("later", &["bob@example.test"])).await.unwrap();
        let row = await_queue_row(&session, &entry, "a second attempt", |row| {
            row.attempts >= 2 && row.state == QueueRowState::Deferred
        })
        .await;
        assert!(row.last_error.as_deref().unwrap_or_default().contains("450"), "{row:?}");
        assert_all(&row, RecipientRowState::Deferred);
        assert!(row.recipients[0].reply.starts_with("450 4.3.0"), "{row:?}");
        assert!(row.next_attempt.is_some(), "{row:?}");
        session.shutdown(GRACE).await.unwrap();
        assert!(messages(&house.maildir(), "INBOX").is_empty(), "a report though it may still go");
    }
}

/// Proves: OB-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_recipients_come_back_in_one_report_and_the_others_get_theirs() {
    let provider = Provider::start(&["eve".to_owned()]);
    let house = House::new(&[provider.sender()]);
    let session = house.open(Logon::Full).await;
    let to = ["bob@example.test", "nobody@example.test", "eve@example.test", "noone@example.test"];
    let entry = session.submit(letter("partly", &to)).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished);
    let states: Vec<_> = row.recipients.iter().map(|one| one.state).collect();
    let (delivered, failed) = (RecipientRowState::Delivered, RecipientRowState::Failed);
    assert_eq!(states, [delivered, failed, delivered, failed], "{row:?}");
    for refused in row.recipients.iter().filter(|one| one.state == failed) {
        assert!(refused.reply.starts_with("550 5.1.1"), "{refused:?}");
    }
    let report = await_messages(&house.maildir(), "INBOX", 1).await.remove(0);
    session.shutdown(GRACE).await.unwrap();

    check_report(&report);
    await_delivered(&provider.dovecot, "bob", 1);
    await_delivered(&provider.dovecot, "eve", 1);
    for user in ["bob", "eve"] {
        let copies = on_server(&provider.dovecot, user, "INBOX");
        assert_eq!(copies.len(), 1, "{user}");
        assert!(contains(&copies[0].bytes, b"Subject: partly\r\n"));
    }
    // Nobody but the owner hears of it.
    assert!(provider.dovecot.message_files("ann", "INBOX").unwrap().is_empty());
    assert_eq!(messages(&house.maildir(), "INBOX").len(), 1);
    assert_eq!(messages(&house.maildir(), "Sent").len(), 1);
}

fn check_report(report: &[u8]) {
    let parsed = MessageParser::default().parse(report).unwrap();
    let text = String::from_utf8_lossy(report);
    assert!(text.contains("multipart/report") && text.contains("delivery-status"), "{text}");
    assert!(parsed.parts.len() >= 4, "{text}");
    for refused in ["nobody@example.test", "noone@example.test"] {
        let line = format!("Final-Recipient: rfc822;{refused}").replace(' ', "");
        assert!(text.replace(' ', "").contains(&line), "{text}");
    }
    assert!(!text.replace(' ', "").contains("Final-Recipient:rfc822;bob"), "{text}");
    assert!(text.contains("Status: 5.1.1"), "{text}");
    assert!(text.contains("Subject: partly"), "the original is not attached: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_nobody_may_get_is_reported_once() {
    let provider = Provider::start(&[]);
    let house = House::new(&[provider.sender()]);
    let session = house.open(Logon::Full).await;
    let entry = session.submit(letter("for nobody", &["nobody@example.test"])).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_all(&row, RecipientRowState::Failed);
    let reports = await_messages(&house.maildir(), "INBOX", 1).await;
    one_with(&reports, "multipart/report");
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(provider.postfix.queued().unwrap(), 0);
}

/// Postfix takes the message, and the next server refuses the recipient: the bounce comes by
/// Dovecot.
///
/// Proves: IB-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounce_that_comes_later_is_tied_to_what_was_sent() {
    let next = sink(&["-L", "-f", "RCPT"], Dump::Nothing);
    let dovecot = dovecot(&[]);
    let relay = format!("lmtp:inet:{}", next.address());
    let options = PostfixOptions { main: vec![("default_transport".to_owned(), relay)] };
    let postfix = Postfix::start(&dovecot, options).unwrap();
    let provider = Provider { postfix, dovecot };
    let password = provider.dovecot.password_of("ann").unwrap();
    let account = provider.sender().imap(provider.imaps().login("ann", &password));
    let house = House::new(&[account]);
    let session = house.open(Logon::Full).await;
    let entry = session.submit(letter("far away", &["nobody@far.test"])).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_all(&row, RecipientRowState::Delivered);
    let bounce = await_messages(&house.maildir(), "INBOX", 1).await.remove(0);
    let waited = wait::until_async("the bounce in the trace", PATIENCE, async || {
        let trace = session.trace(&entry.to_string()).await.unwrap();
        let is_one = |step: &TraceStep| step.step == TraceStepKind::StatusReport;
        trace.steps.iter().find(|step| is_one(step)).cloned().map(|step| (step, trace.clone()))
    });
    let (step, trace) = waited.await.unwrap();
    assert_eq!(step.class.as_deref(), Some("REPORT.IPM.Note.NDR"));
    assert_eq!(step.recipients, ["nobody@far.test"]);
    assert_eq!(step.host.as_deref(), Some("mail.example.test"));
    assert!(step.replies[0].starts_with("smtp; 500"), "{step:?}");
    // Told and kept; the outcome is what the server said to us.
    assert!(trace.recipients.iter().all(|one| one.state == RecipientRowState::Delivered));
    assert_eq!(session.trace(&trace.message_id).await.unwrap(), trace);
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(on_server(&provider.dovecot, "ann", "INBOX")[0].bytes, bounce, "byte for byte");
    assert!(contains(&bounce, b"Subject: far away"));
}

/// Proves: TN-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_outbound_holds_what_has_not_begun() {
    // The reply to DATA takes a second, so that one transaction is certainly on the wire.
    let sink = sink(&["-w", "1"], Dump::Nothing);
    let server = Server::plain(sink.address()).with("connections = 1");
    let house = House::new(&[Account::new("work", "ann@example.test").smtp(server)]);
    let session = house.open(Logon::Full).await;
    let mut entries = Vec::new();
    for number in 0..5 {
        let submission = letter(&format!("number {number}."), &["bob@example.test"]);
        entries.push(session.submit(submission).await.unwrap());
    }
    let active = StatusCode::OUTBOUND_ACTIVE;
    await_row(&session, "work", "sending", |row| row.status_code.contains(active)).await;
    notify(&session, TransportNotify::END_OUTBOUND).await;
    let row = session.status_table().unwrap().rows();
    let row = row.iter().find(|row| row.display_name == "work").unwrap();
    assert!(!row.status_code.contains(StatusCode::OUTBOUND_ENABLED), "{row:?}");

    // What was on the wire is finished, and then all is quiet.
    await_row(&session, "work", "quiet", |row| !row.status_code.contains(active)).await;
    let begun = sink.counts().unwrap().messages;
    assert_eq!(begun, 1, "not exactly the one on the wire was finished");
    let waited = wait::until_async("the first to be finished", PATIENCE, async || {
        let left = session.queue(None, 100).await.unwrap();
        (left.len() == 4).then_some(left)
    });
    let left = waited.await.unwrap();
    assert!(left.iter().all(|row| row.state == QueueRowState::Queued), "{left:?}");
    // A message that comes now waits as well.
    let late = session.submit(letter("late", &["bob@example.test"])).await.unwrap();
    assert_eq!(sink.counts().unwrap().messages, 1);

    notify(&session, TransportNotify::BEGIN_OUTBOUND).await;
    let row = session.wait(&late, Some(PATIENCE * 2)).await.unwrap();
    assert_all(&row, RecipientRowState::Delivered);
    await_empty_queue(&session).await;
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(sink.await_messages(6).unwrap().messages, 6);
}

/// Proves: FL-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_ends_when_everything_was_tried() {
    let sink = sink(&[], Dump::Nothing);
    let house = House::new(&[sender_to(&sink)]);
    let session = house.open(Logon::Closed).await;
    for number in 0..50 {
        session.submit(letter(&format!("{number}"), &["bob@example.test"])).await.unwrap();
    }
    assert_eq!(sink.counts().unwrap().messages, 0, "a closed session has sent");
    let upload = FlushRequest { upload: true, download: false };
    let summary = session.flush(upload).await.unwrap();
    assert_eq!((summary.sent, summary.left), (50, 0), "{summary:?}");
    assert_eq!(sink.counts().unwrap().messages, 50);
    session.shutdown(GRACE).await.unwrap();
}

/// The envelope behind a final dot is what RFC 2920 allows: a server that hangs up at commands which
/// come too early, and one that refuses them, take each message at the first attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forbids_early_commands_takes_a_backlog_over_one_connection() {
    let dovecot = dovecot(&[]);
    let strict = [
        ("smtpd_data_restrictions", "reject_unauth_pipelining"),
        ("smtpd_end_of_data_restrictions", "reject_unauth_pipelining"),
        ("smtpd_forbid_unauth_pipelining", "yes"),
    ];
    let main = strict.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postfix = Postfix::start(&dovecot, PostfixOptions { main }).unwrap();
    let provider = Provider { postfix, dovecot };
    let login = provider.submission().login("ann", &provider.dovecot.password_of("ann").unwrap());
    let account = Account::new("work", "Ann Example <ann@example.test>");
    let house = House::new(&[account.smtp(login.with("connections = 1"))]);
    let session = house.open(Logon::Closed).await;
    let mut entries = Vec::new();
    for number in 0..30 {
        let submission = letter(&format!("number {number}."), &["bob@example.test"]);
        entries.push(session.submit(submission).await.unwrap());
    }
    let upload = FlushRequest { upload: true, download: false };
    let summary = session.flush(upload).await.unwrap();
    assert_eq!((summary.sent, summary.left), (30, 0), "{summary:?}");
    for entry in &entries {
        let row = session.wait(entry, Some(PATIENCE)).await.unwrap();
        assert_all(&row, RecipientRowState::Delivered);
        assert_eq!(row.attempts, 1, "{row:?}");
    }
    session.shutdown(GRACE).await.unwrap();
    await_delivered(&provider.dovecot, "bob", 30);
    let arrived = on_server(&provider.dovecot, "bob", "INBOX");
    let subject = |number: usize| format!("Subject: number {number}.\r\n");
    for number in 0..30 {
        let copies = arrived.iter().filter(|one| contains(&one.bytes, subject(number).as_bytes()));
        assert_eq!(copies.count(), 1, "number {number}");
    }
}

/// The server takes the request for a report with the message, and makes the report itself, with
/// the entry id by which it finds back.
///
/// Proves: OB-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_dsn_reports_a_delivery_by_itself() {
    let provider = Provider::start(&[]);
    let house = House::new(&[provider.sender()]);
    let session = house.open(Logon::Full).await;
    let mut submission = letter("followed", &["bob@example.test"]);
    submission.message.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    let entry = session.submit(submission).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_all(&row, RecipientRowState::Delivered);
    session.shutdown(GRACE).await.unwrap();
    await_delivered(&provider.dovecot, "bob", 1);
    await_delivered(&provider.dovecot, "ann", 1);
    let report = on_server(&provider.dovecot, "ann", "INBOX").remove(0).bytes;
    let envelope_id = format!("Original-Envelope-Id: {entry}\r\n");
    for part in [
        "report-type=delivery-status",
        envelope_id.as_str(),
        "Original-Recipient: rfc822;bob@example.test\r\n",
        // LMTP knows no such requests, so that is all the server can say (RFC 3464 section 2.3.3).
        "Action: relayed\r\n",
    ] {
        assert!(contains(&report, part.as_bytes()), "{part}: {}", String::from_utf8_lossy(&report));
    }
    // No second report of ours beside it.
    assert!(messages(&house.maildir(), "INBOX").is_empty());
}
