//! A connected byte stream, in clear or under TLS, compressed or not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::binding::{self, ChannelBinding};
use super::deflate::Deflated;

/// A connection. Bytes that were read too early, or that a later reader expects to see (a
/// greeting), stand before what comes from the wire.
pub(crate) struct Stream {
    ahead: Bytes,
    wire: Wire,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Deflated { deflated: Box<Deflated>, peer: io::Result<SocketAddr>, encrypted: bool },
}

impl Stream {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Stream { ahead: Bytes::new(), wire: Wire::Plain(tcp) }
    }

    pub(super) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Stream { ahead: Bytes::new(), wire: Wire::Tls(Box::new(tls)) }
    }

    /// The same stream with `ahead` to be read before anything else.
    #[must_use]
    pub(super) fn with_ahead(mut self, ahead: Bytes) -> Self {
        debug_assert!(self.ahead.is_empty(), "bytes would be lost");
        self.ahead = ahead;
        self
    }

    /// The TCP stream when nothing protects it and nothing was read ahead.
    pub(super) fn into_plain(self) -> Option<TcpStream> {
        match self.wire {
            Wire::Plain(tcp) if self.ahead.is_empty() => Some(tcp),
            _ => None,
        }
    }

    /// The same stream with everything from here on compressed.
    pub(super) fn deflated(self) -> Self {
        let (peer, encrypted) = (self.peer_addr(), self.is_encrypted());
        let deflated = Box::new(Deflated::new(self));
        Stream { ahead: Bytes::new(), wire: Wire::Deflated { deflated, peer, encrypted } }
    }

    /// Whether TLS protects it.
    pub(crate) fn is_encrypted(&self) -> bool {
        match self.wire {
            Wire::Plain(_) => false,
            Wire::Tls(_) => true,
            Wire::Deflated { encrypted, .. } => encrypted,
        }
    }

    /// TLS version and cipher suite for people; `None` in clear and once it is compressed.
    pub(crate) fn protection(&self) -> Option<String> {
        let Wire::Tls(tls) = &self.wire else { return None };
        let (_, connection) = tls.get_ref();
        let version = connection.protocol_version()?;
        let suite = connection.negotiated_cipher_suite()?.suite();
        Some(format!("{version:?}, {suite:?}").replace('_', "."))
    }

    /// What a login over it can be bound to; `None` in clear, where TLS has nothing to offer, and once
    /// it is compressed.
    pub(crate) fn binding(&self) -> Option<ChannelBinding> {
        let Wire::Tls(tls) = &self.wire else { return None };
        binding::of(tls.get_ref().1)
    }

    /// The address of the peer.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.wire {
            Wire::Plain(tcp) => tcp.peer_addr(),
            Wire::Tls(tls) => tls.get_ref().0.peer_addr(),
            Wire::Deflated { peer, .. } => peer
                .as_ref()
                .copied()
                .map_err(|error| io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("peer", &self.peer_addr().ok())
            .field("encrypted", &self.is_encrypted())
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let take = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(take));
            return Poll::Ready(Ok(()));
        }
        match &mut self.wire {
            Wire::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Wire::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Wire::Deflated { deflated, .. } => Pin::new(deflated).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Wire::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Wire::Deflated { deflated, .. } => Pin::new(deflated).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Wire::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Wire::Deflated { deflated, .. } => Pin::new(deflated).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Wire::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Wire::Deflated { deflated, .. } => Pin::new(deflated).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Wire::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Wire::Deflated { deflated, .. } => Pin::new(deflated).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(tcp) => tcp.is_write_vectored(),
            Wire::Tls(tls) => tls.is_write_vectored(),
            Wire::Deflated { deflated, .. } => deflated.is_write_vectored(),
        }
    }
}
