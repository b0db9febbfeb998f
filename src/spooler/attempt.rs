//! One message and the transports it calls for: SubmitMessage, EndMessage and what follows from
//! their answers (OB-7, OB-10, OB-11, SP-3).

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;

use super::Shared;
use super::attendance::{UnderWay, attend};
use super::open_calls::OpenCall;
use super::reports;
use super::routed_message::RoutedMessage;
use super::routing::{RouteRequest, RouteTarget, Routing, route};
use super::slot::Slot;
use crate::mapi::{
    EndMessageFlags, EntryId, MapiCode, MapiError, MapiResult, MessageRef, PropList, Recipient,
    StatusCode, SubmitFlags, SubmitMessageFlags, TransportNotify, tags,
};
use crate::spi::{
    Message, NotifyData, OutgoingNote, RecipientReport, Repetition, ReportKind, SubmitError,
    XpLogon,
};

/// E_BUSY and END_RESEND_LATER name no time; NOTIFY_READYTOSEND may come before it is over.
const LATER: Duration = Duration::from_secs(15);

/// How often END_RESEND_NOW is obeyed before it counts as END_RESEND_LATER.
const RESEND_NOW_LIMIT: usize = 3;

/// How handling a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// It has left the table.
    Gone,
    /// A transport has it (END_DONT_RESEND).
    Deferred,
    /// Its transport is closed or not logged on; it waits for a change.
    Unavailable,
    /// To be handed over again after this time.
    Later(Duration),
    /// Our own trouble; it stays as it is.
    Error,
}

/// What one transport answered.
#[derive(Debug)]
enum Answer {
    Sent,
    Deferred,
    Unavailable,
    Later(Duration),
    NotMe,
    Cancelled,
    /// This message cannot be sent by this transport, ever.
    Refused(MapiError),
    /// Something on our side failed.
    Error(MapiError),
}

/// Hands a waiting message to its transports.
///
/// Its first call begins at its place, behind those of older messages (OB-14).
pub(crate) async fn hand_over(
    shared: &Arc<Shared>,
    entry: &EntryId,
    under_way: UnderWay,
) -> Handed {
    guarded(shared, entry, None, under_way).await
}

/// Carries on with a message whose transport signalled NOTIFY_SENTDEFERRED (OB-11).
pub(crate) async fn finish_deferred(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    entry: &EntryId,
    under_way: UnderWay,
) -> Handed {
    guarded(shared, entry, Some(slot), under_way).await
}

/// Whatever breaks, the message is not left locked and the loop hears that it is free again.
async fn guarded(
    shared: &Arc<Shared>,
    entry: &EntryId,
    deferred_by: Option<&Arc<Slot>>,
    under_way: UnderWay,
) -> Handed {
    let work = AssertUnwindSafe(locked(shared, entry, deferred_by, under_way));
    match work.catch_unwind().await {
        Ok(handed) => handed,
        Err(_) => {
            tracing::error!(%entry, "Handling a message broke down");
            unlock(shared, entry).await;
            Handed::Error
        }
    }
}

async fn locked(
    shared: &Arc<Shared>,
    entry: &EntryId,
    deferred_by: Option<&Arc<Slot>>,
    under_way: UnderWay,
) -> Handed {
    let _turn = shared.turns.take(entry).await;
    match shared.store.set_lock_state(entry, SubmitFlags::LOCKED).await {
        Ok(()) => {}
        Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => return Handed::Gone,
        Err(_) => return Handed::Later(LATER),
    }
    let handed = match hand_over_locked(shared, entry, deferred_by, under_way).await {
        Ok(handed) => handed,
        Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => Handed::Gone,
        Err(error) => {
            tracing::error!(%entry, %error, "A message could not be handled");
            Handed::Error
        }
    };
    if handed != Handed::Gone {
        unlock(shared, entry).await;
    }
    handed
}

