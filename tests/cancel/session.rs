//! `Session::cancel` (OB-15) and TransportNotify through a session, at every point of the dialogue,
//! and the cancel of what a session receives.

use postoffice::{
    Action, Fault, FaultHandle, ImapPhase, Listener, PostOffice, Protocol, SmtpExtension, SmtpPhase,
};
use postrider::mapi::{EntryId, MapiCode, MapiResult, TransportNotify};
use postrider::session::{
    Logon, NotifyRequest, QueueRowState, RawEnvelope, RecipientRowState, Service, Session,
};

use crate::foreign_message::Hold;
use crate::house::{Account, GRACE, House, PATIENCE, Server, assert_all};
use crate::letters::letter;
use crate::maildir::{await_messages, messages};
use crate::office::{account, office, sender};
use crate::points::{Fate, Point, TO, text};
use crate::stage::AT_ONCE;

/// How a user cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// `Session::cancel`.
    Cancel,
    /// TransportNotify with ABORT_DEFERRED and CANCEL_MESSAGE.
    Notify,
}

async fn at_once<T>(what: &str, call: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(AT_ONCE, call).await;
    answer.unwrap_or_else(|_| panic!("{what} waits for somebody"))
}

async fn cancel(session: &Session, call: Call, entry: &EntryId) -> MapiResult<()> {
    let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
    let request = NotifyRequest {
        transport: Some("work".to_owned()),
        flags: flags.bits(),
        reference: None,
        entry: Some(entry.to_string()),
    };
    match call {
        Call::Cancel => at_once("Session::cancel", session.cancel(entry)).await,
        Call::Notify => at_once("TransportNotify", session.notify(request)).await,
    }
}

/// CANCEL_MESSAGE with every reference that this logon can have given so far (TN-16).
async fn cancel_references(session: &Session) {
    for reference in 2..100 {
        let request = NotifyRequest {
            transport: Some("work".to_owned()),
            flags: TransportNotify::CANCEL_MESSAGE.bits(),
            reference: Some(reference),
            entry: None,
        };
        at_once("TransportNotify", session.notify(request)).await.unwrap();
    }
}

async fn submit(session: &Session, bytes: Vec<u8>) -> EntryId {
    let recipients = TO.map(str::to_owned).to_vec();
    let envelope = RawEnvelope { recipients, ..RawEnvelope::default() };
    session.submit_raw(envelope, Box::pin(std::io::Cursor::new(bytes))).await.unwrap()
}

async fn ended(session: &Session, entry: &EntryId) -> QueueRowState {
    session.wait(entry, Some(PATIENCE)).await.unwrap().state
}

async fn no_connection(office: &PostOffice) {
    let none = |office: &PostOffice| office.counters(Protocol::Smtp).open == 0;
    let gone = office.wait_until("no connection", PATIENCE, none).await;
    assert!(gone.is_ok(), "{}", office.transcript_text());
}

async fn cancel_at(point: Point, call: Call) {
    let office = office().await;
    if !point.is_pipelined() {
        office.withhold(SmtpExtension::Pipelining);
    }
    let hang: FaultHandle = office.inject(point.fault());
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[sender(&office, folder.path(), &["connections = 1"])]);
    let session = house.open(Logon::Full).await;
    let entry = submit(&session, point.text()).await;
    hang.reached(PATIENCE).await.unwrap();
    // The calls that handed it over have returned, or their references are dead in a moment.
    let late = cancel(&session, call, &entry).await;
    match point.fate() {
        Fate::Cancelled => {
            late.unwrap();
            assert_eq!(ended(&session, &entry).await, QueueRowState::Cancelled);
            assert!(session.queue(None, 1).await.unwrap().is_empty());
            if point != Point::AmidText {
                no_connection(&office).await;
            }
            hang.remove();
            no_connection(&office).await;
            assert_eq!(office.accepted_count(), 0);
            assert_eq!(office.counters(Protocol::Smtp).broken_off, point.broken_off());
            let gone = session.cancel(&entry).await.unwrap_err();
            assert_eq!(gone.code(), MapiCode::NOT_IN_QUEUE);
        }
        Fate::Stands => {
            assert_eq!(late.unwrap_err().code(), MapiCode::UNABLE_TO_ABORT);
            hang.remove();
            let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
            assert_eq!(row.state, QueueRowState::Finished);
            assert_all(&row, RecipientRowState::Delivered);
            assert_eq!(office.accepted_count(), 1);
        }
    }
    let sent = office.accepted_count();
    let next = session.submit(letter("next", &["bob@example.org"])).await.unwrap();
    assert_eq!(ended(&session, &next).await, QueueRowState::Finished);
    assert_eq!(office.accepted_count(), sent + 1);
    if point.fate() == Fate::Cancelled {
        assert_eq!(office.counters(Protocol::Smtp).connections, 2, "it was used again");
    }
    assert!(office.violations().is_empty(), "{:?}", office.violations());
    session.shutdown(GRACE).await.unwrap();
    // Nobody was told of a failure, and a copy is kept of what was sent only.
    assert!(messages(&house.maildir(), "INBOX").is_empty());
    assert_eq!(messages(&house.maildir(), "Sent").len() as u64, office.accepted_count());
}

/// Proves: OB-15, TN-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cancels_at_every_point_of_the_dialogue() {
    for point in Point::ALL {
        println!("{point:?}");
        cancel_at(point, Call::Cancel).await;
    }
}

/// Proves: TN-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_notifies_of_a_cancel_at_every_point_of_the_dialogue() {
    for point in Point::ALL {
        println!("{point:?}");
        cancel_at(point, Call::Notify).await;
    }
}

