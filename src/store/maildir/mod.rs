//! A Maildir with sub-folders (Maildir++): every message a file, written to `tmp`, synced, moved
//! to its place, the place synced.
//!
//! Everything here blocks. Below the root, which the user names, no symbolic link is followed.

mod draft;
mod folder;
mod index;
mod names;
mod partial;
mod saver;
mod shared_sync;

pub(super) use draft::Draft;
pub(super) use names::{Origin, Token};
pub(super) use partial::Resumed;
pub(super) use saver::Together;

/// The folder of a mailbox below the root; empty for INBOX.
pub(super) fn folder_of(mailbox: &str) -> String {
    names::folder(mailbox).unwrap_or_default()
}

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fd::OwnedFd;

use crate::mapi::{MapiCode, MapiError, MapiResult, SysTime};
use crate::spool::disk::{At, Disk};
use folder::{Folder, OpenFolders, PartOf};
use index::Index;
use saver::Saver;

/// A file operation in the Maildir that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(super) struct MaildirError {
    /// What was done, on which file.
    what: String,
    /// The reason.
    source: io::Error,
    /// Whether something was to be made durable.
    of_sync: bool,
}

impl MaildirError {
    fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        MaildirError { what: what.into(), source: source.into(), of_sync: false }
    }

    fn sync(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        MaildirError { of_sync: true, ..Self::new(what, source) }
    }

    /// Whether something else has the name.
    fn is_taken(&self) -> bool {
        !self.of_sync && self.source.kind() == io::ErrorKind::AlreadyExists
    }

    fn is_unsupported(&self) -> bool {
        self.source.kind() == io::ErrorKind::Unsupported
    }

    fn is_full_disk(&self) -> bool {
        is_full_disk(self.source.kind())
    }
}

fn is_full_disk(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<MaildirError> for MapiError {
    fn from(error: MaildirError) -> Self {
        let code = match error.source.kind() {
            _ if error.is_full_disk() => MapiCode::NOT_ENOUGH_DISK,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                MapiCode::NO_ACCESS
            }
            _ => MapiCode::DISK_ERROR,
        };
        MapiError::new(code, format!("the Maildir: {error}"))
    }
}

/// Where a message goes in a Maildir.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The mailbox, with `/` between levels.
    pub(super) mailbox: String,
    /// What makes it the same message.
    pub(super) token: Token,
    /// When it was received or sent; in the name, and the time of the file.
    pub(super) time: SysTime,
    /// How it is shown.
    pub(super) state: FileState,
    /// Whether it may be there already, anywhere and under any flags.
    pub(super) look: Look,
}

/// How a message is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// Unseen, in `new`.
    New,
    /// Seen, in `cur`.
    Seen,
}

/// Whether a message may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Only under the very same name, if at all.
    Here,
    /// It is looked for everywhere.
    Everywhere,
}

/// The Maildir.
#[derive(Debug)]
pub(super) struct Maildir {
    root: OwnedFd,
    tmp: Arc<OwnedFd>,
    host: String,
    index: Index,
    folders: OpenFolders,
    disk: Arc<dyn Disk>,
    /// Held by who makes a file in `tmp`: the system lets one at a time do that, and dozens that
    /// try at once wait for it turning in circles.
    making: Mutex<()>,
    /// Saves several messages with the syncs of one, where the file system is one for that.
    saver: Option<Saver>,
    /// Why nothing is delivered any more: a sync has failed, and what else of the disk's cache is
    /// lost with it cannot be known. The next open looks at what is there.
    failed: OnceLock<String>,
}

