//! From nothing to schema 1: the tables of the first schema come to be with their first rows, so
//! all there is to do is to see that nothing else stands in the way.

/// For the log.
pub(super) const WHAT: &str = "create the spool";

/// The tables of schema 1, by the first byte of their keys.
const TABLES: &[u8] = b"bcdefghiklmopqrstuvwxyz";

/// Rows without a schema stay as they are when they are of a table of this schema; anything else
/// belongs to somebody else.
pub(super) fn run(tree: &sled::Tree, _batch: &mut sled::Batch) -> Result<(), String> {
    for table in 0..=u8::MAX {
        if TABLES.contains(&table) {
            continue;
        }
        if let Some(row) = tree.scan_prefix([table]).next() {
            row.map_err(|error| error.to_string())?;
            return Err("the folder holds rows that are not of a spool".to_owned());
        }
    }
    Ok(())
}
