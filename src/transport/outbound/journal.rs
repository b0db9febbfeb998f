//! The phase journal: how far an attempt is, durable before it goes further.
//!
//! A crash between the final dot and the durable outcome must not look like a crash in MAIL: the
//! server may have the message. So the row says that the final dot may be out before it goes out.
//! The note is on its way to the disk while the last piece of the text is on its way to the server,
//! and it shares its commit with the notes and outcomes of the other connections. Of a short
//! message that is about to leave over an open connection the claim itself says so, see `claims`.

use std::sync::Arc;

use async_trait::async_trait;

use super::flight::Flight;
use super::progress::Stage;
use super::reply::{Failure, Fault, Phase};
use super::shared::Shared;
use crate::spool::{Batch, Expect, FinalDot, Lease, Op, QueueRecord, QueueState, SpoolError};

/// Who makes durable how far a message is.
#[async_trait]
pub(crate) trait Journal: Send + Sync {
    /// Makes durable that the final dot may be out. Only then may it be sent.
    ///
    /// Cancel-safe: a note whose caller went away is kept or not. Kept without a dot that was
    /// sent it does no harm, because the end of the attempt takes its place.
    ///
    /// # Errors
    /// The dot must not be sent: the disk does not take the note, or the row is not ours any more.
    async fn dot_may_be_out(&self) -> Result<(), Failure>;

    /// Whether the row says so already, because the claim did.
    fn says_so_already(&self) -> bool {
        false
    }

    /// Makes the outcomes had so far durable, and that no final dot is out: another transaction
    /// of the same attempt begins, as soon as the limit on messages lets it.
    ///
    /// # Errors
    /// As [`Journal::dot_may_be_out`].
    async fn next_transaction(&self) -> Result<(), Failure>;
}

/// The journal of one claimed message, kept in its row of the queue.
pub(super) struct RowJournal {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
}

impl RowJournal {
    pub(super) fn new(shared: &Arc<Shared>, flight: &Arc<Flight>) -> Self {
        RowJournal { shared: Arc::clone(shared), flight: Arc::clone(flight) }
    }

    async fn note(&self, dot: FinalDot) -> Result<(), Failure> {
        let mut record = self.flight.record().clone();
        let QueueState::Claimed(lease) = &mut record.state else {
            return Err(failed("the message is not claimed"));
        };
        lease.dot = dot;
        loop {
            match self.shared.spool.commit(Batch::new().with(self.put(&record))).await {
                Ok(_durable) => break,
                Err(SpoolError::Conflict(_)) => match self.current_revision(&record).await {
                    Ok(Some(revision)) => record.revision = revision,
                    Ok(None) => return Err(failed("the message was taken away")),
                    Err(error) => return Err(failed(&error.to_string())),
                },
                Err(error) => return Err(failed(&error.to_string())),
            }
        }
        let mut live = self.flight.record();
        live.revision = record.revision.saturating_add(1);
        live.state = record.state;
        Ok(())
    }

    fn put(&self, record: &QueueRecord) -> Op {
        Op::PutQueue {
            entry: self.flight.entry.clone(),
            record: Box::new(record.clone()),
            expect: Expect::Revision(record.revision),
        }
    }

    /// The revision of the row as long as it is the claim of this attempt.
    async fn current_revision(&self, record: &QueueRecord) -> Result<Option<u64>, SpoolError> {
        if self.flight.progress.stage() == Stage::Stopped {
            return Ok(None);
        }
        let row = self.shared.spool.queue(&self.flight.entry).await?;
        Ok(row.and_then(|row| match row.state {
            QueueState::Claimed(lease)
                if lease.owner == self.shared.owner && row.attempts == record.attempts =>
            {
                Some(row.revision)
            }
            _ => None,
        }))
    }
}

#[async_trait]
impl Journal for RowJournal {
    async fn dot_may_be_out(&self) -> Result<(), Failure> {
        self.note(FinalDot::MayBeOut { since: self.shared.wall.now() }).await
    }

    fn says_so_already(&self) -> bool {
        let record = self.flight.record();
        matches!(&record.state, QueueState::Claimed(Lease { dot: FinalDot::MayBeOut { .. }, .. }))
    }

    async fn next_transaction(&self) -> Result<(), Failure> {
        self.note(FinalDot::NotSent).await?;
        tokio::select! {
            biased;
            // Whoever stopped the message has it; the transaction will see that.
            () = self.flight.progress.dropped() => {}
            () = self.shared.turn() => {}
        }
        Ok(())
    }
}

fn failed(why: &str) -> Failure {
    let why = format!("it cannot be noted how far the message is: {why}");
    Failure::fault(Phase::Body, Fault::Internal, "", &why)
}
