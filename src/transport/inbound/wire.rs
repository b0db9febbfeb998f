//! What stands between the IMAP library and the connection: bounds on what a server may send, and
//! a deadline on its silence.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Longest response outside of literals. CAPABILITY, SEARCH and COPYUID of real servers stay far
/// below.
const LONGEST_RESPONSE: u64 = 256 * 1024;
/// Deepest nesting of parentheses: the library's parser recurses, and ours never asks for more
/// than two levels.
const DEEPEST: u32 = 50;

/// A connection as the library sees it.
///
/// - A response may have so many octets of literals as were asked for, and no more: the library
///   would buffer 512 MiB.
/// - When an answer is due and nothing at all comes, reading fails after a while.
/// - What is written goes out at `flush`, in one piece: the library writes a command in four.
/// - The login is done before the library sees the connection, so that no secret passes through
///   its log. It only makes a session out of a login of its own; that one is answered here and
///   never reaches the server.
pub(super) struct Wire<S> {
    stream: S,
    outgoing: Vec<u8>,
    adoption: Adoption,
    scanner: Scanner,
    silence: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

enum Adoption {
    /// Collects the login of the library.
    Listening,
    /// Has the answer to it, and how much of it was read.
    Answering(Vec<u8>, usize),
    Done,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, silence: Duration) -> Self {
        Wire {
            stream,
            outgoing: Vec::new(),
            adoption: Adoption::Listening,
            scanner: Scanner::default(),
            silence: Some(silence),
            timer: None,
        }
    }

    /// How many octets of literals the responses to come may have each.
    pub(super) fn expect_literals(&mut self, octets: u64) {
        self.scanner.literals_allowed = octets;
    }

    /// How long nothing at all may come; `None` while nothing is due.
    pub(super) fn expect_within(&mut self, silence: Option<Duration>) {
        self.silence = silence;
        self.timer = None;
    }
}

impl<S> fmt::Debug for Wire<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Adoption::Answering(answer, read) = &mut this.adoption {
            let rest = answer.get(*read..).unwrap_or_default();
            let now = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
            buf.put_slice(now);
            *read += now.len();
            if *read == answer.len() {
                this.adoption = Adoption::Done;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            this.timer = None;
            result?;
            let new = buf.filled().get(before..).unwrap_or_default();
            return Poll::Ready(this.scanner.scan(new));
        }
        let Some(silence) = this.silence else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        if timer.deadline() > Instant::now() + silence {
            timer.as_mut().reset(Instant::now() + silence);
        }
        ready!(timer.as_mut().poll(cx));
        this.timer = None;
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing came for {} s", silence.as_secs_f32().ceil()),
        )))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.extend_from_slice(bytes);
        if matches!(self.adoption, Adoption::Listening) && self.outgoing.ends_with(b"\r\n") {
            let line = std::mem::take(&mut self.outgoing);
            let mut answer: Vec<u8> =
                line.iter().copied().take_while(|byte| *byte != b' ').collect();
            answer.extend_from_slice(b" OK adopted\r\n");
            self.adoption = Adoption::Answering(answer, 0);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.adoption, Adoption::Listening) {
            return Poll::Ready(Ok(()));
        }
        while !this.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.outgoing.drain(..written);
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows responses and literals, to know how large a response gets.
#[derive(Debug, Default)]
struct Scanner {
    literals_allowed: u64,
    literals: u64,
    plain: u64,
    /// Octets of the present literal that are still to come.
    literal_left: u64,
    depth: u32,
    brace: Brace,
}

/// How much of `{123}CRLF` was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Brace {
    #[default]
    None,
    Open(u64),
    Closed(u64),
    Return(u64),
}

