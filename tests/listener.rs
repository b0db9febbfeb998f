//! The listener of the real daemon, with clients nobody here wrote: swaks and smtp-source.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use house::{PATIENCE, profile_text};
use office::{account, office};
use postoffice::{Fault, PostOffice, SmtpAction, SmtpPhase};
use program::{Daemon, Program};
use realservers::wait;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

/// A user whose daemon listens at a free port.
fn program(office: &PostOffice, login: &str) -> Program {
    let program = Program::new(office, &[]);
    let account = account(office, &program.path("config"), &[]);
    let profile = profile_text(&[account], &program.maildir());
    program.write_profile(&format!("{profile}[listen]\nsmtp = \"127.0.0.1:0\"\n{login}"));
    program
}

fn port(daemon: &Daemon) -> SocketAddr {
    let line = daemon.said().iter().find_map(|line| line.split_once("listening for SMTP at "));
    line.expect("it says where").1.parse().unwrap()
}

async fn output(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, output).await.expect("the client ends").unwrap()
}

async fn swaks(port: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new("swaks");
    command.args(["--server", "127.0.0.1", "--port", &port.port().to_string()]);
    command.args(["--from", "ann@example.org", "--to", "bob@example.org", "--helo", "laptop"]);
    output(command.args(arguments)).await
}

