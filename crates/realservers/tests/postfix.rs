//! Postfix in front of Dovecot as this crate starts them, driven by a client nobody here wrote.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use realservers::{
    Dovecot, DovecotOptions, Error, Fetched, Postfix, PostfixOptions, trace_headers, wait,
};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};

const MESSAGE: &[u8] = b"From: ann@example.test\r\nSubject: odd\r\nReceived: by one before\r\n\r\n\
    .\r\n..dots and r\xe4w bytes\r\nend without a host: x\r\n";

fn servers() -> (Dovecot, Postfix) {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let postfix = Postfix::start(&dovecot, PostfixOptions::default()).unwrap();
    (dovecot, postfix)
}

/// What a client asks of TLS.
#[derive(Clone, Copy)]
enum Tls {
    Start,
    Implicit,
}

/// Runs swaks, which sends `message` and gets it by standard input. With TLS it verifies the server by the
/// test's authority.
fn swaks(server: SocketAddr, to: &str, message: &[u8], more: &[&str]) -> Output {
    let mut command = Command::new("swaks");
    let server = server.to_string();
    command.args(["--server", &server, "--from", "ann@example.test"]);
    command.args(["--to", to, "--helo", "client.example.test"]);
    command.args(["--data", "-", "--no-strip-from", "--timeout", "30"]);
    command.args(more);
    let started =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.unwrap_or_else(|error| {
        panic!(
            "swaks does not start ({error}): Debian package `swaks`, see ci/install-test-servers"
        )
    });
    // swaks makes the line ends itself and adds one at the end.
    let text: Vec<u8> = message.iter().copied().filter(|byte| *byte != b'\r').collect();
    let text = text.strip_suffix(b"\n").unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    child.wait_with_output().unwrap()
}

fn submit(dovecot: &Dovecot, postfix: &Postfix, tls: Tls, password: &str, to: &str) -> Output {
    let (server, tls) = match tls {
        Tls::Start => (postfix.submission_address(), "--tls"),
        Tls::Implicit => (postfix.submissions_address(), "--tls-on-connect"),
    };
    let authority = dovecot.certificates().authority_file();
    let authority = authority.to_str().unwrap();
    let login = ["--auth", "PLAIN", "--auth-user", "ann", "--auth-password"];
    let trust = ["--tls-verify", "--tls-ca-path", authority];
    let more = [&[tls], &trust[..], &login[..], &[password]].concat();
    swaks(server, to, MESSAGE, &more)
}

fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

fn arrived(dovecot: &Dovecot, user: &str, count: usize) -> Vec<Fetched> {
    let what = format!("{count} messages for {user}");
    wait::until(&what, wait::PATIENCE, || {
        let files = dovecot.message_files(user, "INBOX").unwrap();
        (files.len() >= count).then_some(())
    })
    .unwrap();
    dovecot.log_in(user).unwrap().fetch_all("INBOX").unwrap()
}

#[test]
fn what_is_submitted_with_auth_and_tls_arrives_byte_for_byte() {
    let (dovecot, postfix) = servers();
    for (tls, user) in [(Tls::Start, "ann"), (Tls::Implicit, "bob")] {
        let to = dovecot.address_of(user);
        let output = submit(&dovecot, &postfix, tls, "ann's password", &to);
        assert!(output.status.success(), "{}", said(&output));
        let stored = arrived(&dovecot, user, 1);
        assert_eq!(stored.len(), 1);
        let added = trace_headers::added_before(&stored[0].bytes, MESSAGE).unwrap();
        let added = String::from_utf8_lossy(added);
        assert!(added.starts_with("Return-Path: <ann@example.test>\r\n"), "{added}");
        assert!(added.contains("with ESMTPSA"), "{added}");
    }
    wait::until("an empty queue", wait::PATIENCE, || {
        (postfix.queued().unwrap() == 0).then_some(())
    })
    .unwrap();
}

#[test]
fn a_wrong_password_is_refused_until_it_is_changed() {
    let (dovecot, postfix) = servers();
    let to = dovecot.address_of("bob");
    let output = submit(&dovecot, &postfix, Tls::Start, "mended", &to);
    assert!(!output.status.success());
    assert!(said(&output).contains("535 5.7.8"), "{}", said(&output));
    dovecot.set_password("ann", "mended").unwrap();
    let output = submit(&dovecot, &postfix, Tls::Start, "mended", &to);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(arrived(&dovecot, "bob", 1).len(), 1);
}

