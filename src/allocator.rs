//! The process's allocator.
//!
//! On Linux with glibc jemalloc, unless the program is built without the feature of that name: the threads of a daemon
//! at work hand blocks to each other all the time, and glibc's own allocator makes them wait for
//! each other at that or, given more arenas, keeps what each thread ever needed.

#[cfg(all(feature = "jemalloc", target_os = "linux", target_env = "gnu"))]
mod chosen {
    use std::ffi::c_char;

    #[global_allocator]
    static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    /// A text for C that lives as long as the process.
    #[repr(transparent)]
    pub(crate) struct Options(*const c_char);

    // SAFETY: nobody writes to what it points to.
    #[allow(unsafe_code)]
    unsafe impl Sync for Options {}

    /// Few arenas, and what was freed goes back to the system after a second, as soon as something
    /// is allocated then. jemalloc reads it
    /// before the first allocation; `MALLOC_CONF` in the environment comes behind it.
    // SAFETY: a symbol that jemalloc looks for, with the type it has there.
    #[allow(unsafe_code)]
    #[unsafe(export_name = "malloc_conf")]
    pub(crate) static OPTIONS: Options =
        Options(c"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr());

    /// All was said above.
    pub(crate) fn keep_small() {}
}

/// What the C library's allocator is told before there are threads.
#[cfg(not(all(feature = "jemalloc", target_os = "linux", target_env = "gnu")))]
mod chosen {
    /// Arenas that all threads share. By itself glibc makes eight for each processor, and each
    /// keeps the most that its threads ever needed: a daemon of many threads that lives for months
    /// grows.
    #[cfg(target_env = "gnu")]
    const ARENAS: i32 = 2;

    /// Blocks of this size and more are given back to the system when they are freed, in octets.
    /// By itself glibc raises the limit to the largest block that was freed.
    #[cfg(target_env = "gnu")]
    const GIVEN_BACK: i32 = 256 * 1024;

    /// How much may lie free at the end of a heap before it is given back, in octets. Where the
    /// limit above is set, glibc leaves this one at 128 KiB, and a daemon at work would give back
    /// and ask again all the time.
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
            // SAFETY: takes two numbers and touches the allocator's own settings under its own
            // lock.
            #[allow(unsafe_code)]
            unsafe {
                libc::mallopt(libc::M_ARENA_MAX, ARENAS);
                libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
                libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            }
        }
    }
}

pub(crate) use chosen::keep_small;
