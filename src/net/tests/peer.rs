//! A peer that says and expects what a script tells it.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// One step of a script.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Says this.
    Say(&'static str),
    /// Reads one line, which must begin with this (`*` stands for the tag of an IMAP command).
    Hear(&'static str),
    /// Says this with the last tag heard in the place of `*`.
    Answer(&'static str),
    /// Does the TLS handshake as the server.
    Tls,
    /// Says the same thing again and again until the client goes away.
    Flood(&'static str),
    /// Says nothing more and keeps the connection.
    Hang,
    /// Resets the connection.
    Reset,
}

/// A running script. Dropping it ends it.
pub(super) struct Peer {
    pub(super) port: u16,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Waits for the end of the script and returns the lines heard.
    pub(super) async fn heard(mut self) -> Vec<String> {
        let task = std::mem::replace(&mut self.task, tokio::spawn(async { Vec::new() }));
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap()
    }
}

/// Starts a peer that takes one connection.
pub(super) async fn peer(script: Vec<Step>, acceptor: Option<TlsAcceptor>) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        play(tcp, script, acceptor, &mut heard).await;
        heard
    });
    Peer { port, task }
}

async fn play(
    tcp: TcpStream,
    script: Vec<Step>,
    acceptor: Option<TlsAcceptor>,
    heard: &mut Vec<String>,
) {
    let mut steps = script.into_iter();
    let mut tcp = tcp;
    while let Some(step) = steps.next() {
        match step {
            Step::Tls => {
                let acceptor = acceptor.unwrap();
                // A client that does not like the certificate ends here.
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    for step in steps {
                        follow(&mut tls, step, heard).await;
                    }
                }
                return;
            }
            Step::Reset => {
                tcp.set_zero_linger().unwrap();
                return;
            }
            step => follow(&mut tcp, step, heard).await,
        }
    }
}

async fn follow<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    step: Step,
    heard: &mut Vec<String>,
) {
    match step {
        Step::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
        Step::Hear(wanted) => {
            let line = line(stream).await;
            match wanted.strip_prefix("* ") {
                Some(rest) => {
                    let (_, command) = line.split_once(' ').unwrap();
                    assert!(command.starts_with(rest), "{command:?} instead of {rest:?}");
                }
                None => assert!(line.starts_with(wanted), "{line:?} instead of {wanted:?}"),
            }
            heard.push(line);
        }
        Step::Answer(text) => {
            let tag = heard.iter().rev().find_map(|line| {
                line.split_once(' ').map(|(tag, _)| tag).filter(|tag| tag.starts_with('h'))
            });
            let text = text.replacen('*', tag.unwrap(), 1);
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        Step::Flood(text) => while stream.write_all(text.as_bytes()).await.is_ok() {},
        Step::Hang => std::future::pending().await,
        Step::Tls | Step::Reset => unreachable!("only on the bare connection"),
    }
}

async fn line<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) => line.push(byte),
            Err(_) => return String::from("<closed> "),
        }
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flaw {
    None,
    Expired,
    Future,
    WrongName,
}

/// A certificate for `localhost` with an authority of its own.
pub(super) struct Identity {
    pub(super) acceptor: TlsAcceptor,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) ca_pem: String,
}

pub(super) fn identity(flaw: Flaw) -> Identity {
    let (certificate, key, ca_pem) = identity_of(flaw);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    Identity { acceptor: TlsAcceptor::from(Arc::new(config)), certificate, ca_pem }
}

/// Certificate, key, and the authority that signed it.
pub(super) fn identity_of(flaw: Flaw) -> (CertificateDer<'static>, PrivateKeyDer<'static>, String) {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Authorities of the same name are told apart by their signature only.
    let name = format!("authority {}", fastrand::u64(..));
    authority.distinguished_name.push(DnType::CommonName, name);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();

    let name = if matches!(flaw, Flaw::WrongName) { "mail.example.org" } else { "localhost" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    match flaw {
        Flaw::Expired => {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        Flaw::Future => {
            params.not_before = date_time_ymd(4000, 1, 1);
            params.not_after = date_time_ymd(4001, 1, 1);
        }
        Flaw::None | Flaw::WrongName => {}
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (certificate.der().clone(), key, authority.pem())
}
