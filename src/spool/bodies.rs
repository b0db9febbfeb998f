//! Body files: how they come to be and how they go.
//!
//! A body is written to `staging/` under a random name. When it is complete, the file gets the
//! name of its digest in `staging/` and a second one in `bodies/xx/`; then file and folder are
//! synced. Only now may a row name it. After the commit the name in `staging/` goes. So a name in
//! `staging/` says at the next open that somebody was not finished here, and rows `gone/` say
//! which files were to be unlinked: what a crash leaves is found without walking `bodies/`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::body_row::file_name;
use super::{BodyId, SpoolError};

/// The folders of body files.
#[derive(Debug)]
pub(super) struct BodyFolder {
    bodies: PathBuf,
    staging: PathBuf,
    /// Which of the 256 folders of `bodies/` are known to be there, durably.
    made: Mutex<[bool; 256]>,
}

/// A complete body file, synced, that no row names yet; dropping it removes it.
#[derive(Debug)]
pub(super) struct StagedFile {
    /// The number in its name.
    pub(super) number: u64,
    path: PathBuf,
    marker: PathBuf,
    keep: bool,
}

impl StagedFile {
    /// Leaves the file where it is, because a committed row names it (or may name it); returns
    /// the name in `staging/` that is to go.
    pub(super) fn keep(mut self) -> PathBuf {
        self.keep = true;
        std::mem::take(&mut self.marker)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // The marker goes last: what cannot be removed now is found by it at the next open.
        if !self.keep && remove_if_there(&self.path).is_ok() {
            let _ = std::fs::remove_file(&self.marker);
        }
    }
}

/// A file in `staging/` that is being written; dropping it removes it.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    complete: bool,
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.complete {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl PartFile {
    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        io::Write::write_all(&mut self.file, bytes)
            .map_err(|error| io_at("write", &self.path, error))
    }
}

impl BodyFolder {
    /// The folders below `dir`, made where they are missing.
    pub(super) fn open(dir: &Path) -> Result<BodyFolder, SpoolError> {
        let (bodies, staging) = (dir.join("bodies"), dir.join("staging"));
        make_private_dir(&bodies)?;
        make_private_dir(&staging)?;
        sync_dir(dir)?;
        let mut made = [false; 256];
        for name in list(&bodies)? {
            // What is no folder is refused when it is needed.
            if !std::fs::symlink_metadata(bodies.join(&name)).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            let made =
                u8::from_str_radix(&name, 16).ok().and_then(|byte| made.get_mut(usize::from(byte)));
            made.into_iter().for_each(|made| *made = true);
        }
        sync_dir(&bodies)?;
        Ok(BodyFolder { bodies, staging, made: Mutex::new(made) })
    }

    /// Starts a file.
    pub(super) fn begin(&self) -> Result<PartFile, SpoolError> {
        let path = self.staging.join(format!("{:016x}.part", fastrand::u64(..)));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(|error| io_at("create", &path, error))?;
        Ok(PartFile { file, path, complete: false })
    }

    /// Gives a complete file its name and makes both durable. Blocks on the disk.
    pub(super) fn finish(
        &self,
        mut part: PartFile,
        body: BodyId,
    ) -> Result<StagedFile, SpoolError> {
        let number = fastrand::u64(..);
        let name = file_name(body, number);
        let marker = self.staging.join(&name);
        std::fs::rename(&part.path, &marker).map_err(|error| io_at("rename", &part.path, error))?;
        part.path.clone_from(&marker);
        let folder = self.folder(body);
        self.make_folder(body, &folder)?;
        let path = folder.join(&name);
        std::fs::hard_link(&marker, &path).map_err(|error| io_at("link", &path, error))?;
        part.complete = true;
        // From here on dropping this removes both names.
        let staged = StagedFile { number, path, marker, keep: false };
        // Linked first, so that one commit of the file system's journal may cover both.
        part.file.sync_all().map_err(|error| io_at("sync", &staged.path, error))?;
        sync_dir(&folder)?;
        Ok(staged)
    }

    fn folder(&self, body: BodyId) -> PathBuf {
        self.bodies.join(format!("{:02x}", body.first_byte()))
    }

    /// Makes sure that a folder of `bodies/` is there and survives a power loss.
    fn make_folder(&self, body: BodyId, folder: &Path) -> Result<(), SpoolError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match made.get_mut(usize::from(body.first_byte())) {
            Some(made) if !*made => {
                make_private_dir(folder)?;
                sync_dir(&self.bodies)?;
                *made = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The path of a body file.
    pub(super) fn path(&self, body: BodyId, number: u64) -> PathBuf {
        self.folder(body).join(file_name(body, number))
    }

    /// Opens a body file for reading.
    pub(super) fn open_file(&self, body: BodyId, number: u64) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(no_follow()).open(self.path(body, number))
    }

    /// Unlinks a body file and returns its folder, to be synced. One that is gone already is well.
    pub(super) fn unlink(&self, body: BodyId, number: u64) -> Result<PathBuf, SpoolError> {
        let path = self.path(body, number);
        remove_if_there(&path)?;
        Ok(self.folder(body))
    }

    /// Names in `staging/`.
    pub(super) fn staged(&self) -> Result<Vec<String>, SpoolError> {
        list(&self.staging)
    }

    /// Removes a name from `staging/`.
    pub(super) fn unstage(&self, name: &str) -> Result<(), SpoolError> {
        remove_if_there(&self.staging.join(name))
    }
}

/// Removes a file; one that is gone already is well.
pub(super) fn remove_if_there(path: &Path) -> Result<(), SpoolError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes the entries of a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), SpoolError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| io_at("sync", dir, error))
}

/// A folder that only its owner may enter, made with the folders above it.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), SpoolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| std::fs::symlink_metadata(dir))
        .and_then(|found| {
            if found.file_type().is_symlink() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "is a symbolic link"));
            }
            match found.permissions().mode() & 0o077 {
                0 => Ok(()),
                _ => std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)),
            }
        })
        .map_err(|error| io_at("make folder", dir, error))
}

/// The names in a folder; those that are not UTF-8 are not ours.
fn list(dir: &Path) -> Result<Vec<String>, SpoolError> {
    let entries = std::fs::read_dir(dir).map_err(|error| io_at("list", dir, error))?;
    entries
        .filter_map(|entry| match entry {
            Ok(entry) => entry.file_name().into_string().ok().map(Ok),
            Err(error) => Some(Err(io_at("list", dir, error))),
        })
        .collect()
}

fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

fn io_at(what: &str, path: &Path, error: io::Error) -> SpoolError {
    SpoolError::io(format!("{what} {}", path.display()), error)
}