impl Maildir {
    /// Opens the Maildir at `root`, makes it when it is missing, and removes what a crash of
    /// this machine's processes left in `tmp`.
    pub(super) fn open(
        root: &Path,
        host: String,
        now: SysTime,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, MaildirError> {
        let root = folder::make_root(root)?;
        let inbox = Folder::open(disk.as_ref(), &root, None)?;
        let tmp = Arc::new(inbox.tmp);
        draft::sweep(&tmp, &host, now)?;
        partial::sweep(disk.as_ref(), &tmp, &host, now)?;
        let (index, folders, making, failed) = Default::default();
        let saver = Saver::for_folder(disk.as_ref(), &tmp);
        Ok(Maildir { root, tmp, host, index, folders, disk, making, saver, failed })
    }

    /// Whether mail may be written: so much space is to stay free on its file system.
    pub(super) fn admit(&self, reserve: u64) -> MapiResult<()> {
        let mut free = self.free()?;
        if free < reserve {
            self.give_up_beginnings()?;
            free = self.free()?;
        }
        if free < reserve {
            let words = format!(
                "the disk of the Maildir is nearly full ({free} octets free, {reserve} kept in \
                 reserve)"
            );
            return Err(MapiError::new(MapiCode::NOT_ENOUGH_DISK, words));
        }
        Ok(())
    }

    fn free(&self) -> Result<u64, MaildirError> {
        let stat = rustix::fs::fstatvfs(&self.root)
            .map_err(|error| MaildirError::new("ask for free space", error))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Starts a file in `tmp`.
    pub(super) fn draft(&self) -> Result<Draft, MaildirError> {
        self.usable()?;
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        Draft::create(Arc::clone(&self.disk), Arc::clone(&self.tmp), &self.host)
    }

    /// Whether a message is there, anywhere and under any flags.
    pub(super) fn holds(&self, token: Token) -> Result<bool, MaildirError> {
        self.usable()?;
        self.index.contains(&self.root, token)
    }

    /// Moves a finished file to its place, durably. A message that is there already stays as it
    /// is, and that counts as success.
    pub(super) fn deliver(&self, mut draft: Draft, place: &Place) -> Result<(), MaildirError> {
        self.usable()?;
        if self.has(place)? {
            draft.discard();
            return Ok(());
        }
        self.heed(draft.sync(place.time))?;
        let part = self.part_of(place)?;
        self.settle(draft, place, &part)?;
        self.heed(part.sync(self.disk.as_ref(), &place.mailbox))?;
        self.index.add(place.token);
        Ok(())
    }

    /// Whether a message that is to be looked for is there.
    fn has(&self, place: &Place) -> Result<bool, MaildirError> {
        match place.look {
            Look::Here => Ok(false),
            Look::Everywhere => self.index.contains(&self.root, place.token),
        }
    }

    /// The part of a folder that a message goes to; what is missing of it is made.
    fn part_of(&self, place: &Place) -> Result<PartOf, MaildirError> {
        let mailbox = names::folder(&place.mailbox);
        let disk = self.disk.as_ref();
        let folder = self.heed(self.folders.open(disk, &self.root, mailbox.as_deref()))?;
        Ok(PartOf { folder, state: place.state })
    }

    /// Moves a file whose octets are durable to its place, where it is durable with the next sync
    /// of the part.
    fn settle(&self, draft: Draft, place: &Place, part: &PartOf) -> Result<(), MaildirError> {
        let mut name = place.token.file_name(place.time, &self.host);
        if place.state == FileState::Seen {
            name.push_str(":2,S");
        }
        match self.disk.rename(draft.at(), At::new(&part.fd, &name)) {
            Ok(()) => draft.moved(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => draft.discard(),
            Err(error) => {
                return Err(MaildirError::new(format!("move {name} to its place"), error));
            }
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), MaildirError> {
        match self.failed.get() {
            None => Ok(()),
            Some(why) => Err(MaildirError::new(
                "an earlier sync failed, start again once the disk is well",
                io::Error::other(why.clone()),
            )),
        }
    }

    /// Stops deliveries after a sync that failed for another reason than a full disk.
    fn heed<T>(&self, done: Result<T, MaildirError>) -> Result<T, MaildirError> {
        if let Err(error) = &done
            && error.of_sync
            && !error.is_full_disk()
        {
            tracing::error!(%error, "the Maildir takes nothing more");
            self.failed.get_or_init(|| error.to_string());
        }
        done
    }
}

#[cfg(test)]
mod power_loss;
#[cfg(test)]
mod tests;
