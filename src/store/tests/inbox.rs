//! What is put into the Maildir: received mail and reports.

use super::*;
use crate::mapi::ReportOutcome;
use crate::spi::{RecipientReport, ReportKind};
use crate::spool::{
    Batch, Envelope, HistoryEnd, HistoryRecord, Op, QueueRecipient, RecipientState, Reply,
    StatusReportStep, StepKind, TiedBy, Trace,
};

fn incoming(key: u8) -> PropList {
    PropList::new()
        .with(tags::SEARCH_KEY, vec![key])
        .with(tags::SOURCE_MAILBOX, "Lists/rust")
        .with(tags::MESSAGE_DELIVERY_TIME, SysTime::from_millis(1_600_000_000_000))
}

async fn receive(store: &LocalStore, key: u8, bytes: &[u8], repetition: Repetition) {
    let message = store.new_incoming().await.unwrap();
    message.set_props(incoming(key)).await.unwrap();
    let mut sink = message.set_content().await.unwrap();
    for piece in bytes.chunks(100_000) {
        sink.write(piece).await.unwrap();
    }
    sink.finish().await.unwrap();
    assert!(message.entry_id().is_none());
    message.save_changes(repetition).await.unwrap();
    assert!(message.entry_id().is_some());
    message.save_changes(repetition).await.unwrap();
}

/// Proves: IB-2
#[tokio::test]
async fn received_messages_are_saved_once_byte_for_byte() {
    let house = House::new().await;
    let large: Vec<u8> = (0..900_000_u32).map(|n| (n % 251) as u8).collect();
    receive(&house.store, 1, &large, Repetition::First).await;
    let new = house.mail(".Lists.rust/new");
    assert_eq!(only_file(&new), large);
    let name = names(&new).remove(0);
    std::fs::rename(new.join(&name), house.mail(".Lists.rust/cur").join(format!("{name}:2,FS")))
        .unwrap();
    let again = house.again().await;
    receive(&again, 1, &large, Repetition::Possible).await;
    assert!(names(&new).is_empty());
    receive(&house.store, 2, b"small", Repetition::Possible).await;
    assert_eq!(only_file(&new), b"small");
    assert!(names(&house.mail("tmp")).is_empty());
}

/// Proves: IB-3
#[tokio::test]
async fn what_is_not_saved_leaves_nothing() {
    let house = House::new().await;
    let message = house.store.new_incoming().await.unwrap();
    let mut sink = message.set_content().await.unwrap();
    sink.write(&vec![b'x'; 600_000]).await.unwrap();
    assert_eq!(names(&house.mail("tmp")).len(), 1);
    drop(sink);
    assert!(names(&house.mail("tmp")).is_empty());
    let mut sink = message.set_content().await.unwrap();
    sink.write(b"Subject: x\r\nTo: a@b\r\n\r\n").await.unwrap();
    sink.write(&vec![b'x'; 600_000]).await.unwrap();
    sink.finish().await.unwrap();
    assert_eq!(message.props().await.unwrap().text(tags::SUBJECT), Some("x"));
    assert_eq!(message.recipients().await.unwrap()[0].address, "a@b");
    drop(message);
    assert!(names(&house.mail("tmp")).is_empty());
    assert!(names(&house.mail("new")).is_empty());
    let empty = house.store.new_incoming().await.unwrap();
    assert!(empty.save_changes(Repetition::First).await.is_err());
}

#[tokio::test]
async fn a_message_without_bytes_is_composed() {
    let house = House::new().await;
    let message = house.store.new_incoming().await.unwrap();
    message.set_props(note().props).await.unwrap();
    message.modify_recipients(note().recipients).await.unwrap();
    message.save_changes(Repetition::First).await.unwrap();
    let text = String::from_utf8(only_file(&house.mail("new"))).unwrap();
    assert!(text.contains("To: bob@example.org\r\n") && text.ends_with("\r\nhi\r\n"), "{text}");
}

