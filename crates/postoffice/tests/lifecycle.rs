//! TLS and its faults, stop and restart, waiting.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use postoffice::{Action, Fault, Flaw, ImapPhase, Listener, PostOffice, Protocol, SmtpPhase};
use support::{Client, SOON};

const MAIL: &str = "From: a@x\r\nDate: d\r\n\r\nbody\r\n";

async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").start().await.unwrap()
}

async fn hello(office: &PostOffice) -> Client {
    let mut client = Client::plain(office.address(Listener::Smtp)).await;
    client.hello().await;
    client
}

async fn imap(office: &PostOffice) -> Client {
    Client::plain(office.address(Listener::Imap)).await
}

async fn selected(office: &PostOffice) -> Client {
    let mut client = Client::plain(office.address(Listener::Imap)).await;
    client.login("ann", "secret").await;
    client.imap_ok("s SELECT INBOX").await;
    client
}

#[tokio::test]
async fn plaintext_is_injected_behind_the_starttls_reply() {
    let office = office().await;
    let injected = Action::Append(b"250 injected\r\n".to_vec());
    office.inject(Fault::smtp(SmtpPhase::StartTls, injected).once());
    let mut client = hello(&office).await;
    client.expect("STARTTLS", "220").await;
    assert_eq!(client.reply().await, "250 injected");
    client.secure(&office).await.unwrap().expect("EHLO x", "250").await;
    let injected = Action::Append(b"* OK injected\r\n".to_vec());
    office.inject(Fault::imap(ImapPhase::StartTls, injected).once());
    let mut client = imap(&office).await;
    client.line().await;
    client.imap_ok("a STARTTLS").await;
    assert_eq!(client.line().await, "* OK injected");
    client.secure(&office).await.unwrap().imap_ok("b NOOP").await;
}

#[tokio::test]
async fn tls_handshakes_hang_break_and_show_flawed_certificates() {
    let office = office().await;
    for (listener, flaw, sound) in [
        (Listener::Smtps, Flaw::WrongName, false),
        (Listener::Imaps, Flaw::Expired, false),
        (Listener::Smtps, Flaw::NotYetValid, false),
        (Listener::Imaps, Flaw::UnknownIssuer, false),
        (Listener::Smtps, Flaw::None, true),
    ] {
        let before = office.certificate().fingerprint();
        office.present(flaw).unwrap();
        assert_ne!(before, office.certificate().fingerprint());
        let client = Client::plain(office.address(listener)).await.secure(&office).await;
        assert_eq!(client.is_ok(), sound, "{flaw:?}");
    }
    let failed = |office: &PostOffice| {
        let failures = |protocol| office.counters(protocol).tls_failures;
        failures(Protocol::Smtp) == 2 && failures(Protocol::Imap) == 2
    };
    office.wait_until("failed handshakes", SOON, failed).await.unwrap();
    for action in [Action::Drop, Action::Reset, Action::Replace(b"no TLS here\r\n".to_vec())] {
        office.inject(Fault::smtp(SmtpPhase::TlsHandshake, action).once());
        let client = Client::plain(office.address(Listener::Smtps)).await.secure(&office).await;
        assert!(client.is_err());
    }
    let handle = office.inject(Fault::imap(ImapPhase::TlsHandshake, Action::Hang));
    let client = Client::plain(office.address(Listener::Imaps)).await;
    let handshake = client.secure(&office);
    let (client, ()) = tokio::join!(handshake, async {
        handle.reached(SOON).await.unwrap();
        handle.release();
    });
    assert!(client.unwrap().line().await.starts_with("* OK"));
}

#[tokio::test]
async fn down_and_up_again_on_the_same_ports() {
    let office = office().await;
    let mut client = selected(&office).await;
    assert!(hello(&office).await.submit("ann@x", MAIL).await.starts_with("250"));
    client.send("i IDLE").await;
    office.stop().await;
    client.end().await;
    for listener in Listener::ALL {
        let address = office.address(listener).unwrap();
        let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    office.restart().await.unwrap();
    office.restart().await.unwrap();
    assert!(hello(&office).await.submit("ann@x", MAIL).await.starts_with("250"));
    assert_eq!(office.message_count("ann", "INBOX"), 2);
    let address = office.address(Listener::Smtp).unwrap();
    drop(office);
    let gone = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn waits_end_at_their_deadline_and_say_for_what() {
    let office = office().await;
    let short = Duration::from_millis(20);
    let error = office.wait_accepted(2, short).await.unwrap_err();
    assert_eq!(error.to_string(), "waited 20ms in vain for 2 accepted messages (there are 0)");
    let error = office.wait_messages("ann", "INBOX", 1, short).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "waited 20ms in vain for 1 messages in INBOX of ann (there are 0)"
    );
}
