//! Dovecot as this crate starts it, seen from outside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use realservers::{
    CertificateOptions, Dovecot, DovecotOptions, Error, Security, User, Validity, trace_headers,
    wait,
};
use std::net::TcpStream;
use std::thread;

/// Every byte but NUL, CR and LF, a line of 998 bytes, dots at line starts, no text encoding.
fn odd_message() -> Vec<u8> {
    let mut message = b"Subject: odd\r\nReceived: one of its own\r\n\r\n.\r\n..dots\r\n".to_vec();
    for byte in (1..=255_u8).filter(|byte| *byte != b'\r' && *byte != b'\n') {
        message.push(byte);
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(&[b'x'; 998]);
    message.extend_from_slice(b"\r\n\r\n");
    message
}

#[test]
fn a_message_delivered_by_lmtp_is_fetched_byte_for_byte_with_every_kind_of_tls() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let sent = odd_message();
    dovecot.lmtp_deliver("ann", &sent).unwrap();
    for security in [Security::None, Security::StartTls, Security::Implicit] {
        let mut probe = dovecot.connect(security).unwrap();
        probe.login("ann", "ann's password").unwrap();
        let fetched = probe.fetch_all("INBOX").unwrap();
        assert_eq!(fetched.len(), 1);
        let added = trace_headers::added_before(&fetched[0].bytes, &sent).unwrap();
        assert!(added.starts_with(b"Return-Path: <>\r\n"));
        assert!(!fetched[0].flags.contains(&r"\Seen".to_owned()));
    }
    assert_eq!(dovecot.message_files("ann", "INBOX").unwrap().len(), 1);
    assert!(dovecot.message_files("bob", "INBOX").unwrap().is_empty());
}

#[test]
fn users_log_in_by_name_or_address_and_only_with_their_password() {
    let options = DovecotOptions {
        users: vec![User::new("eve", "colon: \"quote\" \\ käse")],
        ..DovecotOptions::default()
    };
    let dovecot = Dovecot::start(options).unwrap();
    let password = dovecot.password_of("eve").unwrap();
    for name in ["eve".to_owned(), dovecot.address_of("eve")] {
        let mut probe = dovecot.connect(Security::Implicit).unwrap();
        probe.login(&name, &password).unwrap();
    }
    for (name, password) in [("eve", "wrong"), ("mallory", password.as_str())] {
        let mut probe = dovecot.connect(Security::StartTls).unwrap();
        let error = probe.login(name, password).unwrap_err();
        assert!(error.to_string().contains("AUTHENTICATIONFAILED"), "{error}");
    }
    assert!(dovecot.lmtp_deliver("mallory", b"Subject: x\r\n\r\n").is_err());
}

#[test]
fn a_changed_password_holds_at_once() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let old = dovecot.password_of("ann").unwrap();
    // Three times within a moment, two of them of one length: nothing may be remembered from before.
    for new in ["first", "other", &old] {
        let before = dovecot.password_of("ann").unwrap();
        dovecot.set_password("ann", new).unwrap();
        let try_with = |password: &str| {
            let mut probe = dovecot.connect(Security::Implicit).unwrap();
            probe.login("ann", password)
        };
        try_with(new).unwrap();
        assert!(try_with(&before).is_err());
    }
    assert!(matches!(dovecot.set_password("nobody", "x"), Err(Error::Usage(_))));
    dovecot.log_in("bob").unwrap();
}

#[test]
fn stop_and_start_keep_ports_and_mail() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let (imap, imaps) = (dovecot.imap_address(), dovecot.imaps_address());
    dovecot.lmtp_deliver("ann", b"Subject: kept\r\n\r\n").unwrap();
    let idle = dovecot.log_in("ann").unwrap();
    for end in [Dovecot::stop, Dovecot::kill] {
        end(&dovecot).unwrap();
        assert!(TcpStream::connect(imap).is_err());
        assert!(TcpStream::connect(imaps).is_err());
        dovecot.start_again().unwrap();
        assert_eq!(dovecot.imap_address(), imap);
        let mut probe = dovecot.log_in("ann").unwrap();
        assert_eq!(probe.fetch_all("INBOX").unwrap().len(), 1);
    }
    drop(idle);
}

