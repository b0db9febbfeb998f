//! The journal before the tree: what it holds is there as if it were in the tree, also while the
//! tree takes it over, and whatever happens to its files.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postrider::spool::*;

use crate::bench::*;
use crate::crash::snapshot;

fn journals(bench: &Bench) -> Vec<PathBuf> {
    let files = std::fs::read_dir(bench.dir().join("journal")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

async fn there(spool: &SledSpool) -> Vec<u64> {
    let page = spool.outbox_page(None, 10_000).await.unwrap();
    page.into_iter().map(|(_, record)| record.size).collect()
}

fn numbered(number: u64) -> OutboxRecord {
    OutboxRecord { size: number, ..outbox(None) }
}

async fn put(spool: &SledSpool, number: u64) {
    let batch = Batch::new().with(put_outbox(number, numbered(number), Expect::Absent));
    spool.commit(batch).await.unwrap();
}

#[tokio::test]
async fn there_is_a_file_only_while_it_is_needed() {
    let bench = Bench::new();
    let spool = bench.open();
    assert!(there(&spool).await.is_empty());
    assert_eq!(journals(&bench), Vec::<PathBuf>::new(), "nothing was written");
    put(&spool, 1).await;
    assert_eq!(journals(&bench).len(), 1);
    spool.close().await;
    assert_eq!(journals(&bench), Vec::<PathBuf>::new(), "the tree has everything");
    let tree = bench.tree();
    assert!(tree.iter().keys().any(|key| key.unwrap().starts_with(b"o")));
}

#[tokio::test]
async fn a_file_that_comes_back_changes_nothing() {
    let bench = Bench::new();
    let spool = bench.open();
    put(&spool, 1).await;
    let crashed = snapshot(&bench);
    let file = journals(&crashed).remove(0);
    let bytes = std::fs::read(&file).unwrap();
    let again = crashed.open();
    again.commit(Batch::new().with(delete_outbox(1))).await.unwrap();
    again.close().await;
    drop(again);
    // As when its removal was not durable.
    std::fs::write(&file, bytes).unwrap();
    let again = crashed.open();
    assert!(there(&again).await.is_empty());
    assert!(!file.exists());
}

#[tokio::test]
async fn what_is_torn_was_never_promised() {
    let bench = Bench::new();
    let spool = bench.open();
    put(&spool, 1).await;
    let before = std::fs::metadata(&journals(&bench)[0]).unwrap().len();
    put(&spool, 2).await;
    let crashed = snapshot(&bench);
    let file = std::fs::OpenOptions::new().write(true).open(&journals(&crashed)[0]).unwrap();
    file.set_len(before + 40).unwrap();
    let again = crashed.open();
    assert_eq!(there(&again).await, [1]);
    assert_eq!(again.quarantine(9).await.unwrap(), []);
    put(&again, 3).await;
    assert_eq!(there(&again).await, [1, 3]);
}

#[tokio::test]
async fn damage_costs_one_group_and_is_told() {
    let bench = Bench::new();
    let spool = bench.open();
    let mut ends = Vec::new();
    for number in 1..=5 {
        put(&spool, number).await;
        ends.push(std::fs::metadata(&journals(&bench)[0]).unwrap().len() as usize);
    }
    let crashed = snapshot(&bench);
    let file = journals(&crashed).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[ends[1] + 60] ^= 1;
    let lost = bytes[ends[1]..ends[2]].to_vec();
    std::fs::write(&file, bytes).unwrap();
    let again = crashed.open();
    assert_eq!(there(&again).await, [1, 2, 4, 5]);
    let aside = again.quarantine(9).await.unwrap();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].key.contains("journal/0000000000000001"), "{}", aside[0].key);
    assert_eq!(aside[0].bytes, lost);
    let counts = QueueCounts { queued: 4, quarantined: 1, ..QueueCounts::default() };
    assert_eq!(again.counts(), counts);
    let report = again.check(CheckMode::Look, &|_| ControlFlow::Continue(())).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.quarantined, 1);
    // It stays told.
    again.close().await;
    assert_eq!(crashed.open().quarantine(9).await.unwrap().len(), 1);
}

/// A spool with two journals that the tree does not have: 1 and 2 are in the first, 3 in the second.
async fn two_journals() -> (Bench, Vec<PathBuf>) {
    let bench = Bench::new();
    let spool = bench.open();
    put(&spool, 1).await;
    put(&spool, 2).await;
    let crashed = snapshot(&bench);
    // The next process goes on where the first one ended.
    let later = snapshot(&crashed);
    let spool = later.open();
    put(&spool, 3).await;
    let second = journals(&later).remove(0);
    let name = second.file_name().unwrap();
    std::fs::copy(&second, crashed.dir().join("journal").join(name)).unwrap();
    let files = journals(&crashed);
    assert_eq!(files.len(), 2);
    (crashed, files)
}

