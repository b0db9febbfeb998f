//! An SMTP connection behind its EHLO: commands out, bounded replies in, a deadline on each.
//!
//! A connection is in step (ready for the next transaction) or it is not. Beginning anything
//! takes it out of step and only a complete exchange puts it back, so that one whose future was
//! dropped half way, or that saw an error, can never be used again.

use std::fmt::Display;
use std::io::ErrorKind;
use std::time::Duration;

use lettre::transport::smtp::commands::Quit;
use lettre::transport::smtp::response::{Category, Code, Detail, Response, Severity};
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::capabilities::Capabilities;
use super::deadlines::Deadlines;
use super::reply::{Failure, Fault, Phase};
use super::transaction::Ahead;
use crate::mapi::EntryId;
use crate::spool::Reply;

/// A stream of bytes in both directions.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Whether the next command finds the server where we think it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It waits for MAIL.
    Ready,
    /// It waits for something else, which RSET ends.
    Unfinished,
    /// Nobody knows.
    Lost,
}

/// What was written behind the final dot of the last transaction.
#[derive(Debug, Default)]
pub(crate) enum Behind {
    #[default]
    Nothing,
    /// The envelope of the message that comes next.
    Envelope(Ahead),
    /// A part of one: nothing can be made of it.
    Part,
}

/// What did not leave of two things that were written at once.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// The last of the first at least.
    First(Failure),
    /// Nothing of the first, as far as one can know; the last of the second at least.
    Second,
}

/// A connection to a server that has answered EHLO.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Wire>>,
    host: String,
    tls: String,
    capabilities: Capabilities,
    deadlines: Deadlines,
    step: Step,
    behind: Behind,
    silent: bool,
    transactions: u32,
    /// What was shown at the login, where that is a token.
    token: Option<SecretString>,
}

/// Longest line of a reply: far above the 512 of RFC 5321 section 4.5.3.1.5.
const MAX_REPLY_LINE: usize = 4096;
/// Most lines of a reply.
const MAX_REPLY_LINES: usize = 256;
/// Longest text of a reply that is kept, in characters.
const MAX_REPLY_TEXT: usize = 500;

impl Connection {
    /// Takes over a stream whose EHLO was answered with `capabilities`. `host` is how the server
    /// is called in outcomes.
    pub(crate) fn new(
        stream: Box<dyn Wire>,
        host: &str,
        capabilities: Capabilities,
        deadlines: Deadlines,
    ) -> Self {
        Connection {
            stream: BufReader::new(stream),
            host: host.to_owned(),
            tls: String::new(),
            capabilities,
            deadlines,
            step: Step::Ready,
            behind: Behind::Nothing,
            silent: false,
            transactions: 0,
            token: None,
        }
    }

    /// What the server offers.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How long each phase may take.
    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// How the server is called.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Version of TLS; empty in clear.
    pub(crate) fn tls(&self) -> &str {
        &self.tls
    }

    /// Notes by what the stream is protected, version first.
    pub(crate) fn protected_by(&mut self, protection: Option<&str>) {
        let version = protection.and_then(|words| words.split(',').next());
        version.unwrap_or_default().clone_into(&mut self.tls);
    }

    /// Whether another transaction may begin on it.
    pub(crate) fn is_usable(&self) -> bool {
        self.step != Step::Lost
    }

    /// Whether it is of use when this message comes next: the server may wait for another.
    pub(crate) fn is_usable_for(&self, next: Option<&EntryId>) -> bool {
        self.is_usable()
            && match &self.behind {
                Behind::Nothing => true,
                Behind::Envelope(ahead) => next.is_some_and(|next| ahead.is_of(next)),
                Behind::Part => false,
            }
    }

    /// Whether the envelope of the next message was written.
    pub(crate) fn is_ahead(&self) -> bool {
        matches!(self.behind, Behind::Envelope(_))
    }

    /// Whether a reply did not come in time, or was none.
    pub(crate) fn was_silent(&self) -> bool {
        self.silent
    }

    /// Notes what was written behind a final dot.
    pub(crate) fn wrote_behind(&mut self, behind: Behind) {
        self.behind = behind;
    }

    /// What was written behind the last final dot; the connection is out of step if something was.
    pub(crate) fn take_behind(&mut self) -> Behind {
        let behind = std::mem::take(&mut self.behind);
        if !matches!(behind, Behind::Nothing) {
            self.step = Step::Lost;
        }
        behind
    }

    /// Notes the token it is logged in with.
    pub(crate) fn logged_in_by(&mut self, token: Option<SecretString>) {
        self.token = token;
    }

    /// The token it is logged in with; `None` where that is a password, or nothing.
    pub(crate) fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// Whether a transaction went through it before.
    pub(crate) fn is_used(&self) -> bool {
        self.transactions > 0
    }

