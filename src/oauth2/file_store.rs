//! The tokens of one account in a file that only its owner can read, below the state folder:
//! `tokens/NAME.json` (0600) in a folder of mode 0700.
//!
//! A new file is written and synced beside the old one and takes its place in one step, so that
//! a crash leaves the one or the other. Who changes it holds a lock, because the daemon and a
//! command may both want to renew a token, and a refresh token can be good for one use.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use zeroize::Zeroizing;

use super::Tokens;
use super::tokens::Decision;
use crate::mapi::SysTime;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 256 * 1024;

/// How long another process that renews a token is waited for: longer than a renewal may take.
const LOCK_WAIT: Duration = Duration::from_secs(90);

/// How often the lock is tried.
const LOCK_TRY: Duration = Duration::from_millis(50);

/// Where the tokens of one account are kept. Its methods block the thread.
#[derive(Clone, Debug)]
pub(crate) struct FileStore {
    folder: PathBuf,
    file: PathBuf,
    lock: PathBuf,
}

/// Why tokens cannot be read or kept; never contains one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", .file.display())]
pub(crate) struct StoreError {
    /// The file or folder.
    pub(crate) file: PathBuf,
    /// What is wrong with it, and what to do.
    pub(crate) why: String,
}

/// How an account stands.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// Somebody is signed in.
    SignedIn(Tokens),
    /// The sign-in has ended, for this reason; a token that is still good may be in use.
    Ended(String),
    /// Nobody is signed in.
    SignedOut,
}

impl Standing {
    /// Whether a person has to sign in.
    pub(crate) fn needs_sign_in(&self) -> bool {
        !matches!(self, Standing::SignedIn(_))
    }
}

/// Held while tokens are changed.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

impl FileStore {
    /// The store of the account called `transport`; nothing is touched yet.
    pub(crate) fn new(state_folder: &Path, transport: &str) -> Self {
        let folder = state_folder.join("tokens");
        let name = file_name(transport);
        FileStore {
            file: folder.join(format!("{name}.json")),
            lock: folder.join(format!("{name}.lock")),
            folder,
        }
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError { file: self.file.clone(), why: error.to_string() }
    }

    /// The tokens; `None` when nobody has signed in.
    ///
    /// # Errors
    /// When others can read the file, it is no such file, or it cannot be read.
    pub(crate) fn load(&self) -> Result<Option<Tokens>, StoreError> {
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let opened = OpenOptions::new().read(true).custom_flags(flag_bits(flags)).open(&self.file);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| self.failed(&error))?,
        };
        let fault = |why: &str| StoreError { file: self.file.clone(), why: why.to_owned() };
        let metadata = file.metadata().map_err(|error| self.failed(&error))?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(fault("it is no file with tokens"));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(fault("others can read it; sign in again after removing it"));
        }
        let room = usize::try_from(metadata.len()).unwrap_or(0).saturating_add(1);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| self.failed(&error))?;
        Tokens::read(&bytes).map(Some).map_err(|why| fault(&format!("{why}; sign in again")))
    }

    /// How the account stands at `now`.
    pub(crate) fn standing(&self, now: SysTime) -> Standing {
        match self.load() {
            Err(error) => Standing::Ended(error.to_string()),
            Ok(None) => Standing::SignedOut,
            Ok(Some(tokens)) => match (tokens.ended.clone(), tokens.decide(now, None)) {
                (Some(reason), _) | (None, Decision::SignIn(reason)) => Standing::Ended(reason),
                _ => Standing::SignedIn(tokens),
            },
        }
    }

    /// Keeps tokens: they are on disk when it returns.
    ///
    /// # Errors
    /// When the folder is not private, or of the disk; then what was there before still is.
    pub(crate) fn save(&self, tokens: &Tokens, _lock: &StoreLock) -> Result<(), StoreError> {
        let bytes = tokens.write().map_err(|error| self.failed(&io::Error::other(error)))?;
        let fresh = self.file.with_extension("json.new");
        self.write(&fresh, &bytes)
            .and_then(|()| std::fs::rename(&fresh, &self.file))
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(|error| self.failed(&error))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // What a crash left there may have any mode.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(flag_bits(OFlags::NOFOLLOW))
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Forgets the tokens; `false` when there were none.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) fn remove(&self, _lock: &StoreLock) -> Result<bool, StoreError> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed
                .and_then(|()| File::open(&self.folder)?.sync_all())
                .map(|()| true)
                .map_err(|error| self.failed(&error)),
        }
    }

    /// Waits, a bounded time, until nobody else changes the tokens.
    ///
    /// # Errors
    /// When the time is over, the folder is not private, or of the disk.
    pub(crate) fn lock(&self) -> Result<StoreLock, StoreError> {
        self.lock_within(LOCK_WAIT)
    }

    fn lock_within(&self, wait: Duration) -> Result<StoreLock, StoreError> {
        let failed = |error: io::Error| self.failed(&error);
        self.make_folder()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flag_bits(OFlags::NOFOLLOW))
            .open(&self.lock)
            .map_err(failed)?;
        let until = Instant::now() + wait;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(StoreLock { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(LOCK_TRY);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    fn make_folder(&self) -> Result<(), StoreError> {
        let fault = |why: String| StoreError { file: self.folder.clone(), why };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| fault(error.to_string()))?;
        let metadata =
            std::fs::symlink_metadata(&self.folder).map_err(|error| fault(error.to_string()))?;
        let mine = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || !mine || metadata.mode() & 0o077 != 0 {
            let why = "it must be a folder of yours that nobody else can enter (chmod 700)";
            return Err(fault(why.to_owned()));
        }
        Ok(())
    }
}

