//! What a session sets right when it opens the spool, and what it clears away while it runs.
//!
//! The Outbox and the transports' queue hold a message each in rows of their own, which a crash
//! between two commits, a change of the profile or a lost record can leave without each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mapi::{
    EntryId, MapiCode, MapiError, MapiResult, PropList, Recipient, RecipientType, SysTime, tags,
};
use crate::profile::Profile;
use crate::spi::MessageStore;
use crate::spool::{
    AccountKey, Batch, Expect, HistoryEnd, Op, OutboxRecord, OutboxState, QueueRecord, QueueState,
    Spool, SpoolError, Step, StepKind, Trace,
};
use crate::transport;

/// Rows looked at, and written, at once.
const PAGE: usize = 256;

/// How long it is remembered how a message ended.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often what is too old is looked for.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Brings the rows of Outbox and queue together again. To be called before any transport is
/// logged on. Costs what is to be set right, however long the queue is: both steps find it by
/// indexes.
///
/// # Errors
/// Those of the spool.
pub(super) async fn reconcile(
    spool: &dyn Spool,
    profile: &Profile,
    now: SysTime,
) -> MapiResult<()> {
    house_queue(spool, profile, now).await?;
    settle_rows(spool).await
}

/// Every row of the queue gets a transport that exists.
async fn house_queue(spool: &dyn Spool, profile: &Profile, now: SysTime) -> MapiResult<()> {
    let senders: BTreeSet<AccountKey> = profile
        .transports
        .iter()
        .filter(|transport| transport.smtp.is_some())
        .map(|transport| AccountKey::of(&transport.name))
        .collect();
    if senders.is_empty() {
        return Ok(());
    }
    for account in spool.queue_accounts().await? {
        if !senders.contains(&account) {
            adopt_all(spool, profile, account, now).await?;
        }
    }
    Ok(())
}

/// Gives all messages of an account to transports of the profile.
async fn adopt_all(
    spool: &dyn Spool,
    profile: &Profile,
    account: AccountKey,
    now: SysTime,
) -> MapiResult<()> {
    loop {
        let mut batch = Batch::new();
        for entry in spool.queue_of(account, PAGE).await? {
            let Some(record) = spool.queue(&entry).await? else { continue };
            let Some(adopted) = adopted(&record, profile, now) else { continue };
            let (from, to) = (&record.transport, &adopted.transport);
            tracing::warn!(%entry, %from, %to, "A queued message changes its transport");
            let expect = Expect::Revision(record.revision);
            batch.push(Op::PutQueue { entry, record: Box::new(adopted), expect });
        }
        if batch.is_empty() {
            return Ok(());
        }
        spool.commit(batch).await?;
    }
}

