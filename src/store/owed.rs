//! Sent copies that a server is to get: files in a folder of ours, one for each copy, kept until the
//! server has it. They come to be before the message leaves the Outbox and under a name made of its
//! entry id, so that a crash at any moment leaves one copy and not two.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::maildir::{Maildir, Token};
use super::{LocalStore, on};
use crate::mapi::{MapiCode, MapiError, MapiResult, SysTime};
use crate::mime::IncomingHeader;
use crate::spi::{Repetition, SentCopy};

/// Where sent copies go that are not kept in the Maildir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedOptions {
    /// A folder of ours for those on their way.
    pub folder: PathBuf,
    /// What becomes of the copies of each transport; one that is not named keeps them in the
    /// Maildir.
    pub transports: HashMap<String, CopyTo>,
}

/// Where the copies of a transport go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyTo {
    /// To its server.
    Server,
    /// Nowhere: the provider keeps them by itself.
    Nowhere,
}

/// See the module.
pub(super) struct Owed {
    pub(super) maildir: Arc<Maildir>,
    folder: PathBuf,
    transports: HashMap<String, CopyTo>,
    copies: Mutex<Copies>,
    /// By transport, why the last try failed.
    troubles: Mutex<HashMap<String, String>>,
    news: Notify,
}

#[derive(Default)]
struct Copies {
    /// Being kept, and their messages have not left the Outbox.
    kept: HashSet<Token>,
    /// Never offered to the server, and not yet settled either.
    fresh: HashSet<Token>,
}

/// A copy that is owed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwedCopy {
    file: PathBuf,
    token: Option<Token>,
}

