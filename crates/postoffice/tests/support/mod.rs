//! A client that speaks to a socket line by line, in clear or within TLS.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postoffice::PostOffice;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Deadline of every wait.
pub(crate) const SOON: Duration = Duration::from_secs(10);

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub(crate) struct Client {
    stream: Option<Box<dyn Duplex>>,
    tcp: Option<TcpStream>,
    input: Vec<u8>,
}

pub(crate) fn trust(office: &PostOffice) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(office.authority().der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Arc::new(
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

impl Client {
    pub(crate) async fn plain(address: Option<SocketAddr>) -> Self {
        let tcp = TcpStream::connect(address.unwrap()).await.unwrap();
        Self { stream: None, tcp: Some(tcp), input: Vec::new() }
    }

    pub(crate) async fn tls(office: &PostOffice, address: Option<SocketAddr>) -> Self {
        Self::plain(address).await.secure(office).await.unwrap()
    }

    pub(crate) async fn secure(mut self, office: &PostOffice) -> std::io::Result<Self> {
        assert!(self.input.is_empty(), "plaintext left: {:?}", self.input);
        let name = ServerName::try_from("localhost").unwrap();
        let tcp = self.tcp.take().unwrap();
        let connect = TlsConnector::from(trust(office)).connect(name, tcp);
        let tls = timeout(SOON, connect).await.unwrap()?;
        Ok(Self { stream: Some(Box::new(tls)), tcp: None, input: Vec::new() })
    }

    fn io(&mut self) -> &mut dyn Duplex {
        match (&mut self.stream, &mut self.tcp) {
            (Some(stream), _) => stream,
            (None, Some(tcp)) => tcp,
            _ => panic!("not connected"),
        }
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let io = self.io();
        timeout(SOON, async {
            io.write_all(bytes).await.unwrap();
            io.flush().await.unwrap();
        })
        .await
        .unwrap();
    }

    pub(crate) async fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\r\n").as_bytes()).await;
    }

    /// The next line without its end; `Err` at the end of the stream (`Ok`) or by reset.
    pub(crate) async fn try_line(&mut self) -> Result<String, std::io::Error> {
        loop {
            if let Some(position) = self.input.iter().position(|&octet| octet == b'\n') {
                let line: Vec<u8> = self.input.drain(..=position).collect();
                let text = String::from_utf8_lossy(&line);
                return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
            }
            let mut chunk = [0; 4096];
            let count = timeout(SOON, self.io().read(&mut chunk)).await.expect("no answer")?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&chunk[..count]);
        }
    }

    pub(crate) async fn line(&mut self) -> String {
        self.try_line().await.unwrap()
    }

    /// How the stream ends: the kind of error, `UnexpectedEof` for FIN.
    pub(crate) async fn end(&mut self) -> std::io::ErrorKind {
        loop {
            if let Err(error) = self.try_line().await {
                return error.kind();
            }
        }
    }

    /// Whether nothing comes for a moment.
    pub(crate) async fn silent(&mut self) -> bool {
        let mut chunk = [0; 1];
        self.input.is_empty()
            && timeout(Duration::from_millis(60), self.io().read(&mut chunk)).await.is_err()
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            let mut chunk = [0; 4096];
            let read = timeout(SOON, self.io().read(&mut chunk)).await.expect("no answer").unwrap();
            assert!(read > 0, "closed");
            self.input.extend_from_slice(&chunk[..read]);
        }
        self.input.drain(..count).collect()
    }

    // ----- SMTP -----

    /// A whole SMTP reply, lines joined by `|`.
    pub(crate) async fn reply(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line);
            if !more {
                return lines.join("|");
            }
        }
    }

    pub(crate) async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.reply().await
    }

    /// Asserts that the reply begins so.
    pub(crate) async fn expect(&mut self, line: &str, reply: &str) -> String {
        let got = self.ask(line).await;
        assert!(got.starts_with(reply), "{line}: {got}");
        got
    }

    /// Greeting and EHLO.
    pub(crate) async fn hello(&mut self) -> String {
        assert!(self.reply().await.starts_with("220"));
        self.ask("EHLO client.example").await
    }

    /// A transaction with one recipient; returns the reply to the final dot.
    pub(crate) async fn submit(&mut self, to: &str, data: &str) -> String {
        self.expect("MAIL FROM:<sender@example.org>", "250").await;
        self.expect(&format!("RCPT TO:<{to}>"), "250").await;
        self.expect("DATA", "354").await;
        self.ask(&format!("{data}.")).await
    }

    // ----- IMAP -----

    /// Sends a command with its tag and returns all lines up to the tagged one.
    pub(crate) async fn imap(&mut self, command: &str) -> Vec<String> {
        self.send(command).await;
        let tag = command.split(' ').next().unwrap().to_owned();
        self.until(&tag).await
    }

    /// All lines up to one that begins with the tag.
    pub(crate) async fn until(&mut self, tag: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            let done = line.starts_with(&format!("{tag} "));
            lines.push(line);
            if done {
                return lines;
            }
        }
    }

    /// Sends a command and asserts that it ends in OK; returns the untagged lines.
    pub(crate) async fn imap_ok(&mut self, command: &str) -> Vec<String> {
        let mut lines = self.imap(command).await;
        let last = lines.pop().unwrap();
        assert!(last.contains(" OK"), "{command}: {last}");
        lines
    }

    /// Greeting and LOGIN.
    pub(crate) async fn login(&mut self, user: &str, password: &str) {
        assert!(self.line().await.starts_with("* OK"));
        self.imap_ok(&format!("l LOGIN {user} {password}")).await;
    }
}
