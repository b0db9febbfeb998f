//! The Outbox of a running session: order, abort, what stays of a message, who sends it.

use postoffice::{Action, Fault, SmtpExtension, SmtpPhase};
use postrider::mapi::{MapiCode, RecipientType, SysTime, tags};
use postrider::session::{
    FlushRequest, Logon, QueueRowState, RawEnvelope, RecipientRowState, Service, Session,
};
use postrider::spool::{Batch, Expect, Op, QueueState, SledSpool, Spool, SpoolOptions};

use crate::house::{GRACE, PATIENCE, assert_all};
use crate::letters::letter;
use crate::maildir::{await_messages, messages, one_with};
use crate::post::{Post, Shape, ended, send, send_large, send_put_off, soon};

/// Proves: OB-15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_not_yet_processed_can_be_taken_back_and_one_that_is_gone_not() {
    let post = Post::start().await;
    let session = post.open(Logon::Closed).await;
    let entry = send(&session, "taken back").await;
    session.cancel(&entry).await.unwrap();
    let gone = session.cancel(&entry).await.unwrap_err();
    assert_eq!(gone.code(), MapiCode::NOT_IN_QUEUE);
    assert!(session.queue(None, 1).await.unwrap().is_empty());
    session.shutdown(GRACE).await.unwrap();

    // On the wire: while its text is still coming it can be stopped.
    let hang = post.office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).once());
    let session = post.open(Logon::Full).await;
    let entry = send_large(&session, "stopped").await;
    hang.reached(PATIENCE).await.unwrap();
    soon("the cancel", session.cancel(&entry)).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Cancelled);
    hang.remove();
    let sent = send(&session, "sent").await;
    assert_eq!(ended(&session, &sent).await, QueueRowState::Finished);
    let late = session.cancel(&sent).await.unwrap_err();
    assert_eq!(late.code(), MapiCode::NOT_IN_QUEUE);
    assert_eq!(post.accepted(), ["sent"]);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_of_a_sent_message_is_what_was_asked_for() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    for (sentmail, delete, subject) in [
        (false, false, "as the profile says"),
        (true, false, "moved"),
        (false, true, "deleted"),
        (true, true, "moved and deleted"),
    ] {
        let mut submission = letter(subject, &["bob@example.org"]);
        if sentmail {
            submission.message.props.set(tags::SENTMAIL_ENTRYID, vec![1_u8]);
        }
        submission.message.props.set(tags::DELETE_AFTER_SUBMIT, delete);
        let entry = session.submit(submission).await.unwrap();
        assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    }
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(post.office.accepted_count(), 4);
    let kept = messages(&post.maildir(), "Sent");
    one_with(&kept, "Subject: as the profile says");
    one_with(&kept, "Subject: moved\r\n");
    assert_eq!(kept.len(), 2);
}

