//! Servers and networks that fail.

use std::time::Duration;

use postoffice::{Action, Fault, Protocol, SmtpAction, SmtpPhase};

use super::rig::{Note, PATIENCE, Rig, Shape, Told, entry, office};
use crate::clock::Clock;
use crate::mapi::tags;
use crate::spool::QueueState;
use crate::transport::InDoubtPolicy;
use crate::transport::events::TroubleKind;

#[tokio::test]
async fn a_server_that_is_down_keeps_mail_waiting_and_burns_no_attempt() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    rig.open();
    let entries = [rig.send(1, &["bob@x.org"]).await, rig.send(2, &["bob@x.org"]).await];
    let trouble = rig.hears_trouble().await;
    assert_eq!(trouble.kind, TroubleKind::Network);
    for entry in &entries {
        let row = rig.row_when(entry, |row| row.state == QueueState::Due).await;
        assert_eq!(row.attempts, 0);
    }
    // It stays down for some probes.
    for _ in 0..3 {
        rig.forget();
        rig.clock.advance(Duration::from_secs(300));
        rig.hears_trouble().await;
    }
    rig.office.restart().await.unwrap();
    rig.forget();
    rig.clock.advance(Duration::from_secs(300));
    for entry in &entries {
        let row = rig.hears_end_of(entry).await;
        assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
    }
    assert!(rig.told().contains(&Told::Trouble(None)));
}

#[tokio::test]
async fn one_probe_at_a_time_while_there_is_trouble() {
    let rig = Rig::shaped(Shape { connections: 4, ..Shape::default() }, office().await).await;
    for number in 0..20 {
        rig.send(number, &["bob@x.org"]).await;
    }
    rig.password.set("wrong");
    rig.open();
    assert_eq!(rig.hears_trouble().await.kind, TroubleKind::LoginRefused);
    for number in 0..20 {
        rig.row_when(&entry(number), |row| row.state == QueueState::Due).await;
    }
    let before = rig.office.counters(Protocol::Smtp).connections;
    for more in 1..=3 {
        rig.forget();
        rig.clock.advance(Duration::from_secs(3600));
        rig.hears_trouble().await;
        assert_eq!(rig.office.counters(Protocol::Smtp).connections, before + more);
    }
    rig.password.set("secret");
    assert_eq!(rig.outbound.retry(None).await.unwrap(), 0);
    for number in 0..20 {
        let row = rig.hears_end_of(&entry(number)).await;
        assert_eq!(row.attempts, 1);
    }
}

#[tokio::test]
async fn a_drop_at_any_phase_is_survived() {
    use SmtpPhase::{Auth, Body, Connect, Data, Ehlo, FinalDot, Greeting, Mail, Rcpt};
    for phase in [Connect, Greeting, Ehlo, Auth, Mail, Rcpt, Data, Body, FinalDot] {
        for action in [Action::Drop, Action::Reset, Action::Replace(b"\x00\xff?\r\n".to_vec())] {
            let rig = Rig::new().await;
            let fault = rig.office.inject(Fault::smtp(phase, action.clone()).once());
            rig.open();
            let entry = rig.send(1, &["bob@x.org"]).await;
            fault.reached(PATIENCE).await.unwrap();
            rig.row_when(&entry, |row| !matches!(row.state, QueueState::Claimed(_))).await;
            rig.clock.advance(Duration::from_secs(600));
            let row = rig.hears_end_of(&entry).await;
            assert_eq!(row.state, QueueState::Done, "{phase:?} {action:?}");
            assert_eq!(rig.office.accepted_count(), 1, "{phase:?} {action:?}");
        }
    }
}

#[tokio::test]
async fn a_message_that_always_breaks_the_connection_does_not_hold_up_others() {
    let rig = Rig::shaped(Shape { connections: 1, ..Shape::default() }, office().await).await;
    rig.open();
    let poison = rig.send(1, &["dot-drop@x.org"]).await;
    rig.row_when(&poison, |row| matches!(row.state, QueueState::InDoubt { .. })).await;
    let good = rig.send(2, &["bob@x.org"]).await;
    rig.clock.advance(Duration::from_secs(6));
    let row = rig.hears_end_of(&good).await;
    assert_eq!(row.state, QueueState::Done);
}

