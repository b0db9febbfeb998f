//! Bodies as they lie on the disk: compared with their digest, and looked for when their row is
//! lost.

use std::fs::File;
use std::io::{self, Read};

use crate::spool::bodies::BodyFolder;
use crate::spool::body_row::{BodyPlace, BodyRow, parse_file_name};
use crate::spool::codec::{FORMAT, Rows};
use crate::spool::store::Store;
use crate::spool::{BodyId, SpoolError, keys};

/// How much of a file is read at once.
const CHUNK: usize = 256 * 1024;

/// How a body is.
pub(super) enum Condition {
    /// As it was.
    Whole,
    /// Missing or not what it was, in words.
    Lost(String),
}

/// Reads a body and compares it with its digest.
pub(super) fn verify(
    store: &Store,
    folder: &BodyFolder,
    body: BodyId,
    row: &BodyRow,
    buffer: &mut Vec<u8>,
) -> Result<Condition, SpoolError> {
    let found = match row.place {
        BodyPlace::Inline { slot } => match store.value(&keys::inline(slot))? {
            None => Err("its bytes are missing".to_owned()),
            Some(bytes) if bytes.first() != Some(&FORMAT) => {
                Err("its bytes have an unknown format".to_owned())
            }
            Some(bytes) => {
                let bytes = bytes.get(1..).unwrap_or_default();
                Ok((u64::try_from(bytes.len()).unwrap_or(0), blake3::hash(bytes)))
            }
        },
        BodyPlace::File { number } => match folder.open_file(body, number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err("its file is missing".to_owned())
            }
            Err(error) => Err(format!("its file cannot be opened: {error}")),
            Ok(file) => digest(file, buffer).map_err(|e| format!("its file cannot be read: {e}")),
        },
    };
    Ok(match found {
        Err(why) => Condition::Lost(why),
        Ok((size, digest)) if digest == blake3::Hash::from_bytes(body.0) && size == row.size => {
            Condition::Whole
        }
        Ok((size, _)) if size != row.size => {
            Condition::Lost(format!("it has {size} bytes instead of {}", row.size))
        }
        Ok(_) => Condition::Lost("it does not match its digest".to_owned()),
    })
}

/// Size and digest of a file.
fn digest(mut file: File, buffer: &mut Vec<u8>) -> io::Result<(u64, blake3::Hash)> {
    buffer.resize(CHUNK, 0);
    let (mut hasher, mut size) = (blake3::Hasher::new(), 0_u64);
    loop {
        let count = match file.read(buffer) {
            Ok(0) => return Ok((size, hasher.finalize())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(buffer.get(..count).unwrap_or_default());
        size = size.saturating_add(u64::try_from(count).unwrap_or(0));
    }
}

/// Looks for a whole file of a body whose row is lost.
pub(super) fn find_file(
    folder: &BodyFolder,
    body: BodyId,
    buffer: &mut Vec<u8>,
) -> Result<Option<BodyRow>, SpoolError> {
    for name in folder.names_beside(body)? {
        let Some((its, number)) = parse_file_name(&name).filter(|(its, _)| *its == body) else {
            continue;
        };
        let Ok(file) = folder.open_file(its, number) else { continue };
        if let Ok((size, digest)) = digest(file, buffer)
            && digest == blake3::Hash::from_bytes(body.0)
        {
            let place = BodyPlace::File { number };
            return Ok(Some(BodyRow { users: BodyRow::PINNED, size, place }));
        }
    }
    Ok(None)
}
