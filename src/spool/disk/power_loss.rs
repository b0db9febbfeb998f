//! A power loss at every moment of a spool's work: what was promised is there, every body that a row
//! names is there, whole, and nothing else has become of it. And proof that this test would notice a
//! sync that is missing.
//!
//! The ledger knows the files that we write: bodies and journals. Of sled's tree there are copies,
//! made when a fold was durable; while a fold goes on, any part of its rows may be in the tree.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Disk;
use super::ledger::{Event, Forgets, Ledger, Remains, every_power_loss};
use crate::mapi::{EntryId, PropList, Recipient, RecipientType, SysTime};
use crate::spool::body_row::{BodyPlace, BodyRow};
use crate::spool::{
    Batch, BodyId, CheckMode, Expect, FindingKind, Op, OutboxRecord, OutboxState, SledSpool, Spool,
    SpoolOptions, StagedBody, Trace, codec, journal, keys,
};

/// Rows by their keys.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The tree when a fold was durable.
struct Folded {
    /// A copy of its files.
    tree: PathBuf,
    /// What is in it.
    rows: Rows,
}

/// The messages that are there, with the bodies they name.
type Messages = BTreeMap<EntryId, Vec<BodyId>>;

struct Recorded {
    /// Holds the folders of all of it.
    _folder: tempfile::TempDir,
    spool: PathBuf,
    events: Vec<Event>,
    folded: Vec<Folded>,
    /// What was there at each promise.
    promised: Vec<Messages>,
}

fn options(disk: Arc<dyn Disk>) -> SpoolOptions {
    // Several folds in a short work.
    SpoolOptions { reserve: 0, fold_at: 2_000, disk, ..SpoolOptions::default() }
}

fn entry(number: u64) -> EntryId {
    EntryId::from_ulid(ulid::Ulid::from_parts(1_700_000_000_000 + number, u128::from(number)))
}

fn content(number: u64, len: usize) -> Vec<u8> {
    number.to_be_bytes().into_iter().cycle().take(len).collect()
}

async fn stage(spool: &SledSpool, bytes: &[u8]) -> StagedBody {
    let mut writer = spool.new_body(None).await.unwrap();
    writer.write(bytes).await.unwrap();
    writer.finish().await.unwrap()
}

fn put(number: u64, object: Option<BodyId>, content: Option<BodyId>) -> Op {
    let record = OutboxRecord {
        revision: 0,
        submitted: SysTime::from_millis(number),
        state: OutboxState::Waiting { not_before: SysTime::EPOCH },
        props: PropList::new(),
        recipients: vec![Recipient::smtp(0, RecipientType::To, "ann@example.org")],
        object,
        content,
        size: 7,
        trace: Trace::default(),
        reports: Vec::new(),
    };
    Op::PutOutbox { entry: entry(number), record: Box::new(record), expect: Expect::Any }
}

fn delete(number: u64) -> Op {
    Op::DeleteOutbox { entry: entry(number), expect: Expect::Any }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for found in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(found.file_name());
        match found.file_type().unwrap().is_dir() {
            true => copy(&found.path(), &to),
            false => drop(std::fs::copy(found.path(), to).unwrap()),
        }
    }
}

/// The work of a spool, and what is promised by it.
struct Work {
    spool: SledSpool,
    ledger: Arc<Ledger>,
    messages: Messages,
    promised: Vec<Messages>,
}

impl Work {
    async fn commit(&mut self, batch: Batch) {
        for op in batch.ops() {
            match op {
                Op::PutOutbox { entry, record, .. } => {
                    self.messages.insert(entry.clone(), record.bodies().collect());
                }
                Op::DeleteOutbox { entry, .. } => drop(self.messages.remove(entry)),
                other => panic!("{other:?}"),
            }
        }
        self.spool.commit(batch).await.unwrap();
        self.ledger.promise(self.promised.len());
        self.promised.push(self.messages.clone());
    }
}

