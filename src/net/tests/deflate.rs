//! Connections that are compressed behind the login (RFC 4978).

use std::net::SocketAddr;
use std::time::Duration;

use async_compression::tokio::bufread::DeflateDecoder;
use async_compression::tokio::write::DeflateEncoder;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};

use super::super::{Compress, ImapLoggedIn, ImapLogin, LoginError, LoginMemory};
use super::peer::{Step, peer};
use super::plain;
use crate::spi::SecretKind;

const OFFER: &str = "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR COMPRESS=DEFLATE] hello\r\n";

const TOLD: &str = "* OK [CAPABILITY IMAP4rev1 COMPRESS=DEFLATE] in\r\n";

async fn log_in(port: u16, compress: Compress) -> Result<ImapLoggedIn, LoginError> {
    log_in_by(port, compress, &LoginMemory::default()).await
}

async fn log_in_by(
    port: u16,
    compress: Compress,
    memory: &LoginMemory,
) -> Result<ImapLoggedIn, LoginError> {
    let connector = plain(port);
    let opened = connector.imap_open().await.unwrap();
    let secret = SecretString::from("secret");
    let login = ImapLogin {
        user: "ann",
        secret: &secret,
        kind: SecretKind::Password,
        wanted: None,
        memory,
        compress,
    };
    connector.imap_login(opened, login).await
}

/// What a server says, compressed.
struct Deflater(DeflateEncoder<Vec<u8>>);

impl Deflater {
    async fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
        std::mem::take(self.0.get_mut())
    }
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
        let mut tcp = logged_in(&listener).await;
        let tag = hear(&mut tcp, "COMPRESS DEFLATE\r\n").await;
        let answer = [format!("{tag} OK\r\n").as_bytes(), &behind].concat();
        tcp.write_all(&answer).await.unwrap();
        then(tcp).await;
    });
    (port, task)
}

/// A server that compresses, and says this in answer to the NOOP that tries it.
async fn compressing<F: Future<Output = ()> + Send>(
    text: Vec<u8>,
    then: impl FnOnce(Lines<Decoder>) -> F + Send + 'static,
) -> (u16, tokio::task::JoinHandle<()>) {
    let mut deflater = Deflater(DeflateEncoder::new(Vec::new()));
    let early = deflater.say(b"* OK early\r\n").await;
    server(early, |tcp| async move {
        let (reader, mut writer) = tcp.into_split();
        let mut lines = BufReader::new(DeflateDecoder::new(BufReader::new(reader))).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let tag = line.strip_suffix(" NOOP").unwrap();
        let answer = [format!("{tag} OK\r\n").as_bytes(), &text].concat();
        writer.write_all(&deflater.say(&answer).await).await.unwrap();
        then(lines).await;
    })
    .await
}

type Decoder = BufReader<DeflateDecoder<BufReader<OwnedReadHalf>>>;

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.unwrap()
}

/// What comes in the same piece as the OK is compressed already.
#[tokio::test]
async fn both_directions_are_compressed_from_the_ok_on() {
    let text: Vec<u8> =
        b"* 1 FETCH (BODY[] {300000}\r\n".iter().copied().cycle().take(300_000).collect();
    let (port, task) = compressing(text.clone(), |mut lines| async move {
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "h5 NOOP");
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "h6 LOGOUT");
        assert_eq!(lines.next_line().await.unwrap(), None);
    })
    .await;
    let mut stream = log_in(port, Compress::Always).await.unwrap().stream;
    assert!(!stream.is_encrypted() && stream.peer_addr().unwrap().port() == port);
    let mut told = vec![0; text.len()];
    in_time(stream.read_exact(&mut told)).await.unwrap();
    assert!(told == text);
    for command in ["h5 NOOP\r\n", "h6 LOGOUT\r\n"] {
        stream.write_all(command.as_bytes()).await.unwrap();
        // Nothing may stay behind in the compressor.
        stream.flush().await.unwrap();
    }
    stream.shutdown().await.unwrap();
    in_time(task).await.unwrap();
}

/// Nobody has to end the compressed data before it closes.
#[tokio::test]
async fn a_server_that_closes_has_closed() {
    let (port, task) = compressing(b"* OK the last word\r\n".to_vec(), |lines| async move {
        drop(lines);
    })
    .await;
    let mut stream = log_in(port, Compress::Always).await.unwrap().stream;
    let mut told = String::new();
    in_time(stream.read_to_string(&mut told)).await.unwrap();
    assert_eq!(told, "* OK the last word\r\n");
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    in_time(task).await.unwrap();
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

/// How a server, or whoever stands before it, breaks at what it offers.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// It hangs up at the command.
    AtCommand,
    /// It says OK and hangs up.
    BehindOk,
    /// It says OK and goes on in clear.
    InClear,
}

/// Reads a command, which has to be this one, and returns its tag.
async fn hear(tcp: &mut TcpStream, command: &str) -> String {
    let mut line = String::new();
    while !line.ends_with('\n') {
        line.push(char::from(tcp.read_u8().await.unwrap()));
    }
    let (tag, said) = line.split_once(' ').unwrap();
    assert!(said.starts_with(command), "{line:?}");
    tag.to_owned()
}

/// Takes a login; returns the connection behind it.
async fn logged_in(listener: &TcpListener) -> TcpStream {
    let (mut tcp, _) = listener.accept().await.unwrap();
    tcp.write_all(OFFER.as_bytes()).await.unwrap();
    let tag = hear(&mut tcp, "AUTHENTICATE PLAIN ").await;
    tcp.write_all(TOLD.replacen('*', &tag, 1).as_bytes()).await.unwrap();
    tcp
}

/// The account works all the same, at once.
#[tokio::test]
async fn who_breaks_at_it_is_not_asked_again() {
    for how in [Break::AtCommand, Break::BehindOk, Break::InClear] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut first = logged_in(&listener).await;
            let tag = hear(&mut first, "COMPRESS DEFLATE\r\n").await;
            let ok = format!("{tag} OK\r\n");
            match how {
                Break::AtCommand => drop(first),
                Break::BehindOk => {
                    first.write_all(ok.as_bytes()).await.unwrap();
                    drop(first);
                }
                Break::InClear => {
                    let clear = format!("{ok}* OK this is clear text\r\n");
                    first.write_all(clear.as_bytes()).await.unwrap();
                    // Until the client goes.
                    while matches!(first.read(&mut [0; 64]).await, Ok(1..)) {}
                }
            }
            for _ in 0..2 {
                let mut next = logged_in(&listener).await;
                next.write_all(b"* OK in clear\r\n").await.unwrap();
            }
        });
        let memory = LoginMemory::default();
        for _ in 0..2 {
            let connecting = in_time(log_in_by(port, Compress::Always, &memory));
            let (mut stream, mut told) = (connecting.await.unwrap().stream, String::new());
            stream.read_to_string(&mut told).await.unwrap();
            assert_eq!(told, "* OK in clear\r\n", "{how:?}");
        }
        in_time(task).await.unwrap();
    }
}

#[test]
fn it_pays_with_other_machines() {
    for (peer, pays) in [
        ("127.0.0.1:143", false),
        ("[::1]:143", false),
        ("[::ffff:127.0.0.1]:143", false),
        ("192.0.2.1:143", true),
        ("[2001:db8::1]:143", true),
    ] {
        let peer: Option<SocketAddr> = Some(peer.parse().unwrap());
        assert_eq!(Compress::WhereItPays.pays(peer), pays, "{peer:?}");
        assert!(Compress::Always.pays(peer) && !Compress::Never.pays(peer));
    }
    assert!(!Compress::WhereItPays.pays(None));
}
