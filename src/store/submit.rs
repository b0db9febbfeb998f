//! Submission of message objects (OB-17, SP-1).

use std::collections::HashSet;

use super::outbox::Entering;
use super::{LocalStore, object, outbox};
use crate::mapi::{
    EntryId, MapiCode, MapiError, MapiResult, MessageData, PropList, Recipient, RecipientType,
    SysTime, tags,
};
use crate::mime::check_message;
use crate::observe::Family;
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
        let staged = object::take_out(&mut message, self.spool.as_ref()).await?;
        // The id by which it leaves in its turn is drawn when nothing but the commit is left.
        let (place, now) = self.enter(&mut message.props);
        self.stamp(&mut message.props, place.entry());
        let state = outbox::waiting(&message.props, now, now);
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
        let entry = place.entry().clone();
        let (size, rows) = (record.size, record.recipients.len());
        let durable = self.outbox.add(place, record, staged).await?;
        self.seen_to_enter(&entry, size, rows);
        Ok((entry, durable))
    }

    /// Tells who looks on that a message was accepted.
    pub(super) fn seen_to_enter(&self, entry: &EntryId, size: u64, recipients: usize) {
        let counters = self.options.observer.counters();
        counters.add(Family::Accepted, &[], 1);
        counters.add(Family::AcceptedBytes, &[], size);
        tracing::info!(%entry, size, recipients, "A message is accepted");
    }

    /// Gives a message its entry id and the time of its submission.
    pub(super) fn enter(&self, props: &mut PropList) -> (Entering<'_>, SysTime) {
        let (place, now) = self.outbox.enter(&self.entries, self.clock.as_ref());
        props.set(tags::CLIENT_SUBMIT_TIME, now);
        (place, now)
    }

    /// Gives a message what it lacks; its message id is made from `unique`.
    pub(super) fn stamp(&self, props: &mut PropList, unique: &EntryId) {
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
            props.set(tags::INTERNET_MESSAGE_ID, self.message_id(unique, sender));
        }
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
