#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fd::BorrowedFd;

use super::*;
use crate::mapi::{MapiCode, MapiError, SysTime};
use crate::spool::disk::ledger::{Event, Forgets, Ledger, every_power_loss};
use crate::spool::disk::{RealDisk, as_real_disk};
use crate::store::maildir::{FileState, Look, Origin};

/// A file system that may be synced, or not now, and fails as told.
#[derive(Debug, Default)]
struct Told {
    busy: AtomicBool,
    file_system_fails: AtomicBool,
    folder_fails_once: AtomicBool,
    no_room_ahead: AtomicBool,
    /// Told when a sync of the file system has begun; it goes on when it is told so.
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    /// Writing this many octets breaks down.
    breaks_at: AtomicUsize,
    file_syncs: AtomicUsize,
    folder_syncs: AtomicUsize,
    file_system_syncs: AtomicUsize,
}

fn strike(fails: &AtomicBool) -> io::Result<()> {
    match fails.load(Ordering::SeqCst) {
        true => Err(io::Error::from_raw_os_error(5)),
        false => Ok(()),
    }
}

impl Disk for Told {
    as_real_disk!(create make_folder rename link unlink);
    fn write(&self, file: &std::fs::File, bytes: &[u8]) -> io::Result<()> {
        assert_ne!(bytes.len(), self.breaks_at.load(Ordering::SeqCst), "as told");
        RealDisk.write(file, bytes)
    }
    fn sync_file(&self, file: &std::fs::File) -> io::Result<()> {
        self.file_syncs.fetch_add(1, Ordering::SeqCst);
        RealDisk.sync_file(file)
    }
    fn sync_folder(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        strike(&AtomicBool::new(self.folder_fails_once.swap(false, Ordering::SeqCst)))?;
        self.folder_syncs.fetch_add(1, Ordering::SeqCst);
        RealDisk.sync_folder(folder)
    }
    fn file_system_sync(&self, _folder: BorrowedFd<'_>) -> FileSystemSync {
        match self.busy.load(Ordering::SeqCst) {
            true => FileSystemSync::NotNow,
            false => FileSystemSync::Now,
        }
    }
    fn make_room(&self, _file: &std::fs::File, _octets: usize) -> io::Result<()> {
        match self.no_room_ahead.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => Ok(()),
        }
    }
    fn sync_file_system(&self, _folder: BorrowedFd<'_>) -> io::Result<()> {
        let gate = self.gate.lock().unwrap().take();
        if let Some((begun, go_on)) = gate {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        strike(&self.file_system_fails)?;
        self.file_system_syncs.fetch_add(1, Ordering::SeqCst);
        // A real one may be slow, which has consequences.
        Ok(())
    }
}

fn open(root: &Path, disk: Arc<dyn Disk>) -> Arc<Maildir> {
    let now = SysTime::from_millis(1_700_000_000_000);
    Arc::new(Maildir::open(root, "box".into(), now, disk).unwrap())
}

fn place(number: usize) -> Place {
    Place {
        mailbox: ["INBOX", "Lists/Rust"][number % 2].into(),
        token: Token::of(Origin::Received, &number.to_be_bytes()),
        time: SysTime::from_millis(1_600_000_000_000),
        state: FileState::New,
        look: Look::Here,
    }
}

fn text(number: usize) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\n{}", "text ".repeat(number)).into_bytes()
}

/// What those who wait for the messages of one batch hear.
fn save(maildir: &Arc<Maildir>, places: impl IntoIterator<Item = Place>) -> Vec<Outcome> {
    let (batch, outcomes) = written(maildir, places);
    batch.finish();
    outcomes.into_iter().map(|mut outcome| outcome.try_recv().unwrap()).collect()
}

/// A batch in `tmp`, and where its outcomes come.
fn written(
    maildir: &Arc<Maildir>,
    places: impl IntoIterator<Item = Place>,
) -> (Batch, Vec<oneshot::Receiver<Outcome>>) {
    let mut batch = Batch { maildir: Arc::clone(maildir), written: Vec::new() };
    let mut outcomes = Vec::new();
    for (number, place) in places.into_iter().enumerate() {
        let (done, outcome) = oneshot::channel();
        batch.write(Job {
            maildir: Arc::clone(maildir),
            text: text(number),
            place,
            done: Waiting(done),
        });
        outcomes.push(outcome);
    }
    (batch, outcomes)
}

fn all_saved(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Ok(Together::Saved)))
}

/// The texts in a folder of the Maildir.
fn texts(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut texts: Vec<_> =
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    texts.sort();
    texts
}

fn sorted(numbers: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let mut texts: Vec<_> = numbers.into_iter().map(text).collect();
    texts.sort();
    texts
}

