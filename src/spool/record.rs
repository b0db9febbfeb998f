//! What the rows of the spool hold. Which states they form together, and what follows after a
//! crash in each, is the table "States on disk" in `ARCHITECTURE.md`.

use serde::{Deserialize, Serialize};

use super::trace::{ReportStep, Step, StepKind, Trace};
use super::{BodyId, Envelope, QueueRecipient, RecipientState};
use crate::mapi::Recipient;
use crate::mapi::{MessageData, Priority, PropList, RecipientType, SysTime, tags};

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
