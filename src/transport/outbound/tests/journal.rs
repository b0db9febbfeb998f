//! The final dot and the row that says so first.

use std::time::Duration;

use postoffice::{Action, Fault, PostOffice, SmtpPhase};

use super::faulty_spool::Moment;
use super::rig::{Note, PATIENCE, Rig, Shape, Told, entry, office};
use crate::mapi::MapiCode;
use crate::net::TlsMode;
use crate::spool::SpoolError;
use crate::spool::{FinalDot, HistoryEnd, QueueRecord, QueueState, RecipientState, Spool};
use crate::transport::InDoubtPolicy;
use crate::transport::outbound::Abort;

fn dot(row: &QueueRecord) -> FinalDot {
    match &row.state {
        QueueState::Claimed(lease) => lease.dot,
        other => panic!("not claimed: {other:?}"),
    }
}

#[tokio::test]
async fn the_row_says_that_the_dot_may_be_out_before_it_is() {
    for tls in [TlsMode::Plain, TlsMode::Implicit] {
        let rig = Rig::shaped(Shape { tls, ..Shape::default() }, office().await).await;
        let data = rig.office.inject(Fault::smtp(SmtpPhase::Data, Action::Hang));
        let end = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang));
        rig.open();
        let entry = rig.send(1, &["bob@x.org"]).await;
        data.reached(PATIENCE).await.unwrap();
        assert_eq!(dot(&rig.row(&entry).await.unwrap()), FinalDot::NotSent);
        data.release();
        end.reached(PATIENCE).await.unwrap();
        assert!(matches!(dot(&rig.row(&entry).await.unwrap()), FinalDot::MayBeOut { .. }));
        end.release();
        // The reply takes the place of the doubt.
        assert_eq!(rig.hears_end_of(&entry).await.state, QueueState::Done);
        assert_eq!(rig.office.accepted_count(), 1);
    }
}

#[tokio::test]
async fn the_text_does_not_wait_for_the_journal_and_the_dot_does() {
    let rig = Rig::new().await;
    let body = rig.office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).at_byte(190_000));
    let end = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang));
    let held = rig.faulty.hold("MayBeOut", Moment::Before);
    rig.open();
    let content = format!("Subject: x\r\n\r\n{}", "line of text\r\n".repeat(200_000 / 14));
    rig.submit(Note::to(&entry(1), &["bob@x.org"]).content(content)).await.unwrap();
    held.reached().await;
    body.reached(PATIENCE).await.unwrap();
    body.release();
    let early = end.reached(Duration::from_millis(300)).await;
    assert!(early.is_err(), "the final dot went out before the row said so");
    drop(held);
    end.reached(PATIENCE).await.unwrap();
    end.release();
    assert_eq!(rig.hears_end_of(&entry(1)).await.state, QueueState::Done);
}

