#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::mapi::{Attachment, MessageData, PropList, Recipient, RecipientType, tags};
use crate::spi::{OutgoingState, Repetition};
use crate::spool::{Batch, Expect, Op, SledSpool, SpoolOptions};
use tokio::io::AsyncReadExt;

mod delay;
mod inbox;

struct House {
    dir: tempfile::TempDir,
    clock: ManualClock,
    spool: Arc<dyn Spool>,
    store: Arc<LocalStore>,
}

const START: u64 = 1_700_000_000_000;

impl House {
    async fn new() -> House {
        Self::with(|options| options).await
    }

    async fn with(change: impl Fn(StoreOptions) -> StoreOptions) -> House {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(SysTime::from_millis(START));
        let spool: Arc<dyn Spool> =
            Arc::new(SledSpool::open(&dir.path().join("spool"), SpoolOptions::default()).unwrap());
        let options = StoreOptions { maildir: dir.path().join("Mail"), ..StoreOptions::default() };
        let store = LocalStore::open(
            change(options),
            Arc::clone(&spool),
            Arc::new(clock.clone()),
            Handle::current(),
        )
        .await
        .unwrap();
        clock.advance(Duration::from_secs(1));
        House { dir, clock, spool, store }
    }

    /// The same Maildir and spool under a store that begins anew, as after a crash.
    async fn again(&self) -> Arc<LocalStore> {
        LocalStore::open(
            self.store.options.clone(),
            Arc::clone(&self.spool),
            Arc::new(self.clock.clone()),
            Handle::current(),
        )
        .await
        .unwrap()
    }

    fn mail(&self, folder: &str) -> PathBuf {
        self.dir.path().join("Mail").join(folder)
    }

