//! What the rows of the spool hold. Which states they form together, and what follows after a
//! crash in each, is the table "States on disk" in `ARCHITECTURE.md`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::trace::{ReportStep, Step, StepKind, Trace};
use crate::mapi::Recipient;
use crate::mapi::{MessageData, Priority, PropList, RecipientType, SysTime, tags};

/// Name of a body: the BLAKE3 digest of its bytes, so equal bodies are stored once and every
/// read can be verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BodyId(pub [u8; 32]);

impl BodyId {
    /// The byte by which body files are spread over folders.
    pub(super) fn first_byte(self) -> u8 {
        let [first, ..] = self.0;
        first
    }
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyId({self})")
    }
}

impl FromStr for BodyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        blake3::Hash::from_hex(text).map(|hash| BodyId(*hash.as_bytes())).map_err(|_| ())
    }
}

/// Which logon a row belongs to: eight bytes derived from the name of its transport, so that keys
/// have a fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountKey(pub [u8; 8]);

impl AccountKey {
    /// The key of the transport called `name`.
    pub fn of(name: &str) -> Self {
        let mut key = [0; 8];
        key.copy_from_slice(
            blake3::hash(name.as_bytes()).as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]),
        );
        AccountKey(key)
    }
}

/// `outbox/E`: a message in the outgoing queue table of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRecord {
    /// Raised by every change; see `Expect` in [`Batch`](super::Batch).
    pub revision: u64,
    /// When the client submitted it.
    pub submitted: SysTime,
    /// Where it stands.
    pub state: OutboxState,
    /// Properties of the message, attachments left out.
    pub props: PropList,
    /// Recipients as last saved; responsibility is part of them.
    pub recipients: Vec<Recipient>,
    /// A body with the serialised [`MessageData`] when the message is an object with body
    /// properties or attachments too large to stand in `props`.
    pub object: Option<BodyId>,
    /// A body with the RFC 5322 bytes as submitted.
    pub content: Option<BodyId>,
    /// Size of the message in bytes, for people.
    pub size: u64,
    /// What happened to it that no transport knows of; goes to the history with its row.
    pub trace: Trace,
    /// The reports that were made about it, so that after a crash none is made about a recipient
    /// again (OB-12). Go to the history as well.
    pub reports: Vec<ReportMade>,
}

/// A report that was made, or is being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportMade {
    /// When it was begun.
    pub at: SysTime,
    /// What it is about.
    pub report: ReportStep,
}

/// Where a message of the Outbox stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboxState {
    /// To be handed to a transport, not before this time (OB-19).
    Waiting {
        /// The epoch for at once.
        not_before: SysTime,
    },
    /// A transport accepted it (END_DONT_RESEND).
    Deferred {
        /// Name of the transport.
        transport: String,
    },
    /// The user put it on hold before any transport had it.
    Held,
}

impl OutboxRecord {
    /// The bodies the record needs.
    pub fn bodies(&self) -> impl Iterator<Item = BodyId> {
        self.object.into_iter().chain(self.content)
    }

    /// Everything that is noted of it here.
    pub fn noted(&self) -> Trace {
        let mut noted = self.trace.clone();
        for ReportMade { at, report } in &self.reports {
            let mut one = Trace::default();
            one.push(Step { at: *at, what: StepKind::Reported(report.clone()) });
            noted.merge(one);
        }
        noted
    }

    /// The message data of a message without an [`object`](Self::object) body.
    pub fn data(&self) -> MessageData {
        MessageData {
            props: self.props.clone(),
            recipients: self.recipients.clone(),
            attachments: Vec::new(),
        }
    }
}

/// Who set the time at which a message is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiry {
    /// The profile's `queue.lifetime`, which does not run out while the account is the trouble.
    #[default]
    Lifetime,
    /// The message itself (OB-19): final, and found by an index.
    Own,
}

