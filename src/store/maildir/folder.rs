//! The folders of a Maildir, opened step by step so that no symbolic link is followed.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::MaildirError;

/// For the owner alone.
const PRIVATE: Mode = Mode::RWXU;

/// One folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) tmp: OwnedFd,
    pub(super) new: OwnedFd,
    pub(super) cur: OwnedFd,
}

impl Folder {
    /// Opens the folder called `name`, or the root's own, and makes what is missing of it.
    pub(super) fn open(root: &OwnedFd, name: Option<&str>) -> Result<Self, MaildirError> {
        let Some(name) = name else { return Self::parts(root, "the root") };
        let folder = match open_dir(root, name) {
            Err(Errno::NOENT) => {
                let folder = make_dir(root, name)?;
                mark(&folder, name)?;
                folder
            }
            opened => opened.map_err(|error| MaildirError::new(format!("open {name}"), error))?,
        };
        Self::parts(&folder, name)
    }

    fn parts(folder: &OwnedFd, name: &str) -> Result<Self, MaildirError> {
        let part = |part: &str| match open_dir(folder, part) {
            Err(Errno::NOENT) => make_dir(folder, part),
            opened => {
                opened.map_err(|error| MaildirError::new(format!("open {part} of {name}"), error))
            }
        };
        Ok(Folder { tmp: part("tmp")?, new: part("new")?, cur: part("cur")? })
    }
}

/// Opens a folder that is one, and no link to one.
pub(super) fn open_dir(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Makes a folder, durably; one that another process made meanwhile is as good.
fn make_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd, MaildirError> {
    let failed = |error| MaildirError::new(format!("make the folder {name}"), error);
    match rustix::fs::mkdirat(parent, name, PRIVATE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    rustix::fs::fsync(parent).map_err(failed)?;
    open_dir(parent, name).map_err(failed)
}

/// Marks a sub-folder as Maildir++ wants it.
fn mark(folder: &OwnedFd, name: &str) -> Result<(), MaildirError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, "maildirfolder", flags, Mode::RUSR | Mode::WUSR)
        .and_then(|_| rustix::fs::fsync(folder))
        .map_err(|error| MaildirError::new(format!("mark the folder {name}"), error))
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
