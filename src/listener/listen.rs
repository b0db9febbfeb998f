//! The open port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::settings::ListenAddress;

/// An open port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Opens the port.
    ///
    /// # Errors
    /// Those of the system: the address is in use, is none of this machine's, or not permitted.
    pub async fn bind(address: &ListenAddress) -> io::Result<Self> {
        let ListenAddress::Tcp(address) = address;
        Ok(Listener { listener: TcpListener::bind(address).await? })
    }

    /// Listens at a socket that somebody else has opened, such as the service manager. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// Those of the system.
    pub fn inherit(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Listener { listener: TcpListener::from_std(socket)? })
    }

    /// Where it listens, with the port that was chosen.
    ///
    /// # Errors
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Replies are small and each is waited for.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "A connection keeps its delay");
                    }
                    return stream;
                }
                Err(error) => {
                    // No file descriptors, most likely: wait until some are given back.
                    tracing::warn!(%error, "A connection to the listener was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
