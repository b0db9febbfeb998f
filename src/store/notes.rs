//! What the host told of messages on their way, until they end: from it the history of a message
//! is made that no transport of ours had.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mapi::{EntryId, ReportOutcome, SysTime};
use crate::spi::{OutgoingNote, RecipientReport, ReportKind};
use crate::spool::{
    HistoryEnd, HistoryRecord, OutboxRecord, QueueRecipient, RecipientState, Reply,
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

impl Noted {
    /// The transport that ended it; empty when none was told of.
    pub(super) fn transport(&self) -> &str {
        &self.transport
    }
}

/// The history of a message that ended, when what is there of it lacks recipients: those that
/// transports without a history had (AT-3). It is written by the commit that removes the message.
pub(super) fn completed(
    record: &OutboxRecord,
    known: Option<HistoryRecord>,
    noted: &Noted,
    now: SysTime,
) -> Option<HistoryRecord> {
    let mut record = record.clone();
    // Whoever is left was sent: the host ends a message only when nobody is open.
    record.recipients.iter_mut().for_each(|row| row.responsibility = true);
    let mut history = known.unwrap_or_else(|| begun(&record, noted, now));
    let mut lacking = record.others(&history.envelope.recipients, now);
    if lacking.is_empty() {
        return None;
    }
    for recipient in &mut lacking {
        recipient.state = told(recipient, &record, noted);
    }
    history.end = HistoryEnd::Finished;
    history.envelope.recipients.extend(lacking);
    history.envelope.recipients.sort_by_key(|recipient| recipient.row);
    Some(history)
}

/// A history without recipients.
fn begun(record: &OutboxRecord, noted: &Noted, now: SysTime) -> HistoryRecord {
    let mut history = record.history(HistoryEnd::Finished, now);
    history.envelope.recipients.clear();
    if history.transport.is_empty() {
        history.transport.clone_from(&noted.transport);
    }
    history
}

/// Where a recipient stands: by its row, and by what was told or reported of it beside.
fn told(recipient: &QueueRecipient, record: &OutboxRecord, noted: &Noted) -> RecipientState {
    let row = recipient.row;
    let cancelled = record.recipients.iter().any(|one| one.row == row && one.is_cancelled());
    if let Some(told) = noted.outcomes.get(&row).filter(|_| !cancelled) {
        let reply = Reply {
            code: 0,
            enhanced: told.status.clone(),
            text: told.diagnostic.clone(),
            host: told.remote_mta.clone(),
        };
        return match told.kind {
            ReportKind::Failure => RecipientState::Failed { at: told.time, reply, attempt: 0 },
            ReportKind::Delivery | ReportKind::Relay => {
                RecipientState::Delivered { at: told.time, reply }
            }
        };
    }
    let reported = record.reports.iter().find(|made| {
        made.report.outcome == ReportOutcome::Failed && made.report.rows.contains(&row)
    });
    match (&recipient.state, reported) {
        // The process that was told has ended before the row could be saved.
        (RecipientState::Delivered { .. }, Some(made)) => RecipientState::Failed {
            at: made.at,
            reply: Reply { text: "see the report".to_owned(), ..Reply::default() },
            attempt: 0,
        },
        (by_row, _) => by_row.clone(),
    }
}
