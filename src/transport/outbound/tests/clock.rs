//! Clocks that are set, and machines that sleep: nothing hammers and nothing waits too long.

use std::time::Duration;

use postoffice::{Fault, Protocol, SmtpAction, SmtpPhase};

use super::rig::{PATIENCE, Rig, Shape, Told, entry, office};
use crate::clock::Clock;
use crate::mapi::SysTime;
use crate::spool::QueueState;

const HOUR: Duration = Duration::from_secs(3600);

fn back(rig: &Rig, by: Duration) {
    let by = u64::try_from(by.as_millis()).unwrap();
    rig.clock.set(SysTime::from_millis(rig.clock.now().as_millis() - by));
}

#[tokio::test]
async fn a_clock_set_back_does_not_put_off_what_was_to_be_tried_again() {
    let rig = Rig::new().await;
    rig.office
        .inject(Fault::smtp(SmtpPhase::Rcpt, SmtpAction::reply(450, "4.2.1", "later")).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let row = rig.deferred(&entry).await;
    let left = row.due.saturating_since(rig.clock.now());
    assert!(left > Duration::from_secs(20) && left <= Duration::from_secs(30), "{left:?}");
    back(&rig, HOUR);
    // Any look notices the step.
    let other = rig.send(2, &["bob@x.org"]).await;
    rig.hears_end_of(&other).await;
    assert_eq!(rig.row(&entry).await.unwrap().attempts, 1, "not earlier either");
    // Half a minute, not an hour and half a minute.
    rig.clock.advance(left);
    let third = rig.send(3, &["bob@x.org"]).await;
    rig.hears_end_of(&third).await;
    assert_eq!(rig.hears_end_of(&entry).await.attempts, 2);
}

#[tokio::test]
async fn a_clock_set_back_does_not_lengthen_the_pause_of_the_account() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.hears_trouble().await;
    rig.row_when(&entry, |row| row.state == QueueState::Due).await;
    back(&rig, 24 * HOUR);
    rig.office.restart().await.unwrap();
    // The next message makes it look.
    rig.send(2, &["bob@x.org"]).await;
    rig.clock.advance(Duration::from_secs(6));
    rig.send(3, &["bob@x.org"]).await;
    rig.hears_end_of(&entry).await;
    assert!(rig.told().contains(&Told::Trouble(None)));
}

#[tokio::test]
async fn what_happened_is_told_in_the_time_of_the_wall() {
    let rig = Rig::new().await;
    rig.open();
    let first = rig.send(1, &["bob@x.org"]).await;
    rig.hears_end_of(&first).await;
    back(&rig, HOUR);
    let second = rig.send(2, &["bob@x.org"]).await;
    let row = rig.hears_end_of(&second).await;
    let crate::spool::RecipientState::Delivered { at, .. } = row.envelope.recipients[0].state
    else {
        panic!("{row:?}")
    };
    assert_eq!(at, rig.clock.now());
}

#[tokio::test]
async fn after_an_hour_of_sleep_one_probe_goes_out_and_not_one_for_each_message() {
    let rig = Rig::shaped(Shape { connections: 4, ..Shape::default() }, office().await).await;
    rig.password.set("wrong");
    rig.open();
    for number in 0..20 {
        rig.send(number, &["bob@x.org"]).await;
    }
    rig.hears_trouble().await;
    for number in 0..20 {
        rig.row_when(&entry(number), |row| row.state == QueueState::Due).await;
    }
    for _ in 0..3 {
        let before = rig.office.counters(Protocol::Smtp).connections;
        rig.forget();
        rig.clock.advance(HOUR);
        rig.hears_trouble().await;
        for number in 0..20 {
            let row = rig.row_when(&entry(number), |row| row.state == QueueState::Due).await;
            assert_eq!(row.attempts, 0);
        }
        assert_eq!(rig.office.counters(Protocol::Smtp).connections, before + 1);
    }
    rig.password.set("secret");
    rig.clock.advance(HOUR);
    for number in 0..20 {
        rig.hears_end_of(&entry(number)).await;
    }
    assert_eq!(rig.office.accepted_count(), 20);
}

#[tokio::test]
async fn a_connection_that_slept_is_replaced_and_costs_no_attempt() {
    let rig = Rig::shaped(Shape { connections: 1, ..Shape::default() }, office().await).await;
    rig.open();
    let first = rig.send(1, &["bob@x.org"]).await;
    rig.hears_end_of(&first).await;
    // While the machine slept the server hung up.
    rig.office.disconnect_all();
    rig.clock.advance(HOUR);
    let second = rig.send(2, &["bob@x.org"]).await;
    let row = tokio::time::timeout(PATIENCE, rig.hears_end_of(&second)).await.unwrap();
    assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
    assert!(!rig.told().iter().any(|told| matches!(told, Told::Trouble(_))));
    assert_eq!(rig.office.accepted_count(), 2);
}

#[tokio::test]
async fn a_step_forwards_of_years_gives_nothing_up_that_the_server_takes() {
    let rig = Rig::new().await;
    rig.office
        .inject(Fault::smtp(SmtpPhase::Rcpt, SmtpAction::reply(450, "4.2.1", "later")).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.deferred(&entry).await;
    rig.clock.advance(3 * 365 * 24 * HOUR);
    let row = rig.hears_end_of(&entry).await;
    assert_eq!((row.state, rig.recipient(&entry, 0).await), (QueueState::Done, "delivered"));
}