async fn await_accepted(office: &PostOffice, count: usize) {
    let all = wait::until_async("the mail is sent", PATIENCE, async || {
        (office.accepted().len() >= count).then_some(())
    });
    all.await.unwrap();
    assert_eq!(office.accepted().len(), count);
}

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_from_swaks_is_delivered() {
    let office = office().await;
    let program = program(&office, "");
    let daemon = program.daemon().await;
    let said = swaks(port(&daemon), &["--header", "Subject: from swaks", "--body", ".dot\n"]).await;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}");
    let id = text.lines().find_map(|line| line.split_once("queued as ")).expect("an id").1.trim();
    let waited = program.run(&["queue", "show", id]).await;
    assert_eq!(waited.code, 0, "{waited:?}");
    await_accepted(&office, 1).await;
    let accepted = office.accepted();
    let bytes = String::from_utf8_lossy(accepted[0].bytes().unwrap()).into_owned();
    assert!(bytes.contains("Received: from laptop\r\n\tby "), "{bytes}");
    assert!(bytes.contains("Subject: from swaks\r\n") && bytes.contains("\r\n.dot"), "{bytes}");
    assert_eq!(accepted[0].recipients(), ["bob@example.org"]);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_of_smtp_source_lose_and_double_nothing() {
    let office = office().await;
    let program = program(&office, "");
    let daemon = program.daemon().await;
    let mut source = Command::new("/usr/sbin/smtp-source");
    source.args(["-s", "5", "-m", "200", "-l", "4096", "-f", "ann@example.org"]);
    source.args(["-t", "bob@example.org", &port(&daemon).to_string()]);
    let said = output(&mut source).await;
    assert!(said.status.success(), "{said:?}");
    await_accepted(&office, 200).await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_asked_for_where_the_profile_says_so() {
    let office = office().await;
    let program = program(&office, "user = \"ann\"\npassword = \"local secret\"\n");
    let daemon = program.daemon().await;
    let login = ["--auth-user", "ann", "--auth-password", "local secret"];
    for mechanism in ["PLAIN", "LOGIN"] {
        let said = swaks(port(&daemon), &[&["--auth", mechanism], &login[..]].concat()).await;
        assert!(said.status.success(), "{said:?}");
    }
    let wrong = ["--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "guess"];
    assert!(!swaks(port(&daemon), &wrong).await.status.success());
    assert!(!swaks(port(&daemon), &[]).await.status.success());
    await_accepted(&office, 2).await;
}

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_from_swaks_comes_through_a_socket_in_the_file_system() {
    use std::os::unix::fs::PermissionsExt;
    let office = office().await;
    let program = Program::new(&office, &[]);
    let account = account(&office, &program.path("config"), &[]);
    let socket = program.path("smtp.sock");
    let listen = format!("[listen]\nsmtp = \"unix:{}\"\n", socket.display());
    program.write_profile(&(profile_text(&[account], &program.maildir()) + &listen));
    let daemon = program.daemon().await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut swaks = Command::new("swaks");
    swaks.arg("--socket").arg(&socket).args(["--helo", "laptop", "--body", "hello"]);
    swaks.args(["--from", "ann@example.org", "--to", "bob@example.org"]);
    let said = output(&mut swaks).await;
    assert!(said.status.success(), "{said:?}");
    await_accepted(&office, 1).await;
    // A daemon that died leaves its socket behind, and the next one takes the place.
    daemon.crash().await;
    assert!(program::exists(&socket));
    let daemon = program.daemon().await;
    assert!(output(&mut swaks).await.status.success());
    await_accepted(&office, 2).await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    assert!(!program::exists(&socket));
}

/// RFC 3461 section 5.2.1: what the client asked of reports is asked of the next server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wishes_for_delivery_reports_are_passed_on() {
    let office = office().await;
    let program = program(&office, "");
    let daemon = program.daemon().await;
    let stream = TcpStream::connect(port(&daemon)).await.unwrap();
    let (reading, mut writing) = stream.into_split();
    let mut replies = BufReader::new(reading).lines();
    let dialogue = "EHLO me\r\nMAIL FROM:<ann@example.org> RET=FULL ENVID=QQ+2B7\r\n\
         RCPT TO:<bob@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@example.net\r\n\
         RCPT TO:<ann@example.org> NOTIFY=NEVER\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n\
         Subject: reports\r\n\r\nhello\r\n.\r\nQUIT\r\n";
    writing.write_all(dialogue.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while let Some(line) = replies.next_line().await.unwrap() {
        said.push(line);
    }
    assert!(said.iter().any(|line| line == "250-DSN"), "{said:?}");
    await_accepted(&office, 1).await;
    let accepted = office.accepted();
    let envelope = &accepted[0].envelope;
    assert_eq!(envelope.parameters.ret, Some(postoffice::Ret::Full));
    assert_eq!(envelope.parameters.envid.as_deref(), Some("QQ+7"));
    let asked: Vec<_> = envelope
        .recipients
        .iter()
        .map(|to| (to.address.as_str(), to.notify, to.orcpt.as_deref()))
        .collect();
    let notify = postoffice::Notify { success: true, delay: true, ..Default::default() };
    let never = postoffice::Notify { never: true, ..Default::default() };
    assert_eq!(
        asked,
        [
            ("bob@example.org", Some(notify), Some("Bob+x@example.net")),
            ("ann@example.org", Some(never), Some("ann@example.org")),
        ]
    );
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

/// One message by hand; returns when it was answered 250.
async fn hand_over(port: SocketAddr, subject: &str) {
    let stream = TcpStream::connect(port).await.unwrap();
    let (reading, mut writing) = stream.into_split();
    let mut replies = BufReader::new(reading).lines();
    let dialogue = format!(
        "EHLO me\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n\
         Subject: {subject}\r\n\r\nhello\r\n.\r\n"
    );
    writing.write_all(dialogue.as_bytes()).await.unwrap();
    loop {
        let line = replies.next_line().await.unwrap().expect("a reply");
        if line.starts_with("250 2.0.0 queued as") {
            return;
        }
        assert!(line.starts_with(['2', '3']), "{line}");
    }
}

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_250_survives_a_kill() {
    let office = office().await;
    // Nothing is sent before the kill.
    let later = SmtpAction::reply(421, "4.3.2", "later");
    office.inject(Fault::smtp(SmtpPhase::Greeting, later).times(1_000));
    let program = program(&office, "");
    let daemon = program.daemon().await;
    let address = port(&daemon);
    let sent = (0..20).map(|n| async move { hand_over(address, &format!("m{n}")).await });
    futures_util::future::join_all(sent).await;
    daemon.crash().await;
    office.remove_faults();
    let daemon = program.daemon().await;
    assert_eq!(program.run(&["flush", "--upload"]).await.code, 0);
    await_accepted(&office, 20).await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_the_middle_does_not_keep_the_daemon() {
    let office = office().await;
    let program = program(&office, "");
    let daemon = program.daemon().await;
    let mut stream = TcpStream::connect(port(&daemon)).await.unwrap();
    stream.write_all(b"EHLO me\r\nMAIL FROM:<ann@example.org>\r\n").await.unwrap();
    let mut replies = BufReader::new(stream).lines();
    while !replies.next_line().await.unwrap().unwrap().starts_with("250 2.1.0") {}
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    assert!(replies.next_line().await.unwrap().unwrap().starts_with("421"));
    assert!(office.accepted().is_empty());
}
