//! What of a request has left this process: half of one is never accepted, so it may be sent again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The end of a body whose length was not known before (RFC 9112 section 7.1).
const END: [u8; 5] = *b"0\r\n\r\n";

/// A stream that knows whether the last it took was the end of a body in chunks.
pub(super) struct Outgoing<S> {
    stream: S,
    tail: [u8; 5],
    ended: Arc<AtomicBool>,
}

/// Whether a body may have been sent to its end. Without such an end in what was written, surely not.
#[derive(Clone)]
pub(super) struct MayHaveEnded(Arc<AtomicBool>);

impl MayHaveEnded {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<S> Outgoing<S> {
    pub(super) fn new(stream: S) -> (Self, MayHaveEnded) {
        let ended = Arc::new(AtomicBool::new(false));
        let outgoing = Outgoing { stream, tail: [0; 5], ended: Arc::clone(&ended) };
        (outgoing, MayHaveEnded(ended))
    }

    fn took(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().skip(bytes.len().saturating_sub(END.len())) {
            self.tail.rotate_left(1);
            if let Some(last) = self.tail.last_mut() {
                *last = *byte;
            }
        }
        self.ended.store(self.tail == END, Ordering::Release);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outgoing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outgoing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.took(bytes.get(..count).unwrap_or(bytes));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_body_is_one_however_it_is_cut() {
        let (mut outgoing, ended) = Outgoing::new(());
        for (bytes, expected) in [
            ("POST / HTTP/1.1\r\n\r\n", false),
            ("3\r\nabc\r\n0", false),
            ("\r\n", false),
            ("\r\n", true),
            ("x", false),
            ("5\r\n0\r\n\r\n", true),
            ("\r\n", false),
        ] {
            outgoing.took(bytes.as_bytes());
            assert_eq!(ended.get(), expected, "{bytes:?}");
        }
    }
}
