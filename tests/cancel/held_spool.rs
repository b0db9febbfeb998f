//! A spool that keeps those who commit something, or read a body, until they are let go: the
//! points of a message's way at which it is with the disk.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use postrider::spool::{
    Batch, BodyId, BodyReader, Durable, Expect, Op, QueueState, Spool, SpoolError,
};
use tokio::io::AsyncReadExt;

use crate::foreign_message::Hold;
use crate::wrapped_spool::{Ways, Wrapped};

/// The place at which it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A transport puts a message into its queue.
    Accept,
    /// The outcome of a message.
    Outcome,
    /// The end of a message the host was told of.
    Settle,
    /// How far a mailbox is fetched, with a message that was saved.
    Cursor,
    /// So many bytes of a body are read.
    Body(u64),
    /// All of a body but its last byte is read.
    EndOfBody,
}

/// Passes everything on to another spool.
pub(crate) type HeldSpool = Wrapped<Holding>;

/// The ways of [`HeldSpool`].
pub(crate) struct Holding {
    inner: Arc<dyn Spool>,
    place: Mutex<Option<(Place, Hold)>>,
}

impl HeldSpool {
    pub(crate) fn before(inner: Arc<dyn Spool>) -> Arc<Self> {
        Arc::new(Wrapped(Holding { inner, place: Mutex::default() }))
    }

    /// Keeps the next one who comes to `place`; instead of what was asked for before.
    pub(crate) fn hold(&self, place: Place) -> Hold {
        let hold = Hold::default();
        *self.place() = Some((place, hold.clone()));
        hold
    }
}

impl Holding {
    fn place(&self) -> std::sync::MutexGuard<'_, Option<(Place, Hold)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, is_it: impl Fn(Place) -> bool) -> Option<(Place, Hold)> {
        self.place().take_if(|(place, _)| is_it(*place))
    }
}

fn concerns(op: &Op, place: Place) -> bool {
    match (op, place) {
        (Op::PutQueue { expect, .. }, Place::Accept) => *expect == Expect::Absent,
        (Op::PutQueue { record, .. }, Place::Outcome) => record.state == QueueState::Done,
        (Op::DeleteQueue { .. }, Place::Settle) => true,
        (Op::PutCursor { record, .. }, Place::Cursor) => record.last_uid > 0,
        _ => false,
    }
}

type Result<T> = std::result::Result<T, SpoolError>;

#[async_trait]
impl Ways for Holding {
    fn inner(&self) -> &Arc<dyn Spool> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Durable> {
        let held = self.take(|place| batch.ops().iter().any(|op| concerns(op, place)));
        if let Some((_, hold)) = held {
            hold.stop().await;
        }
        self.inner.commit(batch).await
    }

    async fn open_body(&self, body: BodyId) -> Result<BodyReader> {
        let BodyReader { size, reader } = self.inner.open_body(body).await?;
        // Until someone has read so far: a body is also opened to see whether it is there.
        let held = self.place().clone().filter(|(_, hold)| !hold.reached.is_cancelled());
        let (at, hold) = match held {
            Some((Place::Body(at), hold)) => (at, hold),
            Some((Place::EndOfBody, hold)) => (size - 1, hold),
            _ => return Ok(BodyReader { size, reader }),
        };
        // The first part has to be read to its end before the second can be.
        let mut reader = reader;
        let mut first = vec![0; usize::try_from(at).unwrap()];
        reader.read_exact(&mut first).await.unwrap();
        let held = std::io::Cursor::new(first).chain(hold.reader());
        Ok(BodyReader { size, reader: Box::pin(held.chain(reader)) })
    }
}
