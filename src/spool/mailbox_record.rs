//! What the rows of a mailbox hold from which mail is fetched.

use serde::{Deserialize, Serialize};

/// `cursor/<account><mailbox>`: how far a mailbox of the server was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRecord {
    /// UIDVALIDITY the numbers below belong to (RFC 3501 section 2.3.1.1).
    pub uid_validity: u32,
    /// Every UID up to this one is safely in the store.
    pub last_uid: u32,
    /// UIDs above `last_uid` and up to this one may be in the store already: they were being
    /// handed over when this was written (IB-6).
    pub window_end: u32,
    /// UIDs below or equal `last_uid` that were set aside because they could not be fetched.
    pub set_aside: Vec<u32>,
    /// UIDs that are in the store but whose `after` action is still owed to the server, as ranges
    /// in ascending order.
    pub after_owed: Vec<UidRange>,
    /// Set while a changed UIDVALIDITY is being caught up with: up to this UID every message is
    /// compared with what was delivered before. 0 when that is over.
    pub rematch_until: u32,
    /// How many messages are in the store and have a row in `fetched/`.
    pub counted: u32,
    /// The numbering before this one, while its rows are being taken over.
    pub retired: Option<Retired>,
    /// A COPY that was begun and whose originals are not yet known to be flagged.
    pub copying: Option<CopyIntent>,
}

/// UIDs in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRange {
    /// The first of them.
    pub first: u32,
    /// The last of them, not below the first.
    pub last: u32,
}

/// A UIDVALIDITY that has passed: which of its rows in `fetched/` name messages that are surely
/// in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDs up to this one are in the store, but for those in `set_aside`.
    pub last_uid: u32,
    /// UIDs up to `last_uid` of which that is not known.
    pub set_aside: Vec<u32>,
    /// UIDs that are in the store although they are above `last_uid` or in `set_aside`.
    pub saved: Vec<u32>,
}

/// What is needed to find out, after a crash, what a COPY has done (servers without MOVE).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyIntent {
    /// The messages.
    pub uids: Vec<u32>,
    /// The mailbox they are copied to, as the profile names it.
    pub target: String,
    /// Its UIDVALIDITY when the copy began; 0 when it did not exist.
    pub uid_validity: u32,
    /// Copies have this UID or a higher one.
    pub uid_next: u32,
}

/// The place of a message on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// UIDVALIDITY of its mailbox.
    pub uid_validity: u32,
    /// Its UID.
    pub uid: u32,
}

/// `fetched/<account><mailbox><UIDVALIDITY><UID>`: written before a message is saved, so that it
/// is known again when all numbers have changed, and removed when it has gone from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedRecord {
    /// First half of the BLAKE3 digest of its bytes.
    pub digest: [u8; 16],
    /// The place its key in the store was made from: its own, or that of an earlier numbering.
    pub origin: Origin,
}
