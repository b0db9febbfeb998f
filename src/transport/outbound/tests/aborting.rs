//! Cancel, park, hold, logoff, restart.

use std::sync::Arc;
use std::time::Duration;

use postoffice::{Action, Fault, SmtpPhase};
use tokio_util::sync::CancellationToken;

use super::rig::{Note, PATIENCE, Rig, Shape, Told, entry, office};
use crate::mapi::MapiCode;
use crate::net::TlsMode;
use crate::spool::{HistoryEnd, QueueRecord, QueueState, RecipientState, Spool};
use crate::transport::InDoubtPolicy;
use crate::transport::outbound::{Abort, Gate, Taken};

/// Waits no longer than a machine under load needs: never for the server.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it waited for the server")
}

/// Proves: TN-14, TN-17
#[tokio::test]
async fn cancel_at_any_phase_before_the_dot_and_the_server_gets_nothing() {
    use SmtpPhase::{Auth, Connect, Data, Ehlo, Greeting, Mail, Rcpt};
    for phase in [Connect, Greeting, Ehlo, Auth, Mail, Rcpt, Data] {
        let rig = Rig::new().await;
        let hang = rig.office.inject(Fault::smtp(phase, Action::Hang));
        rig.open();
        let entry = rig.send(1, &["bob@x.org"]).await;
        hang.reached(PATIENCE).await.unwrap();
        soon(rig.outbound.abort(&entry, Abort::Cancel)).await.unwrap();
        assert!(rig.row(&entry).await.is_none(), "{phase:?}");
        let history = rig.spool.history(&entry).await.unwrap().unwrap();
        assert_eq!(history.end, HistoryEnd::Cancelled);
        hang.remove();
        // The account goes on, and the cancelled one stays away.
        let next = rig.send(2, &["bob@x.org"]).await;
        rig.hears_end_of(&next).await;
        assert_eq!(rig.office.accepted_count(), 1, "{phase:?}");
        let again = rig.submit(Note::to(&entry, &["bob@x.org"])).await.unwrap_err();
        assert_eq!(again.error.code(), MapiCode::CANCEL);
        let gone = rig.outbound.abort(&entry, Abort::Cancel).await.unwrap_err();
        assert_eq!(gone.code(), MapiCode::NOT_FOUND);
    }
}

/// Proves: TN-14
#[tokio::test]
async fn cancel_in_the_middle_of_a_large_text_and_the_server_gets_nothing() {
    for tls in [TlsMode::Plain, TlsMode::Implicit] {
        let rig = Rig::shaped(Shape { tls, ..Shape::default() }, office().await).await;
        let hang = rig.office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).at_byte(1_000_000));
        rig.open();
        let line = "all work and no play makes jack a dull boy\r\n";
        let content = format!("Subject: large\r\n\r\n{}", line.repeat(20_000_000 / line.len()));
        let note = Note::to(&entry(1), &["bob@x.org"]).content(content);
        rig.submit(note).await.unwrap();
        hang.reached(PATIENCE).await.unwrap();
        soon(rig.outbound.abort(&entry(1), Abort::Cancel)).await.unwrap();
        hang.remove();
        let next = rig.send(2, &["bob@x.org"]).await;
        rig.hears_end_of(&next).await;
        assert_eq!(rig.office.accepted_count(), 1);
    }
}

/// Proves: TN-17
#[tokio::test]
async fn behind_the_final_dot_it_is_too_late() {
    let rig = Rig::new().await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    for how in [Abort::Cancel, Abort::Park] {
        let error = soon(rig.outbound.abort(&entry, how)).await.unwrap_err();
        assert_eq!(error.code(), MapiCode::UNABLE_TO_ABORT);
    }
    let held = soon(rig.outbound.hold(&entry)).await.unwrap_err();
    assert_eq!(held.code(), MapiCode::UNABLE_TO_ABORT);
    hang.release();
    let row = rig.hears_end_of(&entry).await;
    assert_eq!(row.state, QueueState::Done);
    let ended = rig.outbound.abort(&entry, Abort::Cancel).await.unwrap_err();
    assert_eq!(ended.code(), MapiCode::UNABLE_TO_ABORT);
}

/// Proves: TN-14
#[tokio::test]
async fn a_cancelled_submission_stores_nothing() {
    let rig = Rig::new().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let note = Arc::new(Note::to(&entry(1), &["bob@x.org"]));
    let error = rig.outbound.take(entry(1), note, cancel).await.unwrap_err();
    assert_eq!(error.error.code(), MapiCode::CANCEL);
    assert!(rig.row(&entry(1)).await.is_none());
    assert!(rig.spool.history(&entry(1)).await.unwrap().is_none());
}

