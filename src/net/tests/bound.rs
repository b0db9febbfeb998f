//! Logins that are bound to their TLS connection, at a server that knows its own end of it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::{
    Cleartext, Compress, Connector, Deadlines, ImapLogin, LoginError, LoginMemory, Server, TlsMode,
    Trust, tls,
};
use super::peer::{Flaw, identity_of};
use crate::spi::SecretKind;

const PASSWORD: &str = "pencil";
const SALT: &[u8] = b"salt and pepper";
const ROUNDS: u32 = 4096;

/// Which protocol a server speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speech {
    Imap,
    Smtp,
}

/// What a server does with channel bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It takes only what is bound to its own end.
    Honest,
    /// It takes that for another connection's, as where somebody stands between.
    Elsewhere,
    /// It can, and somebody has taken that out of what it offers.
    Hidden,
}

/// A server for one login by SCRAM.
pub(crate) struct ScramServer {
    pub(crate) port: u16,
    pub(crate) certificate: CertificateDer<'static>,
    task: tokio::task::JoinHandle<Option<String>>,
}

impl ScramServer {
    pub(crate) async fn start(
        speech: Speech,
        manner: Manner,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Self {
        let (certificate, key, _) = identity_of(Flaw::None);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = certificate.clone();
        let task = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let tls = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.unwrap();
            serve(tls, speech, manner, &shown).await
        });
        ScramServer { port, certificate, task }
    }

    /// What the client said of binding; `None` when it said nothing that fits.
    pub(crate) async fn heard(self) -> Option<String> {
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap()
    }
}

/// The server's end of a connection, by its kind.
fn binding(
    tls: &TlsStream<TcpStream>,
    certificate: &CertificateDer<'_>,
) -> (&'static str, Vec<u8>) {
    let connection = tls.get_ref().1;
    match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => {
            let label = b"EXPORTER-Channel-Binding";
            let data = connection.export_keying_material(vec![0_u8; 32], label, None).unwrap();
            ("tls-exporter", data)
        }
        _ => {
            let data = digest::digest(&digest::SHA256, certificate.as_ref());
            ("tls-server-end-point", data.as_ref().to_vec())
        }
    }
}

async fn serve(
    tls: TlsStream<TcpStream>,
    speech: Speech,
    manner: Manner,
    certificate: &CertificateDer<'_>,
) -> Option<String> {
    let (kind, mut data) = binding(&tls, certificate);
    if manner == Manner::Elsewhere {
        data[0] ^= 1;
    }
    let offers = match (manner, speech) {
        (Manner::Hidden, Speech::Imap) => "AUTH=SCRAM-SHA-256",
        (Manner::Hidden, Speech::Smtp) => "SCRAM-SHA-256",
        (_, Speech::Imap) => "AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS",
        (_, Speech::Smtp) => "SCRAM-SHA-256 SCRAM-SHA-256-PLUS",
    };
    let mut stream = BufStream::new(tls);
    let prompt = match speech {
        Speech::Imap => {
            say(&mut stream, &format!("* OK [CAPABILITY IMAP4rev1 SASL-IR {offers}] hello")).await;
            "+"
        }
        Speech::Smtp => {
            say(&mut stream, "220 hello").await;
            hear(&mut stream).await?;
            say(&mut stream, &format!("250-hello\r\n250 AUTH {offers}")).await;
            "334"
        }
    };
    let command = hear(&mut stream).await?;
    let tag = command.split(' ').next()?.to_owned();
    let first = text(command.rsplit(' ').next()?)?;
    let bare = first.splitn(3, ',').nth(2)?.to_owned();
    let flag = first.split(',').next()?.to_owned();
    let nonce = format!("{}server", bare.split_once("r=")?.1);
    let server_first = format!("r={nonce},s={},i={ROUNDS}", STANDARD.encode(SALT));
    say(&mut stream, &format!("{prompt} {}", STANDARD.encode(&server_first))).await;
    let last = text(&hear(&mut stream).await?)?;
    let (without_proof, proof) = last.rsplit_once(",p=")?;
    let wanted = match flag.strip_prefix("p=") {
        Some(named) if named == kind => [format!("{flag},,").as_bytes(), &data].concat(),
        // Who could have been bound and was told that it is not offered: somebody lies.
        None if flag == "n" => b"n,,".to_vec(),
        _ => Vec::new(),
    };
    let bound = without_proof.split(',').next()?.strip_prefix("c=")?;
    let words = format!("{bare},{server_first},{without_proof}");
    let (server_signature, right) = check(&words, &STANDARD.decode(proof).ok()?);
    if !right || STANDARD.decode(bound).ok()? != wanted {
        let refusal = match speech {
            Speech::Imap => format!("{tag} NO [AUTHENTICATIONFAILED] no"),
            Speech::Smtp => "535 5.7.8 no".to_owned(),
        };
        say(&mut stream, &refusal).await;
        return Some(flag);
    }
    let signature = STANDARD.encode(format!("v={server_signature}"));
    say(&mut stream, &format!("{prompt} {signature}")).await;
    hear(&mut stream).await?;
    let done = match speech {
        Speech::Imap => format!("{tag} OK [CAPABILITY IMAP4rev1] in"),
        Speech::Smtp => "235 2.7.0 in".to_owned(),
    };
    say(&mut stream, &done).await;
    Some(flag)
}