/// Proves: OB-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_nobody_is_refused_and_stays_with_its_owner() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let mut submission = letter("for nobody", &[]);
    let refused = session.submit(submission.clone()).await.unwrap_err();
    assert_eq!(refused.code(), MapiCode::NO_RECIPIENTS);
    assert!(session.queue(None, 1).await.unwrap().is_empty());
    // It is still open: with a recipient it goes.
    submission.message.recipients = letter("", &["bob@example.org"]).message.recipients;
    let entry = session.submit(submission).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    assert_eq!(post.accepted(), ["for nobody"]);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_the_user_chose_comes_before_that_of_the_sender() {
    let transports = vec![("work", "ann"), ("home", "eve")];
    let post = Post::shaped(Shape { transports, ..Shape::default() }).await;
    let session = post.open(Logon::Full).await;
    for (sender, account, expected) in [
        (None, None, "work"),
        (None, Some("home"), "home"),
        (Some("ann@example.org"), Some("home"), "home"),
        (Some("eve@example.org"), None, "home"),
        (Some("eve@example.org"), Some("work"), "work"),
        (Some("eve@example.org"), Some("unknown"), "home"),
    ] {
        let mut submission = letter("chosen", &["bob@example.org"]);
        if let Some(sender) = sender {
            submission.message.props.set(tags::SENDER_EMAIL_ADDRESS, sender);
        }
        if let Some(account) = account {
            submission.message.props.set(tags::PRIMARY_SEND_ACCOUNT, account);
        }
        let entry = session.submit(submission).await.unwrap();
        let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
        assert_eq!(row.transport, expected, "{sender:?} {account:?}");
    }
    assert_eq!(post.office.accepted_count(), 6);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blind_recipients_and_those_of_a_resend_are_in_the_envelope_only() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let everyone = ["bob@example.org", "blind@example.org", "again@example.org"];
    let mut submission = letter("hidden", &everyone);
    submission.message.recipients[1].kind = RecipientType::Bcc;
    submission.message.recipients[2].p1 = true;
    let entry = session.submit(submission).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let accepted = post.office.accepted();
    let mut envelope: Vec<String> = Vec::new();
    for one in &accepted {
        envelope.extend(one.recipients().into_iter().map(str::to_owned));
        let text = String::from_utf8_lossy(one.bytes().unwrap()).to_ascii_lowercase();
        assert!(!text.contains("blind@"), "{text}");
        assert!(!text.contains("again@"), "{text}");
        assert!(!text.contains("\nbcc:"), "{text}");
    }
    envelope.sort_unstable();
    assert_eq!(envelope, ["again@example.org", "blind@example.org", "bob@example.org"]);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-12, OB-4, SP-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_make_one_report_and_deliveries_only_on_request() {
    let post = Post::start().await;
    post.office.withhold(SmtpExtension::Dsn);
    let session = post.open(Logon::Full).await;
    let to = ["550-5.1.1+one@example.org", "bob@example.org", "550-5.1.1+two@example.org"];
    let entry = session.submit(letter("partly", &to)).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    let states: Vec<_> = row.recipients.iter().map(|one| one.state).collect();
    let (failed, delivered) = (RecipientRowState::Failed, RecipientRowState::Delivered);
    assert_eq!(states, [failed, delivered, failed]);
    let reports = await_messages(&post.maildir(), "INBOX", 1).await;
    let report = String::from_utf8_lossy(&reports[0]).into_owned();
    assert!(report.contains("550-5.1.1+one@") && report.contains("550-5.1.1+two@"), "{report}");

    let mut asked = letter("asked for", &["bob@example.org"]);
    asked.message.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    let entry = session.submit(asked).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    await_messages(&post.maildir(), "INBOX", 2).await;

    let mut silent = letter("suppressed", &["550-5.1.1@example.org"]);
    silent.message.props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, false);
    let entry = session.submit(silent).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_all(&row, failed);
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(messages(&post.maildir(), "INBOX").len(), 2);
}

/// Proves: OB-19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_hold_a_message_back_or_let_it_go() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    let hour = std::time::Duration::from_secs(3600);
    let now = SysTime::from(jiff::Timestamp::now());
    let mut later = letter("later", &["bob@example.org"]);
    later.message.props.set(tags::DEFERRED_SEND_TIME, now.saturating_add(hour));
    let later = session.submit(later).await.unwrap();
    let mut past = letter("past", &["bob@example.org"]);
    past.message.props.set(tags::DEFERRED_SEND_TIME, SysTime::from_millis(1));
    let past = session.submit(past).await.unwrap();
    assert_eq!(ended(&session, &past).await, QueueRowState::Finished);

    let mut expired = letter("expired", &["bob@example.org"]);
    expired.message.props.set(tags::EXPIRY_TIME, SysTime::from_millis(1));
    let expired = session.submit(expired).await.unwrap();
    let row = session.wait(&expired, Some(PATIENCE)).await.unwrap();
    assert_all(&row, RecipientRowState::Failed);
    one_with(&await_messages(&post.maildir(), "INBOX", 1).await, "Subject: expired");

    let waiting = session.queue_row(&later).await.unwrap();
    assert_eq!(waiting.state, QueueRowState::Queued);
    assert!(waiting.next_attempt.is_some(), "{waiting:?}");
    session.cancel(&later).await.unwrap();
    assert_eq!(post.accepted(), ["past"]);
    session.shutdown(GRACE).await.unwrap();
}

async fn park_behind_the_stores_back(post: &Post, session: Session) {
    let (_, row) = {
        // In a hurry nothing is given back: the store has it as deferred.
        session.shutdown(std::time::Duration::ZERO).await.unwrap();
        let spool = SledSpool::open(&post.spool_folder(), SpoolOptions::default()).unwrap();
        let mut page = spool.queue_page(None, 10).await.unwrap();
        assert_eq!(page.len(), 1);
        let (entry, mut row) = page.remove(0);
        let expect = Expect::Revision(row.revision);
        row.state = QueueState::Parked;
        let record = Box::new(row.clone());
        let put = Op::PutQueue { entry: entry.clone(), record, expect };
        spool.commit(Batch::new().with(put)).await.unwrap();
        spool.close().await;
        (entry, row)
    };
    assert_eq!(row.state, QueueState::Parked);
}

