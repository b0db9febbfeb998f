//! How many messages are in which state, kept as rows change.

use serde::{Deserialize, Serialize};

use super::{OutboxRecord, OutboxState, QueueCounts, QueueRecord, QueueState};

/// What a message is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Queued,
    Sending,
    Deferred,
    InDoubt,
    Held,
    Parked,
    Done,
}

/// What the message with these rows is counted as: the queue knows better than the Outbox.
pub(super) fn class(outbox: Option<&OutboxRecord>, queue: Option<&QueueRecord>) -> Option<Class> {
    match (queue, outbox) {
        (Some(queue), _) => Some(match &queue.state {
            QueueState::Due if queue.attempts == 0 => Class::Queued,
            QueueState::Due => Class::Deferred,
            QueueState::Claimed(_) => Class::Sending,
            QueueState::InDoubt { .. } => Class::InDoubt,
            QueueState::Held => Class::Held,
            QueueState::Parked => Class::Parked,
            QueueState::Done => Class::Done,
        }),
        (None, Some(outbox)) => Some(match &outbox.state {
            OutboxState::Held => Class::Held,
            OutboxState::Waiting { .. } | OutboxState::Deferred { .. } => Class::Queued,
        }),
        (None, None) => None,
    }
}

/// The counters as they are stored: with each group of batches, so that they are never off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    queued: u64,
    sending: u64,
    deferred: u64,
    in_doubt: u64,
    held: u64,
    parked: u64,
    done: u64,
    pub(super) quarantined: u64,
}

impl Counters {
    fn of(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Queued => &mut self.queued,
            Class::Sending => &mut self.sending,
            Class::Deferred => &mut self.deferred,
            Class::InDoubt => &mut self.in_doubt,
            Class::Held => &mut self.held,
            Class::Parked => &mut self.parked,
            Class::Done => &mut self.done,
        }
    }

    /// Counts a message that was `before` and is `after`.
    pub(super) fn change(&mut self, before: Option<Class>, after: Option<Class>) {
        if let Some(before) = before {
            let count = self.of(before);
            *count = count.saturating_sub(1);
        }
        if let Some(after) = after {
            let count = self.of(after);
            *count = count.saturating_add(1);
        }
    }
}

impl From<Counters> for QueueCounts {
    fn from(counters: Counters) -> Self {
        let Counters { queued, sending, deferred, in_doubt, held, parked, done, quarantined } =
            counters;
        QueueCounts { queued, sending, deferred, in_doubt, held, parked, done, quarantined }
    }
}
