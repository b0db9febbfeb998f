//! The other end of the control socket: a [`Service`] that asks the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::sync::CancellationToken;

use super::outgoing::Outgoing;
use super::socket::is_allowed;
use super::wire::{
    Accepted, LARGEST_ANSWER, LARGEST_SUBMISSION, MOST_ROWS, Retried, TraceQuery, WireError,
    WireEvent, WireSubmission,
};
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult};
use crate::session::{
    CheckReport, FlushRequest, FlushSummary, FsckEvents, FsckRequest, NotifyRequest, QueueRow,
    RawEnvelope, Service, StatusReport, Submission, TraceReport,
};

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long the daemon may take to answer, where the answer does not wait for mail to move.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// How long a connection is of use to the first request: the daemon closes one that says nothing
/// for ten seconds.
const FRESH: Duration = Duration::from_secs(5);

/// A [`Service`] behind a control socket.
///
/// A request that broke before it can have had any effect is answered `MAPI_E_NETWORK_ERROR`,
/// and so is a broken one that may be repeated without harm; a submission that broke in the
/// middle is answered `MAPI_E_CALL_FAILED`, because whether it was accepted is not known.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    host: Host,
    /// The connection that showed that somebody is there, and since when it stands; the first
    /// request takes it.
    first: Mutex<Option<(UnixStream, Instant)>>,
}

/// Who may listen at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// The same user, or root.
    Ourselves,
    /// Whoever could make a socket at that path.
    Anybody,
}

/// What a broken request leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repetition {
    Harmless,
    Harmful,
}

/// When to stop waiting for the answer.
enum Patience {
    /// After [`ANSWER_DEADLINE`].
    Usual,
    /// After [`ANSWER_DEADLINE`] from the moment the body is sent.
    OnceSent(CancellationToken),
    /// Never: mail has to move first, or a person waits.
    Endless,
}

impl Client {
    /// Connects to the daemon at `path`.
    ///
    /// # Errors
    /// `MAPI_E_NETWORK_ERROR` when nobody listens there, `MAPI_E_NO_ACCESS` when it may not be
    /// reached.
    pub async fn connect(path: &Path) -> MapiResult<Self> {
        Self::connect_to(path, Host::Ourselves).await
    }

