//! Beginnings of large messages: files in `tmp` that outlive a broken connection and a crash.
//!
//! What is known of one stands in its name: whose it is (the token, which is made from account,
//! mailbox, UIDVALIDITY and UID), how large the message was said to be, how many octets of the
//! file are durable, and the BLAKE3 digest of those:
//!
//! ```text
//! postrider.part.<token>.<announced>.<octets>.<digest>.<host>
//! ```
//!
//! The name changes when more is durable, never before; what the file has beyond that is cut off
//! before it is taken up, and octets that are not those of the digest are not taken up at all. So
//! a beginning is never taken for a message, nor one message's for another's. A file that is taken up
//! is locked: nobody else writes it. Where the file system has no locks, nothing is kept.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FlockOperation};
use rustix::io::Errno;

use super::draft::Draft;
use super::names::Token;
use super::{Maildir, MaildirError};
use crate::mapi::SysTime;
use crate::spool::disk::{At, Disk};

/// How names of beginnings begin.
pub(super) const PREFIX: &str = "postrider.part.";

/// Beginnings that are older are of no use any more: their messages have gone, or their mailboxes
/// were rebuilt.
const STALE: Duration = Duration::from_secs(36 * 60 * 60);

/// Most beginnings that are kept; the oldest go first.
const MOST: usize = 8;

/// Octets that may be lost to a crash: after so many more what there is is made durable.
const STRIDE: u64 = 16 << 20;

/// Octets read at a time.
const CHUNK: usize = 256 * 1024;

/// What a draft knows that may outlive this process.
#[derive(Debug)]
pub(super) struct Beginning {
    token: Token,
    announced: u64,
    hasher: blake3::Hasher,
    /// How many octets of it stand in its name as durable.
    noted: u64,
    /// With how many octets that is looked after again.
    next: u64,
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// Ours from now on.
    Ours,
    /// Somebody's who is writing it.
    Theirs,
    /// There are no locks here, as on some network file systems: nobody can know.
    Unknown,
}

impl Lock {
    /// Tries to get a file for ourselves. The lock goes when the file is closed.
    pub(super) fn of(file: &std::fs::File) -> Self {
        Self::judge(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive))
    }

    fn judge(locked: Result<(), Errno>) -> Self {
        match locked {
            Ok(()) => Lock::Ours,
            Err(Errno::WOULDBLOCK | Errno::INTR) => Lock::Theirs,
            Err(_) => Lock::Unknown,
        }
    }
}

/// A message that is taken up where it stopped.
#[derive(Debug)]
pub(in crate::store) struct Resumed {
    /// To be appended to.
    pub(in crate::store) draft: Draft,
    /// How many octets it has.
    pub(in crate::store) octets: u64,
    /// The same file, to be read from its start.
    pub(in crate::store) reader: std::fs::File,
}

/// A beginning by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    token: Token,
    announced: u64,
    octets: u64,
    digest: String,
}

impl Name {
    fn text(&self, host: &str) -> String {
        let Name { token, announced, octets, digest } = self;
        format!("{PREFIX}{}.{announced}.{octets}.{digest}.{host}", token.id())
    }

    fn parse(text: &str, host: &str) -> Option<Self> {
        let fields = text.strip_prefix(PREFIX)?.strip_suffix(host)?.strip_suffix('.')?;
        let mut fields = fields.split('.');
        let name = Name {
            token: Token::parse(fields.next()?.as_bytes())?,
            announced: fields.next()?.parse().ok()?,
            octets: fields.next()?.parse().ok()?,
            digest: fields.next()?.to_owned(),
        };
        fields.next().is_none().then_some(name)
    }
}

fn digest_text(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex().get(..32).unwrap_or_default().to_owned()
}

impl Beginning {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Whether anything of it outlives this process.
    pub(super) fn is_noted(&self) -> bool {
        self.noted > 0
    }

    /// Whether so much came since it was noted that it is to be noted again.
    fn is_due(&self) -> bool {
        self.hasher.count() >= self.next
    }
}

