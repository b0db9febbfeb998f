//! A small IMAP client (RFC 3501) of its own, for looking into a server's mailboxes without the code that
//! is being tested. It blocks, and it trusts nobody but the server it was made for.

use crate::Error;
use crate::certificates::{Certificates, TlsStream};
use crate::dialogue::{Dialogue, connect};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Larger literals are a mistake of the server.
const LONGEST_LITERAL: usize = 256 * 1024 * 1024;
const MOST_RESPONSES: usize = 1_000_000;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    None,
    /// STARTTLS on the plain port.
    StartTls,
    /// TLS from the first byte.
    Implicit,
}

/// An IMAP connection.
#[derive(Debug)]
pub struct ImapProbe {
    connection: Connection,
    commands: u32,
}

#[derive(Debug)]
enum Connection {
    Plain(Dialogue<TcpStream>),
    Tls(Box<Dialogue<TlsStream>>),
}

/// One response line of the server; each literal in it stands as its `{length}` in `text`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The line without its end.
    pub text: String,
    /// The literals, in their order.
    pub literals: Vec<Vec<u8>>,
}

/// A message as the server gives it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its UID in the mailbox.
    pub uid: u32,
    /// Its flags as the server writes them, for example `\Seen`.
    pub flags: Vec<String>,
    /// All its bytes, lines ended by CRLF.
    pub bytes: Vec<u8>,
}

impl ImapProbe {
    /// Connects and reads the greeting, which must hold `token`.
    ///
    /// # Errors
    /// [`Error::Reply`] for another greeting or a refused STARTTLS, [`Error::Tls`], [`Error::Io`].
    pub(crate) fn connect(
        address: SocketAddr,
        security: Security,
        certificates: &Certificates,
        token: &str,
    ) -> Result<Self, Error> {
        let socket = connect(address)?;
        let connection = match security {
            Security::Implicit => {
                Connection::Tls(Box::new(Dialogue::new(certificates.handshake(socket)?)))
            }
            Security::None | Security::StartTls => Connection::Plain(Dialogue::new(socket)),
        };
        let mut probe = Self { connection, commands: 0 };
        let greeting = probe.next_response()?.text;
        if !greeting.starts_with("* OK") || !greeting.contains(token) {
            return Err(unexpected("the IMAP greeting", greeting));
        }
        if security == Security::StartTls {
            probe = probe.start_tls(certificates)?;
        }
        Ok(probe)
    }

    fn start_tls(mut self, certificates: &Certificates) -> Result<Self, Error> {
        self.command("STARTTLS")?;
        let Connection::Plain(dialogue) = self.connection else {
            return Err(unexpected("STARTTLS", "TLS runs already".to_owned()));
        };
        let stream = certificates.handshake(dialogue.into_inner()?)?;
        self.connection = Connection::Tls(Box::new(Dialogue::new(stream)));
        Ok(self)
    }

    /// Logs in by AUTHENTICATE PLAIN with an initial response (RFC 4959).
    ///
    /// # Errors
    /// [`Error::Reply`] when the server refuses, with its words.
    pub fn login(&mut self, user: &str, password: &str) -> Result<(), Error> {
        let response = STANDARD.encode(format!("\0{user}\0{password}"));
        let tag = self.start(&format!("AUTHENTICATE PLAIN {response}"))?;
        self.finish("AUTHENTICATE", &tag).map(|_| ())
    }

    /// Sends a command and gives the untagged responses that came before its `OK`.
    ///
    /// # Errors
    /// [`Error::Reply`] for `NO`, `BAD` and `BYE`; [`Error::Io`].
    pub fn command(&mut self, command: &str) -> Result<Vec<Response>, Error> {
        let tag = self.start(command)?;
        self.finish("an IMAP command", &tag)
    }

