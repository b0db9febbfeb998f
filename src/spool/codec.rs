//! How a record becomes bytes: a format byte, then postcard. What does not fit into one value
//! continues in overflow rows.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::IVec;

use super::{SpoolError, keys};

/// First byte of every record that is written today.
pub(super) const FORMAT: u8 = 1;

/// Set in the first byte of a record that continues in overflow rows; behind it stand the number
/// of those rows (2 bytes) and the nonce that each of them begins with.
const CONTINUED: u8 = 0x80;

/// The largest value of a row, but for a few bytes of head. A leaf of sled's tree holds up to 19
/// values; at 19 times this size it still stays clear of the 131,052 bytes above which sled would
/// move it into a file of its own that it never syncs.
pub(super) const MAX_VALUE: usize = 6 * 1024;

/// The largest record that is taken.
const MAX_RECORD: usize = 16 * 1024 * 1024;

/// Marks the parts of one writing of a record, so that a reader never joins parts of two.
const NONCE: usize = 8;

/// Why a row cannot be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The row is there and makes no sense.
    Unreadable {
        /// Its key.
        key: Vec<u8>,
        /// Why.
        reason: String,
    },
    /// The tree could not be read.
    Failed(SpoolError),
}

impl From<SpoolError> for ReadError {
    fn from(error: SpoolError) -> Self {
        ReadError::Failed(error)
    }
}

/// A row that is put, or removed where there is no value.
pub(super) type RowChange = (Vec<u8>, Option<IVec>);

/// Changes of rows, no row twice.
pub(super) type RowChanges = HashMap<Vec<u8>, Option<IVec>>;

/// Where rows are read from: the tree, or the tree under changes that are not applied yet.
pub(super) trait Rows {
    /// The value at `key`.
    fn value(&self, key: &[u8]) -> Result<Option<IVec>, SpoolError>;
}

