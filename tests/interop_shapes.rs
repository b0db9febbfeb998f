//! Messages of every shape, out through Postfix and in from Dovecot, byte for byte.

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
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/real.rs"]
mod real;
#[path = "support/shapes.rs"]
mod shapes;
#[path = "support/shapes_raw.rs"]
mod shapes_raw;

use std::collections::BTreeMap;
use std::io::Cursor;

use house::{Account, GRACE, House, PATIENCE, assert_all};
use mail_parser::{Message, MessageParser, MimeHeaders, PartType};
use maildir::contains;
use postrider::mapi::{MessageData, tags};
use postrider::session::{
    FlushRequest, Logon, QueueRowState, RecipientRowState, Service, Session, Submission,
};
use real::{Provider, await_delivered, on_server};
use realservers::trace_headers::added_before;
use shapes::{Fidelity, Letter, Shape};
use tokio::io::AsyncReadExt;

const UPLOAD: FlushRequest = FlushRequest { upload: true, download: false };
const DOWNLOAD: FlushRequest = FlushRequest { upload: false, download: true };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_arrives_as_it_was_sent() {
    let crowd: Vec<String> = (0..shapes::CROWD).map(|number| format!("user{number}")).collect();
    let provider = Provider::start(&crowd);
    let dovecot = &provider.dovecot;
    let password = |user: &str| dovecot.password_of(user).unwrap();
    // Each kind of TLS in each protocol; both accounts share one Maildir.
    let house = House::new(&[
        Account::new("ann", "ann@example.test")
            .smtp(provider.submission().login("ann", &password("ann")))
            .imap(provider.imaps().login("ann", &password("ann"))),
        Account::new("bob", "bob@example.test")
            .smtp(provider.submissions().login("bob", &password("bob")))
            .imap(provider.imap().login("bob", &password("bob"))),
    ]);
    let session = house.open(Logon::Closed).await;
    let shapes = shapes::all(dovecot.domain());
    assert!(shapes.len() >= 50, "{}", shapes.len());
    let mut queued = Vec::new();
    for shape in &shapes {
        queued.push(submit(&session, shape).await);
    }

    let sent = session.flush(UPLOAD).await.unwrap();
    assert_eq!((sent.sent, sent.left), (shapes.len() as u64, 0), "{:?}", sent.troubles);
    for (shape, (entry, _)) in shapes.iter().zip(&queued) {
        let row = session.wait(entry, Some(PATIENCE)).await.unwrap();
        assert_eq!(row.state, QueueRowState::Finished, "{}: {row:?}", shape.name);
        assert_all(&row, RecipientRowState::Delivered);
    }
    let copies = shapes.iter().map(|shape| shape.copies).sum::<usize>();
    let (to_ann, to_bob) = copies_by_reader(&shapes);
    assert_eq!(to_ann + to_bob, copies);
    await_delivered(dovecot, "ann", to_ann);
    await_delivered(dovecot, "bob", to_bob);
    let received = session.flush(DOWNLOAD).await.unwrap();
    assert_eq!(received.received, copies as u64, "{:?}", received.troubles);
    session.shutdown(GRACE).await.unwrap();

    let local = maildir::messages(&house.maildir(), "INBOX");
    assert_same_as_on_the_server(&provider, &local);
    let arrived = by_message_id(local);
    let kept = by_message_id(maildir::messages(&house.maildir(), "Sent"));
    for (shape, (_, stored)) in shapes.iter().zip(&queued) {
        let id = message_id(stored);
        let copies = arrived.get(&id).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(copies.len(), shape.copies, "copies of {}", shape.name);
        copies.iter().for_each(|copy| check_arrived(shape, stored, copy));
        let kept = kept.get(&id).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(kept, std::slice::from_ref(stored), "the sent copy of {}", shape.name);
    }
    assert_both_ports_were_used(&provider, &shapes);
}

