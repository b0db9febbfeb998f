//! The few file operations on which it depends that nothing is lost: those by which body files,
//! journal files and the files of the Maildir come to be, get their names and become durable.
//!
//! They go through this narrow trait so that a test can record their order and rebuild what a
//! power loss at any moment may leave behind. [`RealDisk`] is what everybody else uses.

#[cfg(test)]
mod as_real;
mod file_system;
#[cfg(test)]
pub(crate) mod ledger;
#[cfg(test)]
pub(crate) mod power_loss;

#[cfg(test)]
pub(crate) use as_real::as_real_disk;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A name in an open folder.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The folder.
    pub folder: BorrowedFd<'a>,
    /// The name in it.
    pub name: &'a Path,
}

impl<'a> At<'a> {
    /// A name in a folder.
    pub fn new(folder: &'a impl AsFd, name: &'a str) -> Self {
        At { folder: folder.as_fd(), name: Path::new(name) }
    }

    /// An absolute path.
    pub fn path(path: &'a Path) -> Self {
        At { folder: CWD, name: path }
    }
}

/// Where files are written. No operation follows a symbolic link in the last part of a name, and
/// none replaces a file. What it makes is for the owner alone.
///
/// A sync that failed is never tried again: the operating system may have dropped what was to be
/// written and call the next sync a success. Whoever sees one stops.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a file that is not there yet, to be written.
    ///
    /// # Errors
    /// `AlreadyExists`; those of the file system.
    fn create(&self, at: At<'_>) -> io::Result<File>;

    /// Opens a file that was made by [`Disk::create`], to be read and appended to.
    ///
    /// # Errors
    /// `NotFound`; those of the file system.
    fn open(&self, at: At<'_>) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(at.folder, at.name, flags, Mode::empty())?.into())
    }

    /// Leaves a file its first `octets` bytes. Durable with the next sync of the file.
    ///
    /// # Errors
    /// Those of the file system.
    fn cut(&self, file: &File, octets: u64) -> io::Result<()> {
        file.set_len(octets)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Those of the file system; some bytes may have been written then.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes of a file durable. Its name is not.
    ///
    /// # Errors
    /// What was not written yet may be lost.
    fn sync_file(&self, file: &File) -> io::Result<()>;

    /// Makes a folder.
    ///
    /// # Errors
    /// `AlreadyExists`; those of the file system.
    fn make_folder(&self, at: At<'_>) -> io::Result<()>;

    /// Moves a file, never over another.
    ///
    /// # Errors
    /// `AlreadyExists`; those of the file system.
    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// `AlreadyExists`; those of the file system.
    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// `NotFound`; those of the file system.
    fn unlink(&self, at: At<'_>) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// Names that were not written yet may be lost.
    fn sync_folder(&self, folder: BorrowedFd<'_>) -> io::Result<()>;

    /// Whether [`Disk::sync_file_system`] may take the place of a sync for each of many files in this
    /// folder. Default: never.
    fn file_system_sync(&self, folder: BorrowedFd<'_>) -> FileSystemSync {
        let _ = folder;
        FileSystemSync::Never
    }

    /// Gives a new file the room for so many octets, which are then written: where room is found only
    /// while a file is being synced, [`Disk::sync_file_system`] does not tell that there was none.
    /// Default: nothing.
    ///
    /// # Errors
    /// `Unsupported`; those of the file system.
    fn make_room(&self, file: &File, octets: usize) -> io::Result<()> {
        let _ = (file, octets);
        Ok(())
    }

    /// Makes everything durable that was written and made before on the file system of this folder,
    /// by whomever; of files whose room was made. Only where [`Disk::file_system_sync`] does not say
    /// `Never`, and not twice at a time: an error is told once.
    ///
    /// # Errors
    /// As of [`Disk::sync_file`], of any file since the folder was opened or synced so before;
    /// `Unsupported` by default.
    fn sync_file_system(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        let _ = folder;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Told before the tree takes rows over: from here on any of them may be in it.
    fn fold_begins(&self) {}

    /// Told when the tree has all of them, durably.
    fn folded(&self) {}
}

/// Whether all of a file system may be synced for the sake of some files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystemSync {
    /// It is not known to cover what syncs of the files do, and to tell of errors.
    Never,
    /// Much else waits to be written, and would be waited for.
    NotNow,
    /// It may.
    Now,
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, at: At<'_>) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(at.folder, at.name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(file.into())
    }

    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn make_folder(&self, at: At<'_>) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(at.folder, at.name, Mode::RWXU)?)
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(from.folder, from.name, to.folder, to.name, flags) {
            // Not every file system knows how; a second link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                self.link(from, to)?;
                // Should this fail, whoever clears away leftovers removes it.
                let _ = self.unlink(from);
                Ok(())
            }
            renamed => Ok(renamed?),
        }
    }

    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(from.folder, from.name, to.folder, to.name, flags)?)
    }

    fn unlink(&self, at: At<'_>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(at.folder, at.name, AtFlags::empty())?)
    }

    fn sync_folder(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::fs::fsync(folder)?)
    }

    fn file_system_sync(&self, folder: BorrowedFd<'_>) -> FileSystemSync {
        file_system::readiness(folder)
    }

    fn make_room(&self, file: &File, octets: usize) -> io::Result<()> {
        file_system::make_room(file, octets)
    }

    fn sync_file_system(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        file_system::sync(folder)
    }
}