#[test]
fn a_batch_costs_one_sync_and_one_for_each_folder() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    // Makes the folders.
    assert!(all_saved(&save(&maildir, (10..12).map(place))));
    let folders = disk.folder_syncs.load(Ordering::SeqCst);
    assert!(all_saved(&save(&maildir, (0..9).map(place))));
    assert_eq!(disk.file_syncs.load(Ordering::SeqCst), 2, "of the few before");
    assert_eq!(disk.file_system_syncs.load(Ordering::SeqCst), 1);
    assert_eq!(disk.folder_syncs.load(Ordering::SeqCst), folders + 2);
    let (inbox, lists) = (dir.path().join("new"), dir.path().join(".Lists.Rust/new"));
    assert_eq!(texts(&inbox), sorted([0, 0, 2, 4, 6, 8]), "10 and 11 had the first two texts");
    assert_eq!(texts(&lists), sorted([1, 1, 3, 5, 7]));
    assert!(texts(&dir.path().join("tmp")).is_empty());
    let file = std::fs::read_dir(inbox).unwrap().next().unwrap().unwrap().metadata().unwrap();
    let modified = file.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(modified.as_secs(), 1_600_000_000);
}

#[test]
fn no_power_loss_takes_what_was_saved_together() {
    let losses = |forgets| {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("Mail");
        drop(open(&root, Arc::new(RealDisk)));
        let ledger = Ledger::new(forgets);
        let maildir = open(&root, Arc::clone(&ledger) as _);
        assert!(all_saved(&save(&maildir, (0..5).map(place))));
        (0..5).for_each(|number| ledger.promise(number));
        let events = ledger.events();
        assert!(!events.iter().any(|event| matches!(event, Event::SyncFile { .. })));
        let mut wrong = Vec::new();
        let is_in_mailbox = |file: &Path| file.parent().unwrap().ends_with("new");
        let (_, states) = every_power_loss(&events, |moment, remains| {
            let found = || remains.iter().filter(|(file, _)| is_in_mailbox(file));
            for event in &events[..moment] {
                if let Event::Promised(number) = event
                    && !found().any(|(_, bytes)| *bytes == text(*number))
                {
                    wrong.push(format!("{moment}: message {number} is lost"));
                }
            }
            for (file, bytes) in found() {
                if !(0..5).any(|number| text(number) == *bytes) {
                    wrong.push(format!("{moment}: {} is not whole", file.display()));
                }
            }
        });
        assert!(states > 100, "{states}");
        wrong
    };
    assert_eq!(losses(Forgets::Nothing), Vec::<String>::new());
    for forgets in [Forgets::SyncFile, Forgets::SyncFolder] {
        assert!(!losses(forgets).is_empty(), "{forgets:?} was not noticed");
    }
}

#[test]
fn one_that_is_there_is_neither_replaced_nor_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let maildir = open(dir.path(), Arc::new(Told::default()));
    let everywhere = || Place { look: Look::Everywhere, ..place(0) };
    let places = [place(0), place(0), place(2), place(4), everywhere()];
    assert!(all_saved(&save(&maildir, places)));
    assert_eq!(texts(&dir.path().join("new")), sorted([0, 2, 3]));
    let elsewhere = Place { mailbox: "Other".into(), ..everywhere() };
    assert!(all_saved(&save(&maildir, [elsewhere, everywhere(), everywhere(), place(6)])));
    assert_eq!(texts(&dir.path().join("new")), sorted([0, 2, 3, 3]));
    assert!(!dir.path().join(".Other").exists());
    assert!(texts(&dir.path().join("tmp")).is_empty());
}

/// The error may be another file's: these are discarded, and from then on each tells for itself.
#[tokio::test]
async fn after_a_sync_of_the_file_system_that_failed_each_is_saved_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    disk.file_system_fails.store(true, Ordering::SeqCst);
    for outcome in save(&maildir, (0..FEW).map(place)) {
        assert_eq!(MapiError::from(outcome.unwrap_err()).code(), MapiCode::DISK_ERROR);
    }
    assert!(texts(&dir.path().join("new")).is_empty() && texts(&dir.path().join("tmp")).is_empty());
    disk.file_system_fails.store(false, Ordering::SeqCst);
    let Together::Text(text) = maildir.save_together(text(0), &place(0)).await.unwrap() else {
        panic!("it was saved with others");
    };
    let mut draft = maildir.draft().unwrap();
    draft.write(&text).unwrap();
    maildir.deliver(draft, &place(0)).unwrap();
    assert_eq!(texts(&dir.path().join("new")), sorted([0]));
    assert_eq!(disk.file_system_syncs.load(Ordering::SeqCst), 0);
}

/// The system tells of an error once: who syncs beside it could be told that all is well.
#[test]
fn nobody_syncs_the_file_system_beside_one_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    *disk.gate.lock().unwrap() = Some((begun, may_go_on));
    disk.file_system_fails.store(true, Ordering::SeqCst);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| save(&maildir, (0..FEW).map(place)));
        has_begun.recv().unwrap();
        let (batch, outcomes) = written(&maildir, (10..10 + FEW).map(place));
        let second = scope.spawn(|| {
            batch.finish();
            outcomes.into_iter().map(|mut outcome| outcome.try_recv().unwrap()).collect()
        });
        go_on.send(()).unwrap();
        let second: Vec<Outcome> = second.join().unwrap();
        (first.join().unwrap(), second)
    });
    assert!(first.iter().all(Result::is_err));
    assert!(second.iter().all(|outcome| matches!(outcome, Ok(Together::Draft(_)))), "{second:?}");
    assert_eq!(disk.file_system_syncs.load(Ordering::SeqCst), 0);
    // Not after it, either.
    disk.busy.store(true, Ordering::SeqCst);
    let third = save(&maildir, (20..20 + FEW).map(place));
    assert!(third.iter().all(|outcome| matches!(outcome, Ok(Together::Draft(_)))), "{third:?}");
    assert_eq!(*maildir.saver.as_ref().unwrap().rest.lock().unwrap(), Rest::ForGood);
}