#[tokio::test]
async fn a_lost_final_reply_follows_the_policy() {
    for policy in [InDoubtPolicy::Resend, InDoubtPolicy::Hold] {
        let shape = Shape { in_doubt: policy, ..Shape::default() };
        let rig = Rig::shaped(shape, office().await).await;
        rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Drop).after_effect().once());
        rig.open();
        let entry = rig.send(1, &["bob@x.org"]).await;
        let row = rig.row_when(&entry, |row| matches!(row.state, QueueState::InDoubt { .. })).await;
        assert_eq!(rig.office.accepted_count(), 1);
        rig.clock.advance(Duration::from_secs(24 * 3600));
        match policy {
            InDoubtPolicy::Resend => {
                rig.hears_end_of(&entry).await;
                assert_eq!(rig.office.accepted_count(), 2);
            }
            InDoubtPolicy::Hold => {
                // Another message goes, this one stays.
                let other = rig.send(2, &["bob@x.org"]).await;
                rig.hears_end_of(&other).await;
                assert_eq!(rig.row(&entry).await, Some(row));
                rig.outbound.release(&entry).await.unwrap();
                rig.hears_end_of(&entry).await;
                assert_eq!(rig.office.accepted_count(), 3);
            }
        }
    }
}

#[tokio::test]
async fn a_throttling_server_fails_nobody() {
    let rig = Rig::new().await;
    rig.office.inject(
        Fault::smtp(
            SmtpPhase::FinalDot,
            SmtpAction::reply(554, "5.2.0", "SubmissionQuotaExceededException"),
        )
        .times(2),
    );
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    assert_eq!(rig.hears_trouble().await.kind, TroubleKind::Throttled);
    let row = rig.row_when(&entry, |row| row.state == QueueState::Due).await;
    assert_eq!((row.attempts, rig.recipient(&entry, 0).await), (0, "pending"));
    rig.forget();
    rig.clock.advance(Duration::from_secs(60));
    rig.hears_trouble().await;
    rig.row_when(&entry, |row| row.state == QueueState::Due).await;
    rig.clock.advance(Duration::from_secs(3600));
    let row = rig.hears_end_of(&entry).await;
    assert_eq!(row.state, QueueState::Done);
}

#[tokio::test]
async fn a_server_that_allows_fewer_connections_gets_fewer() {
    let rig = Rig::shaped(Shape { connections: 3, ..Shape::default() }, office().await).await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    rig.open();
    let first = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    let refused = rig.office.inject(Fault::smtp(
        SmtpPhase::Greeting,
        SmtpAction::reply(421, "4.7.0", "too many connections"),
    ));
    let second = rig.send(2, &["bob@x.org"]).await;
    refused.reached(PATIENCE).await.unwrap();
    hang.release();
    rig.hears_end_of(&first).await;
    rig.hears_end_of(&second).await;
    assert!(!rig.told().iter().any(|told| matches!(told, Told::Trouble(_))), "{:?}", rig.told());
}

#[tokio::test]
async fn a_flush_sends_over_fewer_connections_what_a_refused_one_should_have() {
    let rig = Rig::shaped(Shape { connections: 3, ..Shape::default() }, office().await).await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    rig.outbound.begin_flush();
    rig.open();
    let first = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    let refused = rig.office.inject(Fault::smtp(
        SmtpPhase::Greeting,
        SmtpAction::reply(421, "4.7.0", "too many connections"),
    ));
    let second = rig.send(2, &["bob@x.org"]).await;
    refused.reached(PATIENCE).await.unwrap();
    hang.release();
    rig.hears_end_of(&first).await;
    rig.hears_end_of(&second).await;
    rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
}

#[tokio::test]
async fn a_flush_does_not_wait_for_trouble_to_pass() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.hears_trouble().await;
    rig.row_when(&entry, |row| row.state == QueueState::Due).await;
    rig.forget();
    rig.outbound.begin_flush();
    rig.hears("the end of a fruitless flush", |told| told.contains(&Told::FlushDrained)).await;
    rig.outbound.end_flush();
    rig.office.restart().await.unwrap();
    rig.outbound.begin_flush();
    rig.hears_end_of(&entry).await;
}

