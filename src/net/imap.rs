//! From a connection to an IMAP server that is ready for a login (RFC 3501, RFC 8314).

use std::collections::BTreeSet;

use super::imap_reply::{ImapReply, ReplyStatus, split_code};
use super::line::{LineStream, for_people};
use super::{Connector, NetError, NetErrorKind, Phase, TlsMode};

/// Most untagged lines before the reply that completes a command of the handshake.
const MOST_LINES: usize = 200;

/// What a server can do, in upper case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(BTreeSet<String>);

impl Capabilities {
    fn parse(words: &str) -> Self {
        Capabilities(words.split_ascii_whitespace().map(str::to_ascii_uppercase).collect())
    }

    /// Whether it offers `name`, given in upper case.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The SASL mechanisms offered.
    pub(crate) fn mechanisms(&self) -> Vec<&str> {
        self.0.iter().filter_map(|name| name.strip_prefix("AUTH=")).collect()
    }

    /// All of them, in alphabetical order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// A connection on which the login comes next.
#[derive(Debug)]
pub(crate) struct ImapOpened {
    pub(super) lines: LineStream,
    /// TLS version and cipher suite; `None` in clear.
    pub(crate) protection: Option<String>,
    pub(super) channel: super::Channel,
    pub(super) binding: Option<super::ChannelBinding>,
    /// What the server offers before the login, as told under the protection that holds now.
    pub(crate) capabilities: Capabilities,
    /// The words of the greeting.
    pub(crate) greeting: String,
    pub(super) last_tag: u32,
}

impl Connector {
    /// Connects, reads the greeting, does STARTTLS where the profile says so and asks what the
    /// server can do. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`NetErrorKind::PreAuthenticated`] for a greeting that skips the login,
    /// [`NetErrorKind::Unavailable`] for BYE, [`NetErrorKind::EarlyPlaintext`] when anything came
    /// in clear behind the reply to STARTTLS.
    pub(crate) async fn imap_open(&self) -> Result<ImapOpened, NetError> {
        let stream = self.open().await?;
        let (protection, channel) = (stream.protection(), self.channel(&stream));
        let binding = stream.binding();
        let mut opened = ImapOpened {
            lines: LineStream::new(stream, &self.name),
            protection,
            channel,
            binding,
            capabilities: Capabilities::default(),
            greeting: String::new(),
            last_tag: 0,
        };
        let greeted = self.deadlines.bound(Phase::Greeting, &self.name, opened.greet()).await?;
        if self.server.tls == TlsMode::StartTls {
            let work = opened.start_tls(greeted);
            self.deadlines.bound(Phase::Handshake, &self.name, work).await?;
            let stream = self.upgrade(opened.lines.into_stream(&[])).await?;
            opened.protection = stream.protection();
            opened.channel = self.channel(&stream);
            opened.binding = stream.binding();
            opened.lines = LineStream::new(stream, &self.name);
            // What was told in clear is forgotten (RFC 3501 section 6.2.1).
            let work = opened.ask_capabilities();
            opened.capabilities = self.deadlines.bound(Phase::Handshake, &self.name, work).await?;
        } else {
            opened.capabilities = match greeted {
                Some(told) => told,
                None => {
                    let work = opened.ask_capabilities();
                    self.deadlines.bound(Phase::Handshake, &self.name, work).await?
                }
            };
        }
        Ok(opened)
    }
}

impl ImapOpened {
    async fn greet(&mut self) -> Result<Option<Capabilities>, NetError> {
        let line = self.lines.line().await?;
        let rest = line.strip_prefix("* ").ok_or_else(|| self.lines.protocol(for_people(&line)))?;
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (code, words) = split_code(rest);
        let refused = |kind| Err(NetError::new(kind, self.lines.server(), for_people(rest)));
        match word.to_ascii_uppercase().as_str() {
            "OK" => {}
            "PREAUTH" => return refused(NetErrorKind::PreAuthenticated),
            "BYE" => return refused(NetErrorKind::Unavailable),
            _ => return refused(NetErrorKind::Protocol),
        }
        self.greeting = for_people(words);
        Ok(told_capabilities(code))
    }

