//! The octets of a connection: what has come, what is to go, and how long either may take.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::content::line_end;
use super::reply::Reply;

/// Octets of content read at a time.
const CHUNK: usize = 64 * 1024;

/// Octets of content read at a time as long as no more have come: most messages need no larger
/// buffer.
const FIRST_CHUNK: usize = 8 * 1024;

/// Room for commands: what a connection costs that says nothing.
const SMALL: usize = 1024;

/// Octets a second below which a client that sends a message is as good as silent.
const SLOWEST: u64 = 64;

/// Longest command line: RFC 5321 section 4.5.3.1.4 says 512, the parameters of extensions add,
/// and AUTH may have 12,288 (RFC 4954 section 4).
const LONGEST_LINE: usize = 12_288;

/// How long replies may take to leave.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// Why there is nothing more to do on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed it, or it broke.
    Gone,
    /// The client said nothing for too long.
    Silent,
    /// It was closed in good order.
    Closed,
}

/// A command line.
#[derive(Debug)]
pub(super) enum Line {
    /// With its line end.
    Whole(BytesMut),
    /// It was too long and is gone.
    TooLong,
}

/// A connection with buffers both ways: replies to pipelined commands leave together
/// (RFC 2920 section 3.2).
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    input: BytesMut,
    output: Vec<u8>,
    silence: Duration,
    /// Since when content comes, and how many octets of it have come.
    content: Option<(Instant, u64)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    pub(super) fn new(stream: S, silence: Duration) -> Self {
        let (input, output) = (BytesMut::with_capacity(SMALL), Vec::new());
        Wire { stream, input, output, silence, content: None }
    }

    /// Whether the client has sent something already.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// What has come and is not used yet.
    pub(super) fn input(&self) -> &[u8] {
        &self.input
    }

    /// Forgets octets that were used.
    pub(super) fn skip(&mut self, count: usize) {
        self.input.advance(count.min(self.input.len()));
    }

    /// Takes at most `most` octets that have come.
    pub(super) fn take(&mut self, most: usize) -> BytesMut {
        self.input.split_to(most.min(self.input.len()))
    }

    /// Queues a reply.
    pub(super) fn say(&mut self, reply: &Reply) {
        reply.encode(&mut self.output);
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let send = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        let sent = tokio::time::timeout(WRITE_DEADLINE, send).await;
        self.output.clear();
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Silent),
        }
    }

    /// Content is read from now on, which must not only come but come fast enough.
    pub(super) fn content_begins(&mut self) {
        self.content = Some((Instant::now(), 0));
    }

    /// Commands are read again.
    pub(super) fn content_ends(&mut self) {
        self.content = None;
    }

    /// Sends what is queued and reads more. Cancel-safe while it waits for the client.
    pub(super) async fn fill(&mut self) -> Result<(), End> {
        self.flush().await?;
        let room = match self.content {
            None => SMALL,
            Some((_, octets)) if octets < FIRST_CHUNK as u64 => FIRST_CHUNK,
            Some(_) => CHUNK,
        };
        let mut patience = self.silence;
        if let Some((since, octets)) = self.content {
            let allowed = self.silence + Duration::from_secs(octets / SLOWEST);
            patience = patience.min(allowed.saturating_sub(since.elapsed()));
        }
        self.input.reserve(room);
        let read = tokio::time::timeout(patience, self.stream.read_buf(&mut self.input)).await;
        match read {
            Ok(Ok(0) | Err(_)) => Err(End::Gone),
            Ok(Ok(count)) => {
                if let Some((_, octets)) = &mut self.content {
                    *octets += count as u64;
                }
                Ok(())
            }
            Err(_) => Err(End::Silent),
        }
    }

    /// The next command line, which has to be there whole before the client counts as silent.
    /// Cancel-safe while it waits for the client.
    pub(super) async fn line(&mut self) -> Result<Line, End> {
        let silence = self.silence;
        tokio::time::timeout(silence, self.whole_line()).await.unwrap_or(Err(End::Silent))
    }

    async fn whole_line(&mut self) -> Result<Line, End> {
        let mut overlong = false;
        loop {
            match line_end(&self.input) {
                Some(end) if overlong || end > LONGEST_LINE => {
                    self.skip(end);
                    return Ok(Line::TooLong);
                }
                Some(end) => return Ok(Line::Whole(self.input.split_to(end))),
                None => {}
            }
            if self.input.len() > LONGEST_LINE {
                overlong = true;
                self.input.clear();
            }
            self.fill().await?;
        }
    }

    /// Sends what is queued and closes.
    pub(super) async fn close(&mut self) {
        if self.flush().await.is_ok() {
            let _closed_already = self.stream.shutdown().await;
        }
    }
}