#[test]
fn nothing_is_taken_without_tls_or_login_and_nothing_is_relayed() {
    let (dovecot, postfix) = servers();
    let to = dovecot.address_of("ann");
    let plain = swaks(postfix.submission_address(), &to, MESSAGE, &[]);
    assert!(said(&plain).contains("530 5.7.0 Must issue a STARTTLS"), "{}", said(&plain));
    let anonymous = swaks(postfix.submission_address(), &to, MESSAGE, &["--tls"]);
    assert!(said(&anonymous).contains("554 5.7.1"), "{}", said(&anonymous));
    let relayed = swaks(postfix.smtp_address(), "x@elsewhere.test", MESSAGE, &[]);
    assert!(said(&relayed).contains("454 4.7.1") || said(&relayed).contains("554 5.7.1"));
    assert_eq!(postfix.queued().unwrap(), 0);
    assert!(dovecot.message_files("ann", "INBOX").unwrap().is_empty());
}

#[test]
fn the_plain_port_takes_mail_for_its_own_users_only() {
    let (dovecot, postfix) = servers();
    let known = swaks(postfix.smtp_address(), &dovecot.address_of("ann"), MESSAGE, &[]);
    assert!(known.status.success(), "{}", said(&known));
    assert_eq!(arrived(&dovecot, "ann", 1).len(), 1);
    let to = dovecot.address_of("mallory");
    let unknown = swaks(postfix.smtp_address(), &to, MESSAGE, &[]);
    assert!(said(&unknown).contains("550 5.1.1"), "{}", said(&unknown));
}

#[test]
fn mail_for_another_domain_comes_back_as_a_report() {
    let (dovecot, postfix) = servers();
    let to = "someone@elsewhere.test";
    let output = submit(&dovecot, &postfix, Tls::Start, "ann's password", to);
    assert!(output.status.success(), "{}", said(&output));
    let report = arrived(&dovecot, "ann", 1).remove(0);
    let text = String::from_utf8_lossy(&report.bytes).into_owned();
    assert!(text.contains("multipart/report"), "{text}");
    assert!(text.contains("5.4.4"), "{text}");
}

#[test]
fn the_queue_waits_for_dovecot_and_survives_a_restart_of_postfix() {
    let (dovecot, postfix) = servers();
    let to = dovecot.address_of("bob");
    dovecot.stop().unwrap();
    // The plain port: with Dovecot gone nobody can log in.
    let output = swaks(postfix.smtp_address(), &to, MESSAGE, &[]);
    assert!(output.status.success(), "{}", said(&output));
    postfix.stop().unwrap();
    assert!(TcpStream::connect(postfix.submission_address()).is_err());
    assert_eq!(postfix.queued().unwrap(), 1);
    dovecot.start_again().unwrap();
    postfix.start_again().unwrap();
    assert_eq!(arrived(&dovecot, "bob", 1).len(), 1);

    postfix.kill().unwrap();
    assert!(TcpStream::connect(postfix.submission_address()).is_err());
    postfix.start_again().unwrap();
    let output = submit(&dovecot, &postfix, Tls::Start, "ann's password", &to);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(arrived(&dovecot, "bob", 2).len(), 2);
}

#[test]
fn parameters_can_be_set() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let main = vec![("message_size_limit".to_owned(), "2000".to_owned())];
    let postfix = Postfix::start(&dovecot, PostfixOptions { main }).unwrap();
    let large = [b"Subject: large\n\n".to_vec(), b"0123456789\n".repeat(300)].concat();
    let to = dovecot.address_of("ann");
    let output = swaks(postfix.smtp_address(), &to, &large, &[]);
    assert!(said(&output).contains("SIZE 2000"), "{}", said(&output));
    assert!(said(&output).contains("552 5.3.4"), "{}", said(&output));
}

#[test]
fn a_bad_configuration_is_reported_with_the_servers_words() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let main = vec![("inet_protocols".to_owned(), "morse".to_owned())];
    let error = Postfix::start(&dovecot, PostfixOptions { main }).unwrap_err();
    assert!(matches!(error, Error::Server { .. }), "{error}");
    assert!(error.to_string().contains("morse"), "{error}");
}