/// `queue/E`: a message the transport accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// Raised by every change; see `Expect` in [`Batch`](super::Batch).
    pub revision: u64,
    /// Name of the transport.
    pub transport: String,
    /// Where the message stands.
    pub state: QueueState,
    /// Order of sending.
    pub priority: Priority,
    /// When the client submitted it.
    pub submitted: SysTime,
    /// When it is given up (OB-19, the profile's `queue.lifetime`).
    pub expires: SysTime,
    /// Who set that time.
    pub expiry: Expiry,
    /// When the next attempt is due; while claimed, when it is due if this process dies.
    pub due: SysTime,
    /// Attempts begun so far. Raised by the claim, before the connection (S2).
    pub attempts: u32,
    /// The envelope.
    pub envelope: Envelope,
    /// What to send, byte for byte.
    pub body: BodyId,
    /// Size of the body in bytes.
    pub size: u64,
    /// `Subject`, decoded and shortened, for people.
    pub subject: String,
    /// `Message-ID` with its angle brackets.
    pub message_id: String,
    /// What went wrong last; empty for nothing.
    pub last_error: String,
    /// What happened to it so far.
    pub trace: Trace,
}

/// Where a queued message stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueState {
    /// Waits for its due time.
    Due,
    /// Being sent by the owner of the lease.
    Claimed(Lease),
    /// The server's reply to the final dot never came; resent only by the profile's policy.
    InDoubt {
        /// When the reply was given up.
        since: SysTime,
        /// Whether the policy resends at the due time.
        resend: bool,
    },
    /// On hold by the user.
    Held,
    /// Given back at logoff (TN-18); due again when its Outbox message meets it.
    Parked,
    /// Every recipient has its outcome; the host is to be told (S3).
    Done,
}

/// Who works on a claimed message, and until when others must leave it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// A number drawn by each process at logon.
    pub owner: u64,
    /// When the claim lapses unless renewed.
    pub expires: SysTime,
    /// What is left to be known of the attempt if the owner dies.
    pub dot: FinalDot,
}

/// Whether the server may have the whole message of a claimed row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalDot {
    /// It cannot: its final dot was not sent. Who finds the claim of a dead owner sends again.
    #[default]
    NotSent,
    /// It may: this was made durable before the final dot went out. Who finds the claim of a dead
    /// owner has a message in doubt.
    MayBeOut {
        /// When it was about to be sent.
        since: SysTime,
    },
}

/// RFC 5321 envelope with the outcome of each recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Reverse-path; empty for the null sender.
    pub from: String,
    /// Forward-paths.
    pub recipients: Vec<QueueRecipient>,
    /// Whether the body has octets above 127 (RFC 6152).
    pub body: BodyKind,
    /// Whether an address or a header needs SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RFC 3461 ENVID; empty for none.
    pub envid: String,
    /// RFC 3461 RET; `None` leaves it out.
    pub ret: Option<DsnReturn>,
}

/// Which octets a body has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyKind {
    /// Only octets up to 127.
    #[default]
    SevenBit,
    /// Octets above 127.
    EightBit,
}

/// How much of the message a report returns (RFC 3461 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DsnReturn {
    /// The whole message.
    Full,
    /// Its headers.
    Headers,
}

/// One recipient of a queued message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// Number of its row in the message's recipient table.
    pub row: u32,
    /// Forward-path without angle brackets.
    pub address: String,
    /// Where it stands.
    pub state: RecipientState,
    /// Which reports were asked for (RFC 3461 NOTIFY); `None` leaves the choice to the server.
    pub notify: Option<DsnNotify>,
    /// RFC 3461 ORCPT without its type, where the client gave one; `None` takes the address.
    pub original: Option<String>,
}

/// RFC 3461 NOTIFY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DsnNotify {
    /// Report success.
    pub success: bool,
    /// Report failure.
    pub failure: bool,
    /// Report delay.
    pub delay: bool,
    /// Who reports a success.
    pub by: Reporter,
}

/// Who reports to the sender that a message was delivered (RFC 3461 section 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reporter {
    /// We do: no server has taken the request.
    #[default]
    Ourselves,
    /// The server that took the message offers DSN and was told NOTIFY with it.
    Server,
}

/// Where one recipient stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// Not tried, or not reached in the last attempt.
    Pending,
    /// The server took responsibility.
    Delivered {
        /// When.
        at: SysTime,
        /// Its reply to the final dot.
        reply: Reply,
    },
    /// Refused for now; tried again.
    Deferred {
        /// Why.
        reply: Reply,
    },
    /// Refused for good, or given up.
    Failed {
        /// When.
        at: SysTime,
        /// Why.
        reply: Reply,
        /// Which attempt failed it; failures of one attempt share a report (OB-12).
        attempt: u32,
    },
}

