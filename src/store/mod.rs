//! The message store: the Outbox in the spool, everything received in a Maildir or handed over to a
//! program or an LMTP server.
//!
//! [`LocalStore`] is the store of a profile behind the contract's [`MessageStore`]. What it
//! answers `Ok` to is durable. File operations run on the blocking threads of the runtime it was
//! opened with, so it may be called from any task of any runtime.

mod delay;
mod entry_ids;
mod hand;
mod host;
pub(crate) use host::name as host_name;
mod incoming;
mod maildir;
mod notes;
mod object;
mod outbox;
mod outbox_message;
mod owed;
mod report;
mod sent;
mod status_report;
mod submit;
mod submit_raw;

pub(crate) use delay::Late;
pub(crate) use hand::{HandCheck, check_hand};
pub use hand::{HandOptions, LmtpAddress, Receiver};
pub(crate) use owed::OwedCopy;
pub use owed::{CopyTo, OwedOptions};
pub use submit_raw::RawSubmission;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, SubmitFlags, SysTime};
use crate::observe::{Ended, Event, Observer};
use crate::spi::{
    Message, MessageStore, OutgoingNote, OutgoingRow, RecipientReport, Report, ReportKind,
};
use crate::spool::Spool;
use crate::spool::disk::{Disk, RealDisk};
use entry_ids::EntryIds;
use hand::Hand;
use incoming::IncomingMessage;
use maildir::Maildir;
use notes::Notes;
use outbox::Outbox;
use owed::Owed;

/// The largest message that is taken for sending unless something else is said.
pub(crate) const SIZE_LIMIT: u64 = 1 << 30;

/// How a [`LocalStore`] is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The Maildir; its root is INBOX. Made when it is missing. Default: `Mail` in the working
    /// folder.
    pub maildir: PathBuf,
    /// Who gets received mail and reports instead of the Maildir, and a folder for what is on its
    /// way there, which must be ours alone. The Maildir, if there is to be one, then holds sent copies
    /// only. Default: none.
    pub hand: Option<(HandOptions, PathBuf)>,
    /// Whether sent messages are kept in the mailbox `Sent` (OB-16). Default: true.
    pub sent: bool,
    /// Sent copies that go elsewhere (see [`OwedOptions`]). Default: none.
    pub owed: Option<OwedOptions>,
    /// The largest message that is taken for sending, in octets. Default: 1 GiB; most servers take
    /// less, and their refusal comes as a report.
    pub size_limit: u64,
    /// Octets of free space that received mail must leave alone. While there is less, a message
    /// that is being received answers `MAPI_E_NOT_ENOUGH_DISK` and leaves nothing behind.
    /// Default: 64 MiB.
    pub reserve: u64,
    /// Where the files of the Maildir are written; another one is for tests. Default: the file
    /// system.
    pub disk: Arc<dyn Disk>,
    /// Who is told what happens. Default: nobody.
    pub observer: Observer,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            maildir: PathBuf::from("Mail"),
            hand: None,
            sent: true,
            owed: None,
            size_limit: SIZE_LIMIT,
            reserve: 64 * 1024 * 1024,
            disk: Arc::new(RealDisk),
            observer: Observer::default(),
        }
    }
}

/// The store of a profile.
pub struct LocalStore {
    options: StoreOptions,
    outbox: Outbox,
    /// Where received mail is kept, or its texts as long as they are handed over.
    maildir: Arc<Maildir>,
    hand: Option<Arc<Hand>>,
    /// Where sent copies are kept.
    copies: Option<Arc<Maildir>>,
    /// Where sent copies are kept that a server is to get.
    owed: Option<Owed>,
    spool: Arc<dyn Spool>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    entries: EntryIds,
    notes: Notes,
    /// Name of this machine, fit for file names and message ids.
    host: String,
    /// When the store was opened: what was submitted later can have left no traces in the
    /// Maildir before a crash.
    opened: SysTime,
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").field("options", &self.options).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// Opens the store over a spool; makes the Maildir and clears away files that a crash of ours
    /// left in its `tmp`. `runtime` runs the file operations.
    ///
    /// # Errors
    /// `MAPI_E_DISK_ERROR`, `MAPI_E_NOT_ENOUGH_DISK`, `MAPI_E_NO_ACCESS` for a Maildir that cannot
    /// be made or used.
    pub async fn open(
        options: StoreOptions,
        spool: Arc<dyn Spool>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
    ) -> MapiResult<Arc<LocalStore>> {
        let host = host::name();
        let now = clock.now();
        let open = |root: &PathBuf| {
            let (root, own_host) = (root.clone(), host.clone());
            let disk = Arc::clone(&options.disk);
            let opened = on(&runtime, move || Maildir::open(&root, own_host, now, disk));
            async move { Ok::<_, MapiError>(Arc::new(opened.await??)) }
        };
        let (maildir, hand, copies) = match &options.hand {
            None => {
                let maildir = open(&options.maildir).await?;
                (Arc::clone(&maildir), None, Some(maildir))
            }
            Some((hand, folder)) => {
                let staging = folder.clone();
                on(&runtime, move || hand::forget(&staging, now)).await?;
                let staging = open(folder).await?;
                let clock = Arc::clone(&clock);
                let held = Arc::clone(&staging);
                let hand = Hand::new(hand.clone(), held, &host, clock, runtime.clone());
                let copies = match options.sent {
                    true => Some(open(&options.maildir).await?),
                    false => None,
                };
                (staging, Some(hand), copies)
            }
        };
        let owed = match &options.owed {
            Some(owed) => Some(Owed::new(owed, open(&owed.folder).await?)),
            None => None,
        };
        Ok(Arc::new(LocalStore {
            owed,
            outbox: Outbox::new(Arc::clone(&spool)),
            maildir,
            hand,
            copies,
            spool,
            entries: EntryIds::new(),
            notes: Notes::default(),
            host,
            opened: clock.now(),
            options,
            clock,
            runtime,
        }))
    }

