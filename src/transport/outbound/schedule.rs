//! When a message is tried again and when it is given up: from a record and what an attempt came
//! to, the next record. No clock and no dice of its own.

use std::time::Duration;

use super::lane::{Health, Outage};
use super::reply::{Cause, Failure, Permanence, own_reply};
use super::transaction::Sent;
use crate::mapi::{MapiCode, SysTime};
use crate::spool::{Expiry, QueueRecord, QueueState, RecipientState, Reporter};
use crate::transport::{InDoubtPolicy, QueueSettings, RetrySchedule};

/// The time to the next attempt after `attempts` of them: grows by the schedule's factor up to
/// its bound, less up to a quarter by `unit` (0 to 1), so that what failed together is not tried
/// again together.
pub(crate) fn retry_delay(schedule: &RetrySchedule, attempts: u32, unit: f64) -> Duration {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = schedule.first.as_secs_f64() * schedule.factor.powi(exponent);
    let bounded = grown.min(schedule.max.as_secs_f64());
    let jittered = bounded * (1.0 - unit.clamp(0.0, 1.0) / 4.0);
    Duration::try_from_secs_f64(jittered).unwrap_or(schedule.max)
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// The server answered for every recipient it was asked about.
    Answered,
    /// The connection broke when the server had already heard of the message.
    Broken(Failure),
    /// The reply to the final dot never came.
    InDoubt(Failure),
    /// What is stored of the message is damaged.
    Damaged(Failure),
    /// The server never heard of the message: the attempt does not count.
    Untried(Option<Failure>),
    /// The account could not be used in the middle of the transaction and nobody got an outcome:
    /// the attempt does not count, and the message goes behind the others.
    Paused {
        /// Until when the account is left alone.
        until: SysTime,
    },
}

impl AttemptEnd {
    /// Whether a server had the message in hand.
    fn counts(&self) -> bool {
        match self {
            AttemptEnd::Answered
            | AttemptEnd::Broken(_)
            | AttemptEnd::InDoubt(_)
            | AttemptEnd::Damaged(_) => true,
            AttemptEnd::Untried(_) | AttemptEnd::Paused { .. } => false,
        }
    }
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    /// The state before the claim.
    pub(crate) state: QueueState,
    /// The due time before the claim.
    pub(crate) due: SysTime,
}

/// What decides beside the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// The profile's.
    pub(crate) queue: &'a QueueSettings,
    /// The time.
    pub(crate) now: SysTime,
    /// A random number from 0 to 1.
    pub(crate) unit: f64,
    /// How the account worked.
    pub(super) health: Health,
}

impl Rules<'_> {
    fn next_attempt(&self, attempts: u32) -> SysTime {
        self.now.saturating_add(retry_delay(&self.queue.retry, attempts, self.unit))
    }
}

/// Writes the outcomes of one transaction into the record.
pub(crate) fn apply(record: &mut QueueRecord, outcomes: &[(usize, Sent)], now: SysTime) {
    let attempt = record.attempts;
    for (index, sent) in outcomes {
        let Some(recipient) = record.envelope.recipients.get_mut(*index) else { continue };
        if recipient.state.is_conclusive() {
            continue;
        }
        match sent {
            Sent::Delivered(reply) => {
                recipient.state = RecipientState::Delivered { at: now, reply: reply.clone() };
            }
            Sent::Refused(failure) => {
                record.last_error = failure.words();
                if let Some(state) = refused(&recipient.state, failure, attempt, now) {
                    recipient.state = state;
                }
            }
        }
    }
}

/// Notes that a server which offers DSN took the request for a report together with the message:
/// the report is its duty then, and nothing more is known here than that it was relayed (RFC 3461
/// section 5.2.2).
pub(crate) fn note_reporter(record: &mut QueueRecord, outcomes: &[(usize, Sent)]) {
    for (index, sent) in outcomes {
        if let (Sent::Delivered(_), Some(recipient)) =
            (sent, record.envelope.recipients.get_mut(*index))
            && let Some(notify) = &mut recipient.notify
        {
            notify.by = Reporter::Server;
        }
    }
}

/// The state of a recipient after a refusal; `None` leaves it as it is.
fn refused(
    before: &RecipientState,
    failure: &Failure,
    attempt: u32,
    now: SysTime,
) -> Option<RecipientState> {
    let verdict = failure.verdict;
    let reply = failure.reply.clone();
    if verdict.is_lane_trouble() || verdict.cause == Cause::Damaged {
        return None;
    }
    let believed = match (verdict.cause, before) {
        (Cause::Doubtful, RecipientState::Deferred { reply: earlier }) => {
            earlier.code == reply.code
        }
        (Cause::Doubtful, _) => false,
        _ => true,
    };
    Some(match verdict.fails_recipients() && believed {
        true => RecipientState::Failed { at: now, reply, attempt },
        false => RecipientState::Deferred { reply },
    })
}

