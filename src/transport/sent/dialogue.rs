//! The few commands that appending needs, on the raw connection: a message goes from the disk to the
//! wire in pieces, which the IMAP library cannot do. Bounded in every direction.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::net::{ImapReply, for_people};

/// Longest response with its literals.
const LONGEST_RESPONSE: usize = 64 * 1024;
/// Most responses before the one that completes a command.
const MOST_RESPONSES: usize = 100_000;
/// Most of them that are kept.
const MOST_KEPT: usize = 1000;
/// Octets of a message sent at a time.
const PIECE: usize = 64 * 1024;

/// A connection that is logged in.
pub(super) struct Dialogue<S> {
    stream: BufReader<S>,
    patience: Duration,
    last_tag: u32,
}

/// Why a connection cannot be used any more.
#[derive(Debug)]
pub(super) enum Lost {
    /// It broke, was closed, went silent, or something else than IMAP came.
    Connection(String),
    /// What was to be sent could not be read whole.
    Unreadable(String),
}

/// What a server said to a command.
#[derive(Debug)]
pub(super) struct Answer {
    /// Untagged data without `* `, the first of it.
    pub(super) lines: Vec<String>,
    /// What completed the command.
    pub(super) reply: ImapReply,
}

/// One thing that a server says.
enum Said {
    Untagged(String),
    Continue,
    Done(ImapReply),
}

fn lost(error: &std::io::Error) -> Lost {
    Lost::Connection(match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => error.to_string(),
    })
}