    /// Connects to a [`SubmissionSocket`](super::SubmissionSocket), whoever owns it: the path has
    /// to be one that can be trusted. Only [`Service::submit_raw`] is answered there.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_to_submit(path: &Path) -> MapiResult<Self> {
        Self::connect_to(path, Host::Anybody).await
    }

    async fn connect_to(path: &Path, host: Host) -> MapiResult<Self> {
        let stream = dial(path, host).await?;
        Ok(Client {
            path: path.to_owned(),
            host,
            first: Mutex::new(Some((stream, Instant::now()))),
        })
    }

    async fn stream(&self) -> MapiResult<UnixStream> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some((stream, since)) if since.elapsed() < FRESH && is_open(&stream) => Ok(stream),
            Some(_) | None => dial(&self.path, self.host).await,
        }
    }

    fn broken(&self, repetition: Repetition, why: impl std::fmt::Display) -> MapiError {
        let path = self.path.display();
        match repetition {
            Repetition::Harmless => MapiError::new(
                MapiCode::NETWORK_ERROR,
                format!("the daemon at {path} did not answer: {why}"),
            ),
            Repetition::Harmful => MapiError::new(
                MapiCode::CALL_FAILED,
                format!(
                    "the daemon at {path} went away before it answered ({why}); whether the \
                     message was accepted is not known, `postrider queue` shows it if it was"
                ),
            ),
        }
    }

    async fn call(
        &self,
        request: Request<Body>,
        repetition: Repetition,
        patience: Patience,
    ) -> MapiResult<Response<Incoming>> {
        let (stream, may_have_ended) = Outgoing::new(self.stream().await?);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(Repetition::Harmless, error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the daemon broke");
            }
        });
        let answer = sender.send_request(request);
        let in_chunks = matches!(patience, Patience::OnceSent(_));
        let answer = match patience {
            Patience::Endless => answer.await,
            Patience::Usual => tokio::time::timeout(ANSWER_DEADLINE, answer)
                .await
                .map_err(|_| self.broken(repetition, "no answer in time"))?,
            Patience::OnceSent(sent) => {
                let too_late = async {
                    sent.cancelled().await;
                    tokio::time::sleep(ANSWER_DEADLINE).await;
                };
                tokio::select! {
                    answer = answer => answer,
                    () = too_late => return Err(self.broken(repetition, "no answer in time")),
                }
            }
        };
        let answer = answer.map_err(|error| {
            // A cancelled request never left this process, and half of one is never accepted.
            let half = in_chunks && !may_have_ended.get();
            let left = if half || error.is_canceled() { Repetition::Harmless } else { repetition };
            self.broken(left, error)
        })?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    async fn refusal(&self, answer: Response<Incoming>) -> MapiError {
        let status = answer.status();
        match self.json::<WireError>(answer).await {
            Ok(error) => error.into(),
            Err(_) => {
                let full = status == StatusCode::SERVICE_UNAVAILABLE;
                let code = if full { MapiCode::BUSY } else { MapiCode::CALL_FAILED };
                let path = self.path.display();
                MapiError::new(code, format!("the daemon at {path} answered {status}"))
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> MapiResult<T> {
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect();
        let unusable = |why: String| {
            let path = self.path.display();
            MapiError::new(MapiCode::CALL_FAILED, format!("the daemon's answer at {path}: {why}"))
        };
        let bytes = tokio::time::timeout(ANSWER_DEADLINE, body)
            .await
            .map_err(|_| unusable("it did not end in time".into()))?
            .map_err(|error| unusable(error.to_string()))?
            .to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> MapiResult<T> {
        let request = request(method, path, Body::empty())?;
        let answer = self.call(request, Repetition::Harmless, Patience::Usual).await?;
        self.json(answer).await
    }

    async fn tell(&self, entry: &EntryId, verb: &str) -> MapiResult<()> {
        let path = format!("/v1/queue/{entry}/{verb}");
        let request = request(Method::POST, &path, Body::empty())?;
        self.call(request, Repetition::Harmless, Patience::Usual).await.map(drop)
    }
}

/// Whether the daemon still waits at the other end: it lets nobody be silent for long.
fn is_open(stream: &UnixStream) -> bool {
    // It says nothing before it is asked, so that anything but "not yet" is an end.
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

async fn dial(path: &Path, host: Host) -> MapiResult<UnixStream> {
    let shown = path.display();
    let connected = tokio::time::timeout(CONNECT_DEADLINE, UnixStream::connect(path)).await;
    match connected {
        Ok(Ok(stream)) if host == Host::Ourselves && !is_allowed(&stream) => Err(MapiError::new(
            MapiCode::NO_ACCESS,
            format!("who listens at {shown} is another user; nothing was said to them"),
        )),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(MapiError::new(MapiCode::NO_ACCESS, format!("{shown}: {error}")))
        }
        Ok(Err(error)) => Err(MapiError::new(
            MapiCode::NETWORK_ERROR,
            format!("no daemon listens at {shown}: {error}"),
        )),
        Err(_) => Err(MapiError::new(
            MapiCode::NETWORK_ERROR,
            format!("the daemon at {shown} accepts no connection"),
        )),
    }
}

fn request(method: Method, path: &str, body: Body) -> MapiResult<Request<Body>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "postrider")
        .body(body)
        .map_err(|error| MapiError::new(MapiCode::INVALID_PARAMETER, error.to_string()))
}

fn json_body<T: Serialize>(value: &T) -> MapiResult<Body> {
    serde_json::to_vec(value)
        .map(Body::from)
        .map_err(|error| MapiError::new(MapiCode::INVALID_PARAMETER, error.to_string()))
}

fn body_reader(answer: Response<Incoming>) -> impl AsyncBufRead + Send + Unpin + 'static {
    let bytes = Body::new(answer.into_body()).into_data_stream();
    StreamReader::new(TryStreamExt::map_err(bytes, io::Error::other))
}

