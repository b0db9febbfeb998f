//! Submission of message objects (OB-17, SP-1).

use std::collections::HashSet;

use super::{LocalStore, object, outbox};
use crate::mapi::{
    EntryId, MapiCode, MapiError, MapiResult, MessageData, PropList, Recipient, RecipientType,
    SysTime, tags,
};
use crate::mime::check_message;
use crate::spool::{Durable, OutboxRecord, Trace};

impl LocalStore {
    /// Submits a message object. On `Ok` it is in the Outbox, durably (SP-1); on an error nothing
    /// is stored. Cancel-safe: the message of a caller that went away is stored or not.
    ///
    /// It gets `PR_CLIENT_SUBMIT_TIME`, `PR_INTERNET_MESSAGE_ID` and the sender's address type
    /// where they are missing; row numbers are made unique.
    ///
    /// # Errors
    /// `MAPI_E_NO_RECIPIENTS` (OB-17); `MAPI_E_INVALID_PARAMETER` naming the address or header
    /// that cannot be; `MAPI_E_TOO_BIG`; `MAPI_E_NOT_ENOUGH_DISK`, `MAPI_E_DISK_ERROR`.
    pub async fn submit(&self, mut message: MessageData) -> MapiResult<(EntryId, Durable)> {
        need_recipients(&message.recipients)?;
        check_message(&message)?;
        let size = object::size_of(&message);
        self.check_size(size)?;
        number_rows(&mut message.recipients);
        let (entry, now) = self.stamp(&mut message.props);
        let state = outbox::waiting(&message.props, now, now);
        let staged = object::take_out(&mut message, self.spool.as_ref()).await?;
        let record = OutboxRecord {
            revision: 0,
            submitted: now,
            state,
            props: message.props,
            recipients: message.recipients,
            object: staged.as_ref().map(|body| body.id()),
            content: None,
            size,
            trace: Trace::default(),
            reports: Vec::new(),
        };
        let durable = self.outbox.add(&entry, record, staged).await?;
        Ok((entry, durable))
    }

    /// Gives a message its entry id, time and message id.
    pub(super) fn stamp(&self, props: &mut PropList) -> (EntryId, SysTime) {
        let now = self.clock.now();
        let entry = self.entries.next(now);
        props.set(tags::CLIENT_SUBMIT_TIME, now);
        if props.text(tags::SENDER_EMAIL_ADDRESS).is_some()
            && props.value(tags::SENDER_ADDRTYPE).is_none()
        {
            props.set(tags::SENDER_ADDRTYPE, "SMTP");
        }
        if props.value(tags::MESSAGE_CLASS).is_none() {
            props.set(tags::MESSAGE_CLASS, "IPM.Note");
        }
        if props.text(tags::INTERNET_MESSAGE_ID).is_none() {
            let sender = props.text(tags::SENDER_EMAIL_ADDRESS).unwrap_or_default();
            props.set(tags::INTERNET_MESSAGE_ID, self.message_id(&entry, sender));
        }
        (entry, now)
    }

    /// A message id in the domain of the sender, so that it does not tell this machine's name
    /// unless there is no other.
    pub(super) fn message_id(&self, entry: &EntryId, sender: &str) -> String {
        let domain = sender
            .rsplit_once('@')
            .map(|(_, domain)| domain)
            .filter(|domain| {
                !domain.is_empty()
                    && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
            })
            .unwrap_or(&self.host);
        format!("<{}@{domain}>", entry.to_string().to_ascii_lowercase())
    }

    pub(super) fn check_size(&self, size: u64) -> MapiResult<()> {
        let limit = self.options.size_limit;
        if size <= limit {
            return Ok(());
        }
        let words = format!("the message has more than {limit} octets, which is the limit");
        Err(MapiError::new(MapiCode::TOO_BIG, words))
    }
}

/// Refuses a message that addresses nobody (OB-17).
pub(super) fn need_recipients(recipients: &[Recipient]) -> MapiResult<()> {
    match recipients.iter().any(|row| row.kind != RecipientType::Orig) {
        true => Ok(()),
        false => Err(MapiError::new(
            MapiCode::NO_RECIPIENTS,
            "the message has no recipients; give at least one address",
        )),
    }
}

/// Numbers the rows anew unless their numbers are unique.
fn number_rows(recipients: &mut [Recipient]) {
    let mut seen = HashSet::new();
    if recipients.iter().all(|row| seen.insert(row.row)) {
        return;
    }
    for (number, row) in recipients.iter_mut().enumerate() {
        row.row = u32::try_from(number).unwrap_or(u32::MAX);
    }
}