    /// Takes the connection out of step until [`Connection::end`]. Says whether RSET must come
    /// first.
    pub(crate) fn begin(&mut self) -> bool {
        let unfinished = self.step == Step::Unfinished;
        self.step = Step::Lost;
        unfinished
    }

    /// The exchange is complete: the server waits for MAIL.
    pub(crate) fn end(&mut self) {
        self.step = Step::Ready;
        self.transactions = self.transactions.saturating_add(1);
    }

    /// The server waits for its first MAIL.
    pub(crate) fn ready(&mut self) {
        self.step = Step::Ready;
    }

    /// Replaces what the server offers.
    pub(crate) fn offer(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
    }

    /// Every reply was read, but a transaction is open that RSET must end.
    pub(crate) fn end_unfinished(&mut self) {
        self.step = Step::Unfinished;
        self.transactions = self.transactions.saturating_add(1);
    }

    /// Writes bytes and flushes them.
    ///
    /// # Errors
    /// [`Fault::TimedOut`], [`Fault::Closed`]; then the last of the bytes did not leave.
    pub(crate) async fn write(
        &mut self,
        phase: Phase,
        bytes: &[u8],
        deadline: Duration,
    ) -> Result<(), Failure> {
        let stream = self.stream.get_mut();
        let write = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        match tokio::time::timeout(deadline, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.fault(phase, Fault::Closed, &error.to_string())),
            Err(_) => Err(self.fault(phase, Fault::TimedOut, "")),
        }
    }

    /// Writes two things at once and flushes them; tells which of them left whole.
    ///
    /// # Errors
    /// [`Unwritten`] with [`Fault::TimedOut`] or [`Fault::Closed`].
    pub(crate) async fn write_both(
        &mut self,
        phase: Phase,
        first: &[u8],
        second: &str,
        deadline: Duration,
    ) -> Result<(), Unwritten> {
        let both = [first, second.as_bytes()].concat();
        let stream = self.stream.get_mut();
        let mut written = 0;
        let write = async {
            while let Some(rest) = both.get(written..).filter(|rest| !rest.is_empty()) {
                match stream.write(rest).await? {
                    0 => return Err(ErrorKind::WriteZero.into()),
                    count => written += count,
                }
            }
            stream.flush().await
        };
        let failure = match tokio::time::timeout(deadline, write).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => self.fault(phase, Fault::Closed, &error.to_string()),
            Err(_) => self.fault(phase, Fault::TimedOut, ""),
        };
        // What was taken may have left, whatever became of the rest.
        let first_left = written >= first.len() && !second.is_empty();
        Err(if first_left { Unwritten::Second } else { Unwritten::First(failure) })
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// [`Fault::TimedOut`], [`Fault::Closed`], [`Fault::Garbage`].
    pub(crate) async fn reply(
        &mut self,
        phase: Phase,
        deadline: Duration,
    ) -> Result<Response, Failure> {
        match tokio::time::timeout(deadline, read_response(&mut self.stream)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err((fault, why))) => {
                self.silent |= fault == Fault::Garbage;
                Err(self.fault(phase, fault, &why))
            }
            Err(_) => {
                self.silent = true;
                Err(self.fault(phase, Fault::TimedOut, ""))
            }
        }
    }

    /// Writes a command and reads its reply, whatever it says.
    ///
    /// # Errors
    /// Those of [`Connection::write`] and [`Connection::reply`].
    pub(crate) async fn command(
        &mut self,
        phase: Phase,
        command: impl Display,
        deadline: Duration,
    ) -> Result<Response, Failure> {
        self.write(phase, command.to_string().as_bytes(), deadline).await?;
        self.reply(phase, deadline).await
    }

    /// What a reply says, for the record.
    pub(crate) fn words(&self, response: &Response) -> Reply {
        reply_of(response, &self.host)
    }

    /// A failure of this connection.
    pub(crate) fn fault(&self, phase: Phase, fault: Fault, why: &str) -> Failure {
        Failure::fault(phase, fault, &self.host, why)
    }

    /// Says goodbye if the server can be expected to listen; bounded by the QUIT deadline.
    pub(crate) async fn quit(mut self) {
        // Behind an envelope it would be taken for text.
        if self.is_usable() && matches!(self.behind, Behind::Nothing) {
            let deadline = self.deadlines.quit;
            // Nothing depends on the reply.
            let _ = self.command(Phase::Reset, Quit, deadline).await;
        }
    }
}