#[tokio::test]
async fn a_claim_over_an_open_connection_is_the_note_where_doubt_means_to_send_again() {
    for policy in [InDoubtPolicy::Resend, InDoubtPolicy::Hold] {
        let shape = Shape { in_doubt: policy, ..Shape::default() };
        let mut rig = Rig::shaped(shape, office().await).await;
        rig.open();
        let first = rig.send(1, &["bob@x.org"]).await;
        rig.hears_end_of(&first).await;
        let hang = rig.office.inject(Fault::smtp(SmtpPhase::Mail, Action::Hang));
        let second = rig.send(2, &["bob@x.org"]).await;
        hang.reached(PATIENCE).await.unwrap();
        let said = dot(&rig.row(&second).await.unwrap());
        let early = matches!(said, FinalDot::MayBeOut { .. });
        assert_eq!(early, policy == InDoubtPolicy::Resend);
        // A crash now: nothing was sent, and it is sent once, whatever the row says.
        rig.restart(None).await;
        hang.remove();
        let left = |row: &QueueRecord| !matches!(row.state, QueueState::Claimed(_));
        let row = rig.row_when(&second, left).await;
        assert_eq!(row.state.is_in_doubt(), early);
        rig.open();
        rig.wait_for_due(&row);
        assert_eq!(rig.hears_end_of(&second).await.attempts, 2);
        assert_eq!(rig.office.accepted_count(), 2);
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_keeps_the_dot_back() {
    let rig = Rig::new().await;
    rig.faulty.fail("MayBeOut", 1, || {
        SpoolError::io("write", std::io::Error::other("the disk is on fire"))
    });
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let row = rig.deferred(&entry).await;
    assert!(row.last_error.contains("the disk is on fire"), "{}", row.last_error);
    assert_eq!(rig.office.accepted_count(), 0);
    rig.wait_for_due(&row);
    assert_eq!(rig.hears_end_of(&entry).await.attempts, 2);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: TN-14, TN-17, TN-18
#[tokio::test]
async fn who_stops_a_message_between_journal_and_dot_leaves_no_doubt() {
    for moment in [Moment::Before, Moment::After] {
        for how in [Abort::Cancel, Abort::Park, Abort::Hold] {
            let rig = Rig::new().await;
            let held = rig.faulty.hold("MayBeOut", moment);
            rig.open();
            let entry = rig.send(1, &["bob@x.org"]).await;
            held.reached().await;
            if moment == Moment::After {
                assert!(matches!(dot(&rig.row(&entry).await.unwrap()), FinalDot::MayBeOut { .. }));
            }
            rig.outbound.abort(&entry, how).await.unwrap();
            let state = rig.row(&entry).await.map(|row| row.state);
            match how {
                Abort::Cancel => {
                    assert_eq!(state, None);
                    let history = rig.spool.history(&entry).await.unwrap().unwrap();
                    assert_eq!(history.end, HistoryEnd::Cancelled);
                }
                Abort::Park => assert_eq!(state, Some(QueueState::Parked)),
                Abort::Hold => assert_eq!(state, Some(QueueState::Held)),
            }
            drop(held);
            // The account goes on, and what was stopped stays stopped.
            let next = rig.send(2, &["bob@x.org"]).await;
            rig.hears_end_of(&next).await;
            assert_eq!(rig.office.accepted_count(), 1);
            assert!(!matches!(
                rig.row(&entry).await.map(|row| row.state),
                Some(QueueState::InDoubt { .. } | QueueState::Claimed(_))
            ));
        }
    }
}

#[tokio::test]
async fn a_hurried_end_between_journal_and_dot_is_not_in_doubt() {
    let rig = Rig::new().await;
    let held = rig.faulty.hold("MayBeOut", Moment::After);
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    held.reached().await;
    rig.outbound.stop(Duration::ZERO).await;
    let row = rig.row(&entry).await.unwrap();
    assert_eq!((row.state, row.attempts), (QueueState::Due, 0));
    assert_eq!(rig.office.accepted_count(), 0);
}

#[tokio::test]
async fn a_crash_behind_the_dot_is_in_doubt_and_the_policy_decides() {
    for policy in [InDoubtPolicy::Resend, InDoubtPolicy::Hold] {
        let shape = Shape { in_doubt: policy, ..Shape::default() };
        let mut rig = Rig::shaped(shape, office().await).await;
        let hang =
            rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).after_effect().once());
        rig.open();
        let entry = rig.send(1, &["bob@x.org"]).await;
        hang.reached(PATIENCE).await.unwrap();
        rig.restart(None).await;
        // Known at once, not only when the message is due again, and with the gate closed.
        let in_doubt = |row: &QueueRecord| matches!(row.state, QueueState::InDoubt { .. });
        let row = rig.row_when(&entry, in_doubt).await;
        assert_eq!(row.attempts, 1);
        assert!(row.last_error.contains("may have taken it"), "{}", row.last_error);
        // The counts follow the row.
        let counted = async {
            while rig.spool.counts().in_doubt != 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.unwrap();
        rig.open();
        match policy {
            InDoubtPolicy::Resend => {
                rig.wait_for_due(&row);
                assert_eq!(rig.hears_end_of(&entry).await.attempts, 2);
            }
            InDoubtPolicy::Hold => {
                rig.clock.advance(Duration::from_secs(30 * 24 * 3600));
                let other = rig.send(2, &["bob@x.org"]).await;
                rig.hears_end_of(&other).await;
                assert_eq!(rig.row(&entry).await, Some(row));
                rig.outbound.release(&entry).await.unwrap();
                rig.hears_end_of(&entry).await;
            }
        }
        let copies = rig.office.accepted().len() - usize::from(policy == InDoubtPolicy::Hold);
        assert_eq!(copies, 2);
    }
}

#[tokio::test]
async fn a_crash_before_the_dot_is_a_plain_retry_and_one_delivery() {
    use SmtpPhase::{Body, Connect, Data, Mail, Rcpt};
    for phase in [Connect, Mail, Rcpt, Data, Body] {
        let shape = Shape { in_doubt: InDoubtPolicy::Hold, ..Shape::default() };
        let mut rig = Rig::shaped(shape, office().await).await;
        let hang = rig.office.inject(Fault::smtp(phase, Action::Hang));
        // Keeps the dot back where the text is short.
        let held = rig.faulty.hold("MayBeOut", Moment::Before);
        rig.open();
        let entry = rig.send(1, &["bob@x.org"]).await;
        hang.reached(PATIENCE).await.unwrap();
        rig.restart(None).await;
        drop(held);
        hang.remove();
        let row = rig.row_when(&entry, |row| row.state == QueueState::Due).await;
        assert_eq!(row.attempts, 1, "{phase:?}");
        rig.open();
        rig.wait_for_due(&row);
        assert_eq!(rig.hears_end_of(&entry).await.state, QueueState::Done);
        assert_eq!(rig.office.accepted_count(), 1, "{phase:?}");
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_long_text_leaves_no_doubt() {
    let shape = Shape { in_doubt: InDoubtPolicy::Hold, ..Shape::default() };
    let mut rig = Rig::shaped(shape, office().await).await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).at_byte(100_000));
    rig.open();
    // More than any socket holds back.
    let content = format!("Subject: x\r\n\r\n{}", "line of a text\r\n".repeat(1_000_000));
    rig.submit(Note::to(&entry(1), &["bob@x.org"]).content(content)).await.unwrap();
    hang.reached(PATIENCE).await.unwrap();
    rig.restart(None).await;
    hang.remove();
    let row = rig.row_when(&entry(1), |row| row.state == QueueState::Due).await;
    rig.open();
    rig.wait_for_due(&row);
    assert_eq!(rig.hears_end_of(&entry(1)).await.state, QueueState::Done);
    assert_eq!(rig.office.accepted_count(), 1);
}

#[tokio::test]
async fn what_an_earlier_transaction_delivered_is_durable_before_the_next_one() {
    let office = PostOffice::builder().user("ann", "secret").catch_all("ann").max_recipients(2);
    let mut rig = Rig::shaped(Shape::default(), office.start().await.unwrap()).await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::Mail, Action::Hang).nth(2));
    rig.open();
    let entry = rig.send(1, &["a@x.org", "b@x.org", "c@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    rig.restart(None).await;
    hang.remove();
    let row = rig.row_when(&entry, |row| row.state == QueueState::Due).await;
    let delivered = |row: &QueueRecord, index: usize| {
        matches!(row.envelope.recipients[index].state, RecipientState::Delivered { .. })
    };
    assert_eq!([0, 1, 2].map(|index| delivered(&row, index)), [true, true, false]);
    rig.open();
    rig.wait_for_due(&row);
    rig.hears_end_of(&entry).await;
    let accepted = rig.office.accepted();
    let got: Vec<Vec<&str>> = accepted.iter().map(|one| one.recipients()).collect();
    assert_eq!(got, [vec!["a@x.org", "b@x.org"], vec!["c@x.org"]]);
}

#[tokio::test]
async fn a_message_left_in_doubt_can_be_cancelled_and_held() {
    let mut rig = Rig::new().await;
    let hang =
        rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).after_effect().times(2));
    rig.open();
    let entries = [rig.send(1, &["bob@x.org"]).await, rig.send(2, &["bob@x.org"]).await];
    hang.reached(PATIENCE).await.unwrap();
    rig.office.wait_accepted(2, PATIENCE).await.unwrap();
    rig.restart(None).await;
    // It is not sent again, and may have been delivered all the same.
    let answer = rig.outbound.abort(&entries[0], Abort::Cancel).await.unwrap_err();
    assert_eq!(answer.code(), MapiCode::UNABLE_TO_ABORT);
    let end = Told::SentDeferred(entries[0].clone());
    rig.hears("the end of a message", |told| told.contains(&end)).await;
    rig.outbound.hold(&entries[1]).await.unwrap();
    rig.open();
    rig.clock.advance(Duration::from_secs(24 * 3600));
    let other = rig.send(3, &["bob@x.org"]).await;
    rig.hears_end_of(&other).await;
    assert!(rig.row(&entries[0]).await.is_none());
    assert_eq!(rig.row(&entries[1]).await.unwrap().state, QueueState::Held);
    assert_eq!(rig.office.accepted_count(), 3);
    assert!(!rig.told().contains(&Told::SentDeferred(entries[1].clone())));
}