#[tokio::test]
async fn where_room_cannot_be_made_each_is_saved_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    disk.no_room_ahead.store(true, Ordering::SeqCst);
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    for outcome in save(&maildir, [place(0)]) {
        assert!(matches!(&outcome, Ok(Together::Text(told)) if *told == text(0)), "{outcome:?}");
    }
    let next = maildir.save_together(text(1), &place(1)).await;
    assert!(matches!(next, Ok(Together::Text(_))), "{next:?}");
    assert!(texts(&dir.path().join("tmp")).is_empty());
}

/// Of a batch for several folders, one of which cannot be made durable, nothing is promised any
/// more that comes behind it.
#[test]
fn after_a_sync_of_a_folder_that_failed_nothing_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    // A folder that is to be made comes first; INBOX is there.
    let places = || [place(1), place(3), place(0), place(2)];
    disk.folder_fails_once.store(true, Ordering::SeqCst);
    assert!(save(&maildir, places()).iter().all(Result::is_err));
    assert!(!disk.folder_fails_once.load(Ordering::SeqCst));
    assert!(save(&maildir, places()).iter().all(Result::is_err), "well again, not trusted");
    assert!(texts(&dir.path().join("tmp")).is_empty());
}

#[tokio::test]
async fn beside_others_that_write_much_each_is_delivered_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    disk.busy.store(true, Ordering::SeqCst);
    for (number, outcome) in save(&maildir, (0..FEW).map(place)).into_iter().enumerate() {
        let Ok(Together::Draft(draft)) = outcome else { panic!("{number}: {outcome:?}") };
        maildir.deliver(*draft, &place(number)).unwrap();
    }
    assert_eq!(texts(&dir.path().join("new")), sorted([0, 2]));
    assert_eq!(texts(&dir.path().join(".Lists.Rust/new")), sorted([1, 3]));
    assert_eq!(disk.file_syncs.load(Ordering::SeqCst), FEW);
    let next = maildir.save_together(text(5), &place(5)).await;
    assert!(matches!(next, Ok(Together::Text(_))), "{next:?}");
    assert!(texts(&dir.path().join("tmp")).is_empty());
}

#[tokio::test]
async fn messages_of_the_same_moment_meet_in_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    let places: Vec<_> = (0..200).map(|number| place(2 * number)).collect();
    let saves = places.iter().map(|place| maildir.save_together(text(7), place));
    assert!(all_saved(&futures_util::future::join_all(saves).await));
    assert_eq!(texts(&dir.path().join("new")).len(), 200);
    let syncs = disk.file_system_syncs.load(Ordering::SeqCst);
    let alone = disk.file_syncs.load(Ordering::SeqCst);
    // How they meet is up to the scheduler; that each is in a batch is not.
    assert!(syncs >= 200 / MOST && syncs * MOST + alone >= 200, "{syncs} and {alone}");
}

#[tokio::test]
async fn who_waits_for_a_thread_that_broke_down_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Told::default());
    disk.breaks_at.store(text(3).len(), Ordering::SeqCst);
    let maildir = open(dir.path(), Arc::clone(&disk) as _);
    for number in 0..THREADS {
        let error = maildir.save_together(text(3), &place(0)).await.unwrap_err();
        assert!(error.to_string().contains("broke down"), "{error}");
        if number + 1 < THREADS {
            let other = maildir.save_together(text(0), &place(2)).await;
            assert!(matches!(other, Ok(Together::Saved)), "{other:?}");
        }
    }
    // The last one ends in its own time; then nothing is handed to it.
    let ended = async {
        while !matches!(maildir.save_together(text(0), &place(2)).await, Ok(Together::Text(_))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    assert!(texts(&dir.path().join("tmp")).is_empty());
}

#[test]
fn what_took_long_is_left_alone_for_minutes() {
    let now = Instant::now();
    let later = |time| now.checked_add(time).unwrap();
    assert_eq!(Rest::after(SLOW, now), Rest::No);
    let rest = Rest::after(SLOW + Duration::from_millis(1), now);
    assert!(!rest.is_over(later(REST_AFTER_SLOW - Duration::from_millis(1))));
    assert!(rest.is_over(later(REST_AFTER_SLOW)));
    assert!(!Rest::ForGood.is_over(later(Duration::from_secs(1 << 30))));
    assert!(Rest::No.is_over(now));
    // Nobody else waits for one that takes so long.
    assert!(Rest::Syncing(now).is_over(later(SLOW)));
    assert!(!Rest::Syncing(now).is_over(later(SLOW + Duration::from_millis(1))));
}
