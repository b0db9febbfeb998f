//! The schema on disk: fixtures of rows as a version wrote them.
//!
//! A fixture is a text of lines `key value` in hexadecimal, `-` for nothing. `v1.rows` holds one row of every kind
//! of schema 1. When a change of a record makes these tests fail, the change needs a new schema:
//! a step in `migrations/`, and a new fixture beside the old one.

use std::path::PathBuf;

use postrider::mapi::{PropList, PropValue, Recipient, RecipientType, ReportOutcome, tags};
use postrider::spool::*;

use crate::bench::*;

/// The schema this program writes.
const TODAY: u32 = 2;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spool").join(name)
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    if text == "-" {
        return vec![];
    }
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// All rows of a closed spool, as a fixture.
fn dump(bench: &Bench) -> String {
    let tree = bench.tree();
    let rows = tree.iter().map(Result::unwrap);
    rows.map(|(key, value)| format!("{} {}\n", hex(&key), hex(&value))).collect()
}

/// A closed spool with the rows of a fixture.
fn load(name: &str) -> Bench {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.dir()).unwrap();
    let tree = bench.tree();
    for line in std::fs::read_to_string(fixture(name)).unwrap().lines() {
        let (key, value) = line.split_once(' ').unwrap();
        tree.insert(unhex(key), unhex(value)).unwrap();
    }
    tree.flush().unwrap();
    bench
}

fn full_outbox(object: BodyId) -> OutboxRecord {
    let props = PropList::new()
        .with(tags::SUBJECT, "Grüße")
        .with(tags::PRIORITY, -1)
        .with(tags::DELETE_AFTER_SUBMIT, true)
        .with(tags::EXPIRY_TIME, at(5))
        .with(tags::SENTMAIL_ENTRYID, PropValue::Binary(vec![1, 2]));
    let mut bcc = Recipient::smtp(3, RecipientType::Bcc, "eve@example.org").named("Eve");
    bcc.p1 = true;
    bcc.responsibility = true;
    bcc.props.set(tags::NDR_DIAG_CODE, 7);
    OutboxRecord {
        revision: 0,
        submitted: at(1_000),
        state: OutboxState::Waiting { not_before: at(9) },
        props,
        recipients: vec![Recipient::smtp(0, RecipientType::Cc, "ann@example.org"), bcc],
        object: Some(object),
        content: None,
        size: 70_000,
        trace: full_trace(),
        reports: vec![ReportMade { at: at(8), report: report_step() }],
    }
}

fn report_step() -> ReportStep {
    ReportStep {
        outcome: ReportOutcome::Failed,
        attempt: 3,
        rows: vec![0, 7],
        class: "REPORT.IPM.Note.NDR".to_owned(),
    }
}

/// A step of every kind.
fn full_trace() -> Trace {
    let attempt = |end| {
        StepKind::Attempt(AttemptStep {
            number: 1,
            host: "mx.example.org".to_owned(),
            tls: "TLSv1.3".to_owned(),
            delivered: 2,
            refusals: vec![RefusalStep {
                phase: AttemptPhase::Rcpt,
                reply: "451 later".to_owned(),
                recipients: 4,
            }],
            end,
        })
    };
    let why = || "closed".to_owned();
    let status_report = StatusReportStep {
        id: [9; 8],
        outcome: ReportOutcome::Delayed,
        class: "REPORT.IPM.Note.Delayed".to_owned(),
        tied_by: TiedBy::Reference,
        reporting_mta: "dns; mx".to_owned(),
        recipients: vec![StatusReportLine {
            address: "bob@example.org".to_owned(),
            action: "delayed".to_owned(),
            status: "4.4.1".to_owned(),
            diagnostic: "smtp; 450".to_owned(),
            remote_mta: "dns; next".to_owned(),
        }],
        more: 5,
    };
    let kinds = [
        StepKind::Accepted { transport: "smtp".to_owned() },
        attempt(AttemptStepEnd::Answered),
        attempt(AttemptStepEnd::Broken { phase: AttemptPhase::Dot, why: why() }),
        attempt(AttemptStepEnd::InDoubt { why: why() }),
        attempt(AttemptStepEnd::Postponed),
        StepKind::Untried { why: why(), times: 3 },
        StepKind::Interrupted { number: 2 },
        StepKind::Held,
        StepKind::Released,
        StepKind::Hurried,
        StepKind::GivenBack,
        StepKind::TakenUp,
        StepKind::Reported(report_step()),
        StepKind::StatusReport(status_report),
        StepKind::LeftInDoubt { number: 4 },
    ];
    let mut trace = Trace::default();
    (1..).zip(kinds).for_each(|(millis, what)| trace.push(Step { at: at(millis), what }));
    trace
}