/// Bodies of their own and shared ones, large and small, several in a commit, replaced, removed,
/// brought again, and given up.
async fn record(forgets: Forgets) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("spool");
    let ledger = Ledger::new(forgets);
    let spool = SledSpool::open(&dir, options(Arc::clone(&ledger) as _)).unwrap();
    let folded = Arc::new(Mutex::new(vec![copy_of(&spool, &dir, folder.path(), 0)]));
    {
        let store = Arc::downgrade(&spool.store().unwrap());
        let (folded, dir, copies) = (Arc::clone(&folded), dir.clone(), folder.path().to_owned());
        ledger.on_fold(Box::new(move || {
            let store = store.upgrade().unwrap();
            let mut folded = folded.lock().unwrap();
            let copy = copy_tree(store.tree(), &dir, &copies, folded.len());
            folded.push(copy);
        }));
    }
    let mut work = Work { spool, ledger, messages: Messages::new(), promised: Vec::new() };
    for number in 1..=3 {
        let body = stage(&work.spool, &content(number, 7_000)).await;
        let batch = Batch::new().with(put(number, None, Some(body.id()))).with_body(body);
        work.commit(batch).await;
    }
    let (object, body) =
        (stage(&work.spool, &content(4, 9_000)).await, stage(&work.spool, &content(5, 800)).await);
    let ids = (object.id(), body.id());
    let batch = Batch::new().with(put(4, Some(ids.0), Some(ids.1)));
    work.commit(batch.with_body(object).with_body(body)).await;
    // Shared by two, and one that nobody wanted in the end.
    work.commit(Batch::new().with(put(5, None, Some(ids.1)))).await;
    drop(stage(&work.spool, &content(6, 7_500)).await);
    work.commit(Batch::new().with(put(4, None, None))).await;
    work.commit(Batch::new().with(delete(1)).with(delete(5))).await;
    // The same bytes again while the file of the first is being removed.
    let again = stage(&work.spool, &content(1, 7_000)).await;
    let batch = Batch::new().with(put(7, None, Some(again.id()))).with_body(again);
    work.commit(batch).await;
    work.commit(Batch::new().with(delete(2))).await;
    for number in 10..=14 {
        let body = stage(&work.spool, &content(number, 1_500)).await;
        let batch = Batch::new().with(put(number, None, Some(body.id()))).with_body(body);
        work.commit(batch).await;
        work.commit(Batch::new().with(delete(number - 1))).await;
    }
    let Work { spool, ledger, promised, .. } = work;
    spool.close().await;
    drop(spool);
    let folded = std::mem::take(&mut *folded.lock().unwrap());
    Recorded { _folder: folder, spool: dir, events: ledger.events(), folded, promised }
}

fn copy_of(spool: &SledSpool, dir: &Path, copies: &Path, number: usize) -> Folded {
    copy_tree(spool.store().unwrap().tree(), dir, copies, number)
}

fn copy_tree(tree: &sled::Tree, dir: &Path, copies: &Path, number: usize) -> Folded {
    let copied = copies.join(format!("copy-{number}"));
    copy(&dir.join("db"), &copied);
    let rows = tree.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec()));
    Folded { tree: copied, rows: rows.collect() }
}

/// What may be on the disk at a moment beside what the ledger knows.
#[derive(Clone, Debug, Default)]
struct Moment {
    /// How many folds are durable, and whether another one goes on.
    folds: usize,
    folding: bool,
    /// How many promises were given.
    promises: usize,
}

fn moments(events: &[Event]) -> Vec<Moment> {
    let mut moment = Moment::default();
    let mut found = vec![moment.clone()];
    for event in events {
        match event {
            Event::FoldBegins => moment.folding = true,
            Event::Folded => {
                moment.folding = false;
                moment.folds += 1;
            }
            Event::Promised(number) => moment.promises = number + 1,
            _ => {}
        }
        found.push(moment.clone());
    }
    found
}

