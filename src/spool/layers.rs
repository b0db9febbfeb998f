//! What was committed and the tree does not have yet, in memory: a layer that grows, and for a while
//! one below it that does not change while the tree takes it over. Pure.
//!
//! A row that comes and goes before the tree has heard of it leaves nothing behind: most rows of
//! a message that is sent at once never cost the tree anything.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use sled::IVec;

use super::store::Range;

/// Octets of memory that a row costs beside those of its key and value, about.
const ROW: u64 = 96;

/// In which order rows are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// Rows that cover those of the same key below.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// `None` where there is a row below that was removed.
    rows: BTreeMap<Vec<u8>, Option<IVec>>,
    octets: u64,
    /// How many rows were removed that are below.
    removed: usize,
}

impl Layer {
    /// What the layer says about a row; `None` when it says nothing.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&IVec>> {
        self.rows.get(key).map(Option::as_ref)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], Option<&IVec>)> {
        self.rows.iter().map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    /// Octets of memory, about.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// How many rows it removes from those below.
    pub(super) fn removed(&self) -> usize {
        self.removed
    }

    fn cost(key: &[u8], value: Option<&IVec>) -> u64 {
        let octets = key.len() + value.map_or(0, |value| value.len());
        ROW.saturating_add(u64::try_from(octets).unwrap_or(u64::MAX))
    }

    /// Puts or removes a row. `is_below` says whether there is one below when it is removed.
    pub(super) fn change(&mut self, key: Vec<u8>, value: Option<IVec>, is_below: bool) {
        let keeps = value.is_some() || is_below;
        let added = if keeps { Self::cost(&key, value.as_ref()) } else { 0 };
        self.removed += usize::from(keeps && value.is_none());
        let key_cost = Self::cost(&key, None);
        let before = match keeps {
            true => self.rows.insert(key, value),
            false => self.rows.remove(&key),
        };
        if let Some(before) = before {
            let value = before.as_ref().map_or(0, |value| value.len());
            let cost = key_cost.saturating_add(u64::try_from(value).unwrap_or(u64::MAX));
            self.octets = self.octets.saturating_sub(cost);
            self.removed -= usize::from(before.is_none());
        }
        self.octets = self.octets.saturating_add(added);
    }

    /// The first row of a range, or the last.
    fn next(&self, (start, end): &Range, direction: Direction) -> Option<(&[u8], Option<&IVec>)> {
        let (start, end) = (as_slice(start), as_slice(end));
        if is_nothing(start, end) {
            return None;
        }
        let mut rows = self.rows.range::<[u8], _>((start, end));
        let found = match direction {
            Direction::Forward => rows.next(),
            Direction::Backward => rows.next_back(),
        };
        found.map(|(key, value)| (key.as_slice(), value.as_ref()))
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Whether no key lies between these; the map does not take such a range.
fn is_nothing(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    }
}

/// What is said of a row without a look into the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<T> {
    There(T),
    Absent,
    /// The tree knows.
    Nothing,
}

/// Both layers.
#[derive(Debug, Default)]
pub(super) struct Layers {
    growing: Layer,
    /// What the tree is taking over.
    resting: Option<Arc<Layer>>,
    /// For each table (the first octet of a key) a key behind which the tree has none. Most keys
    /// begin with a time, so a new message is behind all others and is not looked for there.
    last: BTreeMap<u8, Vec<u8>>,
    /// How many layers the tree has taken over.
    folded: u64,
}

impl Layers {
    /// What is known about a row.
    pub(super) fn get(&self, key: &[u8]) -> Said<&IVec> {
        match self.growing.get(key) {
            Some(said) => said.map_or(Said::Absent, Said::There),
            None => self.below(key),
        }
    }

    /// What is known about a row below the layer that grows.
    pub(super) fn below(&self, key: &[u8]) -> Said<&IVec> {
        match self.resting.as_ref().and_then(|layer| layer.get(key)) {
            Some(said) => said.map_or(Said::Absent, Said::There),
            None if self.is_behind(key) => Said::Absent,
            None => Said::Nothing,
        }
    }

    /// Whether the tree has no such key, nor one behind it in its table.
    fn is_behind(&self, key: &[u8]) -> bool {
        let table = key.first().and_then(|table| self.last.get(table));
        table.is_none_or(|last| key > last.as_slice())
    }

    /// The tree has a row of this key, or had one.
    pub(super) fn note(&mut self, key: &[u8]) {
        let Some(table) = key.first() else { return };
        match self.last.get_mut(table) {
            Some(last) if last.as_slice() >= key => {}
            Some(last) => {
                last.clear();
                last.extend_from_slice(key);
            }
            None => drop(self.last.insert(*table, key.to_vec())),
        }
    }

    /// The layer that grows.
    pub(super) fn growing(&self) -> &Layer {
        &self.growing
    }

    /// The layer that grows, to be changed.
    pub(super) fn growing_mut(&mut self) -> &mut Layer {
        &mut self.growing
    }

    /// The layer that the tree is taking over.
    pub(super) fn resting(&self) -> Option<&Arc<Layer>> {
        self.resting.as_ref()
    }

    /// Begins a layer on top of the one that grew; none may be resting.
    pub(super) fn rest(&mut self) {
        debug_assert!(self.resting.is_none());
        self.resting = Some(Arc::new(std::mem::take(&mut self.growing)));
    }

    /// The tree has taken over the layer that rests; its last keys are noted.
    pub(super) fn folded(&mut self) {
        self.resting = None;
        self.folded += 1;
    }

    /// How many layers the tree has taken over: what was read from it before such a change and
    /// not looked at yet may have been covered then and is not any more.
    pub(super) fn folds(&self) -> u64 {
        self.folded
    }

    /// The first row of a range, or the last, of which a layer says something.
    pub(super) fn next(
        &self,
        range: &Range,
        direction: Direction,
    ) -> Option<(&[u8], Option<&IVec>)> {
        let above = self.growing.next(range, direction);
        let below = self.resting.as_ref().and_then(|layer| layer.next(range, direction));
        match (above, below) {
            (Some(above), Some(below)) => {
                let first = match direction {
                    Direction::Forward => above.0 <= below.0,
                    Direction::Backward => above.0 >= below.0,
                };
                Some(if first { above } else { below })
            }
            (above, below) => above.or(below),
        }
    }
}