fn full_queue(body: BodyId) -> QueueRecord {
    let reply = |code, text: &str| Reply {
        code,
        enhanced: "2.0.0".to_owned(),
        text: text.to_owned(),
        host: "mx.example.org".to_owned(),
    };
    let recipient = |row, state, notify| QueueRecipient {
        row,
        address: format!("{row}@example.org"),
        state,
        notify,
        original: (row == 1).then(|| "first@example.org".to_owned()),
    };
    let notify = Some(DsnNotify { success: true, delay: true, ..DsnNotify::default() });
    let recipients = vec![
        recipient(0, RecipientState::Pending, None),
        recipient(1, RecipientState::Delivered { at: at(3), reply: reply(250, "ok") }, notify),
        recipient(2, RecipientState::Deferred { reply: reply(451, "later") }, None),
        recipient(
            3,
            RecipientState::Failed { at: at(4), reply: reply(550, "no"), attempt: 2 },
            None,
        ),
    ];
    QueueRecord {
        state: QueueState::Claimed(Lease {
            owner: 77,
            expires: at(88),
            dot: FinalDot::MayBeOut { since: at(80) },
        }),
        attempts: 2,
        expiry: Expiry::Own,
        envelope: Envelope {
            from: "bob@example.org".to_owned(),
            recipients,
            body: BodyKind::EightBit,
            smtputf8: true,
            envid: "id".to_owned(),
            ret: Some(DsnReturn::Headers),
        },
        last_error: "451 later".to_owned(),
        trace: full_trace(),
        ..queue(body, 66)
    }
}

fn full_cursor() -> CursorRecord {
    CursorRecord {
        uid_validity: 1,
        last_uid: 2,
        window_end: 3,
        set_aside: vec![4, 5],
        after_owed: vec![UidRange { first: 6, last: 7 }],
        rematch_until: 7,
        counted: 8,
        retired: Some(Retired {
            uid_validity: 9,
            last_uid: 10,
            set_aside: vec![11],
            saved: vec![12],
        }),
        copying: Some(CopyIntent {
            uids: vec![13],
            target: "Done".to_owned(),
            uid_validity: 14,
            uid_next: 15,
        }),
    }
}

fn fetched() -> FetchedRecord {
    FetchedRecord { digest: [6; 16], origin: Origin { uid_validity: 3, uid: 4 } }
}

/// One row of every kind, and every variant of a state.
async fn fill(spool: &dyn Spool) {
    let object = stage(spool, b"object").await;
    let record = full_outbox(object.id());
    let batch = Batch::new().with(put_outbox(1, record, Expect::Absent)).with_body(object);
    spool.commit(batch).await.unwrap();
    let body = stage(spool, b"content").await;
    let id = body.id();
    let batch = Batch::new().with(put_queue(2, full_queue(id), Expect::Absent)).with_body(body);
    spool.commit(batch).await.unwrap();
    let states = [
        QueueState::Due,
        QueueState::InDoubt { since: at(1), resend: true },
        QueueState::Held,
        QueueState::Parked,
        QueueState::Done,
    ];
    for (number, state) in (3..).zip(states) {
        let record = QueueRecord { state, ..queue(id, 5) };
        spool.commit(Batch::new().with(put_queue(number, record, Expect::Absent))).await.unwrap();
    }
    let deferred = OutboxState::Deferred { transport: "smtp".to_owned() };
    for (number, state) in (20..).zip([deferred, OutboxState::Held]) {
        let record = OutboxRecord { state, ..outbox(Some(id)) };
        spool.commit(Batch::new().with(put_outbox(number, record, Expect::Absent))).await.unwrap();
    }
    let mut long = outbox(None);
    long.recipients = vec![Recipient::smtp(0, RecipientType::To, "x".repeat(500)); 20];
    let batch = Batch::new()
        .with(put_outbox(30, long, Expect::Absent))
        .with(Op::PutHistory { entry: entry(9), record: Box::new(history(44)) })
        .with(Op::PutCursor {
            account: account("in"),
            mailbox: "INBOX".to_owned(),
            record: full_cursor(),
        })
        .with(Op::AddDelivered {
            account: account("in"),
            mailbox: "INBOX".to_owned(),
            digest: [5; 16],
        })
        .with(Op::PutFetched {
            account: account("in"),
            mailbox: "INBOX".to_owned(),
            at: Origin { uid_validity: 1, uid: 2 },
            record: fetched(),
        })
        .with(Op::PutDoubtful {
            account: account("in"),
            mailbox: "INBOX".to_owned(),
            digest: [7; 16],
            origin: Origin { uid_validity: 5, uid: 6 },
        });
    spool.commit(batch).await.unwrap();
}

#[tokio::test]
async fn rows_are_written_as_the_schema_says() {
    let bench = Bench::new();
    let spool = bench.open();
    fill(&spool).await;
    spool.close().await;
    let expected = std::fs::read_to_string(fixture(&format!("v{TODAY}.rows"))).unwrap();
    for (expected, row) in expected.lines().zip(dump(&bench).lines()) {
        assert_eq!(row, expected);
    }
    assert_eq!(dump(&bench), expected);
}

