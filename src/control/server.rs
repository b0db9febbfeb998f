//! Serving a [`Service`] on the control socket: connections, their limits and their end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::routes::{router, submissions};
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
    serve_door(Door::Owner(socket, router(service)), shutdown).await;
}

/// Takes the messages of every user of this machine, and nothing else; see [`serve`].
pub async fn serve_submissions(
    socket: &SubmissionSocket,
    service: Arc<dyn Service>,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_door(Door::Everybody(socket, service), shutdown).await;
}

/// Who is let in where, and what they can ask.
enum Door<'a> {
    Owner(&'a ControlSocket, Router),
    Everybody(&'a SubmissionSocket, Arc<dyn Service>),
}

impl Door<'_> {
    /// The next connection. Cancel-safe.
    async fn next(&self) -> (UnixStream, Router) {
        match self {
            Door::Owner(socket, router) => (socket.accept().await, router.clone()),
            Door::Everybody(socket, service) => {
                let (stream, user) = socket.accept().await;
                (stream, submissions(Arc::clone(service), user))
            }
        }
    }
}

async fn serve_door(door: Door<'_>, shutdown: impl Future<Output = ()> + Send) {
    let ending = CancellationToken::new();
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
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
            (permit, (stream, router)) = next => {
                let ending = ending.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    serve_connection(stream, router, ending).await;
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

pub(super) async fn serve_connection(
    stream: UnixStream,
    router: Router,
    ending: CancellationToken,
) {
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
