//! A disk for tests that writes down what is done, in order, and rebuilds from it what a power
//! loss at any moment may leave.
//!
//! The rules: bytes that were not synced may be there, be gone, be there in part or be zeros. A
//! name that was made or removed since its folder was synced may be there or not, each on its own;
//! but a file that is moved has its old name or its new one, or both. A folder that is not there
//! has nothing in it. What was there when the ledger was opened is durable.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fd::BorrowedFd;

use super::{At, Disk, FileSystemSync, RealDisk};

/// Something that was done.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Create {
        file: usize,
        path: PathBuf,
    },
    Cut {
        file: usize,
        octets: usize,
    },
    Write {
        file: usize,
        bytes: Arc<[u8]>,
    },
    SyncFile {
        file: usize,
    },
    MakeFolder {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    SyncFolder {
        path: PathBuf,
    },
    /// Of all files; names are not relied upon.
    SyncFileSystem,
    FoldBegins,
    Folded,
    /// Something was promised to somebody: the number of the promise.
    Promised(usize),
}

/// A kind of sync that does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgets {
    Nothing,
    SyncFile,
    /// That of files in a folder of this name.
    SyncFileIn(&'static str),
    SyncFolder,
}

type Hook = Box<dyn Fn() + Send>;

/// How many there were, and the number of each.
type Files = (usize, HashMap<(u64, u64), usize>);

/// See the module.
pub(crate) struct Ledger {
    forgets: Forgets,
    events: Mutex<Vec<Event>>,
    /// Files by device and inode, as they were made last.
    files: Mutex<Files>,
    /// Called when the tree has durably taken rows over.
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("forgets", &self.forgets).finish_non_exhaustive()
    }
}

fn path_of(folder: BorrowedFd<'_>, name: &Path) -> PathBuf {
    match name.is_absolute() {
        true => name.to_owned(),
        false => folder_path(folder).join(name),
    }
}

fn folder_path(folder: BorrowedFd<'_>) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap()
}

impl Ledger {
    pub(crate) fn new(forgets: Forgets) -> Arc<Ledger> {
        Arc::new(Ledger {
            forgets,
            events: Mutex::default(),
            files: Mutex::default(),
            hook: Mutex::default(),
        })
    }

    pub(crate) fn on_fold(&self, hook: Hook) {
        *self.hook.lock().unwrap() = Some(hook);
    }

    pub(crate) fn promise(&self, number: usize) {
        self.note(Event::Promised(number));
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn number(&self, file: &File) -> usize {
        let found = file.metadata().unwrap();
        *self.files.lock().unwrap().1.get(&(found.dev(), found.ino())).unwrap()
    }
}

impl Disk for Ledger {
    fn create(&self, at: At<'_>) -> io::Result<File> {
        let made = RealDisk.create(at)?;
        let found = made.metadata()?;
        let mut files = self.files.lock().unwrap();
        files.0 += 1;
        let file = files.0 - 1;
        files.1.insert((found.dev(), found.ino()), file);
        // Under the lock: files are noted in the order of their numbers.
        self.note(Event::Create { file, path: path_of(at.folder, at.name) });
        drop(files);
        Ok(made)
    }

    fn cut(&self, file: &File, octets: u64) -> io::Result<()> {
        RealDisk.cut(file, octets)?;
        let octets = usize::try_from(octets).unwrap();
        self.note(Event::Cut { file: self.number(file), octets });
        Ok(())
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        RealDisk.write(file, bytes)?;
        self.note(Event::Write { file: self.number(file), bytes: bytes.into() });
        Ok(())
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        let file = self.number(file);
        let forgotten = match self.forgets {
            Forgets::SyncFile => true,
            Forgets::SyncFileIn(folder) => self.events().iter().any(|event| {
                matches!(event, Event::Create { file: made, path }
                    if *made == file && path.parent().unwrap().ends_with(folder))
            }),
            Forgets::Nothing | Forgets::SyncFolder => false,
        };
        if !forgotten {
            self.note(Event::SyncFile { file });
        }
        Ok(())
    }