    /// Keeps a message that no transport has yet from being handed over (see
    /// [`LocalStore::release`]). Held already: harmless.
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` while a transport works on it or has it, `MAPI_E_NOT_IN_QUEUE`.
    pub async fn hold(&self, entry: &EntryId) -> MapiResult<()> {
        self.outbox.hold(entry, self.clock.now()).await
    }

    /// Lets a held message go, not before its `PR_DEFERRED_SEND_TIME`. Not held: harmless.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`.
    pub async fn release(&self, entry: &EntryId) -> MapiResult<()> {
        self.outbox.release(entry, self.clock.now()).await
    }

    /// A message of the Outbox as RFC 5322 bytes: those submitted, or composed now.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`, `MAPI_E_CORRUPT_DATA`.
    pub async fn export(&self, entry: &EntryId) -> MapiResult<Pin<Box<dyn AsyncRead + Send>>> {
        Ok(self.outbox.content(entry).await?.reader)
    }

    /// Whether a message was submitted before this store was opened, so that an earlier process
    /// may have gone some way with it.
    fn is_older(&self, submitted: SysTime) -> bool {
        submitted <= self.opened
    }

    /// Runs something that blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> MapiResult<T> {
        on(&self.runtime, work).await
    }
}

/// Runs something that blocks on the runtime's threads for it. Goes on when the caller leaves.
async fn on<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> MapiResult<T> {
    runtime.spawn_blocking(work).await.map_err(|error| {
        MapiError::new(MapiCode::CALL_FAILED, format!("a file operation was cut off: {error}"))
    })
}

#[async_trait]
impl MessageStore for LocalStore {
    async fn outgoing_queue(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>> {
        self.outbox.waiting(after, limit).await
    }

    async fn deferred_queue(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>> {
        self.outbox.deferred(after, limit).await
    }

    /// A held message is shown as one that waits for the end of time.
    async fn outgoing_row(&self, entry: &EntryId) -> MapiResult<OutgoingRow> {
        self.outbox.row(entry).await
    }

    fn outgoing_added(&self) -> broadcast::Receiver<EntryId> {
        self.outbox.added()
    }

    async fn open_message(&self, entry: &EntryId) -> MapiResult<Arc<dyn Message>> {
        self.outbox.open_message(entry).await
    }

    async fn set_lock_state(&self, entry: &EntryId, flags: SubmitFlags) -> MapiResult<()> {
        self.outbox.set_lock_state(entry, flags).await
    }

    async fn set_deferred(&self, entry: &EntryId, transport: Option<&str>) -> MapiResult<()> {
        self.outbox.set_deferred(entry, transport, self.clock.now()).await
    }

    async fn set_aside_if_damaged(&self, entry: &EntryId) -> MapiResult<bool> {
        self.outbox.set_aside_if_damaged(entry).await
    }

    fn note(&self, entry: &EntryId, note: OutgoingNote<'_>) {
        if let OutgoingNote::Outcomes(outcomes) = note {
            let failed = outcomes.iter().filter(|one| one.kind == ReportKind::Failure);
            let why = |one: &RecipientReport| match one.diagnostic.is_empty() {
                true => one.status.clone(),
                false => one.diagnostic.clone(),
            };
            let rows: Vec<_> = failed.map(|one| (one.row, why(one))).collect();
            if !rows.is_empty() {
                self.options.observer.tell(Event::Failed { entry: entry.clone(), rows });
            }
        }
        self.notes.add(entry, note);
    }

    async fn finished_msg(&self, entry: &EntryId) -> MapiResult<()> {
        self.finish(entry).await
    }

    async fn abort_submit(&self, entry: &EntryId) -> MapiResult<()> {
        self.outbox.abort_submit(entry, self.clock.now()).await?;
        self.notes.forget(entry);
        self.options.observer.counters().ended(Ended::Cancelled, std::time::Duration::ZERO);
        tracing::info!(%entry, "A message is cancelled");
        Ok(())
    }

    async fn new_incoming(&self) -> MapiResult<Arc<dyn Message>> {
        Ok(Arc::new(IncomingMessage::new(
            (Arc::clone(&self.maildir), self.hand.clone()),
            Arc::clone(&self.spool),
            self.options.reserve,
            self.runtime.clone(),
            self.clock.now(),
            self.options.observer.clone(),
        )))
    }

    async fn deliver_report(&self, report: Report) -> MapiResult<()> {
        self.put_report(report).await
    }
}

#[cfg(test)]
mod tests;
