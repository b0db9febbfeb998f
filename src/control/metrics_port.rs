//! `/metrics` over TCP, for a Prometheus that cannot reach a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};

use super::routes::metrics_router;
use super::server::{Door, Guest, serve_door};
use crate::session::Service;

/// Most connections at the same time; whoever reads metrics needs one.
const MOST_CONNECTIONS: usize = 16;

/// A listening port that answers `GET /metrics` and nothing else.
#[derive(Debug)]
pub struct MetricsPort(TcpListener);

impl MetricsPort {
    /// Opens the port. Whether it may be other than a loopback address is the profile's to say.
    ///
    /// # Errors
    /// `AddrInUse`, `PermissionDenied`, `AddrNotAvailable`; other I/O errors.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(MetricsPort)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// I/O errors.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until `shutdown` is ready; then answers under way get two seconds to end.
    pub async fn serve(
        &self,
        service: Arc<dyn Service>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let door = MetricsDoor { port: &self.0, router: metrics_router(service) };
        serve_door(&door, MOST_CONNECTIONS, shutdown).await;
    }
}

/// Lets in whoever reaches the port, to the metrics.
struct MetricsDoor<'a> {
    port: &'a TcpListener,
    router: Router,
}

impl Door for MetricsDoor<'_> {
    type Stream = TcpStream;

    async fn next(&self) -> Guest<TcpStream> {
        loop {
            match self.port.accept().await {
                Ok((stream, _)) => return Guest::new(stream, self.router.clone()),
                Err(error) => {
                    // No file descriptors, most likely: wait until some are given back.
                    tracing::warn!(%error, "A connection to the metrics port was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
