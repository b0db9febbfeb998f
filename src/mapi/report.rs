//! What reports say, and the class of the message that says it.

use serde::{Deserialize, Serialize};

/// What a report says of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReportOutcome {
    /// Not delivered, for good (NDR).
    Failed,
    /// Delivered, relayed or expanded (DR).
    Delivered,
    /// Not delivered yet.
    Delayed,
}

impl ReportOutcome {
    /// `PR_MESSAGE_CLASS` of a report about a message of the class `original`, such as
    /// `REPORT.IPM.Note.NDR` (SP-4, IB-8); an empty class counts as `IPM.Note`.
    pub fn message_class(self, original: &str) -> String {
        let original = if original.is_empty() { "IPM.Note" } else { original };
        let kind = match self {
            ReportOutcome::Failed => "NDR",
            ReportOutcome::Delivered => "DR",
            ReportOutcome::Delayed => "Delayed",
        };
        format!("REPORT.{original}.{kind}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: SP-4
    #[test]
    fn the_class_of_a_report_holds_that_of_the_message() {
        assert_eq!(ReportOutcome::Failed.message_class("IPM.Note"), "REPORT.IPM.Note.NDR");
        assert_eq!(ReportOutcome::Delivered.message_class(""), "REPORT.IPM.Note.DR");
        let signed = "IPM.Note.SMIME.MultipartSigned";
        let class = ReportOutcome::Failed.message_class(signed);
        assert_eq!(class, "REPORT.IPM.Note.SMIME.MultipartSigned.NDR");
    }
}
