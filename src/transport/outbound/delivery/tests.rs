#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;

use super::*;
use crate::clock::SystemClock;
use crate::mapi::{EntryId, Priority, SysTime};
use crate::spool::{BodyId, Expiry, QueueRecord, QueueState, RecipientState};
use crate::transport::outbound::capabilities::Capabilities;
use crate::transport::outbound::schedule::Before;
use crate::transport::outbound::testing::{
    Act, Nobody, Script, Text, Unjournalled, connect, envelope_to,
};

fn flight(addresses: &[&str]) -> Arc<Flight> {
    let record = QueueRecord {
        revision: 1,
        transport: "work".to_owned(),
        state: QueueState::Due,
        priority: Priority::Normal,
        submitted: SysTime::EPOCH,
        expires: SysTime::MAX,
        expiry: Expiry::Lifetime,
        due: SysTime::EPOCH,
        attempts: 1,
        envelope: envelope_to(addresses),
        body: BodyId([0; 32]),
        size: 4,
        subject: String::new(),
        message_id: String::new(),
        last_error: String::new(),
        trace: crate::spool::Trace::default(),
    };
    let before = Before { state: QueueState::Due, due: SysTime::EPOCH };
    Flight::new(EntryId::from_bytes(&[1]).unwrap(), before, record)
}

fn states(flight: &Flight) -> String {
    let record = flight.record();
    let letter = |state: &RecipientState| match state {
        RecipientState::Pending => 'p',
        RecipientState::Delivered { .. } => 'd',
        RecipientState::Deferred { .. } => 't',
        RecipientState::Failed { .. } => 'f',
    };
    record.envelope.recipients.iter().map(|recipient| letter(&recipient.state)).collect()
}

async fn go(script: Script, flight: &Flight) -> (Delivery, usize) {
    go_at_most(script, flight, MAX_RECIPIENTS).await
}

async fn go_at_most(script: Script, flight: &Flight, most_at_once: usize) -> (Delivery, usize) {
    let offers = Capabilities { pipelining: true, ..Capabilities::default() };
    let (mut connection, heard) = connect(script, offers);
    let text = Text("x\r\n".to_owned());
    let delivery =
        deliver(&mut connection, flight, &text, &Unjournalled, &SystemClock, most_at_once, &Nobody)
            .await;
    let texts = heard.lock().unwrap().texts.len();
    (delivery, texts)
}

const FULL: Act = Act::Say("452 4.5.3 too many recipients");
const OK: Act = Act::Say("250 ok");

#[tokio::test]
async fn a_number_of_recipients_that_is_refused_as_a_whole_is_halved() {
    let flight = flight(&["a@x", "b@x", "c@x", "d@x", "e@x"]);
    let too_many = Act::Say("550 5.5.3 too many recipients");
    let script = Script::default().on(".", &[too_many, OK]);
    let (delivery, texts) = go(script, &flight).await;
    assert_eq!(delivery.end, Ended::Recorded(AttemptEnd::Answered));
    // Five, then two, two and one.
    assert_eq!((states(&flight).as_str(), texts), ("ddddd", 4));
}

#[tokio::test]
async fn recipients_beyond_the_servers_limit_go_in_further_transactions() {
    let flight = flight(&["a@x", "b@x", "c@x", "d@x", "e@x"]);
    // Two at a time, and the last transaction has one.
    let script = Script::default().on("RCPT", &[OK, OK, FULL, FULL, FULL, OK, OK, OK]);
    let (delivery, texts) = go(script, &flight).await;
    assert_eq!(delivery.end, Ended::Recorded(AttemptEnd::Answered));
    assert_eq!((states(&flight).as_str(), texts), ("ddddd", 3));
}

#[tokio::test]
async fn the_profiles_limit_makes_further_transactions_with_outcomes_of_their_own() {
    let flight = flight(&["a@x", "b@x", "c@x", "d@x", "e@x"]);
    let script = Script::default()
        .on("RCPT TO:<c", &[Act::Say("550 5.1.1 no such user")])
        .on(".", &[OK, Act::Say("451 4.3.0 later"), OK]);
    let (delivery, texts) = go_at_most(script, &flight, 2).await;
    assert_eq!(delivery.end, Ended::Recorded(AttemptEnd::Answered));
    // Two, then one of two, then one.
    assert_eq!((states(&flight).as_str(), texts), ("ddftd", 3));
}

#[tokio::test]
async fn a_server_that_never_takes_one_is_not_asked_for_ever() {
    let flight = flight(&["a@x", "b@x"]);
    let script = Script::default()
        .on("RCPT", &[FULL])
        .on("DATA", &[Act::Say("554 5.5.1 no valid recipients")]);
    let (delivery, texts) = go(script, &flight).await;
    assert_eq!(delivery.end, Ended::Recorded(AttemptEnd::Answered));
    assert_eq!((states(&flight).as_str(), texts), ("tt", 0));
}

#[tokio::test]
async fn what_was_delivered_before_the_connection_broke_stays_delivered() {
    let flight = flight(&["a@x", "b@x", "c@x"]);
    let script = Script::default().on("RCPT", &[OK, FULL, FULL, Act::Close]);
    let (delivery, texts) = go(script, &flight).await;
    assert!(matches!(delivery.end, Ended::Recorded(AttemptEnd::Broken(_))), "{delivery:?}");
    assert_eq!((states(&flight).as_str(), texts), ("dpp", 1));
    assert!(delivery.trouble.is_some());
}

#[tokio::test]
async fn nobody_is_asked_twice() {
    let flight = flight(&["a@x", "b@x", "c@x"]);
    flight.record().envelope.recipients[1].state =
        RecipientState::Delivered { at: SysTime::EPOCH, reply: Default::default() };
    let script = Script::default().on("RCPT TO:<b", &[Act::Close]);
    let (delivery, _) = go(script, &flight).await;
    assert_eq!(delivery.end, Ended::Recorded(AttemptEnd::Answered));
    assert_eq!(states(&flight), "ddd");
}

#[tokio::test]
async fn trouble_of_the_account_ends_the_attempt_uncounted() {
    let flight = flight(&["a@x", "b@x"]);
    let quota = Act::Say("550 5.4.5 daily quota");
    let (delivery, _) = go(Script::default().on("MAIL", &[quota]), &flight).await;
    assert_eq!(delivery.end, Ended::AccountTrouble);
    assert_eq!(states(&flight), "pp");
    assert!(delivery.trouble.is_some());
}

#[tokio::test]
async fn trouble_of_the_account_after_an_outcome_counts() {
    let flight = flight(&["a@x", "b@x"]);
    let script = Script::default()
        .on("RCPT TO:<a", &[Act::Say("550 5.1.1 no such user")])
        .on("RCPT TO:<b", &[Act::Say("550 5.4.5 daily quota")])
        .on("DATA", &[Act::Say("554 5.5.1 no valid recipients")]);
    let (delivery, _) = go(script, &flight).await;
    assert_eq!(delivery.end, Ended::Recorded(AttemptEnd::Answered));
    assert_eq!(states(&flight), "fp");
    assert!(delivery.trouble.is_some());
}
