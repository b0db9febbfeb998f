//! What the process does for itself before it reads a secret.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Whatever the caller's umask: files that libraries make, such as those of sled, are the
/// owner's alone. Commands that are run, such as those for passwords, inherit it.
pub(crate) fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Keeps passwords out of core files, and from other processes of the same user that would look
/// at the memory or the environment. Where the system refuses, the program works all the same.
pub(crate) fn keep_memory_private() {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, nothing);
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(hidden) {
        tracing::debug!(%error, "The memory of this process cannot be kept private");
    }
}
