//! SMTP as clients see it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use postoffice::{
    AuthPolicy, BareNewlines, BodyType, Listener, Notify, PostOffice, Protocol, Ret, SmtpExtension,
    UnknownRecipients, ViolationKind,
};
use support::{Client, SOON};

const HEAD: &str = "From: sender@example.org\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n";

fn message(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

async fn ready(office: &PostOffice) -> Client {
    let mut client = Client::plain(office.address(Listener::Smtp)).await;
    client.hello().await;
    client
}

#[tokio::test]
async fn a_message_is_recorded_and_lies_in_the_mailbox_byte_for_byte() {
    let office = PostOffice::builder().user("ann", "secret").start().await.unwrap();
    let mut client = ready(&office).await;
    let sent = message("Subject: dots\r\n\r\n..\r\n..two\r\nend\r\n");
    let stuffed = message("Subject: dots\r\n\r\n...\r\n...two\r\nend\r\n");
    assert!(client.submit("ann@example.org", &stuffed).await.starts_with("250 2.0.0"));
    client.expect("QUIT", "221").await;
    let accepted = office.wait_accepted(1, SOON).await.unwrap();
    assert_eq!(accepted[0].body.text(), sent);
    assert_eq!(accepted[0].recipients(), ["ann@example.org"]);
    assert_eq!(accepted[0].envelope.from, "sender@example.org");
    assert_eq!(accepted[0].envelope.helo, "client.example");
    assert!(!accepted[0].envelope.tls);
    let inbox = office.wait_messages("ann", "INBOX", 1, SOON).await.unwrap();
    assert_eq!(&*inbox[0].bytes, sent.as_bytes());
    assert_eq!(office.violations(), []);
    assert_eq!(office.counters(Protocol::Smtp).command("RCPT"), 1);
}

#[tokio::test]
async fn data_may_be_cut_anywhere_and_begin_with_a_dot() {
    let office = PostOffice::builder().start().await.unwrap();
    let mut client = ready(&office).await;
    client.expect("MAIL FROM:<>", "250").await;
    client.expect("RCPT TO:<x@example.org>", "250").await;
    client.expect("DATA", "354").await;
    for octet in b"..first\r\nFrom: a\r\nDate: b\r\n\r\n.\r.\r\n\r\n.\r\n" {
        client.send_raw(&[*octet]).await;
    }
    // The bare CR is refused, but the end was found where it is.
    assert!(client.reply().await.starts_with("550 5.6.0"));
    assert!(client.submit("x@example.org", "").await.starts_with("250"));
    assert!(client.submit("x@example.org", "..first\r\n").await.starts_with("250"));
    let accepted = office.accepted();
    assert_eq!(accepted[0].body.text(), "");
    assert_eq!(accepted[1].body.text(), ".first\r\n");
}

#[tokio::test]
async fn starttls_and_implicit_tls_with_authentication() {
    let office = PostOffice::builder()
        .user("ann", "secret")
        .token("ann", "token")
        .auth(AuthPolicy::RequiredWithinTls)
        .start()
        .await
        .unwrap();
    let mut client = Client::plain(office.address(Listener::Smtp)).await;
    let offer = client.hello().await;
    assert!(offer.contains("250-STARTTLS") || offer.contains("250 STARTTLS"), "{offer}");
    assert!(!offer.contains("AUTH"), "{offer}");
    client.expect("AUTH PLAIN AGFubgBzZWNyZXQ=", "538 5.7.11").await;
    client.expect("MAIL FROM:<a@example.org>", "530 5.7.0").await;
    client.expect("STARTTLS", "220").await;
    let mut client = client.secure(&office).await.unwrap();
    let offer = client.ask("EHLO client.example").await;
    assert!(offer.contains("AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER"), "{offer}");
    assert!(!offer.contains("STARTTLS"), "{offer}");
    client.expect("AUTH PLAIN AGFubgB3cm9uZw==", "535 5.7.8").await;
    client.expect("AUTH PLAIN", "334 ").await;
    client.expect("*", "501").await;
    client.expect("AUTH LOGIN", "334 VXNlcm5hbWU6").await;
    client.expect("YW5u", "334 UGFzc3dvcmQ6").await;
    client.expect("c2VjcmV0", "235 2.7.0").await;
    assert!(client.submit("ann@example.org", &message("\r\n")).await.starts_with("250"));
    let envelope = office.accepted()[0].envelope.clone();
    assert!(envelope.tls);
    assert_eq!(envelope.user.as_deref(), Some("ann"));

    let smtps = office.address(Listener::Smtps);
    let mut client = Client::tls(&office, smtps).await;
    client.hello().await;
    // user=ann^Aauth=Bearer token^A^A
    client.expect("AUTH XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgdG9rZW4BAQ==", "235").await;
    let mut client = Client::tls(&office, smtps).await;
    client.hello().await;
    // user=ann^Aauth=Bearer wrong^A^A
    client.expect("AUTH XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgd3JvbmcBAQ==", "334 ey").await;
    client.expect("", "535 5.7.8").await;
    // n,a=ann,^Aauth=Bearer token^A^A
    client.expect("AUTH OAUTHBEARER bixhPWFubiwBYXV0aD1CZWFyZXIgdG9rZW4BAQ==", "235").await;
    let counters = office.counters(Protocol::Smtp);
    assert_eq!((counters.logins, counters.login_failures, counters.tls_handshakes), (3, 3, 3));
    let transcript = office.transcript_text();
    for secret in ["c2VjcmV0", "AGFubgBzZWNyZXQ", "dXNlcj1hbm4"] {
        assert!(!transcript.contains(secret), "{transcript}");
    }
}

#[tokio::test]
async fn dsn_and_other_parameters_are_recorded() {
    let office = PostOffice::builder().start().await.unwrap();
    let mut client = ready(&office).await;
    let mail = "MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=q+2B1";
    client.expect(mail, "250").await;
    let rcpt = "RCPT TO:<böb@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+40x";
    client.expect(rcpt, "250").await;
    client.expect("DATA", "354").await;
    client.expect(&message("Subject: ä\r\n\r\n."), "250").await;
    let envelope = office.accepted()[0].envelope.clone();
    let parameters = &envelope.parameters;
    assert_eq!(parameters.size, Some(100));
    assert_eq!(parameters.body, Some(BodyType::EightBitMime));
    assert!(parameters.smtputf8);
    assert_eq!(parameters.ret, Some(Ret::Headers));
    assert_eq!(parameters.envid.as_deref(), Some("q+1"));
    let to = &envelope.recipients[0];
    assert_eq!(to.address, "böb@example.org");
    assert_eq!(to.notify, Some(Notify { success: true, failure: true, ..Notify::default() }));
    assert_eq!(to.orcpt.as_deref(), Some("b@x"));
    assert_eq!(to.command, rcpt);
    assert_eq!(office.violations(), []);
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_one_go() {
    let office = PostOffice::builder().start().await.unwrap();
    let mut client = ready(&office).await;
    let group = "MAIL FROM:<a@example.org>\r\nRCPT TO:<550-5.1.1@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n";
    client.send_raw(group.as_bytes()).await;
    for expected in ["250 2.1.0", "550 5.1.1", "250 2.1.5", "354"] {
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    client.expect(&message("\r\n."), "250").await;
    assert_eq!(office.accepted()[0].recipients(), ["b@x"]);
    assert_eq!(office.violations(), []);
    client.send_raw(b"RSET\r\nNOOP\r\nMAIL FROM:<a@x>\r\n").await;
    for _ in 0..3 {
        assert!(client.reply().await.starts_with("250"));
    }
    assert_eq!(office.violations()[0].kind, ViolationKind::Pipelining);
}

#[tokio::test]
async fn bdat_takes_chunks_of_any_octets() {
    let office = PostOffice::builder().start().await.unwrap();
    let mut client = ready(&office).await;
    client.send_raw(b"BDAT 3\r\nabc").await;
    assert!(client.reply().await.starts_with("503"));
    client.expect("MAIL FROM:<a@example.org>", "250").await;
    client.expect("RCPT TO:<b@example.org>", "250").await;
    let data = message("\r\n.\r\nQUIT\r\n");
    let (first, second) = data.split_at(20);
    client.send_raw(format!("BDAT {}\r\n{first}", first.len()).as_bytes()).await;
    assert!(client.reply().await.starts_with("250 2.0.0 20"));
    client.send_raw(format!("BDAT {} LAST\r\n{second}", second.len()).as_bytes()).await;
    assert!(client.reply().await.starts_with("250 2.0.0 accepted"));
    assert_eq!(office.accepted()[0].body.text(), data);
    assert!(office.accepted()[0].envelope.chunked);
    office.withhold(SmtpExtension::Chunking);
    assert!(!client.ask("EHLO again").await.contains("CHUNKING"));
    client.send_raw(b"BDAT 4 LAST\r\nQUIT").await;
    assert!(client.reply().await.starts_with("502"));
    client.expect("NOOP", "250").await;
}

#[tokio::test]
async fn extensions_can_be_withheld() {
    let mut builder = PostOffice::builder();
    for extension in SmtpExtension::ALL {
        if extension != SmtpExtension::Ehlo {
            builder = builder.withhold(extension);
        }
    }
    let office = builder.start().await.unwrap();
    let mut client = Client::plain(office.address(Listener::Smtp)).await;
    assert_eq!(client.hello().await, "250 localhost");
    for command in ["SIZE=3", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x"] {
        client.expect(&format!("MAIL FROM:<a@example.org> {command}"), "555 ").await;
    }
    client.expect("STARTTLS", "502 ").await;
    client.expect("AUTH PLAIN AGEAYg==", "502 ").await;
    client.expect("MAIL FROM:<a@example.org>", "250 sender").await;
    client.expect("RCPT TO:<b@example.org> NOTIFY=NEVER", "555 ").await;
    assert!(office.violations().iter().all(|found| found.kind == ViolationKind::NotOffered));
    office.withhold(SmtpExtension::Ehlo);
    client.expect("EHLO x", "502").await;
    client.expect("HELO x", "250 localhost").await;
}

#[tokio::test]
async fn limits_and_unknown_recipients() {
    let office = PostOffice::builder()
        .user("ann", "secret")
        .route("sales@example.org", "ann")
        .route("example.net", "ann")
        .unknown_recipients(UnknownRecipients::Reject)
        .max_recipients(2)
        .max_message_size(200)
        .start()
        .await
        .unwrap();
    let mut client = ready(&office).await;
    client.expect("MAIL FROM:<a@example.org> SIZE=201", "552 5.3.4").await;
    client.expect("MAIL FROM:<a@example.org> SIZE=10", "250").await;
    client.expect("MAIL FROM:<a@example.org>", "503").await;
    client.expect("DATA", "554").await;
    client.expect("RCPT TO:<bob@example.org>", "550 5.1.1").await;
    client.expect("RCPT TO:<Sales@Example.org>", "250").await;
    client.expect("RCPT TO:<any@example.net>", "250").await;
    client.expect("RCPT TO:<ann+tag@example.com>", "452 4.5.3").await;
    client.expect("DATA", "354").await;
    client.expect(&message("\r\n."), "250").await;
    assert_eq!(office.message_count("ann", "INBOX"), 1);
    assert_eq!(office.violations().last().unwrap().kind, ViolationKind::SizeUnderstated);
    let big = message(&format!("\r\n{}\r\n", "x".repeat(200)));
    assert!(client.submit("ann@example.org", &big).await.starts_with("552 5.3.4"));
    client.expect("VRFY ann", "252").await;
    client.expect("HELP", "214").await;
    client.expect("RSET", "250").await;
    client.expect("RCPT TO:<ann@example.org>", "503").await;
    client.expect("WHAT", "500").await;
    client.expect("MAIL FROM:nobody", "501").await;
}

#[tokio::test]
async fn what_clients_must_not_do_is_noticed() {
    let office = PostOffice::builder().start().await.unwrap();
    let mut client = ready(&office).await;
    let long = "x".repeat(999);
    let bad = message(&format!("Bcc: b@x\r\n\r\nä\r\n{long}\r\n"));
    assert!(client.submit("a@x", &bad).await.starts_with("250"));
    assert!(client.submit("a@x", &message("\r\na\nb\r\n")).await.starts_with("550 5.6.0"));
    client.send_raw(b"NOOP\n").await;
    assert!(client.reply().await.starts_with("500 5.5.2"));
    client.send_raw(&vec![b'x'; 20_000]).await;
    client.expect("", "500 5.5.2").await;
    client.send_raw(b"STARTTLS\r\nNOOP\r\n").await;
    assert!(client.reply().await.starts_with("220"));
    let mut client = client.secure(&office).await.unwrap();
    client.expect("EHLO x", "250").await;
    let kinds: Vec<ViolationKind> = office.violations().iter().map(|found| found.kind).collect();
    assert_eq!(
        kinds,
        [
            ViolationKind::EightBitUndeclared,
            ViolationKind::LongLine,
            ViolationKind::Bcc,
            ViolationKind::BareLf,
            ViolationKind::BareLf,
            ViolationKind::Syntax,
            ViolationKind::PlaintextBehindStartTls,
        ]
    );
}

#[tokio::test]
async fn big_bodies_are_kept_as_a_digest_when_asked() {
    let office =
        PostOffice::builder().user("ann", "x").keep_bodies_up_to(200).start().await.unwrap();
    let mut client = ready(&office).await;
    let big = message(&format!("\r\n{}\r\n", "x".repeat(500)));
    assert!(client.submit("ann@x", &big).await.starts_with("250"));
    assert!(client.submit("ann@x", &message("\r\n")).await.starts_with("250"));
    let accepted = office.take_accepted();
    assert!(accepted[0].bytes().is_none());
    assert_eq!(accepted[0].body.size(), big.len() as u64);
    assert!(accepted[1].bytes().is_some());
    assert_eq!(office.message_count("ann", "INBOX"), 1);
    assert!(office.accepted().is_empty());
    assert_eq!(office.accepted_count(), 2);
}

#[tokio::test]
async fn lettre_sends_through_it() {
    use lettre::transport::smtp::authentication::Credentials;
    use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
    let office = PostOffice::builder()
        .user("ann", "secret")
        .auth(AuthPolicy::Required)
        .received_header()
        .start()
        .await
        .unwrap();
    let email = Message::builder()
        .from("Ann <ann@example.org>".parse().unwrap())
        .to("ann@example.org".parse().unwrap())
        .subject("through lettre")
        .body("hello".to_owned())
        .unwrap();
    let transport: AsyncSmtpTransport<Tokio1Executor> =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
            .port(office.port(Listener::Smtp))
            .credentials(Credentials::new("ann".to_owned(), "secret".to_owned()))
            .build();
    transport.send(email.clone()).await.unwrap();
    let inbox = office.wait_messages("ann", "INBOX", 1, SOON).await.unwrap();
    let text = String::from_utf8_lossy(&inbox[0].bytes).into_owned();
    assert!(text.starts_with("Received: from "), "{text}");
    // lettre ends the data with CRLF of its own, whether the message has one or not.
    let sent = format!("{}\r\n", String::from_utf8(email.formatted()).unwrap());
    assert!(text.ends_with(&sent), "{text}");
    assert_eq!(office.violations(), []);
}

#[tokio::test]
async fn only_crlf_dot_crlf_ends_the_data() {
    let office = PostOffice::builder().bare_newlines(BareNewlines::Accept).start().await.unwrap();
    let mut client = ready(&office).await;
    client.expect("MAIL FROM:<a@example.org>", "250").await;
    client.expect("RCPT TO:<b@example.org>", "250").await;
    client.expect("DATA", "354").await;
    let inner = "x\n.\nMAIL FROM:<evil@x>\n.\r\nRCPT TO:<evil@x>\r.\r\r\n.\rDATA\r\n";
    client.send_raw(inner.as_bytes()).await;
    assert!(client.silent().await);
    client.expect(".", "250").await;
    let taken = office.accepted()[0].body.text();
    assert_eq!(taken, inner.replace("\r\n.\rDATA", "\r\n\rDATA"));
    assert_eq!(office.accepted_count(), 1);
    let kinds: Vec<_> = office.violations().iter().map(|found| found.kind).collect();
    assert!(kinds.contains(&ViolationKind::BareLf) && kinds.contains(&ViolationKind::BareCr));
}
