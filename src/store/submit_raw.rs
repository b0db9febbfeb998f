//! Submission of RFC 5322 bytes.

use std::collections::HashSet;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::submit::need_recipients;
use super::{LocalStore, outbox};
use crate::mapi::{
    DsnRequest, EntryId, Importance, MapiCode, MapiError, MapiResult, Priority, PropList,
    Recipient, RecipientType, SysTime, tags,
};
use crate::mime::{
    AddressRules, Defaults, HeaderFacts, Mailbox, MimeError, Normalised, Normaliser, Origin,
    address, check_message, date,
};
use crate::spool::{Durable, OutboxRecord, StagedBody, Trace};

/// Octets read at a time.
const CHUNK: usize = 64 * 1024;

/// Octets read first: most messages need no more. Freeing 64 KiB makes the allocator tidy up its
/// whole heap, which for each small message cost more than all that is done with it.
const FIRST_CHUNK: usize = 8 * 1024;

/// Longest subject that is kept beside the message, in characters.
const MAX_SUBJECT: usize = 1_000;

/// Envelope and wishes of a message that is submitted as RFC 5322 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawSubmission {
    /// Reverse-path: `None` takes the address of `Sender` or `From`; `Some("")` is the null
    /// sender.
    pub from: Option<String>,
    /// Forward-paths.
    pub recipients: Vec<String>,
    /// Whether the recipients of `To`, `Cc` and `Bcc` are added; of a resent message, those of
    /// its first `Resent-` block instead.
    pub recipients_from_header: bool,
    /// Whether a report of delivery is asked for.
    pub delivery_report: bool,
    /// `PR_DEFERRED_SEND_TIME`: send not before (OB-19).
    pub deferred_send_time: Option<SysTime>,
    /// `PR_EXPIRY_TIME`: not wanted after (OB-19); `None` takes `Expires` of the header.
    pub expiry_time: Option<SysTime>,
    /// `PR_IMPORTANCE`; `None` takes `Importance` or `X-Priority` of the header.
    pub importance: Option<Importance>,
    /// `PR_PRIORITY`; `None` takes `Priority` of the header.
    pub priority: Option<Priority>,
    /// What the envelope asks of delivery status notifications (RFC 3461).
    pub dsn: DsnRequest,
    /// Who sends when the message names nobody. Its domain completes addresses without one.
    pub default_sender: String,
    /// Name that goes with [`default_sender`](Self::default_sender); empty for none.
    pub default_sender_name: String,
    /// What becomes of addresses of this machine; the default leaves senders as they are.
    pub rules: AddressRules,
    /// Addresses that are no recipients although the header names them.
    pub excluded: Vec<String>,
    /// Login name of who handed it over on this machine: makes a trace field in front.
    pub submitter: Option<String>,
}

impl LocalStore {
    /// Submits RFC 5322 bytes as they come, with bounded memory. On `Ok` they are in the Outbox,
    /// durably (SP-1); on an error nothing is stored. They are changed only as
    /// [`Normaliser`] says: what is normal is kept byte for byte.
    ///
    /// # Errors
    /// As [`LocalStore::submit`]; `MAPI_E_CORRUPT_DATA` for bytes that are no message (NUL, a
    /// header without end) or cannot be read.
    pub async fn submit_raw(
        &self,
        envelope: RawSubmission,
        mut bytes: Pin<Box<dyn AsyncRead + Send>>,
    ) -> MapiResult<(EntryId, Durable)> {
        let default = Mailbox::new(&envelope.default_sender_name, &envelope.default_sender);
        address::check("sender", &default.address)?;
        let mut props = PropList::new();
        props.set(tags::SENDER_EMAIL_ADDRESS, default.address.as_str());
        let (unique, now) = self.entries.next(self.clock.as_ref(), |_| {});
        self.stamp(&mut props, &unique);
        let message_id = self.message_id(&unique, &default.address);
        let defaults = Defaults { from: Some(default.clone()), date: now, message_id };
        let submitter = envelope.submitter.as_deref();
        let origin = Origin {
            rules: envelope.rules.clone(),
            envelope_from: envelope.from.clone(),
            received: submitter.map_or_else(String::new, |login| self.received(login, now)),
        };
        let filter = Normaliser::with_origin(defaults, origin);
        let (normalised, staged) = self.store_content(filter, &mut bytes).await?;
        let header = &normalised.facts.header;
        let recipients = recipients(&envelope, header)?;
        need_recipients(&recipients)?;
        describe(&mut props, &envelope, &normalised, &default)?;
        let mut message = crate::mapi::MessageData { props, recipients, attachments: Vec::new() };
        check_message(&message)?;
        // However long its bytes took to come, it is submitted now.
        let (place, now) = self.enter(&mut message.props);
        let record = OutboxRecord {
            revision: 0,
            submitted: now,
            state: outbox::waiting(&message.props, now, now),
            props: message.props,
            recipients: message.recipients,
            object: None,
            content: Some(staged.id()),
            size: staged.size(),
            trace: Trace::default(),
            reports: Vec::new(),
        };
        let entry = place.entry().clone();
        let (size, rows) = (record.size, record.recipients.len());
        let durable = self.outbox.add(place, record, Some(staged)).await?;
        self.seen_to_enter(&entry, size, rows);
        Ok((entry, durable))
    }