/// The rows in the tree at a moment: as they were, as they will be, and with a part of the fold.
fn trees(recorded: &Recorded, moment: &Moment) -> Vec<Rows> {
    let before = &recorded.folded[moment.folds].rows;
    let mut found = vec![before.clone()];
    if let Some(after) = recorded.folded.get(moment.folds + 1).filter(|_| moment.folding) {
        let keys: BTreeSet<_> = before.keys().chain(after.rows.keys()).collect();
        let changed: Vec<_> =
            keys.into_iter().filter(|key| before.get(*key) != after.rows.get(*key)).collect();
        // The number of the journal goes in last.
        let changed: Vec<_> = changed
            .iter()
            .filter(|key| **key != keys::FOLDED_KEY)
            .take(changed.len() / 2)
            .collect();
        let mut part = before.clone();
        for key in changed {
            match after.rows.get(*key) {
                Some(value) => drop(part.insert(key.to_vec(), value.clone())),
                None => drop(part.remove(*key)),
            }
        }
        found.extend([part, after.rows.clone()]);
    }
    found
}

/// The rows under what the journals hold.
fn with_journals(mut rows: Rows, recorded: &Recorded, remains: &Remains) -> Result<Rows, String> {
    let folded = rows
        .get(keys::FOLDED_KEY)
        .map_or(0, |number| u64::from_be_bytes(number.as_slice().try_into().unwrap()));
    let folder = recorded.spool.join(journal::FOLDER);
    for (path, bytes) in remains.iter().filter(|(path, _)| path.parent() == Some(&folder)) {
        let number = u64::from_str_radix(path.file_name().unwrap().to_str().unwrap(), 16).unwrap();
        if number <= folded {
            continue;
        }
        let contents = journal::contents(bytes, number);
        if !contents.damage.is_empty() {
            return Err(format!("journal {number} counts as damaged"));
        }
        for (key, value) in contents.rows {
            match value {
                Some(value) => drop(rows.insert(key, value.to_vec())),
                None => drop(rows.remove(&key)),
            }
        }
    }
    Ok(rows)
}

/// What is wrong with rows: messages that are not those of the last promise or of what was under
/// way, and bodies that are not there.
fn wrong_with(
    rows: &Rows,
    recorded: &Recorded,
    moment: &Moment,
    remains: &Remains,
) -> Option<String> {
    let mut messages = Messages::new();
    for (key, value) in rows.range(vec![keys::OUTBOX]..vec![keys::OUTBOX + 1]) {
        let record: OutboxRecord = codec::decode(value).unwrap();
        messages.insert(keys::parse_entry(key).unwrap(), record.bodies().collect());
    }
    let last = moment.promises.checked_sub(1).map(|last| &recorded.promised[last]);
    let fits = last.map_or(messages.is_empty(), |last| *last == messages)
        || recorded.promised.get(moment.promises) == Some(&messages);
    if !fits {
        return Some(format!("after promise {} there is {messages:?}", moment.promises));
    }
    for body in messages.values().flatten() {
        let Some(row) = rows.get(&keys::body(*body)) else {
            return Some(format!("{body} has no row"));
        };
        let bytes = match codec::decode::<BodyRow>(row).unwrap().place {
            BodyPlace::Inline { slot } => rows.get(&keys::inline(slot)).map(|bytes| &bytes[1..]),
            BodyPlace::File { number } => {
                let name = format!("{body}.{number:016x}");
                let part = format!("{:02x}", body.0[0]);
                let path = recorded.spool.join("bodies").join(part).join(name);
                remains.get(&path).map(Vec::as_slice)
            }
        };
        match bytes {
            Some(bytes) if blake3::hash(bytes) == blake3::Hash::from_bytes(body.0) => {}
            Some(_) => return Some(format!("{body} is damaged")),
            None => return Some(format!("{body} is missing")),
        }
    }
    None
}

