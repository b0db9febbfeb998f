//! Properties: tags, values and ordered lists of both.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{EntryId, SysTime};

/// The type half of a property tag, as the public header numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropType {
    /// `PT_LONG`: 32 bits.
    Long,
    /// `PT_BOOLEAN`.
    Boolean,
    /// `PT_UNICODE`: text.
    Unicode,
    /// `PT_SYSTIME`: an instant.
    SysTime,
    /// `PT_BINARY`: bytes.
    Binary,
}

impl PropType {
    /// The number in the low half of a tag.
    pub const fn number(self) -> u32 {
        match self {
            PropType::Long => 0x0003,
            PropType::Boolean => 0x000B,
            PropType::Unicode => 0x001F,
            PropType::SysTime => 0x0040,
            PropType::Binary => 0x0102,
        }
    }
}

/// A property tag: the id in the high half, the type in the low half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PropTag(pub u32);

impl PropTag {
    /// The tag of property `id` with values of type `kind`.
    pub const fn new(id: u16, kind: PropType) -> Self {
        PropTag(((id as u32) << 16) | kind.number())
    }

    /// The id half.
    pub const fn id(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Whether the property may leave the machine with a message (OB-6, IB-5): by the ranges
    /// the reference sets aside for non-transmittable properties.
    pub const fn is_transmittable(self) -> bool {
        !matches!(self.id(), 0x0E00..=0x0FFF | 0x6000..=0x67FF | 0x7C00..=0x7FFF)
    }
}

impl fmt::Debug for PropTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08X}", self.0)
    }
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropValue {
    /// `PT_LONG`.
    Long(i32),
    /// `PT_BOOLEAN`.
    Boolean(bool),
    /// `PT_UNICODE`.
    Unicode(String),
    /// `PT_SYSTIME`.
    SysTime(SysTime),
    /// `PT_BINARY`.
    Binary(Vec<u8>),
}

macro_rules! prop_from {
    ($($from:ty => $variant:ident($convert:expr);)*) => {
        $(impl From<$from> for PropValue {
            fn from(value: $from) -> Self {
                PropValue::$variant($convert(value))
            }
        })*
    };
}

prop_from! {
    i32 => Long(std::convert::identity);
    bool => Boolean(std::convert::identity);
    String => Unicode(std::convert::identity);
    &str => Unicode(str::to_owned);
    SysTime => SysTime(std::convert::identity);
    Vec<u8> => Binary(std::convert::identity);
    &EntryId => Binary(|entry: &EntryId| entry.as_bytes().to_vec());
}

/// Properties by tag, in ascending order of tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropList(BTreeMap<PropTag, PropValue>);

impl PropList {
    /// No properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// The list with one more property; for building in one expression.
    #[must_use]
    pub fn with(mut self, tag: PropTag, value: impl Into<PropValue>) -> Self {
        self.set(tag, value);
        self
    }

    /// Sets a property.
    pub fn set(&mut self, tag: PropTag, value: impl Into<PropValue>) {
        self.0.insert(tag, value.into());
    }

    /// Removes a property.
    pub fn remove(&mut self, tag: PropTag) {
        self.0.remove(&tag);
    }

    /// The value, whatever its type.
    pub fn value(&self, tag: PropTag) -> Option<&PropValue> {
        self.0.get(&tag)
    }

    /// The text of a `PT_UNICODE` property.
    pub fn text(&self, tag: PropTag) -> Option<&str> {
        match self.0.get(&tag) {
            Some(PropValue::Unicode(text)) => Some(text),
            _ => None,
        }
    }

    /// The number of a `PT_LONG` property.
    pub fn long(&self, tag: PropTag) -> Option<i32> {
        match self.0.get(&tag) {
            Some(PropValue::Long(number)) => Some(*number),
            _ => None,
        }
    }

    /// The value of a `PT_BOOLEAN` property.
    pub fn boolean(&self, tag: PropTag) -> Option<bool> {
        match self.0.get(&tag) {
            Some(PropValue::Boolean(value)) => Some(*value),
            _ => None,
        }
    }

    /// The instant of a `PT_SYSTIME` property.
    pub fn time(&self, tag: PropTag) -> Option<SysTime> {
        match self.0.get(&tag) {
            Some(PropValue::SysTime(time)) => Some(*time),
            _ => None,
        }
    }

