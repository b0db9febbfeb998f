//! The inside of StartMessage: a fetched message is filled into the host's message and saved.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::account::{Account, Place};
use super::claim::{Claim, Failed};
use super::cursor::Ending;
use super::key::{ContentDigest, content_digest, search_key};
use super::lane::is_closed;
use super::moment::Moment;
use super::queue::{Body, Fetched, Held, Piece};
use crate::mapi::{MapiCode, MapiError, MapiResult, PropList, tags};
use crate::spi::{ContentSink, Message};
use crate::spool::SpoolError;
use crate::transport::events::Trouble;

/// What a StartMessage found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// The message was filled and saved.
    Saved,
    /// Nothing is there; the message was not touched (IB-3).
    Nothing,
}

/// Why a message was not handed over.
enum Undone {
    /// The host does not want it now (TN-14).
    Cancelled,
    /// The logon ends.
    Ended,
    /// The message object could not take it.
    Message(MapiError),
    /// The server could not give it.
    Server(String),
}

/// Hands over the next message.
pub(super) async fn next(
    account: Arc<Account>,
    message: Arc<dyn Message>,
    cancel: CancellationToken,
) -> MapiResult<HandOver> {
    account.answered();
    let handing_over = account.handing_over();
    let Some(fetched) = take(&account, &cancel).await? else { return Ok(HandOver::Nothing) };
    let moving = account.moving();
    let outcome = hand_over(&account, fetched, &*message, &cancel).await;
    drop(moving);
    account.events.changed();
    drop(handing_over);
    if !matches!(&outcome, Err(error) if is_about_storage(error.code())) {
        // IB-4. A store that takes nothing is not asked again at once.
        account.announce();
    }
    outcome
}

/// The next message; during a flush it is waited for.
async fn take(account: &Account, cancel: &CancellationToken) -> MapiResult<Option<Fetched>> {
    let mut tick = account.tick.subscribe();
    let mut control = account.control.subscribe();
    loop {
        tick.borrow_and_update();
        if is_closed(&control.borrow_and_update()) || account.kill.is_cancelled() {
            return Ok(None);
        }
        if let Some(fetched) = account.queue.pop() {
            return Ok(Some(fetched));
        }
        if !account.is_flushing() {
            return Ok(None);
        }
        // What this call would hand over counts as waiting, not as being handed over.
        let waiting = account.waiting();
        tokio::select! {
            () = cancel.cancelled() => return Err(MapiCode::CANCEL.into()),
            () = account.kill.cancelled() => return Ok(None),
            _ = tick.changed() => {}
            _ = control.changed() => {}
        }
        drop(waiting);
    }
}

async fn hand_over(
    account: &Arc<Account>,
    fetched: Fetched,
    message: &dyn Message,
    cancel: &CancellationToken,
) -> MapiResult<HandOver> {
    let Fetched { mut claim, body } = fetched;
    let mailbox = Arc::clone(claim.mailbox());
    let filled = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Undone::Cancelled),
        () = account.kill.cancelled() => Err(Undone::Ended),
        filled = fill(account, &claim, body, message) => filled,
    };
    let digest = match filled {
        Ok(digest) => digest,
        Err(undone) => return Err(undo(account, claim, undone).await),
    };
    if !claim.is_noted(digest) {
        // Large messages are known only when they have come whole.
        claim.note(digest);
        if let Err(error) = mailbox.commit().await {
            return Err(unwritten(account, claim, error));
        }
    }
    // From here on the outcome stands: a save that was begun may have happened.
    let repetition = claim.repetition;
    claim.may_be_saved();
    if let Err(error) = message.save_changes(repetition).await {
        return Err(undo(account, claim, Undone::Message(error)).await);
    }
    // On its way until the cursor is on disk.
    let _ended = claim.end(Ending::Delivered(digest));
    if let Err(error) = mailbox.commit().await {
        // It is in the store; the next step of the cursor, or the next run, finds that out.
        let error = no_cursor(account, error);
        put_off(account);
        return Err(error);
    }
    account.trouble(Place::Storage, None);
    account.show_set_aside(&mailbox);
    Ok(HandOver::Saved)
}

/// Sees to a message that was not handed over.
async fn undo(account: &Arc<Account>, claim: Claim, undone: Undone) -> MapiError {
    let tuning = &account.settings.tuning;
    let now = Moment::now(&*account.clock);
    let mailbox = Arc::clone(claim.mailbox());
    let (error, failed) = match undone {
        Undone::Cancelled => (MapiCode::CANCEL.into(), None),
        Undone::Ended => (MapiCode::END_OF_SESSION.into(), None),
        Undone::Message(error) if is_about_storage(error.code()) => {
            account.storage_fault(
                format!("the store does not take mail: {error}"),
                tuning.storage_pause,
            );
            claim.back_at(now.after(tuning.storage_pause));
            put_off(account);
            return error;
        }
        Undone::Message(error) => {
            let words = format!("the store refuses it: {error}");
            (error, Some(words))
        }
        Undone::Server(words) => {
            (MapiError::new(MapiCode::NETWORK_ERROR, words.clone()), Some(words))
        }
    };
    match failed {
        None => drop(claim),
        Some(words) => {
            let again = now.after(tuning.retry_pause);
            if claim.fail(again, tuning.tries, &words) == Failed::SetAside {
                account.show_set_aside(&mailbox);
                // Those behind it may have waited for this.
                if let Err(error) = mailbox.commit().await {
                    no_cursor(account, error);
                }
            }
        }
    }
    error
}

