//! One message to a server that speaks LMTP (RFC 2033): SMTP whose reply to the final dot says for
//! each recipient that the message is stored. There is one recipient.

use std::fmt::Write as _;
use std::fs::File;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::{Facts, Failure, LmtpAddress};

/// Longest line of a reply (RFC 5321 section 4.5.3.1.5 has 512).
const MAX_LINE: usize = 4096;
/// Most lines of a reply.
const MAX_LINES: usize = 100;
/// Octets of the text read at a time.
const CHUNK: usize = 64 * 1024;
/// How long the goodbye may take; nothing depends on it.
const QUIT: Duration = Duration::from_secs(2);

/// Hands over one message within `timeout`.
///
/// A dropped future closes the connection.
pub(super) async fn deliver(
    address: &LmtpAddress,
    text: File,
    facts: &Facts<'_>,
    timeout: Duration,
) -> Result<(), Failure> {
    let work = async {
        let stream = connect(address).await?;
        talk(&address.to_string(), stream, tokio::fs::File::from_std(text), facts).await
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(late(address, timeout)))
}

/// Asks whether mail for the recipient would be taken now, and what the server offers. No message
/// is begun.
///
/// # Errors
/// In words.
pub(super) async fn ask(
    address: &LmtpAddress,
    host: &str,
    recipient: &str,
    timeout: Duration,
) -> Result<Vec<String>, String> {
    let work = async {
        let (server, stream) = (address.to_string(), BufReader::new(connect(address).await?));
        let mut dialogue = Dialogue { server: &server, stream };
        let hello = dialogue.hello(host).await?;
        dialogue.asks("MAIL", "MAIL FROM:<>\r\n").await?;
        dialogue.asks("RCPT", &format!("RCPT TO:<{recipient}>\r\n")).await?;
        dialogue.goodbye().await;
        Ok(hello.lines.into_iter().skip(1).collect())
    };
    let asked = tokio::time::timeout(timeout, work).await;
    asked.unwrap_or_else(|_| Err(late(address, timeout))).map_err(Failure::into_words)
}

fn late(address: &LmtpAddress, timeout: Duration) -> Failure {
    let timeout = humantime::format_duration(timeout);
    Failure::Temporary(format!("the LMTP server {address} took longer than {timeout}"))
}

/// A connection of either kind.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

async fn connect(address: &LmtpAddress) -> Result<Box<dyn Wire>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Unavailable(format!("the LMTP server {address} cannot be reached: {error}"))
    };
    Ok(match address {
        LmtpAddress::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
        LmtpAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            // Without it each step of the dialogue waits for the other side's clock.
            let _slower = stream.set_nodelay(true);
            Box::new(stream)
        }
    })
}

/// The dialogue over a stream.
pub(super) async fn talk(
    server: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    text: impl AsyncRead + Unpin,
    facts: &Facts<'_>,
) -> Result<(), Failure> {
    let mut dialogue = Dialogue { server, stream: BufReader::new(stream) };
    let hello = dialogue.hello(facts.host).await?;
    let offers = |keyword: &str| {
        hello.lines.iter().skip(1).any(|line| {
            line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
        })
    };
    let mut mail = format!("MAIL FROM:<{}>", facts.sender);
    if offers("8BITMIME") {
        mail.push_str(" BODY=8BITMIME");
    }
    if offers("DSN") {
        // The same for the same message (RFC 3461 section 4.4).
        let _infallible = write!(mail, " ENVID={}", facts.id);
    }
    dialogue.asks("MAIL", &format!("{mail}\r\n")).await?;
    let rcpt = format!("RCPT TO:<{}>\r\n", facts.recipient);
    // The recipient is the same for every message: what is wrong with it concerns them all.
    dialogue.asks("RCPT", &rcpt).await.map_err(unavailable)?;
    let answer = dialogue.command("DATA", "DATA\r\n").await?;
    dialogue.wants(&answer, 354, "DATA")?;
    // From here on it may be this message at which the server fails.
    dialogue.text(text).await.map_err(temporary)?;
    // It may have been stored: it is handed over again as one that may be a repetition.
    let answer = dialogue.reply("the end of the message").await.map_err(temporary)?;
    dialogue.wants(&answer, 250, "the end of the message")?;
    dialogue.goodbye().await;
    Ok(())
}

struct Dialogue<'a, S> {
    server: &'a str,
    stream: BufReader<S>,
}

struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<'_, S> {
    /// Greeting and LHLO.
    async fn hello(&mut self, host: &str) -> Result<Reply, Failure> {
        let greeting = self.reply("the greeting").await?;
        self.wants(&greeting, 220, "the greeting").map_err(unavailable)?;
        let hello = self.command("LHLO", &format!("LHLO {host}\r\n")).await?;
        self.wants(&hello, 250, "LHLO").map_err(unavailable)?;
        Ok(hello)
    }

    /// A command that is to be agreed to.
    async fn asks(&mut self, phase: &str, line: &str) -> Result<(), Failure> {
        let answer = self.command(phase, line).await?;
        self.wants(&answer, 250, phase)
    }

    async fn goodbye(&mut self) {
        let goodbye = self.command("QUIT", "QUIT\r\n");
        let _nobody_cares = tokio::time::timeout(QUIT, goodbye).await;
    }

    async fn command(&mut self, phase: &str, line: &str) -> Result<Reply, Failure> {
        self.write(phase, line.as_bytes()).await?;
        self.flush(phase).await?;
        self.reply(phase).await
    }

    async fn write(&mut self, phase: &str, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.stream.get_mut().write_all(bytes).await;
        written.map_err(|error| self.lost(phase, &error.to_string()))
    }

    async fn flush(&mut self, phase: &str) -> Result<(), Failure> {
        let flushed = self.stream.get_mut().flush().await;
        flushed.map_err(|error| self.lost(phase, &error.to_string()))
    }

    /// Sends the text with its final dot.
    async fn text(&mut self, mut text: impl AsyncRead + Unpin) -> Result<(), Failure> {
        let (mut piece, mut wire) = (vec![0; CHUNK], Vec::with_capacity(CHUNK + CHUNK / 8));
        let mut lines = Lines::default();
        loop {
            // Not the server's fault, and nothing is stored without the final dot.
            let read = text.read(&mut piece).await.map_err(|error| {
                Failure::Temporary(format!("the message cannot be read: {error}"))
            })?;
            wire.clear();
            if read == 0 {
                lines.finish(&mut wire);
                self.write("the end of the message", &wire).await?;
                return self.flush("the end of the message").await;
            }
            lines.push(piece.get(..read).unwrap_or_default(), &mut wire);
            self.write("the message", &wire).await?;
        }
    }

    async fn reply(&mut self, phase: &str) -> Result<Reply, Failure> {
        let mut lines = Vec::new();
        loop {
            let line = self.line(phase).await?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let (Some(code), true) = (code, lines.len() < MAX_LINES) else {
                return Err(self.lost(phase, "this is no reply"));
            };
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if !more {
                return Ok(Reply { code, lines });
            }
        }
    }

    async fn line(&mut self, phase: &str) -> Result<String, Failure> {
        let mut line = Vec::new();
        loop {
            match self.stream.read_u8().await {
                Ok(b'\n') => break,
                Ok(byte) if line.len() < MAX_LINE => line.push(byte),
                Ok(_) => return Err(self.lost(phase, "the line of a reply does not end")),
                Err(error) => return Err(self.lost(phase, &error.to_string())),
            }
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let clean = |sign: char| if sign.is_control() { '\u{fffd}' } else { sign };
        Ok(text.trim_end().chars().map(clean).collect())
    }

    /// # Errors
    /// What another reply than `code` means: by itself for the message, 421 for all of them.
    fn wants(&self, reply: &Reply, code: u16, phase: &str) -> Result<(), Failure> {
        if reply.code == code {
            return Ok(());
        }
        let text = reply.lines.join(" ");
        let words =
            format!("the LMTP server {} answered {} {text} to {phase}", self.server, reply.code);
        Err(match reply.code {
            421 => Failure::Unavailable(words),
            500..=599 => Failure::Permanent(words),
            _ => Failure::Temporary(words),
        })
    }

    fn lost(&self, phase: &str, why: &str) -> Failure {
        Failure::Unavailable(format!("the LMTP server {} failed at {phase}: {why}", self.server))
    }
}

fn unavailable(failure: Failure) -> Failure {
    Failure::Unavailable(failure.into_words())
}

fn temporary(failure: Failure) -> Failure {
    Failure::Temporary(failure.into_words())
}

impl Failure {
    fn into_words(self) -> String {
        match self {
            Failure::Unavailable(words) | Failure::Temporary(words) | Failure::Permanent(words) => {
                words
            }
        }
    }
}

/// Makes lines fit for the wire: each ends with CRLF (RFC 5321 section 2.3.8), a dot at its start is
/// doubled (section 4.5.2). So nothing in a message can pass for its end.
#[derive(Debug, Default)]
struct Lines {
    /// The last octet, when it was a CR whose LF has not come yet.
    cr: bool,
    inside: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], wire: &mut Vec<u8>) {
        for byte in bytes {
            match (std::mem::take(&mut self.cr), *byte) {
                (_, b'\n') => self.end(wire),
                (true, other) => {
                    self.end(wire);
                    self.octet(other, wire);
                }
                (false, other) => self.octet(other, wire),
            }
        }
    }

    fn octet(&mut self, byte: u8, wire: &mut Vec<u8>) {
        if byte == b'\r' {
            self.cr = true;
            return;
        }
        if !self.inside && byte == b'.' {
            wire.push(b'.');
        }
        self.inside = true;
        wire.push(byte);
    }

    fn end(&mut self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(b"\r\n");
        self.inside = false;
    }

    /// The end of the last line, and the final dot.
    fn finish(mut self, wire: &mut Vec<u8>) {
        if self.cr || self.inside {
            self.end(wire);
        }
        wire.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(pieces: &[&[u8]]) -> String {
        let (mut lines, mut wire) = (Lines::default(), Vec::new());
        pieces.iter().for_each(|piece| lines.push(piece, &mut wire));
        lines.finish(&mut wire);
        String::from_utf8_lossy(&wire).into_owned()
    }

    #[test]
    fn nothing_in_a_message_passes_for_its_end() {
        let cases: [(&[&[u8]], &str); 8] = [
            (&[b"a\r\nb\r\n"], "a\r\nb\r\n.\r\n"),
            (&[b"a"], "a\r\n.\r\n"),
            (&[b""], ".\r\n"),
            (&[b"a\r\n.\r\nb\r\n"], "a\r\n..\r\nb\r\n.\r\n"),
            (&[b"a\n.\nb\n"], "a\r\n..\r\nb\r\n.\r\n"),
            (&[b"a\r.\rb"], "a\r\n..\r\nb\r\n.\r\n"),
            (&[b"a\r", b"\n.", b"\r\nb\r"], "a\r\n..\r\nb\r\n.\r\n"),
            (&[b"..\r\n", b"\r\n", b"."], "...\r\n\r\n..\r\n.\r\n"),
        ];
        for (pieces, expected) in cases {
            assert_eq!(wire(pieces), expected, "{pieces:?}");
        }
    }
}
