//! A scripted SMTP server on an in-memory stream, for tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postoffice::{Listener, PostOffice};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::capabilities::Capabilities;
use super::connection::Connection;
use super::deadlines::Deadlines;
use super::journal::Journal;
use super::reply::Failure;
use super::transaction::{Ahead, Follow, TextError, TextForm, TextSource};
use crate::net::{Server, TlsMode, Trust};
use crate::spi::{SecretError, SecretKind, SecretSource};
use crate::spool::{Envelope, QueueRecipient, RecipientState};
use crate::transport::{Credentials, SmtpSettings};

/// What the server does when a command comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Says a line.
    Say(&'static str),
    /// Closes the connection without a word.
    Close,
    /// Says a line and closes.
    SayClose(&'static str),
    /// Says nothing and waits for the connection to end.
    Hang,
}

/// What the server heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Commands in order.
    pub(crate) commands: Vec<String>,
    /// Texts whose final dot came.
    pub(crate) texts: Vec<String>,
    /// Bytes of a text whose final dot did not come.
    pub(crate) unfinished: usize,
}

/// A server whose script is a list of exceptions to a good server's behaviour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    rules: Vec<(&'static str, VecDeque<Act>)>,
}

impl Script {
    /// On the commands that start with `prefix` (`.` for the final dot), these acts one after the
    /// other; the last goes on for ever.
    pub(crate) fn on(mut self, prefix: &'static str, acts: &[Act]) -> Self {
        self.rules.push((prefix, acts.iter().copied().collect()));
        self
    }

    fn act(&mut self, command: &str) -> Act {
        for (prefix, acts) in &mut self.rules {
            if command.starts_with(*prefix) {
                if acts.len() > 1 {
                    return acts.pop_front().unwrap_or(Act::Close);
                }
                return acts.front().copied().unwrap_or(Act::Close);
            }
        }
        Act::Say(match command.split([' ', '\r']).next().unwrap_or_default() {
            "MAIL" => "250 2.1.0 sender",
            "RCPT" => "250 2.1.5 recipient",
            "DATA" => "354 go",
            "." => "250 2.0.0 taken",
            "RSET" => "250 2.0.0 reset",
            "QUIT" => "221 2.0.0 bye",
            _ => "500 5.5.1 what",
        })
    }

    /// Serves one connection until it ends.
    pub(crate) async fn serve(mut self, stream: DuplexStream, heard: Arc<Mutex<Heard>>) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let command = line.trim_end().to_owned();
            heard.lock().unwrap().commands.push(command.clone());
            let act = self.act(&command);
            if !perform(&mut stream, act).await {
                return;
            }
            if command == "DATA" && matches!(act, Act::Say(line) if line.starts_with("354")) {
                let Some(text) = read_text(&mut stream, &heard).await else { return };
                heard.lock().unwrap().texts.push(text);
                let act = self.act(".");
                if !perform(&mut stream, act).await {
                    return;
                }
            }
        }
    }
}

async fn perform(stream: &mut BufReader<DuplexStream>, act: Act) -> bool {
    match act {
        Act::Say(line) => stream.write_all(format!("{line}\r\n").as_bytes()).await.is_ok(),
        Act::Close => false,
        Act::SayClose(line) => {
            let _ = stream.write_all(format!("{line}\r\n").as_bytes()).await;
            false
        }
        Act::Hang => {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            false
        }
    }
}

async fn read_text(stream: &mut BufReader<DuplexStream>, heard: &Mutex<Heard>) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return None;
        }
        if line == ".\r\n" {
            heard.lock().unwrap().unfinished = 0;
            return Some(text);
        }
        heard.lock().unwrap().unfinished += line.len();
        text += line.strip_prefix('.').unwrap_or(&line);
    }
}

/// Deadlines that a test can wait for, and a machine under load can keep.
pub(crate) fn short_deadlines() -> Deadlines {
    let short = Duration::from_secs(2);
    Deadlines {
        net: crate::net::Deadlines::default(),
        command: short,
        mail: short,
        rcpt: short,
        data: short,
        block: short,
        dot: short,
        quit: short,
    }
}

/// A connection to a scripted server.
pub(crate) fn connect(script: Script, offers: Capabilities) -> (Connection, Arc<Mutex<Heard>>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let heard = Arc::new(Mutex::new(Heard::default()));
    tokio::spawn(script.serve(theirs, Arc::clone(&heard)));
    (Connection::new(Box::new(ours), "mx", offers, short_deadlines()), heard)
}