impl Draft {
    /// Makes what was written durable and notes that, once enough has come. Does nothing for a
    /// draft that is no beginning. Where another try of the same message has noted as much and still
    /// has its file, nothing is noted now: a message does not fail for what only saves time.
    ///
    /// # Errors
    /// As of every sync.
    fn note_if(
        &mut self,
        host: &str,
        due: impl Fn(&Beginning) -> bool,
    ) -> Result<(), MaildirError> {
        let Some(beginning) = self.beginning.as_ref().filter(|it| due(it)) else { return Ok(()) };
        let octets = beginning.hasher.count();
        let name = Name {
            token: beginning.token,
            announced: beginning.announced,
            octets,
            digest: digest_text(&beginning.hasher),
        };
        if octets == beginning.noted {
            return Ok(());
        }
        self.sync_octets()?;
        let is_noted = match self.rename(name.text(host)) {
            Err(error) if error.is_taken() => false,
            renamed => renamed.map(|()| true)?,
        };
        if let Some(beginning) = &mut self.beginning {
            beginning.next = octets + STRIDE;
            if is_noted {
                beginning.noted = octets;
            }
        }
        Ok(())
    }
}

impl Maildir {
    /// Starts a message that is to outlive a broken connection, where there are locks.
    pub(in crate::store) fn begin(&self, token: Token, size: u64) -> Result<Draft, MaildirError> {
        let mut draft = self.draft()?;
        if draft.lock() == Lock::Ours {
            let hasher = blake3::Hasher::new();
            let (announced, noted, next) = (size, 0, STRIDE);
            draft.beginning = Some(Beginning { token, announced, hasher, noted, next });
        }
        Ok(draft)
    }

    /// Notes how far a message has come, if that is worth it.
    pub(in crate::store) fn note(&self, draft: &mut Draft) -> Result<(), MaildirError> {
        self.heed(draft.note_if(&self.host, Beginning::is_due))
    }

    /// Gives a message up for now; what has come of it is kept.
    pub(in crate::store) fn keep(&self, mut draft: Draft) -> Result<(), MaildirError> {
        self.usable()?;
        let kept = self.heed(draft.note_if(&self.host, |_| true));
        drop(draft);
        sweep(self.disk.as_ref(), &self.tmp, &self.host, SysTime::EPOCH)?;
        kept
    }

    /// Takes up a message of this size where it stopped. Each piece of what is there is shown to
    /// `look`; when nothing can be taken up, what was shown means nothing.
    pub(in crate::store) fn resume(
        &self,
        token: Token,
        size: u64,
        mut look: impl FnMut(&[u8]),
    ) -> Result<Option<Resumed>, MaildirError> {
        self.usable()?;
        let mut found = beginnings(&self.tmp, &self.host)?;
        found.retain(|(name, _)| name.token == token);
        found.sort_by_key(|(name, _)| name.octets);
        let mut resumed = None;
        while let Some((name, _)) = found.pop() {
            let text = name.text(&self.host);
            if resumed.is_none() && name.announced == size {
                match self.take_up(&name, &text, &mut look) {
                    Taken::Up(taken) => {
                        resumed = Some(*taken);
                        continue;
                    }
                    Taken::InUse => return Ok(None),
                    Taken::Damaged => {}
                }
            }
            // Another state of the same message, or one that is not what it says.
            let _ = self.disk.unlink(At::new(&*self.tmp, &text));
        }
        Ok(resumed)
    }

    fn take_up(&self, name: &Name, text: &str, look: &mut impl FnMut(&[u8])) -> Taken {
        let at = || At::new(&*self.tmp, text);
        let Ok(mut file) = self.disk.open(at()) else { return Taken::Damaged };
        // Whoever had it may have given it another name, or delivered it, before we got the lock.
        if Lock::of(&file) != Lock::Ours || !is_at(&self.tmp, text, &file) {
            return Taken::InUse;
        }
        let (mut left, mut hasher) = (name.octets, blake3::Hasher::new());
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let room = buffer.get_mut(..most).unwrap_or_default();
            if file.read_exact(room).is_err() {
                return Taken::Damaged;
            }
            hasher.update(room);
            look(room);
            left -= u64::try_from(room.len()).unwrap_or(left);
        }
        if digest_text(&hasher) != name.digest || self.disk.cut(&file, name.octets).is_err() {
            return Taken::Damaged;
        }
        // Opened anew: a second handle would share its place in the file.
        let Ok(reader) = self.disk.open(at()) else { return Taken::Damaged };
        let (token, announced, noted) = (name.token, name.announced, name.octets);
        let beginning = Beginning { token, announced, hasher, noted, next: noted + STRIDE };
        let disk = Arc::clone(&self.disk);
        let draft = Draft::taken_up(disk, Arc::clone(&self.tmp), text, file, beginning);
        Taken::Up(Box::new(Resumed { draft, octets: noted, reader }))
    }

    /// Removes every beginning nobody works on: the disk is full.
    pub(in crate::store) fn give_up_beginnings(&self) -> Result<(), MaildirError> {
        for (name, _) in beginnings(&self.tmp, &self.host)? {
            remove(self.disk.as_ref(), &self.tmp, &name.text(&self.host), Why::Room);
        }
        Ok(())
    }
}

