//! One message and the transports it calls for: SubmitMessage, EndMessage and what follows from
//! their answers (OB-7, OB-10, OB-11, SP-3).

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;

use super::Shared;
use super::attendance::UnderWay;
use super::recipient_rows::{
    cancel_rows, fail, failures, keep_outcomes, open_rows, request, rows_of,
};
use super::routed_message::RoutedMessage;
use super::routing::{RouteTarget, Routing, route};
use super::slot::Slot;
use super::submit_call::{Answer, LATER, submit};
use crate::mapi::{EntryId, MapiCode, MapiResult, Recipient, SubmitFlags, SubmitMessageFlags};
use crate::spi::{OutgoingNote, RecipientReport};

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

/// Hands a waiting message to its transports.
///
/// Its first call begins at its place, behind those of older messages (OB-14).
pub(crate) async fn hand_over(
    shared: &Arc<Shared>,
    entry: &EntryId,
    under_way: &mut UnderWay,
) -> Handed {
    guarded(shared, entry, locked(shared, entry, None, under_way)).await
}

/// Carries on with a message whose transport signalled NOTIFY_SENTDEFERRED (OB-11).
pub(crate) async fn finish_deferred(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    entry: &EntryId,
    under_way: &mut UnderWay,
) -> Handed {
    guarded(shared, entry, locked(shared, entry, Some(slot), under_way)).await
}

/// Whatever breaks, the message is not left locked and the loop hears that it is free again.
pub(super) async fn guarded(
    shared: &Shared,
    entry: &EntryId,
    work: impl Future<Output = Handed>,
) -> Handed {
    match AssertUnwindSafe(work).catch_unwind().await {
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
    under_way: &mut UnderWay,
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

/// A cancelled message is no longer wanted (OB-7); it leaves the table unsent.
async fn remove_cancelled(shared: &Shared, entry: &EntryId) -> MapiResult<Handed> {
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

pub(super) async fn unlock(shared: &Shared, entry: &EntryId) {
    if let Err(error) = shared.store.set_lock_state(entry, SubmitFlags::empty()).await {
        tracing::debug!(%entry, %error, "A message left the table while it was locked");
    }
}

/// The message, opened, while this process holds its lock.
async fn hand_over_locked(
    shared: &Arc<Shared>,
    entry: &EntryId,
    deferred_by: Option<&Arc<Slot>>,
    under_way: &mut UnderWay,
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
        let recipients = message.recipients().await?;
        let rows: BTreeSet<u32> = recipients.iter().map(|recipient| recipient.row).collect();
        let view = RoutedMessage::view(Arc::clone(&message), rows);
        match submit(shared, slot, view, SubmitMessageFlags::BEGIN_DEFERRED, under_way).await {
            Answer::Sent => {
                shared.store.note(entry, OutgoingNote::SentBy { transport: &slot.name });
                keep_outcomes(&message).await?;
            }
            Answer::Deferred => return Ok(Handed::Deferred),
            Answer::Unwanted => return Ok(Handed::Later(LATER)),
            Answer::Cancelled => {
                let index = slots.iter().position(|other| Arc::ptr_eq(other, slot));
                let rows = index.map(|index| rows_of(&targets, &props, &recipients, index));
                if !cancel_rows(&message, &rows.unwrap_or_default(), shared.clock.now()).await? {
                    return remove_cancelled(shared, entry).await;
                }
            }
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
        let request = request(&targets, &props, &recipients);
        let Routing { groups, nobody } = route(&targets, request, &refused);
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
            let answer = submit(shared, slot, view, SubmitMessageFlags::empty(), under_way).await;
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
                Answer::Unwanted => return Ok(Handed::Later(LATER)),
                Answer::Cancelled => {
                    if !cancel_rows(&message, &rows, shared.clock.now()).await? {
                        return remove_cancelled(shared, entry).await;
                    }
                }
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

/// A message that waits for a time is looked at again by the timer; one that waits for a change
/// is not.
fn worse(one: Handed, other: Handed) -> Handed {
    match (one, other) {
        (Handed::Later(a), Handed::Later(b)) => Handed::Later(a.min(b)),
        (Handed::Later(_) | Handed::Error, _) => one,
        (_, other) => other,
    }
}
