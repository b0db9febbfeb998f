#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::transport::outbound::capabilities::Capabilities;
use crate::transport::outbound::progress::Progress;
use crate::transport::outbound::testing::{
    Act, Heard, Script, Text, Unjournalled, connect, envelope_to,
};
use crate::transport::outbound::transaction::{
    End, Sent, TextError, TextSource, Transacted, Work, transact,
};

fn entry(number: u8) -> EntryId {
    EntryId::from_bytes(&[number]).unwrap()
}

/// Message 2 follows.
struct Two;

impl Follow for Two {
    fn next(&self, connection: &Connection) -> Option<Ahead> {
        Ahead::new(connection, &entry(2), &envelope_to(&["two@x.org"]), 5, vec![0])
    }
}

async fn send(
    connection: &mut Connection,
    number: u8,
    follow: Option<&dyn Follow>,
    text: &dyn TextSource,
) -> Transacted {
    let envelope = envelope_to(&[if number == 1 { "one@x.org" } else { "two@x.org" }]);
    let work = Work {
        entry: &entry(number),
        envelope: &envelope,
        recipients: &[0],
        size: 5,
        text,
        journal: &Unjournalled,
        follow,
    };
    transact(connection, &work, &Progress::default()).await
}

fn text(number: u8) -> Text {
    Text(format!("{number}\r\n"))
}

/// Message 1, with the envelope of message 2 behind it.
async fn first(script: Script) -> (Transacted, Connection, Arc<Mutex<Heard>>) {
    let offers = Capabilities { pipelining: true, ..Capabilities::default() };
    let (mut connection, heard) = connect(script, offers);
    let transacted = send(&mut connection, 1, Some(&Two), &text(1)).await;
    (transacted, connection, heard)
}

async fn second(connection: &mut Connection) -> Transacted {
    send(connection, 2, None, &text(2)).await
}

