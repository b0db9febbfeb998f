//! What the C library's allocator is told before there are threads.

/// Arenas that all threads share. By itself glibc makes eight for each processor, and each keeps
/// the most that its threads ever needed: a daemon of many threads that lives for months grows.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 2;

/// Blocks of this size and more are given back to the system when they are freed, in octets.
/// By itself glibc raises the limit to the largest block that was freed.
#[cfg(target_env = "gnu")]
const GIVEN_BACK: i32 = 256 * 1024;

/// How much may lie free at the end of a heap before it is given back, in octets. Where the limit
/// above is set, glibc leaves this one at 128 KiB, and a daemon at work would give back and ask
/// again all the time.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 8 * 1024 * 1024;

/// Keeps what the process needs near to what it uses. Does nothing with other C libraries, and
/// leaves alone what `MALLOC_ARENA_MAX` or `GLIBC_TUNABLES` say.
pub(crate) fn keep_small() {
    #[cfg(target_env = "gnu")]
    {
        let is_set = |name: &str| std::env::var_os(name).is_some();
        if is_set("MALLOC_ARENA_MAX") || is_set("GLIBC_TUNABLES") {
            return;
        }
        // SAFETY: takes two numbers and touches the allocator's own settings under its own lock.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
            libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}
