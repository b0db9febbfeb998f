//! What is put into the Maildir: received mail and reports.

use super::*;
use crate::spi::{RecipientReport, ReportKind};

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
    house.store.deliver_report(report_about(&house, &entry, 2).await).await.unwrap();
    assert_eq!(names(&house.mail("new")).len(), 1);
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