/// An envelope from `ann@example.org` to these.
pub(crate) fn envelope_to(addresses: &[&str]) -> Envelope {
    Envelope {
        from: "ann@example.org".to_owned(),
        recipients: addresses
            .iter()
            .zip(0..)
            .map(|(address, row)| QueueRecipient {
                row,
                address: (*address).to_owned(),
                state: RecipientState::Pending,
                notify: None,
                original: None,
            })
            .collect(),
        ..Envelope::default()
    }
}

/// A text in memory.
pub(crate) struct Text(pub(crate) String);

#[async_trait::async_trait]
impl TextSource for Text {
    async fn open(
        &self,
        form: TextForm,
    ) -> Result<std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>, TextError> {
        let text = match form {
            TextForm::AsKept => self.0.clone(),
            TextForm::SevenBit => self.0.replace(|c: char| !c.is_ascii(), "?"),
        };
        Ok(Box::pin(std::io::Cursor::new(text.into_bytes())))
    }
}

/// A journal that keeps nothing.
pub(crate) struct Unjournalled;

#[async_trait::async_trait]
impl Journal for Unjournalled {
    async fn dot_may_be_out(&self) -> Result<(), Failure> {
        Ok(())
    }

    async fn next_transaction(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Nobody follows.
pub(crate) struct Nobody;

impl Follow for Nobody {
    fn next(&self, _: &Connection) -> Option<Ahead> {
        None
    }
}

/// A password that can be changed.
#[derive(Debug)]
pub(crate) struct Password(Mutex<String>);

impl Password {
    pub(crate) fn new(password: &str) -> Self {
        Password(Mutex::new(password.to_owned()))
    }

    pub(crate) fn set(&self, password: &str) {
        *self.0.lock().unwrap() = password.to_owned();
    }
}

#[async_trait::async_trait]
impl SecretSource for Password {
    async fn secret(&self) -> Result<secrecy::SecretString, SecretError> {
        Ok(self.0.lock().unwrap().clone().into())
    }
}

/// A token that runs out: `old`, and once that is refused `new`, which is handed out when so many
/// have asked for it.
pub(crate) struct RunningOut {
    current: Mutex<&'static str>,
    askers: tokio::sync::Barrier,
}

impl RunningOut {
    pub(crate) fn new(askers: usize) -> Arc<Self> {
        let askers = tokio::sync::Barrier::new(askers);
        Arc::new(RunningOut { current: Mutex::new("old"), askers })
    }

    /// Of the user `ann`.
    pub(crate) fn credentials(self: &Arc<Self>) -> Credentials {
        let password = Arc::clone(self) as Arc<dyn SecretSource>;
        Credentials { user: "ann".to_owned(), password }
    }

    /// Waits as one of those who ask.
    pub(crate) async fn asked(&self) {
        self.askers.wait().await;
    }
}

#[async_trait::async_trait]
impl SecretSource for RunningOut {
    async fn secret(&self) -> Result<secrecy::SecretString, SecretError> {
        Ok((*self.current.lock().unwrap()).into())
    }

    fn kind(&self) -> SecretKind {
        SecretKind::Token
    }

    async fn renew(
        &self,
        refused: &secrecy::SecretString,
    ) -> Result<Option<secrecy::SecretString>, SecretError> {
        if refused.expose_secret() == "new" {
            return Ok(None);
        }
        self.askers.wait().await;
        *self.current.lock().unwrap() = "new";
        Ok(Some("new".into()))
    }
}

/// How to reach a post office as its user `ann`, and the folder with the certificate for it.
pub(crate) fn smtp_settings(office: &PostOffice, tls: TlsMode) -> (SmtpSettings, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, office.ca_pem()).unwrap();
    let listener = if tls == TlsMode::Implicit { Listener::Smtps } else { Listener::Smtp };
    let address = office.address(listener).unwrap();
    let server = Server {
        host: address.ip().to_string(),
        port: address.port(),
        tls,
        trust: Trust::CaFile(ca_file),
        client: None,
    };
    let password = Arc::new(Password::new("secret"));
    let credentials = Some(Credentials { user: "ann".to_owned(), password });
    (
        SmtpSettings {
            server,
            credentials,
            auth: None,
            connections: 4,
            cleartext: Default::default(),
            fallback: Vec::new(),
            messages_per_minute: None,
            recipients_per_message: 100,
        },
        folder,
    )
}
