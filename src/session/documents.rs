//! What a session answers: rows of the queue, traces, the status, trials of servers. The JSON of these
//! types is a promise to scripts.

use serde::{Deserialize, Serialize};

/// What a flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlushSummary {
    /// Messages that reached their end while flushing.
    pub sent: u64,
    /// Messages brought into the store.
    pub received: u64,
    /// Messages still in the queue.
    pub left: u64,
    /// One sentence per transport that could not finish.
    pub troubles: Vec<String>,
}

/// A row of the outgoing queue (`queue --json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QueueRow {
    /// Entry id.
    pub id: String,
    /// Where the message stands.
    pub state: QueueRowState,
    /// Name of the transport; empty until one is chosen.
    pub transport: String,
    /// Reverse-path; empty for the null sender.
    pub from: String,
    /// Subject.
    pub subject: String,
    /// Bytes.
    pub size: u64,
    /// RFC 3339.
    pub submitted: String,
    /// Attempts begun.
    pub attempts: u32,
    /// RFC 3339; `null` when none is planned.
    pub next_attempt: Option<String>,
    /// `null` for none.
    pub last_error: Option<String>,
    /// Each with its outcome.
    pub recipients: Vec<RecipientRow>,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(utoipa::ToSchema)]
pub enum QueueRowState {
    /// Not tried yet.
    Queued,
    /// On its way.
    Sending,
    /// Tried, and will be again.
    Deferred,
    /// Only the server knows.
    InDoubt,
    /// On hold.
    Held,
    /// Given back at logoff.
    Parked,
    /// Ended; only from [`Service::wait`](super::Service::wait) and [`Service::queue_row`](super::Service::queue_row).
    Finished,
    /// Cancelled; only from [`Service::wait`](super::Service::wait) and [`Service::queue_row`](super::Service::queue_row).
    Cancelled,
}

/// A recipient of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecipientRow {
    /// Address.
    pub address: String,
    /// Where it stands.
    pub state: RecipientRowState,
    /// The server's last word; empty for none.
    pub reply: String,
    /// The id under which the server that took it has the message, where its reply names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<String>,
}

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub enum RecipientRowState {
    /// Not tried, or not reached.
    Pending,
    /// The server took it.
    Delivered,
    /// Refused for now.
    Deferred,
    /// Refused for good.
    Failed,
}

/// What happened to a message (`trace --json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TraceReport {
    /// Entry id.
    pub id: String,
    /// `Message-ID` with its angle brackets; empty while it has none.
    pub message_id: String,
    /// Where the message stands, or how it ended.
    pub state: QueueRowState,
    /// Name of the transport that has it or had it last; empty for none.
    pub transport: String,
    /// Reverse-path; empty for the null sender.
    pub from: String,
    /// Subject.
    pub subject: String,
    /// Bytes.
    pub size: u64,
    /// RFC 3339.
    pub submitted: String,
    /// RFC 3339; `null` when no attempt is planned.
    pub next_attempt: Option<String>,
    /// Each with its outcome.
    pub recipients: Vec<RecipientRow>,
    /// What happened, in order. Of a message with a long story the first few steps and the last.
    pub steps: Vec<TraceStep>,
    /// How many steps are not kept any more.
    pub left_out: u32,
}

/// One thing that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TraceStep {
    /// RFC 3339.
    pub time: String,
    /// What happened.
    pub step: TraceStepKind,
    /// The same in words.
    pub text: String,
    /// Which attempt it belongs to, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The server, or the host that reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Version of TLS; not there in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// `PR_MESSAGE_CLASS` of a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The words of the server, or of the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<String>,
    /// The recipients it is about; all when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(utoipa::ToSchema)]