#[test]
fn a_password_set_while_it_is_stopped_holds_from_the_start() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    dovecot.stop().unwrap();
    dovecot.set_password("ann", "new").unwrap();
    dovecot.start_again().unwrap();
    dovecot.log_in("ann").unwrap();
}

#[test]
fn the_archive_is_there_and_messages_move_into_it() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    dovecot.lmtp_deliver("ann", b"Subject: old\r\n\r\n").unwrap();
    let mut probe = dovecot.log_in("ann").unwrap();
    let listed = probe.command(r#"LIST "" * RETURN (SPECIAL-USE)"#).unwrap();
    let archive = listed.iter().find(|line| line.text.ends_with("Archive"));
    assert!(archive.unwrap().text.contains(r"\Archive"), "{listed:?}");
    probe.command("SELECT INBOX").unwrap();
    probe.command("UID MOVE 1 Archive").unwrap();
    assert!(dovecot.message_files("ann", "INBOX").unwrap().is_empty());
    assert_eq!(dovecot.message_files("ann", "Archive").unwrap().len(), 1);
}

#[test]
fn idle_tells_of_new_mail_and_a_kick_ends_it() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let mut probe = dovecot.log_in("ann").unwrap();
    probe.command("SELECT INBOX").unwrap();
    probe.start("IDLE").unwrap();
    assert!(probe.next_response().unwrap().text.starts_with('+'));
    dovecot.lmtp_deliver("ann", b"Subject: new\r\n\r\n").unwrap();
    assert_eq!(probe.next_response().unwrap().text, "* 1 EXISTS");
    assert!(dovecot.kick("ann").unwrap());
    let ended =
        wait::until("the end of the connection", wait::PATIENCE, || match probe.next_response() {
            Ok(response) => response.text.starts_with("* BYE").then_some(()),
            Err(_) => Some(()),
        });
    ended.unwrap();
    wait::until("nobody left to kick", wait::PATIENCE, || {
        (!dovecot.kick("ann").unwrap()).then_some(())
    })
    .unwrap();
}

#[test]
fn many_connections_of_one_user_are_allowed() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let probes: Vec<_> = (0..25).map(|_| dovecot.log_in("ann").unwrap()).collect();
    assert_eq!(probes.len(), 25);
}

#[test]
fn a_paused_server_takes_connections_and_says_nothing_until_resumed() {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    dovecot.pause().unwrap();
    let socket = TcpStream::connect(dovecot.imap_address()).unwrap();
    let quiet = std::time::Duration::from_millis(200);
    socket.set_read_timeout(Some(quiet)).unwrap();
    let mut byte = [0];
    let heard = std::io::Read::read(&mut &socket, &mut byte);
    assert_eq!(heard.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    dovecot.resume().unwrap();
    socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    assert_eq!(std::io::Read::read(&mut &socket, &mut byte).unwrap(), 1);
    dovecot.pause().unwrap();
    dovecot.stop().unwrap();
}

#[test]
fn several_start_at_once_and_each_has_its_own_users() {
    let starters: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let options = DovecotOptions {
                    users: vec![User::new(&format!("user{number}"), "x")],
                    ..DovecotOptions::default()
                };
                let dovecot = Dovecot::start(options).unwrap();
                dovecot.log_in(&format!("user{number}")).unwrap();
            })
        })
        .collect();
    for starter in starters {
        starter.join().unwrap();
    }
}

#[test]
fn capabilities_can_be_taken_away_and_certificates_be_bad() {
    let options = DovecotOptions {
        extra_config: "imap_capability = IMAP4rev1 UIDPLUS".to_owned(),
        certificate: CertificateOptions {
            names: vec!["other.example".to_owned()],
            validity: Validity::Expired,
        },
        ..DovecotOptions::default()
    };
    let dovecot = Dovecot::start(options).unwrap();
    let mut probe = dovecot.log_in("ann").unwrap();
    let offered = probe.command("CAPABILITY").unwrap();
    assert!(offered[0].text.contains("UIDPLUS"));
    assert!(!offered[0].text.contains("IDLE"), "{offered:?}");
}

#[test]
fn a_bad_configuration_is_reported_with_the_servers_words() {
    let options = DovecotOptions {
        extra_config: "no_such_setting = 1".to_owned(),
        ..DovecotOptions::default()
    };
    let error = Dovecot::start(options).unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}
