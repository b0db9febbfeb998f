//! What a read costs when the queue is long: rows are counted, not time. And that a walk over tree
//! and layers is a walk over one table.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;

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

fn empty() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let lock = lock::acquire(dir.path(), Duration::ZERO).unwrap();
    let ended = tokio::sync::watch::channel(()).0;
    let store = Store::open(dir.path(), &SpoolOptions::default(), lock, ended).unwrap();
    (dir, store)
}

/// A store with a due index of `ROWS` messages.
fn long_queue() -> (tempfile::TempDir, Store) {
    let (dir, store) = empty();
    for start in (0..ROWS).step_by(1_000) {
        let mut rows = RowChanges::default();
        for number in start..start + 1_000 {
            let due = |account: &str| {
                keys::due(AccountKey::of(account), Priority::Normal, at(number), &entry(number))
            };
            rows.insert(due("two"), Some(IVec::default()));
            if number < FEW {
                rows.insert(due("one"), Some(IVec::default()));
                rows.insert(
                    keys::done(AccountKey::of("two"), &entry(number)),
                    Some(IVec::default()),
                );
                rows.insert(keys::ended(at(number), &entry(number)), Some(IVec::default()));
            }
        }
        store.commit(rows).unwrap();
        store.fold_if_due().unwrap();
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

/// A fold puts rows into the tree behind the back of a walk that has come by them in the layer.
#[test]
fn a_row_that_comes_into_the_tree_meanwhile_is_not_met_twice() {
    for backward in [false, true] {
        let (_dir, store) = empty();
        let row = |key: u8| (vec![key], Some(IVec::from(&[key])));
        store.commit([row(1), row(2), row(3)].into()).unwrap();
        assert!(store.rest());
        let range = (Bound::Unbounded, Bound::Excluded(vec![9]));
        let walk: Box<dyn Iterator<Item = _>> = match backward {
            false => Box::new(store.range(range)),
            true => Box::new(store.range_back(range)),
        };
        let mut met = Vec::new();
        for row in walk {
            met.push(row.unwrap().0[0]);
            for key in [1, 2, 3] {
                store.tree.insert([key], &[key]).unwrap();
            }
        }
        assert_eq!(met, if backward { [3, 2, 1] } else { [1, 2, 3] });
    }
}

/// The end was found behind a row that was removed: what is put in front of it later must not make
/// the walk go on, for some would be met and some not.
#[test]
fn a_walk_that_has_ended_stays_ended() {
    let (_dir, store) = empty();
    let row = |key: u8, value: Option<u8>| (vec![key], value.map(|value| IVec::from(&[value])));
    store.commit([row(1, Some(1)), row(5, Some(5))].into()).unwrap();
    assert!(store.rest());
    store.commit([row(5, None)].into()).unwrap();
    let mut walk = store.range((Bound::Unbounded, Bound::Excluded(vec![9])));
    assert_eq!(walk.next().unwrap().unwrap().0, [1]);
    assert!(walk.next().is_none());
    store.commit([row(3, Some(3)), row(7, Some(7))].into()).unwrap();
    assert!(walk.next().is_none());
}

/// Something done to a store of one-letter keys.
#[derive(Clone, Debug)]
enum Deed {
    Commit(Vec<(u8, Option<u8>)>),
    /// A layer is begun on top of the one that grew.
    Rest,
    Fold,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let row = (0..12_u8, proptest::option::of(any::<u8>()));
    let deed = prop_oneof![
        5 => proptest::collection::vec(row, 1..6).prop_map(Deed::Commit),
        2 => Just(Deed::Rest),
        1 => Just(Deed::Fold),
    ];
    proptest::collection::vec(deed, 1..24)
}

fn bound(key: u8, kind: u8) -> Bound<Vec<u8>> {
    match kind {
        0 => Bound::Unbounded,
        1 => Bound::Included(vec![key]),
        _ => Bound::Excluded(vec![key]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn tree_and_layers_are_one_table(
        deeds in deeds(),
        (first, last) in (0..13_u8, 0..13_u8),
        kinds in (0..3_u8, 0..3_u8),
    ) {
        let (_dir, store) = empty();
        let mut model = BTreeMap::new();
        let (first, last) = (first.min(last), first.max(last));
        // Up to the table of meta rows at most.
        let end = if kinds.1 == 0 { Bound::Excluded(vec![keys::META]) } else { bound(last, kinds.1) };
        let range = (bound(first, kinds.0), end);
        // Begun before anything was there, and taken a step at a time.
        let mut slow = store.range(range.clone());
        let mut passed: Option<Vec<u8>> = None;
        let mut ended = false;
        for deed in deeds {
            match deed {
                Deed::Commit(rows) => {
                    let rows = rows.into_iter().map(|(key, value)| {
                        (vec![key], value.map(|value| IVec::from(&[value])))
                    });
                    let rows: RowChanges = rows.collect();
                    for (key, value) in &rows {
                        match value {
                            Some(value) => drop(model.insert(key.clone(), value.clone())),
                            None => drop(model.remove(key)),
                        }
                    }
                    store.commit(rows).unwrap();
                }
                Deed::Rest => drop(store.rest()),
                Deed::Fold => store.fold().unwrap(),
            }
            let expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| std::ops::RangeBounds::contains(&range, *key))
                .map(|(key, value)| (IVec::from(key.as_slice()), value.clone()))
                .collect();
            let forward: Vec<_> = store.range(range.clone()).map(Result::unwrap).collect();
            prop_assert_eq!(&forward, &expected);
            let mut backward: Vec<_> = store.range_back(range.clone()).map(Result::unwrap).collect();
            backward.reverse();
            prop_assert_eq!(&backward, &expected);
            for key in 0..12_u8 {
                prop_assert_eq!(store.value(&[key]).unwrap(), model.get(&vec![key]).cloned());
            }
            let left = |key: &IVec| passed.as_ref().is_none_or(|last| **key > **last);
            let next = expected.iter().find(|(key, _)| !ended && left(key)).cloned();
            let found = slow.next().transpose().unwrap();
            prop_assert_eq!(&found, &next);
            match found {
                Some((key, _)) => passed = Some(key.to_vec()),
                None => ended = true,
            }
        }
        store.fold_all().unwrap();
        let mut tree: BTreeMap<_, _> = store
            .tree()
            .iter()
            .map(Result::unwrap)
            .map(|(key, value)| (key.to_vec(), value))
            .collect();
        tree.remove(keys::FOLDED_KEY);
        prop_assert_eq!(tree, model);
    }
}
