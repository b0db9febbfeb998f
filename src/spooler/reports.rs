//! From what happened to recipients to a report message in the sender's Inbox (SP-4, OB-12).

use crate::mapi::{MapiCode, MapiError, MapiResult, PropList, Recipient, tags};
use crate::spi::{Message, MessageStore, OutgoingNote, RecipientReport, Report, ReportKind};

/// Makes the reports that were asked for: failures unless suppressed, deliveries on request.
pub(crate) async fn deliver(
    store: &dyn MessageStore,
    message: &dyn Message,
    attempt: u32,
    recipients: Vec<RecipientReport>,
) -> MapiResult<()> {
    let original = message.entry_id().ok_or_else(|| {
        MapiError::new(MapiCode::INVALID_PARAMETER, "a report needs a message that was submitted")
    })?;
    store.note(&original, OutgoingNote::Outcomes(&recipients));
    let props = message.props().await?;
    if is_report(&props) {
        return Ok(());
    }
    let rows = message.recipients().await?;
    for kind in [ReportKind::Failure, ReportKind::Delivery] {
        let wanted: Vec<(Recipient, RecipientReport)> = recipients
            .iter()
            .filter(|report| report.kind == kind)
            .filter_map(|report| {
                let row = rows.iter().find(|row| row.row == report.row)?;
                let asked_for = match kind {
                    ReportKind::Failure => row.wants_failure_report(&props),
                    ReportKind::Delivery => row.wants_delivery_report(&props),
                };
                asked_for.then(|| (row.clone(), report.clone()))
            })
            .collect();
        if !wanted.is_empty() {
            let report = Report {
                original: original.clone(),
                attempt,
                recipients: wanted,
                original_props: props.clone(),
            };
            store.deliver_report(report).await?;
        }
    }
    Ok(())
}

/// There is no report about a report: neither about our own kind nor about what came with the
/// null sender (RFC 3464 section 2, RFC 5321 section 4.5.5).
fn is_report(props: &PropList) -> bool {
    let class = props.text(tags::MESSAGE_CLASS).unwrap_or_default();
    class.to_ascii_uppercase().starts_with("REPORT.")
        || props.text(tags::ENVELOPE_SENDER) == Some("")
}
