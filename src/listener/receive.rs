//! The content of a message on its way from the connection into the Outbox, in bounded memory.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::io::StreamReader;

use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult};
use crate::session::{RawEnvelope, Service};

/// Content up to this many octets is submitted in one piece.
const SMALL: usize = 256 * 1024;

/// Pieces under way to the store.
const PIECES: usize = 4;

/// A piece of a large message.
#[derive(Debug)]
enum Piece {
    Content(Bytes),
    /// Only a message that ends with this is one: a connection that breaks leaves none.
    End,
}

/// A large message that is being stored while it comes.
#[derive(Debug)]
struct Upload {
    pieces: mpsc::Sender<Piece>,
    stored: JoinHandle<MapiResult<EntryId>>,
}

/// The content of one message. Dropped before [`finish`](Self::finish), nothing is stored.
pub(super) struct Intake {
    service: Arc<dyn Service>,
    envelope: RawEnvelope,
    held: Vec<u8>,
    upload: Option<Upload>,
    size: u64,
    most: u64,
}

impl Intake {
    /// `head` comes before the content and does not count.
    pub(super) fn new(
        service: Arc<dyn Service>,
        envelope: RawEnvelope,
        head: String,
        most: u64,
    ) -> Self {
        Intake { service, envelope, held: head.into_bytes(), upload: None, size: 0, most }
    }

    /// Room for content in front of the store.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.held
    }

    /// Takes note of `count` octets that were put into the buffer, and passes them on when they
    /// have become many.
    pub(super) async fn added(&mut self, count: usize) {
        self.size += count as u64;
        if self.too_big() {
            // The rest is only read to get at the commands behind it.
            self.held.clear();
            self.upload = None;
        } else if self.held.len() > SMALL {
            self.pass_on().await;
        }
    }

    fn too_big(&self) -> bool {
        self.size > self.most
    }

    /// Whether the client goes on and on behind the limit, and must be cut off.
    pub(super) fn is_endless(&self) -> bool {
        self.size > self.most.saturating_mul(2)
    }

    async fn pass_on(&mut self) {
        let piece = Piece::Content(Bytes::from(std::mem::take(&mut self.held)));
        let (service, envelope) = (&self.service, &mut self.envelope);
        let upload =
            self.upload.get_or_insert_with(|| Upload::begin(service, std::mem::take(envelope)));
        // A store that has given up says why at the end.
        let _given_up = upload.pieces.send(piece).await;
    }

    /// Ends the message; on `Ok` it is durable.
    pub(super) async fn finish(mut self) -> MapiResult<EntryId> {
        if self.too_big() {
            let words = format!("messages may have {} octets", self.most);
            return Err(MapiError::new(MapiCode::TOO_BIG, words));
        }
        if self.upload.is_none() {
            return self
                .service
                .submit_raw(self.envelope, Box::pin(io::Cursor::new(self.held)))
                .await;
        }
        self.pass_on().await;
        match self.upload {
            Some(upload) => upload.end().await,
            None => Err(MapiCode::CALL_FAILED.into()),
        }
    }
}

impl Upload {
    fn begin(service: &Arc<dyn Service>, envelope: RawEnvelope) -> Self {
        let (pieces, coming) = mpsc::channel(PIECES);
        let content = StreamReader::new(Box::pin(stream::unfold(coming, next_piece)));
        let service = Arc::clone(service);
        let stored =
            tokio::spawn(async move { service.submit_raw(envelope, Box::pin(content)).await });
        Upload { pieces, stored }
    }

    async fn end(self) -> MapiResult<EntryId> {
        let _given_up = self.pieces.send(Piece::End).await;
        self.stored.await.map_err(|error| {
            MapiError::new(MapiCode::CALL_FAILED, format!("storing was given up: {error}"))
        })?
    }
}

async fn next_piece(
    mut coming: mpsc::Receiver<Piece>,
) -> Option<(io::Result<Bytes>, mpsc::Receiver<Piece>)> {
    match coming.recv().await {
        Some(Piece::Content(octets)) => Some((Ok(octets), coming)),
        Some(Piece::End) => None,
        None => {
            let broken = io::Error::new(io::ErrorKind::UnexpectedEof, "the client went away");
            Some((Err(broken), coming))
        }
    }
}
