//! SubmitMessage(BEGIN_DEFERRED): telling the host what became of a deferred message (OB-4,
//! OB-11, OB-12).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::calls::Outcome;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, PropList, Recipient};
use crate::spi::{Message, RecipientReport, Repetition, ReportKind, Support};
use crate::spool::{
    Envelope, HistoryEnd, QueueRecord, QueueState, RecipientState, Reply, Reporter, Spool,
};

/// Reports every recipient that has its outcome and was not reported before, and takes
/// responsibility for it. A message with recipients left stays deferred.
///
/// Repeating it after a crash is harmless: reports are made once, responsibility is set again.
pub(crate) async fn report(
    spool: &dyn Spool,
    support: &Arc<dyn Support>,
    message: &dyn Message,
    entry: EntryId,
) -> MapiResult<Outcome> {
    let Some(record) = spool.queue(&entry).await? else {
        let history = spool.history(&entry).await?.ok_or_else(|| {
            MapiError::new(MapiCode::NOT_FOUND, format!("{entry} was not deferred here"))
        })?;
        if history.end == HistoryEnd::Cancelled {
            // It was cancelled behind the signal: no copy is to be kept (TN-17).
            return Err(MapiCode::CANCEL.into());
        }
        mark_finished(message, &history.envelope).await?;
        return Ok(Outcome::Finished);
    };
    let (recipients, props) = (message.recipients().await?, message.props().await?);
    for (attempt, reports) in reports_by_attempt(&record, &recipients, &props) {
        support.status_recips(message, attempt, reports).await?;
    }
    let taken = conclusive_rows(&record.envelope);
    take_responsibility(message, recipients, &taken).await?;
    if record.state == QueueState::Done {
        // The host ends the message now; until it has, the outcome is kept by the queue row and
        // then by the history, so nothing of the message object needs to be saved.
        return Ok(Outcome::Reported(entry));
    }
    message.save_changes(Repetition::First).await?;
    Ok(Outcome::Deferred(entry))
}

/// Takes responsibility for everyone the transport had, for a message that ended before.
pub(crate) async fn mark_finished(message: &dyn Message, envelope: &Envelope) -> MapiResult<()> {
    let taken: Vec<u32> = envelope.recipients.iter().map(|recipient| recipient.row).collect();
    let recipients = message.recipients().await?;
    take_responsibility(message, recipients, &taken).await
}

fn conclusive_rows(envelope: &Envelope) -> Vec<u32> {
    envelope
        .recipients
        .iter()
        .filter(|recipient| recipient.state.is_conclusive())
        .map(|recipient| recipient.row)
        .collect()
}

async fn take_responsibility(
    message: &dyn Message,
    mut recipients: Vec<Recipient>,
    rows: &[u32],
) -> MapiResult<()> {
    recipients.retain(|recipient| rows.contains(&recipient.row));
    for recipient in &mut recipients {
        recipient.responsibility = true;
    }
    message.modify_recipients(recipients).await
}

/// One report for all recipients that ended in the same attempt and were not reported before:
/// every failure, and the deliveries that were asked for (OB-12).
fn reports_by_attempt(
    record: &QueueRecord,
    rows: &[Recipient],
    props: &PropList,
) -> BTreeMap<u32, Vec<RecipientReport>> {
    let mut reports: BTreeMap<u32, Vec<RecipientReport>> = BTreeMap::new();
    for recipient in &record.envelope.recipients {
        let open = |row: &&Recipient| row.row == recipient.row && !row.responsibility;
        let Some(row) = rows.iter().find(open) else { continue };
        let (attempt, kind, time, reply) = match &recipient.state {
            // A server that took the request over with the message reports by itself; of another
            // is known that it has the message, not that it reached the mailbox.
            RecipientState::Delivered { at, reply }
                if row.wants_delivery_report(props)
                    && recipient.notify.is_none_or(|notify| notify.by == Reporter::Ourselves) =>
            {
                (record.attempts, ReportKind::Relay, *at, reply)
            }
            RecipientState::Failed { at, reply, attempt } => {
                (*attempt, ReportKind::Failure, *at, reply)
            }
            RecipientState::Delivered { .. }
            | RecipientState::Pending
            | RecipientState::Deferred { .. } => continue,
        };
        reports.entry(attempt).or_default().push(RecipientReport {
            row: recipient.row,
            kind,
            status: status_of(kind, reply),
            diagnostic: reply.to_string(),
            remote_mta: reply.host.clone(),
            time,
        });
    }
    reports
}

/// The enhanced code of the reply where its class fits, else the general one (RFC 3463).
fn status_of(kind: ReportKind, reply: &Reply) -> String {
    let class = match kind {
        ReportKind::Delivery | ReportKind::Relay => "2.",
        ReportKind::Failure => "5.",
    };
    // A recipient that is given up after refusals "for now" keeps the reason it was given.
    let fits = reply.enhanced.starts_with(class)
        || (kind == ReportKind::Failure && reply.enhanced.starts_with("4."));
    match fits {
        true => reply.enhanced.clone(),
        false => format!("{class}0.0"),
    }
}
