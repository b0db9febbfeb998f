//! A message that is late: the sender is told once (RFC 3464 `delayed`), and once more when it went
//! after all.

use tokio::io::AsyncReadExt;

use super::LocalStore;
use super::maildir::Look;
use super::outbox::update;
use super::report::{Begun, Noted, is_report};
use crate::mapi::{EntryId, MapiCode, MapiResult, Recipient, ReportOutcome, SysTime};
use crate::mime::report::{ReportAction, ReportedRecipient};
use crate::mime::{MAX_HEADER, Mailbox, is_auto_submitted};
use crate::observe::Event;
use crate::spi::Report;
use crate::spool::{
    HistoryRecord, OutboxRecord, OutboxState, QueueRecord, QueueState, RecipientState, Reply,
    ReportStep,
};

/// In place of an attempt: the report that a message of which a delay was told went after all.
pub(super) const AFTER_ALL: u32 = u32::MAX;

/// What became of a look at a message that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The sender was told now.
    Told,
    /// The sender was told earlier.
    ToldBefore,
    /// The sender wants no word of it, or is a program.
    Untold,
    /// The user keeps it on hold: it is not late.
    Held,
    /// Nobody waits any more.
    Over,
}

impl LocalStore {
    /// Tells the sender of a message that it is late, once. The report is noted before it is made;
    /// its class is empty until it is in INBOX, so that a crash in between is completed, and a report
    /// that the user has deleted since is not made again.
    ///
    /// # Errors
    /// Those of the spool and the Maildir; then it is to be tried again.
    pub(crate) async fn tell_of_delay(&self, entry: &EntryId) -> MapiResult<Late> {
        let Some(record) = self.spool.outbox(entry).await? else { return Ok(Late::Over) };
        let queue = self.spool.queue(entry).await?;
        let held = record.state == OutboxState::Held
            || queue.as_ref().is_some_and(|queue| queue.state == QueueState::Held);
        if held {
            return Ok(Late::Held);
        }
        let noted = record.reports.iter().find(|made| is_of(&made.report, ReportOutcome::Delayed));
        if let Some(made) = noted {
            if made.report.class.is_empty() {
                let (step, at) = (made.report.clone(), made.at);
                self.put_delay(entry, &record, queue.as_ref(), step, at, Look::Everywhere).await?;
            }
            return Ok(Late::ToldBefore);
        }
        let open = open_rows(&record, queue.as_ref());
        if open.is_empty() {
            return Ok(Late::Over);
        }
        let event = || Event::Delayed {
            entry: entry.clone(),
            rows: open.iter().map(|row| row.row).collect(),
        };
        let props = &record.props;
        let wanting: Vec<u32> =
            open.iter().filter(|row| row.wants_delay_report(props)).map(|row| row.row).collect();
        if wanting.is_empty() || is_report(props) || self.is_of_a_program(&record).await? {
            self.options.observer.tell(event());
            return Ok(Late::Untold);
        }
        let attempt = queue.as_ref().map_or(0, |queue| queue.attempts);
        let step = ReportStep {
            outcome: ReportOutcome::Delayed,
            attempt,
            rows: wanting,
            class: String::new(),
        };
        match self.note_report(entry, &step).await? {
            Noted::Yes => {}
            Noted::NoRow => return Ok(Late::Over),
        }
        self.options.observer.tell(event());
        let at = self.clock.now();
        self.put_delay(entry, &record, queue.as_ref(), step, at, Look::Here).await?;
        Ok(Late::Told)
    }

    async fn put_delay(
        &self,
        entry: &EntryId,
        record: &OutboxRecord,
        queue: Option<&QueueRecord>,
        step: ReportStep,
        at: SysTime,
        look: Look,
    ) -> MapiResult<()> {
        let recipients = record
            .recipients
            .iter()
            .filter(|row| step.rows.contains(&row.row))
            .map(|row| late(row, queue, at))
            .collect();
        let until = queue.map(|queue| queue.expires).filter(|until| *until < SysTime::MAX);
        let begun = Begun { step, action: ReportAction::Delayed, look, until };
        self.put_one(&about(entry, record), &begun, recipients, at).await?;
        self.mark_made(entry, &begun.step).await
    }

