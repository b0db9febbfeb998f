//! The real ways to the world, to servers of this process: packets of DNS, HTTP and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

use crate::discovery::{
    Dns, HttpsWeb, MxRecord, Reach, Reached, SrvRecord, SystemDns, TlsReach, Web,
};
use crate::net::Trust;
use crate::profile::ServerUrl;

/// The name of a question as the packet writes it.
fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A name server that knows one SRV and two MX records, says NXDOMAIN to all else, and does not
/// answer at all about `silent.`.
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let place = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            if let Some(answer) = answer(&packet[..length]) {
                socket.send_to(&answer, peer).await.unwrap();
            }
        }
    });
    place
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    // Twelve bytes of header, then the name, its type and its class.
    let end = 12 + question[12..].iter().position(|byte| *byte == 0)? + 1;
    let asked = question[12..end].to_ascii_lowercase();
    let kind = u16::from_be_bytes([question[end], question[end + 1]]);
    let mut records = Vec::new();
    if kind == 33 && asked == name("_imaps._tcp.example.org") {
        let mut data = [0, 10, 0, 5, 3, 225].to_vec();
        data.extend(name("Imap.example.org"));
        records.push(data);
    } else if kind == 15 && asked == name("example.org") {
        for (preference, host) in [(20, "b.example.net"), (10, "a.example.net")] {
            let mut data = vec![0, preference];
            data.extend(name(host));
            records.push(data);
        }
    } else if asked == name("silent.example.org") {
        return None;
    }
    let mut packet = question[..2].to_vec();
    let code = if records.is_empty() { 3 } else { 0 };
    packet.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    packet.extend(&question[12..end + 4]);
    for data in records {
        packet.extend([0xc0, 12]);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 60]);
        packet.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        packet.extend(data);
    }
    Some(packet)
}

#[tokio::test]
async fn records_come_over_the_wire() {
    let dns = SystemDns::at(name_server().await).unwrap();
    let srv = dns.srv("_imaps._tcp.example.org.").await.unwrap();
    let target = "Imap.example.org.".to_owned();
    assert_eq!(srv, [SrvRecord { priority: 10, weight: 5, port: 993, target }]);
    let mut mx = dns.mx("example.org.").await.unwrap();
    mx.sort_by_key(|record| record.preference);
    let one = |preference, exchange: &str| MxRecord { preference, exchange: exchange.to_owned() };
    assert_eq!(mx, [one(10, "a.example.net."), one(20, "b.example.net.")]);
    assert_eq!(dns.srv("_submissions._tcp.example.org.").await.unwrap(), []);
    assert_eq!(dns.mx("nowhere.example.org.").await.unwrap(), []);
}

#[tokio::test]
async fn a_name_server_that_is_silent_is_an_error_in_time() {
    let dns = SystemDns::at(name_server().await).unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(60), dns.mx("silent.example.org."));
    let why = asked.await.expect("it has a deadline").unwrap_err().to_string();
    assert!(why.contains("name servers"), "{why}");
}

/// Answers each connection with `answer` and closes it.
async fn web_server(answer: impl Fn(String) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let _gone = stream.write_all(answer(request).as_bytes()).await;
        }
    });
    place
}

fn page(status: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn files_are_fetched_redirected_and_missing() {
    let place = web_server(|request| match request.split(' ').nth(1).unwrap_or_default() {
        "/file?x=1" => page("200 OK", "", "hello"),
        "/moved" => page("302 Found", "Location: /file?x=1\r\n", ""),
        "/round" => page("302 Found", "Location: /round\r\n", ""),
        "/away" => page("302 Found", "Location: http://example.org/\r\n", ""),
        "/broken" => page("500 No", "", ""),
        _ => page("404 Not Found", "", "<html>"),
    })
    .await;
    let web = HttpsWeb::default();
    let get = async |path: &str| web.get(&format!("http://{place}{path}")).await;
    assert_eq!(get("/file?x=1").await.unwrap().unwrap(), b"hello");
    assert_eq!(get("/moved").await.unwrap().unwrap(), b"hello");
    assert_eq!(get("/nothing").await.unwrap(), None);
    for (path, named) in [("/round", "too often"), ("/away", "HTTPS"), ("/broken", "500")] {
        let why = get(path).await.unwrap_err().to_string();
        assert!(why.contains(named), "{path}: {why}");
    }
    let why = web.get("http://example.org/x").await.unwrap_err().to_string();
    assert!(why.contains("without HTTPS"), "{why}");
}

#[tokio::test]
async fn a_web_server_cannot_keep_or_flood_us() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = silent.local_addr().unwrap();
    let web = HttpsWeb::default().within(Duration::from_millis(200));
    let why = web.get(&format!("http://{place}/")).await.unwrap_err().to_string();
    assert!(why.contains("in time"), "{why}");
    let flood = web_server(|_| page("200 OK", "", &"x".repeat(1024 * 1024))).await;
    let why = HttpsWeb::default().get(&format!("http://{flood}/")).await.unwrap_err().to_string();
    assert!(why.contains("limit"), "{why}");
}

/// An authority of its own in a file, and a TLS server on this machine that it vouches for.
struct Vouched {
    folder: tempfile::TempDir,
    acceptor: TlsAcceptor,
}

impl Vouched {
    fn new() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(authority, key);
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let leaf = leaf.unwrap().signed_by(&own, &issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivatePkcs8KeyDer::from(own.serialize_der());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())
            .unwrap();
        Vouched { folder, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn trust(&self) -> Trust {
        Trust::CaFile(self.folder.path().join("ca.pem"))
    }

    /// Says `words` to whoever connects, after having heard something when `listens`.
    async fn serve(&self, words: &'static str, listens: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move { say(acceptor, stream, words, listens).await });
            }
        });
        place
    }
}

async fn say(acceptor: TlsAcceptor, stream: TcpStream, words: &str, listens: bool) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut heard = [0; 4096];
    if listens && stream.read(&mut heard).await.is_err() {
        return;
    }
    let _gone = stream.write_all(words.as_bytes()).await;
    let _gone = stream.shutdown().await;
}

#[tokio::test]
async fn only_a_web_server_that_proves_who_it_is_is_believed() {
    let vouched = Vouched::new();
    let words = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let place = vouched.serve(words, true).await;
    let url = format!("https://localhost:{}/x", place.port());
    let trusting = HttpsWeb::trusting(vouched.trust());
    assert_eq!(trusting.get(&url).await.unwrap().unwrap(), b"hello");
    let why = HttpsWeb::default().get(&url).await.unwrap_err().to_string();
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn servers_are_told_apart() {
    let vouched = Vouched::new();
    let smtp = vouched.serve("220 mail.example.org ESMTP\r\n", false).await;
    let imap = vouched.serve("* OK [CAPABILITY IMAP4rev1] ready\r\n", false).await;
    let url = |scheme: &str, place: SocketAddr| -> ServerUrl {
        format!("{scheme}://localhost:{}", place.port()).parse().unwrap()
    };
    let reach = TlsReach::trusting(vouched.trust());
    assert_eq!(reach.reach(&url("smtps", smtp)).await, Reached::Ready);
    assert_eq!(reach.reach(&url("imaps", imap)).await, Reached::Ready);
    assert_eq!(reach.reach(&url("imaps", smtp)).await, Reached::Nothing);
    assert_eq!(reach.reach(&url("smtp", smtp)).await, Reached::Nothing);
    let unknown = TlsReach::default().reach(&url("smtps", smtp)).await;
    assert!(matches!(unknown, Reached::Untrusted(_)), "{unknown:?}");
}
