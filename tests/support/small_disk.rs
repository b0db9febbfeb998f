//! A file system that a test can fill.

/// A file system of its own, so small that a test can fill it.
pub(crate) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Needs to be root: this test is about a real file system, and says so where it cannot have
    /// one.
    pub(crate) fn mount(at: std::path::PathBuf, megabytes: u32) -> SmallDisk {
        std::fs::create_dir_all(&at).unwrap();
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at)
            .output();
        let mounted = mounted.expect("`mount` can be started");
        assert!(
            mounted.status.success(),
            "a tmpfs cannot be mounted; run this test as root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        SmallDisk(at)
    }

    /// Leaves so many megabytes free.
    pub(crate) fn fill(&self, leaving: u64) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let ballast = vec![1; usize::try_from(free - leaving * 1024 * 1024).unwrap()];
        std::fs::write(self.0.join("ballast"), ballast).unwrap();
    }

    /// All of it is free again.
    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
