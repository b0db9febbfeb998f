//! What a read costs when the queue is long: rows are counted, not time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::mapi::{EntryId, Priority, SysTime};
use crate::spool::lock;
use crate::spool::{AccountKey, DuePage};

const ROWS: u64 = 100_000;

fn entry(number: u64) -> EntryId {
    EntryId::from_ulid(ulid::Ulid::from_parts(number, u128::from(number)))
}

fn at(number: u64) -> SysTime {
    SysTime::from_millis(number)
}

/// How many of them are in the other indexes as well, and in those of another account.
const FEW: u64 = 10_000;

/// A store with a due index of `ROWS` messages.
fn long_queue() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let lock = lock::acquire(dir.path(), Duration::ZERO).unwrap();
    let ended = tokio::sync::watch::channel(()).0;
    let store = Store::open(&dir.path().join("db"), 32 << 20, None, lock, ended).unwrap();
    for start in (0..ROWS).step_by(1_000) {
        let mut batch = sled::Batch::default();
        for number in start..start + 1_000 {
            let due = |account: &str| {
                keys::due(AccountKey::of(account), Priority::Normal, at(number), &entry(number))
            };
            batch.insert(due("two"), &[]);
            if number < FEW {
                batch.insert(due("one"), &[]);
                batch.insert(keys::done(AccountKey::of("two"), &entry(number)), &[]);
                batch.insert(keys::ended(at(number), &entry(number)), &[]);
            }
        }
        store.apply(batch).unwrap();
    }
    (dir, store)
}

#[test]
fn the_first_page_of_a_long_queue_costs_the_page() {
    let (_dir, store) = long_queue();
    let account = AccountKey::of("two");
    let cost = |what: &str, most: u64, read: &dyn Fn()| {
        store.reads.store(0, Ordering::SeqCst);
        read();
        let reads = store.reads.load(Ordering::SeqCst);
        assert!(reads <= most, "{what} read {reads} rows");
    };
    cost("the first due", 110, &|| {
        let page = store.due(account, at(ROWS), 100, &|_| false).unwrap();
        assert_eq!(page.entries.len(), 100);
        assert_eq!(page.next, Some(at(100)));
    });
    cost("nothing due", 10, &|| {
        let page = store.due(AccountKey::of("three"), at(ROWS), 100, &|_| false).unwrap();
        assert_eq!(page, DuePage::default());
    });
    cost("due later", 10, &|| {
        let page = store.due(account, SysTime::EPOCH, 100, &|_| false).unwrap();
        assert_eq!((page.entries.len(), page.next), (1, Some(at(1))));
    });
    cost("due but for those in hand", 310, &|| {
        let page = store.due(account, at(ROWS), 100, &|e| *e < entry(200)).unwrap();
        assert_eq!(page.entries.first(), Some(&entry(200)));
    });
    cost("a caller who leaves out everything", 50_010, &|| {
        let page = store.due(account, at(ROWS), 100, &|_| true).unwrap();
        assert_eq!(page, DuePage { entries: vec![], next: Some(at(50_000)) });
    });
    cost("a page of those that are done", 110, &|| {
        let page = store.done_page(account, Some(&entry(5_000)), 100).unwrap();
        assert_eq!(page.first(), Some(&entry(5_001)));
    });
    cost("the oldest histories", 110, &|| {
        assert_eq!(store.ended_before(at(ROWS), 100).unwrap().len(), 100);
        assert_eq!(store.ended_before(SysTime::EPOCH, 100).unwrap(), []);
    });
}
