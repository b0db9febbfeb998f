//! Every SMTP fault once, by rule and by name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use postoffice::{Action, Fault, Listener, PostOffice, Protocol, Reply, SmtpAction, SmtpPhase};
use support::{Client, SOON};

const MAIL: &str = "From: a@x\r\nDate: d\r\n\r\nbody\r\n";

async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").start().await.unwrap()
}

async fn smtp(office: &PostOffice) -> Client {
    Client::plain(office.address(Listener::Smtp)).await
}

async fn hello(office: &PostOffice) -> Client {
    let mut client = Client::plain(office.address(Listener::Smtp)).await;
    client.hello().await;
    client
}

fn is_reset(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[tokio::test]
async fn every_smtp_phase_can_be_refused() {
    let office = office().await;
    let phases = [
        SmtpPhase::Greeting,
        SmtpPhase::Ehlo,
        SmtpPhase::StartTls,
        SmtpPhase::Auth,
        SmtpPhase::Mail,
        SmtpPhase::Rcpt,
        SmtpPhase::Data,
        SmtpPhase::FinalDot,
        SmtpPhase::Rset,
        SmtpPhase::Quit,
        SmtpPhase::Other,
    ];
    for phase in phases {
        let handle = office.inject(Fault::smtp(phase, SmtpAction::reply(451, "4.3.0", "x")).once());
        let mut client = smtp(&office).await;
        let mut refused = Vec::new();
        let greeting = client.reply().await;
        if greeting.starts_with("451 4.3.0 x") {
            refused.push("greeting");
        }
        let mail = "MAIL FROM:<a@x>";
        for command in ["EHLO x", "STARTTLS-", "AUTH PLAIN AGEAYg==", mail, "RCPT TO:<b@x>", "DATA"]
        {
            let command = if command == "STARTTLS-" && phase == SmtpPhase::StartTls {
                "STARTTLS"
            } else if command == "STARTTLS-" {
                continue;
            } else {
                command
            };
            let reply = client.ask(command).await;
            if reply.starts_with("451 4.3.0 x") {
                refused.push(command);
            }
            if reply.starts_with("354") && client.ask(&format!("{MAIL}.")).await.starts_with("451")
            {
                refused.push("dot");
            }
        }
        for command in ["RSET", "NOOP", "QUIT"] {
            if client.ask(command).await.starts_with("451 4.3.0 x") {
                refused.push(command);
            }
        }
        assert_eq!(refused.len(), 1, "{phase:?}: {refused:?}");
        assert_eq!(handle.hits(), 1);
        handle.remove();
    }
}

#[tokio::test]
async fn replies_of_several_lines_and_of_421() {
    let office = office().await;
    let reply = Reply::new(550, "5.7.1", "no").line("really").line("not");
    let fault = Fault::smtp(SmtpPhase::Rcpt, reply).matching("Bob@");
    let handle = office.inject(fault);
    let mut client = hello(&office).await;
    client.expect("MAIL FROM:<a@x>", "250").await;
    client.expect("RCPT TO:<ann@x>", "250").await;
    assert_eq!(client.ask("RCPT TO:<bob@x>").await, "550-5.7.1 no|550-5.7.1 really|550 5.7.1 not");
    handle.remove();
    client.expect("RCPT TO:<bob@x>", "250").await;
    office.inject(Fault::smtp(SmtpPhase::Data, SmtpAction::reply(421, "4.3.2", "down")).once());
    client.expect("DATA", "421 4.3.2").await;
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
    let close = SmtpAction::ReplyAndClose(Reply::new(554, "5.3.2", "no service"));
    office.inject(Fault::smtp(SmtpPhase::Greeting, close).once());
    let mut client = smtp(&office).await;
    assert_eq!(client.reply().await, "554 5.3.2 no service");
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn connections_are_dropped_reset_and_half_closed() {
    let office = office().await;
    for phase in [SmtpPhase::Connect, SmtpPhase::Greeting, SmtpPhase::Mail, SmtpPhase::FinalDot] {
        for action in [Action::Drop, Action::Reset, Action::HalfClose] {
            let handle = office.inject(Fault::smtp(phase, action.clone()).once());
            let mut client = smtp(&office).await;
            if matches!(phase, SmtpPhase::Mail | SmtpPhase::FinalDot) {
                client.hello().await;
                client.send("MAIL FROM:<a@x>").await;
            }
            if phase == SmtpPhase::FinalDot {
                client.reply().await;
                client.expect("RCPT TO:<b@x>", "250").await;
                client.expect("DATA", "354").await;
                client.send(&format!("{MAIL}.")).await;
            }
            let end = client.end().await;
            match action {
                Action::Reset => assert!(is_reset(end), "{phase:?} {end:?}"),
                _ => assert_eq!(end, ErrorKind::UnexpectedEof, "{phase:?} {action:?}"),
            }
            if action == Action::HalfClose {
                // The server still reads.
                client.send("NOOP").await;
                client.send("NOOP").await;
            }
            assert_eq!(handle.hits(), 1);
        }
    }
    assert_eq!(office.accepted_count(), 0);
    let none_open = |office: &PostOffice| office.counters(Protocol::Smtp).open == 0;
    office.wait_until("connections to end", SOON, none_open).await.unwrap();
}

#[tokio::test]
async fn a_lost_reply_leaves_the_message_accepted() {
    let office = office().await;
    let fault =
        Fault::smtp(SmtpPhase::FinalDot, Action::Drop).after_effect().matching("ann@").once();
    office.inject(fault);
    let mut client = hello(&office).await;
    assert!(client.submit("bob@x", MAIL).await.starts_with("250"));
    client.expect("MAIL FROM:<a@x>", "250").await;
    client.expect("RCPT TO:<ann@x>", "250").await;
    client.expect("DATA", "354").await;
    client.send(&format!("{MAIL}.")).await;
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
    assert_eq!(office.wait_accepted(2, SOON).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_connection_ends_amid_the_data() {
    let office = office().await;
    for (action, by_bdat) in [(Action::Drop, false), (Action::Reset, false), (Action::Drop, true)] {
        let handle = office.inject(Fault::smtp(SmtpPhase::Body, action).at_byte(100_000).once());
        let mut client = hello(&office).await;
        client.expect("MAIL FROM:<a@x>", "250").await;
        client.expect("RCPT TO:<b@x>", "250").await;
        let line = format!("{}\r\n", "x".repeat(98)).repeat(500);
        if by_bdat {
            client.send("BDAT 1000000 LAST").await;
        } else {
            client.expect("DATA", "354").await;
        }
        client.send_raw(line.as_bytes()).await;
        assert!(client.silent().await);
        assert_eq!(handle.hits(), 0);
        // 50,000 octets are in; the rest crosses the mark.
        client.send_raw(line.as_bytes()).await;
        handle.reached(SOON).await.unwrap();
        client.end().await;
    }
    assert_eq!(office.accepted_count(), 0);
    let reply = SmtpAction::reply(552, "5.3.4", "enough");
    office.inject(Fault::smtp(SmtpPhase::Body, reply).once());
    let mut client = hello(&office).await;
    client.expect("MAIL FROM:<a@x>", "250").await;
    client.expect("RCPT TO:<b@x>", "250").await;
    client.expect("DATA", "354").await;
    client.expect("From: x", "552 5.3.4").await;
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_hang_is_awaited_and_released() {
    let office = office().await;
    let handle = office.inject(Fault::smtp(SmtpPhase::Rcpt, Action::Hang).nth(2));
    let mut client = hello(&office).await;
    client.expect("MAIL FROM:<a@x>", "250").await;
    client.expect("RCPT TO:<b@x>", "250").await;
    assert!(handle.reached(Duration::from_millis(50)).await.is_err());
    client.send("RCPT TO:<c@x>").await;
    handle.reached(SOON).await.unwrap();
    assert!(client.silent().await);
    handle.release();
    assert!(client.reply().await.starts_with("250"));
    client.expect("RCPT TO:<d@x>", "250").await;
    // A client that goes away ends the hang, too.
    let handle = office.inject(Fault::smtp(SmtpPhase::Data, Action::Hang));
    client.send("DATA").await;
    handle.reached(SOON).await.unwrap();
    drop(client);
    let none_open = |office: &PostOffice| office.counters(Protocol::Smtp).open == 0;
    office.wait_until("the connection to end", SOON, none_open).await.unwrap();
    for phase in [SmtpPhase::Connect, SmtpPhase::Greeting] {
        let handle = office.inject(Fault::smtp(phase, Action::Hang).once());
        let mut client = smtp(&office).await;
        handle.reached(SOON).await.unwrap();
        assert!(client.silent().await);
        handle.remove();
        assert!(client.reply().await.starts_with("220"));
    }
}

#[tokio::test]
async fn garbage_floods_endless_lines_and_delays() {
    let office = office().await;
    let mut client = hello(&office).await;
    let garbage = b"\x00\xff\xfe\r\n".to_vec();
    office.inject(Fault::smtp(SmtpPhase::Rset, Action::Replace(garbage.clone())).once());
    client.send("RSET").await;
    assert_eq!(client.exactly(5).await, garbage);
    client.expect("NOOP", "250").await;
    let flood = Action::Flood { line: b"250-more".to_vec(), times: 100_000 };
    office.inject(Fault::smtp(SmtpPhase::Rset, flood).once());
    let reply = client.ask("RSET").await;
    assert_eq!(reply.split('|').count(), 100_001);
    office.inject(Fault::smtp(SmtpPhase::Rset, Action::EndlessLine { bytes: 1_000_000 }).once());
    client.send("RSET").await;
    assert_eq!(client.line().await.len(), 1_000_000);
    assert!(client.reply().await.starts_with("250"));
    office.inject(Fault::smtp(SmtpPhase::Rset, Action::Inject(b"250-so\r\n".to_vec())).once());
    assert_eq!(client.ask("RSET").await, "250-so|250 2.0.0 flushed");
    office.inject(Fault::smtp(SmtpPhase::Rset, Action::Append(b"250 twice\r\n".to_vec())).once());
    assert_eq!(client.ask("RSET").await, "250 2.0.0 flushed");
    assert_eq!(client.reply().await, "250 twice");
    let delay = Duration::from_millis(120);
    office.inject(Fault::smtp(SmtpPhase::Rset, Action::Delay(delay)).once());
    let start = Instant::now();
    client.expect("RSET", "250").await;
    assert!(start.elapsed() >= delay);
    let pause = Duration::from_millis(2);
    office.inject(Fault::smtp(SmtpPhase::Rset, Action::Dribble { pause }).once());
    let start = Instant::now();
    assert_eq!(client.ask("RSET").await, "250 2.0.0 flushed");
    assert!(start.elapsed() >= pause * 18);
}

#[tokio::test]
async fn addresses_name_their_faults() {
    let office = office().await;
    let mut client = hello(&office).await;
    client.expect("MAIL FROM:<mail-451-4.7.1@x>", "451 4.7.1").await;
    client.expect("MAIL FROM:<a@x>", "250").await;
    client.expect("RCPT TO:<550-5.1.1@x>", "550 5.1.1").await;
    client.expect("RCPT TO:<450-4.2.1+two@x>", "450 4.2.1").await;
    client.expect("RCPT TO:<data-451-4.3.0@x>", "250").await;
    client.expect("DATA", "451 4.3.0").await;
    client.expect("RSET", "250").await;
    assert!(client.submit("dot-554-5.6.0@x", MAIL).await.starts_with("554 5.6.0"));
    let start = Instant::now();
    assert!(client.submit("dot-delay-60@x", MAIL).await.starts_with("250"));
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert!(client.submit("accepted-451-4.0.0@x", MAIL).await.starts_with("451 4.0.0"));
    assert_eq!(office.accepted_count(), 2);
    for (to, accepted) in [
        ("rcpt-drop@x", 2),
        ("data-drop@x", 2),
        ("body-drop@x", 2),
        ("dot-drop@x", 2),
        ("accepted-drop@x", 3),
    ] {
        let mut client = hello(&office).await;
        let group = format!("MAIL FROM:<a@x>\r\nRCPT TO:<{to}>\r\nDATA");
        client.send(&group).await;
        let mut replies = 0;
        while let Ok(reply) = client.try_line().await {
            replies += 1;
            if reply.starts_with("354") {
                client.send(&format!("{MAIL}.")).await;
            }
        }
        assert!(replies < 4, "{to}");
        assert_eq!(office.accepted_count(), accepted, "{to}");
    }
    client.expect("MAIL FROM:<a@x>", "250").await;
    let hits = office.named_hits();
    client.send("RCPT TO:<rcpt-hang@x>").await;
    let hanging = |office: &PostOffice| office.named_hits() > hits;
    while !hanging(&office) {
        tokio::task::yield_now().await;
    }
    assert!(client.silent().await);
    office.release_named();
    assert!(client.reply().await.starts_with("250"));
    client.expect("RCPT TO:<421@x>", "421").await;
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
}