    fn make_folder(&self, at: At<'_>) -> io::Result<()> {
        RealDisk.make_folder(at)?;
        self.note(Event::MakeFolder { path: path_of(at.folder, at.name) });
        Ok(())
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        let (from, to) = (path_of(from.folder, from.name), path_of(to.folder, to.name));
        self.note(Event::Rename { from, to });
        Ok(())
    }

    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        RealDisk.link(from, to)?;
        let (from, to) = (path_of(from.folder, from.name), path_of(to.folder, to.name));
        self.note(Event::Link { from, to });
        Ok(())
    }

    fn unlink(&self, at: At<'_>) -> io::Result<()> {
        RealDisk.unlink(at)?;
        self.note(Event::Unlink { path: path_of(at.folder, at.name) });
        Ok(())
    }

    fn sync_folder(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        if self.forgets != Forgets::SyncFolder {
            self.note(Event::SyncFolder { path: folder_path(folder) });
        }
        Ok(())
    }

    fn file_system_sync(&self, _folder: BorrowedFd<'_>) -> FileSystemSync {
        FileSystemSync::Now
    }

    fn sync_file_system(&self, _folder: BorrowedFd<'_>) -> io::Result<()> {
        if self.forgets != Forgets::SyncFile {
            self.note(Event::SyncFileSystem);
        }
        Ok(())
    }

    fn fold_begins(&self) {
        self.note(Event::FoldBegins);
    }

    fn folded(&self) {
        if let Some(hook) = self.hook.lock().unwrap().as_ref() {
            hook();
        }
        self.note(Event::Folded);
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder,
}

#[derive(Clone, Debug)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
}

/// A change of a name that is not durable; it can be only together with the one it needs.
#[derive(Clone, Debug)]
struct Pending {
    number: usize,
    change: Change,
    needs: Option<usize>,
}

impl Pending {
    fn folder(&self) -> &Path {
        match &self.change {
            Change::Add(path, _) | Change::Remove(path) => path.parent().unwrap(),
        }
    }
}

/// What survives of bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Gone,
    Half,
    Zeros,
    Whole,
}

/// The disk as the ledger knows it, between two events.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Bytes of each file, and how many of them are durable.
    files: Vec<(Vec<u8>, usize)>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Pending>,
    changes: usize,
    made: BTreeSet<PathBuf>,
}

/// What is there after a power loss.
pub(crate) type Remains = BTreeMap<PathBuf, Vec<u8>>;

/// Up to how many pending changes all their combinations are tried.
const ALL_COMBINATIONS: usize = 6;

