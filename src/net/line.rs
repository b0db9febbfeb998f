//! Reading lines during a handshake, bounded in every direction.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{NetError, NetErrorKind, Stream};

/// Longest line a server may send before the login. RFC 5321 section 4.5.3.1.5 allows 512
/// octets; CAPABILITY lines of real servers reach 1,000.
const LONGEST_LINE: usize = 8 * 1024;

/// A stream with a small buffer of its own. What is left in the buffer is never lost by accident:
/// [`LineStream::into_stream`] gives it back and [`LineStream::is_drained`] tells.
#[derive(Debug)]
pub(super) struct LineStream {
    stream: Stream,
    buffer: BytesMut,
    server: String,
}

impl LineStream {
    pub(super) fn new(stream: Stream, server: &str) -> Self {
        LineStream { stream, buffer: BytesMut::new(), server: server.to_owned() }
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// One line without its line end. Not cancel-safe in its meaning: who drops it drops the
    /// connection.
    pub(super) async fn line(&mut self) -> Result<String, NetError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                let text = text.strip_suffix(b"\r").unwrap_or(text);
                return Ok(String::from_utf8_lossy(text).into_owned());
            }
            if self.buffer.len() >= LONGEST_LINE {
                return Err(self.protocol("a line has no end"));
            }
            let read = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(|error| NetError::from_io(&self.server, &error))?;
            if read == 0 {
                return Err(NetError::new(NetErrorKind::Closed, self.server.clone(), ""));
            }
        }
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        let io = |error: std::io::Error| NetError::from_io(&self.server, &error);
        self.stream.write_all(bytes).await.map_err(io)?;
        self.stream.flush().await.map_err(io)
    }

    /// Whether nothing has been read that was not asked for yet.
    pub(super) fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The stream, with `ahead` and then what is in the buffer before the rest.
    pub(super) fn into_stream(self, ahead: &[u8]) -> Stream {
        let mut all = BytesMut::from(ahead);
        all.extend_from_slice(&self.buffer);
        self.stream.with_ahead(Bytes::from(all))
    }

    pub(super) fn protocol(&self, detail: impl Into<String>) -> NetError {
        NetError::new(NetErrorKind::Protocol, self.server.clone(), detail)
    }
}

/// A server's words cut to a length fit for a status line, control characters made visible.
pub(crate) fn for_people(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut clean: String = text
        .chars()
        .take(LONGEST)
        .map(|sign| if sign.is_control() { '\u{fffd}' } else { sign })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        clean.push('…');
    }
    clean
}