/// Every row of the queue gets its message in the Outbox, and what the Outbox calls deferred and
/// no transport has is handed over again, and answered from the history where there is one.
async fn settle_rows(spool: &dyn Spool) -> MapiResult<()> {
    let mut after: Option<EntryId> = None;
    loop {
        let page = spool.unsettled_page(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let mut batch = Batch::new();
        for entry in page {
            let (outbox, queue) = (spool.outbox(&entry).await?, spool.queue(&entry).await?);
            if let Some((record, expect)) = settled(&entry, outbox, queue) {
                batch.push(Op::PutOutbox { entry, record: Box::new(record), expect });
            }
        }
        if !batch.is_empty() {
            spool.commit(batch).await?;
        }
    }
}

/// The Outbox row that fits the row of the queue, where there is another.
fn settled(
    entry: &EntryId,
    outbox: Option<OutboxRecord>,
    queue: Option<QueueRecord>,
) -> Option<(OutboxRecord, Expect)> {
    let Some(mut record) = outbox else {
        tracing::warn!(%entry, "A queued message had lost its row in the Outbox");
        return queue.map(|queue| (outbox_of(&queue), Expect::Absent));
    };
    let OutboxState::Deferred { transport } = &record.state else { return None };
    record.state = match queue {
        // A logoff gives a message back in two steps, the transport's first: after a crash
        // between them nobody else would hand it over again (TN-18).
        Some(queue) if queue.state != QueueState::Parked => {
            if queue.transport == *transport {
                return None;
            }
            OutboxState::Deferred { transport: queue.transport }
        }
        Some(_) | None => OutboxState::Waiting { not_before: SysTime::EPOCH },
    };
    let expect = Expect::Revision(record.revision);
    Some((record, expect))
}

/// The row with another transport, when its own is not in the profile or does not send any more:
/// the one whose sender it has, else the first that sends.
fn adopted(record: &QueueRecord, profile: &Profile, now: SysTime) -> Option<QueueRecord> {
    let mut senders = profile.transports.iter().filter(|transport| transport.smtp.is_some());
    if senders.clone().any(|transport| transport.name == record.transport) {
        return None;
    }
    let is_own = |address: &String| address.eq_ignore_ascii_case(&record.envelope.from);
    let own = senders.clone().find(|transport| {
        is_own(&transport.identity.address) || transport.aliases.iter().any(is_own)
    });
    let transport = own.or_else(|| senders.next())?.name.clone();
    let mut adopted = QueueRecord { transport: transport.clone(), ..record.clone() };
    adopted.trace.push(Step { at: now, what: StepKind::Accepted { transport } });
    Some(adopted)
}

/// A message of the Outbox from all that its transport knows of it.
fn outbox_of(record: &QueueRecord) -> OutboxRecord {
    let mut props = PropList::new()
        .with(tags::SUBJECT, record.subject.as_str())
        .with(tags::CLIENT_SUBMIT_TIME, record.submitted)
        .with(tags::ENVELOPE_SENDER, record.envelope.from.as_str())
        .with(tags::INTERNET_MESSAGE_ID, record.message_id.as_str());
    if !record.envelope.from.is_empty() {
        props.set(tags::SENDER_EMAIL_ADDRESS, record.envelope.from.as_str());
    }
    let recipients = record.envelope.recipients.iter();
    OutboxRecord {
        revision: 0,
        submitted: record.submitted,
        state: OutboxState::Deferred { transport: record.transport.clone() },
        props,
        recipients: recipients
            .map(|one| Recipient::smtp(one.row, RecipientType::To, one.address.as_str()))
            .collect(),
        object: None,
        content: Some(record.body),
        size: record.size,
        trace: Trace::default(),
        reports: Vec::new(),
    }
}

/// Forgets, at once and then daily, how messages ended more than 30 days ago, until `ending`.
pub(super) async fn forget(
    spool: Arc<dyn Spool>,
    clock: Arc<dyn Clock>,
    ending: CancellationToken,
) {
    loop {
        let now = clock.now();
        let until = now.saturating_add(EVERY);
        tokio::select! {
            () = ending.cancelled() => return,
            swept = sweep(spool.as_ref(), now) => match swept {
                Err(SpoolError::Closed) => return,
                Err(error) => tracing::warn!(%error, "Old histories could not be removed"),
                Ok(()) => {}
            },
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = clock.sleep_until(until) => {}
        }
    }
}

async fn sweep(spool: &dyn Spool, now: SysTime) -> Result<(), SpoolError> {
    let remembered = u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX);
    let before = SysTime::from_millis(now.as_millis().saturating_sub(remembered));
    // Those that must stay come first in every page; there are hardly ever any.
    let mut stay: BTreeSet<EntryId> = BTreeSet::new();
    loop {
        let old = spool.history_ended_before(before, PAGE + stay.len()).await?;
        let mut batch = Batch::new();
        for entry in old {
            if stay.contains(&entry) {
                continue;
            }
            // Its message is still to be handed over: without the history it would be sent again.
            if spool.outbox(&entry).await?.is_some() {
                stay.insert(entry);
            } else {
                batch.push(Op::DeleteHistory { entry });
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        spool.commit(batch).await?;
    }
}

/// Cancels a message for which there is no transport that could be asked: nobody works on its row
/// then.
///
/// # Errors
/// `MAPI_E_UNABLE_TO_ABORT` when it was sent already, or may have been: then it is gone all the
/// same; `MAPI_E_NOT_IN_QUEUE` when it is gone.
pub(super) async fn cancel_unowned(
    spool: &dyn Spool,
    store: &dyn MessageStore,
    now: SysTime,
    entry: &EntryId,
) -> MapiResult<()> {
    let mut perhaps_delivered = false;
    while let Some(record) = spool.queue(entry).await? {
        if record.state == QueueState::Done {
            return Err(sent_already(entry));
        }
        let in_doubt = record.may_be_delivered();
        let history = transport::cancelled(&record, now);
        let expect = Expect::Revision(record.revision);
        let batch = Batch::new()
            .with(Op::DeleteQueue { entry: entry.clone(), expect })
            .with(Op::PutHistory { entry: entry.clone(), record: Box::new(history) });
        match spool.commit(batch).await {
            Ok(_) => perhaps_delivered |= in_doubt,
            Err(SpoolError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match spool.history(entry).await? {
        Some(history) if history.end == HistoryEnd::Finished => {
            // In the Outbox for a moment still, or until the disk has room for its copy.
            store.outgoing_row(entry).await?;
            return Err(sent_already(entry));
        }
        // Cancelled in a life that ended before it had said so, or removed the message.
        Some(history) => perhaps_delivered |= history.trace.was_in_doubt(),
        None => {}
    }
    store.set_deferred(entry, None).await?;
    store.abort_submit(entry).await?;
    match perhaps_delivered {
        true => Err(transport::perhaps_delivered(entry)),
        false => Ok(()),
    }
}

fn sent_already(entry: &EntryId) -> MapiError {
    MapiError::new(MapiCode::UNABLE_TO_ABORT, format!("{entry} was sent already"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mapi::Priority;
    use crate::profile::Environment;
    use crate::spool::{Envelope, Expiry, SledSpool, SpoolOptions};

    fn entry(number: u64) -> EntryId {
        EntryId::from_ulid(ulid::Ulid::from_parts(1_700_000_000_000, number.into()))
    }

    fn profile() -> Profile {
        let text = "[[transport]]\nname = \"work\"\nidentity = \"a@b.org\"\n[transport.smtp]\n\
                    host = \"localhost\"\nuser = \"a\"\npassword = \"x\"\n\
                    [store]\nmaildir = \"/nowhere/Mail\"\n";
        let file = std::path::Path::new("/nowhere/test.toml");
        Profile::parse("test", text, file, &Environment::empty()).unwrap()
    }

    /// So many messages with a transport, and some whose rows do not fit together.
    async fn fill(spool: &SledSpool, messages: u64, orphans: u64) {
        let mut body = spool.new_body(None).await.unwrap();
        body.write(b"text").await.unwrap();
        let body = body.finish().await.unwrap();
        let id = body.id();
        let mut batch = Batch::new().with_body(body);
        for number in 0..messages + orphans {
            let record = QueueRecord {
                revision: 0,
                transport: "work".to_owned(),
                state: QueueState::Due,
                priority: Priority::Normal,
                submitted: SysTime::EPOCH,
                expires: SysTime::MAX,
                expiry: Expiry::Lifetime,
                due: SysTime::MAX,
                attempts: 0,
                envelope: Envelope::default(),
                body: id,
                size: 4,
                subject: String::new(),
                message_id: String::new(),
                last_error: String::new(),
                trace: Trace::default(),
            };
            let (entry, expect) = (entry(number), Expect::Absent);
            if number < messages {
                let record = Box::new(outbox_of(&record));
                batch.push(Op::PutOutbox { entry: entry.clone(), record, expect });
            }
            batch.push(Op::PutQueue { entry, record: Box::new(record), expect });
        }
        spool.commit(batch).await.unwrap();
    }

    #[tokio::test]
    async fn an_open_costs_what_is_unsettled_and_not_what_waits() {
        let mut costs = Vec::new();
        for messages in [10, 1_000] {
            let folder = tempfile::tempdir().unwrap();
            let options = SpoolOptions { reserve: 0, ..SpoolOptions::default() };
            let spool = SledSpool::open(folder.path(), options).unwrap();
            fill(&spool, messages, 3).await;
            let before = spool.reads();
            reconcile(&spool, &profile(), SysTime::EPOCH).await.unwrap();
            costs.push(spool.reads() - before);
            let found = spool.outbox_page(None, usize::MAX).await.unwrap().len();
            assert_eq!(
                u64::try_from(found).unwrap(),
                messages + 3,
                "each has its Outbox row again"
            );
            assert_eq!(spool.unsettled_page(None, 9).await.unwrap(), []);
        }
        let same = costs.windows(2).all(|pair| pair.first() == pair.last());
        assert!(same && costs.iter().all(|cost| *cost < 100), "{costs:?}");
    }
}