#[tokio::test]
async fn a_full_disk_stops_reception() {
    let house = House::with(|options| StoreOptions { reserve: u64::MAX, ..options }).await;
    let message = house.store.new_incoming().await.unwrap();
    let refusal = message.set_content().await.err().unwrap();
    assert_eq!(refusal.code(), MapiCode::NOT_ENOUGH_DISK);
    message.set_props(note().props).await.unwrap();
    let refusal = message.save_changes(Repetition::First).await.unwrap_err();
    assert_eq!(refusal.code(), MapiCode::NOT_ENOUGH_DISK);
    assert!(names(&house.mail("tmp")).is_empty() && names(&house.mail("new")).is_empty());
}

/// A small file system of its own, where this process may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let option = format!("size={size},mode=0700");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The disk fills up in the middle of a message although no reserve is kept.
#[tokio::test]
async fn a_disk_that_is_full_in_the_middle_of_a_message_keeps_nothing_of_it() {
    let mount = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(mount.path(), "2m") else {
        eprintln!("not tested: this user may not mount a file system");
        return;
    };
    let root = mount.path().join("Mail");
    let house =
        House::with(|options| StoreOptions { maildir: root.clone(), reserve: 0, ..options }).await;
    let large = vec![b'x'; 700_000];
    receive(&house.store, 1, &large, Repetition::First).await;
    receive(&house.store, 2, &large, Repetition::First).await;
    let message = house.store.new_incoming().await.unwrap();
    message.set_props(incoming(3)).await.unwrap();
    let mut sink = message.set_content().await.unwrap();
    let refusal = async {
        for piece in large.chunks(100_000) {
            sink.write(piece).await?;
        }
        sink.finish().await?;
        message.save_changes(Repetition::First).await
    };
    assert_eq!(refusal.await.unwrap_err().code(), MapiCode::NOT_ENOUGH_DISK);
    drop(message);
    assert!(names(&root.join("tmp")).is_empty());
    let new = root.join(".Lists.rust/new");
    assert_eq!(names(&new).len(), 2);
    for name in names(&new) {
        assert_eq!(std::fs::read(new.join(name)).unwrap(), large);
    }
    // Space is back.
    std::fs::remove_file(new.join(names(&new).remove(0))).unwrap();
    receive(&house.store, 3, &large, Repetition::First).await;
    assert_eq!(names(&new).len(), 2);
}

fn outcome(row: u32, kind: ReportKind) -> RecipientReport {
    RecipientReport {
        row,
        kind,
        status: "5.1.1".into(),
        diagnostic: "550 no such user".into(),
        remote_mta: "mx.example.org".into(),
        time: SysTime::from_millis(START + 9_000),
    }
}

async fn report_about(house: &House, entry: &EntryId, attempt: u32) -> Report {
    let message = house.store.open_message(entry).await.unwrap();
    let rows = message.recipients().await.unwrap();
    Report {
        original: entry.clone(),
        attempt,
        recipients: vec![(rows[0].clone(), outcome(0, ReportKind::Failure))],
        original_props: message.props().await.unwrap(),
    }
}

/// An attempt that was taken back has its number used again.
#[tokio::test]
async fn reports_of_one_attempt_about_different_recipients_do_not_hide_each_other() {
    let house = House::new().await;
    let mut message = note();
    message.recipients.push(Recipient::smtp(7, RecipientType::To, "eve@example.org"));
    let (entry, _) = house.store.submit(message).await.unwrap();
    let first = report_about(&house, &entry, 1).await;
    let mut second = first.clone();
    let rows = house.store.open_message(&entry).await.unwrap().recipients().await.unwrap();
    let last = rows.last().unwrap().clone();
    second.recipients = vec![(last.clone(), outcome(last.row, ReportKind::Failure))];
    for report in [&first, &second, &first, &second] {
        house.store.deliver_report(report.clone()).await.unwrap();
    }
    assert_eq!(names(&house.mail("new")).len(), 2);
}

