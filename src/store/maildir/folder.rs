//! The folders of a Maildir, opened step by step so that no symbolic link is followed.

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::shared_sync::SharedSync;
use super::{FileState, MaildirError};
use crate::spool::disk::{At, Disk};

/// One folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) tmp: OwnedFd,
    pub(super) new: Part,
    pub(super) cur: Part,
}

/// A part of a folder that holds messages.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) fd: OwnedFd,
    sync: SharedSync,
}

/// The part of a folder that messages in this state are in.
#[derive(Clone, Debug)]
pub(super) struct PartOf {
    pub(super) folder: Arc<Folder>,
    pub(super) state: FileState,
}

impl Deref for PartOf {
    type Target = Part;

    fn deref(&self) -> &Part {
        match self.state {
            FileState::New => &self.folder.new,
            FileState::Seen => &self.folder.cur,
        }
    }
}

impl Part {
    /// Makes what was moved here before durable, together with all who want that.
    pub(super) fn sync(&self, disk: &dyn Disk, mailbox: &str) -> Result<(), MaildirError> {
        self.sync
            .wait(|| disk.sync_folder(self.fd.as_fd()))
            .map_err(|error| MaildirError::sync(format!("sync {mailbox}"), error))
    }
}

/// Folders that are open. Each is looked up by its name before it is used: a user may have moved
/// it and made another one.
#[derive(Debug, Default)]
pub(super) struct OpenFolders(Mutex<HashMap<Option<String>, Arc<Folder>>>);

/// Most folders that are kept open.
const MOST_OPEN: usize = 32;

impl OpenFolders {
    /// The folder called `name`, or the root's own; what is missing of it is made.
    pub(super) fn open(
        &self,
        disk: &dyn Disk,
        root: &OwnedFd,
        name: Option<&str>,
    ) -> Result<Arc<Folder>, MaildirError> {
        let key = name.map(str::to_owned);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = open.get(&key)
            && folder.is_at(root, name)
        {
            return Ok(Arc::clone(folder));
        }
        // Under the lock: who makes a folder syncs it before anybody else takes it for durable.
        let folder = Arc::new(Folder::open(disk, root, name)?);
        if open.len() >= MOST_OPEN {
            open.clear();
        }
        open.insert(key, Arc::clone(&folder));
        Ok(folder)
    }
}

impl Folder {
    /// Opens the folder called `name`, or the root's own, and makes what is missing of it.
    pub(super) fn open(
        disk: &dyn Disk,
        root: &OwnedFd,
        name: Option<&str>,
    ) -> Result<Self, MaildirError> {
        let Some(name) = name else { return Self::parts(disk, root, "the root") };
        let folder = match open_dir(root, name) {
            Err(Errno::NOENT) => {
                let folder = make_dir(disk, root, name)?;
                mark(disk, &folder, name)?;
                folder
            }
            opened => opened.map_err(|error| MaildirError::new(format!("open {name}"), error))?,
        };
        Self::parts(disk, &folder, name)
    }

    fn parts(disk: &dyn Disk, folder: &OwnedFd, name: &str) -> Result<Self, MaildirError> {
        let part = |part: &str| match open_dir(folder, part) {
            Err(Errno::NOENT) => make_dir(disk, folder, part),
            opened => {
                opened.map_err(|error| MaildirError::new(format!("open {part} of {name}"), error))
            }
        };
        let tmp = part("tmp")?;
        let part = |name: &str| -> Result<Part, MaildirError> {
            Ok(Part { fd: part(name)?, sync: SharedSync::default() })
        };
        Ok(Folder { tmp, new: part("new")?, cur: part("cur")? })
    }

    /// Whether this is what has that name now.
    fn is_at(&self, root: &OwnedFd, name: Option<&str>) -> bool {
        let parts = [("tmp", &self.tmp), ("new", &self.new.fd), ("cur", &self.cur.fd)];
        parts.into_iter().all(|(part, open)| {
            let path = name.map_or(part.to_owned(), |name| format!("{name}/{part}"));
            let there = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW);
            let same =
                |one: &Stat, two: &Stat| one.st_dev == two.st_dev && one.st_ino == two.st_ino;
            matches!((there, rustix::fs::fstat(open)), (Ok(one), Ok(two)) if same(&one, &two))
        })
    }
}

/// Opens a folder that is one, and no link to one.
pub(super) fn open_dir(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Makes a folder, durably; one that another process made meanwhile is as good.
fn make_dir(disk: &dyn Disk, parent: &OwnedFd, name: &str) -> Result<OwnedFd, MaildirError> {
    let what = format!("make the folder {name}");
    match disk.make_folder(At::new(parent, name)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(MaildirError::new(what, error));
        }
        _ => {}
    }
    disk.sync_folder(parent.as_fd()).map_err(|error| MaildirError::sync(what.clone(), error))?;
    open_dir(parent, name).map_err(|error| MaildirError::new(what, error))
}

/// Marks a sub-folder as Maildir++ wants it.
fn mark(disk: &dyn Disk, folder: &OwnedFd, name: &str) -> Result<(), MaildirError> {
    let what = format!("mark the folder {name}");
    match disk.create(At::new(folder, "maildirfolder")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(MaildirError::new(what, error));
        }
        _ => {}
    }
    disk.sync_folder(folder.as_fd()).map_err(|error| MaildirError::sync(what, error))
}

/// Opens the root and makes it when it is missing, with every folder above it. The user named
/// it, so links on the way are his.
pub(super) fn make_root(root: &Path) -> Result<OwnedFd, MaildirError> {
    let failed = |error| MaildirError::new(format!("make {}", root.display()), error);
    let missing: Vec<&Path> = root.ancestors().take_while(|path| !path.exists()).collect();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(root).map_err(failed)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = std::fs::File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        parent.sync_all().map_err(failed)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty())
        .map_err(|error| MaildirError::new(format!("open {}", root.display()), error))
}
