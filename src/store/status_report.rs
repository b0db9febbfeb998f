//! Delivery status notifications that came in, tied to the messages they are about (IB-8).
//!
//! Anybody can send such a notification. All it does here is to add a step to the trace of a
//! message that is known, and a trace holds only a few of them.

use crate::mapi::{EntryId, SysTime};
use crate::mime::{StatusOfRecipient, StatusReport};
use crate::spool::{
    Batch, Op, Spool, SpoolError, StatusReportLine, StatusReportStep, Step, StepKind, TiedBy,
};

/// Messages with one Message-ID that are looked at.
const MOST_OF_ONE_ID: usize = 8;

/// Notes a notification at its message. `digest` is what makes it the same one when it is saved
/// again. That the trace cannot be written is no reason to refuse mail.
pub(super) async fn tie(spool: &dyn Spool, report: &StatusReport, digest: &[u8], now: SysTime) {
    let noted = async {
        let Some((entry, tied_by)) = original(spool, report).await? else { return Ok(None) };
        let what = StepKind::StatusReport(step(report, tied_by, digest));
        let op = Op::AddStep { entry: entry.clone(), step: Box::new(Step { at: now, what }) };
        spool.commit(Batch::new().with(op)).await?;
        Ok::<_, SpoolError>(Some(entry))
    };
    match noted.await {
        Ok(Some(entry)) => tracing::debug!(%entry, "A delivery status notification came in"),
        Ok(None) => tracing::debug!("A delivery status notification about an unknown message"),
        Err(error) => tracing::warn!(%error, "A delivery status notification is not in the trace"),
    }
}

/// The message it is about, by the surest of what it says.
async fn original(
    spool: &dyn Spool,
    report: &StatusReport,
) -> Result<Option<(EntryId, TiedBy)>, SpoolError> {
    if let Ok(entry) = report.envelope_id.parse::<EntryId>()
        && addresses(spool, &entry).await?.is_some()
    {
        return Ok(Some((entry, TiedBy::EnvelopeId)));
    }
    if !report.original_message_id.is_empty() {
        let found = spool.by_message_id(&report.original_message_id, MOST_OF_ONE_ID).await?;
        if let Some(entry) = addressed(spool, &found, report).await? {
            return Ok(Some((entry, TiedBy::MessageId)));
        }
        // A list or an alias may stand between the recipient and who reports.
        if let Some(latest) = found.into_iter().next() {
            return Ok(Some((latest, TiedBy::MessageId)));
        }
    }
    for reference in &report.references {
        let found = spool.by_message_id(reference, MOST_OF_ONE_ID).await?;
        if let Some(entry) = addressed(spool, &found, report).await? {
            return Ok(Some((entry, TiedBy::Reference)));
        }
    }
    Ok(None)
}

/// The first of these messages that went to a recipient of the notification.
async fn addressed(
    spool: &dyn Spool,
    entries: &[EntryId],
    report: &StatusReport,
) -> Result<Option<EntryId>, SpoolError> {
    for entry in entries {
        let Some(addresses) = addresses(spool, entry).await? else { continue };
        let is_one = |address: &String| {
            report.recipients.iter().any(|one| {
                one.original.eq_ignore_ascii_case(address)
                    || one.final_recipient.eq_ignore_ascii_case(address)
            })
        };
        if addresses.iter().any(is_one) {
            return Ok(Some(entry.clone()));
        }
    }
    Ok(None)
}

/// To whom a message went; `None` when nothing is known of it.
async fn addresses(spool: &dyn Spool, entry: &EntryId) -> Result<Option<Vec<String>>, SpoolError> {
    if let Some(history) = spool.history(entry).await? {
        let recipients = history.envelope.recipients.into_iter();
        return Ok(Some(recipients.map(|recipient| recipient.address).collect()));
    }
    let outbox = spool.outbox(entry).await?;
    Ok(outbox.map(|record| record.recipients.into_iter().map(|one| one.address).collect()))
}

fn step(report: &StatusReport, tied_by: TiedBy, digest: &[u8]) -> StatusReportStep {
    let lines = report.recipients.iter().map(line);
    StatusReportStep {
        id: digest.first_chunk::<8>().copied().unwrap_or_default(),
        outcome: report.outcome(),
        class: report.message_class(),
        tied_by,
        reporting_mta: report.reporting_mta.clone(),
        recipients: lines.collect(),
        more: report.more,
    }
}

fn line(recipient: &StatusOfRecipient) -> StatusReportLine {
    let address = match recipient.original.is_empty() {
        true => &recipient.final_recipient,
        false => &recipient.original,
    };
    StatusReportLine {
        address: address.clone(),
        action: recipient.action.name().to_owned(),
        status: recipient.status.clone(),
        diagnostic: recipient.diagnostic.clone(),
        remote_mta: recipient.remote_mta.clone(),
    }
}
