#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::spool::DsnNotify;
use crate::transport::outbound::capabilities::{Capabilities, SizeLimit};
use crate::transport::outbound::reply::{Cause, Permanence};
use crate::transport::outbound::testing::{
    Act, Heard, Script, Text, Unjournalled, connect, envelope_to,
};

const TEXT: &str = "Subject: hello\r\n\r\none\r\n.\r\n.two\r\n";

struct Outcome {
    transacted: Transacted,
    heard: Arc<Mutex<Heard>>,
    connection: Connection,
}

impl Outcome {
    fn code(&self, index: usize) -> u16 {
        match self.transacted.outcomes.iter().find(|(i, _)| *i == index) {
            Some((_, Sent::Delivered(reply))) => reply.code,
            Some((_, Sent::Refused(failure))) => failure.reply.code,
            None => 0,
        }
    }

    fn commands(&self) -> Vec<String> {
        self.heard.lock().unwrap().commands.clone()
    }

    fn texts(&self) -> Vec<String> {
        self.heard.lock().unwrap().texts.clone()
    }
}

fn entry(number: u8) -> EntryId {
    EntryId::from_bytes(&[number]).unwrap()
}

fn pipelining() -> Capabilities {
    Capabilities { pipelining: true, ..Capabilities::default() }
}

async fn go(script: Script, offers: Capabilities, envelope: &Envelope, text: &str) -> Outcome {
    let (mut connection, heard) = connect(script, offers);
    let transacted = again(&mut connection, envelope, text).await;
    Outcome { transacted, heard, connection }
}

async fn again(connection: &mut Connection, envelope: &Envelope, text: &str) -> Transacted {
    let recipients: Vec<usize> = (0..envelope.recipients.len()).collect();
    let source = Text(text.to_owned());
    let size = text.len() as u64;
    let work = Work {
        entry: &entry(1),
        envelope,
        recipients: &recipients,
        size,
        text: &source,
        journal: &Unjournalled,
        follow: None,
    };
    transact(connection, &work, &Progress::default()).await
}

/// Both ways of asking must come to the same.
fn both() -> [Capabilities; 2] {
    [Capabilities::default(), pipelining()]
}

#[tokio::test]
async fn a_message_is_delivered_byte_for_byte() {
    for offers in both() {
        let envelope = envelope_to(&["bob@example.net", "cat@example.net"]);
        let outcome = go(Script::default(), offers, &envelope, TEXT).await;
        assert_eq!(outcome.transacted.end, End::InStep);
        assert_eq!((outcome.code(0), outcome.code(1)), (250, 250));
        assert_eq!(outcome.texts(), [TEXT]);
        assert_eq!(
            outcome.commands(),
            [
                "MAIL FROM:<ann@example.org>",
                "RCPT TO:<bob@example.net>",
                "RCPT TO:<cat@example.net>",
                "DATA"
            ]
        );
        assert!(outcome.connection.is_usable() && outcome.connection.is_used());
    }
}

#[tokio::test]
async fn each_recipient_has_an_outcome_of_its_own() {
    for offers in both() {
        let script = Script::default()
            .on("RCPT TO:<bad@", &[Act::Say("550 5.1.1 no such user")])
            .on("RCPT TO:<busy@", &[Act::Say("450 4.2.1 busy")]);
        let envelope = envelope_to(&["bad@x.org", "good@x.org", "busy@x.org", "no address"]);
        let outcome = go(script, offers, &envelope, TEXT).await;
        assert_eq!(outcome.transacted.end, End::InStep);
        assert_eq!(
            [outcome.code(0), outcome.code(1), outcome.code(2), outcome.code(3)],
            [550, 250, 450, 0]
        );
        assert_eq!(outcome.transacted.outcomes.len(), 4);
        assert_eq!(outcome.texts().len(), 1);
    }
}

