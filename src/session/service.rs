//! What can be asked of a running session, whether it runs in this process or behind the control
//! socket.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use super::{
    CheckReport, FlushSummary, FsckEvents, FsckRequest, QueueRow, StatusReport, TraceReport,
};
use crate::mapi::{DsnRequest, EntryId, Importance, MapiResult, MessageData, Priority, SysTime};

/// A message object to be sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Submission {
    /// Properties, recipients, attachments. The sender is `PR_SENDER_EMAIL_ADDRESS` or, when
    /// absent, the identity of the transport that will send it.
    pub message: MessageData,
}

/// The envelope of a message that is submitted as RFC 5322 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RawEnvelope {
    /// Reverse-path: `None` takes the address of `Sender` or `From`; `Some("")` is the null
    /// sender.
    pub from: Option<String>,
    /// Forward-paths.
    pub recipients: Vec<String>,
    /// Whether the recipients of `To`, `Cc` and `Bcc` are added to the forward-paths.
    pub recipients_from_header: bool,
    /// Whether a report of delivery is asked for.
    #[serde(default)]
    pub delivery_report: bool,
    /// `PR_DEFERRED_SEND_TIME`: send not before (OB-19).
    #[serde(default)]
    pub deferred_send_time: Option<SysTime>,
    /// `PR_EXPIRY_TIME`: not wanted after (OB-19); `None` takes `Expires` of the header.
    #[serde(default)]
    pub expiry_time: Option<SysTime>,
    /// `PR_IMPORTANCE`; `None` takes `Importance` or `X-Priority` of the header.
    #[serde(default)]
    pub importance: Option<Importance>,
    /// `PR_PRIORITY`; `None` takes `Priority` of the header.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Addresses that are no recipients although the header names them.
    #[serde(default)]
    pub excluded: Vec<String>,
    /// Name to show of the sender where the message has no `From`; `None` takes that of the
    /// identity.
    #[serde(default)]
    pub sender_name: Option<String>,
    /// Login name of who handed it over on this machine: makes a trace field in front of the
    /// message (RFC 5321 section 4.4).
    #[serde(default)]
    pub submitter: Option<String>,
    /// What the envelope asks of delivery status notifications (RFC 3461).
    #[serde(default)]
    pub dsn: DsnRequest,
}

/// `TransportNotify` as asked for from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NotifyRequest {
    /// The transport; `None` for all.
    pub transport: Option<String>,
    /// The flag word.
    pub flags: u32,
    /// Message reference for `CANCEL_MESSAGE`.
    pub reference: Option<u32>,
    /// Entry id for `ABORT_DEFERRED`.
    pub entry: Option<String>,
}

/// What to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlushRequest {
    /// Send.
    pub upload: bool,
    /// Receive.
    pub download: bool,
}

/// A session, in this process or behind the control socket.
///
/// Errors are those of the contract; a control socket that breaks answers
/// `MAPI_E_NETWORK_ERROR`.
#[async_trait]
pub trait Service: Send + Sync {
    /// Submits a message object; on `Ok` it is durable (SP-1).
    ///
    /// # Errors
    /// `MAPI_E_NO_RECIPIENTS` (OB-17), `MAPI_E_INVALID_PARAMETER` for an address or header that
    /// cannot be, `MAPI_E_TOO_BIG`, `MAPI_E_NOT_ENOUGH_DISK`; nothing is stored then.
    async fn submit(&self, submission: Submission) -> MapiResult<EntryId>;

    /// Submits RFC 5322 bytes; on `Ok` they are durable (SP-1).
    ///
    /// # Errors
    /// As [`Service::submit`]; `MAPI_E_CORRUPT_DATA` for bytes that are no message.
    async fn submit_raw(
        &self,
        envelope: RawEnvelope,
        bytes: Pin<Box<dyn AsyncRead + Send>>,
    ) -> MapiResult<EntryId>;

    /// The status table as of now.
    async fn status(&self) -> MapiResult<StatusReport>;

    /// The status table now and after each change.
    async fn watch_status(&self) -> MapiResult<Pin<Box<dyn Stream<Item = StatusReport> + Send>>>;

    /// Counters and gauges in the text format of Prometheus, version 0.0.4.
    async fn metrics(&self) -> MapiResult<String>;

    /// Rows of the outgoing queue after `after`, in order of submission.
    async fn queue(&self, after: Option<EntryId>, limit: usize) -> MapiResult<Vec<QueueRow>>;

    /// One message of the queue, or how it ended.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`.
    async fn queue_row(&self, entry: &EntryId) -> MapiResult<QueueRow>;

    /// What happened to a message, also 30 days after it ended. `id` is an entry id, the beginning
    /// of one, or a `Message-ID`; of several messages with one `Message-ID` the latest.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`; `MAPI_E_INVALID_ENTRYID` for what is no id, and for a beginning that
    /// several messages share.
    async fn trace(&self, id: &str) -> MapiResult<TraceReport>;

    /// Waits until a message has ended, at most `limit`.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`, `MAPI_E_TIMEOUT`.
    async fn wait(&self, entry: &EntryId, limit: Option<Duration>) -> MapiResult<QueueRow>;

    /// Cancels a message (OB-15, TN-17).
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` once it is sent, and also when it is in doubt: then it has ended and
    /// is not sent again, but may have been delivered. `MAPI_E_NOT_IN_QUEUE`.
    async fn cancel(&self, entry: &EntryId) -> MapiResult<()>;

    /// Keeps a message from being sent until it is released.
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` while it is on its way, `MAPI_E_NOT_IN_QUEUE`.
    async fn hold(&self, entry: &EntryId) -> MapiResult<()>;

    /// Lets a held message go.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`.
    async fn release(&self, entry: &EntryId) -> MapiResult<()>;

    /// Makes a message, or with `None` every deferred one, due now. Returns how many. One that no
    /// transport has yet is handed over now; what is on hold, or waits for its
    /// `PR_DEFERRED_SEND_TIME` (OB-19), is left alone and not counted.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`.
    async fn retry(&self, entry: Option<&EntryId>) -> MapiResult<u64>;

    /// The message as RFC 5322 bytes.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`, `MAPI_E_CORRUPT_DATA`.
    async fn export(&self, entry: &EntryId) -> MapiResult<Pin<Box<dyn AsyncRead + Send>>>;

    /// Calls TransportNotify.
    ///
    /// # Errors
    /// Those of the contract; `MAPI_E_NOT_FOUND` for a transport that is not in the profile.
    async fn notify(&self, request: NotifyRequest) -> MapiResult<()>;

    /// Flushes and returns when that is done (FL-7).
    async fn flush(&self, request: FlushRequest) -> MapiResult<FlushSummary>;

    /// Logs in to every server of the session's profile on connections of its own (ST-7). A
    /// server that refuses is no error but a report that says so.
    async fn check(&self) -> MapiResult<Vec<CheckReport>>;

    /// Checks the spool, mends and exports it if that is wanted, beside the traffic. The last
    /// event is the report or an error; dropping the events ends the check.
    ///
    /// # Errors
    /// `MAPI_E_BUSY` while another check runs, `MAPI_E_DISK_ERROR`, `MAPI_E_NOT_ENOUGH_DISK`.
    async fn fsck(&self, request: FsckRequest) -> MapiResult<FsckEvents>;
}
