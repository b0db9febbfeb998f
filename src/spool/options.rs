//! How a spool is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::FreeSpace;
use super::disk::{Disk, RealDisk};
use super::store::Fault;

/// How a [`SledSpool`](super::SledSpool) is opened.
#[derive(Clone)]
pub struct SpoolOptions {
    /// How long another process that uses the spool is waited for. Default: 10 s.
    pub lock_wait: Duration,
    /// Bytes of free space that new messages must leave alone; the way onward of what was accepted
    /// may use half of them. Default: 64 MiB.
    pub reserve: u64,
    /// Bytes of the tree that are kept in memory. Default: 8 MiB.
    pub cache: u64,
    /// Bytes of rows that are held in memory, durable in the journal, before the tree takes them
    /// over; twice as many for each of two layers at most. Default: 4 MiB.
    pub fold_at: u64,
    /// Asked for free space instead of the file system; for tests. Default: `None`.
    pub free_space: Option<FreeSpace>,
    /// Asked before each step of a commit, makes it fail at will; for tests. Default: `None`.
    pub fault: Option<Fault>,
    /// Where body files and the journal are written; another one is for tests. Default: the file system.
    pub disk: Arc<dyn Disk>,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        SpoolOptions {
            lock_wait: Duration::from_secs(10),
            reserve: 64 * 1024 * 1024,
            cache: 8 * 1024 * 1024,
            fold_at: 4 * 1024 * 1024,
            free_space: None,
            fault: None,
            disk: Arc::new(RealDisk),
        }
    }
}

impl fmt::Debug for SpoolOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolOptions")
            .field("lock_wait", &self.lock_wait)
            .field("reserve", &self.reserve)
            .field("cache", &self.cache)
            .field("fold_at", &self.fold_at)
            .finish_non_exhaustive()
    }
}
