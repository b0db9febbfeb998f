#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::*;
use crate::mapi::{PropList, Recipient, RecipientType};
use crate::spool::{QueueRecipient, RefusalStep, ReportMade, StatusReportLine};

fn at(seconds: u64) -> SysTime {
    SysTime::from_millis(1_700_000_000_000 + seconds * 1000)
}

fn reply(code: u16, text: &str) -> Reply {
    Reply { code, enhanced: String::new(), text: text.into(), host: "mx".into() }
}

fn outbox() -> OutboxRecord {
    OutboxRecord {
        revision: 1,
        submitted: at(0),
        state: OutboxState::Deferred { transport: "work".into() },
        props: PropList::new()
            .with(tags::SUBJECT, "hello")
            .with(tags::SENDER_EMAIL_ADDRESS, "ann@example.org")
            .with(tags::INTERNET_MESSAGE_ID, "<1@x>"),
        recipients: ["bob", "eve"]
            .iter()
            .zip(0..)
            .map(|(name, row)| {
                Recipient::smtp(row, RecipientType::To, format!("{name}@example.org"))
            })
            .collect(),
        object: None,
        content: None,
        size: 10,
        trace: Trace::default(),
        reports: Vec::new(),
    }
}

fn history() -> HistoryRecord {
    let recipient = |row: u32, name: &str, state| QueueRecipient {
        row,
        address: format!("{name}@example.org"),
        state,
        notify: None,
        original: None,
    };
    let mut trace = Trace::of(at(1), StepKind::Accepted { transport: "work".into() });
    let attempt = |number, refusals| {
        StepKind::Attempt(AttemptStep {
            number,
            host: "mx".into(),
            tls: "TLSv1.3".into(),
            delivered: 1,
            refusals,
            end: AttemptStepEnd::Answered,
        })
    };
    let refusal =
        RefusalStep { phase: AttemptPhase::Rcpt, reply: "450 later".into(), recipients: 1 };
    trace.push(Step { at: at(2), what: attempt(1, vec![refusal]) });
    trace.push(Step { at: at(60), what: attempt(2, Vec::new()) });
    HistoryRecord {
        transport: "work".into(),
        end: HistoryEnd::Finished,
        ended: at(70),
        submitted: at(0),
        attempts: 2,
        envelope: Envelope {
            from: "ann@example.org".into(),
            recipients: vec![
                recipient(
                    0,
                    "bob",
                    RecipientState::Delivered { at: at(3), reply: reply(250, "queued as 4ABC") },
                ),
                recipient(
                    1,
                    "eve",
                    RecipientState::Failed { at: at(61), reply: reply(550, "no"), attempt: 2 },
                ),
            ],
            ..Envelope::default()
        },
        subject: "hello".into(),
        message_id: "<1@x>".into(),
        size: 10,
        trace,
    }
}

fn kinds(report: &TraceReport) -> Vec<TraceStepKind> {
    report.steps.iter().map(|step| step.step).collect()
}

#[test]
fn the_story_of_a_message_that_is_gone_is_in_order() {
    let mut history = history();
    let line = StatusReportLine {
        address: "bob@example.org".into(),
        action: "failed".into(),
        status: "5.1.1".into(),
        diagnostic: "smtp; 550 5.1.1 unknown".into(),
        remote_mta: "dns; next".into(),
    };
    let status_report = StatusReportStep {
        id: [1; 8],
        outcome: ReportOutcome::Failed,
        class: "REPORT.IPM.Note.NDR".into(),
        tied_by: TiedBy::EnvelopeId,
        reporting_mta: "dns; mail.example.org".into(),
        recipients: vec![line],
        more: 2,
    };
    history.trace.push(Step { at: at(90), what: StepKind::StatusReport(status_report) });
    let rows = Rows { outbox: None, queue: None, history: Some(&history) };
    let entry = EntryId::from_bytes(&[1; 16]).unwrap();
    let report = report(&entry, &rows, Traffic::Running).unwrap();
    use TraceStepKind::{Accepted, Attempt, Delivered, Failed, Finished, StatusReport, Submitted};
    assert_eq!(
        kinds(&report),
        [Submitted, Accepted, Attempt, Delivered, Attempt, Failed, Finished, StatusReport]
    );
    let [_, _, first, delivered, .., told] = report.steps.as_slice() else { panic!() };
    assert_eq!(
        first.text,
        "attempt 1 to mx (TLSv1.3): 1 recipient taken; 1 recipient refused at RCPT: 450 later"
    );
    assert_eq!(delivered.text, "delivered: mx said 250 queued as 4ABC");
    assert_eq!(delivered.recipients, ["bob@example.org"]);
    assert!(told.text.starts_with("mail.example.org reports: bob@example.org failed 5.1.1 smtp;"));
    assert!(told.text.contains("and 2 more"), "{}", told.text);
    assert_eq!(
        (report.message_id.as_str(), report.state),
        ("<1@x>", super::super::QueueRowState::Finished)
    );
}

#[test]
fn what_the_host_knows_is_told_without_a_transport() {
    let mut outbox = outbox();
    outbox.trace.push(Step { at: at(5), what: StepKind::Held });
    let report_step = ReportStep {
        outcome: ReportOutcome::Failed,
        attempt: 0,
        rows: vec![1],
        class: "REPORT.IPM.Note.NDR".into(),
    };
    outbox.reports.push(ReportMade { at: at(6), report: report_step });
    let rows = Rows { outbox: Some(&outbox), queue: None, history: None };
    let entry = EntryId::from_bytes(&[1; 16]).unwrap();
    let report = report(&entry, &rows, Traffic::Running).unwrap();
    use TraceStepKind::{Held, Reported, Submitted};
    assert_eq!(kinds(&report), [Submitted, Held, Reported]);
    assert_eq!(report.steps[2].recipients, ["eve@example.org"]);
    assert_eq!(report.steps[0].text, "submitted by ann@example.org, 10 bytes for 2 recipients");
    let none = Rows { outbox: None, queue: None, history: None };
    assert!(super::report(&entry, &none, Traffic::Running).is_none());
}

#[test]
fn a_message_that_waits_for_its_time_says_so() {
    let mut outbox = outbox();
    outbox.state = OutboxState::Waiting { not_before: at(3_600) };
    let rows = Rows { outbox: Some(&outbox), queue: None, history: None };
    let entry = EntryId::from_bytes(&[1; 16]).unwrap();
    let report = report(&entry, &rows, Traffic::Running).unwrap();
    assert_eq!(kinds(&report), [TraceStepKind::Submitted, TraceStepKind::NotBefore]);
    assert!(report.steps[1].text.contains("2023-11-14T23:13:20Z"), "{:?}", report.steps);
}
