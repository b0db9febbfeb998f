//! What a disk of a test leaves to the real one.

/// Inside `impl Disk`: the operations named are those of [`RealDisk`](super::RealDisk).
macro_rules! as_real_disk {
    ($($operation:ident)*) => { $($crate::spool::disk::as_real_disk!(@ $operation);)* };
    (@ create) => {
        fn create(&self, at: $crate::spool::disk::At<'_>) -> std::io::Result<std::fs::File> {
            $crate::spool::disk::RealDisk.create(at)
        }
    };
    (@ write) => {
        fn write(&self, file: &std::fs::File, bytes: &[u8]) -> std::io::Result<()> {
            $crate::spool::disk::RealDisk.write(file, bytes)
        }
    };
    (@ sync_file) => {
        fn sync_file(&self, file: &std::fs::File) -> std::io::Result<()> {
            $crate::spool::disk::RealDisk.sync_file(file)
        }
    };
    (@ make_folder) => {
        fn make_folder(&self, at: $crate::spool::disk::At<'_>) -> std::io::Result<()> {
            $crate::spool::disk::RealDisk.make_folder(at)
        }
    };
    (@ rename) => {
        fn rename(
            &self,
            from: $crate::spool::disk::At<'_>,
            to: $crate::spool::disk::At<'_>,
        ) -> std::io::Result<()> {
            $crate::spool::disk::RealDisk.rename(from, to)
        }
    };
    (@ link) => {
        fn link(
            &self,
            from: $crate::spool::disk::At<'_>,
            to: $crate::spool::disk::At<'_>,
        ) -> std::io::Result<()> {
            $crate::spool::disk::RealDisk.link(from, to)
        }
    };
    (@ unlink) => {
        fn unlink(&self, at: $crate::spool::disk::At<'_>) -> std::io::Result<()> {
            $crate::spool::disk::RealDisk.unlink(at)
        }
    };
    (@ sync_folder) => {
        fn sync_folder(&self, folder: rustix::fd::BorrowedFd<'_>) -> std::io::Result<()> {
            $crate::spool::disk::RealDisk.sync_folder(folder)
        }
    };
}

pub(crate) use as_real_disk;