/// Bytes of a record, format byte first.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, SpoolError> {
    let bytes = postcard::to_extend(record, vec![FORMAT])
        .map_err(|error| SpoolError::Corrupt(format!("a record cannot be written: {error}")))?;
    if bytes.len() > MAX_RECORD {
        return Err(SpoolError::Corrupt(format!(
            "a record of {} bytes is too large (at most {MAX_RECORD})",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// The record of which these are all bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (format, record) = bytes.split_first().ok_or("empty record")?;
    if *format != FORMAT {
        return Err(format!("record format {format} is not known"));
    }
    match postcard::take_from_bytes(record) {
        Ok((record, [])) => Ok(record),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// The rows that hold the record `bytes` at `key`.
pub(super) fn split(key: &[u8], bytes: Vec<u8>) -> Vec<(Vec<u8>, IVec)> {
    if bytes.len() <= MAX_VALUE {
        return vec![(key.to_vec(), IVec::from(bytes))];
    }
    let digest = blake3::hash(&bytes);
    let nonce = digest.as_bytes().first_chunk::<NONCE>().unwrap_or(&[0; NONCE]);
    // The format byte moves to the head; the parts hold what is behind it.
    let record = bytes.get(1..).unwrap_or_default();
    let mut rows = Vec::with_capacity(1 + record.len() / MAX_VALUE);
    for (number, part) in (0_u16..).zip(record.chunks(MAX_VALUE)) {
        rows.push((keys::overflow(key, number), IVec::from([nonce, part].concat())));
    }
    let count = u16::try_from(rows.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = [&[FORMAT | CONTINUED], count.as_slice(), nonce].concat();
    rows.push((key.to_vec(), IVec::from(head)));
    rows
}

/// How many overflow rows belong to a record with this head.
pub(super) fn overflow_rows(head: &[u8]) -> u16 {
    match head.split_first() {
        Some((format, rest)) if format & CONTINUED != 0 => {
            rest.first_chunk().map_or(0, |count| u16::from_be_bytes(*count))
        }
        _ => 0,
    }
}

/// Whether an overflow row is of the same writing as a head.
pub(super) fn belongs(head: &[u8], part: &[u8]) -> bool {
    let nonce = head.get(3..3 + NONCE);
    nonce.is_some() && part.get(..NONCE) == nonce
}

/// All bytes of the record at `key` with this head.
pub(super) fn join(rows: &impl Rows, key: &[u8], head: IVec) -> Result<IVec, ReadError> {
    if head.first().is_none_or(|format| format & CONTINUED == 0) {
        return Ok(head);
    }
    let unreadable =
        |what: &str| ReadError::Unreadable { key: key.to_vec(), reason: what.to_owned() };
    let nonce = head.get(3..3 + NONCE).ok_or_else(|| unreadable("head of a long record cut"))?;
    let format = head.first().map_or(FORMAT, |format| format & !CONTINUED);
    let mut bytes = vec![format];
    for number in 0..overflow_rows(&head) {
        let part = rows
            .value(&keys::overflow(key, number))?
            .ok_or_else(|| unreadable("part of a long record missing"))?;
        match part.split_at_checked(NONCE) {
            Some((its, part)) if its == nonce => bytes.extend_from_slice(part),
            _ => return Err(unreadable("part of a long record does not belong to it")),
        }
    }
    Ok(IVec::from(bytes))
}

/// The record at `key`.
pub(super) fn load<T: DeserializeOwned>(
    rows: &impl Rows,
    key: &[u8],
) -> Result<Option<T>, ReadError> {
    match rows.value(key)? {
        None => Ok(None),
        Some(head) => load_from(rows, key, head).map(Some),
    }
}

/// The record at `key` with this head.
pub(super) fn load_from<T: DeserializeOwned>(
    rows: &impl Rows,
    key: &[u8],
    head: IVec,
) -> Result<T, ReadError> {
    decode(&join(rows, key, head)?)
        .map_err(|reason| ReadError::Unreadable { key: key.to_vec(), reason })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Table(BTreeMap<Vec<u8>, IVec>);

    impl Rows for Table {
        fn value(&self, key: &[u8]) -> Result<Option<IVec>, SpoolError> {
            Ok(self.0.get(key).cloned())
        }
    }

    fn stored(record: &Vec<u8>) -> Table {
        Table(split(b"qkey", encode(record).unwrap()).into_iter().collect())
    }

    #[test]
    fn records_of_every_size_come_back() {
        for len in [0, 1, MAX_VALUE - 10, MAX_VALUE, MAX_VALUE + 1, 3 * MAX_VALUE, 100_000] {
            let record: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let table = stored(&record);
            assert!(table.0.values().all(|value| value.len() <= MAX_VALUE + NONCE), "{len}");
            assert_eq!(load::<Vec<u8>>(&table, b"qkey").unwrap(), Some(record), "{len}");
            let parts = overflow_rows(&table.0[b"qkey".as_slice()]);
            assert_eq!(table.0.len(), 1 + usize::from(parts));
        }
    }

    #[test]
    fn parts_of_two_writings_are_not_joined() {
        let mut table = stored(&vec![1; 20_000]);
        let other = stored(&vec![2; 20_000]);
        let key = keys::overflow(b"qkey", 1);
        table.0.insert(key.clone(), other.0[&key].clone());
        assert!(matches!(load::<Vec<u8>>(&table, b"qkey"), Err(ReadError::Unreadable { .. })));
        table.0.remove(&key);
        assert!(matches!(load::<Vec<u8>>(&table, b"qkey"), Err(ReadError::Unreadable { .. })));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for bytes in [&[][..], &[9, 1], &[FORMAT], &[FORMAT, 1, 7, 7], &[FORMAT, 200, 1]] {
            assert!(decode::<Vec<u8>>(bytes).is_err(), "{bytes:?}");
        }
        let mut table = Table::default();
        table.0.insert(b"qkey".to_vec(), IVec::from(&[FORMAT | CONTINUED, 0]));
        assert!(matches!(load::<Vec<u8>>(&table, b"qkey"), Err(ReadError::Unreadable { .. })));
    }

    #[test]
    fn a_record_beyond_all_measure_is_refused() {
        assert!(encode(&vec![0_u8; MAX_RECORD]).is_err());
    }
}