/// A crash between the transport's step of giving a message back and the store's.
///
/// Proves: TN-18, SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_half_given_back_is_sent_at_the_next_logon() {
    let post = Post::start().await;
    let busy = post.busy();
    let session = post.open(Logon::Full).await;
    let entry = send_put_off(&session, "half given back").await;
    park_behind_the_stores_back(&post, session).await;
    busy.remove();
    let session = post.open(Logon::Full).await;
    let upload = FlushRequest { upload: true, download: false };
    soon("the flush", session.flush(upload)).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    assert_eq!(post.accepted(), ["half given back"]);
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_submitted_survives_a_session_that_is_dropped() {
    let post = Post::start().await;
    post.office.stop().await;
    let session = post.open(Logon::Full).await;
    let entry = send(&session, "kept").await;
    drop(session);
    post.office.restart().await.unwrap();
    let session = post.open(Logon::Full).await;
    // The server may have been found away before; that is no attempt of the message.
    session.retry(None).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    assert_eq!(post.accepted(), ["kept"]);
    session.shutdown(GRACE).await.unwrap();
}

/// The account of a raw message: who its envelope names, then who submitted it, then its author.
///
/// Proves: AT-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_envelope_sender_chooses_the_account_before_the_header_does() {
    let transports = vec![("work", "ann"), ("home", "eve")];
    let post = Post::shaped(Shape { transports, ..Shape::default() }).await;
    let session = post.open(Logon::Full).await;
    let (ann, eve, other) = ("ann@example.org", "eve@example.org", "bounce@example.net");
    for (envelope, header, expected) in [
        (None, format!("From: {eve}"), "home"),
        (Some(eve), format!("From: {ann}"), "home"),
        (Some(ann), format!("From: {eve}"), "work"),
        (Some(other), format!("From: {eve}"), "home"),
        (None, format!("From: {ann}\r\nSender: {eve}"), "home"),
        (None, format!("From: {other}\r\nSender: {eve}"), "home"),
        (None, format!("From: {eve}\r\nSender: {other}"), "home"),
        (Some(""), format!("From: {eve}"), "home"),
        (Some(other), format!("From: {other}"), "work"),
    ] {
        let text = format!("{header}\r\nTo: bob@example.org\r\nSubject: x\r\n\r\nhi\r\n");
        let raw = RawEnvelope {
            from: envelope.map(str::to_owned),
            recipients_from_header: true,
            ..RawEnvelope::default()
        };
        let bytes = Box::pin(std::io::Cursor::new(text.into_bytes()));
        let entry = session.submit_raw(raw, bytes).await.unwrap();
        let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
        assert_eq!(row.transport, expected, "{envelope:?} {header:?}");
    }
    session.shutdown(GRACE).await.unwrap();
}

/// Proves: OB-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_represented_is_the_author_and_the_account_is_the_sender() {
    let transports = vec![("work", "ann"), ("home", "eve")];
    let post = Post::shaped(Shape { transports, ..Shape::default() }).await;
    let session = post.open(Logon::Full).await;
    for (represented, author, sender, transport) in [
        // On behalf of somebody else: who submits it says so.
        ("boss@example.net", "boss@example.net", Some("ann@example.org"), "work"),
        // An address of an account of one's own needs no other.
        ("eve@example.org", "eve@example.org", None, "home"),
    ] {
        let mut submission = letter("represented", &["bob@example.org"]);
        submission.message.props.set(tags::SENT_REPRESENTING_EMAIL_ADDRESS, represented);
        let entry = session.submit(submission).await.unwrap();
        let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
        assert_eq!(row.transport, transport);
        let accepted = post.office.take_accepted().remove(0);
        let text = String::from_utf8_lossy(accepted.bytes().unwrap()).into_owned();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            line.map(|line| line.trim_matches(|c| matches!(c, '<' | '>')).to_owned())
        };
        assert_eq!(field("From:").as_deref(), Some(author), "{text}");
        assert_eq!(field("Sender:").as_deref(), sender, "{text}");
        assert_eq!(accepted.envelope.from, sender.unwrap_or(author));
    }
    session.shutdown(GRACE).await.unwrap();
}
