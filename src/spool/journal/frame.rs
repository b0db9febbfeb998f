//! How groups of rows lie in a journal file. Pure.
//!
//! A file is a head of 24 octets (8 that say what it is, 8 of its number, 8 of its salt) and frames,
//! each a group:
//!
//! | octets | what |
//! | --- | --- |
//! | 4 | `pGrp` |
//! | 8 | the salt of the file |
//! | 4 | octets of the rows |
//! | 4 | which frame of the file it is, from 0 |
//! | 4 | CRC-32 of the number of the file, the three fields before and the rows |
//! | | the rows: length of the key (4), 1 + length of the value (4) or 0 for a removal, key, value |
//!
//! Numbers are big-endian. Each frame is synced before the next one is written, so only the last
//! can be torn: one that makes no sense and has a good one behind it was damaged later. The salt is
//! drawn for each file: a mail whose text looks like a frame is none.

use std::ops::Range;

use sled::IVec;

use crate::spool::codec::RowChange;

/// What a journal file begins with.
const HEAD: &[u8; 8] = b"pJournl1";
/// Octets before the first frame.
const HEAD_LEN: usize = 24;
/// What a frame begins with.
const MAGIC: &[u8; 4] = b"pGrp";
/// Octets of a frame before its rows.
const FRAME_LEN: usize = 24;

/// What no text of a mail can know.
pub(super) type Salt = [u8; 8];

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) number: u64,
    pub(super) salt: Salt,
}

/// The head of a file.
pub(super) fn head(file: FileId) -> Vec<u8> {
    [HEAD.as_slice(), &file.number.to_be_bytes(), &file.salt].concat()
}

/// Appends a group as frame `index` of a file. `None`, and nothing usable in `out`, when it is
/// larger than a frame can be.
pub(super) fn append<'a>(
    out: &mut Vec<u8>,
    file: FileId,
    index: u32,
    rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> Option<()> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_LEN]);
    for (key, value) in rows {
        out.extend_from_slice(&u32::try_from(key.len()).ok()?.to_be_bytes());
        let len = match value {
            Some(value) => u32::try_from(value.len()).ok()?.checked_add(1)?,
            None => 0,
        };
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value.unwrap_or_default());
    }
    let (head, rows) = out.get_mut(start..)?.split_at_mut(FRAME_LEN);
    let len = u32::try_from(rows.len()).ok()?.to_be_bytes();
    let index = index.to_be_bytes();
    let sum = sum(file, len, index, rows).to_be_bytes();
    head.copy_from_slice(&[MAGIC.as_slice(), &file.salt, &len, &index, &sum].concat());
    Some(())
}

fn sum(file: FileId, len: [u8; 4], index: [u8; 4], rows: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file.number.to_be_bytes());
    hasher.update(&file.salt);
    hasher.update(&len);
    hasher.update(&index);
    hasher.update(rows);
    hasher.finalize()
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::spool) struct Contents {
    /// The rows of its groups, in order: the last one of a key counts.
    pub(in crate::spool) rows: Vec<RowChange>,
    /// Where octets lie that make no sense although a good group stands behind them.
    pub(in crate::spool) damage: Vec<Range<usize>>,
    /// Octets behind the last good group. In the last file: one that was never promised to anybody.
    pub(in crate::spool) torn: usize,
}

/// The salts a file may have: what its head says, and what its first frame says, should the head
/// be damaged.
fn salts(bytes: &[u8]) -> [Option<Salt>; 2] {
    let at = |start: usize| bytes.get(start..)?.first_chunk::<8>().copied();
    [at(HEAD_LEN - 8), at(HEAD_LEN + MAGIC.len())]
}

/// Reads a whole file.
pub(super) fn read(bytes: &[u8], number: u64) -> Contents {
    let salts = salts(bytes);
    let mut contents = Contents::default();
    let (mut at, mut next) = (0, 0_u32);
    let is_head =
        |salt: &Salt| bytes.get(..HEAD_LEN) == Some(&*head(FileId { number, salt: *salt }));
    if salts.iter().flatten().any(is_head) {
        at = HEAD_LEN;
    }
    // From where on nothing made sense, when that is so.
    let mut odd = (at == 0 && !bytes.is_empty()).then_some(0);
    while at < bytes.len() {
        let frame = bytes.get(at..).and_then(|rest| frame(rest, number, &salts, next));
        if let Some((index, rows, len)) = frame {
            contents.damage.extend(odd.take().map(|start| start..at));
            contents.rows.extend(rows);
            next = index.saturating_add(1);
            at += len;
            continue;
        }
        odd = odd.or(Some(at));
        let behind = bytes.get(at + 1..).unwrap_or_default();
        match behind.windows(MAGIC.len()).position(|found| found == MAGIC) {
            Some(skipped) => at += 1 + skipped,
            None => at = bytes.len(),
        }
    }
    contents.torn = odd.map_or(0, |start| bytes.len() - start);
    contents
}

/// The frame at the start of `bytes`, if it is one of this file and not before `from`: which, its
/// rows, and its octets.
fn frame(
    bytes: &[u8],
    number: u64,
    salts: &[Option<Salt>],
    from: u32,
) -> Option<(u32, Vec<RowChange>, usize)> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (salt, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let (said, rest) = rest.split_first_chunk::<4>()?;
    if magic != MAGIC || !salts.contains(&Some(*salt)) {
        return None;
    }
    let rows = rest.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    let which = u32::from_be_bytes(*index);
    let file = FileId { number, salt: *salt };
    if which < from || sum(file, *len, *index, rows).to_be_bytes() != *said {
        return None;
    }
    Some((which, changes(rows)?, FRAME_LEN + rows.len()))
}

