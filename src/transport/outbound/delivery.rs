//! One attempt to send one message: as many transactions as its recipients need.

use std::collections::VecDeque;

use super::connection::Connection;
use super::flight::Flight;
use super::journal::Journal;
use super::reply::{Cause, Failure, Phase};
use super::schedule::{self, AttemptEnd};
use super::transaction::{
    Ahead, End, Follow, MAX_RECIPIENTS, Sent, TextSource, Transacted, Work, transact,
};
use crate::clock::Clock;
use crate::spool::{Envelope, QueueRecipient};

/// What an attempt came to. Outcomes of recipients are in the flight's record.
#[derive(Debug)]
pub(super) struct Delivery {
    /// How it ended.
    pub(super) end: Ended,
    /// Trouble that is not this message's alone.
    pub(super) trouble: Option<Failure>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// To be recorded.
    Recorded(AttemptEnd),
    /// The account could not be used and nobody got an outcome: the attempt does not count.
    AccountTrouble,
    /// The connection had been closed before: try another.
    Stale,
    /// The message was stopped, or the connection was cut.
    Stopped,
}

/// The recipients who have no outcome yet, by index.
fn waiting(envelope: &Envelope) -> VecDeque<usize> {
    let open = |(index, recipient): (usize, &QueueRecipient)| {
        (!recipient.state.is_conclusive()).then_some(index)
    };
    envelope.recipients.iter().enumerate().filter_map(open).collect()
}

/// The envelope with which [`deliver`] will begin, to be written before it does; `None` where
/// that cannot be.
pub(super) fn ahead(
    connection: &Connection,
    flight: &Flight,
    most_at_once: usize,
) -> Option<Ahead> {
    let record = flight.record();
    let mut recipients = waiting(&record.envelope);
    recipients.truncate(most_at_once.clamp(1, MAX_RECIPIENTS));
    Ahead::new(connection, &flight.entry, &record.envelope, record.size, recipients.into())
}

/// Sends to everyone who has no outcome yet, to at most `most_at_once` of them in one transaction.
/// Behind the last of them may come the envelope of the message that `follow` names.
pub(super) async fn deliver(
    connection: &mut Connection,
    flight: &Flight,
    text: &dyn TextSource,
    journal: &dyn Journal,
    clock: &dyn Clock,
    most_at_once: usize,
    follow: &dyn Follow,
) -> Delivery {
    let (envelope, size) = {
        let record = flight.record();
        (record.envelope.clone(), record.size)
    };
    let mut waiting = waiting(&envelope);
    let mut at_once = most_at_once.clamp(1, MAX_RECIPIENTS);
    let mut heard = false;
    flight.notes().connected(connection, clock.now());
    loop {
        let recipients: Vec<usize> = waiting.drain(..waiting.len().min(at_once)).collect();
        let work = Work {
            entry: &flight.entry,
            envelope: &envelope,
            recipients: &recipients,
            size,
            text,
            journal,
            follow: waiting.is_empty().then_some(follow),
        };
        let mut transacted = transact(connection, &work, &flight.progress).await;
        let split = split(&mut transacted);
        if is_too_large(&transacted) && recipients.len() > 1 {
            at_once = recipients.len() / 2;
            transacted.outcomes.clear();
            recipients.into_iter().rev().for_each(|index| waiting.push_front(index));
        } else if !split.is_empty() {
            at_once = recipients.len().saturating_sub(split.len()).max(1);
            split.into_iter().rev().for_each(|index| waiting.push_front(index));
        }
        flight.notes().heard(&transacted.outcomes);
        schedule::apply(&mut flight.record(), &transacted.outcomes, clock.now());
        if connection.capabilities().dsn {
            schedule::note_reporter(&mut flight.record(), &transacted.outcomes);
        }
        if let Some(failure) = damage(&transacted) {
            let end = Ended::Recorded(AttemptEnd::Damaged(failure));
            return Delivery { end, trouble: None };
        }
        let trouble = account_trouble(&transacted);
        heard |= transacted
            .outcomes
            .iter()
            .any(|(_, sent)| !matches!(sent, Sent::Refused(why) if why.verdict.is_lane_trouble()));
        let end = match transacted.end {
            End::InStep if trouble.is_some() && !heard => Ended::AccountTrouble,
            End::InStep if trouble.is_some() || waiting.is_empty() => {
                Ended::Recorded(AttemptEnd::Answered)
            }
            End::InStep => {
                flight.progress.next_transaction();
                match journal.next_transaction().await {
                    Ok(()) => continue,
                    Err(failure) => Ended::Recorded(AttemptEnd::Broken(failure)),
                }
            }
            End::Broken(failure) => Ended::Recorded(AttemptEnd::Broken(failure)),
            End::InDoubt(failure) => Ended::Recorded(AttemptEnd::InDoubt(failure)),
            End::Stale => Ended::Stale,
            End::Stopped => Ended::Stopped,
        };
        return Delivery { end, trouble };
    }
}

/// Takes out those that belong into a further transaction. When nobody at all was accepted, they
/// stay and count as refused for now, so that the attempt comes to an end.
fn split(transacted: &mut Transacted) -> Vec<usize> {
    let too_many = |sent: &Sent| matches!(sent, Sent::Refused(why) if why.verdict.cause == Cause::TooManyRecipients);
    let accepted = transacted.end == End::InStep
        && transacted.outcomes.iter().any(|(_, sent)| matches!(sent, Sent::Delivered(_)));
    if !accepted {
        return Vec::new();
    }
    let (split, kept): (Vec<_>, Vec<_>) =
        std::mem::take(&mut transacted.outcomes).into_iter().partition(|(_, sent)| too_many(sent));
    transacted.outcomes = kept;
    split.into_iter().map(|(index, _)| index).collect()
}

/// Whether the server found only behind the recipients that they are too many: then it names no
/// number, and half of them are tried.
fn is_too_large(transacted: &Transacted) -> bool {
    let whole = |sent: &Sent| {
        matches!(sent, Sent::Refused(why)
            if why.verdict.cause == Cause::TooManyRecipients && why.phase != Phase::Rcpt)
    };
    transacted.end == End::InStep
        && !transacted.outcomes.is_empty()
        && transacted.outcomes.iter().all(|(_, sent)| whole(sent))
}

/// Whether the stored message turned out to be damaged.
fn damage(transacted: &Transacted) -> Option<Failure> {
    transacted.outcomes.iter().find_map(|(_, sent)| match sent {
        Sent::Refused(failure) if failure.verdict.cause == Cause::Damaged => Some(failure.clone()),
        Sent::Refused(_) | Sent::Delivered(_) => None,
    })
}

/// The first trouble that concerns more than this message.
fn account_trouble(transacted: &Transacted) -> Option<Failure> {
    let refusals = transacted.outcomes.iter().filter_map(|(_, sent)| match sent {
        Sent::Refused(failure) => Some(failure),
        Sent::Delivered(_) => None,
    });
    let end = match &transacted.end {
        End::Broken(failure) | End::InDoubt(failure) => Some(failure),
        End::InStep | End::Stale | End::Stopped => None,
    };
    refusals.chain(end).find(|failure| failure.verdict.is_lane_trouble()).cloned()
}

#[cfg(test)]
#[path = "delivery/tests.rs"]
mod tests;
