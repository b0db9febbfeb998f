#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use postoffice::{
    Action, Fault as OfficeFault, Listener, PostOffice, SmtpAction, SmtpExtension, SmtpPhase,
};

use super::*;
use crate::clock::SystemClock;
use crate::net::TlsMode;
use crate::transport::events::TroubleKind;
use crate::transport::outbound::testing::{Password, RunningOut, short_deadlines, smtp_settings};

async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").start().await.unwrap()
}

fn dialer(settings: &SmtpSettings) -> SmtpDialer {
    let deadlines = Deadlines { command: std::time::Duration::from_secs(5), ..short_deadlines() };
    SmtpDialer::new(settings, "client.example.org", deadlines, Arc::new(SystemClock))
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

/// Two offices whose certificates the settings trust; the second one is the fallback.
async fn two_offices(tls: TlsMode) -> (PostOffice, PostOffice, SmtpSettings, tempfile::TempDir) {
    let (first, second) = (office().await, office().await);
    let (mut settings, folder) = smtp_settings(&first, tls);
    let both = format!("{}\n{}", first.ca_pem(), second.ca_pem());
    std::fs::write(folder.path().join("ca.pem"), both).unwrap();
    let listener = if tls == TlsMode::Implicit { Listener::Smtps } else { Listener::Smtp };
    let place = second.address(listener).unwrap().to_string();
    settings.fallback = vec![settings.server.beside(&place).unwrap()];
    (first, second, settings, folder)
}

fn connections(office: &PostOffice) -> u64 {
    office.counters(postoffice::Protocol::Smtp).connections
}

#[tokio::test]
async fn the_next_host_is_for_a_host_out_of_reach_and_for_nothing_else() {
    use SmtpPhase::{Auth, Connect, Ehlo, Greeting, StartTls};
    let cases: Vec<(SmtpPhase, SmtpAction, bool)> = vec![
        (Connect, Action::Drop.into(), true),
        (Greeting, SmtpAction::reply(421, "4.3.2", "maintenance"), true),
        (Greeting, SmtpAction::reply(421, "4.7.0", "too many connections"), true),
        (Greeting, Action::Drop.into(), true),
        (Ehlo, SmtpAction::reply(421, "4.3.2", "maintenance"), true),
        (StartTls, Action::Drop.into(), true),
        (Greeting, SmtpAction::reply(554, "5.3.2", "no service"), false),
        (Ehlo, SmtpAction::reply(550, "5.7.1", "not you"), false),
        (StartTls, SmtpAction::reply(502, "5.5.1", "what"), false),
        (StartTls, Action::Append(b"250 injected\r\n".to_vec()).into(), false),
        (Auth, SmtpAction::reply(535, "5.7.8", "no"), false),
        (Auth, SmtpAction::reply(454, "4.7.0", "later"), false),
        (Auth, Action::Drop.into(), false),
    ];
    let (first, second, settings, _folder) = two_offices(TlsMode::StartTls).await;
    for (phase, action, goes_on) in cases {
        let handle = first.inject(OfficeFault::smtp(phase, action.clone()));
        let before = connections(&second);
        let dialer = dialer(&settings);
        let dialled = dialer.dial().await;
        assert_eq!(dialled.is_ok(), goes_on, "{phase:?} {action:?}");
        assert_eq!(connections(&second) - before, u64::from(goes_on), "{phase:?} {action:?}");
        assert_eq!(dialer.detour().is_some(), goes_on, "{phase:?} {action:?}");
        handle.remove();
    }
}

#[tokio::test]
async fn no_password_goes_to_a_host_without_the_tls_that_is_demanded() {
    let (first, second, settings, _folder) = two_offices(TlsMode::StartTls).await;
    first.stop().await;
    second.withhold(SmtpExtension::StartTls);
    let failure = dialer(&settings).dial().await.err().unwrap();
    assert_eq!(failure.trouble_kind(), TroubleKind::Tls, "{}", failure.words());
    assert!(!second.transcript_text().contains("C: AUTH"), "{}", second.transcript_text());

    // A certificate for somebody else is no better: what is demanded is demanded of each.
    let (first, second, settings, folder) = two_offices(TlsMode::Implicit).await;
    std::fs::write(folder.path().join("ca.pem"), first.ca_pem()).unwrap();
    first.stop().await;
    let failure = dialer(&settings).dial().await.err().unwrap();
    assert_eq!(failure.trouble_kind(), TroubleKind::Tls, "{}", failure.words());
    assert!(!second.transcript_text().contains("C: AUTH"), "{}", second.transcript_text());
}

#[tokio::test]
async fn the_first_host_is_tried_again_after_a_while() {
    use crate::clock::ManualClock;
    use crate::mapi::SysTime;
    let (first, second, settings, _folder) = two_offices(TlsMode::Plain).await;
    let clock = ManualClock::new(SysTime::from_millis(1_700_000_000_000));
    let dialer = SmtpDialer::new(&settings, "client", short_deadlines(), Arc::new(clock.clone()));
    first.stop().await;
    dialer.dial().await.unwrap();
    first.restart().await.unwrap();
    let before = connections(&first);
    dialer.dial().await.unwrap();
    assert_eq!((connections(&first) - before, connections(&second)), (0, 2));
    clock.advance(std::time::Duration::from_secs(300));
    dialer.dial().await.unwrap();
    assert_eq!((connections(&first) - before, connections(&second)), (1, 2));
    assert_eq!(dialer.detour(), None);
}

#[tokio::test]
async fn when_no_host_can_be_reached_each_is_named() {
    let (first, second, settings, _folder) = two_offices(TlsMode::Plain).await;
    first.stop().await;
    second.stop().await;
    let failure = dialer(&settings).dial().await.err().unwrap();
    assert_eq!(failure.trouble_kind(), TroubleKind::Network);
    for server in [&settings.server, &settings.fallback[0]] {
        assert!(failure.words().contains(&server.place()), "{}", failure.words());
    }
}

/// RFC 7677 with RFC 9266: the login is bound to the TLS connection where the server offers that.
#[tokio::test]
async fn a_login_is_bound_to_its_connection() {
    use crate::net::tests::bound::{Manner, ScramServer, Speech};
    let office = office().await;
    for (manner, wanted, works, flag) in [
        (Manner::Honest, None, true, "p=tls-exporter"),
        (Manner::Elsewhere, Some("scram-sha-256-plus"), false, "p=tls-exporter"),
    ] {
        let version = &rustls::version::TLS13;
        let server = ScramServer::start(Speech::Smtp, manner, version).await;
        let (mut settings, _folder) = smtp_settings(&office, TlsMode::Implicit);
        settings.server.port = server.port;
        let digest = ring::digest::digest(&ring::digest::SHA256, server.certificate.as_ref());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        settings.server.trust = crate::net::Trust::Fingerprint(crate::net::Fingerprint(bytes));
        settings.auth = wanted.map(str::to_owned);
        let source = Arc::new(Password::new("pencil")) as Arc<dyn crate::spi::SecretSource>;
        settings.credentials = Some(Credentials { user: "ann".to_owned(), password: source });
        let connected = dialer(&settings).connect().await;
        let mechanism = connected.map(|(_, report)| report.mechanism);
        let kind = mechanism.as_ref().map_err(Failure::trouble_kind);
        match works {
            true => assert_eq!(kind.ok(), Some(&Some("SCRAM-SHA-256-PLUS"))),
            false => assert_eq!(kind.err(), Some(TroubleKind::LoginRefused)),
        }
        assert_eq!(server.heard().await.as_deref(), Some(flag));
    }
}

/// RFC 4422 appendix A over a connection whose handshake asks for a certificate.
#[tokio::test]
async fn a_certificate_is_a_login() {
    use rcgen::{CertificateParams, KeyPair};
    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

    let office = office().await;
    let (mut settings, folder) = smtp_settings(&office, TlsMode::Implicit);
    let made = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap(), key)
    };
    let ((server, server_key), (client, client_key)) = (made("localhost"), made("ann"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(client.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = tokio::io::BufStream::new(acceptor.accept(tcp).await.unwrap());
        let mut heard = Vec::new();
        for reply in ["220 hello", "250-hello\r\n250 AUTH PLAIN EXTERNAL", "235 2.7.0 in"] {
            if !reply.starts_with("220") {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                heard.push(line);
            }
            stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        (heard, stream)
    });
    let write = |name: &str, text: String| {
        use std::os::unix::fs::PermissionsExt;
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    };
    settings.server.port = port;
    settings.server.host = "localhost".to_owned();
    settings.server.trust = crate::net::Trust::CaFile(write("server.pem", server.pem()));
    settings.server.client = Some(crate::net::ClientCertificate {
        certificate: write("client.pem", client.pem()),
        key: write("client.key", client_key.serialize_pem()),
    });
    settings.auth = Some("external".to_owned());
    let source = crate::profile::Password::Certificate.source();
    settings.credentials = Some(Credentials { user: String::new(), password: source });
    let (_, report) = dialer(&settings).connect().await.unwrap();
    assert_eq!(report.mechanism, Some("EXTERNAL"));
    let (heard, _) = serving.await.unwrap();
    assert_eq!(heard.last().unwrap(), "AUTH EXTERNAL =\r\n");
}

/// Each has its token renewed by the one it showed itself.
#[tokio::test]
async fn two_logins_refused_with_one_token_both_get_the_new_one() {
    let office = PostOffice::builder().token("ann", "new").start().await.unwrap();
    let (mut settings, _folder) = smtp_settings(&office, TlsMode::Implicit);
    settings.credentials = Some(RunningOut::new(2).credentials());
    let dialer = dialer(&settings);
    let both = async { tokio::join!(dialer.dial(), dialer.dial()) };
    let (one, other) =
        tokio::time::timeout(std::time::Duration::from_secs(60), both).await.unwrap();
    assert!(one.is_ok() && other.is_ok(), "{:?} {:?}", one.err(), other.err());
}
