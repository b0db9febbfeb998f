#![allow(clippy::unwrap_used)]

use super::*;
use crate::spool::Reply;
use crate::transport::outbound::reply::{Fault, Phase};

const NOW: SysTime = SysTime::from_millis(1_000_000);

fn later(seconds: u64) -> SysTime {
    NOW.saturating_add(Duration::from_secs(seconds))
}

fn open(limit: usize) -> Lane<u32> {
    let mut lane = Lane::new(limit);
    lane.set_gate(Gate::Open);
    lane
}

fn lost() -> Failure {
    Failure::fault(Phase::Connect, Fault::Unreachable, "mx", "refused")
}

fn pause(n: u32) -> Duration {
    Duration::from_secs(10 * u64::from(n))
}

fn entry(number: u8) -> EntryId {
    EntryId::from_bytes(&[number]).unwrap()
}

#[test]
fn a_closed_lane_does_nothing_and_gives_back() {
    let mut lane = open(2);
    lane.push(Priority::Normal, 1);
    lane.set_gate(Gate::Closed);
    assert_eq!((lane.to_claim(NOW), lane.hire(NOW), lane.take()), (0, 0, None));
    assert_eq!(lane.begin_moving(), None);
    assert!(!lane.may_claim_new(NOW));
    assert_eq!(lane.take_back(NOW), [1]);
    lane.set_gate(Gate::Open);
    lane.stop();
    assert!(!lane.is_open());
}

#[test]
fn claims_are_kept_ahead_of_the_connections() {
    let mut lane = open(2);
    assert_eq!(lane.to_claim(NOW), 2 * AHEAD);
    (0..20).for_each(|n| lane.push(Priority::Normal, n));
    assert_eq!(lane.to_claim(NOW), 0);
    assert_eq!(lane.hire(NOW), 2);
    assert_eq!(lane.hire(NOW), 0);
    assert!((0..4).all(|_| lane.take().is_some()));
    assert_eq!(lane.to_claim(NOW), 2 * AHEAD - 16);
}

#[test]
fn who_waits_for_work_is_used_before_others_are_hired() {
    let mut lane = open(4);
    lane.push(Priority::Normal, 1);
    assert_eq!(lane.hire(NOW), 1);
    lane.connected();
    assert_eq!(lane.take(), Some(1));
    lane.rest();
    lane.push(Priority::Normal, 2);
    assert_eq!(lane.hire(NOW), 0);
    lane.push(Priority::Normal, 3);
    assert_eq!(lane.hire(NOW), 1);
}

#[test]
fn trouble_pauses_and_then_one_probe_goes() {
    let mut lane = open(4);
    (0..3).for_each(|n| lane.push(Priority::Normal, n));
    assert_eq!(lane.failed(&lost(), NOW, pause), Reaction::Pause(later(10)));
    assert_eq!(lane.take_back(NOW).len(), 3);
    assert_eq!((lane.to_claim(NOW), lane.paused_until(NOW)), (0, Some(later(10))));
    assert_eq!((lane.to_claim(later(10)), lane.paused_until(later(10))), (1, None));
    lane.push(Priority::Normal, 7);
    assert_eq!((lane.hire(later(10)), lane.to_claim(later(10))), (1, 0));
    assert_eq!(lane.take(), Some(7));
    assert_eq!(lane.to_claim(later(10)), 0);
    assert_eq!(lane.failed(&lost(), later(10), pause), Reaction::Pause(later(30)));
    lane.fire();
    lane.try_now();
    assert_eq!(lane.to_claim(later(10)), 1);
    assert!(lane.mended(NOW) && !lane.mended(NOW));
    assert_eq!(lane.to_claim(later(10)), 4 * AHEAD);
    assert_eq!(lane.failed(&lost(), later(10), pause), Reaction::Pause(later(20)));
}

#[test]
fn one_connection_that_fails_beside_others_costs_only_itself() {
    let mut lane = open(4);
    lane.connected();
    lane.connected();
    assert_eq!(lane.failed(&lost(), NOW, pause), Reaction::FewerConnections);
    assert_eq!(lane.to_claim(NOW), 2 * AHEAD);
    assert_eq!(lane.to_claim(later(61)), 4 * AHEAD);
    // A quota is everybody's.
    let reply = Reply { code: 550, enhanced: "5.4.5".to_owned(), ..Reply::default() };
    let quota = Failure::refused(Phase::Dot, reply);
    assert!(matches!(lane.failed(&quota, NOW, pause), Reaction::Pause(_)));
}

#[test]
fn a_flush_looks_once_through_trouble_and_is_announced_once() {
    let mut lane = open(1);
    lane.failed(&lost(), NOW, pause);
    lane.begin_flush();
    assert!(!lane.drained(NOW, false, false));
    assert_eq!(lane.to_claim(NOW), 1);
    lane.push(Priority::Normal, 1);
    assert_eq!((lane.hire(NOW), lane.take()), (1, Some(1)));
    assert!(!lane.drained(NOW, true, false));
    lane.failed(&lost(), NOW, pause);
    lane.tried(&entry(1));
    assert!(lane.was_tried(&entry(1)) && !lane.was_tried(&entry(2)));
    assert!(lane.drained(NOW, false, false));
    assert!(!lane.drained(NOW, false, true));
    lane.new_work();
    assert!(lane.drained(NOW, false, true));
    lane.end_flush();
    assert!(!lane.was_tried(&entry(1)) && !lane.is_flushing());
}

#[test]
fn a_flush_behind_a_closed_gate_is_not_drained() {
    let mut lane: Lane<u32> = Lane::new(1);
    lane.begin_flush();
    assert!(!lane.drained(NOW, false, true));
    lane.set_gate(Gate::Open);
    assert!(lane.drained(NOW, false, true));
}

/// Proves: ST-4
#[test]
fn activity_has_two_edges() {
    let mut lane = open(2);
    assert_eq!((lane.begin_moving(), lane.begin_moving()), (Some(true), Some(false)));
    assert_eq!((lane.end_moving(), lane.end_moving()), (false, true));
}

/// What another connection could begin with, what is urgent, and what may not begin is left in line.
#[test]
fn only_from_a_long_line_is_taken_ahead() {
    let mut lane = open(1);
    lane.push(Priority::Normal, 1);
    assert_eq!(lane.hire(NOW), 1);
    assert_eq!(lane.take_following(NOW), None, "the only one");
    lane.push(Priority::Normal, 2);
    lane.push(Priority::Normal, 3);
    assert_eq!(lane.take_following(NOW), Some(1));
    lane.push(Priority::Urgent, 4);
    assert_eq!(lane.take_following(NOW), None, "an urgent one is first");
    assert_eq!(lane.take(), Some(4));
    assert_eq!(lane.take_following(NOW), Some(2));
    lane.push(Priority::Normal, 5);
    lane.went_ahead(WentAhead::Confused, NOW);
    assert_eq!(lane.take_following(NOW), None, "the server cannot do with it");
    let mut closed = open(1);
    (1..4).for_each(|number| closed.push(Priority::Normal, number));
    closed.set_gate(Gate::Closed);
    assert_eq!(closed.take_following(NOW), None);
    let mut paused = open(1);
    (1..4).for_each(|number| paused.push(Priority::Normal, number));
    paused.failed(&lost(), NOW, pause);
    assert_eq!(paused.take_following(NOW), None);
}