/// What became of a beginning that was to be taken up.
enum Taken {
    Up(Box<Resumed>),
    /// Somebody is writing it, or that cannot be known.
    InUse,
    /// It is not what its name says.
    Damaged,
}

/// All beginnings, with the time of their last change in milliseconds.
fn beginnings(tmp: &OwnedFd, host: &str) -> Result<Vec<(Name, u64)>, MaildirError> {
    let failed = |error| MaildirError::new("look through tmp", error);
    let mut found = Vec::new();
    for entry in Dir::read_from(tmp).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(text) = entry.file_name().to_str() else { continue };
        let Some(name) = Name::parse(text, host) else { continue };
        if let Ok(stat) = rustix::fs::statat(tmp, text, AtFlags::SYMLINK_NOFOLLOW) {
            let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
            found.push((name, seconds.saturating_mul(1000)));
        }
    }
    Ok(found)
}

/// Removes beginnings that are too old, and the oldest of too many.
pub(super) fn sweep(
    disk: &dyn Disk,
    tmp: &OwnedFd,
    host: &str,
    now: SysTime,
) -> Result<(), MaildirError> {
    let mut found = beginnings(tmp, host)?;
    found.sort_by_key(|(_, changed)| *changed);
    let mut left = found.len();
    for (name, changed) in found {
        let age = now.saturating_since(SysTime::from_millis(changed));
        let why = match age > STALE {
            true => Why::Age,
            false if left > MOST => Why::Room,
            false => continue,
        };
        remove(disk, tmp, &name.text(host), why);
        left -= 1;
    }
    Ok(())
}

/// Why a beginning is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Nobody writes one for so long.
    Age,
    /// Its octets are wanted.
    Room,
}

impl Why {
    fn suffices(self, lock: Lock) -> bool {
        match lock {
            Lock::Ours => true,
            Lock::Theirs => false,
            Lock::Unknown => self == Why::Age,
        }
    }
}

/// Removes a beginning, unless somebody is writing it.
fn remove(disk: &dyn Disk, tmp: &OwnedFd, text: &str, why: Why) {
    let Ok(file) = disk.open(At::new(tmp, text)) else { return };
    if why.suffices(Lock::of(&file))
        && is_at(tmp, text, &file)
        && disk.unlink(At::new(tmp, text)).is_ok()
    {
        tracing::info!(
            file = text,
            "Removed the beginning of a message that is of no use any more"
        );
    }
}

/// Whether an open file is the one that has this name now.
fn is_at(tmp: &OwnedFd, text: &str, file: &std::fs::File) -> bool {
    let there = rustix::fs::statat(tmp, text, AtFlags::SYMLINK_NOFOLLOW);
    match (there, rustix::fs::fstat(file)) {
        (Ok(one), Ok(two)) => (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::maildir::names::Origin;

    #[test]
    fn names_say_all_and_nothing_else_is_one() {
        let name = Name {
            token: Token::of(Origin::Received, b"key"),
            announced: 200_000_000,
            octets: 16 << 20,
            digest: digest_text(&blake3::Hasher::new()),
        };
        let text = name.text("box.example.org");
        assert_eq!(Name::parse(&text, "box.example.org"), Some(name));
        assert!(text.len() < 200, "{text}");
        for other in
            ["postrider.12.01J.box.example.org", text.replace("part", "12").as_str(), "x", PREFIX]
        {
            assert_eq!(Name::parse(other, "box.example.org"), None, "{other}");
        }
        assert_eq!(Name::parse(&text, "other"), None);
        assert_eq!(Name::parse(&format!("{text}.box.example.org"), "box.example.org"), None);
    }
    #[test]
    fn without_locks_only_age_removes_a_beginning() {
        let lock = Lock::judge;
        assert_eq!(lock(Ok(())), Lock::Ours);
        assert_eq!(lock(Err(Errno::AGAIN)), Lock::Theirs);
        for errno in [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL] {
            assert_eq!(lock(Err(errno)), Lock::Unknown);
        }
        let suffices = |lock| (Why::Age.suffices(lock), Why::Room.suffices(lock));
        assert_eq!(suffices(Lock::Ours), (true, true));
        assert_eq!(suffices(Lock::Theirs), (false, false));
        assert_eq!(suffices(Lock::Unknown), (true, false));
    }
}
