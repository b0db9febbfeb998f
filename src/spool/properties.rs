//! What has to hold for rows whose bytes are anything.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body_row::{BodyRow, file_name, parse_file_name};
use super::codec::{decode, encode};
use super::{CursorRecord, HistoryRecord, OutboxRecord, QueueRecord, keys};

/// A row that can be read can be written and read again, and is the same; one that cannot be read
/// is an error; every key can be described.
pub fn spool_rows(bytes: &[u8]) {
    row::<OutboxRecord>(bytes);
    row::<QueueRecord>(bytes);
    row::<HistoryRecord>(bytes);
    row::<CursorRecord>(bytes);
    row::<BodyRow>(bytes);
    let _ = keys::describe(bytes);
    let _ = (keys::parse_due(bytes), keys::parse_of_account(bytes), keys::parse_ended(bytes));
    let _ = (keys::parse_entry(bytes), keys::parse_inline(bytes), keys::parse_quarantine(bytes));
    if let Some((body, number)) = parse_file_name(&String::from_utf8_lossy(bytes)) {
        assert_eq!(parse_file_name(&file_name(body, number)), Some((body, number)));
    }
}

fn row<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let Ok(record) = decode::<T>(bytes) else { return };
    let written = encode(&record).unwrap();
    let again = decode::<T>(&written).unwrap();
    assert_eq!(encode(&again).unwrap(), written);
    assert_eq!(format!("{again:?}"), format!("{record:?}"));
}
