//! A walk over the rows as they are: those of the tree under those of the layers.

use std::cmp::Ordering;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, PoisonError, RwLock};

use sled::IVec;

use super::SpoolError;
use super::layers::{Direction, Layers};
use super::store::{Range, failed};

/// Rows of a range in the order of their keys. Like sled's own walks it is no snapshot: each step
/// sees the rows as they are then.
pub(super) struct Merged {
    layers: Arc<RwLock<Layers>>,
    tree: sled::Tree,
    direction: Direction,
    /// What is left to be walked.
    range: Range,
    below: Option<Below>,
}

/// How many removed rows are passed before writers get their turn.
const STRIDE: usize = 64;

/// What a stride comes to.
enum Stride {
    Found(IVec, IVec),
    End,
    Tired,
}

/// Where the walk is in the tree.
struct Below {
    rows: sled::Iter,
    /// A row that was read and not come to yet.
    ahead: Option<(IVec, IVec)>,
    /// When it began: the tree had taken over so many layers.
    folds: u64,
}

impl Merged {
    pub(super) fn new(
        layers: Arc<RwLock<Layers>>,
        tree: sled::Tree,
        range: Range,
        direction: Direction,
    ) -> Merged {
        Merged { layers, tree, direction, range, below: None }
    }

    /// The rest of the range begins behind this key.
    fn pass(&mut self, key: &[u8]) {
        let bound = match self.direction {
            Direction::Forward => &mut self.range.0,
            Direction::Backward => &mut self.range.1,
        };
        match bound {
            Bound::Excluded(at) => {
                at.clear();
                at.extend_from_slice(key);
            }
            bound => *bound = Bound::Excluded(key.to_vec()),
        }
    }

    /// Where the walk is in the tree; begun anew when the tree has taken over a layer since.
    fn below(&mut self, folds: u64) -> &mut Below {
        let current = self.below.take().filter(|below| below.folds == folds);
        let (tree, range) = (&self.tree, &self.range);
        self.below.insert(current.unwrap_or_else(|| Below {
            rows: tree.range(range.clone()),
            ahead: None,
            folds,
        }))
    }

    fn step(&mut self) -> Result<Option<(IVec, IVec)>, SpoolError> {
        loop {
            match self.stride()? {
                Stride::Found(key, value) => return Ok(Some((key, value))),
                Stride::End => return Ok(None),
                Stride::Tired => {}
            }
        }
    }

    fn stride(&mut self) -> Result<Stride, SpoolError> {
        let shared = Arc::clone(&self.layers);
        // No layer comes or goes meanwhile.
        let layers = shared.read().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..STRIDE {
            let direction = self.direction;
            let below = self.below(layers.folds());
            if below.ahead.is_none() {
                let next = match direction {
                    Direction::Forward => below.rows.next(),
                    Direction::Backward => below.rows.next_back(),
                };
                below.ahead = next.transpose().map_err(|error| failed("read", error))?;
            }
            // A row that was walked over in a layer may have come into the tree meanwhile.
            let is_left = |(key, _): &(IVec, IVec)| contains(&self.range, key);
            if let Some(below) = &mut self.below
                && below.ahead.as_ref().is_some_and(|ahead| !is_left(ahead))
            {
                below.ahead = None;
                continue;
            }
            let above = layers.next(&self.range, direction);
            let ahead = self.below.as_mut().map(|below| &mut below.ahead);
            let order = match (above, ahead.as_ref().and_then(|ahead| ahead.as_ref())) {
                (None, None) => return Ok(Stride::End),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((above, _)), Some((key, _))) => match direction {
                    Direction::Forward => above.cmp(key),
                    Direction::Backward => (**key).cmp(above),
                },
            };
            let ahead = ahead.filter(|_| order != Ordering::Less).and_then(Option::take);
            let (key, value) = match (order, above, ahead) {
                (Ordering::Greater, _, Some((key, value))) => (key, Some(value)),
                (_, Some((key, value)), _) => (IVec::from(key), value.cloned()),
                // Not reached: what comes first is there.
                (_, None, _) => return Ok(Stride::End),
            };
            self.pass(&key);
            if let Some(value) = value {
                return Ok(Stride::Found(key, value));
            }
        }
        Ok(Stride::Tired)
    }
}

fn contains((start, end): &Range, key: &[u8]) -> bool {
    let bounds = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
    RangeBounds::<[u8]>::contains(&bounds, key)
}

impl Iterator for Merged {
    type Item = Result<(IVec, IVec), SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