impl RecipientState {
    /// Where a recipient stands by its row in the message, for those that no transport of ours
    /// keeps a record of. `now` stands for a time that was not noted.
    pub fn by_row(row: &Recipient, now: SysTime) -> Self {
        if !row.responsibility {
            return RecipientState::Pending;
        }
        match row.failure() {
            None => RecipientState::Delivered { at: now, reply: Reply::default() },
            Some((enhanced, text)) => RecipientState::Failed {
                at: row.props.time(tags::REPORT_TIME).unwrap_or(now),
                reply: Reply {
                    enhanced: enhanced.to_owned(),
                    text: text.to_owned(),
                    ..Reply::default()
                },
                attempt: 0,
            },
        }
    }

    /// Whether nothing more will happen to the recipient (OB-4).
    pub fn is_conclusive(&self) -> bool {
        matches!(self, RecipientState::Delivered { .. } | RecipientState::Failed { .. })
    }
}

/// A server's reply, or our own words in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Reply code; 0 where no server spoke.
    pub code: u16,
    /// RFC 3463 enhanced code such as `5.1.1`; empty for none.
    pub enhanced: String,
    /// The text, lines joined by a space, bounded.
    pub text: String,
    /// Who said it; empty for ourselves.
    pub host: String,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::with_capacity(3);
        if self.code != 0 {
            words.push(self.code.to_string());
        }
        words.extend([&self.enhanced, &self.text].into_iter().filter(|w| !w.is_empty()).cloned());
        f.write_str(&words.join(" "))
    }
}

impl QueueRecord {
    /// When the row is to be looked at again by the scheduler, if ever by itself.
    pub fn scheduled(&self) -> Option<SysTime> {
        match &self.state {
            QueueState::Due | QueueState::Claimed(_) | QueueState::InDoubt { resend: true, .. } => {
                Some(self.due)
            }
            QueueState::InDoubt { resend: false, .. }
            | QueueState::Held
            | QueueState::Parked
            | QueueState::Done => None,
        }
    }

    /// Whether a server may have the message although nobody knows: it is in doubt, or was before
    /// it was put on hold, made due or tried again.
    pub fn may_be_delivered(&self) -> bool {
        self.state.is_in_doubt() || self.trace.was_in_doubt()
    }

    /// Whether every recipient has its outcome.
    pub fn is_conclusive(&self) -> bool {
        self.envelope.recipients.iter().all(|recipient| recipient.state.is_conclusive())
    }
}

/// `history/E`: how a message ended. While it stands (30 days), a message of that entry id that
/// is submitted again is answered from it instead of being sent twice (S4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Name of the transport.
    pub transport: String,
    /// How it ended.
    pub end: HistoryEnd,
    /// When it ended.
    pub ended: SysTime,
    /// When the client submitted it.
    pub submitted: SysTime,
    /// Attempts it took.
    pub attempts: u32,
    /// The envelope with every outcome.
    pub envelope: Envelope,
    /// `Subject`, for people.
    pub subject: String,
    /// `Message-ID` with its angle brackets, by which delivery reports are tied to it.
    pub message_id: String,
    /// Size of the body in bytes.
    pub size: u64,
    /// What happened to it, and what came in about it since.
    pub trace: Trace,
}

impl QueueState {
    /// Whether a server may have the message although nobody knows: then it was never told, or
    /// the process that had it on the wire has ended.
    pub fn is_in_doubt(&self) -> bool {
        match self {
            QueueState::InDoubt { .. } => true,
            QueueState::Claimed(lease) => matches!(lease.dot, FinalDot::MayBeOut { .. }),
            QueueState::Due | QueueState::Held | QueueState::Parked | QueueState::Done => false,
        }
    }
}

