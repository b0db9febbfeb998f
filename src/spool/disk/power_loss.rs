//! A power loss at every moment of a spool's work: every body that a durable row names is there,
//! whole. And proof that this test would notice a sync that is missing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Disk;
use super::ledger::{Event, Forgets, Ledger, Remains, every_power_loss};
use crate::mapi::{EntryId, PropList, Recipient, RecipientType, SysTime};
use crate::spool::body_row::{BodyPlace, BodyRow};
use crate::spool::{
    Batch, BodyId, CheckMode, Expect, FindingKind, Op, OutboxRecord, OutboxState, SledSpool, Spool,
    SpoolOptions, StagedBody, Trace, codec, keys,
};

/// The spool as a commit made it durable.
struct Durable {
    /// Files that rows name.
    files: Vec<(PathBuf, BodyId)>,
    /// A copy of the tree.
    tree: PathBuf,
}

struct Recorded {
    /// Holds the folders of all of it.
    _folder: tempfile::TempDir,
    spool: PathBuf,
    events: Vec<Event>,
    durable: Vec<Durable>,
}

fn options(disk: Arc<dyn Disk>) -> SpoolOptions {
    SpoolOptions { reserve: 0, disk, ..SpoolOptions::default() }
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

/// The work of a spool: bodies of their own and shared ones, several in a commit, replaced,
/// removed, brought again, and given up.
async fn record(forgets: Forgets) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("spool");
    let ledger = Ledger::new(forgets);
    let spool = SledSpool::open(&dir, options(Arc::clone(&ledger) as _)).unwrap();
    let durable = Arc::new(Mutex::new(Vec::new()));
    {
        let store = Arc::downgrade(&spool.store().unwrap());
        let (durable, dir) = (Arc::clone(&durable), dir.clone());
        let copies = folder.path().join("copies");
        ledger.on_commit(Box::new(move || {
            let Some(store) = store.upgrade() else { return };
            let mut durable = durable.lock().unwrap();
            let tree = copies.join(durable.len().to_string());
            copy(&dir.join("db"), &tree);
            let mut files = Vec::new();
            for row in store.range(keys::table(keys::BODY)) {
                let (key, value) = row.unwrap();
                let body = keys::parse_body(&key).unwrap();
                if let BodyPlace::File { number } = codec::decode::<BodyRow>(&value).unwrap().place
                {
                    let name = format!("{body}.{number:016x}");
                    let part = format!("{:02x}", body.0[0]);
                    files.push((dir.join("bodies").join(part).join(name), body));
                }
            }
            durable.push(Durable { files, tree });
        }));
    }
    for number in 1..=3 {
        let body = stage(&spool, &content(number, 7_000)).await;
        let batch = Batch::new().with(put(number, None, Some(body.id()))).with_body(body);
        spool.commit(batch).await.unwrap();
    }
    let (object, body) =
        (stage(&spool, &content(4, 9_000)).await, stage(&spool, &content(5, 8_000)).await);
    let ids = (object.id(), body.id());
    let batch = Batch::new().with(put(4, Some(ids.0), Some(ids.1)));
    spool.commit(batch.with_body(object).with_body(body)).await.unwrap();
    // Shared by two, and one that nobody wanted in the end.
    spool.commit(Batch::new().with(put(5, None, Some(ids.1)))).await.unwrap();
    drop(stage(&spool, &content(6, 7_500)).await);
    spool.commit(Batch::new().with(put(4, None, None))).await.unwrap();
    spool.commit(Batch::new().with(delete(1)).with(delete(5))).await.unwrap();
    // The same bytes again while the file of the first is being removed.
    let again = stage(&spool, &content(1, 7_000)).await;
    let batch = Batch::new().with(put(7, None, Some(again.id()))).with_body(again);
    spool.commit(batch).await.unwrap();
    spool.commit(Batch::new().with(delete(2))).await.unwrap();
    spool.close().await;
    drop(spool);
    let durable = std::mem::take(&mut *durable.lock().unwrap());
    Recorded { _folder: folder, spool: dir, events: ledger.events(), durable }
}

