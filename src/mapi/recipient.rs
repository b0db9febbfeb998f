//! Rows of a recipient table.

use serde::{Deserialize, Serialize};

use super::{MapiCode, PropList, SysTime, tags};

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

    /// Notes that the recipient failed, with the status code of RFC 3463 and the words.
    pub fn set_failed(&mut self, status: &str, words: &str, time: SysTime) {
        self.props.set(tags::REPORT_TEXT, status);
        self.props.set(tags::SUPPLEMENTARY_INFO, words);
        self.props.set(tags::REPORT_TIME, time);
    }

    /// Status code and words of a recipient that failed.
    pub fn failure(&self) -> Option<(&str, &str)> {
        let words = self.props.text(tags::SUPPLEMENTARY_INFO)?;
        Some((self.props.text(tags::REPORT_TEXT).unwrap_or_default(), words))
    }

    /// Notes that the message is not wanted for this recipient any more (OB-7).
    pub fn set_cancelled(&mut self, time: SysTime) {
        self.set_failed("5.0.0", "cancelled", time);
        self.props.set(tags::NDR_DIAG_CODE, MapiCode::CANCEL.0.cast_signed());
    }

    /// Whether the message was cancelled for this recipient.
    pub fn is_cancelled(&self) -> bool {
        self.props.long(tags::NDR_DIAG_CODE) == Some(MapiCode::CANCEL.0.cast_signed())
    }

    /// Keeps what was noted of the recipient's end when its row is replaced by `newer`.
    pub fn keep_outcome(&self, newer: &mut Recipient) {
        let notes =
            [tags::REPORT_TEXT, tags::SUPPLEMENTARY_INFO, tags::REPORT_TIME, tags::NDR_DIAG_CODE];
        for tag in notes {
            if let (Some(value), None) = (self.props.value(tag), newer.props.value(tag)) {
                newer.props.set(tag, value.clone());
            }
        }
    }

    /// Whether the sender may be told that the message is late for this recipient (RFC 3461 section
    /// 4.1, DELAY): what the row or, failing that, `message` says; the default is yes unless no
    /// report of a failure is wanted (NEVER).
    pub fn wants_delay_report(&self, message: &PropList) -> bool {
        let tag = tags::DELAY_REPORT_REQUESTED;
        let wish = self.props.boolean(tag).or(message.boolean(tag));
        wish.unwrap_or_else(|| self.wants_failure_report(message))
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

    #[test]
    fn never_means_no_word_of_a_delay_either() {
        let mut row = Recipient::smtp(0, RecipientType::To, "ann@example.org");
        assert!(row.wants_delay_report(&PropList::new()));
        let never = PropList::new().with(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, false);
        assert!(!row.wants_delay_report(&never));
        row.props.set(tags::DELAY_REPORT_REQUESTED, false);
        assert!(!row.wants_delay_report(&PropList::new()), "NOTIFY=FAILURE");
    }

    /// Proves: AT-2
    #[test]
    fn address_types_match_without_case() {
        assert!(Recipient::smtp(0, RecipientType::To, "a@b").is_type("smtp"));
    }
}