impl Scanner {
    fn scan(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while let Some((byte, others)) = rest.split_first() {
            if self.literal_left > 0 {
                let skip = usize::try_from(self.literal_left).unwrap_or(usize::MAX).min(rest.len());
                self.literal_left -= skip as u64;
                rest = rest.get(skip..).unwrap_or_default();
                continue;
            }
            self.step(*byte)?;
            rest = others;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> io::Result<()> {
        let refuse = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        self.plain += 1;
        if self.plain > LONGEST_RESPONSE {
            return refuse("a response has no end");
        }
        self.brace = match (self.brace, byte) {
            (_, b'{') => Brace::Open(0),
            (Brace::Open(number), b'0'..=b'9') => {
                Brace::Open(number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
            }
            (Brace::Open(number), b'+') => Brace::Open(number),
            (Brace::Open(number), b'}') => Brace::Closed(number),
            (Brace::Closed(number), b'\r') => Brace::Return(number),
            (Brace::Closed(number) | Brace::Return(number), b'\n') => {
                self.literals = self.literals.saturating_add(number);
                if self.literals > self.literals_allowed {
                    return refuse("a literal is larger than what was asked for");
                }
                self.literal_left = number;
                Brace::None
            }
            (_, b'\n') => {
                (self.plain, self.literals, self.depth) = (0, 0, 0);
                Brace::None
            }
            _ => Brace::None,
        };
        match byte {
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth > DEEPEST {
            return refuse("a response is nested too deeply");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn scan(allowed: u64, bytes: &[u8]) -> Result<Scanner, String> {
        let mut scanner = Scanner { literals_allowed: allowed, ..Scanner::default() };
        // However the bytes are cut, the result is the same.
        for cut in 0..=bytes.len().min(80) {
            let mut other = Scanner { literals_allowed: allowed, ..Scanner::default() };
            let cut_up = other.scan(&bytes[..cut]).and_then(|()| other.scan(&bytes[cut..])).is_ok();
            let mut whole = Scanner { literals_allowed: allowed, ..Scanner::default() };
            assert_eq!(cut_up, whole.scan(bytes).is_ok(), "cut at {cut}");
        }
        scanner.scan(bytes).map_err(|error| error.to_string())?;
        Ok(scanner)
    }

    #[test]
    fn literals_count_per_response() {
        let one = b"* 1 FETCH (UID 1 BODY[] {5}\r\na(\n{9)\r\n";
        let scanner = scan(5, one).unwrap();
        assert_eq!((scanner.plain, scanner.literals, scanner.depth), (0, 0, 0));
        assert!(scan(4, one).is_err());
        assert!(scan(5, &[one.as_slice(), one.as_slice()].concat()).is_ok());
        let two = b"* 1 FETCH (BODY[] {3}\r\nabc BODY[] {3}\r\nabc)\r\n";
        assert!(scan(5, two).is_err());
        assert!(scan(6, two).is_ok());
        assert!(scan(9, b"* 1 FETCH (BODY[] {99999999999999999999999}\r\n").is_err());
    }

    #[test]
    fn lines_and_nesting_are_bounded() {
        let mut scanner = Scanner::default();
        let line = vec![b'x'; 100_000];
        assert!(scanner.scan(&line).is_ok());
        assert!(scanner.scan(&line).is_ok());
        assert!(scanner.scan(&line).is_err());
        assert!(scan(0, "(".repeat(51).as_bytes()).is_err());
        assert!(scan(0, "()".repeat(51).as_bytes()).is_ok());
    }

    #[tokio::test]
    async fn the_login_of_the_library_stays_here() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut wire = Wire::new(near, Duration::from_secs(5));
        for part in [b"A0001".as_slice(), b" ", b"LOGIN \"-\" \"-\"", b"\r\n"] {
            wire.write_all(part).await.unwrap();
        }
        wire.flush().await.unwrap();
        let mut answer = [0; 18];
        wire.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"A0001 OK adopted\r\n");
        wire.write_all(b"A0002 NOOP\r\n").await.unwrap();
        wire.flush().await.unwrap();
        let mut command = [0; 12];
        far.read_exact(&mut command).await.unwrap();
        assert_eq!(&command, b"A0002 NOOP\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_read_and_bytes_extend_it() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut wire = Wire::new(near, Duration::from_secs(10));
        wire.adoption = Adoption::Done;
        let begin = Instant::now();
        let writer = tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(8)).await;
                far.write_all(b"x").await.unwrap();
            }
            far
        });
        for _ in 0..3 {
            wire.read_u8().await.unwrap();
        }
        let error = wire.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), 34);
        wire.expect_within(None);
        let patient = tokio::time::timeout(Duration::from_secs(3600), wire.read_u8());
        assert!(patient.await.is_err());
        drop(writer);
    }
}
