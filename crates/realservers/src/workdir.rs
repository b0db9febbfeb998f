//! The temporary folder of one server, and the system accounts that own things in it.

use crate::Error;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A socket path may have 107 bytes; the longest one below a folder of ours takes about 40.
const LONGEST_PARENT: usize = 60;

/// A temporary folder, removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: TempDir,
}

impl WorkDir {
    /// Makes a folder that a server's unprivileged processes can enter.
    ///
    /// # Errors
    /// [`Error::File`] when no temporary folder can be made.
    pub(crate) fn new() -> Result<Self, Error> {
        let parent = parent();
        let dir = tempfile::Builder::new()
            .prefix("realservers-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(&parent)
            .map_err(Error::file(&parent))?;
        // The umask has narrowed the mode given above.
        set_mode(dir.path(), 0o755)?;
        Ok(Self { dir })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The random part of the folder's name: servers say it in their greeting, so that a probe knows
    /// it talks to this server and not to another one.
    pub(crate) fn token(&self) -> String {
        let name = self.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Writes a file, readable by everyone.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, Error> {
        let path = self.path().join(name);
        fs::write(&path, content).map_err(Error::file(&path))?;
        set_mode(&path, 0o644)?;
        Ok(path)
    }

    /// Makes a folder with exactly this mode, belonging to `owner`.
    pub(crate) fn folder(&self, name: &str, mode: u32, owner: Owner) -> Result<PathBuf, Error> {
        let path = self.path().join(name);
        fs::create_dir_all(&path).map_err(Error::file(&path))?;
        if let Owner::Account { uid, gid } = owner {
            chown(&path, Some(uid), gid).map_err(Error::file(&path))?;
        }
        set_mode(&path, mode)?;
        Ok(path)
    }
}

/// Whom a folder belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    /// The user who runs the test.
    Myself,
    /// Another account; the group stays as it is when `gid` is `None`.
    Account {
        /// Number of the user.
        uid: u32,
        /// Number of the group.
        gid: Option<u32>,
    },
}

/// Sets a file's or folder's mode.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::file(path))
}

/// `$TMPDIR` unless its path is too long for sockets or closed to the servers' own users.
fn parent() -> PathBuf {
    let wanted = std::env::temp_dir();
    let short = wanted.as_os_str().len() <= LONGEST_PARENT;
    let open = wanted.ancestors().all(|folder| {
        fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    });
    if wanted.is_absolute() && short && open { wanted } else { PathBuf::from("/tmp") }
}

/// A user of this machine, as `/etc/passwd` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The account with this name.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::find(|account| account.name == name)
    }

    /// The account that runs this process.
    pub(crate) fn mine() -> Option<Self> {
        let uid = rustix::process::geteuid().as_raw();
        Self::find(|account| account.uid == uid)
    }

    fn find(wanted: impl Fn(&Self) -> bool) -> Option<Self> {
        let text = fs::read_to_string("/etc/passwd").ok()?;
        text.lines().filter_map(Self::parse).find(wanted)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid })
    }
}

/// Number and name of a group as `/etc/group` has it.
pub(crate) fn group(wanted: impl Fn(&str, u32) -> bool) -> Option<(String, u32)> {
    let text = fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        wanted(name, gid).then(|| (name.to_owned(), gid))
    })
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_open_to_other_users_and_gone_after_drop() {
        let work = WorkDir::new().unwrap();
        let path = work.path().to_owned();
        let inner = work.folder("inner", 0o710, Owner::Myself).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&inner)), (0o755, 0o710));
        assert!(work.token().starts_with("realservers-"));
        drop(work);
        assert!(!path.exists());
    }

    #[test]
    fn accounts_are_read_from_the_systems_table() {
        let root = Account::by_name("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(group(|name, _| name == "root").unwrap().1, 0);
        assert_eq!(Account::parse("broken line"), None);
    }
}
