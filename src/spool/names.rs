//! Names by which rows know bodies and logons.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of a body: the BLAKE3 digest of its bytes, so equal bodies are stored once and every
/// read can be verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BodyId(pub [u8; 32]);

impl BodyId {
    /// The byte by which body files are spread over folders.
    pub(super) fn first_byte(self) -> u8 {
        let [first, ..] = self.0;
        first
    }
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyId({self})")
    }
}

impl FromStr for BodyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        blake3::Hash::from_hex(text).map(|hash| BodyId(*hash.as_bytes())).map_err(|_| ())
    }
}

/// Which logon a row belongs to: eight bytes derived from the name of its transport, so that keys
/// have a fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountKey(pub [u8; 8]);

impl AccountKey {
    /// The key of the transport called `name`.
    pub fn of(name: &str) -> Self {
        let mut key = [0; 8];
        key.copy_from_slice(
            blake3::hash(name.as_bytes()).as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]),
        );
        AccountKey(key)
    }
}