/// Which commits may be the last on the disk at each moment: the last that was acknowledged, and
/// the one that is being written.
fn last_commits(events: &[Event]) -> Vec<BTreeSet<Option<usize>>> {
    let mut last: BTreeSet<Option<usize>> = BTreeSet::from([None]);
    let mut count = 0;
    let mut found = vec![last.clone()];
    for event in events {
        match event {
            Event::CommitBegins => drop(last.insert(Some(count))),
            Event::Committed => {
                last = BTreeSet::from([Some(count)]);
                count += 1;
            }
            _ => {}
        }
        found.push(last.clone());
    }
    found
}

/// What is wrong after any of the power losses, and how many there were.
fn losses(recorded: &Recorded) -> (Vec<String>, (usize, usize)) {
    let commits = last_commits(&recorded.events);
    let mut wrong = Vec::new();
    let tried = every_power_loss(&recorded.events, |moment, remains| {
        for commit in commits[moment].iter().flatten() {
            let Some(durable) = recorded.durable.get(*commit) else { continue };
            for (file, body) in &durable.files {
                match remains.get(file) {
                    Some(bytes) if blake3::hash(bytes) == blake3::Hash::from_bytes(body.0) => {}
                    Some(_) => wrong.push(format!("{moment}: {body} is damaged")),
                    None => wrong.push(format!("{moment}: {body} is missing")),
                }
            }
        }
    });
    (wrong, tried)
}

#[tokio::test]
async fn no_power_loss_takes_the_body_of_a_durable_row() {
    let recorded = record(Forgets::Nothing).await;
    assert!(recorded.durable.len() >= 9, "{} commits", recorded.durable.len());
    let (wrong, (moments, states)) = losses(&recorded);
    assert_eq!(wrong, Vec::<String>::new());
    println!("spool: {moments} moments, {states} states of the disk");
    assert!(moments > 80 && states > 400, "{moments} moments, {states} states");
}

#[tokio::test]
async fn a_sync_that_is_missing_is_noticed() {
    for forgets in [Forgets::SyncFile, Forgets::SyncFolder] {
        let (wrong, _) = losses(&record(forgets).await);
        assert!(!wrong.is_empty(), "{forgets:?} was not noticed");
    }
}

/// Opens what a power loss left, and finds every message, and nothing wrong that matters.
async fn opens(recorded: &Recorded, commit: Option<usize>, remains: &Remains) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("spool");
    std::fs::create_dir_all(&dir).unwrap();
    if let Some(commit) = commit {
        copy(&recorded.durable[commit].tree, &dir.join("db"));
    }
    for (file, bytes) in remains {
        let file = dir.join(file.strip_prefix(&recorded.spool).unwrap());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let spool = SledSpool::open(&dir, options(Arc::new(super::RealDisk))).unwrap();
    for (entry, record) in spool.outbox_page(None, 99).await.unwrap() {
        for body in record.bodies() {
            let read = spool.read_body(body, u64::MAX).await;
            assert!(read.is_ok(), "{entry} after commit {commit:?}: {read:?}");
        }
    }
    for clean in [false, true] {
        let report = spool.check(CheckMode::Repair, &|_| ControlFlow::Continue(())).unwrap();
        // A file of which nobody had heard may lie about; that costs room and nothing else.
        let only = report.kinds.keys().all(|kind| *kind == FindingKind::OrphanBody);
        assert!(report.is_clean() || (only && !clean), "{report:#?}");
    }
    spool.close().await;
}

#[tokio::test]
async fn what_a_power_loss_leaves_opens_and_is_in_order() {
    let recorded = record(Forgets::Nothing).await;
    let commits = last_commits(&recorded.events);
    let mut cases = Vec::new();
    let mut seen = BTreeSet::new();
    every_power_loss(&recorded.events, |moment, remains| {
        for commit in &commits[moment] {
            if commit.is_some_and(|commit| commit >= recorded.durable.len()) {
                continue;
            }
            // The same remains behind the same commit need to be opened once.
            let lens: Vec<_> = remains.iter().map(|(file, bytes)| (file, bytes.len())).collect();
            if seen.insert(format!("{commit:?} {lens:?}")) {
                cases.push((*commit, remains.clone()));
            }
        }
    });
    // Enough of them, spread over the whole.
    let step = cases.len().div_ceil(60);
    for (commit, remains) in cases.iter().step_by(step) {
        opens(&recorded, *commit, remains).await;
    }
    println!("spool: {} different states, {} opened", cases.len(), cases.len().div_ceil(step));
}
