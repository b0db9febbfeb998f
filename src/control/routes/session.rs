//! The session as a whole: its status, what it is told, what it is counted by.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use futures_util::{Stream, StreamExt};
use serde::Serialize;

use super::{Answer, Refusal, Shared, done, json, read_json};
use crate::control::openapi::description;
use crate::control::wire::{LARGEST_REQUEST, WireEvent};
use crate::session::{
    CheckReport, FlushRequest, FlushSummary, FsckRequest, NotifyRequest, StatusReport,
};

/// The status table as of now.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "status",
    responses((status = 200, description = "The status table, counts and mailboxes.", body = StatusReport), Refusal)
)]
pub(super) async fn status(State(service): Shared) -> Answer {
    json(&service.status().await?)
}

/// The status table now and after each change.
#[utoipa::path(
    get,
    path = "/v1/status/watch",
    operation_id = "watch_status",
    responses((status = 200, description = "One document a line, now and after each change.", body = StatusReport, content_type = "application/x-ndjson"), Refusal)
)]
pub(super) async fn watch_status(State(service): Shared) -> Answer {
    let reports = service.watch_status().await?;
    one_a_line(reports)
}

/// Calls TransportNotify.
#[utoipa::path(
    post,
    path = "/v1/notify",
    operation_id = "notify",
    request_body = NotifyRequest,
    responses((status = 204, description = "Done."), Refusal)
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
    responses((status = 200, description = "What it did.", body = FlushSummary), Refusal)
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
    responses((status = 200, description = "What each server offers.", body = Vec<CheckReport>), Refusal)
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
    responses((status = 200, description = "One event a line; the report or an error is the last.", body = WireEvent, content_type = "application/x-ndjson"), Refusal)
)]
pub(super) async fn fsck(State(service): Shared, body: Body) -> Answer {
    let request: FsckRequest = read_json(body, LARGEST_REQUEST).await?;
    one_a_line(service.fsck(request).await?.map(WireEvent::from))
}

/// Counters and gauges for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    responses(
        (status = 200, description = "Text of version 0.0.4.", body = String, content_type = "text/plain"),
        Refusal
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

/// Documents as they come.
fn one_a_line<T: Serialize>(documents: impl Stream<Item = T> + Send + 'static) -> Answer {
    let lines = documents.map(|document| {
        let mut line = serde_json::to_vec(&document)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(line)
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}
