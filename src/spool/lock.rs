//! One process at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::SpoolError;

/// Holds the spool until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct SpoolLock {
    _file: File,
}

/// How long sled's own lock is waited for once ours is held: only threads that are just ending can
/// still have it.
const SLED_WAIT: Duration = Duration::from_secs(10);

/// Waits at most `wait` for the lock file in `dir` and then for sled's own lock, which a process
/// or a spool that is just ending may hold an instant longer than ours. Blocks the thread.
///
/// # Errors
/// [`SpoolError::Locked`] when the time is over.
pub(super) fn acquire(dir: &Path, wait: Duration) -> Result<SpoolLock, SpoolError> {
    let file = lock(&dir.join("lock"), true, Instant::now() + wait)?;
    let sled = dir.join("db").join("db");
    if sled.exists() {
        // Given back at once: nobody else goes on to this one without ours.
        drop(lock(&sled, false, Instant::now() + SLED_WAIT)?);
    }
    Ok(SpoolLock { _file: file })
}

fn lock(path: &Path, create: bool, until: Instant) -> Result<File, SpoolError> {
    let failed = |error| SpoolError::io(format!("lock {}", path.display()), error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .mode(0o600)
        .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0))
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(failed(error.into())),
    }
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(SpoolError::Locked);
    }
    // A lock cannot be waited for with a deadline, so a thread of its own waits for it. If the
    // time is over first, the thread gives the lock back as soon as it gets it.
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("spool-lock".to_owned())
        .spawn(move || {
            let locked = rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive));
            let _ = sender.send(locked.map(|()| file));
        })
        .map_err(failed)?;
    match receiver.recv_timeout(left) {
        Ok(locked) => locked.map_err(|error| failed(io::Error::from(error))),
        Err(_) => Err(SpoolError::Locked),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = acquire(dir.path(), Duration::ZERO).unwrap();
        let path = dir.path().to_owned();
        let second = std::thread::spawn(move || acquire(&path, Duration::from_secs(60)));
        assert!(matches!(acquire(dir.path(), Duration::from_millis(20)), Err(SpoolError::Locked)));
        assert!(matches!(acquire(dir.path(), Duration::ZERO), Err(SpoolError::Locked)));
        assert!(!second.is_finished());
        drop(first);
        assert!(second.join().unwrap().is_ok());
    }

    #[test]
    fn a_lock_that_came_too_late_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = acquire(dir.path(), Duration::ZERO).unwrap();
        assert!(acquire(dir.path(), Duration::from_millis(10)).is_err());
        drop(first);
        assert!(acquire(dir.path(), Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("lock")).unwrap();
        assert!(matches!(acquire(dir.path(), Duration::ZERO), Err(SpoolError::Io { .. })));
    }
}
