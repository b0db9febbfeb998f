//! Messages that are handed over.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::{Answer, Counter, Refusal, Room, Shared, from_json, invalid, json, read_json};
use crate::control::request_body::{
    ENVELOPE_DEADLINE, RAW_PAUSE, RAW_PAUSE_OF_USER, drain, drain_body, lend, patient,
};
use crate::control::wire::{Accepted, LARGEST_REQUEST, LARGEST_SUBMISSION, WireSubmission};
use crate::mapi::{MapiCode, MapiError};
use crate::session::{RawEnvelope, Service, login_name_of};

/// How long message objects wait for room. Together with the draining of what is refused it is less
/// than a client waits for its answer.
const PLACE_DEADLINE: Duration = Duration::from_secs(20);

/// Submits a message object.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "submit",
    request_body = WireSubmission,
    responses((status = 200, description = "It is durable.", body = Accepted), Refusal)
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
    responses((status = 200, description = "It is durable.", body = Accepted), Refusal)
)]
pub(super) async fn submit_raw(State(service): Shared, body: Body) -> Answer {
    take_raw(service, patient(body, RAW_PAUSE), None).await
}

pub(super) async fn submit_raw_of_user(State(counter): State<Counter>, body: Body) -> Answer {
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

/// What a user is told who has too many connections already.
pub(in crate::control) fn no_place() -> Router {
    Router::new().fallback(turned_away).layer(DefaultBodyLimit::disable())
}

async fn turned_away(body: Body) -> Refusal {
    drain_body(body).await;
    let words = "this user has too many connections to the daemon at once; try again";
    Refusal(MapiError::new(MapiCode::BUSY, words))
}
