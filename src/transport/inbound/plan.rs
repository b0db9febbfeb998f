//! What to ask a server for, and when a message is whole. Arithmetic only.

use std::fmt::Write as _;

/// Most numbers that are named in one command: far below the 64 KiB line of Dovecot and the
/// 8,000 octets RFC 7162 section 4 recommends.
const MOST_RANGES: usize = 300;

/// UIDs, ascending, as a sequence set (RFC 3501 section 9). Not for more than a few hundred
/// scattered ones: [`uid_sets`] splits.
fn uid_set(uids: &[u32]) -> (String, usize) {
    let mut set = String::new();
    let (mut ranges, mut used) = (0, 0);
    let mut rest = uids.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        used += 1;
        while rest.peek().is_some_and(|next| last.checked_add(1) == Some(*next)) {
            last = rest.next().unwrap_or(last);
            used += 1;
        }
        let comma = if ranges == 0 { "" } else { "," };
        let written = if first == last {
            write!(set, "{comma}{first}")
        } else {
            write!(set, "{comma}{first}:{last}")
        };
        debug_assert!(written.is_ok(), "a String takes everything");
        ranges += 1;
        if ranges == MOST_RANGES {
            break;
        }
    }
    (set, used)
}

/// UIDs, ascending, as sequence sets of bounded length.
pub(super) fn uid_sets(uids: &[u32]) -> Vec<String> {
    let mut sets = Vec::new();
    let mut rest = uids;
    while !rest.is_empty() {
        let (set, used) = uid_set(rest);
        sets.push(set);
        rest = rest.get(used..).unwrap_or_default();
    }
    sets
}

/// Which UIDs to list next. Mailboxes have gaps, so a range that held nothing is followed by a
/// wider one; eight steps cover all 2^32 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    width: u32,
    base: u32,
}

impl Listing {
    pub(super) fn new(base: u32) -> Self {
        Listing { width: base.max(1), base: base.max(1) }
    }

    /// The next range from `from` on; `uid_next` is the server's UIDNEXT where it is known. The
    /// end is `None` for "to the last one"; `None` as a whole means that nothing is left.
    pub(super) fn range(&self, from: u32, uid_next: Option<u32>) -> Option<(u32, Option<u32>)> {
        match uid_next {
            None => Some((from, None)),
            Some(next) if from >= next => None,
            Some(next) => {
                let wide = from.saturating_add(self.width - 1);
                Some((from, Some(wide.min(next - 1))))
            }
        }
    }

    /// How many messages the last range held.
    pub(super) fn found(&mut self, count: usize) {
        self.width = if count == 0 { self.width.saturating_mul(16) } else { self.base };
    }
}

/// What to do next with a message that is fetched in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceStep {
    /// Ask for so many octets from this offset.
    Ask {
        /// First octet, counted from 0.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// It is whole.
    Complete,
    /// What came cannot be the message.
    Broken(&'static str),
}

/// Progress of a message that is fetched by partial FETCH (RFC 3501 section 6.4.5).
///
/// RFC822.SIZE is a promise some servers do not keep to the octet, so it ends nothing by itself:
/// the end is where the server has no more. What falls far short of it is not believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces {
    offset: u64,
    announced: u64,
    length: u32,
}

impl Pieces {
    pub(super) fn new(announced: u32, length: u32) -> Self {
        Pieces { offset: 0, announced: u64::from(announced), length: length.max(1) }
    }

    /// Goes on behind octets that came in an earlier try.
    pub(super) fn behind(self, octets: u64) -> Self {
        Pieces { offset: octets, ..self }
    }

    pub(super) fn first(&self) -> PieceStep {
        PieceStep::Ask { offset: self.offset, length: self.length }
    }

    /// How many octets have come.
    pub(super) fn received(&self) -> u64 {
        self.offset
    }

