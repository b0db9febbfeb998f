//! Who uses which body: the part of a plan that counts them, gives new bodies their rows and takes
//! those of unused ones away.

use std::collections::{BTreeMap, HashMap};

use sled::IVec;

use super::batch::{StagedBody, StagedPlace};
use super::body_row::{BodyPlace, BodyRow, file_name};
use super::codec::{self, ReadError, Rows};
use super::plan::{Books, Changes};
use super::space::Need;
use super::{BodyId, SpoolError, keys};

/// How many users more, or fewer, each body has after a batch.
pub(super) type Users = BTreeMap<BodyId, i64>;

/// Counts the bodies that a record named before and names after.
pub(super) fn count(
    before: impl IntoIterator<Item = BodyId>,
    after: impl IntoIterator<Item = BodyId>,
    users: &mut Users,
) {
    before.into_iter().for_each(|body| *users.entry(body).or_default() -= 1);
    after.into_iter().for_each(|body| *users.entry(body).or_default() += 1);
}

/// Changes the rows of bodies whose users have changed; new ones are taken from `staged`.
///
/// # Errors
/// [`SpoolError::Corrupt`] when a body is neither there nor staged, [`ReadError::Unreadable`] when
/// a row that should get more users cannot be read.
pub(super) fn settle(
    users: Users,
    staged: Vec<StagedBody>,
    rows: &impl Rows,
    books: &mut Books,
    changes: &mut Changes,
) -> Result<(), ReadError> {
    // What is staged and not needed is removed when the map is dropped.
    let mut staged: HashMap<BodyId, StagedBody> =
        staged.into_iter().map(|body| (body.id(), body)).collect();
    for (body, delta) in users.into_iter().filter(|(_, delta)| *delta != 0) {
        let key = keys::body(body);
        match codec::load::<BodyRow>(rows, &key) {
            Ok(Some(row)) => change(body, row, delta, changes)?,
            Ok(None) if delta > 0 => {
                let staged = staged.remove(&body).ok_or_else(|| missing(body))?;
                adopt(staged, delta, rows, books, changes)?;
            }
            // Already in quarantine: what goes now was not counted by any row.
            Ok(None) => {}
            // A message may leave although the row of its body is damaged.
            Err(ReadError::Unreadable { .. }) if delta < 0 => changes.damage = true,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn missing(body: BodyId) -> SpoolError {
    SpoolError::Corrupt(format!("body {body} is not there"))
}

fn change(body: BodyId, row: BodyRow, delta: i64, changes: &mut Changes) -> Result<(), SpoolError> {
    let key = keys::body(body);
    let after = row.with_users(delta);
    if after.is_none() {
        match row.place {
            BodyPlace::Inline { slot } => changes.remove(keys::inline(slot)),
            BodyPlace::File { number } => {
                changes.put(keys::gone(&file_name(body, number)), IVec::default());
                changes.gone.push((body, number));
            }
        }
    }
    changes.record(&key, after.as_ref(), 0)
}

fn adopt(
    staged: StagedBody,
    users: i64,
    rows: &impl Rows,
    books: &mut Books,
    changes: &mut Changes,
) -> Result<(), SpoolError> {
    let (body, size) = (staged.id(), staged.size());
    let place = match staged.place {
        StagedPlace::Inline(bytes) => {
            let slot = books.slot;
            books.slot = slot.saturating_add(1);
            changes.put(keys::inline(slot), bytes);
            BodyPlace::Inline { slot }
        }
        StagedPlace::File(file) => {
            let number = file.number;
            changes.adopted.push(file);
            BodyPlace::File { number }
        }
    };
    changes.raise_need(Need::Progress);
    let key = keys::body(body);
    let damaged = books.counters.quarantined > 0;
    let users = if damaged && rows.value(&keys::quarantine(&key))?.is_some() {
        BodyRow::PINNED
    } else {
        u32::try_from(users).unwrap_or(BodyRow::PINNED)
    };
    changes.record(&key, Some(&BodyRow { users, size, place }), 0)
}
