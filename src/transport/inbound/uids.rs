//! A set of UIDs, kept as ranges: the mail of years in a row is one of them.

use std::collections::BTreeMap;

use crate::spool::UidRange;

/// UIDs as ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UidSet {
    /// Last UID of each range by its first.
    ranges: BTreeMap<u32, u32>,
    /// How many UIDs that are.
    count: u64,
}

impl UidSet {
    /// What a record holds; ranges that make no sense hold nothing.
    pub(super) fn of(ranges: &[UidRange]) -> Self {
        let mut set = UidSet::default();
        for range in ranges {
            set.insert_range(range.first, range.last);
        }
        set
    }

    /// For a record.
    pub(super) fn ranges(&self) -> Vec<UidRange> {
        self.ranges.iter().map(|(first, last)| UidRange { first: *first, last: *last }).collect()
    }

    /// How many ranges there are: what the set takes in memory and on disk goes by them.
    pub(super) fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// How many UIDs there are.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn contains(&self, uid: u32) -> bool {
        self.ranges.range(..=uid).next_back().is_some_and(|(_, last)| *last >= uid)
    }

    /// The lowest UIDs, at most so many, ascending.
    pub(super) fn lowest(&self, most: usize) -> Vec<u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last).take(most).collect()
    }

    pub(super) fn insert(&mut self, uid: u32) {
        self.insert_range(uid, uid);
    }

    fn insert_range(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // Those that end in front of the new one or within it, or right before it, and those that
        // begin within it or right behind it, become one with it.
        let reach = last.saturating_add(1);
        while let Some((from, to)) = self.ranges.range(..=reach).next_back().map(copied)
            && to >= first.saturating_sub(1)
        {
            self.ranges.remove(&from);
            self.count -= length(from, to);
            first = first.min(from);
            last = last.max(to);
        }
        self.ranges.insert(first, last);
        self.count += length(first, last);
    }

    pub(super) fn remove(&mut self, uid: u32) {
        let Some((first, last)) = self.ranges.range(..=uid).next_back().map(copied) else { return };
        if last < uid {
            return;
        }
        self.ranges.remove(&first);
        self.count -= 1;
        if first < uid {
            self.ranges.insert(first, uid - 1);
        }
        if uid < last {
            self.ranges.insert(uid + 1, last);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = UidSet::default();
    }
}

fn copied((first, last): (&u32, &u32)) -> (u32, u32) {
    (*first, *last)
}

fn length(first: u32, last: u32) -> u64 {
    u64::from(last - first) + 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_in_a_row_is_one_range() {
        let mut set = UidSet::default();
        for uid in [5, 3, 4, 1, u32::MAX, u32::MAX - 1] {
            set.insert(uid);
        }
        let range = |first, last| UidRange { first, last };
        assert_eq!(set.ranges(), [range(1, 1), range(3, 5), range(u32::MAX - 1, u32::MAX)]);
        set.insert(2);
        assert_eq!(set.ranges(), [range(1, 5), range(u32::MAX - 1, u32::MAX)]);
        assert_eq!((set.len(), set.range_count()), (7, 2));
        set.remove(3);
        set.remove(u32::MAX);
        set.remove(77);
        assert_eq!(set.lowest(3), [1, 2, 4]);
        assert_eq!(set.lowest(99), [1, 2, 4, 5, u32::MAX - 1]);
    }

    #[test]
    fn ranges_of_a_record_may_be_anything() {
        let range = |first, last| UidRange { first, last };
        let set = UidSet::of(&[range(4, 9), range(9, 4), range(1, 4), range(0, u32::MAX)]);
        assert_eq!((set.len(), set.range_count()), (1 << 32, 1));
        let set = UidSet::of(&[range(7, 9), range(1, 2), range(2, 8), range(11, 11)]);
        assert_eq!(set.ranges(), [range(1, 9), range(11, 11)]);
    }

    proptest! {
        /// It is the set that a set of numbers would be, and its record is the set again.
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0u32..40), 0..200)) {
            let (mut set, mut model) = (UidSet::default(), BTreeSet::new());
            for (add, uid) in steps {
                if add {
                    set.insert(uid);
                    model.insert(uid);
                } else {
                    set.remove(uid);
                    model.remove(&uid);
                }
                let all: Vec<u32> = model.iter().copied().collect();
                prop_assert_eq!(set.lowest(usize::MAX), all);
                prop_assert_eq!(set.len(), u64::try_from(model.len()).unwrap());
                prop_assert_eq!(UidSet::of(&set.ranges()), set.clone());
                prop_assert!((0..41).all(|uid| set.contains(uid) == model.contains(&uid)));
                let ranges = set.ranges();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            }
        }
    }
}
