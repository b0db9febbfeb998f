//! Who takes which recipient, and what the sender hears of those nobody takes (AT-3, OB-12, SP-4).

use postrider::spi::{AddressTypes, RecipientReport, ReportKind};

use super::*;

fn with_uid(mut data: MessageData, row: usize, uid: u8) -> MessageData {
    let entry: Vec<u8> = [0; 4].into_iter().chain([uid; 16]).chain([1, 2]).collect();
    data.recipients[row].props.set(tags::ENTRYID, entry);
    data
}

fn taken(transport: &ScriptedTransport) -> Vec<String> {
    let calls = transport.calls().into_iter();
    calls.filter_map(|call| call.strip_prefix("submit ").map(str::to_owned)).collect()
}

/// UIDs in transport order, then types in transport order; who takes anything comes last.
///
/// Proves: AT-3, AT-4
#[tokio::test]
async fn overlapping_transports_are_asked_in_order() {
    let mut by_uid = ScriptedTransport::new(&["FAX"]);
    by_uid.types =
        AddressTypes::These { types: vec!["FAX".to_owned()], uids: vec![[9; 16], [8; 16]] };
    let mut any = ScriptedTransport::new(&[]);
    any.types = AddressTypes::Any;
    let (any, by_uid) = (Arc::new(any), Arc::new(by_uid));
    let (first, second) = (transport(&["SMTP"]), transport(&["X400", "smtp", "FAX"]));
    let house = house(vec![
        service("any", &any),
        service("first", &first),
        service("second", &second),
        service("uid", &by_uid),
    ])
    .await;
    let data = message(
        "x",
        &[("SMTP", "a"), ("FAX", "b"), ("SMTP", "c"), ("X400", "d"), ("NOTES", "e"), ("X400", "f")],
    );
    house.store.submit(1, with_uid(with_uid(data, 2, 8), 5, 7));
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    assert_eq!(taken(&by_uid), ["c"], "by its UID, before any type");
    assert_eq!(taken(&first), ["a"]);
    // The UID of row f is nobody's; its type decides.
    assert_eq!(taken(&second), ["b,d,f"]);
    assert_eq!(taken(&any), ["e"]);
}

/// Each refusal goes on to the next match of that recipient, not to all.
///
/// Proves: AT-3, OB-3, SP-3
#[tokio::test]
async fn a_recipient_is_refused_down_the_line_to_the_last() {
    let mut any = ScriptedTransport::new(&[]);
    any.types = AddressTypes::Any;
    let (one, two, any) = (transport(&["SMTP"]), transport(&["SMTP", "FAX"]), Arc::new(any));
    one.will([Script::Refuse(MapiCode::NOT_ME, None)]);
    two.will([Script::Send, Script::Refuse(MapiCode::NOT_ME, None)]);
    any.will([Script::Refuse(MapiCode::NOT_ME, None)]);
    let house = house(vec![service("one", &one), service("any", &any), service("two", &two)]).await;
    let entry = house.store.submit(1, message("x", &[("SMTP", "bob"), ("FAX", "123")]));
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    assert_eq!(taken(&one), ["bob"]);
    assert_eq!(taken(&two), ["123", "bob"]);
    assert_eq!(taken(&any), ["bob"]);
    house.store.with(|store| {
        let [report] = store.reports.as_slice() else { panic!("{:?}", store.reports) };
        assert_eq!(report.original, entry);
        assert_eq!(report.recipients.len(), 1);
        assert_eq!(report.recipients[0].0.address, "bob");
        assert_eq!(report.recipients[0].1.kind, ReportKind::Failure);
    });
}

