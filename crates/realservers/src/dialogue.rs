//! The line dialogue that SMTP and LMTP have in common (RFC 5321 section 4.2), as far as a probe needs it.

use crate::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No reply of a healthy local server takes longer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_LINE: u64 = 64 * 1024;
const MOST_LINES: usize = 1_000;

/// Connects with deadlines set on the socket.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream, Error> {
    let step = "connecting to a server";
    let socket = TcpStream::connect_timeout(&address, READ_TIMEOUT).map_err(Error::io(step))?;
    socket
        .set_read_timeout(Some(READ_TIMEOUT))
        .and_then(|()| socket.set_write_timeout(Some(READ_TIMEOUT)))
        .and_then(|()| socket.set_nodelay(true))
        .map_err(Error::io(step))?;
    Ok(socket)
}

/// A connection on which lines go both ways.
#[derive(Debug)]
pub(crate) struct Dialogue<S: Read + Write> {
    stream: BufReader<S>,
}

/// The code of a reply and the text of all its lines.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl<S: Read + Write> Dialogue<S> {
    /// Starts a dialogue on a connected stream.
    pub(crate) fn new(stream: S) -> Self {
        let stream = BufReader::new(stream);
        Self { stream }
    }

    /// Gives the stream back, to start TLS on it.
    ///
    /// # Errors
    /// [`Error::Reply`] when the peer has sent more than was asked for.
    pub(crate) fn into_inner(self) -> Result<S, Error> {
        if self.stream.buffer().is_empty() {
            return Ok(self.stream.into_inner());
        }
        let reply = String::from_utf8_lossy(self.stream.buffer()).into_owned();
        let step = "before TLS";
        Err(Error::Reply { step, reply })
    }

    /// Reads a line and takes its end off.
    pub(crate) fn line(&mut self) -> Result<String, Error> {
        let mut bytes = Vec::new();
        (&mut self.stream)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut bytes)
            .map_err(Error::io("reading a reply"))?;
        let mut line = String::from_utf8_lossy(&bytes).into_owned();
        if line.pop() != Some('\n') {
            let kind = std::io::ErrorKind::UnexpectedEof;
            return Err(Error::io("reading a reply")(kind.into()));
        }
        if line.ends_with('\r') {
            line.pop();
        }
        Ok(line)
    }

    /// Reads exactly so many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).map_err(Error::io("reading a literal"))?;
        Ok(bytes)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let stream = self.stream.get_mut();
        stream
            .write_all(bytes)
            .and_then(|()| stream.flush())
            .map_err(Error::io("sending to a server"))
    }

    /// Reads a reply of one or more lines.
    pub(crate) fn reply(&mut self, step: &'static str) -> Result<Reply, Error> {
        let mut text = String::new();
        for _ in 0..MOST_LINES {
            let line = self.line()?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let Some(code) = code else {
                return Err(Error::Reply { step, reply: line });
            };
            text.push_str(line.get(4..).unwrap_or_default());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text });
            }
            text.push('\n');
        }
        Err(Error::Reply { step, reply: text })
    }

    /// Reads a reply that must have this code.
    pub(crate) fn expect(&mut self, step: &'static str, code: u16) -> Result<Reply, Error> {
        let reply = self.reply(step)?;
        if reply.code == code {
            return Ok(reply);
        }
        let reply = format!("{} {}", reply.code, reply.text);
        Err(Error::Reply { step, reply })
    }

    /// Sends a command line and reads the reply that must have this code.
    pub(crate) fn command(
        &mut self,
        step: &'static str,
        line: &str,
        code: u16,
    ) -> Result<Reply, Error> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.expect(step, code)
    }
}

/// Sends a message after `354`: dots at line starts doubled, ended by a line with a dot alone. A line end
/// is added where the message has none at its end.
pub(crate) fn dot_stuffed(message: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !message.is_empty() && !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn hearing(bytes: &[u8]) -> Dialogue<Cursor<Vec<u8>>> {
        Dialogue::new(Cursor::new(bytes.to_vec()))
    }

    #[test]
    fn a_reply_of_several_lines_is_one_reply() {
        let reply = hearing(b"250-one\r\n250 two\r\n").expect("EHLO", 250);
        assert_eq!(reply.unwrap().text, "one\ntwo");
    }

    #[test]
    fn an_unexpected_code_shows_the_servers_words() {
        let error = hearing(b"550 5.1.1 no such user\r\n").expect("RCPT", 250);
        let text = error.unwrap_err().to_string();
        assert_eq!(text, r#"RCPT: the server answered "550 5.1.1 no such user""#);
    }

    #[test]
    fn a_closed_connection_is_an_error() {
        assert!(hearing(b"250 half a li").reply("EHLO").is_err());
        assert!(hearing(b"no code\r\n").reply("EHLO").is_err());
    }

    #[test]
    fn dots_at_line_starts_are_doubled_and_the_end_is_marked() {
        assert_eq!(dot_stuffed(b"a\r\n.\r\n..b"), b"a\r\n..\r\n...b\r\n.\r\n");
        assert_eq!(dot_stuffed(b""), b".\r\n");
    }
}