/// The server's signature, and whether the client's proof is right.
fn check(words: &str, proof: &[u8]) -> (String, bool) {
    let mut salted = [0_u8; 32];
    let rounds = std::num::NonZeroU32::new(ROUNDS).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, SALT, PASSWORD.as_bytes(), &mut salted);
    let sign = |key: &[u8], words: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), words).as_ref().to_vec()
    };
    let client_key = sign(&salted, b"Client Key");
    let stored = digest::digest(&digest::SHA256, &client_key);
    let signature = sign(stored.as_ref(), words.as_bytes());
    let wanted: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let server = sign(&sign(&salted, b"Server Key"), words.as_bytes());
    (STANDARD.encode(server), wanted == proof)
}

type Line = BufStream<TlsStream<TcpStream>>;

async fn say(stream: &mut Line, words: &str) {
    stream.write_all(format!("{words}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut Line) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}

fn text(encoded: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

async fn log_in(server: &ScramServer, wanted: Option<&str>) -> Result<(), LoginError> {
    let trust = Trust::Fingerprint(tls::fingerprint(&server.certificate));
    let (host, port) = ("localhost".to_owned(), server.port);
    let server = Server { host, port, tls: TlsMode::Implicit, trust, client: None };
    let connector = Connector::new(server, Deadlines::default(), Cleartext::LoopbackOnly);
    let opened = connector.imap_open().await?;
    let (secret, memory) = (SecretString::from(PASSWORD), LoginMemory::default());
    let login = ImapLogin {
        user: "ann",
        secret: &secret,
        kind: SecretKind::Password,
        wanted,
        memory: &memory,
        compress: Compress::Never,
    };
    connector.imap_login(opened, login).await.map(|_| ())
}

#[tokio::test]
async fn a_login_is_bound_to_the_connection_under_both_versions_of_tls() {
    for (version, flag) in [
        (&rustls::version::TLS13, "p=tls-exporter"),
        (&rustls::version::TLS12, "p=tls-server-end-point"),
    ] {
        for wanted in [None, Some("scram-sha-256-plus")] {
            let server = ScramServer::start(Speech::Imap, Manner::Honest, version).await;
            log_in(&server, wanted).await.unwrap();
            assert_eq!(server.heard().await.as_deref(), Some(flag));
        }
    }
}

#[tokio::test]
async fn a_login_for_another_connection_is_no_login() {
    let version = &rustls::version::TLS13;
    let server = ScramServer::start(Speech::Imap, Manner::Elsewhere, version).await;
    let refused = log_in(&server, Some("scram-sha-256-plus")).await.unwrap_err();
    assert!(matches!(refused, LoginError::Refused { .. }), "{refused}");
    assert_eq!(server.heard().await.as_deref(), Some("p=tls-exporter"));
}

/// RFC 5802 section 6: the server that could learns that the client could, too.
#[tokio::test]
async fn a_server_learns_that_its_offer_was_taken_out() {
    let version = &rustls::version::TLS13;
    let server = ScramServer::start(Speech::Imap, Manner::Hidden, version).await;
    assert!(log_in(&server, None).await.is_err());
    assert_eq!(server.heard().await.as_deref(), Some("y"));
}