#[tokio::test]
async fn rows_of_every_schema_are_read_today() {
    for schema in 1..=TODAY {
        are_read_today(&load(&format!("v{schema}.rows"))).await;
    }
}

async fn are_read_today(bench: &Bench) {
    let spool = bench.open();
    let object = BodyId(*blake3::hash(b"object").as_bytes());
    let body = BodyId(*blake3::hash(b"content").as_bytes());
    let record = OutboxRecord { revision: 1, ..full_outbox(object) };
    assert_eq!(spool.outbox(&entry(1)).await.unwrap(), Some(record));
    let record = QueueRecord { revision: 1, ..full_queue(body) };
    assert_eq!(spool.queue(&entry(2)).await.unwrap(), Some(record));
    assert_eq!(spool.outbox(&entry(30)).await.unwrap().unwrap().recipients.len(), 20);
    assert_eq!(spool.history(&entry(9)).await.unwrap(), Some(history(44)));
    assert_eq!(spool.cursor(account("in"), "INBOX").await.unwrap(), Some(full_cursor()));
    assert_eq!(spool.delivered(account("in"), "INBOX", [5; 16]).await.unwrap(), 1);
    let from = Origin { uid_validity: 1, uid: 0 };
    let page = spool.fetched_page(account("in"), "INBOX", from, 9).await.unwrap();
    assert_eq!(page, [(2, fetched())]);
    let page = spool.doubtful_page(account("in"), "INBOX", None, 9).await.unwrap();
    assert_eq!(page, [([7; 16], Origin { uid_validity: 5, uid: 6 })]);
    assert_eq!(spool.read_body(body, 99).await.unwrap(), b"content");
    assert_eq!(spool.done_page(account("smtp"), None, 9).await.unwrap(), [entry(7)]);
    let expiring = spool.expiring_page(account("smtp"), None, 9).await.unwrap();
    assert_eq!(expiring, [(at(900_000), entry(2))]);
    let counts = QueueCounts {
        queued: 4,
        sending: 1,
        in_doubt: 1,
        held: 2,
        parked: 1,
        done: 1,
        ..QueueCounts::default()
    };
    assert_eq!(spool.counts(), counts);
    assert_eq!(spool.quarantine(9).await.unwrap(), []);
}

#[tokio::test]
async fn rows_without_a_schema_are_brought_to_todays() {
    let bench = load("v0.rows");
    let before = dump(&bench);
    let spool = bench.open();
    assert_eq!(spool.counts(), QueueCounts { queued: 1, ..QueueCounts::default() });
    assert_eq!(spool.waiting_page(None, 9).await.unwrap().len(), 1);
    spool.close().await;
    let after = dump(&bench);
    let meta = [hex(b"mschema"), hex(b"mcounts"), hex(b"mfolded")];
    let rest: Vec<_> =
        after.lines().filter(|line| !meta.iter().any(|key| line.starts_with(key))).collect();
    assert_eq!(rest, before.lines().collect::<Vec<_>>());
    assert!(after.contains(&format!("{} {}\n", hex(b"mschema"), hex(&TODAY.to_be_bytes()))));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let bench = load(&format!("v{TODAY}.rows"));
    let tree = bench.tree();
    tree.insert("mschema", &(TODAY + 1).to_be_bytes()).unwrap();
    drop(tree);
    let before = dump(&bench);
    let error = SledSpool::open(&bench.dir(), bench.options.clone()).unwrap_err();
    let refused = matches!(error, SpoolError::NewerSchema { found, known } if (found, known) == (TODAY + 1, TODAY));
    assert!(refused, "{error}");
    assert_eq!(dump(&bench), before);
}

#[tokio::test]
async fn a_folder_of_somebody_else_is_refused() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.dir()).unwrap();
    bench.tree().insert("Some", "thing").unwrap();
    let before = dump(&bench);
    let error = SledSpool::open(&bench.dir(), bench.options.clone()).unwrap_err();
    assert!(matches!(error, SpoolError::Corrupt(_)), "{error}");
    assert_eq!(dump(&bench), before);
}

#[test]
fn there_is_a_step_for_each_schema() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut steps: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("step_"))
        .collect();
    steps.sort();
    let expected: Vec<_> = (1..=TODAY).map(|number| format!("step_{number:04}.rs")).collect();
    assert_eq!(steps, expected);
    for before in 0..=TODAY {
        assert!(fixture(&format!("v{before}.rows")).exists(), "fixture of schema {before}");
    }
}

/// Writes the fixture of today's schema; to be run once for each new schema, never to make a test
/// above pass.
#[tokio::test]
#[ignore = "writes the fixture of a new schema"]
async fn write_the_fixture() {
    let bench = Bench::new();
    let spool = bench.open();
    fill(&spool).await;
    spool.close().await;
    std::fs::write(fixture(&format!("v{TODAY}.rows")), dump(&bench)).unwrap();
}
