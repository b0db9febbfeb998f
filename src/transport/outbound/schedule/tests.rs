#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;

use crate::mapi::Priority;
use crate::spool::{BodyId, Expiry, Reply};
use crate::transport::outbound::reply::{Fault, Phase};
use crate::transport::outbound::testing::envelope_to;

const NOW: SysTime = SysTime::from_millis(1_700_000_000_000);
const BEFORE: Before = Before { state: QueueState::Due, due: NOW };

fn record(addresses: &[&str]) -> QueueRecord {
    QueueRecord {
        revision: 3,
        transport: "work".to_owned(),
        state: QueueState::Due,
        priority: Priority::Normal,
        submitted: NOW,
        expires: NOW.saturating_add(QueueSettings::default().lifetime),
        expiry: Expiry::Lifetime,
        due: NOW,
        attempts: 1,
        envelope: envelope_to(addresses),
        body: BodyId([0; 32]),
        size: 10,
        subject: String::new(),
        message_id: String::new(),
        last_error: String::new(),
        trace: crate::spool::Trace::default(),
    }
}

fn settings() -> &'static QueueSettings {
    static SETTINGS: std::sync::LazyLock<QueueSettings> =
        std::sync::LazyLock::new(Default::default);
    &SETTINGS
}

fn rules(now: SysTime) -> Rules<'static> {
    Rules { queue: settings(), now, unit: 0.0, health: Health::default() }
}

fn reply(code: u16, enhanced: &str) -> Reply {
    Reply { code, enhanced: enhanced.to_owned(), text: "words".to_owned(), host: "mx".to_owned() }
}

fn refusal(phase: Phase, code: u16, enhanced: &str) -> Sent {
    Sent::Refused(Failure::refused(phase, reply(code, enhanced)))
}

fn delivered() -> Sent {
    Sent::Delivered(reply(250, "2.0.0"))
}

fn lost() -> Failure {
    Failure::fault(Phase::Data, Fault::Closed, "mx", "reset")
}

