//! The reserve of free space: new mail is refused before the disk is full, because what was
//! accepted needs some room to get on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::SpoolError;

/// Tells how many bytes are free on the file system of a folder.
pub type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// What the space is needed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Outcomes, cursors, removals: always let through, they are small and free space.
    #[default]
    Upkeep,
    /// The way onward of what was accepted: queue rows and bodies. May use half of the reserve,
    /// so that a queue can drain when nothing new is taken.
    Progress,
    /// A new message: must leave the reserve alone.
    Acceptance,
}

/// How much a stored byte may cost on disk until sled has cleaned up behind itself.
const AMPLIFICATION: u64 = 4;

/// Watches the reserve.
pub(super) struct Space {
    dir: PathBuf,
    reserve: u64,
    probe: FreeSpace,
    /// How long an answer of the probe is used.
    lasts: Duration,
    /// The last answer less what was admitted since.
    seen: Mutex<Option<(Instant, u64)>>,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("dir", &self.dir).field("reserve", &self.reserve).finish()
    }
}

impl Space {
    /// `probe` takes the place of asking the file system.
    pub(super) fn new(dir: &Path, reserve: u64, probe: Option<FreeSpace>) -> Space {
        // An injected probe is asked each time: it costs nothing and changes when told to.
        let lasts = if probe.is_some() { Duration::ZERO } else { Duration::from_millis(200) };
        let probe = probe.unwrap_or_else(|| Arc::new(free_space));
        Space { dir: dir.to_owned(), reserve, probe, lasts, seen: Mutex::new(None) }
    }

    /// Whether `bytes` more may be stored.
    pub(super) fn admit(&self, need: Need, bytes: u64) -> Result<(), SpoolError> {
        let reserve = match need {
            Need::Upkeep => return Ok(()),
            Need::Progress => self.reserve / 2,
            Need::Acceptance => self.reserve,
        };
        let cost = bytes.saturating_mul(AMPLIFICATION);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = seen.filter(|(at, _)| at.elapsed() < self.lasts).map(|(_, free)| free);
        // Refused only by a fresh answer, so that freed space counts at once.
        if let Some(free) = recent.filter(|free| free.saturating_sub(bytes) >= reserve) {
            *seen = seen.map(|(at, _)| (at, free.saturating_sub(cost)));
            return Ok(());
        }
        let free = (self.probe)(&self.dir).map_err(|error| {
            SpoolError::io(format!("ask for free space in {}", self.dir.display()), error)
        })?;
        if free.saturating_sub(bytes) < reserve {
            *seen = None;
            return Err(SpoolError::DiskFull { free, reserve });
        }
        *seen = Some((Instant::now(), free.saturating_sub(cost)));
        Ok(())
    }
}

/// Bytes free for this user on the file system of `dir`.
fn free_space(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    fn probed(free: &Arc<AtomicU64>) -> FreeSpace {
        let free = Arc::clone(free);
        Arc::new(move |_: &Path| Ok(free.load(Ordering::SeqCst)))
    }

    #[test]
    fn what_was_accepted_may_use_half_of_the_reserve() {
        let free = Arc::new(AtomicU64::new(1_000));
        let space = Space::new(Path::new("/"), 1_000, Some(probed(&free)));
        assert!(space.admit(Need::Acceptance, 0).is_ok());
        assert!(space.admit(Need::Acceptance, 1).is_err());
        assert!(space.admit(Need::Progress, 500).is_ok());
        assert!(space.admit(Need::Progress, 501).is_err());
        free.store(0, Ordering::SeqCst);
        assert!(space.admit(Need::Upkeep, u64::MAX).is_ok());
        assert!(space.admit(Need::Progress, 0).is_err());
        free.store(2_000, Ordering::SeqCst);
        assert!(space.admit(Need::Acceptance, 1_000).is_ok());
    }

    #[test]
    fn an_answer_lasts_until_it_is_used_up() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let probe: FreeSpace = Arc::new(move |_: &Path| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(10_000)
        });
        let mut space = Space::new(Path::new("/"), 1_000, Some(probe));
        space.lasts = Duration::from_secs(3_600);
        for _ in 0..4 {
            space.admit(Need::Acceptance, 1_000).unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "three admissions used it up");
    }

    #[test]
    fn the_file_system_answers() {
        assert!(free_space(Path::new("/")).unwrap() > 0);
    }
}