fn flag_bits(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

/// A transport's name as the name of a file.
fn file_name(transport: &str) -> String {
    transport
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::{ExposeSecret, SecretString};

    use super::*;
    use crate::mapi::SysTime;

    fn tokens(access: &str) -> Tokens {
        Tokens {
            access: SecretString::from(access),
            expires: None,
            obtained: SysTime::EPOCH,
            refresh: None,
            scope: None,
            ended: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn tokens_are_kept_private_and_replaced_whole() {
        let temp = tempfile::tempdir().unwrap();
        let store = FileStore::new(&temp.path().join("state"), "work/../é");
        assert!(store.load().unwrap().is_none());
        let lock = store.lock().unwrap();
        // Left by a crash, readable for all.
        let left = store.file.with_extension("json.new");
        std::fs::write(&left, "half").unwrap();
        for access in ["first", "second"] {
            store.save(&tokens(access), &lock).unwrap();
            assert_eq!(store.load().unwrap().unwrap().access.expose_secret(), access);
        }
        assert!(!left.exists());
        assert_eq!(store.file.parent(), Some(&*temp.path().join("state/tokens")));
        assert_eq!((mode(&store.file), mode(&store.folder)), (0o600, 0o700));
        assert!(store.remove(&lock).unwrap() && !store.remove(&lock).unwrap());
        assert!(store.load().unwrap().is_none());
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let store = FileStore::new(temp.path(), "work");
        let lock = store.lock().unwrap();
        store.save(&tokens("t0ken"), &lock).unwrap();
        std::fs::set_permissions(&store.file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let why = store.load().unwrap_err().to_string();
        assert!(why.contains("others can read") && !why.contains("t0ken"), "{why}");
        std::fs::write(&store.file, "{\"access_token\":\"t0ken\"").unwrap();
        std::fs::set_permissions(&store.file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let why = store.load().unwrap_err().to_string();
        assert!(why.contains("sign in again") && !why.contains("t0ken"), "{why}");
        drop(lock);
        std::fs::set_permissions(&store.folder, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(store.lock().unwrap_err().why.contains("chmod 700"));
    }

    #[test]
    fn one_changes_them_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let store = FileStore::new(temp.path(), "work");
        let first = store.lock().unwrap();
        assert!(store.lock_within(Duration::ZERO).is_err());
        let other = FileStore::new(temp.path(), "home");
        assert!(other.lock_within(Duration::ZERO).is_ok());
        let waiting = {
            let store = store.clone();
            std::thread::spawn(move || store.lock())
        };
        drop(first);
        assert!(waiting.join().unwrap().is_ok());
    }
}