#[test]
fn delays_follow_the_schedule_at_production_values() {
    let schedule = RetrySchedule::default();
    let delays: Vec<u64> = (1..=9).map(|n| retry_delay(&schedule, n, 0.0).as_secs()).collect();
    assert_eq!(delays, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    assert_eq!(retry_delay(&schedule, 1, 1.0), Duration::from_millis(22_500));
    assert_eq!(retry_delay(&schedule, u32::MAX, 0.0), Duration::from_secs(3600));
    assert_eq!(retry_delay(&schedule, 0, 0.0), Duration::from_secs(30));
    let slow = RetrySchedule { factor: 1.25, ..schedule };
    assert_eq!(retry_delay(&slow, 3, 0.0), Duration::from_millis(46_875));
}

#[test]
fn each_recipient_keeps_its_own_outcome() {
    let mut record = record(&["a@x", "b@x", "c@x", "d@x"]);
    let outcomes = [
        (0, delivered()),
        (1, refusal(Phase::Rcpt, 550, "5.1.1")),
        (2, refusal(Phase::Rcpt, 450, "4.2.1")),
        (9, delivered()),
    ];
    apply(&mut record, &outcomes, NOW);
    conclude(&mut record, &BEFORE, &AttemptEnd::Answered, rules(NOW));
    let states = &record.envelope.recipients;
    assert!(matches!(states[0].state, RecipientState::Delivered { .. }));
    assert!(matches!(states[1].state, RecipientState::Failed { attempt: 1, .. }));
    assert!(matches!(states[2].state, RecipientState::Deferred { .. }));
    assert_eq!(states[3].state, RecipientState::Pending);
    assert_eq!(record.state, QueueState::Due);
    assert_eq!(record.due, NOW.saturating_add(Duration::from_secs(30)));
    assert!(record.last_error.contains("450 4.2.1 words"), "{}", record.last_error);

    // A second attempt never changes what is conclusive.
    record.attempts = 2;
    apply(&mut record, &[(0, refusal(Phase::Dot, 554, "5.6.0")), (1, delivered())], NOW);
    assert!(matches!(record.envelope.recipients[0].state, RecipientState::Delivered { .. }));
    assert!(matches!(record.envelope.recipients[1].state, RecipientState::Failed { .. }));
    apply(&mut record, &[(2, delivered()), (3, delivered())], NOW);
    conclude(&mut record, &BEFORE, &AttemptEnd::Answered, rules(NOW));
    assert_eq!(record.state, QueueState::Done);
}

#[test]
fn trouble_of_the_account_leaves_recipients_alone() {
    for sent in [
        refusal(Phase::Rcpt, 550, "5.4.5"),
        refusal(Phase::Mail, 530, "5.7.0"),
        refusal(Phase::Rcpt, 421, "4.3.2"),
    ] {
        let mut record = record(&["a@x"]);
        apply(&mut record, &[(0, sent)], NOW);
        assert_eq!(record.envelope.recipients[0].state, RecipientState::Pending);
    }
}

#[test]
fn a_doubtful_refusal_is_believed_the_second_time() {
    let mut record = record(&["a@x"]);
    apply(&mut record, &[(0, refusal(Phase::Rcpt, 550, "5.5.0"))], NOW);
    assert!(matches!(record.envelope.recipients[0].state, RecipientState::Deferred { .. }));
    apply(&mut record, &[(0, refusal(Phase::Rcpt, 550, "5.5.0"))], NOW);
    assert!(matches!(record.envelope.recipients[0].state, RecipientState::Failed { .. }));
}

#[test]
fn an_attempt_the_server_never_heard_of_does_not_count() {
    for state in [QueueState::Due, QueueState::InDoubt { since: NOW, resend: true }] {
        let mut record = record(&["a@x"]);
        record.attempts = 4;
        record.due = NOW.saturating_add(Duration::from_secs(99));
        let before = Before { state: state.clone(), due: NOW };
        conclude(&mut record, &before, &AttemptEnd::Untried(Some(lost())), rules(NOW));
        assert_eq!((record.attempts, record.due, &record.state), (3, NOW, &state));
        assert!(record.last_error.contains("reset"));
    }
}

#[test]
fn a_broken_transaction_counts() {
    let mut record = record(&["a@x"]);
    record.attempts = 2;
    conclude(&mut record, &BEFORE, &AttemptEnd::Broken(lost()), rules(NOW));
    assert_eq!((record.attempts, &record.state), (2, &QueueState::Due));
    assert_eq!(record.due, NOW.saturating_add(Duration::from_secs(60)));
}

#[test]
fn doubt_follows_the_policy_of_the_profile() {
    for (policy, resend) in [(InDoubtPolicy::Resend, true), (InDoubtPolicy::Hold, false)] {
        let queue = QueueSettings { in_doubt: policy, ..QueueSettings::default() };
        let mut record = record(&["a@x"]);
        let rules = Rules { queue: &queue, now: NOW, unit: 0.0, health: Health::default() };
        conclude(&mut record, &BEFORE, &AttemptEnd::InDoubt(lost()), rules);
        assert_eq!(record.state, QueueState::InDoubt { since: NOW, resend });
        assert_eq!(record.scheduled().is_some(), resend);
    }
}

#[test]
fn the_last_attempt_comes_at_the_end_of_life_and_then_it_is_given_up() {
    let mut record = record(&["a@x", "b@x"]);
    record.attempts = 9;
    let late = SysTime::from_millis(record.expires.as_millis() - 60_000);
    apply(&mut record, &[(0, delivered()), (1, refusal(Phase::Rcpt, 450, "4.2.1"))], late);
    conclude(&mut record, &BEFORE, &AttemptEnd::Answered, rules(late));
    assert_eq!(record.due, record.expires);
    assert!(!is_unwanted(&record, record.due));

    let end = record.expires;
    conclude(&mut record, &BEFORE, &AttemptEnd::Broken(lost()), rules(end));
    assert_eq!(record.state, QueueState::Done);
    assert!(matches!(record.envelope.recipients[0].state, RecipientState::Delivered { .. }));
    let RecipientState::Failed { reply, .. } = &record.envelope.recipients[1].state else {
        panic!("{record:?}")
    };
    assert_eq!(reply.enhanced, "4.4.7");
    assert!(reply.text.contains("within 5days; last: 450 4.2.1 words"), "{}", reply.text);
}

#[test]
fn trouble_of_the_account_ends_no_life() {
    let ends = [
        AttemptEnd::Untried(Some(lost())),
        AttemptEnd::Untried(None),
        AttemptEnd::Paused { until: NOW },
    ];
    for end in ends {
        let mut record = record(&["a@x"]);
        let late = record.expires.saturating_add(Duration::from_secs(1));
        conclude(&mut record, &BEFORE, &end, rules(late));
        assert_eq!((&record.state, record.attempts), (&QueueState::Due, 0), "{end:?}");
    }
}

#[test]
fn a_life_that_ended_in_trouble_goes_on_behind_it() {
    let lifetime = settings().lifetime;
    let day = Duration::from_secs(24 * 3600);
    // Never answered for: its life begins with the first answer.
    let mut first = record(&["a@x"]);
    let back = first.expires.saturating_add(day);
    apply(&mut first, &[(0, refusal(Phase::Rcpt, 450, "4.2.1"))], back);
    conclude(&mut first, &BEFORE, &AttemptEnd::Answered, rules(back));
    assert_eq!((&first.state, first.expires), (&QueueState::Due, back.saturating_add(lifetime)));

    // Refused for now, then four of its five days were left, then trouble.
    let mut second = record(&["a@x"]);
    second.attempts = 2;
    let since = NOW.saturating_add(day);
    let health =
        Health { last_outage: Some(Outage { since, until: back }), last_success: Some(back) };
    let late = Rules { health, ..rules(back) };
    conclude(&mut second, &BEFORE, &AttemptEnd::Answered, late);
    assert_eq!((&second.state, second.expires), (&QueueState::Due, back.saturating_add(4 * day)));
    // It is not given the same time twice.
    let end = second.expires;
    conclude(&mut second, &BEFORE, &AttemptEnd::Answered, Rules { health, ..rules(end) });
    assert_eq!(second.state, QueueState::Done);
}

#[test]
fn a_message_that_alone_is_refused_in_the_name_of_the_account_has_an_end() {
    let end = AttemptEnd::Paused { until: NOW };
    let late = |record: &QueueRecord| record.expires.saturating_add(Duration::from_secs(1));
    for (last_success, state) in [
        (None, QueueState::Due),
        (Some(SysTime::from_millis(NOW.as_millis() - 1)), QueueState::Due),
        (Some(NOW), QueueState::Done),
    ] {
        let mut record = record(&["a@x"]);
        let health = Health { last_outage: None, last_success };
        let rules = Rules { health, ..rules(late(&record)) };
        conclude(&mut record, &BEFORE, &end, rules);
        assert_eq!(record.state, state, "{last_success:?}");
    }
}

#[test]
fn a_message_that_always_breaks_the_connection_has_an_end() {
    let mut record = record(&["a@x"]);
    record.attempts = 2;
    let end = record.expires;
    conclude(&mut record, &BEFORE, &AttemptEnd::Broken(lost()), rules(end));
    assert_eq!(record.state, QueueState::Done);
}

#[test]
fn an_expiry_of_the_message_itself_is_final() {
    let mut record = record(&["a@x"]);
    record.expires = NOW.saturating_add(Duration::from_secs(60));
    record.expiry = Expiry::Own;
    assert!(!is_unwanted(&record, NOW));
    let end = record.expires;
    assert!(is_unwanted(&record, end));
    expire(&mut record, rules(end));
    let RecipientState::Failed { reply, .. } = &record.envelope.recipients[0].state else {
        panic!("{record:?}")
    };
    assert!(reply.text.contains("not wanted any more"), "{}", reply.text);
}

#[test]
fn pauses_of_the_account_grow_and_hear_the_server() {
    let retry = RetrySchedule::default();
    let pause = |failure: &Failure, n| lane_pause(&retry, failure, n, 0.0).as_secs();
    let network = lost();
    assert_eq!([1, 2, 3, 20].map(|n| pause(&network, n)), [5, 10, 20, 300]);
    let login = Failure::refused(Phase::Auth, reply(535, "5.7.8"));
    assert_eq!([1, 2, 20].map(|n| pause(&login, n)), [30, 60, 3600]);
    let mut throttled = reply(432, "4.3.2");
    throttled.text = "Suggested Backoff Time: 299961 milliseconds".to_owned();
    assert_eq!(pause(&Failure::refused(Phase::Mail, throttled), 1), 299);
    let quick = RetrySchedule { first: Duration::from_millis(50), ..retry };
    assert_eq!(lane_pause(&quick, &network, 1, 0.0), Duration::from_millis(50));
}