/// Proves: OB-12, SP-4
#[tokio::test]
async fn a_report_is_put_into_inbox_once_per_attempt() {
    let house = House::new().await;
    let bytes =
        b"From: ann@example.org\r\nSubject: hello\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n";
    let (entry, _) = house.store.submit_raw(raw(), stream(bytes)).await.unwrap();
    let report = report_about(&house, &entry, 1).await;
    house.store.deliver_report(report.clone()).await.unwrap();
    house.store.deliver_report(report.clone()).await.unwrap();
    let text = String::from_utf8(only_file(&house.mail("new"))).unwrap();
    assert!(text.contains("bob@example.org") && text.contains("550 no such user"), "{text}");
    assert!(text.contains(std::str::from_utf8(bytes).unwrap()), "{text}");
    // Read meanwhile, and told again by a later process.
    let name = names(&house.mail("new")).remove(0);
    std::fs::rename(house.mail("new").join(&name), house.mail("cur").join(format!("{name}:2,S")))
        .unwrap();
    house.clock.advance(Duration::from_secs(60));
    house.again().await.deliver_report(report).await.unwrap();
    assert!(names(&house.mail("new")).is_empty());
    // A recipient fails once.
    house.store.deliver_report(report_about(&house, &entry, 2).await).await.unwrap();
    assert!(names(&house.mail("new")).is_empty());
}

/// Proves: SP-4
#[tokio::test]
async fn reports_heed_wishes_and_never_answer_reports() {
    let house = House::new().await;
    let (entry, _) = house.store.submit(note()).await.unwrap();
    let base = report_about(&house, &entry, 1).await;
    let mut suppressed = base.clone();
    suppressed.original_props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, false);
    let mut unasked = base.clone();
    unasked.recipients[0].1.kind = ReportKind::Delivery;
    let mut null_sender = base.clone();
    null_sender.original_props.set(tags::ENVELOPE_SENDER, "");
    let mut class = base.clone();
    class.original_props.set(tags::MESSAGE_CLASS, "report.IPM.Note.NDR");
    for report in [suppressed, unasked.clone(), null_sender, class] {
        house.store.deliver_report(report).await.unwrap();
    }
    assert!(names(&house.mail("new")).is_empty());
    let mut asked = unasked;
    asked.original_props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    house.store.deliver_report(asked).await.unwrap();
    let text = String::from_utf8(only_file(&house.mail("new"))).unwrap();
    assert!(text.contains("Action: delivered"), "{text}");
    // The original is gone: the report is due all the same.
    house.store.abort_submit(&entry).await.unwrap();
    house.store.deliver_report(base).await.unwrap();
    assert_eq!(names(&house.mail("new")).len(), 2);
}

/// An attempt that was taken back, and a crash before the host kept what it had reported.
///
/// Proves: OB-12, SP-4
#[tokio::test]
async fn nobody_is_reported_twice_although_an_attempt_has_its_number_again() {
    let house = House::new().await;
    let mut message = note();
    message.props.set(tags::MESSAGE_CLASS, "IPM.Note.Custom");
    message.recipients.push(Recipient::smtp(7, RecipientType::To, "kim@example.org"));
    let (entry, _) = house.store.submit(message).await.unwrap();
    let first = report_about(&house, &entry, 1).await;
    house.store.deliver_report(first.clone()).await.unwrap();
    let read = names(&house.mail("new")).remove(0);
    std::fs::rename(house.mail("new").join(&read), house.mail("cur").join(format!("{read}:2,S")))
        .unwrap();
    let rows = house.store.open_message(&entry).await.unwrap().recipients().await.unwrap();
    let last = rows.last().unwrap().clone();
    let mut both = first.clone();
    both.recipients.push((last.clone(), outcome(last.row, ReportKind::Failure)));
    // By this process and by the next.
    house.store.deliver_report(both.clone()).await.unwrap();
    house.again().await.deliver_report(both).await.unwrap();
    let text = String::from_utf8(only_file(&house.mail("new"))).unwrap();
    assert!(text.contains("Final-Recipient: rfc822; kim@example.org"), "{text}");
    assert!(!text.contains("Final-Recipient: rfc822; bob@example.org"), "{text}");
    // A report that was noted and never made is made now, about the same recipients.
    std::fs::remove_file(house.mail("cur").join(format!("{read}:2,S"))).unwrap();
    house.again().await.deliver_report(first).await.unwrap();
    assert_eq!(names(&house.mail("new")).len(), 2);
    let reports = house.spool.outbox(&entry).await.unwrap().unwrap().reports;
    let noted: Vec<_> =
        reports.iter().map(|made| (made.report.rows.clone(), made.report.outcome)).collect();
    assert_eq!(noted, [(vec![0], ReportOutcome::Failed), (vec![7], ReportOutcome::Failed)]);
    assert_eq!(reports[0].report.class, "REPORT.IPM.Note.Custom.NDR");
}