/// Proves: TN-18
#[tokio::test]
async fn a_parked_message_waits_for_its_message() {
    let mut rig = Rig::new().await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::Rcpt, Action::Hang));
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    soon(rig.outbound.abort(&entry, Abort::Park)).await.unwrap();
    soon(rig.outbound.abort(&entry, Abort::Park)).await.unwrap();
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Parked);
    hang.remove();
    rig.restart(Some(Duration::ZERO)).await;
    rig.open();
    let other = rig.send(2, &["bob@x.org"]).await;
    rig.hears_end_of(&other).await;
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Parked);
    let taken = rig.submit(Note::to(&entry, &["bob@x.org"])).await.unwrap();
    assert!(matches!(taken, Taken::Deferred));
    rig.hears_end_of(&entry).await;
    assert_eq!(rig.office.accepted_count(), 2);
}

#[tokio::test]
async fn held_messages_stay_until_released() {
    let rig = Rig::new().await;
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.outbound.hold(&entry).await.unwrap();
    rig.outbound.hold(&entry).await.unwrap();
    rig.open();
    rig.outbound.begin_flush();
    rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
    rig.outbound.end_flush();
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Held);
    assert_eq!(rig.outbound.retry(Some(&entry)).await.unwrap(), 0);
    rig.outbound.abort(&entry, Abort::Park).await.unwrap();
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Held);
    rig.outbound.release(&entry).await.unwrap();
    rig.hears_end_of(&entry).await;
    let unknown = super::rig::entry(9);
    for result in [
        rig.outbound.hold(&unknown).await,
        rig.outbound.release(&unknown).await,
        rig.outbound.retry(Some(&unknown)).await.map(drop),
    ] {
        assert_eq!(result.unwrap_err().code(), MapiCode::NOT_IN_QUEUE);
    }
}

#[tokio::test]
async fn retry_makes_deferred_messages_due_now() {
    let rig = Rig::new().await;
    let later = postoffice::SmtpAction::reply(450, "4.2.1", "later");
    let fault = rig.office.inject(Fault::smtp(SmtpPhase::Rcpt, later));
    rig.open();
    for number in 1..=3 {
        let entry = rig.send(number, &["bob@x.org"]).await;
        rig.deferred(&entry).await;
    }
    fault.remove();
    assert_eq!(rig.outbound.retry(Some(&entry(1))).await.unwrap(), 1);
    rig.hears_end_of(&entry(1)).await;
    assert_eq!(rig.outbound.retry(None).await.unwrap(), 2);
    rig.hears_end_of(&entry(2)).await;
    rig.hears_end_of(&entry(3)).await;
}

/// Proves: LG-9
#[tokio::test]
async fn a_hurried_end_drops_the_wire_and_loses_nothing() {
    let mut rig = Rig::new().await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::Data, Action::Hang));
    rig.open();
    for number in 1..=5 {
        rig.send(number, &["bob@x.org"]).await;
    }
    hang.reached(PATIENCE).await.unwrap();
    soon(rig.outbound.stop(Duration::ZERO)).await;
    for number in 1..=5 {
        let row = rig.row(&entry(number)).await.unwrap();
        assert_eq!((row.state, row.attempts), (QueueState::Due, 0));
    }
    hang.remove();
    rig.restart(Some(Duration::ZERO)).await;
    rig.open();
    for number in 1..=5 {
        rig.hears_end_of(&entry(number)).await;
    }
    assert_eq!(rig.office.accepted_count(), 5);
}

/// Proves: LG-9
#[tokio::test]
async fn an_orderly_end_lets_the_wire_finish() {
    let rig = Rig::new().await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    let outbound = Arc::clone(&rig.outbound);
    let stopping = tokio::spawn(async move { outbound.stop(PATIENCE).await });
    while !rig.outbound.shared.lane().is_stopping() {
        tokio::task::yield_now().await;
    }
    hang.release();
    soon(stopping).await.unwrap();
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Done);
    let late = rig.submit(Note::to(&super::rig::entry(2), &["bob@x.org"])).await.unwrap_err();
    assert_eq!(late.error.code(), MapiCode::END_OF_SESSION);
}