fn changes(mut bytes: &[u8]) -> Option<Vec<RowChange>> {
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let (key_len, rest) = bytes.split_first_chunk::<4>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let key_len = usize::try_from(u32::from_be_bytes(*key_len)).ok()?;
        let (key, rest) = rest.split_at_checked(key_len)?;
        let (value, rest) = match u32::from_be_bytes(*value_len).checked_sub(1) {
            Some(len) => {
                let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                (Some(IVec::from(value)), rest)
            }
            None => (None, rest),
        };
        changes.push((key.to_vec(), value));
        bytes = rest;
    }
    Some(changes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(key: &str, value: Option<&str>) -> RowChange {
        (key.as_bytes().to_vec(), value.map(|value| IVec::from(value.as_bytes())))
    }

    fn id(number: u64) -> FileId {
        FileId { number, salt: *b"12345678" }
    }

    fn file(number: u64, groups: &[Vec<RowChange>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = head(id(number));
        let mut ends = vec![bytes.len()];
        for (index, group) in (0..).zip(groups) {
            let rows = group.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
            append(&mut bytes, id(number), index, rows).unwrap();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn groups() -> Vec<Vec<RowChange>> {
        vec![
            vec![change("a", Some("one")), change("b", None)],
            vec![change("a", Some("")), change("", Some("pGrp"))],
            vec![change("c", Some(&"long ".repeat(900)))],
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, _) = file(7, &groups());
        let found = read(&bytes, 7);
        assert_eq!(found, Contents { rows: groups().concat(), damage: vec![], torn: 0 });
        assert_eq!(read(&[], 7), Contents::default());
    }

    #[test]
    fn a_file_of_another_number_holds_nothing() {
        let (bytes, _) = file(7, &groups());
        let found = read(&bytes, 8);
        assert_eq!(found, Contents { rows: vec![], damage: vec![], torn: bytes.len() });
    }

    #[test]
    fn wherever_it_ends_the_groups_before_are_there() {
        let (bytes, ends) = file(7, &groups());
        for len in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= len).count().saturating_sub(1);
            let torn = len - ends.iter().rev().find(|end| **end <= len).unwrap_or(&0);
            let mut cut = bytes[..len].to_vec();
            for tail in [0, 1, 5_000] {
                cut.resize(len + tail, 0);
                let found = read(&cut, 7);
                let rows = groups()[..whole].concat();
                // Any salt makes a head.
                let head = if (16..HEAD_LEN).contains(&len) && len + tail >= HEAD_LEN {
                    HEAD_LEN
                } else {
                    0
                };
                let torn = torn + tail - head;
                assert_eq!(found, Contents { rows, damage: vec![], torn }, "{len}");
            }
        }
    }

    #[test]
    fn damage_takes_its_group_and_no_other() {
        let (bytes, ends) = file(7, &groups());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            let found = read(&damaged, 7);
            // The head says nothing that a frame does not say, too.
            let hit = ends.iter().filter(|end| **end <= at).count().checked_sub(1);
            let kept =
                (0..3).filter(|group| Some(*group) != hit).map(|group| groups()[group].clone());
            assert_eq!(found.rows, kept.collect::<Vec<_>>().concat(), "{at}");
            let last = at >= ends[2];
            // The salt stands in each frame, too.
            let unseen = (16..HEAD_LEN).contains(&at);
            assert_eq!(found.damage.len(), usize::from(!last && !unseen), "{at}");
            assert_eq!(found.torn, if last { bytes.len() - ends[2] } else { 0 }, "{at}");
        }
    }

    #[test]
    fn a_text_that_looks_like_a_frame_is_none() {
        let other = FileId { salt: *b"guessed!", ..id(7) };
        let mut forged = Vec::new();
        let row = [(b"a".as_slice(), Some(b"forged".as_slice()))];
        append(&mut forged, other, 3, row.into_iter()).unwrap();
        let group = vec![(b"i".to_vec(), Some(IVec::from(forged)))];
        let (mut bytes, ends) = file(7, &[vec![change("a", Some("true"))], group]);
        // The group with the text is torn, and then it is damaged with a good one behind it.
        bytes[ends[1] + 30] ^= 1;
        assert_eq!(read(&bytes, 7).rows, [change("a", Some("true"))]);
        append(&mut bytes, id(7), 2, [(b"b".as_slice(), None)].into_iter()).unwrap();
        let found = read(&bytes, 7);
        assert_eq!(found.rows, [change("a", Some("true")), change("b", None)]);
        assert_eq!(found.damage, vec![ends[1]..ends[2]]);
    }

    proptest! {
        #[test]
        fn whatever_lies_there_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let found = read(&bytes, 7);
            prop_assert!(found.rows.is_empty());
            prop_assert_eq!(found.torn, bytes.len());
            let whole = [head(id(7)).as_slice(), MAGIC, &bytes].concat();
            prop_assert!(read(&whole, 7).rows.is_empty());
        }
    }
}
