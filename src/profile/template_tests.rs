//! What is written can be read, and says what was meant.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use super::*;
use crate::profile::{Environment, Profile, parse_mailbox};

fn url(text: &str) -> ServerUrl {
    text.parse().unwrap()
}

fn new_transport() -> NewTransport {
    NewTransport {
        name: "work \"1\"".into(),
        identity: parse_mailbox("\"Example, Ann\" <ann@example.org>").unwrap(),
        aliases: Vec::new(),
        remarks: vec!["a remark".into()],
        password: Some(NewPassword::Command("pass show \"mail/ann\" | head -1".into())),
        smtp: Some(url("smtps://smtp.example.org").into()),
        imap: Some(url("imap+starttls://imap.example.org:1143").into()),
        oauth2: None,
    }
}

fn profile_of(transports: Vec<NewTransport>) -> Profile {
    let new = NewProfile { transports, maildir: "~/Mail".into(), default: true };
    let env = Environment::empty().with("HOME", "/home/ann");
    Profile::parse("work", &new.to_toml(), Path::new("/c/work.toml"), &env).unwrap()
}

fn read_back(new: NewTransport) -> Profile {
    profile_of(vec![new])
}

#[test]
fn what_is_written_can_be_read() {
    let profile = read_back(new_transport());
    let transport = &profile.transports[0];
    assert!(profile.default);
    assert_eq!(transport.name, "work \"1\"");
    assert_eq!(transport.identity, new_transport().identity);
    let smtp = transport.smtp.as_ref().unwrap();
    assert_eq!((smtp.server.host.as_str(), smtp.server.port), ("smtp.example.org", 465));
    let login = smtp.login.as_ref().unwrap();
    assert_eq!(login.user, "ann@example.org");
    assert_eq!(login.password.to_string(), "command pass show \"mail/ann\" | head -1");
    let imap = transport.imap.as_ref().unwrap();
    assert_eq!((imap.server.port, imap.login.user.as_str()), (1143, "ann@example.org"));
    assert_eq!(profile.store.maildir.as_deref(), Some(Path::new("/home/ann/Mail")));
}

#[test]
fn parts_may_be_left_out() {
    let smtp = Some(url("smtp://localhost:2525").into());
    let new = NewTransport { smtp, imap: None, password: None, ..new_transport() };
    assert!(read_back(new).transports[0].smtp.as_ref().unwrap().login.is_none());
    let imap = Some(url("imaps://ann@imap.example.org").into());
    let password = Some(NewPassword::Env("PW".into()));
    let new = NewTransport { smtp: None, imap, password, ..new_transport() };
    assert_eq!(read_back(new).transports[0].imap.as_ref().unwrap().login.user, "ann");
    let new = NewTransport {
        smtp: Some(url("smtp://localhost").into()),
        imap: Some(url("imap://ann@localhost").into()),
        password: Some(NewPassword::File("/run/pw".into())),
        ..new_transport()
    };
    assert_eq!(read_back(new).transports[0].imap.as_ref().unwrap().login.user, "ann");
}

#[test]
fn each_server_gets_the_user_that_was_meant() {
    let users = |smtp: &str, imap: &str| {
        let (smtp, imap) = (Some(url(smtp).into()), Some(url(imap).into()));
        let profile = read_back(NewTransport { smtp, imap, ..new_transport() });
        let transport = &profile.transports[0];
        let smtp = transport.smtp.as_ref().unwrap();
        let smtp = smtp.login.as_ref().map(|login| login.user.clone());
        (smtp, transport.imap.as_ref().unwrap().login.user.clone())
    };
    let some = |user: &str| Some(user.to_owned());
    for (smtp, imap, sender, receiver) in [
        ("smtps://h", "imaps://h", some("ann@example.org"), "ann@example.org"),
        ("smtps://ann@h", "imaps://h", some("ann"), "ann"),
        ("smtps://h", "imaps://ann@h", some("ann"), "ann"),
        ("smtps://ann@h", "imaps://bob@h", some("ann"), "bob"),
        ("smtp://localhost", "imaps://ann@h", None, "ann"),
        ("smtp://localhost", "imaps://h", None, "ann@example.org"),
        ("smtp://ann@localhost", "imaps://h", some("ann"), "ann"),
    ] {
        assert_eq!(users(smtp, imap), (sender, receiver.to_owned()), "{smtp} {imap}");
    }
}

