//! The next message's envelope behind the final dot of the one before: whatever happens to either,
//! each is delivered once, or not at all where it was stopped.

use std::time::Duration;

use postoffice::{Action, Fault, FaultHandle, PostOffice, Protocol, Reply, SmtpAction, SmtpPhase};

use super::rig::{PATIENCE, Rig, Shape, Told, office};
use crate::clock::Clock;
use crate::mapi::EntryId;
use crate::net::TlsMode;
use crate::spool::{QueueRecord, QueueState};
use crate::transport::events::Gate;
use crate::transport::outbound::Abort;

async fn one_connection(tls: TlsMode) -> Rig {
    Rig::shaped(Shape { tls, connections: 1, ..Shape::default() }, office().await).await
}

/// So many messages, each to a recipient of its number.
async fn send(rig: &Rig, count: u16) -> Vec<EntryId> {
    let mut entries = Vec::new();
    for number in 1..=count {
        entries.push(rig.send(number, &[&format!("u{number}@x.org")]).await);
    }
    entries
}

/// So many messages in line on one connection, the first of which is not answered yet.
async fn held_at_the_first_dot(count: u16) -> (Rig, Vec<EntryId>, FaultHandle) {
    let rig = one_connection(TlsMode::Plain).await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let entries = send(&rig, count).await;
    rig.open();
    hang.reached(PATIENCE).await.unwrap();
    (rig, entries, hang)
}

/// How often each recipient was delivered to, in the order of the deliveries.
fn delivered(office: &PostOffice) -> Vec<String> {
    office.accepted().iter().flat_map(|one| one.recipients()).map(str::to_owned).collect()
}

fn connections(rig: &Rig) -> u64 {
    rig.office.counters(Protocol::Smtp).connections
}

fn recipients(numbers: impl IntoIterator<Item = u16>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("u{number}@x.org")).collect()
}

async fn all_end(rig: &Rig, entries: &[EntryId]) {
    for entry in entries {
        rig.hears_end_of(entry).await;
    }
}

#[tokio::test]
async fn a_backlog_goes_out_in_order_over_one_connection() {
    for tls in [TlsMode::Plain, TlsMode::StartTls, TlsMode::Implicit] {
        let rig = one_connection(tls).await;
        let entries = send(&rig, 40).await;
        rig.open();
        all_end(&rig, &entries).await;
        assert_eq!(delivered(&rig.office), recipients(1..=40));
        assert_eq!(connections(&rig), 1, "{tls:?}");
    }
}

/// Proves: TN-17
#[tokio::test]
async fn a_message_that_is_cancelled_behind_its_envelope_is_never_sent() {
    let (rig, entries, hang) = held_at_the_first_dot(4).await;
    rig.outbound.abort(&entries[1], Abort::Cancel).await.unwrap();
    hang.release();
    all_end(&rig, &[entries[0].clone(), entries[2].clone(), entries[3].clone()]).await;
    assert_eq!(delivered(&rig.office), recipients([1, 3, 4]));
    // The server waited for the cancelled text.
    assert_eq!(connections(&rig), 2);
}

/// Proves: TN-9
#[tokio::test]
async fn an_end_lets_the_one_on_the_wire_finish_and_the_next_not_begin() {
    let (rig, entries, hang) = held_at_the_first_dot(3).await;
    rig.outbound.set_gate(Gate::Closed);
    hang.release();
    rig.hears_end_of(&entries[0]).await;
    for entry in &entries[1..] {
        let row = rig.row_when(entry, |row| row.state == QueueState::Due).await;
        assert_eq!(row.attempts, 0);
    }
    assert_eq!(delivered(&rig.office), recipients([1]));
    rig.open();
    all_end(&rig, &entries).await;
    assert_eq!(delivered(&rig.office), recipients(1..=3));
}

#[tokio::test]
async fn an_orderly_stop_lets_the_one_on_the_wire_finish_and_keeps_the_next() {
    let (mut rig, entries, hang) = held_at_the_first_dot(3).await;
    let (outbound, patience) = (rig.outbound.clone(), PATIENCE);
    let stop = tokio::spawn(async move { outbound.stop(patience).await });
    hang.release();
    stop.await.unwrap();
    assert_eq!(delivered(&rig.office), recipients([1]));
    rig.restart(Some(Duration::ZERO)).await;
    rig.open();
    all_end(&rig, &entries).await;
    assert_eq!(delivered(&rig.office), recipients(1..=3));
}