/// Ends an attempt: the record is Done, or due again, or in doubt.
pub(super) fn conclude(
    record: &mut QueueRecord,
    before: &Before,
    end: &AttemptEnd,
    rules: Rules<'_>,
) {
    if !end.counts() {
        record.attempts = record.attempts.saturating_sub(1);
    }
    match end {
        AttemptEnd::Damaged(failure) => {
            record.last_error = format!("{}: {}", MapiCode::CORRUPT_DATA, failure.reply.text);
        }
        AttemptEnd::Broken(failure)
        | AttemptEnd::InDoubt(failure)
        | AttemptEnd::Untried(Some(failure)) => record.last_error = failure.words(),
        AttemptEnd::Answered | AttemptEnd::Untried(None) | AttemptEnd::Paused { .. } => {}
    }
    if record.is_conclusive() {
        finish(record);
        return;
    }
    match end {
        // Nothing is tried again until somebody says so, and it is not given up: what is left
        // can be exported, and the bytes may come back.
        AttemptEnd::Damaged(_) => {
            record.state = QueueState::Held;
        }
        AttemptEnd::InDoubt(_) => {
            let resend = rules.queue.in_doubt == InDoubtPolicy::Resend;
            record.state = QueueState::InDoubt { since: rules.now, resend };
            record.due = rules.next_attempt(record.attempts);
            // Whether it was delivered is not known, so that it is not given up here: that would
            // be reported as a failure.
        }
        AttemptEnd::Untried(_) => {
            record.state = before.state.clone();
            record.due = before.due;
        }
        AttemptEnd::Paused { until } => {
            record.state = before.state.clone();
            record.due = before.due.max(*until);
            // Others went through since it was its turn: it is this message that the server does
            // not want, whatever it says.
            let worked = rules.health.last_success.is_some_and(|success| success >= before.due);
            if rules.now >= record.expires && worked && may_expire(record) {
                expire(record, rules);
            }
        }
        AttemptEnd::Answered | AttemptEnd::Broken(_) => {
            record.state = QueueState::Due;
            prolong(record, rules);
            // The last attempt comes right at the end of the message's life, not up to an hour
            // behind it.
            let last_chance = record.expires.max(rules.now);
            record.due = rules.next_attempt(record.attempts).min(last_chance);
            if rules.now >= record.expires {
                expire(record, rules);
            }
        }
    }
}

/// A message in doubt that waits for the user has no end of life.
fn may_expire(record: &QueueRecord) -> bool {
    !matches!(record.state, QueueState::InDoubt { resend: false, .. })
}

/// The lifetime of the profile does not run while the account is the trouble: a message whose
/// life ended meanwhile lives on from when it works again. What it has left is what it had when
/// the trouble began; a message that no server had answered for before has all of it.
fn prolong(record: &mut QueueRecord, rules: Rules<'_>) {
    if rules.now < record.expires || is_unwanted(record, rules.now) {
        return;
    }
    if record.attempts <= 1 {
        record.expires = rules.now.saturating_add(rules.queue.lifetime);
    } else if let Some(Outage { since, until }) = rules.health.last_outage
        && (since..=until).contains(&record.expires)
    {
        record.expires = until.saturating_add(record.expires.saturating_since(since));
    }
}

fn finish(record: &mut QueueRecord) {
    record.state = QueueState::Done;
}

/// Whether the message may not be sent any more, however well the server is (OB-19): its own
/// expiry has come. At the end of the profile's lifetime one last attempt is made instead.
pub(crate) fn is_unwanted(record: &QueueRecord, now: SysTime) -> bool {
    now >= record.expires && record.expiry == Expiry::Own
}

/// Gives up who has no outcome yet.
pub(super) fn expire(record: &mut QueueRecord, rules: Rules<'_>) {
    // RFC 3463 section 3.5: the time has run out, by the sender's wish for good.
    let (status, why) = if is_unwanted(record, rules.now) {
        let until = record.expires;
        ("5.4.7", format!("not wanted any more after {until}, and not sent until then"))
    } else {
        let lifetime = humantime::format_duration(rules.queue.lifetime);
        ("4.4.7", format!("could not be sent within {lifetime}"))
    };
    let attempt = record.attempts;
    let in_doubt = record.may_be_delivered();
    for recipient in &mut record.envelope.recipients {
        let last = match &recipient.state {
            RecipientState::Delivered { .. } | RecipientState::Failed { .. } => continue,
            RecipientState::Deferred { reply } => reply.to_string(),
            RecipientState::Pending => record.last_error.clone(),
        };
        let mut text = why.clone();
        if in_doubt {
            text += "; the server may have taken it, its reply was lost";
        } else if !last.is_empty() {
            text = format!("{text}; last: {last}");
        }
        let reply = own_reply(status, &text);
        recipient.state = RecipientState::Failed { at: rules.now, reply, attempt };
    }
    finish(record);
}

/// The pause of a whole account after `failures` fruitless tries in a row.
pub(crate) fn lane_pause(
    retry: &RetrySchedule,
    failure: &Failure,
    failures: u32,
    unit: f64,
) -> Duration {
    let bounded = |first: Duration, max: Duration| RetrySchedule {
        first: retry.first.min(first),
        factor: retry.factor,
        max: retry.max.min(max),
    };
    let schedule = match failure.verdict.permanence {
        // A network that is back should not wait long to be noticed.
        Permanence::Temporary if failure.verdict.cause != Cause::Throttled => {
            bounded(Duration::from_secs(5), Duration::from_secs(5 * 60))
        }
        // A refused login must not look like an attack: servers lock accounts for that.
        Permanence::Permanent | Permanence::Temporary => *retry,
    };
    let pause = retry_delay(&schedule, failures, unit);
    failure.suggested_pause().map_or(pause, |suggested| suggested.max(pause))
}

#[cfg(test)]
#[path = "schedule/tests.rs"]
mod tests;
