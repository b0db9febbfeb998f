//! Opening SMTP connections.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{NetErrorKind, Phase, Stream, TlsMode, TlsReason, Trust, tls};
use super::peer::{Flaw, Step, identity, peer};
use super::{connector, plain};

async fn kind_of(script: Vec<Step>) -> NetErrorKind {
    let peer = peer(script, None).await;
    plain(peer.port).smtp_open("client").await.unwrap_err().kind
}

async fn read_line(stream: &mut Stream) -> String {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.unwrap() {
            b'\n' => return String::from_utf8(line).unwrap(),
            byte => line.push(byte),
        }
    }
}

#[tokio::test]
async fn the_greeting_is_read_once_more_by_whoever_gets_the_stream() {
    let script = vec![
        Step::Say("220-one\r\n220 two\r\n"),
        Step::Hear("EHLO me"),
        Step::Say("250 fine\r\n"),
        Step::Hang,
    ];
    let peer = peer(script, None).await;
    let mut opened = plain(peer.port).smtp_open("client").await.unwrap();
    assert_eq!(opened.greeting, ["one", "two"]);
    assert_eq!(read_line(&mut opened.stream).await, "220-one\r");
    assert_eq!(read_line(&mut opened.stream).await, "220 two\r");
    opened.stream.write_all(b"EHLO me\r\n").await.unwrap();
    assert_eq!(read_line(&mut opened.stream).await, "250 fine\r");
}

#[tokio::test]
async fn starttls_hands_on_a_stream_that_begins_with_the_greeting() {
    let identity = identity(Flaw::None);
    let script = vec![
        Step::Say("220 hello\r\n"),
        Step::Hear("EHLO client"),
        Step::Say("250-here\r\n250-SIZE 1000\r\n250 StartTLS\r\n"),
        Step::Hear("STARTTLS"),
        Step::Say("220 go on\r\n"),
        Step::Tls,
        Step::Hear("EHLO again"),
        Step::Say("250 under TLS\r\n"),
    ];
    let peer = peer(script, Some(identity.acceptor.clone())).await;
    let trust = Trust::Fingerprint(tls::fingerprint(&identity.certificate));
    let connector = connector(peer.port, TlsMode::StartTls, trust);
    let mut opened = connector.smtp_open("client").await.unwrap();
    assert!(opened.stream.is_encrypted());
    assert!(opened.stream.protection().unwrap().contains("TLS"), "{:?}", opened.stream);
    assert_eq!(read_line(&mut opened.stream).await, "220 hello\r");
    opened.stream.write_all(b"EHLO again\r\n").await.unwrap();
    assert_eq!(read_line(&mut opened.stream).await, "250 under TLS\r");
}

/// RFC 3207 section 4.2 and the reply injection of 2021: what comes in clear behind the 220 must
/// not be taken for the first words under TLS.
#[tokio::test]
async fn anything_in_clear_behind_the_starttls_reply_is_refused() {
    let identity = identity(Flaw::None);
    let script =
        vec![Step::Say("220 hello\r\n"), Step::Hear("EHLO client"), Step::Say("250 STARTTLS\r\n")];
    // A lone 250 STARTTLS line is the server's name, not an offer.
    let alone = peer(script, Some(identity.acceptor.clone())).await;
    let trust = Trust::Fingerprint(tls::fingerprint(&identity.certificate));
    let error = connector(alone.port, TlsMode::StartTls, trust.clone()).smtp_open("client").await;
    assert_eq!(error.unwrap_err().kind, NetErrorKind::StartTlsNotOffered);

    let script = vec![
        Step::Say("220 hello\r\n"),
        Step::Hear("EHLO client"),
        Step::Say("250-me\r\n250 STARTTLS\r\n"),
        Step::Hear("STARTTLS"),
        Step::Say("220 go on\r\n250-me\r\n250 AUTH PLAIN\r\n"),
        Step::Tls,
        Step::Hang,
    ];
    let injecting = peer(script, Some(identity.acceptor.clone())).await;
    let error = connector(injecting.port, TlsMode::StartTls, trust).smtp_open("client").await;
    assert_eq!(error.unwrap_err().kind, NetErrorKind::EarlyPlaintext);
}