/// Proves: SP-4
#[tokio::test]
async fn there_is_no_report_about_a_report_that_was_submitted_as_it_is() {
    let house = House::new().await;
    let bytes = b"From: ann@example.org\r\nDate: x\r\nMessage-ID: <1@x>\r\nContent-Type: multipart/report;\r\n \
        report-type=delivery-status; boundary=b\r\n\r\n--b--\r\n";
    let (entry, _) = house.store.submit_raw(raw(), stream(bytes)).await.unwrap();
    let report = report_about(&house, &entry, 1).await;
    assert_eq!(report.original_props.text(tags::MESSAGE_CLASS), Some("REPORT.IPM.Note"));
    house.store.deliver_report(report).await.unwrap();
    assert!(names(&house.mail("new")).is_empty());
}

fn sent(message_id: &str, to: &str) -> HistoryRecord {
    HistoryRecord {
        transport: "work".into(),
        end: HistoryEnd::Finished,
        ended: SysTime::from_millis(START),
        submitted: SysTime::from_millis(START),
        attempts: 1,
        envelope: Envelope {
            recipients: vec![QueueRecipient {
                row: 0,
                address: to.into(),
                state: RecipientState::Delivered {
                    at: SysTime::from_millis(START),
                    reply: Reply::default(),
                },
                notify: None,
                original: None,
            }],
            ..Envelope::default()
        },
        subject: "x".into(),
        message_id: message_id.into(),
        size: 1,
        trace: Trace::default(),
    }
}

fn numbered(number: u64) -> EntryId {
    EntryId::from_ulid(ulid::Ulid::from_parts(START, number.into()))
}

async fn remember(house: &House, number: u64, record: HistoryRecord) {
    let put = Op::PutHistory { entry: numbered(number), record: Box::new(record) };
    house.spool.commit(Batch::new().with(put)).await.unwrap();
}

/// A notification about bob; the texts are header lines, and fields about the message.
fn notification(header: &str, fields: &str, returned: &str) -> Vec<u8> {
    format!(
        "From: <mailer-daemon@x.org>\r\n{header}Content-Type: multipart/report;\r\n \
         report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x.org\r\n{fields}\r\n\
         Final-Recipient: rfc822; BOB@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n\
         --b\r\nContent-Type: text/rfc822-headers\r\n\r\n{returned}\r\n--b--\r\n"
    )
    .into_bytes()
}

async fn reports_of(house: &House, number: u64) -> Vec<StatusReportStep> {
    let history = house.spool.history(&numbered(number)).await.unwrap().unwrap();
    let mut reports = Vec::new();
    for step in history.trace.steps() {
        let StepKind::StatusReport(report) = &step.what else { panic!("{step:?}") };
        reports.push(report.clone());
    }
    reports
}

