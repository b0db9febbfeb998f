//! A file in `tmp` on its way.

use std::sync::Arc;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Timespec, Timestamps};
use ulid::Ulid;

use super::MaildirError;
use super::partial::{Beginning, Lock};
use crate::mapi::SysTime;
use crate::spool::disk::{At, Disk};

/// How names of ours in `tmp` begin.
const PREFIX: &str = "postrider.";

/// Older files of ours are leftovers whoever made them: no message takes that long.
const STALE: Duration = Duration::from_secs(36 * 60 * 60);

/// A message that is being written. Dropping it removes it; of a beginning (see
/// [`super::partial`]) stays what is noted.
#[derive(Debug)]
pub(in crate::store) struct Draft {
    disk: Arc<dyn Disk>,
    tmp: Arc<OwnedFd>,
    name: String,
    file: std::fs::File,
    there: bool,
    /// What makes it possible to take it up later.
    pub(super) beginning: Option<Beginning>,
}

impl Draft {
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        tmp: Arc<OwnedFd>,
        host: &str,
    ) -> Result<Self, MaildirError> {
        let unique = Ulid::from_parts(u64::from(fastrand::u32(..)), fastrand::u128(..));
        let name = format!("{PREFIX}{}.{unique}.{host}", std::process::id());
        let file = disk
            .create(At::new(&*tmp, &name))
            .map_err(|error| MaildirError::new(format!("make tmp/{name}"), error))?;
        Ok(Draft { disk, tmp, name, file, there: true, beginning: None })
    }

    /// A draft that is taken up where it stopped.
    pub(super) fn taken_up(
        disk: Arc<dyn Disk>,
        tmp: Arc<OwnedFd>,
        name: &str,
        file: std::fs::File,
        beginning: Beginning,
    ) -> Self {
        Draft { disk, tmp, name: name.to_owned(), file, there: true, beginning: Some(beginning) }
    }

    /// Keeps others from taking it up while this process has it.
    pub(super) fn lock(&self) -> Lock {
        Lock::of(&self.file)
    }

    /// Makes room for octets that are to be made durable by a sync of the file system.
    pub(super) fn make_room(&self, octets: usize) -> Result<(), MaildirError> {
        self.disk
            .make_room(&self.file, octets)
            .map_err(|error| MaildirError::new(format!("make room for tmp/{}", self.name), error))
    }

    /// Appends octets.
    pub(in crate::store) fn write(&mut self, bytes: &[u8]) -> Result<(), MaildirError> {
        self.disk
            .write(&self.file, bytes)
            .map_err(|error| MaildirError::new(format!("write tmp/{}", self.name), error))?;
        self.beginning.iter_mut().for_each(|beginning| beginning.take(bytes));
        Ok(())
    }

    /// The same file from its start, to be read.
    pub(in crate::store) fn reopen(&self) -> Result<std::fs::File, MaildirError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&*self.tmp, &self.name, flags, Mode::empty())
            .map(std::fs::File::from)
            .map_err(|error| MaildirError::new(format!("read tmp/{}", self.name), error))
    }

    /// Gives the file its time.
    pub(super) fn stamp(&self, time: SysTime) -> Result<(), MaildirError> {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
        let stamp = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: stamp, last_modification: stamp };
        rustix::fs::futimens(&self.file, &times)
            .map_err(|error| MaildirError::new(format!("date tmp/{}", self.name), error))
    }

    /// Makes the octets durable and gives the file its time.
    pub(super) fn sync(&mut self, time: SysTime) -> Result<(), MaildirError> {
        self.stamp(time)?;
        self.sync_octets()
    }

    /// Where it is.
    pub(super) fn at(&self) -> At<'_> {
        At::new(&*self.tmp, &self.name)
    }

    /// Makes the octets durable.
    pub(super) fn sync_octets(&self) -> Result<(), MaildirError> {
        self.disk
            .sync_file(&self.file)
            .map_err(|error| MaildirError::sync(format!("sync tmp/{}", self.name), error))
    }

    /// Gives it another name in `tmp`, durably.
    pub(super) fn rename(&mut self, name: String) -> Result<(), MaildirError> {
        let what = format!("note tmp/{name}");
        self.disk
            .rename(self.at(), At::new(&*self.tmp, &name))
            .map_err(|error| MaildirError::new(what.clone(), error))?;
        self.name = name;
        self.disk.sync_folder(self.tmp.as_fd()).map_err(|error| MaildirError::sync(what, error))
    }

    /// Whether it may be taken up later.
    pub(in crate::store) fn is_beginning(&self) -> bool {
        self.beginning.is_some()
    }

    /// Removes it, also what is noted of it.
    pub(in crate::store) fn discard(mut self) {
        self.beginning = None;
    }

    /// It has found its place.
    pub(super) fn moved(mut self) {
        self.there = false;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.there && !self.beginning.as_ref().is_some_and(Beginning::is_noted) {
            // Should this fail, the next sweep removes it.
            let _ = self.disk.unlink(self.at());
        }
    }
}

/// Removes files of ours whose process is gone.
pub(super) fn sweep(tmp: &OwnedFd, host: &str, now: SysTime) -> Result<(), MaildirError> {
    let failed = |error| MaildirError::new("look through tmp", error);
    let suffix = format!(".{host}");
    for entry in Dir::read_from(tmp).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with(super::partial::PREFIX) {
            continue;
        }
        let ours = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(&suffix));
        let Some((process, _)) = ours.and_then(|ours| ours.split_once('.')) else { continue };
        if (!is_alive(process) || is_stale(tmp, name, now))
            && rustix::fs::unlinkat(tmp, name, AtFlags::empty()).is_ok()
        {
            tracing::info!(file = name, "Removed a leftover from the Maildir's tmp folder");
        }
    }
    Ok(())
}

/// Whether a process with this number exists. Our own has just begun and has made nothing yet,
/// unless it opens the same Maildir twice.
fn is_alive(process: &str) -> bool {
    let process = process.parse().ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| {
        // Not permitted to ask means that it is there.
        rustix::process::test_kill_process(process) != Err(rustix::io::Errno::SRCH)
    })
}

fn is_stale(tmp: &OwnedFd, name: &str, now: SysTime) -> bool {
    rustix::fs::statat(tmp, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        let changed = u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1000);
        now.saturating_since(SysTime::from_millis(changed)) > STALE
    })
}
