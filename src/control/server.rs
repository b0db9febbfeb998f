//! Serving a [`Service`] on the control socket: connections, their limits and their end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::routes::router;
use super::users_door::{Place, UsersDoor};
use super::{ControlSocket, SubmissionSocket};
use crate::session::Service;

/// Most connections at the same time; further ones wait in the backlog of the socket.
const MOST_CONNECTIONS: usize = 256;

/// How long a client may take to send the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;

/// Most header fields of a request; ours have three.
const MOST_FIELDS: usize = 32;

/// How long requests in progress may go on once the end has been asked for.
const GRACE: Duration = Duration::from_secs(2);

/// Answers requests until `shutdown` is ready; then requests in progress get two seconds to end
/// and the rest is cut off. The socket stays open for a next call: who connects meanwhile waits.
pub async fn serve(
    socket: &ControlSocket,
    service: Arc<dyn Service>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let door = OwnersDoor { socket, router: router(service) };
    serve_door(&door, MOST_CONNECTIONS, shutdown).await;
}

/// Takes the messages of every user of this machine, and nothing else; see [`serve`].
pub async fn serve_submissions(
    socket: &SubmissionSocket,
    service: Arc<dyn Service>,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_door(&UsersDoor::new(socket, service), MOST_CONNECTIONS, shutdown).await;
}

/// Where connections come from, and what each may ask.
pub(super) trait Door: Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next one. Cancel-safe.
    fn next(&self) -> impl Future<Output = Guest<Self::Stream>> + Send;
}

/// A connection that was let in.
pub(super) struct Guest<S> {
    pub(super) stream: S,
    /// What it may ask.
    pub(super) router: Router,
    /// After how long it has to go, done or not.
    pub(super) stay: Option<Duration>,
    /// Given back when it ends.
    pub(super) place: Option<Place>,
}

impl<S> Guest<S> {
    /// Whoever may stay as long as they keep to the limits.
    pub(super) fn new(stream: S, router: Router) -> Self {
        Guest { stream, router, stay: None, place: None }
    }
}

/// Lets in whoever runs the daemon, to everything.
struct OwnersDoor<'a> {
    socket: &'a ControlSocket,
    router: Router,
}

impl Door for OwnersDoor<'_> {
    type Stream = UnixStream;

    async fn next(&self) -> Guest<UnixStream> {
        Guest::new(self.socket.accept().await, self.router.clone())
    }
}

/// Serves the connections of a door.
pub(super) async fn serve_door<D: Door>(
    door: &D,
    most: usize,
    shutdown: impl Future<Output = ()> + Send,
) {
    let ending = CancellationToken::new();
    let room = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // Ended connections are forgotten here, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, door.next().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (permit, guest) = next => {
                let ending = ending.clone();
                connections.spawn(async move {
                    let Guest { stream, router, stay, place } = guest;
                    let served = serve_connection(stream, router, ending);
                    match stay {
                        Some(stay) => drop(tokio::time::timeout(stay, served).await),
                        None => served.await,
                    }
                    drop((place, permit));
                });
            }
        }
    }
    ending.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

pub(super) async fn serve_connection<S>(stream: S, router: Router, ending: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_FIELDS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a control connection broke");
    }
}
