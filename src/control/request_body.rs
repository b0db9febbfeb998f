//! Reading the bodies of requests within limits, and what is left of them after a refusal.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::oneshot;

/// How much of a refused body is read to its end, in bytes, and how long. A connection that is
/// closed with something unread loses its answer: the client would see a reset and not know
/// whether the message was taken.
const MOST_DRAINED: u64 = 1024 * 1024 * 1024;
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// How long the body of a JSON request may take as a whole.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// How long the envelope in front of a raw message may take; programs write it in one piece.
pub(super) const ENVELOPE_DEADLINE: Duration = Duration::from_secs(30);

/// How long nothing may come of a raw message: a program, or a person, may be writing it.
pub(super) const RAW_PAUSE: Duration = Duration::from_secs(10 * 60);

/// The same at the submission socket: `sendmail` reads all of a message before it comes.
pub(super) const RAW_PAUSE_OF_USER: Duration = Duration::from_secs(60);

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than allowed.
    TooLarge,
    /// The connection broke.
    Broken(String),
}

/// A body whole, when it has at most `limit` bytes.
pub(super) async fn read_whole(body: Body, limit: usize) -> Result<Vec<u8>, Unread> {
    let read = tokio::time::timeout(BODY_DEADLINE, read_frames(body, limit)).await;
    read.unwrap_or_else(|_| Err(Unread::Broken("it did not end in time".into())))
}

async fn read_frames(mut body: Body, limit: usize) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Unread::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len().saturating_add(data.len()) > limit {
            drain_body(body).await;
            return Err(Unread::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The bytes of a raw message as they come; an error once nothing came for `pause`.
pub(super) fn patient(
    body: Body,
    pause: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    Box::pin(stream::unfold(body.into_data_stream(), move |mut rest| async move {
        let item = match tokio::time::timeout(pause, rest.next()).await {
            Ok(None) => return None,
            Ok(Some(item)) => item.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for too long")),
        };
        Some((item, rest))
    }))
}

/// Reads a refused body to its end.
pub(super) async fn drain_body(mut body: Body) {
    let drained = async {
        let mut left = MOST_DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
            if left == 0 {
                return;
            }
        }
    };
    let _too_slow = tokio::time::timeout(DRAIN_DEADLINE, drained).await;
}

/// A reader that comes back to who lent it when it is dropped.
pub(super) struct Lent<R> {
    reader: Option<R>,
    owner: Option<oneshot::Sender<R>>,
}

/// Lends a reader; the second value gets it back.
pub(super) fn lend<R>(reader: R) -> (Lent<R>, oneshot::Receiver<R>) {
    let (owner, back) = oneshot::channel();
    (Lent { reader: Some(reader), owner: Some(owner) }, back)
}

impl<R: AsyncRead + Unpin> AsyncRead for Lent<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.reader {
            Some(reader) => Pin::new(reader).poll_read(context, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<R> Drop for Lent<R> {
    fn drop(&mut self) {
        if let (Some(reader), Some(owner)) = (self.reader.take(), self.owner.take()) {
            // The owner may have gone; then nobody needs it.
            let _unwanted = owner.send(reader);
        }
    }
}

/// Reads to its end what a refused request left.
pub(super) async fn drain(reader: impl AsyncRead + Unpin) {
    let copied = async {
        let mut rest = reader.take(MOST_DRAINED);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _too_slow = tokio::time::timeout(DRAIN_DEADLINE, copied).await;
}