/// What is wrong after any of the power losses, and how many there were.
fn losses(recorded: &Recorded) -> (Vec<String>, (usize, usize)) {
    let moments = moments(&recorded.events);
    let mut wrong = Vec::new();
    let tried = every_power_loss(&recorded.events, |moment, remains| {
        for rows in trees(recorded, &moments[moment]) {
            let found = with_journals(rows, recorded, remains)
                .map_or_else(Some, |rows| wrong_with(&rows, recorded, &moments[moment], remains));
            wrong.extend(found.map(|found| format!("{moment}: {found}")));
        }
    });
    (wrong, tried)
}

#[tokio::test]
async fn no_power_loss_takes_what_was_promised() {
    let recorded = record(Forgets::Nothing).await;
    assert!(recorded.folded.len() >= 4, "{} folds", recorded.folded.len());
    let (wrong, (moments, states)) = losses(&recorded);
    assert_eq!(wrong, Vec::<String>::new());
    println!("spool: {moments} moments, {states} states of the disk");
    assert!(moments > 120 && states > 600, "{moments} moments, {states} states");
}

#[tokio::test]
async fn a_sync_that_is_missing_is_noticed() {
    for forgets in [Forgets::SyncFile, Forgets::SyncFileIn(journal::FOLDER), Forgets::SyncFolder] {
        let (wrong, _) = losses(&record(forgets).await);
        assert!(!wrong.is_empty(), "{forgets:?} was not noticed");
    }
}

/// Opens what a power loss left, and finds what was promised, and nothing wrong that matters.
async fn opens(recorded: &Recorded, fold: usize, moment: &Moment, remains: &Remains) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("spool");
    std::fs::create_dir_all(&dir).unwrap();
    copy(&recorded.folded[fold].tree, &dir.join("db"));
    for (file, bytes) in remains {
        let file = dir.join(file.strip_prefix(&recorded.spool).unwrap());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let spool = SledSpool::open(&dir, options(Arc::new(super::RealDisk))).unwrap();
    let mut messages = Messages::new();
    for (entry, record) in spool.outbox_page(None, 99).await.unwrap() {
        for body in record.bodies() {
            let read = spool.read_body(body, u64::MAX).await;
            assert!(read.is_ok(), "{entry} after {moment:?}: {read:?}");
        }
        messages.insert(entry, record.bodies().collect());
    }
    let last = moment.promises.checked_sub(1).map(|last| recorded.promised[last].clone());
    let under_way = recorded.promised.get(moment.promises);
    assert!(
        messages == last.unwrap_or_default() || Some(&messages) == under_way,
        "{moment:?}: {messages:?}"
    );
    for clean in [false, true] {
        let report = spool.check(CheckMode::Repair, &|_| ControlFlow::Continue(())).unwrap();
        // A file of which nobody had heard may lie about; that costs room and nothing else.
        let only = report.kinds.keys().all(|kind| *kind == FindingKind::OrphanBody);
        assert!(report.is_clean() || (only && !clean), "{report:#?}");
    }
    spool.close().await;
    assert_eq!(std::fs::read_dir(dir.join(journal::FOLDER)).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_power_loss_leaves_opens_and_is_in_order() {
    let recorded = record(Forgets::Nothing).await;
    let moments = moments(&recorded.events);
    let mut cases = Vec::new();
    let mut seen = BTreeSet::new();
    every_power_loss(&recorded.events, |at, remains| {
        let moment = &moments[at];
        let folds = moment.folds..=moment.folds + usize::from(moment.folding);
        for fold in folds.filter(|fold| *fold < recorded.folded.len()) {
            // The same remains behind the same fold need to be opened once.
            let lens: Vec<_> = remains.iter().map(|(file, bytes)| (file, bytes.len())).collect();
            if seen.insert(format!("{fold} {lens:?}")) {
                cases.push((fold, moment.clone(), remains.clone()));
            }
        }
    });
    // Enough of them, spread over the whole.
    let step = cases.len().div_ceil(60);
    for (fold, moment, remains) in cases.iter().step_by(step) {
        opens(&recorded, *fold, moment, remains).await;
    }
    println!("spool: {} different states, {} opened", cases.len(), cases.len().div_ceil(step));
}