    /// Streams the bytes through the normaliser into a body.
    async fn store_content(
        &self,
        mut filter: Normaliser,
        bytes: &mut Pin<Box<dyn AsyncRead + Send>>,
    ) -> MapiResult<(Normalised, StagedBody)> {
        let mut writer = self.spool.new_body(None).await?;
        let mut chunk = vec![0; FIRST_CHUNK];
        let mut out = Vec::new();
        let mut size = 0;
        loop {
            let count = bytes.read(&mut chunk).await.map_err(unreadable)?;
            if count == 0 {
                break;
            }
            size += count as u64;
            self.check_size(size)?;
            filter.push(chunk.get(..count).unwrap_or_default(), &mut out)?;
            if !out.is_empty() {
                writer.write(&out).await?;
                out.clear();
            }
            if count == chunk.len() && count < CHUNK {
                chunk = vec![0; CHUNK];
            }
        }
        if size == 0 {
            return Err(MapiError::new(MapiCode::CORRUPT_DATA, "the message is empty"));
        }
        let normalised = filter.finish(&mut out)?;
        writer.write(&out).await?;
        Ok((normalised, writer.finish().await?))
    }
}

impl LocalStore {
    /// The value of a trace field for a message that was handed over by a program of this machine.
    fn received(&self, login: &str, now: SysTime) -> String {
        let fit = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let login: String = login.chars().filter(fit).take(64).collect();
        format!("by {} (postrider, from {login});\r\n\t{}", self.host, date(now))
    }
}

fn unreadable(error: std::io::Error) -> MapiError {
    MapiError::new(MapiCode::CORRUPT_DATA, format!("the message cannot be read: {error}"))
}

/// An address with the domain of the default sender when it has none.
fn qualified(address: &str, default_sender: &str) -> String {
    match (address.contains('@'), default_sender.rsplit_once('@')) {
        (false, Some((_, domain))) if !address.is_empty() => format!("{address}@{domain}"),
        _ => address.to_owned(),
    }
}

