//! The paths of the control API, each one method of [`Service`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRef, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio::sync::Semaphore;
use tokio_util::io::{ReaderStream, StreamReader};

use super::openapi::description;
use super::request_body::{
    ENVELOPE_DEADLINE, RAW_PAUSE, RAW_PAUSE_OF_USER, Unread, drain, drain_body, lend, patient,
    read_whole,
};
use super::wire::{
    Accepted, LARGEST_REQUEST, LARGEST_SUBMISSION, MOST_ROWS, PageQuery, Retried, TraceQuery,
    WaitQuery, WireError, WireEvent, WireSubmission,
};
use crate::mapi::{EntryId, MapiCode, MapiError};
use crate::session::{
    CheckReport, FlushRequest, FlushSummary, FsckRequest, NotifyRequest, QueueRow, RawEnvelope,
    Service, StatusReport, TraceReport, login_name_of,
};

/// Most message objects in memory at the same time; further ones wait unread.
const MOST_SUBMISSIONS: usize = 4;

/// How long they wait. Together with the draining of what is refused it is less than a client
/// waits for its answer.
const PLACE_DEADLINE: Duration = Duration::from_secs(20);

/// What the handlers share.
#[derive(Clone)]
struct Daemon {
    service: Arc<dyn Service>,
    room: Room,
}

/// Room for message objects.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl FromRef<Daemon> for Arc<dyn Service> {
    fn from_ref(daemon: &Daemon) -> Self {
        Arc::clone(&daemon.service)
    }
}

impl FromRef<Daemon> for Room {
    fn from_ref(daemon: &Daemon) -> Self {
        daemon.room.clone()
    }
}

type Shared = State<Arc<dyn Service>>;
type Answer = Result<Response, Refusal>;

/// An error of the contract as an answer.
pub(super) struct Refusal(MapiError);

impl From<MapiError> for Refusal {
    fn from(error: MapiError) -> Self {
        Refusal(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status_of(self.0.code()), Json(WireError::from(&self.0))).into_response()
    }
}