/// Whatever the host gives up of a message at one time is one report.
///
/// Proves: OB-12, AT-3, SP-4
#[tokio::test]
async fn all_the_host_gives_up_is_in_one_report() {
    let work = transport(&["SMTP"]);
    work.will([Script::Refuse(MapiCode::TOO_BIG, None)]);
    let house = house(vec![service("work", &work)]).await;
    let data = message("x", &[("SMTP", "bob"), ("FAX", "123"), ("SMTP", "eve"), ("TELEX", "4")]);
    house.store.submit(1, data);
    house.store.wait_until("it is finished", |store| !store.finished.is_empty()).await;
    assert_eq!(work.count("submit"), 1, "what is given up is not tried again");
    house.store.with(|store| {
        let [report] = store.reports.as_slice() else { panic!("{:?}", store.reports) };
        let mut lines: Vec<(&str, bool)> = report
            .recipients
            .iter()
            .map(|(row, line)| (row.address.as_str(), line.diagnostic.contains("TOO_BIG")))
            .collect();
        lines.sort_unstable();
        assert_eq!(lines, [("123", false), ("4", false), ("bob", true), ("eve", true)]);
    });
}

/// Proves: SP-4
#[tokio::test]
async fn who_wants_no_report_gets_none_and_reports_answer_no_reports() {
    let no = tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED;
    let suppressed = |mut data: MessageData| {
        data.props.set(no, false);
        data
    };
    let report = |mut data: MessageData| {
        data.props.set(tags::MESSAGE_CLASS, "Report.IPM.Note.NDR");
        data
    };
    let null_sender = |mut data: MessageData| {
        data.props.set(tags::ENVELOPE_SENDER, "");
        data
    };
    let mut one_of_two = message("x", &[("FAX", "quiet"), ("FAX", "loud")]);
    one_of_two.recipients[0].props.set(no, false);
    let fax = || message("x", &[("FAX", "1")]);
    let house = house(vec![service("work", &transport(&["SMTP"]))]).await;
    let silent = [suppressed(fax()), report(fax()), null_sender(fax())];
    for (number, data) in (1..).zip(silent) {
        let entry = house.store.submit(number, data);
        house.store.wait_until("it ends", |store| store.finished.contains(&entry)).await;
        house.store.with(|store| assert!(store.reports.is_empty(), "{:?}", store.reports));
    }
    house.store.submit(9, one_of_two);
    house.store.wait_until("it ends", |store| store.finished.len() == 4).await;
    house.store.with(|store| {
        assert_eq!(store.reports.len(), 1);
        let told: Vec<&str> =
            store.reports[0].recipients.iter().map(|(row, _)| row.address.as_str()).collect();
        assert_eq!(told, ["loud"]);
    });
}

fn line(row: u32, kind: ReportKind) -> RecipientReport {
    RecipientReport {
        row,
        kind,
        status: "5.1.1".to_owned(),
        diagnostic: "550 no".to_owned(),
        remote_mta: "mx".to_owned(),
        time: SysTime::from_millis(5),
    }
}

/// StatusRecips: failures in one report, deliveries in another and only on request.
///
/// Proves: OB-12, SP-4
#[tokio::test]
async fn status_recips_makes_one_report_of_each_kind() {
    let work = transport(&["SMTP"]);
    work.will([Script::Defer]);
    let house = house(vec![service("work", &work)]).await;
    let mut data = message("x", &[("SMTP", "a"), ("SMTP", "b"), ("SMTP", "c"), ("SMTP", "d")]);
    data.recipients[2].props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    let entry = house.store.submit(1, data);
    house.store.wait_until("it is deferred", is_deferred).await;
    let store: &dyn postrider::spi::MessageStore = house.store.as_ref();
    let open = store.open_message(&entry).await.unwrap();
    let lines = vec![
        line(0, ReportKind::Failure),
        line(1, ReportKind::Failure),
        line(2, ReportKind::Delivery),
        line(3, ReportKind::Delivery),
        line(77, ReportKind::Failure),
    ];
    work.support().status_recips(open.as_ref(), 1, lines).await.unwrap();
    house.store.with(|store| {
        let told: Vec<(ReportKind, Vec<&str>)> = store
            .reports
            .iter()
            .map(|report| {
                let to = report.recipients.iter().map(|(row, _)| row.address.as_str()).collect();
                (report.recipients[0].1.kind, to)
            })
            .collect();
        let expected = [(ReportKind::Failure, vec!["a", "b"]), (ReportKind::Delivery, vec!["c"])];
        assert_eq!(told, expected, "who is not in the message has no line");
        assert!(store.reports.iter().all(|report| report.attempt == 1));
    });
}
