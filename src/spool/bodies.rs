//! Body files: how they come to be and how they go.
//!
//! A body is written to `staging/` under a random name. When it is complete, the file gets the
//! name of its digest in `staging/` and a second one in `bodies/xx/`; then file and folder are
//! synced. Only now may a row name it. After the commit the name in `staging/` goes. So a name in
//! `staging/` says at the next open that somebody was not finished here, and rows `gone/` say
//! which files were to be unlinked: what a crash leaves is found without walking `bodies/`.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::body_row::file_name;
use super::disk::{At, Disk};
use super::writer::Bulletin;
use super::{BodyId, SpoolError};

/// The folders of body files.
#[derive(Debug)]
pub(super) struct BodyFolder {
    bodies: PathBuf,
    disk: Arc<dyn Disk>,
    staging: Arc<Staging>,
    bulletin: Arc<Bulletin>,
    /// Which of the 256 folders of `bodies/` are known to be there, durably.
    made: Mutex<[bool; 256]>,
}

/// The folder of what is not finished.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// Names somebody here is responsible for; any other is a leftover.
    live: Mutex<HashSet<String>>,
}

impl Staging {
    fn live(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a name for which nobody is responsible from now on.
    fn remove(&self, name: &str) -> Result<(), SpoolError> {
        let removed = remove_if_there(self.disk.as_ref(), &self.path.join(name));
        self.live().remove(name);
        removed
    }
}

/// A complete body file, synced, that no row names yet; dropping it removes it.
#[derive(Debug)]
pub(super) struct StagedFile {
    /// The number in its name.
    pub(super) number: u64,
    path: PathBuf,
    marker: String,
    staging: Arc<Staging>,
    keep: bool,
}

impl StagedFile {
    /// Leaves the file where it is, because a committed row names it (or may name it); returns
    /// the name in `staging/` that is to go.
    pub(super) fn keep(mut self) -> String {
        self.keep = true;
        std::mem::take(&mut self.marker)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // The marker goes last: what cannot be removed now is found by it at the next open.
        if !self.keep && remove_if_there(self.staging.disk.as_ref(), &self.path).is_ok() {
            let _ = self.staging.remove(&self.marker);
        }
    }
}

/// A file in `staging/` that is being written; dropping it removes it.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    name: String,
    staging: Arc<Staging>,
    complete: bool,
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.staging.remove(&self.name);
        }
    }
}

impl PartFile {
    fn path(&self) -> PathBuf {
        self.staging.path.join(&self.name)
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let written = self.staging.disk.write(&self.file, bytes);
        written.map_err(|error| io_at("write", &self.path(), error))
    }
}

