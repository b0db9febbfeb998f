//! The threads of a process.

use std::io;
use std::time::Duration;

/// Most threads for what blocks: twice as many as messages come in at once, each of which waits for
/// the disk, so that a look at a name never waits behind them.
const BLOCKING: usize = 128;

/// How long one of them waits for more to do. They take turns, so with a long time every one that
/// was ever needed would be kept for good, with what its stack and its share of the heap have grown
/// to.
const KEPT: Duration = Duration::from_secs(1);

/// The runtime that everything in this process shares.
///
/// # Errors
/// When the system gives no threads or descriptors.
pub(super) fn start() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEPT)
        .build()
}