/// The HTTP status is for people with `curl`; programs read the code in the body.
fn status_of(code: MapiCode) -> StatusCode {
    match code {
        MapiCode::NOT_FOUND | MapiCode::NOT_IN_QUEUE => StatusCode::NOT_FOUND,
        MapiCode::UNABLE_TO_ABORT | MapiCode::OBJECT_CHANGED | MapiCode::CANCEL => {
            StatusCode::CONFLICT
        }
        MapiCode::INVALID_PARAMETER
        | MapiCode::INVALID_ENTRYID
        | MapiCode::UNKNOWN_FLAGS
        | MapiCode::NO_RECIPIENTS
        | MapiCode::CORRUPT_DATA => StatusCode::BAD_REQUEST,
        MapiCode::TOO_BIG => StatusCode::PAYLOAD_TOO_LARGE,
        MapiCode::NO_ACCESS => StatusCode::FORBIDDEN,
        MapiCode::NO_SUPPORT => StatusCode::NOT_IMPLEMENTED,
        MapiCode::NOT_ENOUGH_DISK => StatusCode::INSUFFICIENT_STORAGE,
        MapiCode::TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
        MapiCode::BUSY | MapiCode::WAIT | MapiCode::NETWORK_ERROR => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) fn router(service: Arc<dyn Service>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/status/watch", get(watch_status))
        .route("/v1/messages", post(submit))
        .route("/v1/messages/raw", post(submit_raw))
        .route("/v1/queue", get(queue))
        .route("/v1/queue/{id}", get(queue_row))
        .route("/v1/queue/{id}/wait", post(wait))
        .route("/v1/queue/{id}/cancel", post(cancel))
        .route("/v1/queue/{id}/hold", post(hold))
        .route("/v1/queue/{id}/release", post(release))
        .route("/v1/queue/{id}/retry", post(retry))
        .route("/v1/queue/{id}/content", get(export))
        .route("/v1/trace", post(trace))
        .route("/v1/retry", post(retry_all))
        .route("/v1/notify", post(notify))
        .route("/v1/flush", post(flush))
        .route("/v1/check", post(check))
        .route("/v1/fsck", post(fsck))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        // Each handler reads its body with a limit of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(Daemon { service, room: Room(Arc::new(Semaphore::new(MOST_SUBMISSIONS))) })
}

/// Where a user of this machine may hand over messages.
#[derive(Clone)]
struct Counter {
    service: Arc<dyn Service>,
    /// The user's number, from the kernel.
    user: u32,
}

/// What every user may ask.
pub(super) fn submissions(service: Arc<dyn Service>, user: u32) -> Router {
    Router::new()
        .route("/v1/messages/raw", post(submit_raw_of_user))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .layer(DefaultBodyLimit::disable())
        .with_state(Counter { service, user })
}

/// What a user is told who has too many connections already.
pub(super) fn no_place() -> Router {
    Router::new().fallback(turned_away).layer(DefaultBodyLimit::disable())
}

async fn turned_away(body: Body) -> Refusal {
    drain_body(body).await;
    let words = "this user has too many connections to the daemon at once; try again";
    Refusal(MapiError::new(MapiCode::BUSY, words))
}

/// What the metrics port serves: nothing that changes anything or shows a message.
pub(super) fn metrics_router(service: Arc<dyn Service>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .with_state(Daemon { service, room: Room(Arc::new(Semaphore::new(0))) })
}

async fn no_such_path() -> Refusal {
    Refusal(MapiError::new(
        MapiCode::NO_SUPPORT,
        "the daemon knows no such request; is it of another version?",
    ))
}

/// The status table as of now.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "status",
    responses((status = 200, description = "The status table, counts and mailboxes.", body = StatusReport), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn status(State(service): Shared) -> Answer {
    json(&service.status().await?)
}

/// The status table now and after each change.
#[utoipa::path(
    get,
    path = "/v1/status/watch",
    operation_id = "watch_status",
    responses((status = 200, description = "One document a line, now and after each change.", body = StatusReport, content_type = "application/x-ndjson"), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn watch_status(State(service): Shared) -> Answer {
    let reports = service.watch_status().await?;
    let lines = reports.map(|report| {
        let mut line = serde_json::to_vec(&report)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(line)
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// Submits a message object.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "submit",
    request_body = WireSubmission,
    responses((status = 200, description = "It is durable.", body = Accepted), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn submit(State(service): Shared, State(room): State<Room>, body: Body) -> Answer {
    let Ok(_place) = tokio::time::timeout(PLACE_DEADLINE, room.0.acquire()).await else {
        drain_body(body).await;
        let words = "too many messages are being handed over at once; try again";
        return Err(MapiError::new(MapiCode::BUSY, words).into());
    };
    let submission: WireSubmission = read_json(body, LARGEST_SUBMISSION).await?;
    let entry = service.submit(submission.into()).await?;
    json(&Accepted { id: entry.to_string() })
}

/// The body is one line of JSON, the envelope, and behind it the message as it is.
/// Submits a message in RFC 5322.
#[utoipa::path(
    post,
    path = "/v1/messages/raw",
    operation_id = "submit_raw",
    request_body(content = RawEnvelope, content_type = "application/octet-stream", description = "One line of JSON, and behind it the message in RFC 5322 as it is."),
    responses((status = 200, description = "It is durable.", body = Accepted), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn submit_raw(State(service): Shared, body: Body) -> Answer {
    take_raw(service, patient(body, RAW_PAUSE), None).await
}

async fn submit_raw_of_user(State(counter): State<Counter>, body: Body) -> Answer {
    take_raw(counter.service, patient(body, RAW_PAUSE_OF_USER), Some(counter.user)).await
}

/// `user` is who hands it over, whatever the envelope says of that.
async fn take_raw(
    service: Arc<dyn Service>,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    user: Option<u32>,
) -> Answer {
    let mut reader = StreamReader::new(pieces);
    let limit = u64::try_from(LARGEST_REQUEST).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let mut head = (&mut reader).take(limit);
    let read = head.read_until(b'\n', &mut line);
    let read = tokio::time::timeout(ENVELOPE_DEADLINE, read).await;
    let read = read.map_err(|_| invalid("the envelope did not end in time"))?;
    read.map_err(|error| invalid(format!("the envelope could not be read: {error}")))?;
    if line.last() != Some(&b'\n') {
        return Err(invalid("the envelope has no end or is too long"));
    }
    let mut envelope: RawEnvelope = from_json(&line)?;
    if let Some(user) = user {
        envelope.submitter = Some(login_name_of(user));
    }
    let (reader, back) = lend(reader);
    match service.submit_raw(envelope, Box::pin(reader)).await {
        Ok(entry) => json(&Accepted { id: entry.to_string() }),
        Err(error) => {
            if let Ok(rest) = back.await {
                drain(rest).await;
            }
            Err(error.into())
        }
    }
}

/// Rows of the outgoing queue.
#[utoipa::path(
    get,
    path = "/v1/queue",
    operation_id = "queue",
    params(("after" = Option<String>, Query, description = "Only rows after this entry id."), ("limit" = Option<usize>, Query, description = "Most rows; 1000 and no more.")),
    responses((status = 200, description = "Rows in order of submission.", body = Vec<QueueRow>), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn queue(
    State(service): Shared,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| invalid(error.body_text()))?;
    let after = query.after.as_deref().map(entry_id).transpose()?;
    json(&service.queue(after, query.limit.min(MOST_ROWS)).await?)
}

/// One message of the queue, or how it ended.
#[utoipa::path(
    get,
    path = "/v1/queue/{id}",
    operation_id = "queue_row",
    params(("id" = String, Path, description = "Entry id.")),
    responses((status = 200, description = "The row, or how it ended.", body = QueueRow), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn queue_row(State(service): Shared, Path(id): Path<String>) -> Answer {
    json(&service.queue_row(&entry_id(&id)?).await?)
}

/// Waits until a message has ended.
#[utoipa::path(
    post,
    path = "/v1/queue/{id}/wait",
    operation_id = "wait",
    params(("id" = String, Path, description = "Entry id."), ("limit_ms" = Option<u64>, Query, description = "Milliseconds; without it the wait has no end.")),
    responses((status = 200, description = "How it ended.", body = QueueRow), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn wait(
    State(service): Shared,
    Path(id): Path<String>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| invalid(error.body_text()))?;
    json(&service.wait(&entry_id(&id)?, query.limit_ms.map(Duration::from_millis)).await?)
}

/// Cancels a message.
#[utoipa::path(
    post,
    path = "/v1/queue/{id}/cancel",
    operation_id = "cancel",
    params(("id" = String, Path, description = "Entry id.")),
    responses((status = 204, description = "Done."), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn cancel(State(service): Shared, Path(id): Path<String>) -> Answer {
    service.cancel(&entry_id(&id)?).await?;
    done()
}

/// Keeps a message from being sent.
#[utoipa::path(
    post,
    path = "/v1/queue/{id}/hold",
    operation_id = "hold",
    params(("id" = String, Path, description = "Entry id.")),
    responses((status = 204, description = "Done."), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn hold(State(service): Shared, Path(id): Path<String>) -> Answer {
    service.hold(&entry_id(&id)?).await?;
    done()
}

/// Lets a held message go.
#[utoipa::path(
    post,
    path = "/v1/queue/{id}/release",
    operation_id = "release",
    params(("id" = String, Path, description = "Entry id.")),
    responses((status = 204, description = "Done."), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn release(State(service): Shared, Path(id): Path<String>) -> Answer {
    service.release(&entry_id(&id)?).await?;
    done()
}

/// Makes a message due now.
#[utoipa::path(
    post,
    path = "/v1/queue/{id}/retry",
    operation_id = "retry",
    params(("id" = String, Path, description = "Entry id.")),
    responses((status = 200, description = "How many are due now.", body = Retried), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn retry(State(service): Shared, Path(id): Path<String>) -> Answer {
    json(&Retried { count: service.retry(Some(&entry_id(&id)?)).await? })
}

/// Makes every deferred message due now.
#[utoipa::path(
    post,
    path = "/v1/retry",
    operation_id = "retry_all",
    responses((status = 200, description = "How many are due now.", body = Retried), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn retry_all(State(service): Shared) -> Answer {
    json(&Retried { count: service.retry(None).await? })
}

/// The message itself.
#[utoipa::path(
    get,
    path = "/v1/queue/{id}/content",
    operation_id = "export",
    params(("id" = String, Path, description = "Entry id.")),
    responses((status = 200, description = "The message in RFC 5322.", body = String, content_type = "message/rfc822"), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn export(State(service): Shared, Path(id): Path<String>) -> Answer {
    let content = service.export(&entry_id(&id)?).await?;
    let kind = [(header::CONTENT_TYPE, "message/rfc822")];
    Ok((kind, Body::from_stream(ReaderStream::new(content))).into_response())
}

/// A POST, because a `Message-ID` may hold any character.
#[utoipa::path(
    post,
    path = "/v1/trace",
    operation_id = "trace",
    request_body = TraceQuery,
    responses((status = 200, description = "Every step.", body = TraceReport), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn trace(State(service): Shared, body: Body) -> Answer {
    let TraceQuery { id } = read_json(body, LARGEST_REQUEST).await?;
    json(&service.trace(&id).await?)
}

/// Calls TransportNotify.
#[utoipa::path(
    post,
    path = "/v1/notify",
    operation_id = "notify",
    request_body = NotifyRequest,
    responses((status = 204, description = "Done."), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn notify(State(service): Shared, body: Body) -> Answer {
    let request: NotifyRequest = read_json(body, LARGEST_REQUEST).await?;
    service.notify(request).await?;
    done()
}

/// Flushes, and answers when that is done.
#[utoipa::path(
    post,
    path = "/v1/flush",
    operation_id = "flush",
    request_body = FlushRequest,
    responses((status = 200, description = "What it did.", body = FlushSummary), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn flush(State(service): Shared, body: Body) -> Answer {
    let request: FlushRequest = read_json(body, LARGEST_REQUEST).await?;
    json(&service.flush(request).await?)
}

/// Logs in to every server of the profile.
#[utoipa::path(
    post,
    path = "/v1/check",
    operation_id = "check",
    responses((status = 200, description = "What each server offers.", body = Vec<CheckReport>), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn check(State(service): Shared) -> Answer {
    json(&service.check().await?)
}

/// One line of JSON for each event; an error is the last.
#[utoipa::path(
    post,
    path = "/v1/fsck",
    operation_id = "fsck",
    request_body = FsckRequest,
    responses((status = 200, description = "One event a line; the report or an error is the last.", body = WireEvent, content_type = "application/x-ndjson"), (status = "default", description = "An error of the contract.", body = WireError))
)]
pub(super) async fn fsck(State(service): Shared, body: Body) -> Answer {
    let request: FsckRequest = read_json(body, LARGEST_REQUEST).await?;
    let lines = service.fsck(request).await?.map(|event| {
        let mut line = serde_json::to_vec(&WireEvent::from(event))?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(line)
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// Counters and gauges for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    responses(
        (status = 200, description = "Text of version 0.0.4.", body = String, content_type = "text/plain"),
        (status = "default", description = "An error of the contract.", body = WireError)
    )
)]
pub(super) async fn metrics(State(service): Shared) -> Answer {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, service.metrics().await?).into_response())
}

/// This description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object))
)]
pub(super) async fn openapi() -> Answer {
    json(&description())
}

fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn json<T: Serialize>(value: &T) -> Answer {
    Ok(Json(value).into_response())
}

fn entry_id(text: &str) -> Result<EntryId, Refusal> {
    text.parse().map_err(|_| {
        Refusal(MapiError::new(MapiCode::INVALID_ENTRYID, format!("{text:?} is no entry id")))
    })
}

async fn read_json<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Refusal> {
    let bytes = read_whole(body, limit).await.map_err(|unread| {
        Refusal(match unread {
            Unread::TooLarge => MapiError::new(
                MapiCode::TOO_BIG,
                format!("the request is larger than the {limit} bytes that are taken"),
            ),
            Unread::Broken(why) => MapiError::new(
                MapiCode::CALL_FAILED,
                format!("the request could not be read: {why}"),
            ),
        })
    })?;
    from_json(&bytes)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("the request cannot be understood: {error}")))
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal(MapiError::new(MapiCode::INVALID_PARAMETER, why))
}