#[tokio::test]
async fn what_is_behind_another_journal_cannot_be_torn_nor_missing() {
    let (bench, _) = two_journals().await;
    let spool = bench.open();
    assert_eq!(there(&spool).await, [1, 2, 3]);
    assert!(spool.quarantine(9).await.unwrap().is_empty());
    let end = |file: &PathBuf| std::fs::metadata(file).unwrap().len();
    type Harm = fn(&PathBuf, u64);
    let cut: Harm = |file, end| {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(end - 5).unwrap();
    };
    let remove: Harm = |file, _| std::fs::remove_file(file).unwrap();
    for (harm, left) in [(cut, vec![1, 3]), (remove, vec![3])] {
        let (bench, files) = two_journals().await;
        harm(&files[0], end(&files[0]));
        let spool = bench.open();
        assert_eq!(there(&spool).await, left);
        assert_eq!(spool.quarantine(9).await.unwrap().len(), 1);
        let counts =
            QueueCounts { queued: left.len() as u64, quarantined: 1, ..QueueCounts::default() };
        assert_eq!(spool.counts(), counts);
        assert_eq!(spool.waiting_page(None, 9).await.unwrap().len(), left.len());
        let report = spool.check(CheckMode::Look, &|_| ControlFlow::Continue(())).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// A lost group may have been about any body: the file of one that no row names stays.
#[tokio::test]
async fn the_body_of_a_lost_group_is_kept() {
    let bench = Bench::new();
    let spool = bench.open();
    put(&spool, 1).await;
    let before = std::fs::metadata(&journals(&bench)[0]).unwrap().len() as usize;
    submit(&spool, 2, &bytes(2, 30_000)).await;
    put(&spool, 3).await;
    eventually("staging to be empty", || bench.files().1.is_empty()).await;
    let crashed = snapshot(&bench);
    let file = journals(&crashed).remove(0);
    let mut octets = std::fs::read(&file).unwrap();
    octets[before + 60] ^= 1;
    std::fs::write(&file, octets).unwrap();
    // The name in staging/ may come back, too.
    let body = crashed.files().0.remove(0);
    std::fs::copy(&body, crashed.dir().join("staging").join(body.file_name().unwrap())).unwrap();
    let again = crashed.open();
    assert_eq!(again.quarantine(9).await.unwrap().len(), 1);
    again.check(CheckMode::Repair, &|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(crashed.files().0, [body]);
}

/// sled takes what it was writing when its process was killed for its newest snapshot.
#[tokio::test]
async fn a_snapshot_that_was_being_written_is_in_nobodys_way() {
    let bench = Bench::new();
    let spool = bench.open();
    put(&spool, 1).await;
    spool.close().await;
    drop(spool);
    for content in [b"".as_slice(), b"half of a snapshot"] {
        std::fs::write(bench.dir().join("db/snap.00000000FFFFFFFF.generating"), content).unwrap();
        let spool = bench.open();
        assert_eq!(there(&spool).await, [1]);
        spool.close().await;
    }
}

#[tokio::test]
async fn a_fold_that_fails_or_breaks_down_loses_nothing() {
    for (fails, breaks_down) in (0..4).flat_map(|fails| [(fails, false), (fails, true)]) {
        let mut bench = Bench::new();
        bench.options.fold_at = 500;
        let left = Arc::new(AtomicU64::new(fails));
        let counter = Arc::clone(&left);
        bench.options.fault = Some(Arc::new(move |at| {
            // Once: the disk is well again at once, and must not be believed.
            let fails = at == FaultPoint::Fold && counter.fetch_sub(1, Ordering::SeqCst) == 0;
            assert!(!(fails && breaks_down), "as sled does at some kinds of damage");
            if fails { Err(std::io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }));
        let spool = bench.open();
        let mut promised = Vec::new();
        let failed = loop {
            let number = promised.len() as u64;
            let put = put_outbox(number, numbered(number), Expect::Absent);
            match spool.commit(Batch::new().with(put)).await {
                Ok(_) => promised.push(number),
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, SpoolError::Unknown(_)), "{failed}");
        assert!(spool.failure().is_some());
        assert_eq!(there(&spool).await, promised, "what was promised is still read");
        let stay = journals(&bench);
        assert!(!stay.is_empty());
        for number in [1_000, 1_001] {
            let put = put_outbox(number, numbered(number), Expect::Absent);
            assert!(spool.commit(Batch::new().with(put)).await.is_err());
        }
        spool.close().await;
        assert_eq!(journals(&bench), stay, "it was not tried again");
        bench.options.fault = None;
        let spool = bench.open();
        assert_eq!(there(&spool).await, promised);
        let report = spool.check(CheckMode::Look, &|_| ControlFlow::Continue(())).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// Walks see what stays all the time, and nothing that has gone before they began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_walk_beside_folds_sees_what_stays_and_nothing_that_has_gone() {
    for fold_at in [1, 3_000] {
        let mut bench = Bench::new();
        bench.options.fold_at = fold_at;
        let spool = Arc::new(bench.open());
        for number in (0..400).step_by(2) {
            put(&spool, number).await;
        }
        // The last that has certainly gone, of numbers that come and go in turn.
        let gone = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (spool, gone) = (Arc::clone(&spool), Arc::clone(&gone));
                let ended = Arc::clone(&ended);
                tokio::spawn(async move {
                    let mut walks = 0;
                    while !ended.load(Ordering::SeqCst) {
                        let before = gone.load(Ordering::SeqCst);
                        let page = spool.outbox_page(None, 10_000).await.unwrap();
                        let found: Vec<u64> = page.iter().map(|(_, one)| one.size).collect();
                        assert!(found.is_sorted(), "{found:?}");
                        let stays = found.iter().filter(|number| **number % 2 == 0);
                        assert!(stays.copied().eq((0..400).step_by(2)), "{found:?}");
                        let ghosts: BTreeSet<_> =
                            found.iter().filter(|n| **n % 2 == 1 && **n < before).collect();
                        assert!(ghosts.is_empty(), "{ghosts:?} went before {before}");
                        walks += 1;
                        tokio::task::yield_now().await;
                    }
                    walks
                })
            })
            .collect();
        for number in (1..400).step_by(2) {
            put(&spool, number).await;
            if let Some(last) = number.checked_sub(20) {
                spool.commit(Batch::new().with(delete_outbox(last))).await.unwrap();
                gone.store(last + 1, Ordering::SeqCst);
            }
        }
        ended.store(true, Ordering::SeqCst);
        for reader in readers {
            assert!(reader.await.unwrap() > 0);
        }
    }
}
