#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::*;

fn at(millis: u64) -> SysTime {
    SysTime::from_millis(millis)
}

fn attempt(number: u32) -> Step {
    let what = StepKind::Attempt(AttemptStep { number, ..AttemptStep::default() });
    Step { at: at(u64::from(number)), what }
}

fn status_report(id: u8) -> Step {
    let line = StatusReportLine {
        address: "é".repeat(1_000),
        action: "failed".into(),
        status: "5.1.1".into(),
        diagnostic: "x".repeat(1_000),
        remote_mta: String::new(),
    };
    let what = StepKind::StatusReport(StatusReportStep {
        id: [id; 8],
        outcome: ReportOutcome::Failed,
        class: "REPORT.IPM.Note.NDR".into(),
        tied_by: TiedBy::MessageId,
        reporting_mta: "dns; mx".into(),
        recipients: vec![line; 20],
        more: 7,
    });
    Step { at: at(1_000 + u64::from(id)), what }
}

fn ids(trace: &Trace) -> Vec<u8> {
    let id = |step: &Step| match &step.what {
        StepKind::StatusReport(report) => Some(report.id[0]),
        _ => None,
    };
    trace.steps().iter().filter_map(id).collect()
}

#[test]
fn the_first_few_and_the_last_steps_are_kept() {
    let mut trace = Trace::default();
    (1..=100).for_each(|number| trace.push(attempt(number)));
    assert_eq!(trace.steps().len(), FIRST + LAST);
    assert_eq!(trace.left_out() as usize, 100 - FIRST - LAST);
    assert_eq!(trace.steps()[0], attempt(1));
    assert_eq!(trace.steps()[FIRST], attempt(100 - u32::try_from(LAST).unwrap() + 1));
    assert_eq!(trace.steps().last(), Some(&attempt(100)));
}

/// Proves: IB-8
#[test]
fn notifications_crowd_out_neither_each_other_nor_the_rest() {
    let mut trace = Trace::default();
    (1..=5).for_each(|number| trace.push(attempt(number)));
    for id in 0..200 {
        trace.push(status_report(id));
        trace.push(status_report(id));
    }
    assert_eq!(ids(&trace), [0, 1, 2, 3, 196, 197, 198, 199]);
    assert_eq!(trace.steps().len(), 5 + STATUS_REPORTS);
    assert_eq!(trace.left_out() as usize, 200 - STATUS_REPORTS);
    let StepKind::StatusReport(report) = &trace.steps()[5].what else { panic!("{trace:?}") };
    assert_eq!(report.recipients.len(), StatusReportStep::MAX_RECIPIENTS);
    assert_eq!(report.more as usize, 7 + 20 - StatusReportStep::MAX_RECIPIENTS);
    // However it is attacked, a list stays small.
    (1..=100).for_each(|number| trace.push(attempt(number)));
    assert!(postcard::to_stdvec(&trace).unwrap().len() < 32 * 1024);
}

#[test]
fn the_same_trouble_again_is_counted() {
    let untried = |millis, why: &str| Step {
        at: at(millis),
        what: StepKind::Untried { why: why.into(), times: 1 },
    };
    let mut trace = Trace::default();
    for millis in 1..=50 {
        trace.push(untried(millis, "no route"));
    }
    trace.push(untried(60, "refused"));
    let what = StepKind::Untried { why: "no route".into(), times: 50 };
    assert_eq!(trace.steps(), [Step { at: at(50), what }, untried(60, "refused")]);
}

#[test]
fn lists_are_joined_by_time_and_nothing_stands_twice() {
    let mut one = Trace::default();
    [1, 3].into_iter().for_each(|number| one.push(attempt(number)));
    let mut other = Trace::default();
    [1, 2].into_iter().for_each(|number| other.push(attempt(number)));
    one.merge(other.clone());
    one.merge(other);
    assert_eq!(one.steps(), [attempt(1), attempt(2), attempt(3)]);
}

#[test]
fn a_message_that_goes_through_at_once_costs_a_few_dozen_octets() {
    let mut trace =
        Trace::of(at(1_700_000_000_000), StepKind::Accepted { transport: "work".into() });
    trace.push(Step {
        at: at(1_700_000_000_900),
        what: StepKind::Attempt(AttemptStep {
            number: 1,
            host: "smtp.example.org".into(),
            tls: "TLSv1.3".into(),
            delivered: 1,
            ..AttemptStep::default()
        }),
    });
    let octets = postcard::to_stdvec(&trace).unwrap().len();
    assert!(octets <= 60, "{octets}");
}

#[test]
fn a_doubt_is_kept_however_long_the_list_grows() {
    let doubt = |number| Step { at: at(7), what: StepKind::LeftInDoubt { number } };
    let mut trace = Trace::default();
    (1..=7).for_each(|number| trace.push(attempt(number)));
    assert!(!trace.was_in_doubt());
    trace.push(doubt(8));
    (9..=200).for_each(|number| trace.push(attempt(number)));
    assert!(trace.was_in_doubt());
    assert_eq!(trace.steps().len(), FIRST + LAST);
    assert_eq!(trace.steps()[FIRST], doubt(8));
    assert_eq!(trace.steps()[FIRST + LAST - 1], attempt(200));
    // Nothing but doubt is bounded as well.
    (201..=300).for_each(|number| trace.push(doubt(number)));
    assert_eq!(trace.steps().len(), FIRST + LAST);
    assert!(trace.was_in_doubt());
}