pub enum TraceStepKind {
    /// It was submitted (SP-1).
    Submitted,
    /// It is not handed to a transport before this time (OB-19).
    NotBefore,
    /// A transport took it (END_DONT_RESEND).
    Accepted,
    /// An attempt.
    Attempt,
    /// The account could not be used: no server heard of the message.
    Untried,
    /// The process ended in the middle of an attempt.
    Interrupted,
    /// The reply to the final dot never came.
    InDoubt,
    /// A server took responsibility for recipients.
    Delivered,
    /// Recipients were refused for good, or given up.
    Failed,
    /// Put on hold.
    Held,
    /// Let go.
    Released,
    /// Made due by the user.
    Hurried,
    /// Given back at logoff (TN-18).
    GivenBack,
    /// Taken up again.
    TakenUp,
    /// A report was put into INBOX (SP-4).
    Reported,
    /// A delivery status notification came in (IB-8).
    StatusReport,
    /// Cancelled (TN-17).
    Cancelled,
    /// It left the queue.
    Finished,
}

/// The status table and what belongs to it (`status --json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatusReport {
    /// Name of the profile.
    pub profile: String,
    /// Process that owns the spool.
    pub pid: u32,
    /// The status table.
    pub rows: Vec<StatusRowView>,
    /// Counts of the outgoing queue.
    pub queue: QueueCountsView,
    /// Mailboxes that are fetched.
    pub inbound: Vec<InboundState>,
    /// The last error of any transport that still matters; `null` for none.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When the next message of the queue is due, RFC 3339; `null` when none is planned.
    #[serde(default)]
    pub next_attempt: Option<String>,
    /// Transports whose sign-in has ended or was never made; their mail waits until somebody runs
    /// `postrider auth login`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_sign_in: Vec<String>,
    /// Sent copies that are not in the mailboxes of their servers yet; transports without any are
    /// left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owed_copies: Vec<OwedCopiesView>,
}

/// Sent copies that a server is to get (`sent = "server"`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OwedCopiesView {
    /// Name of the transport.
    pub transport: String,
    /// How many wait.
    pub count: u64,
    /// Why the last try failed; `None` when there was none, or it is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A row of the status table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatusRowView {
    /// `PR_DISPLAY_NAME`.
    pub name: String,
    /// `PR_RESOURCE_TYPE`.
    #[serde(rename = "type")]
    pub kind: crate::spi::StatusRowKind,
    /// `PR_STATUS_CODE`.
    pub status_code: u32,
    /// Its flags by name.
    pub flags: Vec<String>,
    /// `PR_STATUS_STRING`.
    pub status_string: String,
    /// Why the transport does not send just now; `None` when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_waits: Option<String>,
}

/// How many messages are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QueueCountsView {
    /// Not tried yet.
    pub queued: u64,
    /// On their way.
    pub sending: u64,
    /// Tried, and will be again.
    pub deferred: u64,
    /// In doubt.
    pub in_doubt: u64,
    /// On hold.
    pub held: u64,
}

/// How a mailbox is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub enum InboundMode {
    /// By IDLE.
    Idle,
    /// By looking now and then.
    Poll,
    /// Not at all.
    Off,
}

/// A mailbox that is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InboundState {
    /// Name of the transport.
    pub transport: String,
    /// Name of the mailbox.
    pub mailbox: String,
    /// How it is watched.
    pub mode: InboundMode,
    /// Everything up to this UID is in the store.
    pub last_uid: u32,
    /// Messages known to wait.
    pub pending: u64,
    /// UIDs of messages that could not be fetched and were set aside, so that the others are not
    /// held up. They are tried again now and then and in a flush.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<u32>,
    /// Why the last of them was set aside; `None` when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside_why: Option<String>,
}

/// Which way mail moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub enum Direction {
    /// From the server to us.
    Inbound,
    /// From us to the server.
    Outbound,
    /// From us to the program or the LMTP server that gets what was received.
    Delivery,
}

/// What a trial found out about one server, or about the program that gets received mail (`profile check --json`, ST-7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckReport {
    /// Name of the transport; `store` for who gets received mail.
    pub transport: String,
    /// Which of its servers.
    pub direction: Direction,
    /// Host and port, or the program.
    pub server: String,
    /// Whether the login worked, or received mail would be taken.
    pub ok: bool,
    /// What the server says it can do, in its own words (EHLO keywords, IMAP capabilities).
    pub offers: Vec<String>,
    /// Why it did not work; `null` when it did.
    pub error: Option<String>,
}
