//! From the records of the spool to the rows that people and scripts see.

use super::{QueueCountsView, QueueRow, QueueRowState, RecipientRow, RecipientRowState};
use crate::mapi::{EntryId, SysTime, tags};
use crate::spool::{
    FinalDot, HistoryEnd, HistoryRecord, OutboxRecord, OutboxState, QueueCounts, QueueRecipient,
    QueueRecord, QueueState, RecipientState, Reply,
};

/// Whether someone works on the queue just now; without, a claimed message is only due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    Running,
    Stopped,
}

/// A message of the Outbox with what its transport knows of it.
pub(crate) fn outgoing_row(
    entry: &EntryId,
    outbox: &OutboxRecord,
    queue: Option<&QueueRecord>,
    traffic: Traffic,
) -> QueueRow {
    let Some(record) = queue else { return waiting_row(entry, outbox) };
    let mut row = queued_row(entry, record, traffic);
    // Those of other transports, and of none yet (AT-3).
    let others = outbox.others(&record.envelope.recipients, SysTime::EPOCH);
    if !others.is_empty() {
        let mut all = record.envelope.recipients.clone();
        all.extend(others);
        all.sort_by_key(|recipient| recipient.row);
        row.recipients = all.iter().map(recipient_row).collect();
    }
    row
}

/// How a message ended.
pub(crate) fn ended_row(entry: &EntryId, history: &HistoryRecord) -> QueueRow {
    QueueRow {
        id: entry.to_string(),
        state: match history.end {
            HistoryEnd::Finished => QueueRowState::Finished,
            HistoryEnd::Cancelled => QueueRowState::Cancelled,
        },
        transport: history.transport.clone(),
        from: history.envelope.from.clone(),
        subject: history.subject.clone(),
        size: history.size,
        submitted: history.submitted.to_string(),
        attempts: history.attempts,
        next_attempt: None,
        last_error: None,
        recipients: history.envelope.recipients.iter().map(recipient_row).collect(),
    }
}

pub(crate) fn queued_row(entry: &EntryId, record: &QueueRecord, traffic: Traffic) -> QueueRow {
    let next = record.scheduled().filter(|_| !matches!(record.state, QueueState::Claimed(_)));
    QueueRow {
        id: entry.to_string(),
        state: queue_state(record, traffic),
        transport: record.transport.clone(),
        from: record.envelope.from.clone(),
        subject: record.subject.clone(),
        size: record.size,
        submitted: record.submitted.to_string(),
        attempts: record.attempts,
        next_attempt: next.map(|time| time.to_string()),
        last_error: (!record.last_error.is_empty()).then(|| record.last_error.clone()),
        recipients: record.envelope.recipients.iter().map(recipient_row).collect(),
    }
}

fn queue_state(record: &QueueRecord, traffic: Traffic) -> QueueRowState {
    let waiting = match record.attempts {
        0 => QueueRowState::Queued,
        _ => QueueRowState::Deferred,
    };
    match record.state {
        QueueState::Due => waiting,
        // Nobody works on it: the claim is that of a process that died.
        QueueState::Claimed(lease) if traffic == Traffic::Stopped => match lease.dot {
            FinalDot::NotSent => waiting,
            FinalDot::MayBeOut { .. } => QueueRowState::InDoubt,
        },
        QueueState::Claimed(_) | QueueState::Done => QueueRowState::Sending,
        QueueState::InDoubt { .. } => QueueRowState::InDoubt,
        QueueState::Held => QueueRowState::Held,
        QueueState::Parked => QueueRowState::Parked,
    }
}

fn waiting_row(entry: &EntryId, outbox: &OutboxRecord) -> QueueRow {
    let (state, next_attempt) = match &outbox.state {
        OutboxState::Waiting { not_before } if *not_before > SysTime::EPOCH => {
            (QueueRowState::Queued, Some(not_before.to_string()))
        }
        OutboxState::Waiting { .. } | OutboxState::Deferred { .. } => (QueueRowState::Queued, None),
        OutboxState::Held => (QueueRowState::Held, None),
    };
    let props = &outbox.props;
    QueueRow {
        id: entry.to_string(),
        state,
        transport: match &outbox.state {
            OutboxState::Deferred { transport } => transport.clone(),
            _ => String::new(),
        },
        from: props
            .text(tags::ENVELOPE_SENDER)
            .or(props.text(tags::SENDER_EMAIL_ADDRESS))
            .unwrap_or_default()
            .to_owned(),
        subject: props.text(tags::SUBJECT).unwrap_or_default().to_owned(),
        size: outbox.size,
        submitted: outbox.submitted.to_string(),
        attempts: 0,
        next_attempt,
        // Why it was set aside.
        last_error: match outbox.state {
            OutboxState::Held => props.text(tags::REPORT_TEXT).map(str::to_owned),
            OutboxState::Waiting { .. } | OutboxState::Deferred { .. } => None,
        },
        recipients: outbox.others(&[], SysTime::EPOCH).iter().map(recipient_row).collect(),
    }
}

fn recipient_row(recipient: &QueueRecipient) -> RecipientRow {
    let (state, reply) = match &recipient.state {
        RecipientState::Pending => (RecipientRowState::Pending, &Reply::default()),
        RecipientState::Delivered { reply, .. } => (RecipientRowState::Delivered, reply),
        RecipientState::Deferred { reply } => (RecipientRowState::Deferred, reply),
        RecipientState::Failed { reply, .. } => (RecipientRowState::Failed, reply),
    };
    let queue_id = match state {
        RecipientRowState::Delivered => reply.queue_id().map(str::to_owned),
        _ => None,
    };
    RecipientRow { address: recipient.address.clone(), state, reply: reply.to_string(), queue_id }
}

