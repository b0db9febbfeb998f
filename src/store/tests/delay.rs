//! Telling the sender that a message is late.

use super::*;
use crate::observe::Event;
use crate::spool::{Envelope, HistoryEnd, HistoryRecord, QueueRecipient, RecipientState, Reply};

fn new_mail(house: &House) -> Vec<String> {
    let folder = house.mail("new");
    let read = |name: &String| std::fs::read_to_string(folder.join(name)).unwrap();
    names(&folder).iter().map(read).collect()
}

fn read_and_delete(house: &House) {
    for name in names(&house.mail("new")) {
        std::fs::remove_file(house.mail("new").join(name)).unwrap();
    }
}

#[tokio::test]
async fn the_sender_is_told_once_also_across_a_restart() {
    let house = House::new().await;
    let mut events = house.store.options.observer.events();
    let (entry, _) = house.store.submit(note()).await.unwrap();
    house.clock.advance(Duration::from_secs(4 * 3600));
    assert_eq!(house.store.tell_of_delay(&entry).await.unwrap(), Late::Told);
    let mail = new_mail(&house);
    let [text] = mail.as_slice() else { panic!("{mail:?}") };
    for part in [
        "Subject: =?utf-8?B?RGVsYXllZDog",
        "report-type=delivery-status",
        "Auto-Submitted: auto-replied",
        "Action: delayed",
        "Status: 4.0.0",
        "Final-Recipient: rfc822; bob@example.org",
        "text/rfc822-headers",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // The blind copy is late as well, and the sender knows of it.
    assert!(text.contains("eve@example.org"), "{text}");
    let rows = vec![0, 1];
    assert_eq!(events.recv().await.unwrap(), Event::Delayed { entry: entry.clone(), rows });
    read_and_delete(&house);
    let before = Late::ToldBefore;
    assert_eq!(house.store.tell_of_delay(&entry).await.unwrap(), before);
    assert_eq!(house.again().await.tell_of_delay(&entry).await.unwrap(), before);
    assert_eq!(new_mail(&house), [""; 0], "what the user has deleted does not come back");
}

#[tokio::test]
async fn a_report_that_was_noted_and_never_made_is_made() {
    let house = House::new().await;
    let (entry, _) = house.store.submit(note()).await.unwrap();
    house.clock.advance(Duration::from_secs(4 * 3600));
    house.store.tell_of_delay(&entry).await.unwrap();
    let first = names(&house.mail("new"));
    // As a crash between the note and the file leaves it.
    crate::store::outbox::update(house.spool.as_ref(), &entry, |record| {
        record.reports[0].report.class.clear();
        Ok(true)
    })
    .await
    .unwrap();
    house.clock.advance(Duration::from_secs(60));
    let again = house.again().await;
    assert_eq!(again.tell_of_delay(&entry).await.unwrap(), Late::ToldBefore);
    assert_eq!(names(&house.mail("new")), first, "it was there: no second one");
    read_and_delete(&house);
    crate::store::outbox::update(house.spool.as_ref(), &entry, |record| {
        record.reports[0].report.class.clear();
        Ok(true)
    })
    .await
    .unwrap();
    house.again().await.tell_of_delay(&entry).await.unwrap();
    assert_eq!(new_mail(&house).len(), 1, "it was not there");
    let record = house.spool.outbox(&entry).await.unwrap().unwrap();
    assert_eq!(record.reports[0].report.class, "REPORT.IPM.Note.Delayed");
}

/// NOTIFY=NEVER, NOTIFY without DELAY, a message of a program, a report, a message on hold.
#[tokio::test]
async fn who_does_not_want_to_hear_of_it_does_not() {
    let house = House::new().await;
    let mut never = note();
    never.props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, false);
    let mut no_delay = note();
    no_delay.props.set(tags::DELAY_REPORT_REQUESTED, false);
    let mut report = note();
    report.props.set(tags::ENVELOPE_SENDER, "");
    for message in [never, no_delay, report] {
        let (entry, _) = house.store.submit(message).await.unwrap();
        assert_eq!(house.store.tell_of_delay(&entry).await.unwrap(), Late::Untold);
    }
    for field in ["auto-generated", "Auto-Replied (vacation)", "auto-notified; x=y"] {
        let bytes = format!("From: ann@example.org\r\nAuto-Submitted: {field}\r\n\r\nx\r\n");
        let (entry, _) = house.store.submit_raw(raw(), stream(bytes.as_bytes())).await.unwrap();
        assert_eq!(house.store.tell_of_delay(&entry).await.unwrap(), Late::Untold, "{field}");
    }
    let (held, _) = house.store.submit(note()).await.unwrap();
    house.store.hold(&held).await.unwrap();
    assert_eq!(house.store.tell_of_delay(&held).await.unwrap(), Late::Held);
    assert_eq!(new_mail(&house), [""; 0]);
    let bytes = b"From: ann@example.org\r\nAuto-Submitted: no\r\n\r\nx\r\n";
    let (human, _) = house.store.submit_raw(raw(), stream(bytes)).await.unwrap();
    assert_eq!(house.store.tell_of_delay(&human).await.unwrap(), Late::Told);
    house.store.abort_submit(&human).await.unwrap();
    assert_eq!(house.store.tell_of_delay(&human).await.unwrap(), Late::Over);
}

#[tokio::test]
async fn who_was_told_of_a_delay_is_told_when_it_went_after_all() {
    let house = House::new().await;
    let delivered = |row| QueueRecipient {
        row,
        address: "bob@example.org".to_owned(),
        state: RecipientState::Delivered {
            at: SysTime::from_millis(START + 50_000_000),
            reply: Reply {
                code: 250,
                enhanced: "2.0.0".to_owned(),
                text: "Ok: queued as 4F3A".to_owned(),
                host: "mx.example.org".to_owned(),
            },
        },
        notify: None,
        original: None,
    };
    let mut entries = Vec::new();
    for is_late in [true, false] {
        let (entry, _) = house.store.submit(note()).await.unwrap();
        if is_late {
            house.store.tell_of_delay(&entry).await.unwrap();
        }
        let history = HistoryRecord {
            envelope: Envelope {
                from: "ann@example.org".to_owned(),
                recipients: vec![delivered(0), delivered(1)],
                ..Envelope::default()
            },
            ..house
                .spool
                .outbox(&entry)
                .await
                .unwrap()
                .unwrap()
                .history(HistoryEnd::Finished, house.clock.now())
        };
        let op = Op::PutHistory { entry: entry.clone(), record: Box::new(history) };
        house.spool.commit(Batch::new().with(op)).await.unwrap();
        entries.push(entry);
    }
    read_and_delete(&house);
    for entry in &entries {
        house.store.finished_msg(entry).await.unwrap();
        house.store.finished_msg(entry).await.unwrap();
    }
    let mail = new_mail(&house);
    let [text] = mail.as_slice() else { panic!("{mail:?}") };
    for part in
        ["RGVsaXZlcmVkIGFmdGVyIGFsbDog", "Action: relayed", "Status: 2.0.0", "queued as 4F3A"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(house.rows().await, []);
}
