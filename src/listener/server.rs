//! Serving clients: connections, their limits and their end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::listen::{Listener, Stream};
use super::reply::closing;
use super::session::Session;
use super::settings::ListenSettings;
use crate::clock::Clock;
use crate::session::Service;

/// How long transactions in progress may go on once the end has been asked for.
const GRACE: Duration = Duration::from_secs(5);

/// How long a client that is sent away may take to read why.
const TURN_AWAY: Duration = Duration::from_secs(5);

/// What all connections share.
pub(super) struct Context {
    pub(super) service: Arc<dyn Service>,
    pub(super) settings: ListenSettings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) host: String,
}

/// Serves clients until `shutdown` is ready; then transactions in progress get five seconds to
/// end. What was answered 250 is durable whenever the end comes (SP-1). The port stays open for a
/// next call: who connects meanwhile waits.
pub async fn serve(
    listener: &Listener,
    settings: ListenSettings,
    service: Arc<dyn Service>,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let room = Arc::new(Semaphore::new(settings.connections));
    let context = Arc::new(Context { service, settings, clock, host: crate::store::host_name() });
    let ending = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // Ended connections are forgotten here, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        let stream = tokio::select! {
            () = &mut shutdown => break,
            stream = listener.accept() => stream,
        };
        match Arc::clone(&room).try_acquire_owned() {
            Ok(permit) => {
                let session = Session::new(stream, Arc::clone(&context));
                let ending = ending.clone();
                connections.spawn(async move {
                    session.run(ending).await;
                    drop(permit);
                });
            }
            Err(_) => {
                connections.spawn(turn_away(stream));
            }
        }
    }
    ending.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves one client on a connection of the caller's until one of the two ends it.
pub async fn serve_stream<S>(
    stream: S,
    settings: ListenSettings,
    service: Arc<dyn Service>,
    clock: Arc<dyn Clock>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let context = Arc::new(Context { service, settings, clock, host: crate::store::host_name() });
    Session::new(stream, context).run(CancellationToken::new()).await;
}

async fn turn_away(mut stream: Stream) {
    let mut words = Vec::new();
    closing("too many connections").encode(&mut words);
    let said = async {
        stream.write_all(&words).await?;
        stream.shutdown().await
    };
    let _gone_already = tokio::time::timeout(TURN_AWAY, said).await;
}