impl Owed {
    pub(super) fn new(options: &OwedOptions, maildir: Arc<Maildir>) -> Self {
        Owed {
            maildir,
            folder: options.folder.clone(),
            transports: options.transports.clone(),
            copies: Mutex::default(),
            troubles: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Where copies of that transport go, if not into the Maildir.
    pub(super) fn copies_of(&self, transport: &str) -> Option<CopyTo> {
        self.transports.get(transport).copied()
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy is about to be kept. It may have been stored before when an earlier process got so
    /// far with its message (`is_older`), or this one.
    ///
    /// To be told before its file is there: a copy is offered from then on, also while its message
    /// is still on the way out of the Outbox.
    pub(super) fn keeps(&self, token: Token, is_older: bool) {
        let mut copies = self.copies();
        let is_first = copies.kept.insert(token);
        if is_first && !is_older {
            copies.fresh.insert(token);
        }
    }

    /// The message of a copy has left the Outbox, so that it is not kept again.
    pub(super) fn added(&self, token: Token) {
        self.copies().kept.remove(&token);
        self.news.notify_waiters();
    }

    /// There is no copy to keep after all.
    pub(super) fn forgets(&self, token: Token) {
        let mut copies = self.copies();
        copies.kept.remove(&token);
        copies.fresh.remove(&token);
    }

    /// Whether it may have been stored before; asked right before each try, and the answer is
    /// `First` once.
    fn repetition(&self, token: Option<Token>) -> Repetition {
        match token.is_some_and(|token| self.copies().fresh.remove(&token)) {
            true => Repetition::First,
            false => Repetition::Possible,
        }
    }
}

impl LocalStore {
    /// Whether a server is to get copies of this transport.
    pub(crate) fn owes_copies_of(&self, transport: &str) -> bool {
        let owed = self.owed.as_ref();
        owed.is_some_and(|owed| owed.copies_of(transport) == Some(CopyTo::Server))
    }

    /// Waits until another copy is owed. One that came before the first poll is missed.
    pub(crate) async fn copy_owed(&self) {
        match &self.owed {
            Some(owed) => owed.news.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The copies that the server of a transport is to get, oldest first.
    ///
    /// # Errors
    /// `MAPI_E_DISK_ERROR`.
    pub(crate) async fn owed_copies(&self, transport: &str) -> MapiResult<Vec<OwedCopy>> {
        let Some(owed) = &self.owed else { return Ok(Vec::new()) };
        let folder = owed.folder.join(super::maildir::folder_of(transport)).join("cur");
        let list = move || -> std::io::Result<Vec<OwedCopy>> {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut copies = Vec::new();
            for entry in entries {
                let file = entry?.path();
                let name = file.file_name().unwrap_or_default().as_encoded_bytes();
                copies.push(OwedCopy { token: Token::in_name(name), file });
            }
            // The name begins with the time of the submission, in as many digits for centuries.
            copies.sort_by(|one, other| one.file.cmp(&other.file));
            Ok(copies)
        };
        on(&self.runtime, list).await?.map_err(|error| unreadable(&error))
    }

    /// Notes why the copies of a transport could not be stored, or that they can be.
    pub(crate) fn note_trouble(&self, transport: &str, why: Option<String>) {
        let Some(owed) = &self.owed else { return };
        let mut troubles = owed.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => drop(troubles.insert(transport.to_owned(), why)),
            None => drop(troubles.remove(transport)),
        }
    }

    /// Why the last try to store copies of a transport failed.
    pub(crate) fn trouble_of(&self, transport: &str) -> Option<String> {
        let owed = self.owed.as_ref()?;
        owed.troubles.lock().unwrap_or_else(PoisonError::into_inner).get(transport).cloned()
    }

    /// Opens a copy for storing it.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND` when it is gone; `MAPI_E_DISK_ERROR`.
    pub(crate) async fn open_copy(&self, copy: &OwedCopy) -> MapiResult<SentCopy> {
        use std::io::{Read, Seek};
        let file = copy.file.clone();
        let open = move || -> std::io::Result<(std::fs::File, u64, SysTime, String)> {
            let mut file = std::fs::File::open(&file)?;
            let metadata = file.metadata()?;
            let date = metadata.modified().ok();
            let since = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
            let millis = since.map_or(0, |since| since.as_millis());
            let date = SysTime::from_millis(u64::try_from(millis).unwrap_or(0));
            let mut header = IncomingHeader::default();
            let mut piece = [0; 8192];
            while !header.is_complete() {
                let read = file.read(&mut piece)?;
                if read == 0 {
                    break;
                }
                header.push(piece.get(..read).unwrap_or_default());
            }
            file.rewind()?;
            let props = header.parse().props;
            let message_id = props.text(crate::mapi::tags::INTERNET_MESSAGE_ID).unwrap_or_default();
            Ok((file, metadata.len(), date, message_id.to_owned()))
        };
        let opened = on(&self.runtime, open).await?;
        let (file, size, date, message_id) = opened.map_err(|error| unreadable(&error))?;
        let repetition =
            self.owed.as_ref().map_or(Repetition::Possible, |owed| owed.repetition(copy.token));
        let content = Box::pin(tokio::fs::File::from_std(file));
        Ok(SentCopy { message_id, date, size, content, repetition })
    }

    /// The server has the copy: it is owed no more. Should a crash bring it back, it is looked for
    /// before it is stored again.
    ///
    /// # Errors
    /// `MAPI_E_DISK_ERROR`.
    pub(crate) async fn settle_copy(&self, copy: &OwedCopy) -> MapiResult<()> {
        let file = copy.file.clone();
        let remove = move || -> std::io::Result<()> {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let Some(folder) = file.parent() else { return Ok(()) };
            Ok(rustix::fs::fsync(std::fs::File::open(folder)?.as_fd())?)
        };
        on(&self.runtime, remove).await?.map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &std::io::Error) -> MapiError {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => MapiCode::NOT_FOUND,
        _ => MapiCode::DISK_ERROR,
    };
    MapiError::new(code, format!("the folder of owed sent copies: {error}"))
}

#[cfg(test)]
mod tests;