impl Replay {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create { file, path } => {
                assert_eq!(*file, self.files.len());
                self.files.push((Vec::new(), 0));
                self.add(path, Node::File(*file), None);
            }
            Event::Cut { file, octets } => {
                let (bytes, durable) = self.files.get_mut(*file).unwrap();
                bytes.truncate(*octets);
                *durable = (*durable).min(*octets);
            }
            Event::Write { file, bytes } => {
                self.files.get_mut(*file).unwrap().0.extend_from_slice(bytes);
            }
            Event::SyncFile { file } => {
                let (bytes, durable) = self.files.get_mut(*file).unwrap();
                *durable = bytes.len();
            }
            Event::SyncFileSystem => {
                self.files.iter_mut().for_each(|(bytes, durable)| *durable = bytes.len());
            }
            Event::MakeFolder { path } => {
                self.made.insert(path.clone());
                self.add(path, Node::Folder, None);
            }
            Event::Link { from, to } => {
                if let Some(node) = self.node(from) {
                    self.add(to, node, None);
                }
            }
            Event::Rename { from, to } => {
                if let Some(node) = self.node(from) {
                    let added = self.add(to, node, None);
                    self.push(Change::Remove(from.clone()), Some(added));
                }
            }
            Event::Unlink { path } => {
                if self.node(path).is_some() {
                    self.push(Change::Remove(path.clone()), None);
                }
            }
            Event::SyncFolder { path } => self.sync(path),
            Event::FoldBegins | Event::Folded | Event::Promised(_) => {}
        }
    }

    fn add(&mut self, path: &Path, node: Node, needs: Option<usize>) -> usize {
        self.push(Change::Add(path.to_owned(), node), needs)
    }

    fn push(&mut self, change: Change, needs: Option<usize>) -> usize {
        self.changes += 1;
        self.pending.push(Pending { number: self.changes, change, needs });
        self.changes
    }

    /// What a name stands for just now.
    fn node(&self, path: &Path) -> Option<Node> {
        let all = |_: &Pending| true;
        self.names(all).get(path).copied()
    }

    fn sync(&mut self, folder: &Path) {
        let pending = std::mem::take(&mut self.pending);
        let mut done: BTreeSet<usize> =
            pending.iter().filter(|one| one.folder() == folder).map(|one| one.number).collect();
        let needed: Vec<usize> = pending
            .iter()
            .filter(|one| done.contains(&one.number))
            .filter_map(|one| one.needs)
            .collect();
        done.extend(needed);
        for one in pending {
            match done.contains(&one.number) {
                true => change(&mut self.durable, &one.change),
                false => self.pending.push(one),
            }
        }
    }

    fn names(&self, survives: impl Fn(&Pending) -> bool) -> BTreeMap<PathBuf, Node> {
        let mut names = self.durable.clone();
        for one in self.pending.iter().filter(|one| survives(one)) {
            change(&mut names, &one.change);
        }
        names
    }

    fn remains(&self, survives: impl Fn(&Pending) -> bool, unsynced: Unsynced) -> Remains {
        let names = self.names(survives);
        let reachable = |path: &Path| {
            path.ancestors()
                .skip(1)
                .all(|above| !self.made.contains(above) || names.get(above) == Some(&Node::Folder))
        };
        let mut remains = Remains::new();
        for (path, node) in &names {
            let Node::File(file) = node else { continue };
            if !reachable(path) {
                continue;
            }
            let (bytes, durable) = self.files.get(*file).unwrap();
            let mut kept = bytes.clone();
            match unsynced {
                Unsynced::Gone => kept.truncate(*durable),
                Unsynced::Half => kept.truncate(durable + (bytes.len() - durable) / 2),
                Unsynced::Zeros => kept.iter_mut().skip(*durable).for_each(|byte| *byte = 0),
                Unsynced::Whole => {}
            }
            remains.insert(path.clone(), kept);
        }
        remains
    }

    /// What may be there after a power loss just now.
    pub(crate) fn after_power_loss(&self) -> Vec<Remains> {
        let count = self.pending.len();
        let sets: Vec<BTreeSet<usize>> = if count <= ALL_COMBINATIONS {
            (0..1_usize << count)
                .map(|bits| (0..count).filter(|at| bits >> at & 1 == 1).collect())
                .collect()
        } else {
            let all = || (0..count).collect::<BTreeSet<_>>();
            let without = (0..count).map(|at| all().into_iter().filter(|o| *o != at).collect());
            let alone = (0..count).map(|at| BTreeSet::from([at]));
            [BTreeSet::new(), all()].into_iter().chain(without).chain(alone).collect()
        };
        let unsynced = self.files.iter().any(|(bytes, durable)| *durable < bytes.len());
        let kinds: &[Unsynced] = match unsynced {
            true => &[Unsynced::Gone, Unsynced::Half, Unsynced::Zeros, Unsynced::Whole],
            false => &[Unsynced::Whole],
        };
        let mut found = Vec::new();
        for set in sets {
            let numbers: BTreeSet<usize> =
                set.iter().filter_map(|at| self.pending.get(*at)).map(|one| one.number).collect();
            let pending: BTreeSet<usize> = self.pending.iter().map(|one| one.number).collect();
            let possible =
                self.pending.iter().filter(|one| numbers.contains(&one.number)).all(|one| {
                    one.needs.is_none_or(|n| numbers.contains(&n) || !pending.contains(&n))
                });
            if possible {
                let survives = |one: &Pending| numbers.contains(&one.number);
                found.extend(kinds.iter().map(|kind| self.remains(survives, *kind)));
            }
        }
        found
    }
}

fn change(names: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Add(path, node) => names.insert(path.clone(), *node),
        Change::Remove(path) => names.remove(path),
    };
}

/// Looks at everything that a power loss before each event, and behind the last, may leave.
/// Returns how many moments and how many different remains there were.
pub(crate) fn every_power_loss(
    events: &[Event],
    mut look: impl FnMut(usize, &Remains),
) -> (usize, usize) {
    let mut replay = Replay::default();
    let mut states = 0;
    for moment in 0..=events.len() {
        for remains in replay.after_power_loss() {
            states += 1;
            look(moment, &remains);
        }
        if let Some(event) = events.get(moment) {
            replay.apply(event);
        }
    }
    (events.len() + 1, states)
}