/// A cancelled message is no longer wanted (OB-7); it leaves the table unsent. Who cancels it in
/// this session sees to that, at every transport that may have some of it.
async fn remove_cancelled(shared: &Shared, entry: &EntryId) -> MapiResult<Handed> {
    if shared.wishes.is_unwanted(entry) {
        // Should the cancel come to nothing after all, it is looked at again.
        return Ok(Handed::Later(LATER));
    }
    // No transport has it any more; should it be handed over again meanwhile, the answer is the
    // same.
    shared.store.set_deferred(entry, None).await?;
    unlock(shared, entry).await;
    match shared.store.abort_submit(entry).await {
        Ok(()) => {}
        Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => {}
        Err(error) => return Err(error),
    }
    shared.ended(entry);
    Ok(Handed::Gone)
}

async fn unlock(shared: &Shared, entry: &EntryId) {
    if let Err(error) = shared.store.set_lock_state(entry, SubmitFlags::empty()).await {
        tracing::debug!(%entry, %error, "A message left the table while it was locked");
    }
}

/// The message, opened, while this process holds its lock.
async fn hand_over_locked(
    shared: &Arc<Shared>,
    entry: &EntryId,
    deferred_by: Option<&Arc<Slot>>,
    mut under_way: UnderWay,
) -> MapiResult<Handed> {
    let message = shared.store.open_message(entry).await?;
    let props = message.props().await?;
    let slots = shared.slots();
    let targets: Vec<RouteTarget> = slots.iter().map(|slot| slot.route_target()).collect();
    let mut refused: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut worst = Handed::Gone;
    let mut deferred_to: Option<String> = None;
    // Targets that had their turn keep their rows out of the next round.
    let mut given: BTreeSet<u32> = BTreeSet::new();
    // What the host itself gives up, for one report (OB-12).
    let mut given_up: Vec<RecipientReport> = Vec::new();

    if let Some(slot) = deferred_by {
        let rows: BTreeSet<u32> =
            message.recipients().await?.iter().map(|recipient| recipient.row).collect();
        let view = RoutedMessage::view(Arc::clone(&message), rows);
        match submit(shared, slot, view, SubmitMessageFlags::BEGIN_DEFERRED, &mut under_way).await {
            Answer::Sent => {
                shared.store.note(entry, OutgoingNote::SentBy { transport: &slot.name });
                keep_outcomes(&message).await?;
            }
            Answer::Deferred => return Ok(Handed::Deferred),
            Answer::Cancelled => return remove_cancelled(shared, entry).await,
            Answer::Error(error) if error.code() == MapiCode::NOT_FOUND => {
                tracing::warn!(%entry, transport = %slot.name, "Lost by its transport");
                shared.store.set_deferred(entry, None).await?;
                return Ok(Handed::Deferred);
            }
            Answer::Error(error) | Answer::Refused(error) => {
                slot.show_panic(&shared.table);
                return Err(error);
            }
            Answer::Later(after) => return Ok(Handed::Later(after)),
            Answer::Unavailable | Answer::NotMe => return Ok(Handed::Later(LATER)),
        }
        if let Some(index) = slots.iter().position(|other| Arc::ptr_eq(other, slot)) {
            // What it left is for the next match (AT-3).
            let recipients = message.recipients().await?;
            refused.extend(open_rows(&recipients).map(|row| (index, row)));
        }
    }

    loop {
        let recipients: Vec<Recipient> = message
            .recipients()
            .await?
            .into_iter()
            .filter(|recipient| !given.contains(&recipient.row))
            .collect();
        let Routing { groups, nobody } = route(&targets, request(&props, &recipients), &refused);
        if groups.is_empty() {
            if !nobody.is_empty() && slots.iter().any(|slot| slot.logon().is_err()) {
                // A transport that is not logged on may be the one that takes them.
                worst = worse(worst, Handed::Unavailable);
            } else if !nobody.is_empty() {
                let words = "no transport of this profile takes this type of address";
                given_up.extend(failures(shared, &nobody, "5.3.3", words));
            }
            break;
        }
        for (index, rows) in groups {
            let Some(slot) = slots.get(index) else { continue };
            let view = RoutedMessage::view(Arc::clone(&message), rows.clone());
            let answer =
                submit(shared, slot, view, SubmitMessageFlags::empty(), &mut under_way).await;
            match answer {
                Answer::Sent => {
                    shared.store.note(entry, OutgoingNote::SentBy { transport: &slot.name });
                    keep_outcomes(&message).await?;
                    let left = message.recipients().await?;
                    let left = open_rows(&left).filter(|row| rows.contains(row));
                    refused.extend(left.map(|row| (index, row)));
                }
                Answer::NotMe => refused.extend(rows.iter().map(|row| (index, *row))),
                Answer::Deferred => {
                    deferred_to.get_or_insert_with(|| slot.name.clone());
                    given.extend(rows);
                }
                Answer::Cancelled => return remove_cancelled(shared, entry).await,
                // A transport that cannot read it may be right about it, or about our disk.
                Answer::Refused(error)
                    if error.code() == MapiCode::CORRUPT_DATA
                        && shared.store.set_aside_if_damaged(entry).await? =>
                {
                    tracing::error!(%entry, %error, "A stored message is damaged and set aside");
                    return Ok(Handed::Unavailable);
                }
                Answer::Refused(error) => {
                    given_up.extend(failures(shared, &rows, "5.6.0", &error.to_string()));
                    given.extend(rows);
                }
                Answer::Unavailable => {
                    worst = worse(worst, Handed::Unavailable);
                    given.extend(rows);
                }
                Answer::Later(after) => {
                    worst = worse(worst, Handed::Later(after));
                    given.extend(rows);
                }
                Answer::Error(error) => {
                    slot.show_panic(&shared.table);
                    tracing::error!(%entry, transport = %slot.name, %error, "SubmitMessage failed");
                    worst = worse(worst, Handed::Error);
                    given.extend(rows);
                }
            }
        }
    }

    if !given_up.is_empty() {
        fail(shared, &message, given_up).await?;
    }
    if worst != Handed::Gone {
        if deferred_by.is_some() {
            // The rest is not with this transport: the submission loop takes it from here.
            shared.store.set_deferred(entry, None).await?;
            return Ok(Handed::Deferred);
        }
        return Ok(worst);
    }
    if let Some(transport) = deferred_to {
        shared.store.set_deferred(entry, Some(&transport)).await?;
        return Ok(Handed::Deferred);
    }
    if open_rows(&message.recipients().await?).next().is_some() {
        // Another transport still has some of them; its NOTIFY_SENTDEFERRED comes here again.
        return Ok(Handed::Deferred);
    }
    shared.store.finished_msg(entry).await?;
    shared.sent.fetch_add(1, Ordering::Relaxed);
    shared.ended(entry);
    Ok(Handed::Gone)
}