fn stray(line: &str) -> Lost {
    Lost::Connection(format!("the server does not keep to the protocol ({})", for_people(line)))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<S> {
    /// `patience` is how long a command may take.
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Dialogue { stream: BufReader::new(stream), patience, last_tag: 0 }
    }

    /// Runs a command that answers with little.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Answer, Lost> {
        let mut lines = Vec::new();
        let keep = &mut |line: &str| {
            if lines.len() < MOST_KEPT {
                lines.push(line.to_owned());
            }
        };
        let reply = self.ask_for(command, keep).await?;
        Ok(Answer { lines, reply })
    }

    /// Runs a command and shows `on` the untagged data.
    pub(super) async fn ask_for(
        &mut self,
        command: &str,
        on: &mut (dyn FnMut(&str) + Send),
    ) -> Result<ImapReply, Lost> {
        let patience = self.patience;
        let tag = self.tag();
        let work = async {
            self.send(format!("{tag} {command}\r\n").as_bytes()).await?;
            for _ in 0..MOST_RESPONSES {
                match self.next(&tag).await? {
                    Said::Done(reply) => return Ok(reply),
                    Said::Untagged(line) => on(&line),
                    Said::Continue => return Err(stray("+")),
                }
            }
            Err(stray("an answer without end"))
        };
        within(patience, work).await
    }

    /// Begins a command that ends in a literal of `size` octets; answers its tag once the literal may
    /// be sent, or the refusal. With `unasked` it is sent without being asked for (RFC 7888).
    pub(super) async fn begin_literal(
        &mut self,
        command: &str,
        size: u64,
        unasked: bool,
    ) -> Result<Result<String, ImapReply>, Lost> {
        let patience = self.patience;
        let tag = self.tag();
        let plus = if unasked { "+" } else { "" };
        let work = async {
            self.send(format!("{tag} {command} {{{size}{plus}}}\r\n").as_bytes()).await?;
            if unasked {
                return Ok(Ok(tag));
            }
            for _ in 0..MOST_RESPONSES {
                match self.next(&tag).await? {
                    Said::Continue => return Ok(Ok(tag)),
                    Said::Done(reply) => return Ok(Err(reply)),
                    Said::Untagged(_) => {}
                }
            }
            Err(stray("an answer without end"))
        };
        within(patience, work).await
    }

    /// Sends the literal and the end of the command. Each piece has its deadline.
    pub(super) async fn stream(
        &mut self,
        mut content: impl AsyncRead + Unpin,
        size: u64,
    ) -> Result<(), Lost> {
        let (mut piece, mut left) = (vec![0; PIECE], size);
        loop {
            let read = content
                .read(&mut piece)
                .await
                .map_err(|error| Lost::Unreadable(error.to_string()))?;
            let length = u64::try_from(read).unwrap_or(u64::MAX);
            if (read == 0 && left > 0) || length > left {
                return Err(Lost::Unreadable(format!("it has not the {size} octets it should")));
            }
            if read == 0 {
                break;
            }
            left -= length;
            let patience = self.patience;
            let bytes = piece.get(..read).unwrap_or_default();
            let stream = self.stream.get_mut();
            let work = async { stream.write_all(bytes).await.map_err(|error| lost(&error)) };
            within(patience, work).await?;
        }
        let patience = self.patience;
        within(patience, self.send(b"\r\n")).await
    }

    /// Waits for what completes a command.
    pub(super) async fn completion(
        &mut self,
        tag: &str,
        patience: Duration,
    ) -> Result<ImapReply, Lost> {
        let work = async {
            for _ in 0..MOST_RESPONSES {
                match self.next(tag).await? {
                    Said::Done(reply) => return Ok(reply),
                    // A literal that was not asked for is answered by some all the same.
                    Said::Untagged(_) | Said::Continue => {}
                }
            }
            Err(stray("an answer without end"))
        };
        within(patience, work).await
    }

    fn tag(&mut self) -> String {
        self.last_tag += 1;
        format!("s{}", self.last_tag)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).await.map_err(|error| lost(&error))?;
        stream.flush().await.map_err(|error| lost(&error))
    }

    async fn next(&mut self, tag: &str) -> Result<Said, Lost> {
        let line = self.response().await?;
        if let Some(rest) = line.strip_prefix("* ") {
            let is_bye = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("BYE"));
            if is_bye {
                let words = for_people(rest.get(4..).unwrap_or_default());
                return Err(Lost::Connection(format!(
                    "the server closed the connection ({words})"
                )));
            }
            return Ok(Said::Untagged(rest.to_owned()));
        }
        if line.starts_with('+') {
            return Ok(Said::Continue);
        }
        let done = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' '));
        done.and_then(ImapReply::parse).map(Said::Done).ok_or_else(|| stray(&line))
    }

    /// One response without its line end; a literal stands in it as `{size}` and its octets.
    async fn response(&mut self) -> Result<String, Lost> {
        let mut response = Vec::new();
        loop {
            let room = LONGEST_RESPONSE.saturating_sub(response.len());
            let limit = u64::try_from(room).unwrap_or(0);
            let mut line = (&mut self.stream).take(limit);
            let read = line.read_until(b'\n', &mut response).await.map_err(|error| lost(&error))?;
            if !response.ends_with(b"\n") {
                return Err(match read == room {
                    true => stray("a response has no end"),
                    false => lost(&std::io::ErrorKind::UnexpectedEof.into()),
                });
            }
            response.pop();
            if response.ends_with(b"\r") {
                response.pop();
            }
            let Some(size) = literal(&response) else {
                return Ok(String::from_utf8_lossy(&response).into_owned());
            };
            let begin = response.len();
            if size > LONGEST_RESPONSE.saturating_sub(begin) {
                return Err(stray("a literal larger than what was asked for"));
            }
            response.resize(begin + size, 0);
            let octets = response.get_mut(begin..).unwrap_or_default();
            self.stream.read_exact(octets).await.map_err(|error| lost(&error))?;
        }
    }
}

/// The size of the literal that a line announces at its end.
fn literal(line: &[u8]) -> Option<usize> {
    let rest = line.strip_suffix(b"}")?;
    let begin = rest.iter().rposition(|byte| *byte == b'{')?;
    let digits = std::str::from_utf8(rest.get(begin + 1..)?).ok()?;
    digits.trim_end_matches('+').parse().ok()
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Lost>>,
) -> Result<T, Lost> {
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => Err(Lost::Connection("the server did not answer in time".to_owned())),
    }
}
