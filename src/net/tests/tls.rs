//! Whether the server is who it should be.

use std::io::Write;

use super::super::{Fingerprint, NetErrorKind, Phase, TlsMode, TlsReason, Trust, tls};
use super::connector;
use super::peer::{Flaw, Identity, Step, identity, peer};

fn ca_file(identity: &Identity) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(identity.ca_pem.as_bytes()).unwrap();
    file
}

async fn outcome(identity: &Identity, trust: Trust) -> Result<(), NetErrorKind> {
    let script = vec![Step::Tls, Step::Say("220 hello\r\n"), Step::Hang];
    let peer = peer(script, Some(identity.acceptor.clone())).await;
    let connector = connector(peer.port, TlsMode::Implicit, trust);
    connector.smtp_open("client").await.map(|_| ()).map_err(|error| error.kind)
}

#[tokio::test]
async fn certificates_are_checked_against_the_ca_file() {
    let cases = [
        (Flaw::None, Ok(())),
        (Flaw::Expired, Err(NetErrorKind::Tls(TlsReason::Expired))),
        (Flaw::Future, Err(NetErrorKind::Tls(TlsReason::NotYetValid))),
        (Flaw::WrongName, Err(NetErrorKind::Tls(TlsReason::WrongName))),
    ];
    for (flaw, wanted) in cases {
        let identity = identity(flaw);
        let file = ca_file(&identity);
        let got = outcome(&identity, Trust::CaFile(file.path().into())).await;
        assert_eq!(got, wanted, "{flaw:?}");
    }
}

#[tokio::test]
async fn an_unknown_issuer_is_refused() {
    let (served, other) = (identity(Flaw::None), identity(Flaw::None));
    let file = ca_file(&other);
    let got = outcome(&served, Trust::CaFile(file.path().into())).await;
    assert_eq!(got, Err(NetErrorKind::Tls(TlsReason::UnknownIssuer)));
}

#[tokio::test]
async fn a_fingerprint_trusts_that_certificate_and_no_other() {
    for flaw in [Flaw::None, Flaw::Expired, Flaw::WrongName] {
        let identity = identity(flaw);
        let right = tls::fingerprint(&identity.certificate);
        assert_eq!(outcome(&identity, Trust::Fingerprint(right)).await, Ok(()), "{flaw:?}");
        let wrong = Trust::Fingerprint(Fingerprint([7; 32]));
        let got = outcome(&identity, wrong).await;
        assert_eq!(got, Err(NetErrorKind::Tls(TlsReason::Fingerprint)));
    }
}

#[tokio::test]
async fn a_fingerprint_error_names_the_certificate_that_was_shown() {
    let identity = identity(Flaw::None);
    let peer = peer(vec![Step::Tls], Some(identity.acceptor.clone())).await;
    let trust = Trust::Fingerprint(Fingerprint([7; 32]));
    let error = connector(peer.port, TlsMode::Implicit, trust).smtp_open("client").await;
    let words = error.unwrap_err().to_string();
    let shown = tls::fingerprint(&identity.certificate).to_string();
    assert!(words.contains(&shown), "{words}");
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_a_matter_of_settings() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for path in ["/nonexistent/ca.pem".into(), empty.path().to_owned()] {
        let connector = connector(1, TlsMode::Implicit, Trust::CaFile(path.clone()));
        let error = connector.smtp_open("client").await.unwrap_err();
        assert_eq!(error.kind, NetErrorKind::Settings);
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

#[tokio::test]
async fn a_port_that_speaks_first_is_told_apart_from_tls() {
    let identity = identity(Flaw::None);
    let file = ca_file(&identity);
    let peer = peer(vec![Step::Say("220 hello\r\n"), Step::Hang], None).await;
    let trust = Trust::CaFile(file.path().into());
    let error = connector(peer.port, TlsMode::Implicit, trust).smtp_open("client").await;
    assert_eq!(error.unwrap_err().kind, NetErrorKind::Tls(TlsReason::NotTls));
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let peer = peer(vec![Step::Hang], None).await;
    let trust = Trust::Fingerprint(Fingerprint([0; 32]));
    let error = connector(peer.port, TlsMode::Implicit, trust).smtp_open("client").await;
    assert_eq!(error.unwrap_err().kind, NetErrorKind::Timeout(Phase::Tls));
}