    async fn start_tls(&mut self, greeted: Option<Capabilities>) -> Result<(), NetError> {
        let offered = match greeted {
            Some(told) => told,
            None => self.ask_capabilities().await?,
        };
        if !offered.has("STARTTLS") {
            return Err(NetError::new(NetErrorKind::StartTlsNotOffered, self.lines.server(), ""));
        }
        if !self.lines.is_drained() {
            return Err(self.lines.protocol("an answer came before its question"));
        }
        let (reply, _) = self.command(b"STARTTLS").await?;
        if reply.status != ReplyStatus::Ok {
            let kind = NetErrorKind::StartTlsRefused;
            return Err(NetError::new(kind, self.lines.server(), reply.words()));
        }
        Ok(())
    }

    pub(super) async fn ask_capabilities(&mut self) -> Result<Capabilities, NetError> {
        let (reply, untagged) = self.command(b"CAPABILITY").await?;
        let told = untagged.iter().find_map(|line| {
            let (word, rest) = line.split_once(' ')?;
            word.eq_ignore_ascii_case("CAPABILITY").then(|| Capabilities::parse(rest))
        });
        match told {
            Some(told) if reply.status == ReplyStatus::Ok => Ok(told),
            _ => Err(self.lines.protocol(format!("CAPABILITY: {}", reply.words()))),
        }
    }

    /// Sends a command and reads up to the reply that completes it.
    pub(super) async fn command(
        &mut self,
        command: &[u8],
    ) -> Result<(ImapReply, Vec<String>), NetError> {
        let tag = self.begin(command).await?;
        let mut untagged = Vec::new();
        loop {
            match self.next(&tag).await? {
                Said::Done(reply) => return Ok((reply, untagged)),
                Said::Untagged(line) if untagged.len() < MOST_LINES => untagged.push(line),
                Said::Untagged(_) | Said::Continue(_) => {
                    return Err(self.lines.protocol("an answer without end or without question"));
                }
            }
        }
    }

    /// Sends a command and returns its tag.
    pub(super) async fn begin(&mut self, command: &[u8]) -> Result<String, NetError> {
        self.last_tag += 1;
        let tag = format!("h{}", self.last_tag);
        let mut line = zeroize::Zeroizing::new(Vec::with_capacity(tag.len() + command.len() + 3));
        line.extend_from_slice(tag.as_bytes());
        line.push(b' ');
        line.extend_from_slice(command);
        line.extend_from_slice(b"\r\n");
        self.lines.send(&line).await?;
        Ok(tag)
    }

    /// The next thing the server says while the command with this tag runs.
    pub(super) async fn next(&mut self, tag: &str) -> Result<Said, NetError> {
        let line = self.lines.line().await?;
        if let Some(rest) = line.strip_prefix("* ") {
            if rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("BYE")) {
                let words = for_people(rest.get(4..).unwrap_or_default());
                return Err(NetError::new(NetErrorKind::Unavailable, self.lines.server(), words));
            }
            return Ok(Said::Untagged(rest.to_owned()));
        }
        if let Some(rest) = line.strip_prefix('+') {
            return Ok(Said::Continue(rest.trim_start().to_owned()));
        }
        line.strip_prefix(tag)
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(ImapReply::parse)
            .map(Said::Done)
            .ok_or_else(|| self.lines.protocol(for_people(&line)))
    }
}

/// What a server says while a command runs.
#[derive(Debug)]
pub(super) enum Said {
    /// Data, without `* `.
    Untagged(String),
    /// A request for more: in AUTHENTICATE the challenge in base64.
    Continue(String),
    /// The command is completed.
    Done(ImapReply),
}

/// The capabilities in a response code, if it is one with capabilities.
pub(super) fn told_capabilities(code: &str) -> Option<Capabilities> {
    let (word, rest) = code.split_once(' ')?;
    word.eq_ignore_ascii_case("CAPABILITY").then(|| Capabilities::parse(rest))
}
