//! Sequence sets (RFC 3501 section 9, `sequence-set`) made definite.

use std::fmt::Write as _;

use imap_codec::imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

/// Rising, disjoint ranges of numbers, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// `largest` is what `*` stands for.
    pub(super) fn new(set: &SequenceSet, largest: u32) -> Self {
        let definite = |end: &SeqOrUid| match end {
            SeqOrUid::Value(value) => value.get(),
            SeqOrUid::Asterisk => largest,
        };
        let mut ranges: Vec<(u32, u32)> = set
            .0
            .as_ref()
            .iter()
            .map(|sequence| match sequence {
                Sequence::Single(one) => (definite(one), definite(one)),
                Sequence::Range(from, to) => {
                    let (from, to) = (definite(from), definite(to));
                    (from.min(to), from.max(to))
                }
            })
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= number);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, to)| number <= *to)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// The largest number in the set.
    pub(super) fn last(&self) -> u32 {
        self.0.last().map_or(0, |(_, to)| *to)
    }

    /// The smallest number in the set.
    pub(super) fn first(&self) -> u32 {
        self.0.first().map_or(0, |(from, _)| *from)
    }
}

/// Rising numbers as a sequence set, for APPENDUID and COPYUID (RFC 4315 section 3).
pub(super) fn compact(numbers: &[u32]) -> String {
    let mut out = String::new();
    let mut rest = numbers.iter().copied().peekable();
    while let Some(from) = rest.next() {
        let mut to = from;
        while let Some(next) = rest.next_if(|next| *next == to.saturating_add(1)) {
            to = next;
        }
        let separator = if out.is_empty() { "" } else { "," };
        let _ = if from == to {
            write!(out, "{separator}{from}")
        } else {
            write!(out, "{separator}{from}:{to}")
        };
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ranges(set: &str, largest: u32) -> Ranges {
        Ranges::new(&SequenceSet::try_from(set).unwrap(), largest)
    }

    #[test]
    fn sets_are_sorted_merged_and_definite() {
        assert_eq!(ranges("5,1:2,3,9:7", 20), Ranges(vec![(1, 3), (5, 5), (7, 9)]));
        assert_eq!(ranges("18:*", 20), Ranges(vec![(18, 20)]));
        // A range to `*` holds the last message even if it begins behind it.
        assert_eq!(ranges("30:*", 20), Ranges(vec![(20, 30)]));
        assert_eq!(ranges("*", 20), Ranges(vec![(20, 20)]));
    }

    #[test]
    fn membership() {
        let set = ranges("2:4,8", 20);
        let members: Vec<u32> = (0..12).filter(|&number| set.contains(number)).collect();
        assert_eq!(members, [2, 3, 4, 8]);
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        assert_eq!(compact(&[1, 2, 3, 5, 7, 8]), "1:3,5,7:8");
        assert_eq!(compact(&[]), "");
    }
}
