//! Servers that refuse: each class of reply at each phase, and for each recipient.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use postoffice::{Fault, PostOffice, SmtpAction, SmtpExtension, SmtpPhase};

use super::rig::{PATIENCE, Rig, Shape};
use crate::spool::QueueState;
use crate::transport::events::TroubleKind;

/// What becomes of the two recipients at the first attempt, and whether the account pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nobody is to blame: the account waits, so many attempts count.
    Pause(TroubleKind, u32),
    /// Each recipient, and how many messages the server has in the end.
    Recipients([&'static str; 2], u64),
}

use Outcome::{Pause, Recipients};
use SmtpPhase::{Auth, Data, Ehlo, FinalDot, Greeting, Mail, Rcpt};
use TroubleKind::{LoginRefused, Network, Server, Throttled};

/// Phase, which time, code, enhanced code, outcome.
const CASES: &[(SmtpPhase, u32, u16, &str, Outcome)] = &[
    (Greeting, 1, 421, "4.3.2", Pause(Network, 0)),
    (Greeting, 1, 450, "4.3.2", Pause(Network, 0)),
    (Greeting, 1, 554, "5.3.2", Pause(Server, 0)),
    (Ehlo, 1, 421, "4.3.2", Pause(Network, 0)),
    (Ehlo, 1, 451, "4.3.0", Pause(Network, 0)),
    (Ehlo, 1, 550, "5.7.1", Pause(Server, 0)),
    (Auth, 1, 421, "4.7.0", Pause(Throttled, 0)),
    (Auth, 1, 454, "4.7.0", Pause(Throttled, 0)),
    (Auth, 1, 535, "5.7.8", Pause(LoginRefused, 0)),
    (Auth, 1, 534, "5.7.9", Pause(LoginRefused, 0)),
    (Mail, 1, 421, "4.3.2", Pause(Network, 1)),
    (Mail, 1, 450, "4.7.1", Recipients(["deferred", "deferred"], 1)),
    (Mail, 1, 550, "5.7.1", Recipients(["failed", "failed"], 0)),
    (Mail, 1, 552, "5.3.4", Recipients(["failed", "failed"], 0)),
    (Mail, 1, 530, "5.7.0", Pause(LoginRefused, 0)),
    (Mail, 1, 550, "5.4.5", Pause(Throttled, 0)),
    (Rcpt, 1, 421, "4.3.2", Pause(Network, 1)),
    (Rcpt, 1, 450, "4.2.1", Recipients(["deferred", "delivered"], 2)),
    (Rcpt, 1, 550, "5.1.1", Recipients(["failed", "delivered"], 1)),
    (Rcpt, 2, 421, "4.3.2", Pause(Network, 1)),
    (Rcpt, 2, 450, "4.2.1", Recipients(["delivered", "deferred"], 2)),
    (Rcpt, 2, 550, "5.1.1", Recipients(["delivered", "failed"], 1)),
    (Rcpt, 2, 452, "4.5.3", Recipients(["delivered", "delivered"], 2)),
    (Rcpt, 2, 552, "5.5.3", Recipients(["delivered", "delivered"], 2)),
    (Rcpt, 1, 550, "5.5.0", Recipients(["deferred", "delivered"], 2)),
    (Data, 1, 421, "4.3.2", Pause(Network, 1)),
    (Data, 1, 451, "4.3.0", Recipients(["deferred", "deferred"], 1)),
    (Data, 1, 554, "5.7.1", Recipients(["failed", "failed"], 0)),
    (FinalDot, 1, 421, "4.3.2", Pause(Network, 1)),
    (FinalDot, 1, 451, "4.3.0", Recipients(["deferred", "deferred"], 1)),
    (FinalDot, 1, 554, "5.6.0", Recipients(["failed", "failed"], 0)),
    (FinalDot, 1, 554, "5.2.0", Pause(Throttled, 0)),
];

async fn run(
    pipelining: bool,
    (phase, nth, code, enhanced, outcome): (SmtpPhase, u32, u16, &'static str, Outcome),
) {
    let case = format!("{phase:?} {nth} {code} {enhanced}, pipelining {pipelining}");
    let mut builder = PostOffice::builder().user("ann", "secret").catch_all("ann");
    if !pipelining {
        builder = builder.withhold(SmtpExtension::Pipelining);
    }
    let rig = Rig::shaped(Shape::default(), builder.start().await.unwrap()).await;
    let reply = SmtpAction::reply(code, enhanced, "as the test asks");
    let fault = rig.office.inject(Fault::smtp(phase, reply).nth(nth).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org", "cat@x.org"]).await;
    fault.reached(PATIENCE).await.unwrap();
    let row = rig.row_when(&entry, |row| !matches!(row.state, QueueState::Claimed(_))).await;
    let states = [rig.recipient(&entry, 0).await, rig.recipient(&entry, 1).await];
    let copies = match outcome {
        Pause(kind, attempts) => {
            let trouble = rig.hears_trouble().await;
            assert_eq!(trouble.kind, kind, "{case}: {}", trouble.words);
            assert!(trouble.words.contains("as the test asks"), "{case}: {}", trouble.words);
            assert!(trouble.next_attempt.is_some(), "{case}");
            assert_eq!((states, row.attempts), (["pending", "pending"], attempts), "{case}");
            1
        }
        Recipients(wanted, copies) => {
            assert_eq!(states, wanted, "{case}: {row:?}");
            copies
        }
    };
    if row.state != QueueState::Done {
        rig.clock.advance(Duration::from_secs(24 * 3600));
    }
    let row = rig.hears_end_of(&entry).await;
    let row = match row.state {
        QueueState::Done => row,
        // Told of those that failed before the others had their outcome.
        _ => rig.row_when(&entry, |row| row.state == QueueState::Done).await,
    };
    for recipient in &row.envelope.recipients {
        assert!(recipient.state.is_conclusive(), "{case}: {row:?}");
    }
    assert_eq!(rig.office.accepted_count(), copies, "{case}");
    let mut got: Vec<String> = Vec::new();
    for accepted in rig.office.accepted() {
        got.extend(accepted.recipients().into_iter().map(str::to_owned));
    }
    let before = got.len();
    got.sort();
    got.dedup();
    assert_eq!(before, got.len(), "{case}: somebody got it twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_at_every_phase_has_its_outcome() {
    let cases = CASES.iter().flat_map(|case| [(true, *case), (false, *case)]);
    stream::iter(cases)
        .for_each_concurrent(12, |(pipelining, case)| async move {
            if let Err(error) = tokio::spawn(run(pipelining, case)).await {
                panic!("{case:?}: {error}");
            }
        })
        .await;
}
