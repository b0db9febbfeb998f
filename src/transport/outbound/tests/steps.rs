//! What is noted of a message on its way (`trace`).

use std::time::Duration;

use postoffice::{Action, Fault, SmtpPhase};

use super::rig::{Note, PATIENCE, Rig};
use crate::mapi::EntryId;
use crate::spool::{AttemptStepEnd, Spool, StepKind};
use crate::transport::outbound::Abort;

/// The steps of a message in short words.
async fn steps(rig: &Rig, entry: &EntryId) -> Vec<String> {
    let trace = match rig.row(entry).await {
        Some(row) => row.trace,
        None => rig.spool.history(entry).await.unwrap().unwrap().trace,
    };
    let words = |what: &StepKind| match what {
        StepKind::Accepted { transport } => format!("accepted {transport}"),
        StepKind::Attempt(attempt) => {
            let end = match attempt.end {
                AttemptStepEnd::Answered => "answered",
                AttemptStepEnd::Broken { .. } => "broken",
                AttemptStepEnd::InDoubt { .. } => "in doubt",
                AttemptStepEnd::Postponed => "postponed",
            };
            let (number, taken) = (attempt.number, attempt.delivered);
            format!("attempt {number} {} {taken} {end}", attempt.host)
        }
        StepKind::Untried { times, .. } => format!("untried {times}"),
        StepKind::Interrupted { number } => format!("interrupted {number}"),
        StepKind::LeftInDoubt { number } => format!("left in doubt {number}"),
        other => format!("{other:?}"),
    };
    trace.steps().iter().map(|step| words(&step.what)).collect()
}

#[tokio::test]
async fn a_message_that_goes_out_at_once_costs_no_commit_more() {
    let rig = Rig::new().await;
    rig.open();
    let before = rig.faulty.commits();
    let entry = rig.send(1, &["bob@x.org", "cat@x.org"]).await;
    rig.hears_end_of(&entry).await;
    rig.outbound.settle(&entry).await.unwrap();
    // Accepted and claimed; the final dot may be out; its outcome; its end.
    assert_eq!(rig.faulty.commits() - before, 4);
    let transport = &rig.settings.transport;
    let host = &rig.settings.smtp.server.host;
    let expected = [format!("accepted {transport}"), format!("attempt 1 {host} 2 answered")];
    assert_eq!(steps(&rig, &entry).await, expected);
}

#[tokio::test]
async fn trouble_of_the_account_is_one_step_however_long_it_lasts() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.hears_trouble().await;
    for _ in 0..3 {
        rig.forget();
        rig.clock.advance(Duration::from_secs(300));
        rig.hears_trouble().await;
    }
    rig.office.restart().await.unwrap();
    rig.forget();
    rig.clock.advance(Duration::from_secs(300));
    rig.hears_end_of(&entry).await;
    let told = steps(&rig, &entry).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[1].starts_with("untried ") && told[1] != "untried 1", "{told:?}");
    assert!(told[2].starts_with("attempt 1 "), "{told:?}");
}

#[tokio::test]
async fn a_message_given_back_and_one_cut_off_say_so() {
    let mut rig = Rig::new().await;
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::Rcpt, Action::Hang));
    rig.open();
    let parked = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    rig.outbound.abort(&parked, Abort::Park).await.unwrap();
    let again = rig.office.inject(Fault::smtp(SmtpPhase::Mail, Action::Hang));
    let cut = rig.send(2, &["bob@x.org"]).await;
    again.reached(PATIENCE).await.unwrap();
    let row = rig.row(&cut).await.unwrap();
    rig.restart(None).await;
    hang.remove();
    again.remove();
    rig.open();
    rig.submit(Note::to(&parked, &["bob@x.org"])).await.unwrap();
    rig.hears_end_of(&parked).await;
    let told = steps(&rig, &parked).await;
    assert_eq!(told[1..3], ["GivenBack", "TakenUp"], "{told:?}");
    rig.wait_for_due(&row);
    rig.hears_end_of(&cut).await;
    let told = steps(&rig, &cut).await;
    assert_eq!(told[1], "interrupted 1", "{told:?}");
    assert!(told[2].starts_with("attempt 2 ") && told.len() == 3, "{told:?}");
}

#[tokio::test]
async fn a_lost_reply_to_the_final_dot_is_a_step_of_doubt() {
    let rig = Rig::new().await;
    rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Drop).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let row = rig.row_when(&entry, |row| row.trace.steps().len() == 2).await;
    let told = steps(&rig, &entry).await;
    assert!(told[1].ends_with("0 in doubt"), "{told:?}");
    rig.wait_for_due(&row);
    rig.hears_end_of(&entry).await;
    let told = steps(&rig, &entry).await;
    assert!(told[2].starts_with("attempt 2 ") && told[2].ends_with("1 answered"), "{told:?}");
}

#[tokio::test]
async fn a_crash_behind_the_final_dot_is_a_step_of_doubt() {
    let mut rig = Rig::new().await;
    let hang =
        rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).after_effect().once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    let row = rig.row(&entry).await.unwrap();
    rig.restart(None).await;
    rig.open();
    rig.wait_for_due(&row);
    rig.hears_end_of(&entry).await;
    let told = steps(&rig, &entry).await;
    assert_eq!(told[1], "left in doubt 1", "{told:?}");
    assert!(told[2].starts_with("attempt 2 ") && told[2].ends_with("1 answered"), "{told:?}");
}
