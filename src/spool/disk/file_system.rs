//! Syncing a whole file system: where that is as good as a sync of each file, and when it costs little.

use std::fs::File;
use std::io;

use rustix::fd::BorrowedFd;

use super::FileSystemSync;

#[cfg(target_os = "linux")]
pub(super) use linux::{make_room, readiness, sync};

#[cfg(not(target_os = "linux"))]
pub(super) fn readiness(_folder: BorrowedFd<'_>) -> FileSystemSync {
    FileSystemSync::Never
}

#[cfg(not(target_os = "linux"))]
pub(super) fn make_room(_file: &File, _octets: usize) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn sync(_folder: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::OnceLock;

    use rustix::fd::AsFd;
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;

    use super::{BorrowedFd, File, FileSystemSync, io};

    const EXT: u32 = 0xEF53;
    const XFS: u32 = 0x5846_5342;
    const BTRFS: u32 = 0x9123_683E;

    /// The file systems, by their number in `statfs`, whose `sync_fs` writes data, inodes and names:
    /// ext4 (and ext2 and ext3, see [`make_room`]), XFS, Btrfs. Those of networks, stacked ones and
    /// those in memory are left out.
    const KNOWN: [u32; 3] = [EXT, XFS, BTRFS];

    /// The first Linux whose `syncfs` tells of errors of writing.
    const TELLS_ERRORS: (u32, u32) = (5, 8);

    /// More than so many octets that wait to be written, anywhere on the machine, are not ours.
    const MOST_WAITING: u64 = 64 << 20;

    /// See [`FileSystemSync`].
    pub(in super::super) fn readiness(folder: BorrowedFd<'_>) -> FileSystemSync {
        let known = kind(folder).is_some_and(|kind| KNOWN.contains(&kind));
        if !known || !tells_errors() {
            return FileSystemSync::Never;
        }
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        match waiting(&memory) {
            Some(octets) if octets <= MOST_WAITING => FileSystemSync::Now,
            _ => FileSystemSync::NotNow,
        }
    }

    fn kind(file: impl AsFd) -> Option<u32> {
        u32::try_from(rustix::fs::fstatfs(file).ok()?.f_type).ok()
    }

    /// Only ext4 looks for room when it writes and then tells `fsync` alone that there is none; the
    /// others tell both, and Btrfs would not compress what has its room.
    pub(in super::super) fn make_room(file: &File, octets: usize) -> io::Result<()> {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        if octets == 0 || kind(file) != Some(EXT) {
            return Ok(());
        }
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, octets) {
            // Ext2, and files laid out as there.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            made => Ok(made?),
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
    #[allow(clippy::unwrap_used)]
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
        fn what_is_no_disk_is_left_out() {
            let folder = std::fs::File::open("/proc").unwrap();
            assert_eq!(readiness(folder.as_fd()), FileSystemSync::Never);
        }

        #[test]
        fn room_is_no_content() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let file = File::create(&path).unwrap();
            for octets in [0, 10_000] {
                let made = make_room(&file, octets).map_err(|error| error.kind());
                assert!(matches!(made, Ok(()) | Err(io::ErrorKind::Unsupported)), "{made:?}");
            }
            assert_eq!(std::fs::metadata(path).unwrap().len(), 0);
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