impl OutboxRecord {
    /// The recipients of the message that `known` does not list, by their rows.
    pub fn others(&self, known: &[QueueRecipient], now: SysTime) -> Vec<QueueRecipient> {
        let unknown = |row: &&Recipient| {
            row.kind != RecipientType::Orig && !known.iter().any(|known| known.row == row.row)
        };
        let others = self.recipients.iter().filter(unknown).map(|row| QueueRecipient {
            row: row.row,
            address: row.address.clone(),
            state: RecipientState::by_row(row, now),
            notify: None,
            original: None,
        });
        others.collect()
    }

    /// The history of a message that ends now, from what the store alone knows of it.
    pub fn history(&self, end: HistoryEnd, now: SysTime) -> HistoryRecord {
        let text = |tag| self.props.text(tag).map(str::to_owned);
        HistoryRecord {
            transport: match &self.state {
                OutboxState::Deferred { transport } => transport.clone(),
                OutboxState::Waiting { .. } | OutboxState::Held => String::new(),
            },
            end,
            ended: now,
            submitted: self.submitted,
            attempts: 0,
            envelope: Envelope {
                from: text(tags::ENVELOPE_SENDER)
                    .or(text(tags::SENDER_EMAIL_ADDRESS))
                    .unwrap_or_default(),
                recipients: self.others(&[], now),
                ..Envelope::default()
            },
            subject: text(tags::SUBJECT).unwrap_or_default(),
            message_id: text(tags::INTERNET_MESSAGE_ID).unwrap_or_default(),
            size: self.size,
            trace: Trace::default(),
        }
    }
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HistoryEnd {
    /// Every recipient has its outcome and the host was told.
    Finished,
    /// The user cancelled it (TN-17); a resubmission is no longer wanted.
    Cancelled,
}

/// `cursor/<account><mailbox>`: how far a mailbox of the server was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRecord {
    /// UIDVALIDITY the numbers below belong to (RFC 3501 section 2.3.1.1).
    pub uid_validity: u32,
    /// Every UID up to this one is safely in the store.
    pub last_uid: u32,
    /// UIDs above `last_uid` and up to this one may be in the store already: they were being
    /// handed over when this was written (IB-6).
    pub window_end: u32,
    /// UIDs below or equal `last_uid` that were set aside because they could not be fetched.
    pub set_aside: Vec<u32>,
    /// UIDs that are in the store but whose `after` action is still owed to the server, as ranges
    /// in ascending order.
    pub after_owed: Vec<UidRange>,
    /// Set while a changed UIDVALIDITY is being caught up with: up to this UID every message is
    /// compared with what was delivered before. 0 when that is over.
    pub rematch_until: u32,
    /// How many messages are in the store and have a row in `fetched/`.
    pub counted: u32,
    /// The numbering before this one, while its rows are being taken over.
    pub retired: Option<Retired>,
    /// A COPY that was begun and whose originals are not yet known to be flagged.
    pub copying: Option<CopyIntent>,
}

/// UIDs in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRange {
    /// The first of them.
    pub first: u32,
    /// The last of them, not below the first.
    pub last: u32,
}

/// A UIDVALIDITY that has passed: which of its rows in `fetched/` name messages that are surely
/// in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDs up to this one are in the store, but for those in `set_aside`.
    pub last_uid: u32,
    /// UIDs up to `last_uid` of which that is not known.
    pub set_aside: Vec<u32>,
    /// UIDs that are in the store although they are above `last_uid` or in `set_aside`.
    pub saved: Vec<u32>,
}

/// What is needed to find out, after a crash, what a COPY has done (servers without MOVE).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyIntent {
    /// The messages.
    pub uids: Vec<u32>,
    /// The mailbox they are copied to, as the profile names it.
    pub target: String,
    /// Its UIDVALIDITY when the copy began; 0 when it did not exist.
    pub uid_validity: u32,
    /// Copies have this UID or a higher one.
    pub uid_next: u32,
}

/// The place of a message on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// UIDVALIDITY of its mailbox.
    pub uid_validity: u32,
    /// Its UID.
    pub uid: u32,
}

/// `fetched/<account><mailbox><UIDVALIDITY><UID>`: written before a message is saved, so that it
/// is known again when all numbers have changed, and removed when it has gone from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedRecord {
    /// First half of the BLAKE3 digest of its bytes.
    pub digest: [u8; 16],
    /// The place its key in the store was made from: its own, or that of an earlier numbering.
    pub origin: Origin,
}