/// What was on the wire when the process ended is due at its stored time, unheard of by the server.
#[tokio::test]
async fn a_crash_with_an_envelope_ahead_loses_nothing() {
    let (mut rig, entries, hang) = held_at_the_first_dot(3).await;
    rig.restart(None).await;
    hang.release();
    rig.open();
    rig.clock.advance(Duration::from_secs(24 * 60 * 60));
    all_end(&rig, &entries).await;
    let mut delivered = delivered(&rig.office);
    delivered.sort();
    delivered.dedup();
    assert_eq!(delivered, recipients(1..=3));
}

/// A server that hangs up at an envelope behind a final dot would put each message in doubt.
#[tokio::test]
async fn after_a_server_hung_up_one_thing_comes_after_the_other() {
    let rig = one_connection(TlsMode::Plain).await;
    rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Drop).once());
    let entries = send(&rig, 3).await;
    rig.open();
    let in_doubt = |row: &QueueRecord| matches!(row.state, QueueState::InDoubt { .. });
    let row = rig.row_when(&entries[0], in_doubt).await;
    rig.wait_for_due(&row);
    all_end(&rig, &entries).await;
    let mut delivered = delivered(&rig.office);
    delivered.sort();
    assert_eq!(delivered, recipients(1..=3));
    let now = rig.outbound.shared.clock.now();
    let mut lane = rig.outbound.shared.lane();
    assert!(lane.is_one_by_one(now));
    assert!(!lane.is_one_by_one(now.saturating_add(Duration::from_secs(25 * 60 * 60))));
    assert!(lane.take_following(now).is_none());
}

/// A server that throws away what it had received when it answered never answers the envelope.
#[tokio::test]
async fn a_server_that_does_not_answer_the_envelope_gets_it_again() {
    let mut shape = Shape { connections: 1, ..Shape::default() };
    shape.deadlines.mail = Duration::from_millis(300);
    let rig = Rig::shaped(shape, office().await).await;
    let fault = rig.office.inject(Fault::smtp(SmtpPhase::Mail, Action::Hang).nth(2).once());
    let entries = send(&rig, 3).await;
    rig.open();
    fault.reached(PATIENCE).await.unwrap();
    all_end(&rig, &entries).await;
    assert_eq!(delivered(&rig.office), recipients(1..=3));
    assert!(rig.outbound.shared.lane().is_one_by_one(rig.outbound.shared.clock.now()));
    assert!(!rig.told().iter().any(|told| matches!(told, Told::Trouble(Some(_)))));
}

/// Trouble that concerns the account shows at the first: the second is not begun.
#[tokio::test]
async fn trouble_at_the_final_dot_holds_the_next_back() {
    let rig = one_connection(TlsMode::Plain).await;
    let busy = Action::Replace(b"421 4.3.2 going down\r\n".to_vec());
    rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, busy).once());
    let entries = send(&rig, 3).await;
    rig.open();
    let trouble = rig.hears_trouble().await;
    let row = rig.row_when(&entries[1], |row| row.state == QueueState::Due).await;
    assert_eq!((row.attempts, delivered(&rig.office)), (0, vec![]));
    let first = rig.deferred(&entries[0]).await;
    let next = trouble.next_attempt.unwrap().max(first.due);
    rig.clock.advance(next.saturating_since(rig.clock.now()));
    all_end(&rig, &entries).await;
    let mut delivered = delivered(&rig.office);
    delivered.sort();
    assert_eq!(delivered, recipients(1..=3));
}

/// A server that takes one message a connection costs a few of them more, not each.
#[tokio::test]
async fn a_server_that_closes_behind_each_message_is_not_asked_ahead_for_long() {
    let rig = one_connection(TlsMode::Plain).await;
    let reply = SmtpAction::ReplyAndClose(Reply::new(250, "2.0.0", "taken"));
    rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, reply).after_effect());
    let entries = send(&rig, 8).await;
    rig.open();
    all_end(&rig, &entries).await;
    assert_eq!(delivered(&rig.office), recipients(1..=8));
    assert!(rig.outbound.shared.lane().is_one_by_one(rig.outbound.shared.clock.now()));
    for entry in &entries {
        assert_eq!(rig.row(entry).await.unwrap().attempts, 1);
    }
}