    /// Takes the length of an answer; `None` when the reply was OK and had no such data.
    pub(super) fn next(&mut self, got: Option<usize>) -> PieceStep {
        let Some(got) = got else {
            return PieceStep::Broken("the server answers OK without the message");
        };
        let got = u64::try_from(got).unwrap_or(u64::MAX);
        let asked = u64::from(self.length);
        if got > asked {
            return PieceStep::Broken("the server sends more than was asked for");
        }
        self.offset += got;
        let short = got < asked;
        if got == 0 || (short && self.offset == self.announced) {
            return if self.offset.saturating_mul(2) < self.announced {
                PieceStep::Broken("the message ends long before its announced size")
            } else {
                PieceStep::Complete
            };
        }
        if self.offset > self.announced.saturating_mul(2).saturating_add(16 << 20) {
            return PieceStep::Broken("the message is far longer than announced");
        }
        PieceStep::Ask { offset: self.offset, length: self.length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_compressed_and_split() {
        assert_eq!(uid_sets(&[]), Vec::<String>::new());
        assert_eq!(uid_sets(&[1, 2, 3, 7, 9, 10]), ["1:3,7,9:10"]);
        assert_eq!(uid_sets(&[u32::MAX - 1, u32::MAX]), ["4294967294:4294967295"]);
        let odd: Vec<u32> = (0..1000).map(|n| 4_000_000_001 + 2 * n).collect();
        let sets = uid_sets(&odd);
        assert_eq!(sets.len(), 4);
        assert!(sets.iter().all(|set| set.len() < 4000));
        let count: usize = sets.iter().map(|set| set.split(',').count()).sum();
        assert_eq!(count, 1000);
    }

    #[test]
    fn listing_ends_at_uidnext_and_widens_over_gaps() {
        let mut listing = Listing::new(500);
        assert_eq!(listing.range(1, Some(1)), None);
        assert_eq!(listing.range(100_001, Some(100_001)), None);
        assert_eq!(listing.range(1, Some(100_001)), Some((1, Some(500))));
        assert_eq!(listing.range(1, Some(11)), Some((1, Some(10))));
        assert_eq!(listing.range(5, None), Some((5, None)));
        let (mut from, mut steps) = (1, 0);
        while let Some((_, Some(to))) = listing.range(from, Some(u32::MAX)) {
            listing.found(0);
            steps += 1;
            from = to + 1;
        }
        assert!(steps <= 8, "{steps}");
        listing.found(3);
        assert_eq!(listing.range(1, Some(1000)), Some((1, Some(500))));
    }

    fn run(announced: u32, real: u64) -> (PieceStep, usize) {
        let mut pieces = Pieces::new(announced, 100);
        let (mut step, mut asked) = (pieces.first(), 0);
        while let PieceStep::Ask { offset, length } = step {
            asked += 1;
            let left = real.saturating_sub(offset).min(u64::from(length));
            step = pieces.next(usize::try_from(left).ok());
        }
        (step, asked)
    }

    #[test]
    fn a_message_is_whole_when_the_server_has_no_more() {
        assert_eq!(run(250, 250), (PieceStep::Complete, 3));
        // A last piece of full length says nothing about the end.
        assert_eq!(run(200, 200), (PieceStep::Complete, 3));
        assert_eq!(run(0, 0), (PieceStep::Complete, 1));
    }

    #[test]
    fn what_came_before_is_not_asked_for_again() {
        let mut pieces = Pieces::new(250, 100).behind(130);
        assert_eq!(pieces.first(), PieceStep::Ask { offset: 130, length: 100 });
        assert_eq!(pieces.next(Some(100)), PieceStep::Ask { offset: 230, length: 100 });
        assert_eq!(pieces.next(Some(20)), PieceStep::Complete);
        // All of it had come.
        let mut pieces = Pieces::new(250, 100).behind(250);
        assert_eq!(pieces.next(Some(0)), PieceStep::Complete);
    }

    #[test]
    fn sizes_that_are_slightly_wrong_lose_nothing() {
        assert_eq!(run(250, 260).0, PieceStep::Complete);
        assert_eq!(run(250, 390).0, PieceStep::Complete);
        assert_eq!(run(250, 240).0, PieceStep::Complete);
        assert_eq!(run(300, 299).0, PieceStep::Complete);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        assert!(matches!(run(1000, 0).0, PieceStep::Broken(_)));
        assert!(matches!(run(1000, 400).0, PieceStep::Broken(_)));
        assert!(matches!(run(100, u64::MAX).0, PieceStep::Broken(_)));
        let mut pieces = Pieces::new(1000, 100);
        assert!(matches!(pieces.next(None), PieceStep::Broken(_)));
        assert!(matches!(Pieces::new(1000, 100).next(Some(101)), PieceStep::Broken(_)));
    }
}