/// Reads a reply of at most [`MAX_REPLY_LINES`] lines of at most [`MAX_REPLY_LINE`] bytes.
async fn read_response(stream: &mut BufReader<Box<dyn Wire>>) -> Result<Response, (Fault, String)> {
    let mut lines: Vec<String> = Vec::with_capacity(1);
    let mut first_code = None;
    loop {
        let line = read_line(stream).await?;
        let (code, more, text) =
            parse_line(&line).ok_or_else(|| (Fault::Garbage, "this is no reply".to_owned()))?;
        if *first_code.get_or_insert(code) != code {
            return Err((Fault::Garbage, "the lines of a reply disagree".to_owned()));
        }
        lines.push(text);
        if !more {
            return Ok(Response::new(code, lines));
        }
        if lines.len() == MAX_REPLY_LINES {
            return Err((Fault::Garbage, "a reply has no end".to_owned()));
        }
    }
}

async fn read_line(stream: &mut BufReader<Box<dyn Wire>>) -> Result<Vec<u8>, (Fault, String)> {
    let mut line = Vec::new();
    loop {
        let available =
            stream.fill_buf().await.map_err(|error| (Fault::Closed, error.to_string()))?;
        if available.is_empty() {
            return Err((Fault::Closed, "the connection was closed".to_owned()));
        }
        let (taken, complete) = match available.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), false),
        };
        if line.len() + taken > MAX_REPLY_LINE {
            return Err((Fault::Garbage, "a line of a reply is too long".to_owned()));
        }
        line.extend_from_slice(available.get(..taken).unwrap_or(available));
        stream.consume(taken);
        if complete {
            return Ok(line);
        }
    }
}

/// Code, whether more lines follow, and the text without control characters.
fn parse_line(line: &[u8]) -> Option<(Code, bool, String)> {
    let (code, rest) = line.split_at_checked(3)?;
    let [severity, category, detail] = code else { return None };
    let code = Code::new(severity_of(*severity)?, category_of(*category)?, detail_of(*detail)?);
    let (more, text) = match rest.split_first() {
        Some((b'-', text)) => (true, text),
        Some((b' ' | b'\r' | b'\n', text)) => (false, text),
        _ => return None,
    };
    let text: String = String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Some((code, more, text.trim().to_owned()))
}

fn severity_of(digit: u8) -> Option<Severity> {
    Some(match digit {
        b'2' => Severity::PositiveCompletion,
        b'3' => Severity::PositiveIntermediate,
        b'4' => Severity::TransientNegativeCompletion,
        b'5' => Severity::PermanentNegativeCompletion,
        _ => return None,
    })
}

fn category_of(digit: u8) -> Option<Category> {
    Some(match digit {
        b'0' => Category::Syntax,
        b'1' => Category::Information,
        b'2' => Category::Connections,
        b'3' => Category::Unspecified3,
        b'4' => Category::Unspecified4,
        b'5' => Category::MailSystem,
        _ => return None,
    })
}

fn detail_of(digit: u8) -> Option<Detail> {
    Some(match digit {
        b'0' => Detail::Zero,
        b'1' => Detail::One,
        b'2' => Detail::Two,
        b'3' => Detail::Three,
        b'4' => Detail::Four,
        b'5' => Detail::Five,
        b'6' => Detail::Six,
        b'7' => Detail::Seven,
        b'8' => Detail::Eight,
        b'9' => Detail::Nine,
        _ => return None,
    })
}

/// A reply for the record: the enhanced code apart, the lines joined, bounded.
pub(crate) fn reply_of(response: &Response, host: &str) -> Reply {
    let code = u16::from(response.code());
    let enhanced = response
        .first_word()
        .filter(|word| is_enhanced_code(word, code))
        .unwrap_or_default()
        .to_owned();
    let mut text = String::new();
    for line in response.message() {
        let line = match line.strip_prefix(enhanced.as_str()) {
            Some(rest) if !enhanced.is_empty() => rest.trim_start(),
            _ => line,
        };
        if !text.is_empty() && !line.is_empty() {
            text.push(' ');
        }
        text.extend(line.chars().take(MAX_REPLY_TEXT.saturating_sub(text.chars().count())));
    }
    Reply { code, enhanced, text: text.trim_end().to_owned(), host: host.to_owned() }
}

/// RFC 2034 section 4: three numbers, the first of them the class of the reply code. Of two
/// refusals that disagree one lies, and the classifier has to know.
fn is_enhanced_code(word: &str, code: u16) -> bool {
    let mut parts = word.split('.');
    let class = parts.next().is_some_and(|class| {
        class == (code / 100).to_string() || (code >= 400 && matches!(class, "4" | "5"))
    });
    let numbers = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    class
        && parts.next().is_some_and(numbers)
        && parts.next().is_some_and(numbers)
        && parts.next().is_none()
}

#[cfg(test)]
#[path = "connection/tests.rs"]
mod tests;
