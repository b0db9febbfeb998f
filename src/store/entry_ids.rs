//! Entry ids that ascend.

use std::sync::{Mutex, PoisonError};

use ulid::Ulid;

use crate::mapi::{EntryId, SysTime};

/// Makes entry ids, each greater than the one before also when the clock goes back, so that
/// messages of one process leave in the order of their submission (OB-14).
#[derive(Debug)]
pub(super) struct EntryIds {
    last: Mutex<Ulid>,
}

impl EntryIds {
    pub(super) fn new() -> Self {
        EntryIds { last: Mutex::new(Ulid::nil()) }
    }

    pub(super) fn next(&self, now: SysTime) -> EntryId {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Ulid::from_parts(now.as_millis(), fastrand::u128(..));
        let next = match fresh > *last {
            true => fresh,
            // The random half is full about never; then the next millisecond begins early.
            false => last
                .increment()
                .unwrap_or_else(|| Ulid::from_parts(last.timestamp_ms().saturating_add(1), 0)),
        };
        *last = next;
        EntryId::from_ulid(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: OB-14
    #[test]
    fn ids_ascend_whatever_the_clock_does() {
        let ids = EntryIds::new();
        let times = [5_000_u64, 5_000, 1, 5_000, 6_000];
        let made: Vec<EntryId> =
            times.iter().map(|millis| ids.next(SysTime::from_millis(*millis))).collect();
        assert!(made.is_sorted_by(|one, next| one < next), "{made:?}");
        *ids.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Ulid::from_parts(9_000, u128::MAX);
        assert!(ids.next(SysTime::from_millis(1)) < ids.next(SysTime::from_millis(9_000)));
    }
}
