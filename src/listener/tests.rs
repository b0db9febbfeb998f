//! Dialogues with a client that is scripted, over a service that only remembers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use secrecy::SecretString;
use smtp_proto::request::receiver::DataReceiver;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::content::{BareNewline, DotDecoder, NewlineCheck, Step};
use super::server::Context;
use super::session::Session;
use super::settings::{ListenLogin, ListenSettings};
use crate::clock::SystemClock;
use crate::control::fake::FakeService;
use crate::mapi::MapiCode;
use crate::spi::{SecretError, SecretSource};

/// A client and what the service was given.
struct Client {
    stream: DuplexStream,
    fake: Arc<FakeService>,
    ending: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

const PATIENCE: Duration = Duration::from_secs(20);

fn client_of(fake: FakeService, settings: ListenSettings) -> Client {
    let (stream, theirs) = tokio::io::duplex(1 << 20);
    let fake = Arc::new(fake);
    let context = Context {
        service: Arc::clone(&fake) as _,
        settings,
        clock: Arc::new(SystemClock),
        host: "here".to_owned(),
    };
    let ending = CancellationToken::new();
    let session = Session::new(theirs, Arc::new(context));
    let served = tokio::spawn(session.run(ending.clone()));
    Client { stream, fake, ending, served }
}

fn client() -> Client {
    client_of(FakeService::default(), ListenSettings::default())
}

impl Client {
    /// Sends everything, ends its side and returns the codes of all replies.
    async fn says(mut self, octets: &[u8]) -> (Vec<String>, Arc<FakeService>) {
        self.stream.write_all(octets).await.unwrap();
        self.stream.shutdown().await.unwrap();
        let mut replies = String::new();
        let all = self.stream.read_to_string(&mut replies);
        tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
        self.served.await.unwrap();
        let last_lines = replies.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
        let codes = last_lines.map(|line| line[..3].to_owned()).collect();
        (codes, self.fake)
    }
}

fn script(content: &str) -> Vec<u8> {
    format!(
        "EHLO me\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n{content}"
    )
    .into_bytes()
}

/// What the service has, without the trace field.
fn stored(fake: &FakeService) -> Vec<String> {
    let raw = fake.raw.lock().unwrap();
    let contents = raw.iter().map(|(_, octets)| {
        let text = String::from_utf8(octets.clone()).unwrap();
        assert!(text.starts_with("Received: from me\r\n\tby here with ESMTP"), "{text}");
        text.splitn(4, "\r\n").last().unwrap_or_default().to_owned()
    });
    contents.collect()
}

#[tokio::test]
async fn a_pipelined_message_is_stored_as_it_is_meant() {
    let content = "Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
    let (codes, fake) = client().says(&script(content)).await;
    assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "221"]);
    assert_eq!(stored(&fake), ["Subject: x\r\n\r\n.dot\r\n"]);
    let envelope = fake.raw.lock().unwrap().first().unwrap().0.clone();
    assert_eq!(envelope.from.as_deref(), Some("ann@example.org"));
    assert_eq!(envelope.recipients, ["bob@example.net"]);
    assert!(!envelope.recipients_from_header);
}

#[tokio::test]
async fn a_message_that_is_cut_off_leaves_nothing() {
    let large = format!("Subject: x\r\n\r\n{}", "0123456789\r\n".repeat(100_000));
    for content in ["Subject: x\r\n\r\nhalf", large.as_str()] {
        let (codes, fake) = client().says(&script(content)).await;
        assert_eq!(codes, ["220", "250", "250", "250", "354"]);
        assert!(fake.raw.lock().unwrap().is_empty());
    }
}

