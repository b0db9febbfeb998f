//! `body/B`: who uses a body, and where its bytes are.

use serde::{Deserialize, Serialize};

use super::BodyId;

/// The row of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BodyRow {
    /// How many times records name the body; at zero it goes. [`BodyRow::PINNED`] never changes.
    pub users: u32,
    /// Size in bytes.
    pub size: u64,
    /// Where the bytes are.
    pub place: BodyPlace,
}

/// Where the bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum BodyPlace {
    /// In the row `inline/slot`.
    Inline {
        /// A number that is never given out twice.
        slot: u64,
    },
    /// In a file named after the digest and this number.
    File {
        /// Drawn for each file, so that one that is written never meets one that is being
        /// removed, though both have the same digest.
        number: u64,
    },
}

impl BodyRow {
    /// The users of a body whose earlier row could not be read: some records that name it are not
    /// counted, so it must not go by counting.
    pub(super) const PINNED: u32 = u32::MAX;

    /// The row after `delta` more users, `None` when nobody uses it any more.
    pub(super) fn with_users(self, delta: i64) -> Option<BodyRow> {
        if self.users == Self::PINNED {
            return Some(self);
        }
        let users = i64::from(self.users).saturating_add(delta);
        // One below the pin: so many users of one body do not exist.
        let users = u32::try_from(users.max(0)).unwrap_or(Self::PINNED - 1);
        (users > 0).then_some(BodyRow { users, ..self })
    }
}

/// The name of a body file.
pub(super) fn file_name(body: BodyId, number: u64) -> String {
    format!("{body}.{number:016x}")
}

/// What a name made by [`file_name`] says.
pub(super) fn parse_file_name(name: &str) -> Option<(BodyId, u64)> {
    let (body, number) = name.split_once('.')?;
    let parsed = (body.parse().ok()?, u64::from_str_radix(number, 16).ok()?);
    (file_name(parsed.0, parsed.1) == name).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: BodyRow = BodyRow { users: 2, size: 9, place: BodyPlace::Inline { slot: 1 } };

    #[test]
    fn a_body_goes_with_its_last_user() {
        assert_eq!(ROW.with_users(1).map(|row| row.users), Some(3));
        assert_eq!(ROW.with_users(-1).map(|row| row.users), Some(1));
        assert_eq!(ROW.with_users(-2), None);
        assert_eq!(ROW.with_users(-3), None);
    }

    #[test]
    fn a_pinned_body_stays() {
        let pinned = BodyRow { users: BodyRow::PINNED, ..ROW };
        assert_eq!(pinned.with_users(-5), Some(pinned));
    }

    #[test]
    fn file_names_read_back() {
        let body = BodyId([0xAB; 32]);
        assert_eq!(parse_file_name(&file_name(body, 77)), Some((body, 77)));
        for name in ["", ".", "ab.1", "x.y", "../../etc/passwd"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
        assert_eq!(parse_file_name(&format!("{body}.4D")), None);
    }
}