/// Submits a message and gives its bytes in the queue.
async fn submit(session: &Session, shape: &Shape) -> (postrider::mapi::EntryId, Vec<u8>) {
    let submitted = match shape.letter.clone() {
        Letter::Object(message) => session.submit(Submission { message }).await,
        Letter::Raw(envelope, bytes) => {
            session.submit_raw(envelope, Box::pin(Cursor::new(bytes))).await
        }
    };
    let entry = submitted.unwrap_or_else(|error| panic!("{}: {error}", shape.name));
    let mut stored = Vec::new();
    session.export(&entry).await.unwrap().read_to_end(&mut stored).await.unwrap();
    if let Some(expected) = &shape.stored {
        let same = *expected == stored;
        assert!(same, "{} is stored as\n{}", shape.name, String::from_utf8_lossy(&stored));
    }
    (entry, stored)
}

/// How many copies ann and bob get: the shapes go to them in turn.
fn copies_by_reader(shapes: &[Shape]) -> (usize, usize) {
    let mut count = (0, 0);
    for shape in shapes {
        let to_ann = match &shape.letter {
            Letter::Object(message) => message.recipients[0].address.starts_with("ann@"),
            Letter::Raw(envelope, _) => envelope.from.as_deref() == Some("bob@example.test"),
        };
        count.0 += usize::from(to_ann || shape.copies == 2);
        count.1 += usize::from(!to_ann || shape.copies == 2);
    }
    count
}

fn assert_same_as_on_the_server(provider: &Provider, local: &[Vec<u8>]) {
    let mut on_server: Vec<Vec<u8>> = ["ann", "bob"]
        .into_iter()
        .flat_map(|user| on_server(&provider.dovecot, user, "INBOX"))
        .map(|fetched| fetched.bytes)
        .collect();
    let mut local = local.to_vec();
    on_server.sort();
    local.sort();
    assert_eq!(local.len(), on_server.len());
    for (local, server) in local.iter().zip(&on_server) {
        let shown = String::from_utf8_lossy(local);
        assert!(local == server, "the server has something else than\n{shown}");
    }
}

fn by_message_id(messages: Vec<Vec<u8>>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for message in messages {
        found.entry(message_id(&message)).or_default().push(message);
    }
    found
}

fn parsed(bytes: &[u8]) -> Message<'_> {
    MessageParser::default().parse(bytes).unwrap()
}

fn message_id(bytes: &[u8]) -> String {
    let id = parsed(bytes).message_id().map(str::to_owned);
    id.unwrap_or_else(|| panic!("no Message-ID in\n{}", String::from_utf8_lossy(bytes)))
}

fn check_arrived(shape: &Shape, stored: &[u8], arrived: &[u8]) {
    let name = shape.name;
    for line in arrived.split(|byte| *byte == b'\n') {
        assert!(line.len() <= 999, "{name} has a line of {} octets", line.len());
    }
    for hidden in &shape.hidden {
        assert!(!contains(arrived, hidden.as_bytes()), "{name} tells of {hidden}");
    }
    match shape.fidelity {
        Fidelity::Exact => {
            let trace = added_before(arrived, stored);
            let trace = trace.unwrap_or_else(|difference| panic!("{name}: {difference}"));
            assert!(contains(trace, b"with ESMTPSA"), "{name} came without TLS and login");
        }
        Fidelity::Reencoded => check_reencoded(name, stored, arrived),
    }
    match &shape.letter {
        Letter::Object(message) => check_object(name, message, arrived),
        Letter::Raw(envelope, _) => {
            let parsed = parsed(arrived);
            let from = parsed.from().and_then(|from| from.first()).unwrap();
            assert_eq!(from.address(), envelope.from.as_deref(), "{name}");
            assert!(parsed.date().is_some(), "{name} has no Date");
        }
    }
}