/// Proves: LG-9
#[tokio::test]
async fn an_end_behind_the_final_dot_is_in_doubt() {
    let rig = Rig::new().await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang));
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    soon(rig.outbound.stop(Duration::ZERO)).await;
    let row = rig.row(&entry).await.unwrap();
    assert!(matches!(row.state, QueueState::InDoubt { resend: true, .. }), "{row:?}");
}

/// Proves: OB-11
#[tokio::test]
async fn after_a_crash_claims_are_due_at_their_stored_time_and_ends_are_told_again() {
    // Where in doubt means to send again, a claim over an open connection says in doubt at once.
    let shape = Shape { in_doubt: InDoubtPolicy::Hold, ..Shape::default() };
    let mut rig = Rig::shaped(shape, office().await).await;
    rig.open();
    let done = rig.send(1, &["bob@x.org"]).await;
    rig.hears_end_of(&done).await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::Rcpt, Action::Hang));
    let claimed = rig.send(2, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    rig.restart(None).await;
    hang.remove();
    rig.hears_end_of(&done).await;
    let row = rig.row_when(&claimed, |row| row.state == QueueState::Due).await;
    assert_eq!(row.attempts, 1);
    rig.open();
    let other = rig.send(3, &["bob@x.org"]).await;
    rig.hears_end_of(&other).await;
    assert_eq!(rig.row(&claimed).await.unwrap().attempts, 1);
    rig.wait_for_due(&row);
    let row = rig.hears_end_of(&claimed).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 2));
    assert_eq!(rig.office.accepted_count(), 3);
}

/// Proves: TN-17, TN-19
#[tokio::test]
async fn aborts_and_deliveries_race_to_one_end() {
    let rig = Rig::new().await;
    rig.open();
    let (mut cancelled, mut sent) = (0, 0);
    for number in 0..100 {
        let entry = rig.send(number, &["bob@x.org"]).await;
        for _ in 0..number % 20 {
            tokio::task::yield_now().await;
        }
        match soon(rig.outbound.abort(&entry, Abort::Cancel)).await {
            Ok(()) => {
                cancelled += 1;
                assert!(rig.row(&entry).await.is_none());
            }
            Err(error) => {
                assert_eq!(error.code(), MapiCode::UNABLE_TO_ABORT);
                sent += 1;
                rig.hears_end_of(&entry).await;
            }
        }
    }
    rig.outbound.stop(PATIENCE).await;
    assert_eq!((cancelled + sent, rig.office.accepted_count()), (100, sent));
}

/// What comes right before a message is claimed finds it claimed when it looks at its row.
///
/// Proves: TN-17, TN-19
#[tokio::test]
async fn what_meets_a_claim_that_was_made_meanwhile_leaves_it_alone() {
    for what in ["cancel", "park", "hold", "retry"] {
        let rig = Rig::new().await;
        rig.open();
        let first = rig.send(1, &["bob@x.org"]).await;
        rig.hears_end_of(&first).await;
        rig.outbound.set_gate(Gate::Closed);
        let entry = rig.send(2, &["bob@x.org"]).await;
        let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
        let held = rig.faulty.hold_read();
        let asked = async {
            match what {
                "cancel" => rig.outbound.abort(&entry, Abort::Cancel).await.map(|()| 0),
                "park" => rig.outbound.abort(&entry, Abort::Park).await.map(|()| 0),
                "hold" => rig.outbound.abort(&entry, Abort::Hold).await.map(|()| 0),
                _ => rig.outbound.retry(Some(&entry)).await,
            }
        };
        let meanwhile = async {
            held.reached().await;
            rig.open();
            hang.reached(PATIENCE).await.unwrap();
            drop(held);
        };
        let (answer, ()) = tokio::join!(soon(asked), meanwhile);
        match what {
            "retry" => assert_eq!(answer.unwrap(), 0, "it is being tried"),
            _ => {
                let error = answer.unwrap_err();
                assert_eq!(error.code(), MapiCode::UNABLE_TO_ABORT, "{what}");
                assert!(error.detail().contains("the final dot"), "{what}: {error}");
                assert!(error.detail().contains("is out"), "{what}: {error}");
            }
        }
        hang.release();
        let row = rig.hears_end_of(&entry).await;
        assert_eq!(row.state, QueueState::Done, "{what}");
        rig.outbound.stop(PATIENCE).await;
        assert_eq!(rig.office.accepted_count(), 2, "{what}");
    }
}

