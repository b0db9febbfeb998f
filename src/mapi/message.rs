//! The plain data of a message object.

use serde::{Deserialize, Serialize};

use super::{PropList, Recipient, tags};

/// Everything a message object holds in memory: properties, recipients, attachments.
///
/// A message that exists as RFC 5322 bytes keeps those beside this data, as its content (see
/// `spi::Message`); then `body` properties and attachments stay empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageData {
    /// Properties of the message.
    pub props: PropList,
    /// Recipient table; row numbers are unique.
    pub recipients: Vec<Recipient>,
    /// Attachment table.
    pub attachments: Vec<Attachment>,
}

/// One attachment, `ATTACH_BY_VALUE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// File name without folders; empty for none.
    pub filename: String,
    /// Media type such as `image/png`; empty to have it guessed as `application/octet-stream`.
    pub mime_tag: String,
    /// `Content-ID` without angle brackets when the HTML body refers to it; empty for none.
    pub content_id: String,
    /// The contents.
    pub data: Vec<u8>,
}

/// `PR_PRIORITY`, the order of sending; urgent first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Priority {
    /// 1.
    Urgent,
    /// 0.
    #[default]
    Normal,
    /// -1.
    NonUrgent,
}

impl Priority {
    /// All priorities, urgent first.
    pub const ALL: [Priority; 3] = [Priority::Urgent, Priority::Normal, Priority::NonUrgent];

    /// The priority of a message with these properties.
    pub fn of(props: &PropList) -> Self {
        match props.long(tags::PRIORITY) {
            Some(value) if value > 0 => Priority::Urgent,
            Some(value) if value < 0 => Priority::NonUrgent,
            _ => Priority::Normal,
        }
    }
}

/// `PR_IMPORTANCE`, a hint to the reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Importance {
    /// 0.
    Low,
    /// 1.
    #[default]
    Normal,
    /// 2.
    High,
}

impl Importance {
    /// The importance of a message with these properties.
    pub fn of(props: &PropList) -> Self {
        match props.long(tags::IMPORTANCE) {
            Some(0) => Importance::Low,
            Some(value) if value >= 2 => Importance::High,
            _ => Importance::Normal,
        }
    }
}
