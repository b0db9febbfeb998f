//! A compressed connection (RFC 4978): raw DEFLATE in both directions, over a [`Stream`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_compression::tokio::bufread::DeflateDecoder;
use async_compression::tokio::write::DeflateEncoder;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf, ReadHalf, WriteHalf};

use super::stream::Stream;

/// Compressed octets that are read at once.
const READ: usize = 16 * 1024;

/// See the module. What is written goes out with a flush.
pub(super) struct Deflated {
    reader: DeflateDecoder<BufReader<ReadHalf<Stream>>>,
    writer: DeflateEncoder<WriteHalf<Stream>>,
}

impl Deflated {
    /// Everything from here on is compressed, what was read ahead included.
    pub(super) fn new(stream: Stream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let reader = DeflateDecoder::new(BufReader::with_capacity(READ, reader));
        Deflated { reader, writer: DeflateEncoder::new(writer) }
    }
}

impl AsyncRead for Deflated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
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
