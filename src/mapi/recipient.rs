//! Rows of a recipient table.

use serde::{Deserialize, Serialize};

use super::{PropList, tags};

/// What kind of recipient a row is; the `P1` bit of the header is [`Recipient::p1`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RecipientType {
    /// The originator.
    Orig,
    /// Primary recipient.
    To,
    /// Copy.
    Cc,
    /// Blind copy: addressed by the envelope only (OB-5).
    Bcc,
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Number of the row, unique within its message; how changes name it.
    pub row: u32,
    /// What kind of recipient it is.
    pub kind: RecipientType,
    /// The `MAPI_P1` bit: the row addresses the envelope of a resend and never the content (OB-5).
    pub p1: bool,
    /// Address type, `SMTP` for internet mail; compared without regard to ASCII case (AT-2).
    pub addr_type: String,
    /// Address in the form of its type.
    pub address: String,
    /// Name to show; empty for none.
    pub display_name: String,
    /// `PR_RESPONSIBILITY`: TRUE once the recipient is conclusively sent or failed (OB-4).
    pub responsibility: bool,
    /// Every other property of the row.
    pub props: PropList,
}

impl Recipient {
    /// An internet recipient nobody has taken responsibility for yet.
    pub fn smtp(row: u32, kind: RecipientType, address: impl Into<String>) -> Self {
        Recipient {
            row,
            kind,
            p1: false,
            addr_type: "SMTP".to_owned(),
            address: address.into(),
            display_name: String::new(),
            responsibility: false,
            props: PropList::new(),
        }
    }

    /// The same recipient with a name to show.
    #[must_use]
    pub fn named(mut self, display_name: impl Into<String>) -> Self {
        self.display_name = display_name.into();
        self
    }

    /// Whether the row's address type is `addr_type` (AT-2).
    pub fn is_type(&self, addr_type: &str) -> bool {
        self.addr_type.eq_ignore_ascii_case(addr_type)
    }

    /// The provider UID in the row's entry id (bytes 4 to 19 of it), if it has one (AT-3).
    pub fn provider_uid(&self) -> Option<[u8; 16]> {
        self.props.binary(tags::ENTRYID)?.get(4..20)?.try_into().ok()
    }

    /// Whether a report of delivery was asked for this recipient or, failing that, by `message`.
    pub fn wants_delivery_report(&self, message: &PropList) -> bool {
        let tag = tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED;
        self.props.boolean(tag).or(message.boolean(tag)).unwrap_or(false)
    }

    /// Whether a report of failure may be made for this recipient (SP-4); the default is yes.
    pub fn wants_failure_report(&self, message: &PropList) -> bool {
        let tag = tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED;
        self.props.boolean(tag).or(message.boolean(tag)).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_wishes_of_the_row_come_first() {
        let message = PropList::new().with(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, false);
        let mut row = Recipient::smtp(0, RecipientType::To, "ann@example.org");
        assert!(!row.wants_failure_report(&message));
        row.props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, true);
        assert!(row.wants_failure_report(&message));
        assert!(!row.wants_delivery_report(&message));
    }

    /// Proves: AT-2
    #[test]
    fn address_types_match_without_case() {
        assert!(Recipient::smtp(0, RecipientType::To, "a@b").is_type("smtp"));
    }
}