#[tokio::test]
async fn a_parked_message_can_be_put_on_hold() {
    let rig = Rig::new().await;
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.outbound.abort(&entry, Abort::Park).await.unwrap();
    rig.outbound.hold(&entry).await.unwrap();
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Held);
    rig.open();
    // Its message comes back, and it stays where the user put it.
    let taken = rig.submit(Note::to(&entry, &["bob@x.org"])).await.unwrap();
    assert!(matches!(taken, Taken::Deferred));
    assert_eq!(rig.row(&entry).await.unwrap().state, QueueState::Held);
    rig.outbound.release(&entry).await.unwrap();
    rig.hears_end_of(&entry).await;
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: TN-17
#[tokio::test]
async fn cancelling_a_message_in_doubt_ends_it_and_says_that_it_may_have_been_sent() {
    let rig = Rig::new().await;
    rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Drop).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.row_when(&entry, |row| matches!(row.state, QueueState::InDoubt { .. })).await;
    rig.forget();
    let answer = rig.outbound.abort(&entry, Abort::Cancel).await.unwrap_err();
    assert_eq!(answer.code(), MapiCode::UNABLE_TO_ABORT);
    assert!(answer.detail().contains("may have been delivered"), "{answer}");
    assert!(rig.row(&entry).await.is_none(), "it is not sent again");
    let history = rig.spool.history(&entry).await.unwrap().unwrap();
    assert_eq!(history.end, HistoryEnd::Cancelled);
    let reply = match &history.envelope.recipients[0].state {
        RecipientState::Deferred { reply } => reply.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(reply.starts_with("4.4.2 in doubt when it was cancelled"), "{reply}");
    // The host takes its message away when it hears of it.
    let end = Told::SentDeferred(entry.clone());
    rig.hears("the end", |told| told.contains(&end)).await;
    let again = rig.submit(Note::to(&entry, &["bob@x.org"])).await.unwrap_err();
    assert_eq!(again.error.code(), MapiCode::CANCEL);
}

/// What was done with a message in doubt before it is cancelled.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Held,
    MadeDue,
    TriedAgain,
    KilledAndHeld,
}

/// TN-17, and the server has the message already.
#[tokio::test]
async fn once_in_doubt_a_cancel_says_so_whatever_was_done_since() {
    use Meanwhile::{Held, KilledAndHeld, MadeDue, TriedAgain};
    for meanwhile in [Held, MadeDue, TriedAgain, KilledAndHeld] {
        let mut rig = Rig::new().await;
        let action = match meanwhile {
            KilledAndHeld => Action::Hang,
            Held | MadeDue | TriedAgain => Action::Drop,
        };
        let lost = Fault::smtp(SmtpPhase::FinalDot, action).after_effect().once();
        let lost = rig.office.inject(lost);
        rig.open();
        let entry = rig.send(1, &["bob@x.org"]).await;
        let in_doubt = |row: &QueueRecord| matches!(row.state, QueueState::InDoubt { .. });
        match meanwhile {
            KilledAndHeld => {
                lost.reached(PATIENCE).await.unwrap();
                rig.restart(None).await;
                rig.outbound.hold(&entry).await.unwrap();
            }
            Held => {
                rig.row_when(&entry, in_doubt).await;
                rig.outbound.hold(&entry).await.unwrap();
            }
            MadeDue => {
                rig.row_when(&entry, in_doubt).await;
                // It gets no further than the server's door.
                rig.office.inject(Fault::smtp(SmtpPhase::Mail, Action::Hang));
                rig.outbound.retry(Some(&entry)).await.unwrap();
            }
            TriedAgain => {
                let row = rig.row_when(&entry, in_doubt).await;
                let later = postoffice::SmtpAction::reply(450, "4.2.1", "later");
                rig.office.inject(Fault::smtp(SmtpPhase::Rcpt, later));
                rig.wait_for_due(&row);
                rig.row_when(&entry, |row| row.state == QueueState::Due).await;
            }
        }
        let answer = soon(rig.outbound.abort(&entry, Abort::Cancel)).await.unwrap_err();
        assert_eq!(answer.code(), MapiCode::UNABLE_TO_ABORT, "{meanwhile:?}");
        assert!(answer.detail().contains("may have been delivered"), "{meanwhile:?}: {answer}");
        let history = rig.spool.history(&entry).await.unwrap().unwrap();
        assert_eq!(history.end, HistoryEnd::Cancelled);
        let state = &history.envelope.recipients[0].state;
        let told =
            matches!(state, RecipientState::Deferred { reply } if reply.text.contains("in doubt"));
        assert!(told, "{meanwhile:?}: {state:?}");
        assert_eq!(rig.office.accepted_count(), 1);
    }
}