#[tokio::test]
async fn nobody_left_means_no_text_and_a_reset_before_the_next() {
    for offers in both() {
        let script = Script::default()
            .on("RCPT TO:<bad@", &[Act::Say("550 5.1.1 no such user")])
            .on("DATA", &[Act::Say("554 5.5.1 no valid recipients"), Act::Say("354 go")]);
        let script = if offers.pipelining {
            script
        } else {
            Script::default().on("RCPT TO:<bad@", &[Act::Say("550 5.1.1 no such user")])
        };
        let mut outcome = go(script, offers, &envelope_to(&["bad@x.org"]), TEXT).await;
        assert_eq!(outcome.transacted.end, End::InStep);
        assert_eq!(outcome.code(0), 550);
        assert_eq!(outcome.texts().len(), 0);
        let next = again(&mut outcome.connection, &envelope_to(&["good@x.org"]), TEXT).await;
        assert!(matches!(next.outcomes[0].1, Sent::Delivered(_)), "{next:?}");
        let commands = outcome.commands();
        assert_eq!(commands.iter().filter(|command| *command == "RSET").count(), 1);
        assert_eq!(outcome.texts().len(), 1);
    }
}

#[tokio::test]
async fn a_354_without_recipients_gets_the_lone_dot() {
    let script = Script::default()
        .on("RCPT", &[Act::Say("550 5.1.1 no such user")])
        .on(".", &[Act::Say("554 5.5.1 no valid recipients")]);
    let outcome = go(script, pipelining(), &envelope_to(&["bad@x.org"]), TEXT).await;
    assert_eq!(outcome.transacted.end, End::InStep);
    assert_eq!(outcome.code(0), 550);
    assert_eq!(outcome.texts(), [""]);
    assert!(outcome.connection.is_usable());
}

#[tokio::test]
async fn a_refused_sender_refuses_the_message() {
    for offers in both() {
        let script = Script::default()
            .on("MAIL", &[Act::Say("550 5.7.1 not you")])
            .on("RCPT", &[Act::Say("503 5.5.1 MAIL first")])
            .on("DATA", &[Act::Say("503 5.5.1 MAIL first")]);
        let envelope = envelope_to(&["a@x.org", "b@x.org"]);
        let outcome = go(script, offers, &envelope, TEXT).await;
        assert_eq!(outcome.transacted.end, End::InStep);
        assert_eq!((outcome.code(0), outcome.code(1)), (550, 550));
        assert!(outcome.connection.is_usable());
    }
}

#[tokio::test]
async fn data_refused_refuses_who_was_accepted() {
    for offers in both() {
        let script = Script::default()
            .on("RCPT TO:<bad@", &[Act::Say("550 5.1.1 no such user")])
            .on("DATA", &[Act::Say("451 4.3.0 not now")]);
        let envelope = envelope_to(&["bad@x.org", "b@x.org"]);
        let outcome = go(script, offers, &envelope, TEXT).await;
        assert_eq!(outcome.transacted.end, End::InStep);
        assert_eq!((outcome.code(0), outcome.code(1)), (550, 451));
    }
}

#[tokio::test]
async fn the_final_reply_decides_for_all() {
    for offers in both() {
        let script = Script::default().on(".", &[Act::Say("554 5.6.0 spam")]);
        let envelope = envelope_to(&["a@x.org", "b@x.org"]);
        let outcome = go(script, offers, &envelope, TEXT).await;
        assert_eq!(outcome.transacted.end, End::InStep);
        assert_eq!((outcome.code(0), outcome.code(1)), (554, 554));
        assert!(outcome.connection.is_usable());
    }
}

#[tokio::test]
async fn a_lost_final_reply_is_in_doubt() {
    for offers in both() {
        for act in [Act::Close, Act::Hang, Act::Say("what?"), Act::Say("354 again")] {
            let script = Script::default()
                .on("RCPT TO:<bad@", &[Act::Say("550 5.1.1 no such user")])
                .on(".", &[act]);
            let envelope = envelope_to(&["bad@x.org", "b@x.org"]);
            let outcome = go(script, offers.clone(), &envelope, TEXT).await;
            assert!(matches!(outcome.transacted.end, End::InDoubt(_)), "{act:?}");
            assert_eq!((outcome.code(0), outcome.code(1)), (550, 0));
            assert_eq!(outcome.transacted.outcomes.len(), 1);
            assert!(!outcome.connection.is_usable());
        }
    }
}