/// The spool does not take what has to be on disk before a message is saved.
fn unwritten(account: &Account, claim: Claim, error: SpoolError) -> MapiError {
    let error = no_cursor(account, error);
    let pause = account.settings.tuning.storage_pause;
    claim.back_at(Moment::now(&*account.clock).after(pause));
    put_off(account);
    error
}

/// Shows that the spool takes no cursor: for now, or not before the next start (OB-9).
fn no_cursor(account: &Account, error: SpoolError) -> MapiError {
    let lost = Trouble::spool_lost(&error);
    let error = MapiError::from(error);
    match lost {
        Some(_) => account.trouble(Place::Storage, lost),
        None => account.storage_fault(
            format!("the spool takes no cursor: {error}"),
            account.settings.tuning.storage_pause,
        ),
    }
    error
}

/// While the disk takes nothing, what is waiting would fare no better; it is fetched again.
fn put_off(account: &Account) {
    let again = Moment::now(&*account.clock).after(account.settings.tuning.storage_pause);
    account.queue.withdraw_all().into_iter().for_each(|fetched| fetched.claim.back_at(again));
}

/// Whether an error of the message object says nothing about the message: the store as a whole
/// takes nothing now.
fn is_about_storage(code: MapiCode) -> bool {
    matches!(
        code,
        MapiCode::NOT_ENOUGH_DISK
            | MapiCode::NO_ACCESS
            | MapiCode::DISK_ERROR
            | MapiCode::BUSY
            | MapiCode::NOT_ENOUGH_MEMORY
            | MapiCode::CORRUPT_STORE
            | MapiCode::END_OF_SESSION
    )
}

async fn fill(
    account: &Account,
    claim: &Claim,
    body: Body,
    message: &dyn Message,
) -> Result<ContentDigest, Undone> {
    let object = Undone::Message;
    let mailbox = claim.mailbox();
    let origin = claim.origin();
    let transport = &account.settings.transport;
    let key = search_key(transport, &mailbox.name, origin.uid_validity, origin.uid);
    let props = PropList::new()
        .with(tags::SEARCH_KEY, key)
        .with(tags::SOURCE_MAILBOX, account.name_for_host(&mailbox.name))
        .with(tags::MESSAGE_DELIVERY_TIME, claim.date.unwrap_or_else(|| account.clock.now()))
        .with(tags::MESSAGE_SIZE, long(u64::from(claim.size)));
    message.set_props(props).await.map_err(object)?;
    let sink = message.set_content().await.map_err(object)?;
    let mut writer = Writer { sink, hasher: blake3::Hasher::new(), size: 0 };
    match body {
        Body::Whole(held) => writer.write(&held).await?,
        Body::Pieces { taken, mut pieces } => {
            if taken.send(()).is_err() {
                return Err(Undone::Server("the connection is lost".into()));
            }
            writer.write_all(&mut pieces).await?;
        }
    }
    let (digest, size) = writer.finish().await?;
    if size != u64::from(claim.size) {
        tracing::debug!(
            mailbox = %mailbox.name, uid = claim.uid, announced = claim.size, size,
            "the server announced another size"
        );
        let props = PropList::new().with(tags::MESSAGE_SIZE, long(size));
        message.set_props(props).await.map_err(object)?;
    }
    Ok(digest)
}

fn long(size: u64) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// Writes into the message and digests what it writes.
struct Writer {
    sink: Box<dyn ContentSink>,
    hasher: blake3::Hasher,
    size: u64,
}

impl Writer {
    async fn write(&mut self, held: &Held) -> Result<(), Undone> {
        self.hasher.update(held.bytes());
        self.size += u64::try_from(held.bytes().len()).unwrap_or(u64::MAX);
        self.sink.write(held.bytes()).await.map_err(Undone::Message)
    }

    async fn write_all(&mut self, pieces: &mut mpsc::Receiver<Piece>) -> Result<(), Undone> {
        loop {
            match pieces.recv().await {
                Some(Piece::Bytes(held)) => self.write(&held).await?,
                Some(Piece::End) => return Ok(()),
                Some(Piece::Failed(words)) => return Err(Undone::Server(words)),
                // A lane that was ended has no last words.
                None => return Err(Undone::Server("the connection is lost".into())),
            }
        }
    }

    async fn finish(self) -> Result<(ContentDigest, u64), Undone> {
        self.sink.finish().await.map_err(Undone::Message)?;
        Ok((content_digest(&self.hasher), self.size))
    }
}
