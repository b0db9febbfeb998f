//! Syncing a whole file system: where that is as good as a sync of each file, and when it is cheap.

use std::io;

use rustix::fd::BorrowedFd;

use super::FileSystemSync;

#[cfg(target_os = "linux")]
pub(super) use linux::{readiness, sync};

#[cfg(not(target_os = "linux"))]
pub(super) fn readiness(_folder: BorrowedFd<'_>) -> FileSystemSync {
    FileSystemSync::Never
}

#[cfg(not(target_os = "linux"))]
pub(super) fn sync(_folder: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::OnceLock;

    use super::{BorrowedFd, FileSystemSync, io};

    /// The file systems, by their number in `statfs`, whose `sync_fs` writes data, inodes and names:
    /// ext2 to ext4, XFS, Btrfs. Those of networks, stacked ones and those in memory are left out.
    const KNOWN: [u32; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

    /// The first Linux whose `syncfs` tells of errors of writing.
    const TELLS_ERRORS: (u32, u32) = (5, 8);

    /// More than so many octets that wait to be written, anywhere on the machine, are not ours.
    const MOST_WAITING: u64 = 64 << 20;

    /// See [`FileSystemSync`].
    pub(in super::super) fn readiness(folder: BorrowedFd<'_>) -> FileSystemSync {
        let known = rustix::fs::fstatfs(folder)
            .is_ok_and(|found| u32::try_from(found.f_type).is_ok_and(|kind| KNOWN.contains(&kind)));
        if !known || !tells_errors() {
            return FileSystemSync::Never;
        }
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        match waiting(&memory) {
            Some(octets) if octets <= MOST_WAITING => FileSystemSync::Now,
            _ => FileSystemSync::NotNow,
        }
    }

    /// Syncs all of it, and then the folder: ext4 without a journal writes its inodes behind the
    /// last command by which a `syncfs` empties the cache of the device.
    pub(in super::super) fn sync(folder: BorrowedFd<'_>) -> io::Result<()> {
        rustix::fs::syncfs(folder)?;
        Ok(rustix::fs::fsync(folder)?)
    }

    fn tells_errors() -> bool {
        static TELLS: OnceLock<bool> = OnceLock::new();
        *TELLS.get_or_init(|| {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            version(&release).is_some_and(|version| version >= TELLS_ERRORS)
        })
    }

    /// The first two numbers of a release of Linux.
    fn version(release: &str) -> Option<(u32, u32)> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// Octets that wait to be written or are being written, by `/proc/meminfo`.
    fn waiting(memory: &str) -> Option<u64> {
        let kilobytes = |field: &str| -> Option<u64> {
            let line = memory.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        Some((kilobytes("Dirty:")? + kilobytes("Writeback:")?) << 10)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn releases_are_read() {
            for (release, wanted) in [
                ("6.18.44-fc-v669", Some((6, 18))),
                ("5.8.0", Some((5, 8))),
                ("5.7.19-generic", Some((5, 7))),
                ("6.1", Some((6, 1))),
                ("unknown", None),
                ("6", None),
            ] {
                assert_eq!(version(release), wanted, "{release}");
            }
            assert!(version("5.7.19") < Some(TELLS_ERRORS));
            assert!(version("5.10.0") >= Some(TELLS_ERRORS));
        }

        #[test]
        fn what_waits_is_read() {
            let memory = "MemTotal:       24 kB\nDirty:               100 kB\nWriteback:             4 kB\n\
                          WritebackTmp:          7 kB\n";
            assert_eq!(waiting(memory), Some(104 << 10));
            assert_eq!(waiting("MemTotal: 24 kB\nDirty: 100 kB\n"), None);
            assert_eq!(waiting(""), None);
        }
    }
}
