//! The paths of the control API, each one method of [`Service`].

pub(super) mod queue;
pub(super) mod session;
pub(super) mod submit;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use utoipa::IntoResponses;
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};

use super::request_body::{Unread, read_whole};
use super::wire::WireError;
use crate::mapi::{EntryId, MapiCode, MapiError};
use crate::session::Service;

/// Most message objects in memory at the same time; further ones wait unread.
const MOST_SUBMISSIONS: usize = 4;

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

impl IntoResponses for Refusal {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let document = Content::new(Some(Ref::from_schema_name("WireError")));
        let refusal = ResponseBuilder::new().description("An error of the contract.");
        let refusal = refusal.content("application/json", document).build();
        BTreeMap::from([("default".to_owned(), refusal.into())])
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
        .route("/v1/status", get(session::status))
        .route("/v1/status/watch", get(session::watch_status))
        .route("/v1/messages", post(submit::submit))
        .route("/v1/messages/raw", post(submit::submit_raw))
        .route("/v1/queue", get(queue::queue))
        .route("/v1/queue/{id}", get(queue::queue_row))
        .route("/v1/queue/{id}/wait", post(queue::wait))
        .route("/v1/queue/{id}/cancel", post(queue::cancel))
        .route("/v1/queue/{id}/hold", post(queue::hold))
        .route("/v1/queue/{id}/release", post(queue::release))
        .route("/v1/queue/{id}/retry", post(queue::retry))
        .route("/v1/queue/{id}/content", get(queue::export))
        .route("/v1/trace", post(queue::trace))
        .route("/v1/retry", post(queue::retry_all))
        .route("/v1/notify", post(session::notify))
        .route("/v1/flush", post(session::flush))
        .route("/v1/check", post(session::check))
        .route("/v1/fsck", post(session::fsck))
        .route("/metrics", get(session::metrics))
        .route("/openapi.json", get(session::openapi))
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
        .route("/v1/messages/raw", post(submit::submit_raw_of_user))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .layer(DefaultBodyLimit::disable())
        .with_state(Counter { service, user })
}

/// What the metrics port serves: nothing that changes anything or shows a message.
pub(super) fn metrics_router(service: Arc<dyn Service>) -> Router {
    Router::new()
        .route("/metrics", get(session::metrics))
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