    /// The reports about a message that is about to leave the Outbox, to whom a delay was told of.
    pub(super) async fn tell_after_all(
        &self,
        entry: &EntryId,
        record: &OutboxRecord,
        history: Option<&HistoryRecord>,
    ) -> MapiResult<()> {
        let of =
            |outcome, row| {
                let about = |made: &&crate::spool::ReportMade| made.report.rows.contains(&row);
                record.reports.iter().filter(about).any(move |made| {
                    is_of(&made.report, outcome) && made.report.attempt != AFTER_ALL
                })
            };
        let told: Vec<(u32, SysTime, &Reply)> = history
            .iter()
            .flat_map(|history| &history.envelope.recipients)
            .filter_map(|recipient| match &recipient.state {
                RecipientState::Delivered { at, reply } => Some((recipient.row, *at, reply)),
                _ => None,
            })
            .filter(|(row, ..)| {
                of(ReportOutcome::Delayed, *row)
                    && !of(ReportOutcome::Delivered, *row)
                    && !of(ReportOutcome::Relayed, *row)
            })
            .collect();
        let Some(time) = told.iter().map(|(_, at, _)| *at).max() else { return Ok(()) };
        let rows: Vec<u32> = told.iter().map(|(row, ..)| *row).collect();
        let outcome = ReportOutcome::Relayed;
        let step = ReportStep { outcome, attempt: AFTER_ALL, rows, class: String::new() };
        let noted = record.reports.iter().find(|made| made.report.attempt == AFTER_ALL);
        let (step, look) = match noted {
            Some(made) if !made.report.class.is_empty() => return Ok(()),
            Some(made) => (made.report.clone(), Look::Everywhere),
            None => match self.note_report(entry, &step).await? {
                Noted::Yes => (step, Look::Here),
                Noted::NoRow => return Ok(()),
            },
        };
        let recipients = told
            .iter()
            .filter_map(|(row, at, reply)| {
                let row = record.recipients.iter().find(|one| one.row == *row)?;
                Some(line(row, reply, *at))
            })
            .collect();
        let begun = Begun { step, action: ReportAction::RelayedAfterAll, look, until: None };
        self.put_one(&about(entry, record), &begun, recipients, time).await?;
        self.mark_made(entry, &begun.step).await
    }

    async fn mark_made(&self, entry: &EntryId, step: &ReportStep) -> MapiResult<()> {
        let marked = update(self.spool.as_ref(), entry, |record| {
            let class = record.props.text(crate::mapi::tags::MESSAGE_CLASS).unwrap_or_default();
            let class = step.outcome.message_class(class);
            let made = record.reports.iter_mut().find(|made| made.report == *step);
            Ok(made.map(|made| made.report.class = class).is_some())
        });
        match marked.await {
            Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => Ok(()),
            answer => answer,
        }
    }

    /// Whether its header says that a program wrote it. What cannot be read is told of elsewhere.
    async fn is_of_a_program(&self, record: &OutboxRecord) -> MapiResult<bool> {
        let content = match self.outbox.content_of(record).await {
            Ok(content) => content,
            Err(error) if error.code() == MapiCode::END_OF_SESSION => return Err(error),
            Err(_) => return Ok(false),
        };
        let mut header = Vec::new();
        let read = content.reader.take(MAX_HEADER as u64).read_to_end(&mut header).await;
        Ok(read.is_ok() && is_auto_submitted(&header))
    }
}

fn is_of(step: &ReportStep, outcome: ReportOutcome) -> bool {
    step.outcome == outcome
}

/// Recipients without an outcome.
fn open_rows(record: &OutboxRecord, queue: Option<&QueueRecord>) -> Vec<Recipient> {
    let over = |row: u32| {
        queue.is_some_and(|queue| {
            let mut recipients = queue.envelope.recipients.iter();
            recipients.any(|one| one.row == row && one.state.is_conclusive())
        })
    };
    record
        .recipients
        .iter()
        .filter(|row| row.kind != crate::mapi::RecipientType::Orig)
        .filter(|row| !row.responsibility && !over(row.row))
        .cloned()
        .collect()
}

fn about(entry: &EntryId, record: &OutboxRecord) -> Report {
    Report {
        original: entry.clone(),
        attempt: 0,
        recipients: Vec::new(),
        original_props: record.props.clone(),
    }
}

/// What is known of why a recipient waits.
fn late(row: &Recipient, queue: Option<&QueueRecord>, at: SysTime) -> ReportedRecipient {
    let refused = queue.into_iter().flat_map(|queue| &queue.envelope.recipients).find_map(|one| {
        match &one.state {
            RecipientState::Deferred { reply } if one.row == row.row => Some(reply.clone()),
            _ => None,
        }
    });
    let reply = refused.unwrap_or_else(|| Reply {
        text: queue.map(|queue| queue.last_error.clone()).unwrap_or_default(),
        ..Reply::default()
    });
    line(row, &reply, at)
}

fn line(row: &Recipient, reply: &Reply, time: SysTime) -> ReportedRecipient {
    ReportedRecipient {
        mailbox: Mailbox::new(&row.display_name, &row.address),
        status: reply.enhanced.clone(),
        diagnostic: reply.to_string(),
        remote_mta: reply.host.clone(),
        time,
    }
}
