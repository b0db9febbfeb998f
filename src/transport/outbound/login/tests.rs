#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use postoffice::{
    Action, Fault as OfficeFault, Listener, PostOffice, SmtpAction, SmtpExtension, SmtpPhase,
};

use super::*;
use crate::net::TlsMode;
use crate::transport::events::TroubleKind;
use crate::transport::outbound::testing::{Password, short_deadlines, smtp_settings};

async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").start().await.unwrap()
}

fn dialer(settings: &SmtpSettings) -> SmtpDialer {
    let deadlines = Deadlines { command: std::time::Duration::from_secs(5), ..short_deadlines() };
    SmtpDialer::new(settings, "client.example.org", deadlines)
}

#[tokio::test]
async fn logs_in_over_every_kind_of_connection() {
    let office = office().await;
    for tls in [TlsMode::Plain, TlsMode::StartTls, TlsMode::Implicit] {
        let (settings, _folder) = smtp_settings(&office, tls);
        let (connection, report) = dialer(&settings).connect().await.unwrap();
        assert!(connection.is_usable() && !connection.is_used());
        assert_eq!(report.protection.is_some(), tls != TlsMode::Plain);
        assert_eq!(report.mechanism, Some("PLAIN"));
        assert!(report.offers.pipelining && report.offers.eight_bit_mime);
        assert!(!report.offers.starttls || tls == TlsMode::Plain);
        connection.quit().await;
    }
}

#[tokio::test]
async fn login_is_used_where_plain_is_not_offered() {
    let office = PostOffice::builder()
        .user("ann", "secret")
        .withhold(postoffice::Mechanism::Plain)
        .start()
        .await
        .unwrap();
    let (settings, _folder) = smtp_settings(&office, TlsMode::Implicit);
    let (_, report) = dialer(&settings).connect().await.unwrap();
    assert_eq!(report.mechanism, Some("LOGIN"));
}

#[tokio::test]
async fn a_mended_password_is_used_at_the_next_try() {
    let office = office().await;
    let (mut settings, _folder) = smtp_settings(&office, TlsMode::StartTls);
    let password = Arc::new(Password::new("wrong"));
    let source = Arc::clone(&password) as Arc<dyn crate::spi::SecretSource>;
    settings.credentials = Some(Credentials { user: "ann".to_owned(), password: source });
    let dialer = dialer(&settings);
    let failure = dialer.dial().await.err().unwrap();
    assert_eq!(failure.trouble_kind(), TroubleKind::LoginRefused);
    assert!(!failure.words().contains("wrong"), "{}", failure.words());
    password.set("secret");
    assert!(dialer.dial().await.is_ok());
}

#[tokio::test]
async fn what_keeps_us_out_is_told_apart() {
    use SmtpPhase::{Auth, Connect, Ehlo, Greeting, StartTls};
    let cases: Vec<(SmtpPhase, SmtpAction, TroubleKind)> = vec![
        (Greeting, SmtpAction::reply(421, "4.3.2", "maintenance"), TroubleKind::Network),
        (Greeting, SmtpAction::reply(554, "5.3.2", "no service"), TroubleKind::Server),
        (Greeting, SmtpAction::reply(421, "4.7.0", "too many connections"), TroubleKind::Throttled),
        (Connect, Action::Drop.into(), TroubleKind::Network),
        (Greeting, Action::Replace(b"hello\r\n".to_vec()).into(), TroubleKind::Server),
        (Ehlo, SmtpAction::reply(451, "4.3.0", "later"), TroubleKind::Network),
        (Ehlo, SmtpAction::reply(550, "5.7.1", "not you"), TroubleKind::Server),
        (Ehlo, SmtpAction::reply(502, "5.5.1", "what"), TroubleKind::Tls),
        (StartTls, SmtpAction::reply(421, "4.3.2", "maintenance"), TroubleKind::Network),
        (StartTls, SmtpAction::reply(502, "5.5.1", "what"), TroubleKind::Tls),
        (StartTls, SmtpAction::reply(454, "4.7.0", "no TLS now"), TroubleKind::Tls),
        (StartTls, Action::Append(b"250 injected\r\n".to_vec()).into(), TroubleKind::Tls),
        (Auth, SmtpAction::reply(535, "5.7.8", "no"), TroubleKind::LoginRefused),
        (Auth, SmtpAction::reply(454, "4.7.0", "later"), TroubleKind::Throttled),
        (Auth, Action::Drop.into(), TroubleKind::Network),
    ];
    let office = office().await;
    let (settings, _folder) = smtp_settings(&office, TlsMode::StartTls);
    for (phase, action, kind) in cases {
        let handle = office.inject(OfficeFault::smtp(phase, action.clone()));
        let failure = dialer(&settings).dial().await.err().unwrap();
        assert_eq!(failure.trouble_kind(), kind, "{phase:?} {action:?}: {}", failure.words());
        assert!(failure.verdict.is_lane_trouble(), "{phase:?}");
        handle.remove();
    }
    let handle = office.inject(OfficeFault::smtp(Ehlo, Action::Drop).nth(2));
    let failure = dialer(&settings).dial().await.err().unwrap();
    assert_eq!(failure.trouble_kind(), TroubleKind::Network);
    handle.remove();
    assert!(dialer(&settings).dial().await.is_ok());
}

#[tokio::test]
async fn a_server_without_ehlo_is_spoken_to_without_a_login() {
    let office = PostOffice::builder().withhold(SmtpExtension::Ehlo).start().await.unwrap();
    let (mut settings, _folder) = smtp_settings(&office, TlsMode::Plain);
    let failure = dialer(&settings).dial().await.err().unwrap();
    assert_eq!(failure.trouble_kind(), TroubleKind::Server);
    settings.credentials = None;
    let (_, report) = dialer(&settings).connect().await.unwrap();
    assert_eq!((report.offers, report.mechanism), (Capabilities::default(), None));
    assert_eq!(office.port(Listener::Smtp), settings.server.port);
}
