//! What the host told of messages on their way, until they end: from it the history of a message
//! is made that no transport of ours had.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mapi::{EntryId, SysTime, tags};
use crate::spi::{OutgoingNote, RecipientReport, ReportKind};
use crate::spool::{
    Envelope, HistoryEnd, HistoryRecord, OutboxRecord, OutboxState, QueueRecipient, RecipientState,
    Reply, Trace,
};

/// Most messages of which something is remembered.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<HashMap<EntryId, Noted>>);

/// What was told of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    transport: String,
    outcomes: BTreeMap<u32, RecipientReport>,
}

impl Notes {
    fn table(&self) -> MutexGuard<'_, HashMap<EntryId, Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, entry: &EntryId, note: OutgoingNote<'_>) {
        let mut table = self.table();
        if table.len() >= MOST && !table.contains_key(entry) {
            return;
        }
        let noted = table.entry(entry.clone()).or_default();
        match note {
            OutgoingNote::SentBy { transport } => transport.clone_into(&mut noted.transport),
            OutgoingNote::Outcomes(outcomes) => {
                noted.outcomes.extend(outcomes.iter().map(|one| (one.row, one.clone())));
            }
        }
    }

    pub(super) fn of(&self, entry: &EntryId) -> Noted {
        self.table().get(entry).cloned().unwrap_or_default()
    }

    pub(super) fn forget(&self, entry: &EntryId) {
        self.table().remove(entry);
    }
}

/// The history of a message that leaves the Outbox, when what is there of it lacks recipients:
/// those that other transports than ours had.
pub(super) fn completed(
    record: &OutboxRecord,
    history: Option<HistoryRecord>,
    noted: &Noted,
    now: SysTime,
) -> Option<HistoryRecord> {
    let mut history = history.unwrap_or_else(|| begun(record, noted, now));
    let known = |row: u32| history.envelope.recipients.iter().any(|one| one.row == row);
    let lacking: Vec<QueueRecipient> = record
        .recipients
        .iter()
        .filter(|recipient| !known(recipient.row))
        .map(|recipient| QueueRecipient {
            row: recipient.row,
            address: recipient.address.clone(),
            state: state_of(recipient.row, record, noted, now),
            notify: None,
        })
        .collect();
    (!lacking.is_empty()).then(|| {
        history.envelope.recipients.extend(lacking);
        history
    })
}

fn begun(record: &OutboxRecord, noted: &Noted, now: SysTime) -> HistoryRecord {
    let text = |tag| record.props.text(tag).map(str::to_owned);
    HistoryRecord {
        transport: match &record.state {
            OutboxState::Deferred { transport } => transport.clone(),
            OutboxState::Waiting { .. } | OutboxState::Held => noted.transport.clone(),
        },
        end: HistoryEnd::Finished,
        ended: now,
        submitted: record.submitted,
        attempts: 0,
        envelope: Envelope {
            from: text(tags::ENVELOPE_SENDER)
                .or(text(tags::SENDER_EMAIL_ADDRESS))
                .unwrap_or_default(),
            ..Envelope::default()
        },
        subject: text(tags::SUBJECT).unwrap_or_default(),
        message_id: text(tags::INTERNET_MESSAGE_ID).unwrap_or_default(),
        size: record.size,
        trace: Trace::default(),
    }
}

/// A message leaves the Outbox when everybody has an outcome; who was not reported as failed was
/// taken care of.
fn state_of(row: u32, record: &OutboxRecord, noted: &Noted, now: SysTime) -> RecipientState {
    let told = noted.outcomes.get(&row);
    let reply = told.map_or_else(Reply::default, |one| Reply {
        code: 0,
        enhanced: one.status.clone(),
        text: one.diagnostic.clone(),
        host: one.remote_mta.clone(),
    });
    let at = told.map_or(now, |one| one.time);
    let made = record.reports.iter().find(|made| {
        made.report.outcome == crate::mapi::ReportOutcome::Failed && made.report.rows.contains(&row)
    });
    match (told.map(|one| one.kind), made) {
        (Some(ReportKind::Failure), _) => RecipientState::Failed { at, reply, attempt: 0 },
        // The process that was told has ended meanwhile.
        (None, Some(made)) => RecipientState::Failed {
            at: made.at,
            reply: Reply { text: "see the report".to_owned(), ..Reply::default() },
            attempt: 0,
        },
        (Some(ReportKind::Delivery), _) | (None, None) => RecipientState::Delivered { at, reply },
    }
}