/// A client that sends one octet now and then is never silent, and gets rid of all the same.
#[tokio::test(start_paused = true)]
async fn a_client_that_dribbles_is_sent_away() {
    let dialogues =
        ["EHL", "EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"];
    for begun in dialogues {
        let mut client = client();
        client.stream.write_all(begun.as_bytes()).await.unwrap();
        let began = tokio::time::Instant::now();
        while client.stream.write_all(b"x").await.is_ok() && !client.served.is_finished() {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(began.elapsed() < Duration::from_secs(20 * 60), "{begun:?}");
        }
        let mut replies = String::new();
        client.stream.read_to_string(&mut replies).await.unwrap();
        assert!(replies.lines().last().unwrap().starts_with("421"), "{replies}");
        assert!(client.fake.raw.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_large_message_flows_through() {
    let body = "0123456789\r\n".repeat(200_000);
    let content = format!("Subject: x\r\n\r\n{body}.\r\nQUIT\r\n");
    let (codes, fake) = client().says(&script(&content)).await;
    assert_eq!(codes.last().unwrap(), "221");
    assert_eq!(stored(&fake), [format!("Subject: x\r\n\r\n{body}")]);
}

#[tokio::test]
async fn bare_line_ends_are_refused_and_smuggle_nothing() {
    for hidden in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\r.\r", "\n.\r"] {
        let content = format!(
            "Subject: x\r\n\r\nhello{hidden}MAIL FROM:<eve@evil.example>\r\n\
             RCPT TO:<all@example.org>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n"
        );
        let (codes, fake) = client().says(&script(&content)).await;
        assert_eq!(codes, ["220", "250", "250", "250", "354", "550", "221"], "{hidden:?}");
        assert!(fake.raw.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn chunks_make_one_message_and_nothing_is_stuffed() {
    let head = "EHLO me\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n";
    let chunked =
        format!("{head}BDAT 14\r\nSubject: x\r\n\r\nBDAT 9 LAST\r\n..dot\r\n\r\nQUIT\r\n");
    let (codes, fake) = client().says(chunked.as_bytes()).await;
    assert_eq!(codes, ["220", "250", "250", "250", "250", "250", "221"]);
    assert_eq!(stored(&fake), ["Subject: x\r\n\r\n..dot\r\n\r\n"]);

    let bare = format!("{head}BDAT 16 LAST\r\nSubject: x\r\n\r\ny\nQUIT\r\n");
    let (codes, fake) = client().says(bare.as_bytes()).await;
    assert_eq!(codes, ["220", "250", "250", "250", "550", "221"]);
    assert!(fake.raw.lock().unwrap().is_empty());

    // The chunk of a refused BDAT is no command.
    let early = "EHLO me\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\nQUIT\r\n";
    let (codes, _) = client().says(early.as_bytes()).await;
    assert_eq!(codes, ["220", "250", "503", "250", "221"]);
}

#[tokio::test]
async fn commands_out_of_order_change_nothing() {
    let dialogue = "MAIL FROM:<a@b.example>\r\nEHLO me\r\nRCPT TO:<a@b.example>\r\nDATA\r\n\
                    MAIL FROM:<a@b.example>\r\nDATA\r\nMAIL FROM:<c@b.example>\r\nRSET\r\n\
                    RCPT TO:<a@b.example>\r\nAUTH PLAIN x\r\nVRFY x\r\nFOO\r\nQUIT\r\n";
    let (codes, fake) = client().says(dialogue.as_bytes()).await;
    assert_eq!(
        codes,
        [
            "220", "503", "250", "503", "503", "250", "554", "503", "250", "503", "502", "252",
            "500", "221"
        ]
    );
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn what_the_store_answers_becomes_a_reply() {
    for (code, reply) in [
        (MapiCode::NOT_ENOUGH_DISK, "452"),
        (MapiCode::TOO_BIG, "552"),
        (MapiCode::CORRUPT_DATA, "554"),
        (MapiCode::DISK_ERROR, "451"),
    ] {
        let fake = FakeService::failing(code, "no\r\n250 yes");
        let client = client_of(fake, ListenSettings::default());
        let (codes, _) = client.says(&script("Subject: x\r\n\r\n.\r\nQUIT\r\n")).await;
        assert_eq!(codes, ["220", "250", "250", "250", "354", reply, "221"]);
    }
}

#[tokio::test]
async fn too_much_is_refused_and_far_too_much_cut_off() {
    let settings = ListenSettings { size: 1000, ..ListenSettings::default() };
    let content = format!("{}\r\n.\r\nQUIT\r\n", "x".repeat(1500));
    let (codes, fake) =
        client_of(FakeService::default(), settings.clone()).says(&script(&content)).await;
    assert_eq!(codes, ["220", "250", "250", "250", "354", "552", "221"]);
    assert!(fake.calls().is_empty());
    let endless = "x".repeat(100_000);
    let (codes, _) = client_of(FakeService::default(), settings).says(&script(&endless)).await;
    assert_eq!(codes, ["220", "250", "250", "250", "354", "552"]);
}

#[tokio::test]
async fn a_client_that_talks_nonsense_is_sent_away() {
    let (codes, _) = client().says("FOO\r\n".repeat(100).as_bytes()).await;
    assert_eq!(codes.len(), 1 + 21 + 1);
    assert_eq!(codes.last().unwrap(), "421");
    let long = format!("{}\r\nNOOP\nQUIT\r\n", "x".repeat(100_000));
    let (codes, _) = client().says(long.as_bytes()).await;
    assert_eq!(codes, ["220", "500", "500", "221"]);
}

#[tokio::test]
async fn the_end_of_the_service_is_told_between_commands() {
    let mut client = client();
    client.stream.write_all(b"EHLO me\r\n").await.unwrap();
    let mut replies = Vec::new();
    while !String::from_utf8_lossy(&replies).contains("250 ") {
        client.stream.read_buf(&mut replies).await.unwrap();
    }
    client.ending.cancel();
    let mut rest = String::new();
    client.stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("421 4.3.2"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_told_and_let_go() {
    let mut client = client();
    let mut replies = String::new();
    client.stream.read_to_string(&mut replies).await.unwrap();
    assert!(replies.lines().last().unwrap().starts_with("421"), "{replies}");
}

struct Known;

#[async_trait]
impl SecretSource for Known {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        Ok(SecretString::from("secret"))
    }
}

#[tokio::test]
async fn where_a_login_is_asked_for_nobody_sends_without() {
    let settings = || ListenSettings {
        login: Some(ListenLogin { user: "ann".to_owned(), password: Arc::new(Known) }),
        ..ListenSettings::default()
    };
    let client = || client_of(FakeService::default(), settings());
    let (codes, _) = client().says(b"EHLO me\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n").await;
    assert_eq!(codes, ["220", "250", "530", "221"]);
    // PLAIN at once and in two steps, LOGIN, given up, wrong.
    for (dialogue, reply) in [
        ("AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", vec!["235"]),
        ("AUTH PLAIN\r\nAGFubgBzZWNyZXQ=\r\n", vec!["334", "235"]),
        ("AUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n", vec!["334", "334", "235"]),
        ("AUTH LOGIN\r\n*\r\n", vec!["334", "501"]),
        ("AUTH PLAIN AGFubgB3cm9uZw==\r\n", vec!["535"]),
        ("AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n", vec!["535"]),
    ] {
        let dialogue = format!("EHLO me\r\n{dialogue}MAIL FROM:<a@b.example>\r\nQUIT\r\n");
        let (codes, _) = client().says(dialogue.as_bytes()).await;
        let after = if reply.last() == Some(&"235") { "250" } else { "530" };
        let wanted: Vec<&str> =
            ["220", "250"].into_iter().chain(reply).chain([after, "221"]).collect();
        assert_eq!(codes, wanted, "{dialogue}");
    }
    let guesses = "AUTH PLAIN AGFubgB3cm9uZw==\r\n".repeat(5);
    let (codes, _) = client().says(format!("EHLO me\r\n{guesses}").as_bytes()).await;
    assert_eq!(codes, ["220", "250", "535", "535", "421"]);
}

/// Decodes in pieces of `size`.
fn decode(input: &[u8], size: usize) -> Option<(Vec<u8>, usize, Option<BareNewline>)> {
    let (mut dots, mut out, mut before) = (DotDecoder::new(), Vec::new(), 0);
    for piece in input.chunks(size) {
        match dots.push(piece, &mut out) {
            Step::More => before += piece.len(),
            Step::End { used } => return Some((out, before + used, dots.bare_newline())),
        }
    }
    None
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let parts =
        prop::sample::select(vec![&b"\r\n"[..], b".", b"x", b"\r\n.\r\n", b"..", b"abc\r\n"]);
    let broken = prop::sample::select(vec![&b"\r\n"[..], b".", b"x", b"\r", b"\n", b"\r\n.\r\n"]);
    prop_oneof![
        prop::collection::vec(parts, 0..40).prop_map(|parts| parts.concat()),
        prop::collection::vec(broken, 0..40).prop_map(|parts| parts.concat()),
    ]
}

proptest! {
    /// The decoder agrees with another implementation wherever lines end as they should.
    #[test]
    fn the_decoder_agrees_with_another(input in pieces(), size in 1_usize..9) {
        let decoded = decode(&input, size);
        prop_assert_eq!(&decoded, &decode(&input, usize::MAX), "pieces make no difference");
        let mut other = DataReceiver::new();
        let mut theirs = Vec::new();
        // It has to be told that the content begins with a line.
        other.ingest(&mut b"\r\n".iter(), &mut theirs);
        let mut rest = input.iter();
        let ended = other.ingest(&mut rest, &mut theirs);
        let used = input.len() - rest.as_slice().len();
        match decoded {
            Some((ours, at, None)) => {
                prop_assert!(ended);
                prop_assert_eq!(at, used);
                prop_assert_eq!(&ours, &theirs[2..]);
            }
            // Where a line end is broken nothing is stored, so what it means does not matter.
            Some((_, _, Some(_))) => {}
            None => {
                let mut newlines = NewlineCheck::default();
                newlines.push(&input);
                prop_assert!(!ended || newlines.finish().is_some());
            }
        }
    }
}