/// Proves: IB-8
#[tokio::test]
async fn a_notification_is_tied_to_its_message_and_kept_as_it_came() {
    let house = House::new().await;
    remember(&house, 1, sent("<one@x>", "bob@example.org")).await;
    remember(&house, 2, sent("<two@x>", "bob@example.org")).await;
    remember(&house, 3, sent("<two@x>", "eve@example.org")).await;
    let by_envelope = notification(
        "",
        &format!("Original-Envelope-Id: {}\r\n", numbered(1)),
        "Message-ID: <two@x>\r\n",
    );
    let by_id = notification("", "Original-Envelope-Id: other\r\n", "Message-ID: <two@x>\r\n");
    let by_reference = notification("References: <none@x> <one@x>\r\n", "", "");
    let strange = notification("In-Reply-To: <two@y>\r\n", "", "Message-ID: <none@x>\r\n");
    for (key, bytes) in (1..).zip([&by_envelope, &by_id, &by_reference, &strange]) {
        let message = house.store.new_incoming().await.unwrap();
        message.set_props(incoming(key)).await.unwrap();
        let mut sink = message.set_content().await.unwrap();
        for piece in bytes.chunks(50) {
            sink.write(piece).await.unwrap();
        }
        sink.finish().await.unwrap();
        let props = message.props().await.unwrap();
        assert_eq!(props.text(tags::MESSAGE_CLASS), Some("REPORT.IPM.Note.NDR"));
        message.save_changes(Repetition::First).await.unwrap();
        // The same once more after a crash changes nothing.
        let again = house.again().await;
        receive(&again, key, bytes, Repetition::Possible).await;
    }
    let new = house.mail(".Lists.rust/new");
    let mut kept: Vec<Vec<u8>> =
        names(&new).iter().map(|name| std::fs::read(new.join(name)).unwrap()).collect();
    let mut came = vec![by_envelope, by_id, by_reference, strange];
    kept.sort();
    came.sort();
    assert_eq!(kept, came, "byte for byte, each once");
    let tied: Vec<TiedBy> = reports_of(&house, 1).await.iter().map(|one| one.tied_by).collect();
    assert_eq!(tied, [TiedBy::EnvelopeId, TiedBy::Reference]);
    let [report] = reports_of(&house, 2).await.try_into().unwrap();
    assert_eq!((report.tied_by, report.outcome), (TiedBy::MessageId, ReportOutcome::Failed));
    assert_eq!(report.class, "REPORT.IPM.Note.NDR");
    assert_eq!(report.recipients[0].address, "BOB@example.org");
    assert!(reports_of(&house, 3).await.is_empty(), "of two with one id the one that went to bob");
}

/// Proves: IB-8
#[tokio::test]
async fn forged_notifications_only_add_a_few_lines() {
    let house = House::new().await;
    let (entry, _) = house.store.submit(note()).await.unwrap();
    remember(&house, 1, sent("<one@x>", "bob@example.org")).await;
    let before = house.spool.history(&numbered(1)).await.unwrap().unwrap();
    let waiting = house.rows().await;
    for key in 0..30 {
        for id in [numbered(1), entry.clone(), numbered(99)] {
            let forged = notification("", &format!("Original-Envelope-Id: {id}\r\n"), "");
            let key = incoming(key).with(tags::SEARCH_KEY, format!("{id}{key}").into_bytes());
            let message = house.store.new_incoming().await.unwrap();
            message.set_props(key).await.unwrap();
            let mut sink = message.set_content().await.unwrap();
            sink.write(&forged).await.unwrap();
            sink.finish().await.unwrap();
            message.save_changes(Repetition::First).await.unwrap();
        }
    }
    let after = house.spool.history(&numbered(1)).await.unwrap().unwrap();
    assert_eq!(reports_of(&house, 1).await.len(), 8);
    assert_eq!(HistoryRecord { trace: Trace::default(), ..after }, before);
    assert_eq!(house.rows().await, waiting);
    assert_eq!(house.spool.outbox(&entry).await.unwrap().unwrap().trace.steps().len(), 8);
    assert!(house.spool.history(&numbered(99)).await.unwrap().is_none());
}