/// Points f and g where TLS begins with STARTTLS.
///
/// Proves: OB-15, TN-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cancels_at_every_step_of_starttls() {
    let hang = |phase| Fault::smtp(phase, Action::Hang).once();
    let faults = [
        hang(SmtpPhase::Connect),
        hang(SmtpPhase::Greeting),
        hang(SmtpPhase::Ehlo),
        hang(SmtpPhase::StartTls).after_effect(),
        hang(SmtpPhase::TlsHandshake),
        hang(SmtpPhase::Ehlo).nth(2),
    ];
    for fault in faults {
        println!("{fault:?}");
        let office = office().await;
        let hang = office.inject(fault);
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, office.ca_pem()).unwrap();
        let server = Server::starttls(office.address(Listener::Smtp).unwrap(), &ca_file);
        let account = Account::new("work", "ann@example.org").smtp(server.login("ann", "secret"));
        let house = House::new(&[account]);
        let session = house.open(Logon::Full).await;
        let entry = submit(&session, text(100)).await;
        hang.reached(PATIENCE).await.unwrap();
        cancel(&session, Call::Cancel, &entry).await.unwrap();
        assert_eq!(ended(&session, &entry).await, QueueRowState::Cancelled);
        no_connection(&office).await;
        let next = session.submit(letter("next", &["bob@example.org"])).await.unwrap();
        assert_eq!(ended(&session, &next).await, QueueRowState::Finished);
        assert_eq!(office.accepted_count(), 1);
        assert_eq!(office.counters(Protocol::Smtp).connections, 2, "it was used again");
        hang.remove();
        session.shutdown(GRACE).await.unwrap();
    }
}

/// Points e and n: queued behind a closed direction, and gone. References are dead by then.
///
/// Proves: OB-15, TN-16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cancels_what_waits_and_not_what_is_gone() {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[sender(&office, folder.path(), &[])]);
    let session = house.open(Logon::Full).await;
    let sent = session.submit(letter("sent", &["bob@example.org"])).await.unwrap();
    assert_eq!(ended(&session, &sent).await, QueueRowState::Finished);
    let late = cancel(&session, Call::Cancel, &sent).await.unwrap_err();
    assert_eq!(late.code(), MapiCode::NOT_IN_QUEUE);
    let late = cancel(&session, Call::Notify, &sent).await.unwrap_err();
    assert_eq!(late.code(), MapiCode::UNABLE_TO_ABORT);

    let hang = office.inject(Point::Greeting.fault().times(u32::MAX));
    office.disconnect_all();
    let mut waiting = Vec::new();
    for number in 0..10 {
        let subject = format!("waits {number}");
        waiting.push(session.submit(letter(&subject, &["bob@example.org"])).await.unwrap());
    }
    hang.reached(PATIENCE).await.unwrap();
    for entry in waiting.iter().rev() {
        cancel(&session, Call::Cancel, entry).await.unwrap();
    }
    cancel_references(&session).await;
    hang.remove();
    for entry in &waiting {
        assert_eq!(ended(&session, entry).await, QueueRowState::Cancelled);
    }
    let next = session.submit(letter("next", &["bob@example.org"])).await.unwrap();
    assert_eq!(ended(&session, &next).await, QueueRowState::Finished);
    assert_eq!(office.accepted_count(), 2);
    session.shutdown(GRACE).await.unwrap();
}

/// Point q: the spooler takes a large message, the server stops amid its literal for ever, and
/// who cancels gets it over another connection, once.
///
/// Proves: TN-14, IB-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cancels_what_it_receives_and_gets_it_once() {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[account(&office, folder.path(), &[])]);
    let hang = office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Hang).once());
    let bytes = text(3_000_000);
    office.deliver("ann", "INBOX", bytes.clone()).unwrap();
    let session = house.open(Logon::Full).await;
    hang.reached(PATIENCE).await.unwrap();
    // One of the references is that of the call; it may meet the next one too.
    cancel_references(&session).await;
    let got = await_messages(&house.maildir(), "INBOX", 1).await;
    assert!(got[0] == bytes, "the text is another one");
    assert_eq!(office.message_count("ann", "INBOX"), 1, "it is still on the server");
    assert!(office.counters(Protocol::Imap).connections >= 2, "the connection was used again");
    hang.remove();
    let request = postrider::session::FlushRequest { upload: false, download: true };
    at_once("the flush", session.flush(request)).await.unwrap();
    assert_eq!(messages(&house.maildir(), "INBOX").len(), 1, "it came twice");
    let next = session.submit(letter("next", &["bob@example.org"])).await.unwrap();
    assert_eq!(ended(&session, &next).await, QueueRowState::Finished);
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(messages(&house.maildir(), "INBOX").len(), 1);
}

/// Before anybody has the message: its bytes do not come, so there is no entry id and nothing to
/// cancel; a caller that goes away leaves nothing.
///
/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_given_up_leaves_nothing() {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(&[sender(&office, folder.path(), &[])]);
    let session = house.open(Logon::Full).await;
    let hold = Hold::default();
    let recipients = TO.map(str::to_owned).to_vec();
    let envelope = RawEnvelope { recipients, ..RawEnvelope::default() };
    let reader = tokio::io::AsyncReadExt::chain(std::io::Cursor::new(text(100)), hold.reader());
    let submission = session.submit_raw(envelope, Box::pin(reader));
    tokio::select! {
        answer = submission => panic!("{answer:?}"),
        () = hold.reached.cancelled() => {}
    }
    assert!(session.queue(None, 1).await.unwrap().is_empty());
    let next = session.submit(letter("next", &["bob@example.org"])).await.unwrap();
    assert_eq!(ended(&session, &next).await, QueueRowState::Finished);
    assert_eq!(office.accepted_count(), 1);
    session.shutdown(GRACE).await.unwrap();
}