#[tokio::test]
async fn there_is_no_way_around_starttls() {
    let cases: [(&str, &[Step], NetErrorKind); 7] = [
        ("not offered", &[Step::Say("250-me\r\n250 SIZE\r\n")], NetErrorKind::StartTlsNotOffered),
        ("no EHLO", &[Step::Say("502 what\r\n")], NetErrorKind::StartTlsNotOffered),
        (
            "refused",
            &[
                Step::Say("250-me\r\n250 STARTTLS\r\n"),
                Step::Hear("STARTTLS"),
                Step::Say("502 no\r\n"),
            ],
            NetErrorKind::StartTlsRefused,
        ),
        (
            "refused for now",
            &[
                Step::Say("250-me\r\n250 STARTTLS\r\n"),
                Step::Hear("STARTTLS"),
                Step::Say("454 not now\r\n"),
            ],
            NetErrorKind::Tls(TlsReason::Other),
        ),
        (
            "closing",
            &[
                Step::Say("250-me\r\n250 STARTTLS\r\n"),
                Step::Hear("STARTTLS"),
                Step::Say("421 not now\r\n"),
            ],
            NetErrorKind::Unavailable,
        ),
        ("EHLO refused for now", &[Step::Say("451 later\r\n")], NetErrorKind::Unavailable),
        ("EHLO refused", &[Step::Say("550 not you\r\n")], NetErrorKind::Rejected),
    ];
    for (name, rest, wanted) in cases {
        let mut script = vec![Step::Say("220 hello\r\n"), Step::Hear("EHLO client")];
        script.extend_from_slice(rest);
        script.push(Step::Hang);
        let peer = peer(script, None).await;
        let trust = Trust::Fingerprint(super::super::Fingerprint([0; 32]));
        let error = connector(peer.port, TlsMode::StartTls, trust).smtp_open("client").await;
        assert_eq!(error.unwrap_err().kind, wanted, "{name}");
    }
}

#[tokio::test]
async fn greetings_that_are_none_are_told_apart() {
    let cases: [(&'static str, NetErrorKind); 7] = [
        ("421 too busy\r\n", NetErrorKind::Unavailable),
        ("554 go away\r\n", NetErrorKind::Rejected),
        ("250 what\r\n", NetErrorKind::Protocol),
        ("* OK IMAP4rev1\r\n", NetErrorKind::Protocol),
        ("220-one\r\n221 two\r\n", NetErrorKind::Protocol),
        ("2\u{b2}0 odd digits\r\n", NetErrorKind::Protocol),
        ("\r\n", NetErrorKind::Protocol),
    ];
    for (greeting, wanted) in cases {
        assert_eq!(kind_of(vec![Step::Say(greeting), Step::Hang]).await, wanted, "{greeting:?}");
    }
}

#[tokio::test]
async fn silence_closing_and_reset_are_told_apart() {
    let silent = kind_of(vec![Step::Hang]).await;
    assert_eq!(silent, NetErrorKind::Timeout(Phase::Greeting));
    assert_eq!(kind_of(vec![]).await, NetErrorKind::Closed);
    assert_eq!(kind_of(vec![Step::Reset]).await, NetErrorKind::Closed);
    assert_eq!(kind_of(vec![Step::Say("220 half a line")]).await, NetErrorKind::Closed);
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = plain(gone).smtp_open("client").await.unwrap_err();
    assert_eq!(error.kind, NetErrorKind::Refused);
    assert!(error.to_string().contains(&format!("localhost:{gone}")), "{error}");
}

#[tokio::test]
async fn floods_end() {
    let endless_line = kind_of(vec![Step::Flood("2222222222222222")]).await;
    assert_eq!(endless_line, NetErrorKind::Protocol);
    let endless_reply = kind_of(vec![Step::Flood("220-more\r\n")]).await;
    assert_eq!(endless_reply, NetErrorKind::Protocol);
}