impl BodyFolder {
    /// The folders below `dir`, made where they are missing. A sync that fails is put on the
    /// `bulletin`.
    pub(super) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        bulletin: Arc<Bulletin>,
    ) -> Result<BodyFolder, SpoolError> {
        let (bodies, staging) = (dir.join("bodies"), dir.join("staging"));
        make_private_dir(&bodies)?;
        make_private_dir(&staging)?;
        sync_dir(disk.as_ref(), dir)?;
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
        sync_dir(disk.as_ref(), &bodies)?;
        let staging = Staging { path: staging, disk: Arc::clone(&disk), live: Mutex::default() };
        let (staging, made) = (Arc::new(staging), Mutex::new(made));
        Ok(BodyFolder { bodies, disk, staging, bulletin, made })
    }

    /// Starts a file.
    pub(super) fn begin(&self) -> Result<PartFile, SpoolError> {
        let name = format!("{:016x}.part", fastrand::u64(..));
        let path = self.staging.path.join(&name);
        self.staging.live().insert(name.clone());
        match self.disk.create(At::path(&path)) {
            Ok(file) => {
                Ok(PartFile { file, name, staging: Arc::clone(&self.staging), complete: false })
            }
            Err(error) => {
                self.staging.live().remove(&name);
                Err(io_at("create", &path, error))
            }
        }
    }

    /// Gives a complete file its name and makes both durable. Blocks on the disk.
    ///
    /// # Errors
    /// I/O errors. After a sync that failed for another reason than a full disk, the spool takes
    /// nothing more: what else of the disk's cache is lost cannot be known.
    pub(super) fn finish(
        &self,
        mut part: PartFile,
        body: BodyId,
    ) -> Result<StagedFile, SpoolError> {
        let number = fastrand::u64(..);
        let name = file_name(body, number);
        let marker = self.staging.path.join(&name);
        let from = part.path();
        self.staging.live().insert(name.clone());
        let renamed = self.disk.rename(At::path(&from), At::path(&marker));
        if let Err(error) = renamed {
            self.staging.live().remove(&name);
            return Err(io_at("rename", &from, error));
        }
        self.staging.live().remove(&std::mem::replace(&mut part.name, name.clone()));
        let folder = self.folder(body);
        self.make_folder(body, &folder)?;
        let path = folder.join(&name);
        self.disk
            .link(At::path(&marker), At::path(&path))
            .map_err(|error| io_at("link", &path, error))?;
        part.complete = true;
        // From here on dropping this removes both names.
        let staging = Arc::clone(&self.staging);
        let staged = StagedFile { number, path, marker: name, staging, keep: false };
        // Linked first, so that one commit of the file system's journal may cover both.
        let synced = self.disk.sync_file(&part.file);
        self.heed(synced.map_err(|error| io_at("sync", &staged.path, error)))?;
        self.heed(sync_dir(self.disk.as_ref(), &folder))?;
        Ok(staged)
    }

    /// Stops the spool after a sync that failed.
    fn heed(&self, synced: Result<(), SpoolError>) -> Result<(), SpoolError> {
        if let Err(error) = &synced
            && !error.is_full_disk()
        {
            self.bulletin.fail(error);
        }
        synced
    }

    fn folder(&self, body: BodyId) -> PathBuf {
        self.bodies.join(format!("{:02x}", body.first_byte()))
    }

    /// Makes sure that a folder of `bodies/` is there and survives a power loss.
    fn make_folder(&self, body: BodyId, folder: &Path) -> Result<(), SpoolError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match made.get_mut(usize::from(body.first_byte())) {
            Some(made) if !*made => {
                match self.disk.make_folder(At::path(folder)) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(io_at("make folder", folder, error));
                    }
                    _ => make_private_dir(folder)?,
                }
                self.heed(sync_dir(self.disk.as_ref(), &self.bodies))?;
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
        remove_if_there(self.disk.as_ref(), &path)?;
        Ok(self.folder(body))
    }

    /// Makes the names in a folder of body files durable.
    pub(super) fn sync(&self, folder: &Path) -> Result<(), SpoolError> {
        self.heed(sync_dir(self.disk.as_ref(), folder))
    }

    /// Names in `staging/`.
    pub(super) fn staged(&self) -> Result<Vec<String>, SpoolError> {
        list(&self.staging.path)
    }

    /// Names in `staging/` for which nobody is responsible.
    pub(super) fn leftovers(&self) -> Result<Vec<String>, SpoolError> {
        // Listed first: what is begun meanwhile is not in the list.
        let names = list(&self.staging.path)?;
        let live = self.staging.live();
        Ok(names.into_iter().filter(|name| !live.contains(name)).collect())
    }

    /// Whether a name in `staging/` is there.
    pub(super) fn is_staged(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.staging.path.join(name)).is_ok()
    }

    /// Removes a name from `staging/`.
    pub(super) fn unstage(&self, name: &str) -> Result<(), SpoolError> {
        self.staging.remove(name)
    }

    /// The folders of `bodies/`.
    pub(super) fn folders(&self) -> Result<Vec<PathBuf>, SpoolError> {
        Ok(list(&self.bodies)?.into_iter().map(|name| self.bodies.join(name)).collect())
    }

    /// Names of files in the folder to which a body belongs.
    pub(super) fn names_beside(&self, body: BodyId) -> Result<Vec<String>, SpoolError> {
        match self.folder(body) {
            folder if folder.exists() => list(&folder),
            _ => Ok(Vec::new()),
        }
    }
}

/// Removes a file; one that is gone already is well.
fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), SpoolError> {
    match disk.unlink(At::path(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes the entries of a folder durable.
pub(super) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), SpoolError> {
    File::open(dir)
        .and_then(|dir| disk.sync_folder(dir.as_fd()))
        .map_err(|error| io_at("sync", dir, error))
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
pub(super) fn list(dir: &Path) -> Result<Vec<String>, SpoolError> {
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