fn entry_of(accepted: &Accepted) -> MapiResult<EntryId> {
    accepted.id.parse().map_err(|_| {
        let detail = format!("the daemon gave {:?} for an entry id", accepted.id);
        MapiError::new(MapiCode::CALL_FAILED, detail)
    })
}

#[async_trait]
impl Service for Client {
    async fn submit(&self, submission: Submission) -> MapiResult<EntryId> {
        let body = serde_json::to_vec(&WireSubmission::from(submission))
            .map_err(|error| MapiError::new(MapiCode::INVALID_PARAMETER, error.to_string()))?;
        if body.len() > LARGEST_SUBMISSION {
            return Err(MapiError::new(
                MapiCode::TOO_BIG,
                "the message is too large to be handed over in one piece; make it smaller or send \
                 it with --raw",
            ));
        }
        let body = Body::from(body);
        let request = request(Method::POST, "/v1/messages", body)?;
        let answer = self.call(request, Repetition::Harmful, Patience::Usual).await?;
        entry_of(&self.json(answer).await?)
    }

    async fn submit_raw(
        &self,
        envelope: RawEnvelope,
        bytes: Pin<Box<dyn AsyncRead + Send>>,
    ) -> MapiResult<EntryId> {
        let mut line = serde_json::to_vec(&envelope)
            .map_err(|error| MapiError::new(MapiCode::INVALID_PARAMETER, error.to_string()))?;
        line.push(b'\n');
        let sent = CancellationToken::new();
        let marker = sent.clone();
        let end = stream::poll_fn(move |_| {
            marker.cancel();
            std::task::Poll::Ready(None::<io::Result<bytes::Bytes>>)
        });
        let head = stream::once(std::future::ready(Ok(bytes::Bytes::from(line))));
        let body = Body::from_stream(head.chain(ReaderStream::new(bytes)).chain(end));
        let request = request(Method::POST, "/v1/messages/raw", body)?;
        let answer = self.call(request, Repetition::Harmful, Patience::OnceSent(sent)).await?;
        entry_of(&self.json(answer).await?)
    }

    async fn status(&self) -> MapiResult<StatusReport> {
        self.ask(Method::GET, "/v1/status").await
    }

    async fn watch_status(&self) -> MapiResult<Pin<Box<dyn Stream<Item = StatusReport> + Send>>> {
        let request = request(Method::GET, "/v1/status/watch", Body::empty())?;
        let answer = self.call(request, Repetition::Harmless, Patience::Usual).await?;
        Ok(Box::pin(stream::unfold(body_reader(answer), |mut reader| async move {
            let limit = u64::try_from(LARGEST_ANSWER).unwrap_or(u64::MAX);
            let mut line = Vec::new();
            (&mut reader).take(limit).read_until(b'\n', &mut line).await.ok()?;
            let report = serde_json::from_slice(&line).ok()?;
            Some((report, reader))
        })))
    }

    async fn metrics(&self) -> MapiResult<String> {
        let request = request(Method::GET, "/metrics", Body::empty())?;
        let answer = self.call(request, Repetition::Harmless, Patience::Usual).await?;
        let mut text = String::new();
        let limit = u64::try_from(LARGEST_ANSWER).unwrap_or(u64::MAX);
        let read = async { body_reader(answer).take(limit).read_to_string(&mut text).await };
        let read = tokio::time::timeout(ANSWER_DEADLINE, read).await;
        match read {
            Ok(Ok(_)) => Ok(text),
            Ok(Err(error)) => Err(self.broken(Repetition::Harmless, error)),
            Err(_) => Err(self.broken(Repetition::Harmless, "no answer in time")),
        }
    }

