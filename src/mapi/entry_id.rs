//! Names of messages: the permanent entry id and the short-lived message reference.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The permanent identifier of a stored message: bytes that only its maker understands.
///
/// Those made by this crate's store are 16 bytes, time-ordered, and shown as the 26 characters of
/// a ULID; those of a foreign host may be any bytes and are shown in hexadecimal behind `x`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId(Arc<[u8]>);

/// The provider UID of one-off addresses.
const ONE_OFF_UID: [u8; 16] = [
    0x81, 0x2B, 0x1F, 0xA4, 0xBE, 0xA3, 0x10, 0x19, 0x9D, 0x6E, 0x00, 0xDD, 0x01, 0x0F, 0x54, 0x02,
];

impl EntryId {
    /// The longest entry id that is taken, in bytes.
    pub const MAX_LEN: usize = 512;

    /// An entry id of any host.
    ///
    /// # Errors
    /// [`InvalidEntryId`] when `bytes` is empty or longer than [`EntryId::MAX_LEN`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidEntryId> {
        if bytes.is_empty() || bytes.len() > Self::MAX_LEN {
            return Err(InvalidEntryId);
        }
        Ok(EntryId(Arc::from(bytes)))
    }

    /// The entry id of a message of this crate's store.
    pub fn from_ulid(ulid: ulid::Ulid) -> Self {
        EntryId(Arc::from(ulid.to_bytes().as_slice()))
    }

    /// The entry id of a one-off address: of somebody who is in no address book. Four bytes of
    /// flags, the UID of one-off addresses, and in UTF-16 the name, the address type and the
    /// address, each with a zero behind it, as the public documents lay it out.
    ///
    /// # Errors
    /// [`InvalidEntryId`] when it would be longer than [`EntryId::MAX_LEN`].
    pub fn one_off(name: &str, addr_type: &str, address: &str) -> Result<Self, InvalidEntryId> {
        // MAPI_ONE_OFF_NO_RICH_INFO and MAPI_ONE_OFF_UNICODE, behind a version of zero.
        let mut bytes = vec![0, 0, 0, 0];
        bytes.extend_from_slice(&ONE_OFF_UID);
        bytes.extend_from_slice(&[0, 0, 0x01, 0x80]);
        for text in [name, addr_type, address] {
            bytes.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        }
        Self::from_bytes(&bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match <[u8; 16]>::try_from(self.as_bytes()) {
            Ok(bytes) => write!(f, "{}", ulid::Ulid::from_bytes(bytes)),
            Err(_) => {
                f.write_str("x")?;
                self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({self})")
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    /// Reads what [`Display`](fmt::Display) writes; letters may be in either case.
    fn from_str(text: &str) -> Result<Self, InvalidEntryId> {
        if let Some(hex) = text.strip_prefix('x') {
            let digits = hex.as_bytes();
            if digits.len() % 2 != 0 || !digits.iter().all(u8::is_ascii_hexdigit) {
                return Err(InvalidEntryId);
            }
            let bytes: Option<Vec<u8>> = digits
                .chunks(2)
                .map(|pair| std::str::from_utf8(pair).ok())
                .map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect();
            return Self::from_bytes(&bytes.ok_or(InvalidEntryId)?);
        }
        // The ULID reader also takes overlong first digits; what is shown must be what was read.
        let ulid = ulid::Ulid::from_string(text).map_err(|_| InvalidEntryId)?;
        if !ulid.to_string().eq_ignore_ascii_case(text) {
            return Err(InvalidEntryId);
        }
        Ok(Self::from_ulid(ulid))
    }
}

/// A text or byte string that is no entry id (`MAPI_E_INVALID_ENTRYID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entry id")]
pub struct InvalidEntryId;

/// The transport's 32-bit name for a message while a call about it is open (OB-1, OB-2).
///
/// Before the transport has set it, the value is [`MessageRef::OUTBOUND_UNSET`] in a SubmitMessage
/// and [`MessageRef::INBOUND_UNSET`] in a StartMessage (TN-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageRef(pub u32);

impl MessageRef {
    /// What a SubmitMessage shows until the transport assigns a reference.
    pub const OUTBOUND_UNSET: MessageRef = MessageRef(0);
    /// What a StartMessage shows until the transport assigns a reference.
    pub const INBOUND_UNSET: MessageRef = MessageRef(1);
    /// The lowest value a transport may assign (OB-2).
    pub const FIRST: MessageRef = MessageRef(2);
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let own = EntryId::from_ulid(ulid::Ulid::from_parts(1_700_000_000_000, 42));
        assert_eq!(own.to_string().len(), 26);
        assert_eq!(own.to_string().parse::<EntryId>().unwrap(), own);
        assert_eq!(own.to_string().to_lowercase().parse::<EntryId>().unwrap(), own);
        let foreign = EntryId::from_bytes(&[0, 255, 7]).unwrap();
        assert_eq!(foreign.to_string(), "x00ff07");
        assert_eq!("x00ff07".parse::<EntryId>().unwrap(), foreign);
    }

    #[test]
    fn refuses_what_is_no_entry_id() {
        for text in ["", "x", "x0", "xzz", "nonsense", "81ARZ3NDEKTSV4RRFFQ69G5FAV", "x+1+1"] {
            assert_eq!(text.parse::<EntryId>(), Err(InvalidEntryId), "{text}");
        }
        assert_eq!(EntryId::from_bytes(&[1; 513]), Err(InvalidEntryId));
    }

    #[test]
    fn one_off_ids_are_laid_out_as_documented() {
        let id = EntryId::one_off("A", "SMTP", "a@b").unwrap();
        let bytes = id.as_bytes();
        assert_eq!(bytes.get(4..20), Some(ONE_OFF_UID.as_slice()));
        // Version, flags, then "A", "SMTP" and "a@b" in UTF-16, little end first.
        assert_eq!(bytes.get(20..28), Some([0, 0, 1, 0x80, b'A', 0, 0, 0].as_slice()));
        assert_eq!(bytes.len(), 24 + 2 * (2 + 5 + 4));
        assert_eq!(EntryId::one_off(&"x".repeat(300), "SMTP", "a@b"), Err(InvalidEntryId));
    }

    #[test]
    fn own_ids_sort_by_time() {
        let early = EntryId::from_ulid(ulid::Ulid::from_parts(1, u128::MAX));
        let late = EntryId::from_ulid(ulid::Ulid::from_parts(2, 0));
        assert!(early < late);
    }
}
