//! Connections that are compressed behind the login (RFC 4978).

use std::time::Duration;

use async_compression::tokio::bufread::DeflateDecoder;
use async_compression::tokio::write::DeflateEncoder;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::{Compress, ImapLoggedIn, ImapLogin, LoginError, LoginMemory};
use super::peer::{Step, peer};
use super::plain;
use crate::spi::SecretKind;

const OFFER: &str = "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR COMPRESS=DEFLATE] hello\r\n";

const TOLD: &str = "* OK [CAPABILITY IMAP4rev1 COMPRESS=DEFLATE] in\r\n";

async fn log_in(port: u16, compress: Compress) -> Result<ImapLoggedIn, LoginError> {
    let connector = plain(port);
    let opened = connector.imap_open().await.unwrap();
    let (secret, memory) = (SecretString::from("secret"), LoginMemory::default());
    let login = ImapLogin {
        user: "ann",
        secret: &secret,
        kind: SecretKind::Password,
        wanted: None,
        memory: &memory,
        compress,
    };
    connector.imap_login(opened, login).await
}

/// A server that takes the login and COMPRESS, says `behind` right behind its OK, and is then given
/// to `then`.
async fn server<F: Future<Output = ()> + Send>(
    behind: Vec<u8>,
    then: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(OFFER.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(&mut tcp);
        for (command, answer) in
            [("AUTHENTICATE PLAIN ", TOLD), ("COMPRESS DEFLATE\r\n", "* OK\r\n")]
        {
            let mut line = String::new();
            lines.read_line(&mut line).await.unwrap();
            let (tag, said) = line.split_once(' ').unwrap();
            assert!(said.starts_with(command), "{line:?}");
            let mut answer = answer.replacen('*', tag, 1).into_bytes();
            if command.starts_with("COMPRESS") {
                answer.extend_from_slice(&behind);
            }
            lines.write_all(&answer).await.unwrap();
        }
        assert!(lines.buffer().is_empty());
        then(tcp).await;
    });
    (port, task)
}

async fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new());
    encoder.write_all(bytes).await.unwrap();
    encoder.flush().await.unwrap();
    encoder.into_inner()
}

/// What comes in the same piece as the OK is compressed already.
#[tokio::test]
async fn both_directions_are_compressed_from_the_ok_on() {
    let text: Vec<u8> =
        b"* 1 FETCH (BODY[] {300000}\r\n".iter().copied().cycle().take(300_000).collect();
    let whole = deflated(&text).await;
    let (early, late) = (whole[..whole.len() / 2].to_vec(), whole[whole.len() / 2..].to_vec());
    let (port, task) = server(early, |mut tcp| async move {
        tcp.write_all(&late).await.unwrap();
        let (reader, _writer) = tcp.split();
        let mut lines = BufReader::new(DeflateDecoder::new(BufReader::new(reader))).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "h5 NOOP");
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "h6 LOGOUT");
        assert_eq!(lines.next_line().await.unwrap(), None);
    })
    .await;
    let mut stream = log_in(port, Compress::Always).await.unwrap().stream;
    assert!(!stream.is_encrypted() && stream.peer_addr().unwrap().port() == port);
    let mut told = vec![0; text.len()];
    stream.read_exact(&mut told).await.unwrap();
    assert!(told == text);
    for command in ["h5 NOOP\r\n", "h6 LOGOUT\r\n"] {
        stream.write_all(command.as_bytes()).await.unwrap();
        // Nothing may stay behind in the compressor.
        stream.flush().await.unwrap();
    }
    stream.shutdown().await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_refused_goes_on_as_before() {
    let script = vec![
        Step::Say(OFFER),
        Step::Hear("* AUTHENTICATE PLAIN"),
        Step::Answer(TOLD),
        Step::Hear("* COMPRESS DEFLATE"),
        Step::Answer("* NO [COMPRESSIONACTIVE] TLS does it\r\n"),
        Step::Say("* OK in clear\r\n"),
    ];
    let peer = peer(script, None).await;
    let mut stream = log_in(peer.port, Compress::Always).await.unwrap().stream;
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, "* OK in clear\r\n");
}

/// On this machine it would not pay; and it is not asked for where it is not offered.
#[tokio::test]
async fn it_is_asked_for_only_where_it_is_wanted_and_offered() {
    let cases = [
        (Compress::WhereItPays, OFFER, TOLD),
        (Compress::Never, OFFER, TOLD),
        (Compress::Always, OFFER, "* OK [CAPABILITY IMAP4rev1] in\r\n"),
    ];
    for (compress, offer, told) in cases {
        let script = vec![Step::Say(offer), Step::Hear("* AUTHENTICATE PLAIN"), Step::Answer(told)];
        let peer = peer(script, None).await;
        log_in(peer.port, compress).await.unwrap();
        assert_eq!(peer.heard().await.len(), 1, "{compress:?}");
    }
}

#[tokio::test]
async fn what_is_not_deflate_is_an_error() {
    let (port, _task) = server(b"* OK this is clear text\r\n".to_vec(), |tcp| async move {
        drop(tcp);
    })
    .await;
    let mut stream = log_in(port, Compress::Always).await.unwrap().stream;
    let mut told = Vec::new();
    let read = stream.read_to_end(&mut told);
    let error = tokio::time::timeout(Duration::from_secs(30), read).await.unwrap().unwrap_err();
    assert!(error.kind() != std::io::ErrorKind::ConnectionReset, "{error}");
}