/// The same for who reads it, though not in the same octets.
fn check_reencoded(name: &str, stored: &[u8], arrived: &[u8]) {
    let (stored, arrived) = (parsed(stored), parsed(arrived));
    assert_eq!(arrived.parts.len(), stored.parts.len(), "{name}");
    for (was, is) in stored.parts.iter().zip(&arrived.parts) {
        match (&was.body, &is.body) {
            (PartType::Text(was), PartType::Text(is)) => assert_eq!(was, is, "{name}"),
            (was, is) => panic!("{name}: {was:?} became {is:?}"),
        }
    }
    assert_eq!(stored.subject(), arrived.subject(), "{name}");
    assert_eq!(stored.from(), arrived.from(), "{name}");
    assert_eq!(stored.date(), arrived.date(), "{name}");
}

/// Another program's parser finds in the message what the object said.
fn check_object(name: &str, message: &MessageData, arrived: &[u8]) {
    let parsed = parsed(arrived);
    let subject = message.props.text(tags::SUBJECT).unwrap_or_default();
    assert_eq!(parsed.subject().unwrap_or_default().trim_end(), subject.trim_end(), "{name}");
    let from = parsed.from().and_then(|from| from.first()).unwrap();
    assert_eq!(from.address(), message.props.text(tags::SENDER_EMAIL_ADDRESS), "{name}");
    let sender = message.props.text(tags::SENDER_NAME);
    assert!(sender.is_none() || from.name() == sender, "{name}: {from:?}");
    let to = parsed.to().and_then(|to| to.first()).unwrap();
    assert_eq!(to.address(), Some(message.recipients[0].address.as_str()), "{name}");
    assert_eq!(to.name().unwrap_or_default(), message.recipients[0].display_name, "{name}");
    let html = message.props.text(tags::HTML);
    if let Some(html) = html {
        assert_eq!(parsed.body_html(0).unwrap().trim_end(), html.trim_end(), "{name}");
    }
    let body = message.props.text(tags::BODY).unwrap_or_default();
    if html.is_none() || !body.is_empty() {
        let lines = |text: &str| text.replace("\r\n", "\n").trim_end_matches('\n').to_owned();
        let text = parsed.body_text(0).unwrap_or_default();
        assert!(lines(&text) == lines(body), "{name}: {body:?} became {text:?}");
    }
    check_attachments(name, message, &parsed);
}

fn check_attachments(name: &str, message: &MessageData, parsed: &Message<'_>) {
    let found: Vec<_> = parsed.attachments().collect();
    assert_eq!(found.len(), message.attachments.len(), "attachments of {name}");
    for (found, given) in found.iter().zip(&message.attachments) {
        let filename = Some(given.filename.as_str()).filter(|filename| !filename.is_empty());
        assert_eq!(found.attachment_name(), filename, "{name}");
        let content_id = Some(given.content_id.as_str()).filter(|id| !id.is_empty());
        assert_eq!(found.content_id(), content_id, "{name}");
        let same = match given.mime_tag.as_str() {
            "message/rfc822" => contains(&parsed.raw_message, &given.data),
            // Texts have the line ends of mail.
            mime if mime.starts_with("text/") => {
                String::from_utf8_lossy(found.contents()).trim_end()
                    == String::from_utf8_lossy(&given.data).trim_end()
            }
            _ => found.contents() == given.data,
        };
        assert!(same, "{name}: {:?} has other contents", given.filename);
    }
}

/// The Postfix log names the service of each connection.
fn assert_both_ports_were_used(provider: &Provider, shapes: &[Shape]) {
    let log = std::fs::read_to_string(provider.postfix.log_path()).unwrap();
    let clients = |service: &str| {
        let mark = format!("postfix/{service}/smtpd");
        log.lines().filter(|line| line.contains(&mark) && line.contains("sasl_username=")).count()
    };
    let by_ann = shapes.iter().filter(|shape| match &shape.letter {
        Letter::Object(message) => {
            message.props.text(tags::SENDER_EMAIL_ADDRESS) == Some("ann@example.test")
        }
        Letter::Raw(envelope, _) => envelope.from.as_deref() == Some("ann@example.test"),
    });
    assert_eq!(clients("submission"), by_ann.count());
    assert_eq!(clients("submission") + clients("submissions"), shapes.len());
}