    async fn rows(&self) -> Vec<OutgoingRow> {
        self.store.outgoing_queue(None, 100).await.unwrap()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn only_file(folder: &Path) -> Vec<u8> {
    let names = names(folder);
    assert_eq!(names.len(), 1, "{names:?}");
    std::fs::read(folder.join(&names[0])).unwrap()
}

fn note() -> MessageData {
    MessageData {
        props: PropList::new()
            .with(tags::SUBJECT, "Grüße")
            .with(tags::BODY, "hi\n")
            .with(tags::SENDER_EMAIL_ADDRESS, "ann@example.org"),
        recipients: vec![
            Recipient::smtp(0, RecipientType::To, "bob@example.org"),
            Recipient::smtp(1, RecipientType::Bcc, "eve@example.org"),
        ],
        attachments: Vec::new(),
    }
}

fn raw() -> RawSubmission {
    RawSubmission {
        recipients: vec!["bob@example.org".into()],
        default_sender: "ann@example.org".into(),
        default_sender_name: "Ann".into(),
        ..RawSubmission::default()
    }
}

fn stream(bytes: &[u8]) -> Pin<Box<dyn AsyncRead + Send>> {
    Box::pin(std::io::Cursor::new(bytes.to_vec()))
}

async fn read(mut reader: Pin<Box<dyn AsyncRead + Send>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn a_submitted_object_is_in_the_table_with_all_it_needs() {
    let house = House::new().await;
    let mut added = house.store.outgoing_added();
    let (first, _) = house.store.submit(note()).await.unwrap();
    assert_eq!(added.try_recv().unwrap(), first);
    let (second, _) = house.store.submit(note()).await.unwrap();
    let rows = house.rows().await;
    assert_eq!(rows.iter().map(|row| &row.entry).collect::<Vec<_>>(), [&first, &second]);
    assert_eq!(rows[0].state, OutgoingState::Waiting { not_before: SysTime::EPOCH });
    let message = house.store.open_message(&first).await.unwrap();
    let props = message.props().await.unwrap();
    assert_eq!(props.time(tags::CLIENT_SUBMIT_TIME), Some(SysTime::from_millis(START + 1_000)));
    let id = props.text(tags::INTERNET_MESSAGE_ID).unwrap();
    assert_eq!(id, format!("<{}@example.org>", first.to_string().to_lowercase()));
    assert_eq!(props.text(tags::BODY), Some("hi\n"));
    assert!(message.content().await.unwrap().is_none());
    assert_eq!(message.recipients().await.unwrap().len(), 2);
    let exported = String::from_utf8(read(house.store.export(&first).await.unwrap()).await);
    assert!(exported.unwrap().ends_with("\r\n\r\nhi\r\n"));
    assert_eq!(
        house.store.export(&EntryId::from_bytes(b"none").unwrap()).await.err().unwrap().code(),
        MapiCode::NOT_FOUND
    );
}

#[tokio::test]
async fn large_objects_come_back_whole() {
    let house = House::new().await;
    for text in ["small".to_owned(), "large ü ".repeat(10_000)] {
        let mut message = note();
        message.props.set(tags::BODY, text.as_str());
        message.props.set(tags::HTML, "<p>");
        message.attachments.push(Attachment {
            filename: "a.bin".into(),
            data: vec![7; 300_000],
            ..Attachment::default()
        });
        let (entry, _) = house.store.submit(message.clone()).await.unwrap();
        let record = house.spool.outbox(&entry).await.unwrap().unwrap();
        assert!(record.object.is_some());
        assert!(record.props.text(tags::BODY).is_none_or(|body| body == "small"));
        let opened = house.store.open_message(&entry).await.unwrap();
        let props = opened.props().await.unwrap();
        assert_eq!(props.text(tags::BODY), Some(text.as_str()));
        assert_eq!(props.text(tags::HTML), Some("<p>"));
        assert_eq!(opened.attachments().await.unwrap(), message.attachments);
        opened.set_props(PropList::new().with(tags::PRIORITY, 1)).await.unwrap();
        opened.save_changes(Repetition::First).await.unwrap();
        let again = house.store.open_message(&entry).await.unwrap().props().await.unwrap();
        assert_eq!(
            (again.text(tags::BODY), again.long(tags::PRIORITY)),
            (Some(text.as_str()), Some(1))
        );
        assert!(read(house.store.export(&entry).await.unwrap()).await.len() > 400_000);
    }
}

/// Proves: OB-17
#[tokio::test]
async fn bad_input_is_refused_and_leaves_nothing() {
    let house = House::with(|options| StoreOptions { size_limit: 10_000, ..options }).await;
    let mut cases: Vec<(MessageData, MapiCode)> = Vec::new();
    let mut nobody = note();
    nobody.recipients.clear();
    cases.push((nobody, MapiCode::NO_RECIPIENTS));
    let mut injected = note();
    injected.props.set(tags::SUBJECT, "x\r\nBcc: y@z");
    cases.push((injected, MapiCode::INVALID_PARAMETER));
    let mut malformed = note();
    malformed.recipients[1].address = "not an address".into();
    cases.push((malformed, MapiCode::INVALID_PARAMETER));
    let mut nul = note();
    nul.recipients[0].display_name = "a\0b".into();
    cases.push((nul, MapiCode::INVALID_PARAMETER));
    let mut big = note();
    big.attachments.push(Attachment { data: vec![0; 10_001], ..Attachment::default() });
    cases.push((big, MapiCode::TOO_BIG));
    for (message, code) in cases {
        assert_eq!(house.store.submit(message).await.err().unwrap().code(), code);
    }
    let long = [b"A: b\r\n\r\n".to_vec(), vec![b'x'; 10_000]].concat();
    let header = RawSubmission { recipients_from_header: true, ..raw() };
    let nobody = RawSubmission { recipients: Vec::new(), ..raw() };
    let bad = RawSubmission { recipients: vec!["a b@c".into()], ..raw() };
    let sender = RawSubmission { from: Some("a@b\r\nRCPT TO:<c@d>".into()), ..raw() };
    let cases: [(RawSubmission, &[u8], MapiCode); 9] = [
        (raw(), b"A: b\r\n\r\nx\0y", MapiCode::CORRUPT_DATA),
        (raw(), b"", MapiCode::CORRUPT_DATA),
        (raw(), b"A: b\rc\r\n\r\n", MapiCode::CORRUPT_DATA),
        (raw(), &long, MapiCode::TOO_BIG),
        (nobody.clone(), b"A: b\r\n\r\n", MapiCode::NO_RECIPIENTS),
        (nobody, b"To: c@d\r\n\r\n", MapiCode::NO_RECIPIENTS),
        (bad, b"A: b\r\n\r\n", MapiCode::INVALID_PARAMETER),
        (header, b"To: Ann Example\r\n\r\n", MapiCode::INVALID_PARAMETER),
        (sender, b"A: b\r\n\r\n", MapiCode::INVALID_PARAMETER),
    ];
    for (envelope, bytes, code) in cases {
        let answer = house.store.submit_raw(envelope, stream(bytes)).await;
        assert_eq!(answer.err().unwrap().code(), code, "{:?}", bytes.get(..20));
    }
    assert!(house.spool.outbox_page(None, 10).await.unwrap().is_empty());
    assert!(names(&house.dir.path().join("spool/staging")).is_empty());
}

#[tokio::test]
async fn raw_messages_are_kept_as_they_are() {
    let house = House::new().await;
    let bytes = b"From: Ann <ann@example.org>\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nbody \xff\r\n";
    let (entry, _) = house.store.submit_raw(raw(), stream(bytes)).await.unwrap();
    let message = house.store.open_message(&entry).await.unwrap();
    let content = message.content().await.unwrap().unwrap();
    assert_eq!(content.size, bytes.len() as u64);
    assert_eq!(content.digest, Some(*blake3::hash(bytes).as_bytes()));
    assert_eq!(read(content.reader).await, bytes);
    let props = message.props().await.unwrap();
    assert_eq!(props.text(tags::INTERNET_MESSAGE_ID), Some("<1@x>"));
    assert_eq!(props.text(tags::SENDER_NAME), Some("Ann"));
    assert!(props.value(tags::ENVELOPE_SENDER).is_none());
    assert!(message.set_content().await.is_err());
}

#[tokio::test]
async fn recipients_and_sender_come_from_envelope_and_header() {
    let house = House::new().await;
    let envelope = RawSubmission {
        recipients: vec!["root".into(), "c@EXAMPLE.org".into()],
        recipients_from_header: true,
        from: Some("<>".into()),
        delivery_report: true,
        deferred_send_time: Some(SysTime::from_millis(START + 60_000)),
        ..raw()
    };
    let text = b"To: Bob <bob@example.org>, c@example.org\nBcc: eve@example.org\nSubject: =?utf-8?Q?=C3=BC?=\n\nx\n";
    let (entry, _) = house.store.submit_raw(envelope, stream(text)).await.unwrap();
    let message = house.store.open_message(&entry).await.unwrap();
    let rows: Vec<(u32, String, RecipientType)> = message
        .recipients()
        .await
        .unwrap()
        .into_iter()
        .map(|row| (row.row, row.address, row.kind))
        .collect();
    assert_eq!(
        rows,
        [
            (0, "root@example.org".into(), RecipientType::Bcc),
            (1, "c@EXAMPLE.org".into(), RecipientType::To),
            (2, "bob@example.org".into(), RecipientType::To),
            (3, "eve@example.org".into(), RecipientType::Bcc),
        ]
    );
    let props = message.props().await.unwrap();
    assert_eq!(props.text(tags::ENVELOPE_SENDER), Some(""));
    assert_eq!(props.text(tags::SUBJECT), Some("ü"));
    assert_eq!(props.boolean(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED), Some(true));
    let not_before = SysTime::from_millis(START + 60_000);
    assert_eq!(house.rows().await[0].state, OutgoingState::Waiting { not_before });
    let sent = String::from_utf8(read(house.store.export(&entry).await.unwrap()).await).unwrap();
    assert!(!sent.contains("eve@") && sent.contains("From: Ann <ann@example.org>\r\n"), "{sent}");
}

/// Proves: OB-19
#[tokio::test]
async fn the_deferred_send_time_is_computed_where_number_and_units_are_given() {
    let house = House::new().await;
    let base = START + 1_000;
    let cases = [
        (Some(3), Some(1), None, base + 3 * 3_600_000),
        (Some(2), Some(3), Some(5), base + 2 * 7 * 24 * 3_600_000),
        (Some(2), None, Some(base + 7), base + 7),
        (None, None, Some(base - 7), 0),
        (Some(0), Some(0), None, 0),
    ];
    for (number, units, time, wanted) in cases {
        let mut message = note();
        number.into_iter().for_each(|n| message.props.set(tags::DEFERRED_SEND_NUMBER, n));
        units.into_iter().for_each(|n| message.props.set(tags::DEFERRED_SEND_UNITS, n));
        if let Some(time) = time {
            message.props.set(tags::DEFERRED_SEND_TIME, SysTime::from_millis(time));
        }
        let (entry, _) = house.store.submit(message).await.unwrap();
        let not_before = SysTime::from_millis(wanted);
        let row = house.store.outgoing_row(&entry).await.unwrap();
        assert_eq!(row.state, OutgoingState::Waiting { not_before }, "{number:?} {units:?}");
    }
}

/// Proves: OB-14, OB-15
#[tokio::test]
async fn locks_guard_against_abort_hold_and_each_other() {
    let house = House::new().await;
    let store = &house.store;
    let (entry, _) = store.submit(note()).await.unwrap();
    store.set_lock_state(&entry, SubmitFlags::LOCKED).await.unwrap();
    let code = |answer: MapiResult<()>| answer.err().unwrap().code();
    assert_eq!(code(store.set_lock_state(&entry, SubmitFlags::LOCKED).await), MapiCode::BUSY);
    assert_eq!(code(store.abort_submit(&entry).await), MapiCode::UNABLE_TO_ABORT);
    assert_eq!(code(store.hold(&entry).await), MapiCode::UNABLE_TO_ABORT);
    store.set_lock_state(&entry, SubmitFlags::empty()).await.unwrap();
    store.hold(&entry).await.unwrap();
    assert!(house.rows().await.is_empty());
    assert_eq!(code(store.set_lock_state(&entry, SubmitFlags::LOCKED).await), MapiCode::BUSY);
    let row = store.outgoing_row(&entry).await.unwrap();
    assert_eq!(row.state, OutgoingState::Waiting { not_before: SysTime::MAX });
    let mut added = store.outgoing_added();
    store.release(&entry).await.unwrap();
    assert_eq!(added.try_recv().unwrap(), entry);
    assert_eq!(house.rows().await.len(), 1);
    store.set_deferred(&entry, Some("work")).await.unwrap();
    assert!(house.rows().await.is_empty());
    assert_eq!(code(store.hold(&entry).await), MapiCode::UNABLE_TO_ABORT);
    assert_eq!(code(store.abort_submit(&entry).await), MapiCode::UNABLE_TO_ABORT);
    let deferred = store.deferred_queue(None, 10).await.unwrap();
    assert_eq!(deferred[0].state, OutgoingState::Deferred { transport: "work".into() });
    store.set_deferred(&entry, None).await.unwrap();
    assert_eq!(house.rows().await.len(), 1);
    store.abort_submit(&entry).await.unwrap();
    assert_eq!(code(store.abort_submit(&entry).await), MapiCode::NOT_IN_QUEUE);
    assert_eq!(
        code(store.set_lock_state(&entry, SubmitFlags::LOCKED).await),
        MapiCode::NOT_IN_QUEUE
    );
    assert_eq!(store.outgoing_row(&entry).await.err().unwrap().code(), MapiCode::NOT_IN_QUEUE);
}

#[tokio::test]
async fn the_deferred_table_is_paged() {
    let house = House::new().await;
    for number in 0..7 {
        let (entry, _) = house.store.submit(note()).await.unwrap();
        if number % 2 == 0 {
            house.store.set_deferred(&entry, Some("work")).await.unwrap();
        }
    }
    let first = house.store.deferred_queue(None, 3).await.unwrap();
    let rest = house.store.deferred_queue(Some(&first[2].entry), 3).await.unwrap();
    assert_eq!((first.len(), rest.len()), (3, 1));
}

/// Proves: OB-4
#[tokio::test]
async fn responsibility_is_kept_by_save_changes_only() {
    let house = House::new().await;
    let (entry, _) = house.store.submit(note()).await.unwrap();
    let one = house.store.open_message(&entry).await.unwrap();
    let other = house.store.open_message(&entry).await.unwrap();
    let mut rows = one.recipients().await.unwrap();
    rows[0].responsibility = true;
    one.modify_recipients(vec![rows[0].clone()]).await.unwrap();
    assert!(one.recipients().await.unwrap()[0].responsibility);
    let stored = || async { house.spool.outbox(&entry).await.unwrap().unwrap().recipients };
    assert!(!stored().await[0].responsibility);
    one.save_changes(Repetition::First).await.unwrap();
    // Another one's change of another row keeps the first.
    rows[1].responsibility = true;
    other.modify_recipients(vec![rows[1].clone()]).await.unwrap();
    other.save_changes(Repetition::First).await.unwrap();
    assert!(stored().await.iter().all(|row| row.responsibility));
}

/// Proves: OB-16
#[tokio::test]
async fn a_finished_message_leaves_one_sent_copy() {
    let house = House::new().await;
    let (entry, _) = house.store.submit(note()).await.unwrap();
    let exported = read(house.store.export(&entry).await.unwrap()).await;
    let record = house.spool.outbox(&entry).await.unwrap().unwrap();
    house.store.finished_msg(&entry).await.unwrap();
    house.store.finished_msg(&entry).await.unwrap();
    assert!(house.spool.outbox(&entry).await.unwrap().is_none());
    assert_eq!(only_file(&house.mail(".Sent/cur")), exported);
    let name = names(&house.mail(".Sent/cur")).remove(0);
    assert!(name.ends_with(":2,S"), "{name}");
    // A crash between copy and removal; meanwhile the user answered it.
    house.clock.advance(Duration::from_secs(5));
    let cur = house.mail(".Sent/cur");
    std::fs::rename(cur.join(&name), cur.join(format!("{name}R"))).unwrap();
    let again = house.again().await;
    let (entry, record, expect) = (entry.clone(), Box::new(record), Expect::Absent);
    let put = Op::PutOutbox { entry: entry.clone(), record, expect };
    house.spool.commit(Batch::new().with(put)).await.unwrap();
    again.finished_msg(&entry).await.unwrap();
    assert_eq!(names(&cur).len(), 1);
    assert!(house.spool.outbox(&entry).await.unwrap().is_none());
}

/// Proves: OB-16
#[tokio::test]
async fn copies_follow_the_wishes() {
    let cases = [
        (true, false, false, 1),
        (false, false, false, 0),
        (false, true, false, 1),
        (true, true, true, 0),
        (true, false, true, 0),
    ];
    for (option, sentmail, delete, copies) in cases {
        let house = House::with(|options| StoreOptions { sent: option, ..options }).await;
        let mut message = note();
        if sentmail {
            message.props.set(tags::SENTMAIL_ENTRYID, vec![1_u8]);
        }
        message.props.set(tags::DELETE_AFTER_SUBMIT, delete);
        let (entry, _) = house.store.submit(message).await.unwrap();
        house.store.finished_msg(&entry).await.unwrap();
        assert_eq!(names(&house.mail(".Sent/cur")).len(), copies, "{option} {sentmail} {delete}");
    }
}

#[tokio::test]
async fn a_lock_attempt_that_is_dropped_locks_nothing() {
    let house = House::new().await;
    let (entry, _) = house.store.submit(note()).await.unwrap();
    let store = &house.store;
    // Dropped unpolled, then once at each point where it waits.
    for polls in 0..3 {
        let mut attempt = std::pin::pin!(store.set_lock_state(&entry, SubmitFlags::LOCKED));
        let done =
            (0..polls).any(|_| futures_util::FutureExt::now_or_never(&mut attempt).is_some());
        if done {
            store.set_lock_state(&entry, SubmitFlags::empty()).await.unwrap();
        }
    }
    store.set_lock_state(&entry, SubmitFlags::LOCKED).await.unwrap();
}