    /// The bytes of a `PT_BINARY` property.
    pub fn binary(&self, tag: PropTag) -> Option<&[u8]> {
        match self.0.get(&tag) {
            Some(PropValue::Binary(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Takes over every property of `other`; its values win.
    pub fn merge(&mut self, other: PropList) {
        self.0.extend(other.0);
    }

    /// The properties in ascending order of tag.
    pub fn iter(&self) -> impl Iterator<Item = (PropTag, &PropValue)> {
        self.0.iter().map(|(tag, value)| (*tag, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(PropTag, PropValue)> for PropList {
    fn from_iter<I: IntoIterator<Item = (PropTag, PropValue)>>(iter: I) -> Self {
        PropList(iter.into_iter().collect())
    }
}

/// The tags this crate uses, under the names of the public header.
pub mod tags {
    use super::{PropTag, PropType};

    macro_rules! prop_tags {
        ($($(#[$doc:meta])* $name:ident = $id:expr, $kind:ident;)*) => {
            $($(#[$doc])* pub const $name: PropTag = PropTag::new($id, PropType::$kind);)*
        };
    }

    prop_tags! {
        /// Kind of message, `IPM.Note` for mail.
        MESSAGE_CLASS = 0x001A, Unicode;
        /// Importance: 0 low, 1 normal, 2 high.
        IMPORTANCE = 0x0017, Long;
        /// Asks for a report when a recipient got the message.
        ORIGINATOR_DELIVERY_REPORT_REQUESTED = 0x0023, Boolean;
        /// Priority: -1 not urgent, 0 normal, 1 urgent.
        PRIORITY = 0x0026, Long;
        /// After this the message is no longer wanted (OB-19).
        EXPIRY_TIME = 0x0015, SysTime;
        /// Ask the server to deliver not before.
        DEFERRED_DELIVERY_TIME = 0x000F, SysTime;
        /// When a recipient got the message (OB-12).
        DELIVER_TIME = 0x0010, SysTime;
        /// When a report was made.
        REPORT_TIME = 0x0032, SysTime;
        /// Subject.
        SUBJECT = 0x0037, Unicode;
        /// When the client submitted the message.
        CLIENT_SUBMIT_TIME = 0x0039, SysTime;
        /// Name of who the message is from.
        SENT_REPRESENTING_NAME = 0x0042, Unicode;
        /// When the transport took the message (OB-13).
        PROVIDER_SUBMIT_TIME = 0x0048, SysTime;
        /// Address of who the message is from.
        SENT_REPRESENTING_EMAIL_ADDRESS = 0x0065, Unicode;
        /// The header block as received.
        TRANSPORT_MESSAGE_HEADERS = 0x007D, Unicode;
        /// Why a recipient was not reached.
        NDR_REASON_CODE = 0x0C04, Long;
        /// The finer reason.
        NDR_DIAG_CODE = 0x0C05, Long;
        /// FALSE suppresses the report of a failure (SP-4).
        ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED = 0x0C08, Boolean;
        /// What kind of recipient a row is.
        RECIPIENT_TYPE = 0x0C15, Long;
        /// Entry id of who submitted the message.
        SENDER_ENTRYID = 0x0C19, Binary;
        /// Name of who submitted the message.
        SENDER_NAME = 0x0C1A, Unicode;
        /// The server's own words about a recipient.
        SUPPLEMENTARY_INFO = 0x0C1B, Unicode;
        /// Search key of who submitted the message.
        SENDER_SEARCH_KEY = 0x0C1D, Binary;
        /// Address type of who submitted the message.
        SENDER_ADDRTYPE = 0x0C1E, Unicode;
        /// Address of who submitted the message.
        SENDER_EMAIL_ADDRESS = 0x0C1F, Unicode;
        /// Delete the message once it is sent (OB-16).
        DELETE_AFTER_SUBMIT = 0x0E01, Boolean;
        /// Names of the blind copies.
        DISPLAY_BCC = 0x0E02, Unicode;
        /// Names of the copies.
        DISPLAY_CC = 0x0E03, Unicode;
        /// Names of the primary recipients.
        DISPLAY_TO = 0x0E04, Unicode;
        /// When the server got the message.
        MESSAGE_DELIVERY_TIME = 0x0E06, SysTime;
        /// Flags of the message.
        MESSAGE_FLAGS = 0x0E07, Long;
        /// Size in bytes.
        MESSAGE_SIZE = 0x0E08, Long;
        /// Where the sent copy goes (OB-16).
        SENTMAIL_ENTRYID = 0x0E0A, Binary;
        /// TRUE once a recipient is conclusively sent or failed (OB-4).
        RESPONSIBILITY = 0x0E0F, Boolean;
        /// Locked, or waiting for preprocessing (OB-14).
        SUBMIT_FLAGS = 0x0E14, Long;
        /// Marks of a header.
        MSG_STATUS = 0x0E17, Long;
        /// The account the user chose (OB-20).
        PRIMARY_SEND_ACCOUNT = 0x0E28, Unicode;
        /// Permanent identifier of an object.
        ENTRYID = 0x0FFF, Binary;
        /// Body as plain text.
        BODY = 0x1000, Unicode;
        /// Words of a report.
        REPORT_TEXT = 0x1001, Unicode;
        /// Body as HTML.
        HTML = 0x1013, Unicode;
        /// `Message-ID`, with its angle brackets.
        INTERNET_MESSAGE_ID = 0x1035, Unicode;
        /// `In-Reply-To`.
        IN_REPLY_TO_ID = 0x1042, Unicode;
        /// `References`.
        INTERNET_REFERENCES = 0x1039, Unicode;
        /// Name to show.
        DISPLAY_NAME = 0x3001, Unicode;
        /// Type of an address, `SMTP`.
        ADDRTYPE = 0x3002, Unicode;
        /// Address in the form of its type.
        EMAIL_ADDRESS = 0x3003, Unicode;
        /// Name of the provider.
        PROVIDER_DISPLAY = 0x3006, Unicode;
        /// When an object was made.
        CREATION_TIME = 0x3007, SysTime;
        /// Flags of a status row.
        RESOURCE_FLAGS = 0x3009, Long;
        /// Name of the provider's library.
        PROVIDER_DLL_NAME = 0x300A, Unicode;
        /// Identity of an object across copies; of fetched mail, of its place on the server (IB-6).
        SEARCH_KEY = 0x300B, Binary;
        /// Identity of a provider.
        PROVIDER_UID = 0x300C, Binary;
        /// Attachment contents.
        ATTACH_DATA_BIN = 0x3701, Binary;
        /// How an attachment is kept.
        ATTACH_METHOD = 0x3705, Long;
        /// File name of an attachment.
        ATTACH_LONG_FILENAME = 0x3707, Unicode;
        /// Media type of an attachment.
        ATTACH_MIME_TAG = 0x370E, Unicode;
        /// `Content-ID` of an attachment, without angle brackets.
        ATTACH_CONTENT_ID = 0x3712, Unicode;
        /// Address for mail programs of the internet.
        SMTP_ADDRESS = 0x39FE, Unicode;
        /// Identity of a status row, for people.
        IDENTITY_DISPLAY = 0x3E00, Unicode;
        /// Entry id of that identity.
        IDENTITY_ENTRYID = 0x3E01, Binary;
        /// Methods of a status row.
        RESOURCE_METHODS = 0x3E02, Long;
        /// Kind of a status row: 36 transport, 37 spooler.
        RESOURCE_TYPE = 0x3E03, Long;
        /// State of a status row.
        STATUS_CODE = 0x3E04, Long;
        /// Search key of that identity.
        IDENTITY_SEARCH_KEY = 0x3E05, Binary;
        /// State of a status row, for people.
        STATUS_STRING = 0x3E08, Unicode;
        /// Progress of a header operation in percent.
        REMOTE_PROGRESS = 0x3E0B, Long;
        /// Progress of a header operation, for people.
        REMOTE_PROGRESS_TEXT = 0x3E0C, Unicode;
        /// Whether a header operation may be asked for.
        REMOTE_VALIDATE_OK = 0x3E0D, Boolean;
        /// Number of units of a deferred send (OB-19).
        DEFERRED_SEND_NUMBER = 0x3FEB, Long;
        /// Units of a deferred send: 0 minutes, 1 hours, 2 days, 3 weeks (OB-19).
        DEFERRED_SEND_UNITS = 0x3FEC, Long;
        /// Send not before (OB-19).
        DEFERRED_SEND_TIME = 0x3FEF, SysTime;
        /// Ours, not transmittable: the name of the server mailbox a message came from.
        SOURCE_MAILBOX = 0x6701, Unicode;
        /// Ours, not transmittable: envelope sender (RFC 5321 reverse-path, empty for null) when
        /// it differs from the author.
        ENVELOPE_SENDER = 0x6702, Unicode;
        /// Ours, not transmittable: the RFC 3461 ENVID of the envelope.
        ENVELOPE_ID = 0x6703, Unicode;
        /// Ours, not transmittable: the RFC 3461 RET of the envelope, `FULL` or `HDRS`.
        ENVELOPE_RETURN = 0x6710, Unicode;
        /// Ours, not transmittable, of a recipient: the RFC 3461 ORCPT without its type, which is
        /// always `rfc822`.
        ORIGINAL_RECIPIENT = 0x6711, Unicode;
        /// Ours, not transmittable, of a recipient: whether RFC 3461 NOTIFY asked for reports of
        /// delay. Set, it says that NOTIFY was given; FALSE keeps the sender from being told that
        /// the message is late.
        DELAY_REPORT_REQUESTED = 0x6712, Boolean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_carry_id_and_type() {
        assert_eq!(tags::SUBJECT.0, 0x0037_001F);
        assert_eq!(tags::RESPONSIBILITY.0, 0x0E0F_000B);
        assert_eq!(tags::STATUS_CODE.id(), 0x3E04);
    }

    /// Proves: OB-6
    #[test]
    fn internal_properties_do_not_travel() {
        assert!(tags::SUBJECT.is_transmittable());
        for tag in [tags::RESPONSIBILITY, tags::ENTRYID, tags::SOURCE_MAILBOX] {
            assert!(!tag.is_transmittable(), "{tag:?}");
        }
    }

    #[test]
    fn values_are_read_by_their_type() {
        let list = PropList::new().with(tags::SUBJECT, "hello").with(tags::PRIORITY, 1);
        assert_eq!(list.text(tags::SUBJECT), Some("hello"));
        assert_eq!(list.long(tags::SUBJECT), None);
        assert_eq!(list.long(tags::PRIORITY), Some(1));
    }
}