#[test]
fn an_account_that_signs_in_needs_no_password() {
    let known = NewOAuth2 {
        provider: Some(Provider::Microsoft),
        client_id: "0123-abcd".into(),
        client_secret: Some(NewPassword::Keyring("client".into())),
        ..NewOAuth2::default()
    };
    let named = NewOAuth2 {
        client_id: "postrider".into(),
        auth_url: Some("https://login.example.org/authorize".into()),
        token_url: Some("https://login.example.org/token".into()),
        device_url: Some("https://login.example.org/device".into()),
        scopes: vec!["mail".into()],
        ..NewOAuth2::default()
    };
    for oauth2 in [known, named] {
        let profile = read_back(NewTransport {
            password: None,
            oauth2: Some(oauth2.clone()),
            smtp: Some(url("smtps://smtp.example.org").into()),
            imap: Some(url("imaps://other@imap.example.org").into()),
            ..new_transport()
        });
        let transport = &profile.transports[0];
        let smtp = transport.smtp.as_ref().unwrap().login.as_ref().unwrap();
        assert_eq!(smtp.user, "ann@example.org");
        assert_eq!(transport.imap.as_ref().unwrap().login.user, "other");
        let read = transport.oauth2.as_ref().unwrap();
        assert_eq!((read.provider, &read.client_id), (oauth2.provider, &oauth2.client_id));
        assert!(read.device_url.is_some());
        assert_eq!(
            read.client_secret.as_ref().map(ToString::to_string),
            oauth2.client_secret.map(|_| "keyring entry client".to_owned())
        );
        assert_eq!(read.scopes.len(), if oauth2.provider.is_some() { 3 } else { 1 });
    }
}

#[test]
fn several_accounts_with_all_that_can_be_said() {
    let env = |name: &str| Some(NewPassword::Env(name.into()));
    let full = NewTransport {
        name: "full".into(),
        aliases: vec!["a@example.net".into(), "b@example.net".into()],
        password: None,
        smtp: Some(NewServer {
            password: env("SMTP_PW"),
            fingerprint: Some(format!("sha256:{}", "ab".repeat(32))),
            auth: Some("login".into()),
            connections: Some(2),
            messages_per_minute: Some(28),
            recipients_per_message: Some(50),
            ..url("smtp+starttls://ann@h").into()
        }),
        imap: Some(NewReceiving {
            server: NewServer { password: env("IMAP_PW"), ..url("imaps://ann@h").into() },
            mailboxes: vec!["INBOX".into(), "Lists/\"rust\"".into()],
            poll_interval: Some("5m".into()),
            after: AfterProfile::Move("Archive".into()),
        }),
        ..new_transport()
    };
    let profile = profile_of(vec![new_transport(), full]);
    let transport = &profile.transports[1];
    assert_eq!(transport.aliases, ["a@example.net", "b@example.net"]);
    let smtp = transport.smtp.as_ref().unwrap();
    assert_eq!((smtp.connections, smtp.auth.as_deref()), (Some(2), Some("login")));
    assert_eq!((smtp.messages_per_minute, smtp.recipients_per_message), (Some(28), Some(50)));
    assert_eq!(smtp.login.as_ref().unwrap().password.to_string(), "environment variable SMTP_PW");
    let imap = transport.imap.as_ref().unwrap();
    assert_eq!(imap.login.password.to_string(), "environment variable IMAP_PW");
    assert_eq!((imap.login.user.as_str(), imap.mailboxes.len()), ("ann", 2));
    assert_eq!(imap.after, AfterProfile::Move("Archive".into()));
    assert_eq!(imap.poll_interval, std::time::Duration::from_secs(300));
}

#[test]
fn an_account_can_be_added_behind_a_profile() {
    let transports = vec![new_transport()];
    let new = NewProfile { transports, maildir: "~/Mail".into(), default: true };
    let second = NewTransport { name: "second".into(), ..new_transport() };
    let text = format!("{}{}", *new.to_toml(), *second.to_toml());
    let env = Environment::empty().with("HOME", "/home/ann");
    let profile = Profile::parse("work", &text, Path::new("/c/work.toml"), &env).unwrap();
    let names: Vec<&str> = profile.transports.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["work \"1\"", "second"]);
}

#[test]
fn a_password_is_not_shown_by_accident() {
    let secret = NewPassword::Text(Zeroizing::new("hunter2".to_owned()));
    let new = NewTransport { password: Some(secret), ..new_transport() };
    assert!(!format!("{new:?}").contains("hunter2"));
    assert!(read_back(new).has_text_password());
}