#[tokio::test]
async fn a_connection_lost_before_the_dot_is_not_in_doubt() {
    for offers in both() {
        for phase in ["MAIL", "RCPT", "DATA"] {
            for act in [Act::Close, Act::Hang, Act::Say("garbage"), Act::SayClose("421 4.3.2 bye")]
            {
                let script = Script::default().on(phase, &[act]);
                let outcome = go(script, offers.clone(), &envelope_to(&["b@x.org"]), TEXT).await;
                let End::Broken(failure) = &outcome.transacted.end else {
                    panic!("{phase} {act:?}: {:?}", outcome.transacted);
                };
                assert!(failure.verdict.is_lane_trouble(), "{phase} {act:?}");
                assert!(outcome.transacted.outcomes.is_empty());
                assert!(!outcome.connection.is_usable());
                assert_eq!(outcome.texts().len(), 0);
            }
        }
    }
}

#[tokio::test]
async fn what_was_refused_before_the_connection_broke_stays_refused() {
    for offers in both() {
        let script = Script::default()
            .on("RCPT TO:<bad@", &[Act::Say("550 5.1.1 no such user")])
            .on("RCPT TO:<b@", &[Act::Close]);
        let envelope = envelope_to(&["bad@x.org", "b@x.org"]);
        let outcome = go(script, offers, &envelope, TEXT).await;
        assert!(matches!(outcome.transacted.end, End::Broken(_)));
        assert_eq!(outcome.code(0), 550);
        assert_eq!(outcome.transacted.outcomes.len(), 1);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_nothing() {
    for offers in both() {
        for act in [Act::Close, Act::SayClose("421 4.4.2 idle too long")] {
            let script = Script::default().on("MAIL", &[Act::Say("250 ok"), act]);
            let envelope = envelope_to(&["b@x.org"]);
            let mut outcome = go(script, offers.clone(), &envelope, TEXT).await;
            assert_eq!(outcome.transacted.end, End::InStep);
            let next = again(&mut outcome.connection, &envelope, TEXT).await;
            assert_eq!(next, Transacted { outcomes: vec![], end: End::Stale }, "{act:?}");
            assert!(!outcome.connection.is_usable());
        }
    }
}

#[tokio::test]
async fn too_many_recipients_wait_for_the_next_transaction() {
    for offers in both() {
        let script = Script::default()
            .on("RCPT", &[Act::Say("250 ok"), Act::Say("452 4.5.3 too many recipients")]);
        let envelope = envelope_to(&["a@x.org", "b@x.org", "c@x.org"]);
        let outcome = go(script, offers, &envelope, TEXT).await;
        assert_eq!((outcome.code(0), outcome.code(1), outcome.code(2)), (250, 452, 452));
        for (_, sent) in &outcome.transacted.outcomes {
            if let Sent::Refused(failure) = sent {
                assert_eq!(failure.verdict.cause, Cause::TooManyRecipients);
            }
        }
    }
}

#[tokio::test]
async fn parameters_are_sent_only_where_offered() {
    let mut envelope = envelope_to(&["bob@example.net"]);
    envelope.body = BodyKind::EightBit;
    envelope.envid = "id+1".to_owned();
    envelope.ret = Some(crate::spool::DsnReturn::Headers);
    envelope.recipients[0].notify =
        Some(DsnNotify { success: true, failure: true, ..DsnNotify::default() });
    let text = "Subject: x\r\n\r\ngr\u{fc}n\r\n";

    let bare = go(Script::default(), Capabilities::default(), &envelope, text).await;
    assert_eq!(bare.commands()[..2], ["MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>"]);
    assert_eq!(bare.texts(), ["Subject: x\r\n\r\ngr?n\r\n"]);

    let offers = Capabilities {
        eight_bit_mime: true,
        smtp_utf8: true,
        dsn: true,
        size: SizeLimit::Bytes(1000),
        ..Capabilities::default()
    };
    envelope.smtputf8 = true;
    let rich = go(Script::default(), offers, &envelope, text).await;
    assert_eq!(
        rich.commands()[..2],
        [
            "MAIL FROM:<ann@example.org> SIZE=21 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1",
            "RCPT TO:<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.net"
        ]
    );
    assert_eq!(rich.texts(), [text]);
}

#[tokio::test]
async fn what_the_server_cannot_take_is_refused_without_asking() {
    let small = Capabilities { size: SizeLimit::Bytes(5), ..pipelining() };
    let outcome = go(Script::default(), small, &envelope_to(&["b@x.org"]), TEXT).await;
    let (_, Sent::Refused(failure)) = &outcome.transacted.outcomes[0] else { panic!() };
    assert_eq!(failure.reply.enhanced, "5.3.4");
    assert!(failure.verdict.fails_recipients());

    let mut envelope = envelope_to(&["b\u{fc}b@x.org"]);
    envelope.smtputf8 = true;
    let utf8 = go(Script::default(), pipelining(), &envelope, TEXT).await;
    let (_, Sent::Refused(failure)) = &utf8.transacted.outcomes[0] else { panic!() };
    assert_eq!(failure.reply.enhanced, "5.6.7");

    let mut envelope = envelope_to(&["b@x.org"]);
    envelope.from = "ann\r\nRCPT TO:<evil@x.org>@x.org".to_owned();
    let injected = go(Script::default(), pipelining(), &envelope, TEXT).await;
    let (_, Sent::Refused(failure)) = &injected.transacted.outcomes[0] else { panic!() };
    assert_eq!(failure.reply.enhanced, "5.1.7");
    for outcome in [outcome, utf8, injected] {
        assert!(outcome.commands().is_empty());
        assert!(outcome.connection.is_usable());
    }
}

#[tokio::test]
async fn the_null_sender_stays_null() {
    let mut envelope = envelope_to(&["b@x.org"]);
    envelope.from = String::new();
    let outcome = go(Script::default(), pipelining(), &envelope, TEXT).await;
    assert_eq!(outcome.commands()[0], "MAIL FROM:<>");
}

struct Damaged {
    good: usize,
    kind: std::io::ErrorKind,
}

#[async_trait]
impl TextSource for Damaged {
    async fn open(&self, _: TextForm) -> Result<Pin<Box<dyn AsyncRead + Send>>, TextError> {
        use tokio::io::AsyncReadExt;
        let bad =
            tokio_util::io::StreamReader::new(futures_util::stream::iter([
                Err::<bytes::Bytes, _>(std::io::Error::new(self.kind, "digest")),
            ]));
        let good = std::io::Cursor::new(b"line of a text\r\n".repeat(self.good));
        Ok(Box::pin(good.chain(bad)))
    }
}

#[tokio::test]
async fn a_damaged_text_never_reaches_its_final_dot() {
    for good in [0, 10, 20_000] {
        for (kind, permanence) in [
            (std::io::ErrorKind::InvalidData, Permanence::Permanent),
            (std::io::ErrorKind::Other, Permanence::Temporary),
        ] {
            let (mut connection, heard) = connect(Script::default(), pipelining());
            let envelope = envelope_to(&["b@x.org"]);
            let source = Damaged { good, kind };
            let work = Work {
                entry: &entry(1),
                follow: None,
                envelope: &envelope,
                recipients: &[0],
                size: 10,
                text: &source,
                journal: &Unjournalled,
            };
            let transacted = transact(&mut connection, &work, &Progress::default()).await;
            let (_, Sent::Refused(failure)) = &transacted.outcomes[0] else { panic!() };
            assert_eq!(failure.verdict.permanence, permanence);
            assert_eq!(failure.verdict.scope, Scope::Message);
            assert!(!connection.is_usable());
            drop(connection);
            assert!(heard.lock().unwrap().texts.is_empty());
        }
    }
}

/// A text that stops in its middle until the test lets it go on.
struct Halting {
    gate: Arc<tokio::sync::Semaphore>,
    reached: Arc<tokio::sync::Notify>,
}

#[async_trait]
impl TextSource for Halting {
    async fn open(&self, _: TextForm) -> Result<Pin<Box<dyn AsyncRead + Send>>, TextError> {
        let (gate, reached) = (Arc::clone(&self.gate), Arc::clone(&self.reached));
        let chunks = futures_util::stream::unfold(0, move |n| {
            let (gate, reached) = (Arc::clone(&gate), Arc::clone(&reached));
            async move {
                if n == 40 {
                    reached.notify_one();
                    drop(gate.acquire().await);
                }
                let chunk = bytes::Bytes::from(b"line of text\r\n".repeat(400));
                (n < 80).then_some((Ok::<_, std::io::Error>(chunk), n + 1))
            }
        });
        Ok(Box::pin(tokio_util::io::StreamReader::new(Box::pin(chunks))))
    }
}

/// Proves: TN-14
#[tokio::test]
async fn stopped_in_the_middle_of_the_text_the_server_gets_no_message() {
    let (mut connection, heard) = connect(Script::default(), pipelining());
    let envelope = envelope_to(&["b@x.org"]);
    let reached = Arc::new(tokio::sync::Notify::new());
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let source = Halting { gate, reached: Arc::clone(&reached) };
    let progress = Arc::new(Progress::default());
    let task = tokio::spawn({
        let progress = Arc::clone(&progress);
        async move {
            let work = Work {
                entry: &entry(1),
                follow: None,
                envelope: &envelope,
                recipients: &[0],
                size: 1,
                text: &source,
                journal: &Unjournalled,
            };
            let transacted = transact(&mut connection, &work, &progress).await;
            (transacted, connection.is_usable())
        }
    });
    reached.notified().await;
    assert_eq!(progress.stop(), Ok(()));
    let (transacted, usable) = tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .expect("a stop does not wait for the server")
        .unwrap();
    assert_eq!(transacted, Transacted { outcomes: vec![], end: End::Stopped });
    assert!(!usable);
    let heard = heard.lock().unwrap();
    assert!(heard.texts.is_empty() && heard.commands.contains(&"DATA".to_owned()));
}

#[tokio::test]
async fn a_cut_behind_the_final_dot_is_in_doubt() {
    let script = Script::default().on(".", &[Act::Hang]);
    let (mut connection, heard) = connect(script, pipelining());
    let progress = Arc::new(Progress::default());
    let task = tokio::spawn({
        let progress = Arc::clone(&progress);
        async move {
            let envelope = envelope_to(&["b@x.org"]);
            let text = Text(TEXT.to_owned());
            let work = Work {
                entry: &entry(1),
                follow: None,
                envelope: &envelope,
                recipients: &[0],
                size: 1,
                text: &text,
                journal: &Unjournalled,
            };
            transact(&mut connection, &work, &progress).await
        }
    });
    while heard.lock().unwrap().texts.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(progress.stop(), Err(Stage::DotOut));
    progress.cut();
    let transacted = tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    assert!(matches!(transacted.end, End::InDoubt(_)), "{transacted:?}");
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_the_text_is_heard() {
    let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
    let deadlines = crate::transport::outbound::testing::short_deadlines();
    let mut connection = Connection::new(Box::new(ours), "mx", pipelining(), deadlines);
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        theirs.write_all(b"250 a\r\n250 b\r\n354 c\r\n552 5.3.4 too big\r\n").await.unwrap();
        let mut some = vec![0; 8 * 1024];
        theirs.read_exact(&mut some).await.unwrap();
    });
    let text = "x".repeat(100) + "\r\n";
    let transacted = again(&mut connection, &envelope_to(&["b@x.org"]), &text.repeat(2000)).await;
    server.await.unwrap();
    let (_, Sent::Refused(failure)) = &transacted.outcomes[0] else { panic!("{transacted:?}") };
    assert_eq!(failure.reply.code, 552);
    assert!(failure.verdict.fails_recipients());
    assert!(matches!(transacted.end, End::Broken(_)));
}
