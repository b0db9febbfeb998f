//! A compressed connection (RFC 4978): raw DEFLATE in both directions, over a [`Stream`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::DeflateDecoder;
use async_compression::tokio::write::DeflateEncoder;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf, ReadHalf, WriteHalf};

use super::stream::Stream;

/// Compressed octets that are read at once.
const READ: usize = 16 * 1024;

/// See the module. What is written goes out with a flush.
pub(super) struct Deflated {
    reader: DeflateDecoder<BufReader<Source>>,
    writer: DeflateEncoder<WriteHalf<Stream>>,
    /// The server has closed.
    closed: bool,
}

/// Compressed octets, and whether they have ended.
struct Source {
    half: ReadHalf<Stream>,
    ended: bool,
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.half).poll_read(cx, buf);
        self.ended |= matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        read
    }
}

impl Deflated {
    /// Everything from here on is compressed, what was read ahead included.
    pub(super) fn new(stream: Stream) -> Self {
        let (half, writer) = tokio::io::split(stream);
        let source = BufReader::with_capacity(READ, Source { half, ended: false });
        let reader = DeflateDecoder::new(source);
        Deflated { reader, writer: DeflateEncoder::new(writer), closed: false }
    }
}

impl AsyncRead for Deflated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A few octets may hold so many that the reads of the socket alone would never yield.
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        let told = ready!(Pin::new(&mut self.reader).poll_read(cx, buf));
        budget.made_progress();
        // RFC 4978 asks nobody to end the compressed data before a connection is closed.
        self.closed = told.is_err() && self.reader.get_ref().get_ref().ended;
        Poll::Ready(if self.closed { Ok(()) } else { told })
    }
}

impl AsyncWrite for Deflated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