/// What a transport has ended must stay so while others still work on the message; a message
/// without open recipients is about to leave the table and need not be written again.
async fn keep_outcomes(message: &Arc<dyn Message>) -> MapiResult<()> {
    if open_rows(&message.recipients().await?).next().is_none() {
        return Ok(());
    }
    message.save_changes(Repetition::First).await
}

fn open_rows(recipients: &[Recipient]) -> impl Iterator<Item = u32> {
    recipients.iter().filter(|recipient| !recipient.responsibility).map(|recipient| recipient.row)
}

/// A message that waits for a time is looked at again by the timer; one that waits for a change
/// is not.
fn worse(one: Handed, other: Handed) -> Handed {
    match (one, other) {
        (Handed::Later(a), Handed::Later(b)) => Handed::Later(a.min(b)),
        (Handed::Later(_) | Handed::Error, _) => one,
        (_, other) => other,
    }
}

fn request<'a>(props: &'a PropList, recipients: &'a [Recipient]) -> RouteRequest<'a> {
    RouteRequest {
        sender: props
            .text(tags::SENT_REPRESENTING_EMAIL_ADDRESS)
            .or(props.text(tags::SENDER_EMAIL_ADDRESS))
            .unwrap_or_default(),
        account: props.text(tags::PRIMARY_SEND_ACCOUNT),
        recipients,
    }
}

