//! Plain messages for tests that are not about their contents.

use postrider::mapi::{MessageData, PropList, Recipient, RecipientType, tags};
use postrider::session::Submission;

/// A short message.
pub(crate) fn letter(subject: &str, to: &[&str]) -> Submission {
    let rows = (0..).zip(to);
    Submission {
        message: MessageData {
            props: PropList::new()
                .with(tags::SUBJECT, subject)
                .with(tags::BODY, "Dear reader,\n.\nthat was a single dot.\n"),
            recipients: rows
                .map(|(row, address)| Recipient::smtp(row, RecipientType::To, *address))
                .collect(),
            attachments: Vec::new(),
        },
    }
}

/// A short message from someone in particular.
pub(crate) fn letter_from(sender: &str, subject: &str, to: &[&str]) -> Submission {
    let mut submission = letter(subject, to);
    submission.message.props.set(tags::SENDER_EMAIL_ADDRESS, sender);
    submission
}
