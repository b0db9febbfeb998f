//! Which messages of ours the Maildir has, wherever other programs have moved them.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustix::fd::OwnedFd;
use rustix::fs::{Dir, FileType};

use super::MaildirError;
use super::folder::open_dir;
use super::names::Token;

/// Read from the folders when it is first asked, kept up from then on: what this process
/// delivers is added, and what others deliver has no token of ours.
#[derive(Debug, Default)]
pub(super) struct Index {
    tokens: Mutex<Option<HashSet<Token>>>,
}

impl Index {
    /// Whether a message with this token is in any folder, or was since this process looked.
    pub(super) fn contains(&self, root: &OwnedFd, token: Token) -> Result<bool, MaildirError> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match tokens.as_ref() {
            Some(known) => known,
            None => tokens.insert(read(root)?),
        };
        Ok(known.contains(&token))
    }

    /// Notes a delivery.
    pub(super) fn add(&self, token: Token) {
        if let Some(tokens) = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            tokens.insert(token);
        }
    }
}

fn read(root: &OwnedFd) -> Result<HashSet<Token>, MaildirError> {
    let mut tokens = HashSet::new();
    read_folder(root, &mut tokens)?;
    let failed = |error| MaildirError::new("list the folders", error);
    for entry in Dir::read_from(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let folder = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        if !folder || !name.starts_with('.') || matches!(name, "." | "..") {
            continue;
        }
        // Gone meanwhile, or no folder after all.
        if let Ok(folder) = open_dir(root, name) {
            read_folder(&folder, &mut tokens)?;
        }
    }
    Ok(tokens)
}

fn read_folder(folder: &OwnedFd, tokens: &mut HashSet<Token>) -> Result<(), MaildirError> {
    let failed = |error| MaildirError::new("list a folder", error);
    // `new` first: what moves from it to `cur` meanwhile is then met at least once.
    for part in ["new", "cur"] {
        let Ok(part) = open_dir(folder, part) else { continue };
        for entry in Dir::read_from(&part).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            tokens.extend(Token::in_name(entry.file_name().to_bytes()));
        }
        // What an earlier process moved here and did not live to sync.
        rustix::fs::fsync(&part).map_err(failed)?;
    }
    Ok(())
}
