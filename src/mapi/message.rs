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
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
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

    /// The lane in which a message with these properties leaves: its `PR_PRIORITY`, and without
    /// one what its `PR_IMPORTANCE` says.
    pub fn lane(props: &PropList) -> Self {
        if props.long(tags::PRIORITY).is_some() {
            return Priority::of(props);
        }
        match Importance::of(props) {
            Importance::High => Priority::Urgent,
            Importance::Normal => Priority::Normal,
            Importance::Low => Priority::NonUrgent,
        }
    }

    /// The value of `PR_PRIORITY`.
    pub fn value(self) -> i32 {
        match self {
            Priority::Urgent => 1,
            Priority::Normal => 0,
            Priority::NonUrgent => -1,
        }
    }
}

/// `PR_IMPORTANCE`, a hint to the reader.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
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

    /// The value of `PR_IMPORTANCE`.
    pub fn value(self) -> i32 {
        match self {
            Importance::Low => 0,
            Importance::Normal => 1,
            Importance::High => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_is_the_priority_and_without_one_the_importance() {
        let lane = |priority: Option<i32>, importance: Option<i32>| {
            let mut props = PropList::new();
            if let Some(priority) = priority {
                props.set(tags::PRIORITY, priority);
            }
            if let Some(importance) = importance {
                props.set(tags::IMPORTANCE, importance);
            }
            Priority::lane(&props)
        };
        assert_eq!(lane(None, None), Priority::Normal);
        assert_eq!(lane(Some(1), Some(0)), Priority::Urgent);
        assert_eq!(lane(Some(0), Some(2)), Priority::Normal);
        assert_eq!(lane(None, Some(2)), Priority::Urgent);
        assert_eq!(lane(None, Some(0)), Priority::NonUrgent);
    }
}
