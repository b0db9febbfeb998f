//! The outgoing queue and the messages in it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use tokio_util::io::ReaderStream;

use super::{Answer, Refusal, Shared, done, entry_id, invalid, json, read_json};
use crate::control::wire::{LARGEST_REQUEST, MOST_ROWS, PageQuery, Retried, TraceQuery, WaitQuery};
use crate::session::{QueueRow, TraceReport};

/// Rows of the outgoing queue.
#[utoipa::path(
    get,
    path = "/v1/queue",
    operation_id = "queue",
    params(("after" = Option<String>, Query, description = "Only rows after this entry id."), ("limit" = Option<usize>, Query, description = "Most rows; 1000 and no more.")),
    responses((status = 200, description = "Rows in order of submission.", body = Vec<QueueRow>), Refusal)
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
    responses((status = 200, description = "The row, or how it ended.", body = QueueRow), Refusal)
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
    responses((status = 200, description = "How it ended.", body = QueueRow), Refusal)
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
    responses((status = 204, description = "Done."), Refusal)
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
    responses((status = 204, description = "Done."), Refusal)
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
    responses((status = 204, description = "Done."), Refusal)
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
    responses((status = 200, description = "How many are due now.", body = Retried), Refusal)
)]
pub(super) async fn retry(State(service): Shared, Path(id): Path<String>) -> Answer {
    json(&Retried { count: service.retry(Some(&entry_id(&id)?)).await? })
}

/// Makes every deferred message due now.
#[utoipa::path(
    post,
    path = "/v1/retry",
    operation_id = "retry_all",
    responses((status = 200, description = "How many are due now.", body = Retried), Refusal)
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
    responses((status = 200, description = "The message in RFC 5322.", body = String, content_type = "message/rfc822"), Refusal)
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
    responses((status = 200, description = "Every step.", body = TraceReport), Refusal)
)]
pub(super) async fn trace(State(service): Shared, body: Body) -> Answer {
    let TraceQuery { id } = read_json(body, LARGEST_REQUEST).await?;
    json(&service.trace(&id).await?)
}