/// Waits until so many commands were heard.
async fn hears(heard: &Mutex<Heard>, count: usize) -> Vec<String> {
    let wait = async {
        loop {
            let commands = heard.lock().unwrap().commands.clone();
            if commands.len() >= count {
                return commands;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap()
}

fn code(transacted: &Transacted) -> u16 {
    match &transacted.outcomes[..] {
        [(0, Sent::Delivered(reply))] => reply.code,
        [(0, Sent::Refused(failure))] => failure.reply.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_next_envelope_leaves_with_the_final_dot() {
    let (one, mut connection, heard) = first(Script::default()).await;
    assert_eq!((one.end.clone(), code(&one)), (End::InStep, 250));
    let told = hears(&heard, 6).await;
    assert_eq!(told[3..], ["MAIL FROM:<ann@example.org>", "RCPT TO:<two@x.org>", "DATA"]);
    let two = second(&mut connection).await;
    assert_eq!((two.end.clone(), code(&two)), (End::InStep, 250));
    let three = send(&mut connection, 3, None, &text(3)).await;
    assert_eq!((three.end.clone(), code(&three)), (End::InStep, 250));
    let heard = heard.lock().unwrap();
    assert_eq!(heard.texts, ["1\r\n", "2\r\n", "3\r\n"]);
    assert_eq!(heard.commands.len(), 9);
}

#[tokio::test]
async fn a_refusal_at_the_final_dot_is_of_its_own_message_only() {
    for refusal in ["550 5.7.1 no", "451 4.3.0 later"] {
        let script = Script::default().on(".", &[Act::Say(refusal), Act::Say("250 2.0.0 ok")]);
        let (one, mut connection, _) = first(script).await;
        assert_eq!(one.end, End::InStep);
        assert!(refusal.starts_with(&code(&one).to_string()), "{one:?}");
        let two = second(&mut connection).await;
        assert_eq!((two.end.clone(), code(&two)), (End::InStep, 250));
    }
}

#[tokio::test]
async fn a_server_that_closes_behind_its_answer_has_not_tried_the_next() {
    for act in
        [Act::SayClose("250 2.0.0 taken"), Act::SayClose("250 2.0.0 taken\r\n421 4.7.0 many")]
    {
        let (one, mut connection, _) = first(Script::default().on(".", &[act])).await;
        assert_eq!((one.end.clone(), code(&one)), (End::InStep, 250));
        let two = second(&mut connection).await;
        assert_eq!(two, Transacted { outcomes: vec![], end: End::Stale });
        assert!(!connection.is_usable());
    }
}

#[tokio::test]
async fn without_an_answer_the_first_is_in_doubt_and_the_next_was_not_tried() {
    let (one, connection, heard) = first(Script::default().on(".", &[Act::Close])).await;
    assert!(matches!(one.end, End::InDoubt(_)), "{one:?}");
    assert!(!connection.is_usable());
    assert_eq!(heard.lock().unwrap().commands.len(), 3);
}

#[tokio::test]
async fn refusals_of_the_next_envelope_are_its_own() {
    type Acts = &'static [Act];
    const TAKEN: Act = Act::Say("250 2.0.0 ok");
    let cases: [(&'static str, Acts, Acts); 2] = [
        ("RCPT", &[TAKEN, Act::Say("550 5.1.1 nobody"), TAKEN], &[Act::Say("354 go")]),
        (
            "RCPT",
            &[TAKEN, Act::Say("550 5.1.1 nobody"), TAKEN],
            &[Act::Say("354 go"), Act::Say("554 5.5.1 nobody"), Act::Say("354 go")],
        ),
    ];
    for (what, acts, data) in cases {
        let script = Script::default().on(what, acts).on("DATA", data);
        let (one, mut connection, heard) = first(script).await;
        assert_eq!((one.end.clone(), code(&one)), (End::InStep, 250));
        let two = second(&mut connection).await;
        assert_eq!((two.end.clone(), code(&two)), (End::InStep, 550), "{what}");
        let three = send(&mut connection, 3, None, &text(3)).await;
        assert_eq!((three.end.clone(), code(&three)), (End::InStep, 250), "{what}");
        let texts = heard.lock().unwrap().texts.clone();
        // Where the server wanted a text from nobody, the final dot alone was it.
        assert!(texts.iter().all(|text| text.is_empty() || text == "1\r\n" || text == "3\r\n"));
    }
}

/// It may be about their coming early: over another connection the server is asked again.
#[tokio::test]
async fn a_sender_refused_ahead_of_its_turn_is_no_verdict() {
    let refusals = [
        Act::Say("550 5.7.1 not from you"),
        Act::Say("503 5.5.0 too early"),
        Act::SayClose("554 5.5.0 synchronization error"),
        Act::Say("421 4.7.0 enough"),
    ];
    for refusal in refusals {
        let script = Script::default().on("MAIL", &[Act::Say("250 2.1.0 ok"), refusal]);
        let (one, mut connection, heard) = first(script).await;
        assert_eq!((one.end.clone(), code(&one)), (End::InStep, 250));
        let two = second(&mut connection).await;
        assert_eq!(two, Transacted { outcomes: vec![], end: End::Stale }, "{refusal:?}");
        assert!(!connection.is_usable());
        assert_eq!(heard.lock().unwrap().texts, ["1\r\n"]);
    }
}

#[tokio::test]
async fn another_message_than_the_one_announced_takes_another_connection() {
    let (_, mut connection, heard) = first(Script::default()).await;
    assert!(!connection.is_usable_for(Some(&entry(3))) && !connection.is_usable_for(None));
    assert!(connection.is_usable_for(Some(&entry(2))) && connection.is_ahead());
    let three = send(&mut connection, 3, None, &text(3)).await;
    assert_eq!(three, Transacted { outcomes: vec![], end: End::Stale });
    assert!(!connection.is_usable());
    drop(connection);
    assert_eq!(heard.lock().unwrap().texts, ["1\r\n"]);
}

/// QUIT would be taken for text.
#[tokio::test]
async fn no_goodbye_where_a_text_is_waited_for() {
    let (_, connection, heard) = first(Script::default()).await;
    hears(&heard, 6).await;
    connection.quit().await;
    assert_eq!(heard.lock().unwrap().texts, ["1\r\n"]);
    assert_eq!(heard.lock().unwrap().unfinished, 0);
}

/// A text that is not there any more.
struct Damaged;

#[async_trait::async_trait]
impl TextSource for Damaged {
    async fn open(
        &self,
        _: crate::transport::outbound::transaction::TextForm,
    ) -> Result<std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>, TextError> {
        Err(TextError::Damaged("gone".to_owned()))
    }
}

#[tokio::test]
async fn a_text_that_cannot_be_read_ends_the_connection_that_waits_for_it() {
    let (_, mut connection, heard) = first(Script::default()).await;
    let two = send(&mut connection, 2, None, &Damaged).await;
    assert!(matches!(two.end, End::Broken(_)), "{two:?}");
    assert_eq!(two.outcomes.len(), 1);
    assert!(!connection.is_usable());
    drop(connection);
    assert_eq!(heard.lock().unwrap().texts, ["1\r\n"]);
}

/// What only an exchange of its own can tell is not written ahead.
#[tokio::test]
async fn what_is_out_of_the_ordinary_waits_for_its_turn() {
    let pipelining = Capabilities { pipelining: true, ..Capabilities::default() };
    let (connection, _) = connect(Script::default(), pipelining);
    let ahead = |addresses: &[&str], connection: &Connection| {
        let recipients = (0..addresses.len()).collect();
        Ahead::new(connection, &entry(2), &envelope_to(addresses), 5, recipients)
    };
    assert!(ahead(&["two@x.org"], &connection).is_some());
    assert!(ahead(&["two@x.org", "no address"], &connection).is_none());
    assert!(ahead(&[], &connection).is_none());
    let mut foreign = envelope_to(&["two@x.org"]);
    foreign.smtputf8 = true;
    assert!(Ahead::new(&connection, &entry(2), &foreign, 5, vec![0]).is_none());
    let (one_by_one, _) = connect(Script::default(), Capabilities::default());
    assert!(ahead(&["two@x.org"], &one_by_one).is_none());
}