    async fn queue(&self, after: Option<EntryId>, limit: usize) -> MapiResult<Vec<QueueRow>> {
        let limit = limit.min(MOST_ROWS);
        let path = match after {
            Some(after) => format!("/v1/queue?limit={limit}&after={after}"),
            None => format!("/v1/queue?limit={limit}"),
        };
        self.ask(Method::GET, &path).await
    }

    async fn queue_row(&self, entry: &EntryId) -> MapiResult<QueueRow> {
        self.ask(Method::GET, &format!("/v1/queue/{entry}")).await
    }

    async fn trace(&self, id: &str) -> MapiResult<TraceReport> {
        let body = json_body(&TraceQuery { id: id.to_owned() })?;
        let request = request(Method::POST, "/v1/trace", body)?;
        let answer = self.call(request, Repetition::Harmless, Patience::Usual).await?;
        self.json(answer).await
    }

    async fn wait(&self, entry: &EntryId, limit: Option<Duration>) -> MapiResult<QueueRow> {
        let path = match limit {
            Some(limit) => format!("/v1/queue/{entry}/wait?limit_ms={}", limit.as_millis()),
            None => format!("/v1/queue/{entry}/wait"),
        };
        let request = request(Method::POST, &path, Body::empty())?;
        let answer = self.call(request, Repetition::Harmless, Patience::Endless).await?;
        self.json(answer).await
    }

    async fn cancel(&self, entry: &EntryId) -> MapiResult<()> {
        self.tell(entry, "cancel").await
    }

    async fn hold(&self, entry: &EntryId) -> MapiResult<()> {
        self.tell(entry, "hold").await
    }

    async fn release(&self, entry: &EntryId) -> MapiResult<()> {
        self.tell(entry, "release").await
    }

    async fn retry(&self, entry: Option<&EntryId>) -> MapiResult<u64> {
        let path = match entry {
            Some(entry) => format!("/v1/queue/{entry}/retry"),
            None => "/v1/retry".to_owned(),
        };
        let Retried { count } = self.ask(Method::POST, &path).await?;
        Ok(count)
    }

    async fn export(&self, entry: &EntryId) -> MapiResult<Pin<Box<dyn AsyncRead + Send>>> {
        let request = request(Method::GET, &format!("/v1/queue/{entry}/content"), Body::empty())?;
        let answer = self.call(request, Repetition::Harmless, Patience::Usual).await?;
        Ok(Box::pin(body_reader(answer)))
    }

    async fn notify(&self, notify: NotifyRequest) -> MapiResult<()> {
        let request = request(Method::POST, "/v1/notify", json_body(&notify)?)?;
        self.call(request, Repetition::Harmless, Patience::Usual).await.map(drop)
    }

    async fn flush(&self, flush: FlushRequest) -> MapiResult<FlushSummary> {
        let request = request(Method::POST, "/v1/flush", json_body(&flush)?)?;
        let answer = self.call(request, Repetition::Harmless, Patience::Endless).await?;
        self.json(answer).await
    }

    async fn check(&self) -> MapiResult<Vec<CheckReport>> {
        let request = request(Method::POST, "/v1/check", Body::empty())?;
        let answer = self.call(request, Repetition::Harmless, Patience::Endless).await?;
        self.json(answer).await
    }

    async fn fsck(&self, fsck: FsckRequest) -> MapiResult<FsckEvents> {
        let request = request(Method::POST, "/v1/fsck", json_body(&fsck)?)?;
        let answer = self.call(request, Repetition::Harmless, Patience::Usual).await?;
        Ok(Box::pin(stream::unfold(body_reader(answer), |mut reader| async move {
            let limit = u64::try_from(LARGEST_ANSWER).unwrap_or(u64::MAX);
            let mut line = Vec::new();
            (&mut reader).take(limit).read_until(b'\n', &mut line).await.ok()?;
            let event: WireEvent = serde_json::from_slice(&line).ok()?;
            Some((event.into(), reader))
        })))
    }
}