#[tokio::test]
async fn the_lifetime_does_not_run_out_while_the_account_is_the_trouble() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    rig.open();
    let entries = [rig.send(1, &["bob@x.org"]).await, rig.send(2, &["450-4.2.1@x.org"]).await];
    rig.hears_trouble().await;
    for entry in &entries {
        rig.row_when(entry, |row| row.state == QueueState::Due).await;
    }
    rig.forget();
    rig.clock.advance(2 * rig.settings.queue.lifetime);
    rig.hears_trouble().await;
    for entry in &entries {
        let row = rig.row_when(entry, |row| row.state == QueueState::Due).await;
        assert_eq!((row.attempts, rig.recipient(entry, 0).await), (0, "pending"));
    }
    rig.office.restart().await.unwrap();
    rig.outbound.retry(None).await.unwrap();
    rig.hears_end_of(&entries[0]).await;
    assert_eq!(rig.recipient(&entries[0], 0).await, "delivered");
    // What is refused for now by the first server that answers has its whole life before it.
    let row = rig.deferred(&entries[1]).await;
    let left = row.expires.saturating_since(rig.clock.now());
    assert_eq!(left, rig.settings.queue.lifetime);
    rig.clock.advance(left);
    rig.hears_end_of(&entries[1]).await;
    assert_eq!(rig.recipient(&entries[1], 0).await, "failed");
}

#[tokio::test]
async fn what_is_not_wanted_any_more_ends_in_trouble_too_and_needs_no_probe_each() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    let end = rig.clock.now().saturating_add(Duration::from_secs(3600));
    for number in 0..30 {
        let note = Note::to(&entry(number), &["bob@x.org"]).with(tags::EXPIRY_TIME, end);
        rig.submit(note).await.unwrap();
    }
    rig.open();
    rig.hears_trouble().await;
    for number in 0..30 {
        rig.row_when(&entry(number), |row| row.state == QueueState::Due).await;
    }
    rig.clock.advance(Duration::from_secs(3600));
    for number in 0..30 {
        let row = rig.hears_end_of(&entry(number)).await;
        assert_eq!(row.state, QueueState::Done);
        assert_eq!(rig.recipient(&entry(number), 0).await, "failed");
    }
}

#[tokio::test]
async fn a_login_that_runs_out_in_mid_session_is_made_anew() {
    let rig = Rig::shaped(Shape { connections: 1, ..Shape::default() }, office().await).await;
    rig.open();
    let first = rig.send(1, &["bob@x.org"]).await;
    rig.hears_end_of(&first).await;
    // The same connection, whose token has run out.
    rig.office.inject(
        Fault::smtp(SmtpPhase::Mail, SmtpAction::reply(530, "5.7.1", "token expired")).once(),
    );
    let second = rig.send(2, &["bob@x.org"]).await;
    assert_eq!(rig.hears_trouble().await.kind, TroubleKind::LoginRefused);
    let row = rig.row_when(&second, |row| row.state == QueueState::Due).await;
    assert_eq!((row.attempts, rig.recipient(&second, 0).await), (0, "pending"));
    rig.clock.advance(Duration::from_secs(60));
    rig.hears_end_of(&second).await;
    let counters = rig.office.counters(Protocol::Smtp);
    assert_eq!((counters.logins, rig.office.accepted_count()), (2, 2));
}

#[tokio::test]
async fn a_wish_to_begin_again_does_not_wait_for_trouble_to_pass() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.hears_trouble().await;
    rig.row_when(&entry, |row| row.state == QueueState::Due).await;
    rig.office.restart().await.unwrap();
    rig.outbound.try_now();
    rig.hears_end_of(&entry).await;
}

#[tokio::test]
async fn a_claim_whose_stored_time_passes_on_the_wire_is_not_claimed_again() {
    let rig = Rig::new().await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    rig.open();
    let slow = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    rig.clock.advance(Duration::from_secs(7200));
    for number in 2..=5 {
        let other = rig.send(number, &["bob@x.org"]).await;
        rig.hears_end_of(&other).await;
    }
    assert_eq!(rig.row(&slow).await.unwrap().attempts, 1);
    hang.release();
    assert_eq!(rig.hears_end_of(&slow).await.attempts, 1);
    assert_eq!(rig.office.accepted_count(), 5);
}