/// SubmitMessage and EndMessage with one transport.
async fn submit(
    shared: &Shared,
    slot: &Slot,
    message: Arc<dyn Message>,
    flags: SubmitMessageFlags,
    under_way: &mut UnderWay,
) -> Answer {
    let UnderWay { place, hold } = under_way;
    let deferred = flags.contains(SubmitMessageFlags::BEGIN_DEFERRED);
    let code = shared.table.status_code(slot.row_id).unwrap_or_default();
    // The end of a deferred message is told whatever the gate; it starts no transaction.
    let open = code.contains(StatusCode::OUTBOUND_ENABLED) && place.may_use(slot.row_id);
    if slot.stands_still() || !deferred && !open {
        return Answer::Unavailable;
    }
    let Some(entry) = message.entry_id() else {
        return Answer::Error(MapiError::new(MapiCode::CALL_FAILED, "it has no entry id"));
    };
    for _ in 0..RESEND_NOW_LIMIT {
        let Ok(logon) = slot.logon() else { return Answer::Unavailable };
        place.comes().await;
        if !deferred && shared.wishes.is_unwanted(&entry) {
            return Answer::Cancelled;
        }
        let listed = slot.submits.begin(&entry);
        let cell = &listed.call.cell;
        let work = async {
            let mut call = logon.submit_message(flags, Arc::clone(&message), cell);
            // A call that waits has begun; the next one need not wait for its end.
            let begun = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
            place.leave();
            match begun {
                Poll::Ready(submitted) => submitted?,
                Poll::Pending => {
                    tokio::join!(call, heed(shared, logon.as_ref(), &listed.call, &entry)).0?;
                }
            }
            Ok(logon.end_message(cell.reference()).await?)
        };
        let end = match attend(shared, slot, logon.as_ref(), &listed.call, hold, work).await {
            Ok(end) => end,
            Err(error) => return refusal(shared, &entry, error),
        };
        slot.works(&shared.table);
        if end.contains(EndMessageFlags::RESEND_NOW) {
            continue;
        }
        if end.contains(EndMessageFlags::RESEND_LATER) {
            return Answer::Later(LATER);
        }
        if end.contains(EndMessageFlags::DONT_RESEND) {
            return Answer::Deferred;
        }
        return Answer::Sent;
    }
    Answer::Later(LATER)
}

/// Cancels a call whose message became unwanted before it had a reference (TN-15).
async fn heed(shared: &Shared, logon: &dyn XpLogon, call: &OpenCall, entry: &EntryId) {
    let reference = call.cell.reference();
    if reference == MessageRef::OUTBOUND_UNSET || !shared.wishes.is_unwanted(entry) {
        return;
    }
    let cancel = TransportNotify::CANCEL_MESSAGE;
    if let Err(error) = logon.transport_notify(cancel, NotifyData::Reference(reference)).await {
        tracing::warn!(%entry, %error, "A call could not be cancelled");
    }
}

/// What an error of SubmitMessage or EndMessage means (SP-3).
fn refusal(shared: &Shared, entry: &EntryId, error: SubmitError) -> Answer {
    let after = error.retry_after.unwrap_or(LATER);
    let unwanted = shared.wishes.is_unwanted(entry);
    match error.error.code() {
        MapiCode::NOT_ME => Answer::NotMe,
        MapiCode::BUSY => Answer::Later(LATER),
        MapiCode::WAIT | MapiCode::NETWORK_ERROR | MapiCode::TIMEOUT => Answer::Later(after),
        MapiCode::CANCEL | MapiCode::USER_CANCEL if unwanted => Answer::Cancelled,
        // A call that is cut short by the end of the session, by the transport or by our own
        // SpoolerYield, is no reason to give a message up: the next session asks again (SP-1).
        MapiCode::CANCEL if !shared.ending.is_cancelled() => Answer::Cancelled,
        MapiCode::CANCEL | MapiCode::USER_CANCEL => Answer::Later(LATER),
        MapiCode::END_OF_SESSION | MapiCode::NOT_INITIALIZED => Answer::Unavailable,
        MapiCode::INVALID_PARAMETER
        | MapiCode::TOO_BIG
        | MapiCode::CORRUPT_DATA
        | MapiCode::NO_SUPPORT
        | MapiCode::NO_RECIPIENTS => Answer::Refused(error.error),
        _ => Answer::Error(error.error),
    }
}

/// Rows that the host itself gives up.
fn failures(
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
async fn fail(
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