    /// Selects a mailbox and fetches every message in it, without setting `\Seen`.
    ///
    /// # Errors
    /// Those of [`ImapProbe::command`].
    pub fn fetch_all(&mut self, mailbox: &str) -> Result<Vec<Fetched>, Error> {
        self.command(&format!("EXAMINE {}", quoted(mailbox)))?;
        let responses = self.command("UID FETCH 1:* (UID FLAGS BODY.PEEK[])")?;
        let fetched = responses.into_iter().filter_map(Fetched::from_response);
        Ok(fetched.collect())
    }

    /// Sends a command and gives its tag, without waiting for anything: for IDLE.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn start(&mut self, command: &str) -> Result<String, Error> {
        self.commands += 1;
        let tag = format!("p{}", self.commands);
        self.send_line(&format!("{tag} {command}"))?;
        Ok(tag)
    }

    /// Sends a line without a tag, such as `DONE`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn send_line(&mut self, line: &str) -> Result<(), Error> {
        let bytes = format!("{line}\r\n").into_bytes();
        match &mut self.connection {
            Connection::Plain(dialogue) => dialogue.send(&bytes),
            Connection::Tls(dialogue) => dialogue.send(&bytes),
        }
    }

    /// Waits for the server's next response, at most 30 seconds.
    ///
    /// # Errors
    /// [`Error::Io`] when the time is up or the server hung up.
    pub fn next_response(&mut self) -> Result<Response, Error> {
        match &mut self.connection {
            Connection::Plain(dialogue) => response(dialogue),
            Connection::Tls(dialogue) => response(dialogue),
        }
    }

    /// Collects responses up to the tagged one, which must be `OK`.
    ///
    /// # Errors
    /// Those of [`ImapProbe::command`].
    pub fn finish(&mut self, step: &'static str, tag: &str) -> Result<Vec<Response>, Error> {
        let mut untagged = Vec::new();
        while untagged.len() < MOST_RESPONSES {
            let response = self.next_response()?;
            match response.text.strip_prefix(tag) {
                Some(status) if status.starts_with(" OK") => return Ok(untagged),
                Some(_) => return Err(unexpected(step, response.text)),
                None if response.text.starts_with("* BYE") => {
                    return Err(unexpected(step, response.text));
                }
                None => untagged.push(response),
            }
        }
        Err(unexpected(step, "a flood of responses".to_owned()))
    }
}

fn unexpected(step: &'static str, reply: String) -> Error {
    Error::Reply { step, reply }
}

fn response<S: Read + Write>(dialogue: &mut Dialogue<S>) -> Result<Response, Error> {
    let mut response = Response::default();
    loop {
        let line = dialogue.line()?;
        response.text.push_str(&line);
        let Some(length) = literal_length(&line) else {
            return Ok(response);
        };
        if length > LONGEST_LITERAL {
            return Err(unexpected("a literal", line));
        }
        response.literals.push(dialogue.bytes(length)?);
    }
}

fn literal_length(line: &str) -> Option<usize> {
    let (_, length) = line.strip_suffix('}')?.rsplit_once('{')?;
    length.parse().ok()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

impl Fetched {
    fn from_response(mut response: Response) -> Option<Self> {
        let bytes = response.literals.pop()?;
        let (_, after) = response.text.split_once("UID ")?;
        let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
        let (_, after) = response.text.split_once("FLAGS (")?;
        let (flags, _) = after.split_once(')')?;
        Some(Self {
            uid: digits.parse().ok()?,
            flags: flags.split_whitespace().map(str::to_owned).collect(),
            bytes,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn a_literal_is_taken_out_of_its_line() {
        let wire = b"* 1 FETCH (UID 7 FLAGS (\\Seen $X) BODY[] {4}\r\na)\r\n)\r\n".to_vec();
        let parsed = response(&mut Dialogue::new(Cursor::new(wire))).unwrap();
        assert_eq!(parsed.literals, [b"a)\r\n".to_vec()]);
        let fetched = Fetched::from_response(parsed).unwrap();
        assert_eq!(fetched.uid, 7);
        assert_eq!(fetched.flags, ["\\Seen", "$X"]);
        assert_eq!(fetched.bytes, b"a)\r\n");
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted(r#"a "b\c"#), r#""a \"b\\c""#);
    }
}
