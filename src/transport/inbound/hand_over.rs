//! The inside of StartMessage: a fetched message is filled into the host's message and saved.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::account::{Account, Place};
use super::claim::{Claim, Failed};
use super::cursor::Ending;
use super::key::{ContentDigest, content_digest, search_key};
use super::lane::is_closed;
use super::moment::Moment;
use super::queue::{Body, Fetched, Held, Kept, Piece};
use crate::mapi::{MapiCode, MapiError, MapiResult, PropList, tags};
use crate::spi::{Content, ContentSink, Message, ResumedContent};
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
    /// The server could not give it; what came of it is good.
    Lost(String),
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
    let mut control = account.control.subscribe();
    loop {
        // Before the look, so that nothing that comes behind it is missed.
        let arrived = account.queue.arrived.notified();
        tokio::pin!(arrived);
        arrived.as_mut().enable();
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
            () = arrived => {}
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
    let mut writer = None;
    let filled = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Undone::Cancelled),
        () = account.kill.cancelled() => Err(Undone::Ended),
        filled = fill(account, &claim, body, message, &mut writer) => filled,
    };
    let digest = match filled {
        Ok(digest) => digest,
        Err(undone) => {
            if let Some(writer) = writer {
                writer.give_up(&undone).await;
            }
            return Err(undo(account, claim, undone).await);
        }
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
        Undone::Lost(words) | Undone::Server(words) => {
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
    writing: &mut Option<Writer>,
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
    match body {
        Body::Whole(held, digest) => {
            let sink = message.set_content().await.map_err(object)?;
            writing.insert(Writer::of_known(sink, digest)).write(&held).await?;
        }
        Body::Pieces { taken, mut pieces } => {
            let (writer, kept) = Writer::resume(message, claim.size).await.map_err(object)?;
            let writer = writing.insert(writer);
            if taken.send(kept).is_err() {
                return Err(Undone::Lost("the connection is lost".into()));
            }
            while let Some(bytes) = next_piece(&mut pieces).await? {
                match bytes {
                    Some(held) => writer.write(&held).await?,
                    None => writer.begin_anew(message, claim.size).await.map_err(object)?,
                }
            }
        }
    }
    let Some(writer) = writing.take() else {
        return Err(Undone::Server("nothing came".into()));
    };
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

/// The next piece: some bytes, or that the message begins anew; `None` when that was all.
async fn next_piece(pieces: &mut mpsc::Receiver<Piece>) -> Result<Option<Option<Held>>, Undone> {
    match pieces.recv().await {
        Some(Piece::Bytes(held)) => Ok(Some(Some(held))),
        Some(Piece::Anew) => Ok(Some(None)),
        Some(Piece::End) => Ok(None),
        Some(Piece::Lost(words)) => Err(Undone::Lost(words)),
        Some(Piece::Failed(words)) => Err(Undone::Server(words)),
        // A lane that was ended has no last words.
        None => Err(Undone::Lost("the connection is lost".into())),
    }
}

fn long(size: u64) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// Octets at either end of what was kept of a message by which it is known again.
const ENDS: usize = 4096;

/// Writes into the message and digests what it writes.
struct Writer {
    sink: Box<dyn ContentSink>,
    digest: Digest,
    size: u64,
}

/// The digest of a message.
enum Digest {
    /// It was made before.
    Known(ContentDigest),
    /// It comes to be.
    Of(Box<blake3::Hasher>),
}

impl Digest {
    fn update(&mut self, bytes: &[u8]) {
        if let Digest::Of(hasher) = self {
            hasher.update(bytes);
        }
    }

    fn get(&self) -> ContentDigest {
        match self {
            Digest::Known(digest) => *digest,
            Digest::Of(hasher) => content_digest(hasher),
        }
    }
}

impl Writer {
    fn new(sink: Box<dyn ContentSink>) -> Self {
        Writer { sink, digest: Digest::Of(Box::default()), size: 0 }
    }

    /// Of a message whose digest is known.
    fn of_known(sink: Box<dyn ContentSink>, digest: ContentDigest) -> Self {
        Writer { sink, digest: Digest::Known(digest), size: 0 }
    }

    /// Goes on where an earlier try stopped.
    async fn resume(message: &dyn Message, size: u32) -> MapiResult<(Self, Kept)> {
        let ResumedContent { sink, before } = message.resume_content(u64::from(size)).await?;
        let mut writer = Writer::new(sink);
        let Some(before) = before else { return Ok((writer, Kept::default())) };
        match writer.read(before).await {
            Ok(kept) => Ok((writer, kept)),
            Err(error) => {
                tracing::warn!(%error, "what was kept of a large message cannot be read");
                writer.begin_anew(message, size).await?;
                Ok((writer, Kept::default()))
            }
        }
    }

    async fn read(&mut self, mut before: Content) -> std::io::Result<Kept> {
        let mut kept = Kept::default();
        let mut tail: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = before.reader.read(&mut buffer).await?;
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            self.digest.update(bytes);
            self.size += u64::try_from(count).unwrap_or(0);
            if kept.head.is_empty() {
                kept.head = Bytes::copy_from_slice(bytes.get(..ENDS).unwrap_or(bytes));
            }
            tail.extend_from_slice(bytes.get(count.saturating_sub(ENDS)..).unwrap_or(bytes));
            tail.drain(..tail.len().saturating_sub(ENDS));
        }
        if self.size != before.size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        (kept.octets, kept.tail) = (self.size, Bytes::from(tail));
        Ok(kept)
    }

    /// Forgets everything that is there.
    async fn begin_anew(&mut self, message: &dyn Message, size: u32) -> MapiResult<()> {
        // A sink is discarded as a whole; meanwhile another one stands in its place.
        let old = std::mem::replace(&mut self.sink, Box::new(Nowhere));
        old.discard().await;
        *self = Writer::new(message.resume_content(u64::from(size)).await?.sink);
        Ok(())
    }

    async fn write(&mut self, held: &Held) -> Result<(), Undone> {
        self.digest.update(held.bytes());
        self.size += u64::try_from(held.bytes().len()).unwrap_or(u64::MAX);
        self.sink.write(held.bytes()).await.map_err(Undone::Message)
    }

    async fn finish(self) -> Result<(ContentDigest, u64), Undone> {
        self.sink.finish().await.map_err(Undone::Message)?;
        Ok((self.digest.get(), self.size))
    }

    /// The message is not to be had now.
    async fn give_up(self, undone: &Undone) {
        match undone {
            Undone::Cancelled | Undone::Ended | Undone::Lost(_) => {
                if let Err(error) = self.sink.keep().await {
                    tracing::warn!(%error, "what came of a large message could not be kept");
                }
            }
            Undone::Message(_) | Undone::Server(_) => self.sink.discard().await,
        }
    }
}

/// Takes nothing.
struct Nowhere;

#[async_trait]
impl ContentSink for Nowhere {
    async fn write(&mut self, _bytes: &[u8]) -> MapiResult<()> {
        Err(MapiCode::CALL_FAILED.into())
    }

    async fn finish(self: Box<Self>) -> MapiResult<()> {
        Err(MapiCode::CALL_FAILED.into())
    }
}
