//! The journal: files to which each group of rows is appended before it counts. They are what
//! makes a commit durable at the price of one write and one sync; the tree takes over the rows
//! later and many at a time (`fold`), and then the file goes.
//!
//! A file is begun with the first group that needs one, so a spool that is only read has none, and
//! neither has one that was closed.

mod frame;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};

use super::SpoolError;
use super::bodies::make_private_dir;
use super::disk::{At, Disk};
pub(super) use frame::Contents;
use frame::FileId;

/// The folder of journal files in that of the spool.
pub(super) const FOLDER: &str = "journal";

/// Most of the buffer that is kept between two groups.
const KEPT: usize = 256 * 1024;

/// The folder of journal files.
#[derive(Debug)]
pub(super) struct JournalFolder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    folder: File,
}

impl JournalFolder {
    /// Opens the folder, which is made when it is not there.
    pub(super) fn open(spool: &Path, disk: Arc<dyn Disk>) -> Result<JournalFolder, SpoolError> {
        let path = spool.join(FOLDER);
        make_private_dir(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|error| SpoolError::io(format!("open {}", path.display()), error.into()))?;
        Ok(JournalFolder { disk, path, folder: folder.into() })
    }

    fn failed(&self, what: &str, number: u64, error: std::io::Error) -> SpoolError {
        SpoolError::io(format!("{what} {}", self.path.join(name(number)).display()), error)
    }

    /// The numbers of the files that are there, in their order.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, SpoolError> {
        let failed = |error| SpoolError::io(format!("list {}", self.path.display()), error);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let found = entry.map_err(failed)?.file_name();
            let number = found.to_str().and_then(|found| u64::from_str_radix(found, 16).ok());
            // What is no name of ours is nothing of ours.
            numbers.extend(number.filter(|number| found.as_os_str() == name(*number).as_str()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What a file holds.
    pub(super) fn read(&self, number: u64) -> Result<(Contents, Vec<u8>), SpoolError> {
        let mut bytes = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, name(number), flags, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|file| File::from(file).read_to_end(&mut bytes))
            .map_err(|error| self.failed("read", number, error))?;
        Ok((frame::read(&bytes, number), bytes))
    }

    /// Removes a file whose rows the tree has. That need not be durable: the tree knows up to
    /// which number it has them.
    pub(super) fn remove(&self, number: u64) -> Result<(), SpoolError> {
        self.disk
            .unlink(At::new(&self.folder, &name(number)))
            .map_err(|error| self.failed("remove", number, error))
    }
}

/// What a file with these octets holds.
#[cfg(test)]
pub(super) fn contents(bytes: &[u8], number: u64) -> Contents {
    frame::read(bytes, number)
}

fn name(number: u64) -> String {
    format!("{number:016x}")
}

/// The file that groups are appended to.
#[derive(Debug)]
pub(super) struct Journal {
    folder: Arc<JournalFolder>,
    /// Of the file, or of the one that will be begun.
    id: FileId,
    file: Option<File>,
    frames: u32,
    octets: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Will begin with file `number`.
    pub(super) fn new(folder: Arc<JournalFolder>, number: u64) -> Journal {
        let salt = fastrand::u64(..).to_be_bytes();
        let id = FileId { number, salt };
        Journal { folder, id, file: None, frames: 0, octets: 0, buffer: Vec::new() }
    }

    /// The octets of the file so far.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Appends a group. After an error nothing may be appended any more.
    pub(super) fn append<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), SpoolError> {
        self.buffer.clear();
        if self.file.is_none() {
            self.buffer.extend_from_slice(&frame::head(self.id));
        }
        frame::append(&mut self.buffer, self.id, self.frames, rows)
            .ok_or_else(|| SpoolError::Corrupt("a group is too large".to_owned()))?;
        let folder = &self.folder;
        let failed = |error| folder.failed("write", self.id.number, error);
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let named = name(self.id.number);
                let file = folder.disk.create(At::new(&folder.folder, &named)).map_err(failed)?;
                // The name must be durable before the first group is; its order to the bytes is
                // of no matter.
                folder.disk.sync_folder(folder.folder.as_fd()).map_err(failed)?;
                file
            }
        };
        folder.disk.write(&file, &self.buffer).map_err(failed)?;
        self.file = Some(file);
        self.frames = self.frames.saturating_add(1);
        self.octets = self.octets.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(0));
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Makes durable what was appended.
    pub(super) fn sync(&self) -> Result<(), SpoolError> {
        let Some(file) = &self.file else { return Ok(()) };
        let failed = |error| self.folder.failed("sync", self.id.number, error);
        self.folder.disk.sync_file(file).map_err(failed)
    }

    /// Ends the file and returns its number; the next group begins another. `None` when there is
    /// none.
    pub(super) fn roll(&mut self) -> Option<u64> {
        self.file.take()?;
        let ended = self.id.number;
        *self = Journal::new(Arc::clone(&self.folder), ended.saturating_add(1));
        Some(ended)
    }
}