/// The counts as scripts see them: what is parked waits like anything else, and what only waits
/// for the host to be told is still on its way.
pub(crate) fn counts(counts: QueueCounts, traffic: Traffic) -> QueueCountsView {
    let (claimed, deferred) = match traffic {
        Traffic::Running => (counts.sending, counts.deferred),
        Traffic::Stopped => (0, counts.deferred + counts.sending),
    };
    QueueCountsView {
        queued: counts.queued + counts.parked,
        sending: claimed + counts.done,
        deferred,
        in_doubt: counts.in_doubt,
        held: counts.held,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mapi::{Priority, PropList, Recipient, RecipientType};
    use crate::spool::{BodyId, Envelope, Expiry, FinalDot, Lease, Trace};

    fn outbox(state: OutboxState) -> OutboxRecord {
        OutboxRecord {
            revision: 1,
            submitted: SysTime::from_millis(1_700_000_000_000),
            state,
            props: PropList::new()
                .with(tags::SUBJECT, "hello")
                .with(tags::SENDER_EMAIL_ADDRESS, "ann@example.org"),
            recipients: vec![Recipient::smtp(0, RecipientType::To, "bob@example.org")],
            object: None,
            content: None,
            size: 10,
            trace: Trace::default(),
            reports: Vec::new(),
        }
    }

    fn queued(state: QueueState, attempts: u32) -> QueueRecord {
        QueueRecord {
            revision: 1,
            transport: "work".to_owned(),
            state,
            priority: Priority::Normal,
            submitted: SysTime::from_millis(1_700_000_000_000),
            expires: SysTime::MAX,
            expiry: Expiry::Lifetime,
            due: SysTime::from_millis(1_700_000_060_000),
            attempts,
            envelope: Envelope {
                from: "ann@example.org".to_owned(),
                recipients: vec![QueueRecipient {
                    row: 0,
                    address: "bob@example.org".to_owned(),
                    state: RecipientState::Deferred {
                        reply: Reply {
                            code: 451,
                            enhanced: "4.3.0".to_owned(),
                            text: "later".to_owned(),
                            host: "mx".to_owned(),
                        },
                    },
                    notify: None,
                    original: None,
                }],
                ..Envelope::default()
            },
            body: BodyId([0; 32]),
            size: 10,
            subject: "hello".to_owned(),
            message_id: "<1@x>".to_owned(),
            last_error: "451 4.3.0 later".to_owned(),
            trace: Trace::default(),
        }
    }

    #[test]
    fn states_are_those_of_the_product() {
        let entry = EntryId::from_bytes(&[1; 16]).unwrap();
        let lease = Lease { owner: 1, expires: SysTime::EPOCH, dot: FinalDot::NotSent };
        let waiting = outbox(OutboxState::Waiting { not_before: SysTime::EPOCH });
        let row = |record: &QueueRecord, traffic| {
            outgoing_row(&entry, &waiting, Some(record), traffic).state
        };
        let cases = [
            (queued(QueueState::Due, 0), Traffic::Running, QueueRowState::Queued),
            (queued(QueueState::Due, 2), Traffic::Running, QueueRowState::Deferred),
            (queued(QueueState::Claimed(lease), 1), Traffic::Running, QueueRowState::Sending),
            (queued(QueueState::Claimed(lease), 1), Traffic::Stopped, QueueRowState::Deferred),
            (queued(QueueState::Held, 1), Traffic::Running, QueueRowState::Held),
            (queued(QueueState::Parked, 1), Traffic::Stopped, QueueRowState::Parked),
            (
                queued(QueueState::InDoubt { since: SysTime::EPOCH, resend: true }, 1),
                Traffic::Running,
                QueueRowState::InDoubt,
            ),
        ];
        for (record, traffic, state) in cases {
            assert_eq!(row(&record, traffic), state, "{:?}", record.state);
        }
        assert_eq!(
            outgoing_row(&entry, &outbox(OutboxState::Held), None, Traffic::Running).state,
            QueueRowState::Held
        );
    }

    #[test]
    fn a_deferred_row_says_why_and_when() {
        let entry = EntryId::from_bytes(&[1; 16]).unwrap();
        let waiting = outbox(OutboxState::Deferred { transport: "work".to_owned() });
        let record = queued(QueueState::Due, 1);
        let row = outgoing_row(&entry, &waiting, Some(&record), Traffic::Running);
        assert_eq!(row.next_attempt.as_deref(), Some("2023-11-14T22:14:20Z"));
        assert_eq!(row.last_error.as_deref(), Some("451 4.3.0 later"));
        let recipient = row.recipients.first().unwrap();
        assert_eq!(recipient.state, RecipientRowState::Deferred);
        assert_eq!(recipient.reply, "451 4.3.0 later");
    }

    #[test]
    fn a_delayed_message_shows_its_time() {
        let entry = EntryId::from_bytes(&[1; 16]).unwrap();
        let later = SysTime::from_millis(1_800_000_000_000);
        let record = outbox(OutboxState::Waiting { not_before: later });
        let row = outgoing_row(&entry, &record, None, Traffic::Running);
        assert_eq!(row.state, QueueRowState::Queued);
        assert_eq!(row.next_attempt, Some(later.to_string()));
    }
}