/// The rows of the recipient table: the envelope's, and the header's when asked for.
fn recipients(envelope: &RawSubmission, header: &HeaderFacts) -> MapiResult<Vec<Recipient>> {
    if envelope.recipients_from_header
        && let Some(broken) = header.malformed.first()
    {
        return Err(MimeError::BadAddress {
            what: "recipient in the header".to_owned(),
            address: broken.clone(),
            why: "it has no address",
        }
        .into());
    }
    let rules = &envelope.rules;
    let resolve = |address: &str| match rules.resolve(address) {
        resolved if resolved.is_empty() => vec![qualified(address, &envelope.default_sender)],
        resolved => resolved,
    };
    let excluded: HashSet<String> =
        envelope.excluded.iter().flat_map(|address| resolve(address)).map(|a| key(&a)).collect();
    let given = envelope.recipients.iter().map(|address| Mailbox::new("", address.as_str()));
    let from_header = match envelope.recipients_from_header {
        true => header.recipients(),
        false => Vec::new(),
    };
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for (place, mailbox) in given.chain(from_header).enumerate() {
        let name = mailbox.name.chars().filter(|c| !c.is_control()).collect::<String>();
        for address in resolve(&mailbox.address) {
            address::check("recipient", &address)?;
            if excluded.contains(&key(&address)) || !seen.insert(key(&address)) {
                continue;
            }
            let number = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            let kind = kind(&mailbox.address, header);
            let mut row = Recipient::smtp(number, kind, address).named(name.as_str());
            envelope.dsn.describe_row(place, &mut row);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// What makes two addresses the same: the domain's case does not matter.
fn key(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
        None => address.to_owned(),
    }
}

/// Whom the header shows as what; whom it does not show is a blind copy.
fn kind(address: &str, header: &HeaderFacts) -> RecipientType {
    let lists = |list: &[Mailbox]| list.iter().any(|one| one.address.eq_ignore_ascii_case(address));
    if lists(&header.to) {
        RecipientType::To
    } else if lists(&header.cc) {
        RecipientType::Cc
    } else {
        RecipientType::Bcc
    }
}

/// Sets the properties that envelope and header give.
fn describe(
    props: &mut PropList,
    envelope: &RawSubmission,
    normalised: &Normalised,
    default: &Mailbox,
) -> MapiResult<()> {
    let header = &normalised.facts.header;
    let rules = &envelope.rules;
    let account = rules.account_of(envelope.from.as_deref(), header);
    let replaced = |mailbox: &Mailbox| rules.replaced(mailbox, account?);
    let usable = |mailbox: &Mailbox| {
        let mailbox = &replaced(mailbox).unwrap_or_else(|| mailbox.clone());
        let address = qualified(&mailbox.address, &default.address);
        let name: String = mailbox.name.chars().filter(|c| !c.is_control()).collect();
        address::check("sender", &address).is_ok().then(|| Mailbox::new(name, address))
    };
    let author = header.from.first().and_then(usable).unwrap_or(default.clone());
    let sender = header.originator().and_then(usable).unwrap_or(author.clone());
    set_mailbox(props, tags::SENDER_EMAIL_ADDRESS, tags::SENDER_NAME, &sender);
    set_mailbox(
        props,
        tags::SENT_REPRESENTING_EMAIL_ADDRESS,
        tags::SENT_REPRESENTING_NAME,
        &author,
    );
    let from = match envelope.from.as_deref() {
        None => sender.address,
        Some("" | "<>") => String::new(),
        Some(address) => {
            let replaced = replaced(&Mailbox::new("", address)).map(|mailbox| mailbox.address);
            let address = replaced.unwrap_or_else(|| qualified(address, &default.address));
            address::check("envelope sender", &address)?;
            address
        }
    };
    if from != author.address {
        props.set(tags::ENVELOPE_SENDER, from);
    }
    let subject: String =
        header.subject.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT).collect();
    props.set(tags::SUBJECT, subject);
    set_message_id(props, &normalised.message_id);
    if header.status_report {
        // There is no report about a report.
        props.set(tags::MESSAGE_CLASS, "REPORT.IPM.Note");
    }
    if envelope.delivery_report {
        props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    }
    envelope.dsn.describe(props);
    if let Some(time) = envelope.deferred_send_time {
        props.set(tags::DEFERRED_SEND_TIME, time);
    }
    if let Some(time) = envelope.expiry_time.or(header.expires) {
        props.set(tags::EXPIRY_TIME, time);
    }
    if let Some(importance) = envelope.importance.or(header.importance) {
        props.set(tags::IMPORTANCE, importance.value());
    }
    if let Some(priority) = envelope.priority.or(header.priority) {
        props.set(tags::PRIORITY, priority.value());
    }
    Ok(())
}

fn set_mailbox(
    props: &mut PropList,
    address: crate::mapi::PropTag,
    name: crate::mapi::PropTag,
    mailbox: &Mailbox,
) {
    props.set(address, mailbox.address.as_str());
    if !mailbox.name.is_empty() {
        props.set(name, mailbox.name.as_str());
    }
}

/// The content's own id, however it looks, is the message's; one that could not stand in a
/// header of ours is not repeated in the properties.
fn set_message_id(props: &mut PropList, id: &str) {
    let mut probe = crate::mapi::MessageData::default();
    probe.props.set(tags::INTERNET_MESSAGE_ID, id);
    match check_message(&probe) {
        Ok(()) => props.set(tags::INTERNET_MESSAGE_ID, id),
        Err(_) => props.remove(tags::INTERNET_MESSAGE_ID),
    }
}
