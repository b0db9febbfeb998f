//! The recipients of an outgoing message whom a transport has ended, who are still open, and whom
//! the host itself gives up.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Shared;
use super::reports;
use super::routing::{RouteRequest, RouteTarget, route};
use crate::mapi::{EntryId, MapiResult, PropList, Recipient, RecipientType, SysTime, tags};
use crate::spi::{Message, RecipientReport, Repetition, ReportKind};

/// What a transport has ended must stay so while others still work on the message. One without
/// open recipients is about to leave the table, and is written again only where there is more to
/// be remembered of its end than that it was sent.
pub(super) async fn keep_outcomes(message: &Arc<dyn Message>) -> MapiResult<()> {
    let recipients = message.recipients().await?;
    if open_rows(&recipients).next().is_none()
        && !recipients.iter().any(|row| row.failure().is_some())
    {
        return Ok(());
    }
    message.save_changes(Repetition::First).await
}

/// Takes responsibility for rows whose transport answered `MAPI_E_CANCEL`: nobody is to send to
/// them any more. `false`, and nothing changed, when nothing but them is left of the message.
pub(super) async fn cancel_rows(
    message: &Arc<dyn Message>,
    rows: &BTreeSet<u32>,
    now: SysTime,
) -> MapiResult<bool> {
    let mut recipients = message.recipients().await?;
    if !recipients
        .iter()
        .any(|recipient| !rows.contains(&recipient.row) && is_taken_or_open(recipient))
    {
        return Ok(false);
    }
    recipients.retain(|recipient| rows.contains(&recipient.row) && !recipient.responsibility);
    for recipient in &mut recipients {
        recipient.responsibility = true;
        recipient.set_cancelled(now);
    }
    message.modify_recipients(recipients).await?;
    message.save_changes(Repetition::First).await?;
    Ok(true)
}

/// Whether a recipient is one the message has not been cancelled for.
fn is_taken_or_open(recipient: &Recipient) -> bool {
    recipient.kind != RecipientType::Orig && !recipient.is_cancelled()
}

/// The open rows that are meant for one of the targets.
pub(super) fn rows_of(
    targets: &[RouteTarget],
    props: &PropList,
    recipients: &[Recipient],
    index: usize,
) -> BTreeSet<u32> {
    let routing = route(targets, request(targets, props, recipients), &BTreeSet::new());
    let groups = routing.groups.into_iter();
    groups.filter(|(target, _)| *target == index).flat_map(|(_, rows)| rows).collect()
}

/// Notes for a message that some transports gave up, by their indices, while another goes on with
/// it, that nobody is to send to their recipients any more.
pub(crate) async fn note_cancelled(
    shared: &Shared,
    entry: &EntryId,
    gave_up: &[usize],
) -> MapiResult<()> {
    let message = shared.store.open_message(entry).await?;
    let (props, recipients) = (message.props().await?, message.recipients().await?);
    let targets: Vec<RouteTarget> = shared.slots().iter().map(|slot| slot.route_target()).collect();
    let rows = gave_up.iter().flat_map(|index| rows_of(&targets, &props, &recipients, *index));
    cancel_rows(&message, &rows.collect(), shared.clock.now()).await.map(drop)
}

pub(super) fn open_rows(recipients: &[Recipient]) -> impl Iterator<Item = u32> {
    recipients.iter().filter(|recipient| !recipient.responsibility).map(|recipient| recipient.row)
}

/// What routing is to know of a message. Its sender is the first of these that is an address of
/// some transport: who the envelope names, who submitted it, whom it represents. So `-f` decides
/// where it names an account, as with other sendmail commands.
pub(super) fn request<'a>(
    targets: &[RouteTarget],
    props: &'a PropList,
    recipients: &'a [Recipient],
) -> RouteRequest<'a> {
    let senders =
        [tags::ENVELOPE_SENDER, tags::SENDER_EMAIL_ADDRESS, tags::SENT_REPRESENTING_EMAIL_ADDRESS];
    let senders = senders.into_iter().filter_map(|tag| props.text(tag));
    let own = |sender: &&str| targets.iter().any(|target| target.has_sender(sender));
    RouteRequest {
        sender: senders.clone().find(own).unwrap_or_default(),
        account: props.text(tags::PRIMARY_SEND_ACCOUNT),
        recipients,
    }
}

/// Rows that the host itself gives up.
pub(super) fn failures(
    shared: &Shared,
    rows: &BTreeSet<u32>,
    status: &str,
    words: &str,
) -> impl Iterator<Item = RecipientReport> {
    let time = shared.clock.now();
    rows.iter().map(move |row| RecipientReport {
        row: *row,
        kind: ReportKind::Failure,
        status: status.to_owned(),
        diagnostic: words.to_owned(),
        remote_mta: String::new(),
        time,
    })
}

/// Reports rows as failed by the host itself and takes responsibility for them.
pub(super) async fn fail(
    shared: &Shared,
    message: &Arc<dyn Message>,
    reports: Vec<RecipientReport>,
) -> MapiResult<()> {
    let rows: BTreeSet<u32> = reports.iter().map(|report| report.row).collect();
    reports::deliver(shared.store.as_ref(), message.as_ref(), 0, reports).await?;
    let mut recipients = message.recipients().await?;
    recipients.retain(|recipient| rows.contains(&recipient.row));
    for recipient in &mut recipients {
        recipient.responsibility = true;
    }
    message.modify_recipients(recipients).await?;
    message.save_changes(Repetition::First).await
}
