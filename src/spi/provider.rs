//! The transport's side: `IXPProvider` and `IXPLogon`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Message, MessageRefCell, StatusObject, Support};
use crate::mapi::{
    DeinitFlags, EndMessageFlags, EntryId, FlushFlags, LogoffFlags, LogonFlags, LogonOutFlags,
    MapiCode, MapiError, MapiResult, MessageRef, SubmitMessageFlags, TransportNotify,
    ValidateFlags,
};

/// A transport provider: the factory of logons, one per process and session (LG-1, LG-2).
#[async_trait]
pub trait XpProvider: Send + Sync {
    /// Agrees on the version of the interface; the first call.
    ///
    /// # Errors
    /// `MAPI_E_VERSION` when the host's version is below the provider's (LG-2).
    fn init(&self, host_version: u32) -> MapiResult<u32>;

    /// Logs on to one account. Settings come from `support` only (LG-3); no connection is needed
    /// for it to succeed.
    ///
    /// # Errors
    /// `MAPI_E_UNCONFIGURED` naming the missing key, `MAPI_E_LOGON_FAILED`,
    /// `MAPI_E_FAILONEPROVIDER`, `MAPI_E_USER_CANCEL` (LG-8); `MAPI_E_NOT_INITIALIZED` before
    /// [`XpProvider::init`], `MAPI_E_END_OF_SESSION` after [`XpProvider::shutdown`] (LG-1).
    async fn transport_logon(
        &self,
        support: Arc<dyn Support>,
        flags: LogonFlags,
    ) -> MapiResult<LogonOutcome>;

    /// Ends the provider; open logons are logged off first (LG-10).
    ///
    /// # Errors
    /// `MAPI_E_NOT_INITIALIZED` before [`XpProvider::init`], `MAPI_E_END_OF_SESSION` when it was
    /// called before (LG-1); `MAPI_E_UNKNOWN_FLAGS`.
    async fn shutdown(&self, flags: DeinitFlags) -> MapiResult<()>;
}

/// What a successful TransportLogon answers.
pub struct LogonOutcome {
    /// The logon.
    pub logon: Arc<dyn XpLogon>,
    /// What it wants of the host (LG-7).
    pub flags: LogonOutFlags,
}

impl std::fmt::Debug for LogonOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogonOutcome").field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// Which recipients a transport takes (AT-2 to AT-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressTypes {
    /// Those named here; with both lists empty the transport sends nothing (AT-4).
    These {
        /// Address types, in the transport's order.
        types: Vec<String>,
        /// Provider UIDs that recipients may carry in their entry id, in the transport's order;
        /// looked at before the types (AT-3).
        uids: Vec<[u8; 16]>,
    },
    /// Any; such a transport is asked last (AT-4).
    Any,
}

/// What goes with the flags of a TransportNotify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyData<'a> {
    /// Nothing.
    None,
    /// With `CANCEL_MESSAGE`: the message in a running call (TN-14, TN-15).
    Reference(MessageRef),
    /// With `ABORT_DEFERRED`: the deferred message (TN-17, TN-18).
    EntryId(&'a EntryId),
}

/// Whether mail is waiting to be fetched (IB-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Call StartMessage.
    Waiting,
    /// Nothing now.
    None,
}

/// Why SubmitMessage did not take a message (OB-7).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct SubmitError {
    /// Code and words.
    pub error: MapiError,
    /// With `MAPI_E_WAIT` and `MAPI_E_NETWORK_ERROR`: when to submit again.
    pub retry_after: Option<Duration>,
}

impl From<MapiError> for SubmitError {
    fn from(error: MapiError) -> Self {
        SubmitError { error, retry_after: None }
    }
}

impl From<MapiCode> for SubmitError {
    fn from(code: MapiCode) -> Self {
        MapiError::from(code).into()
    }
}

/// One account of a transport provider (`IXPLogon`).
///
/// After [`XpLogon::transport_logoff`] every call answers `MAPI_E_END_OF_SESSION` (LG-1).
/// Dropping the last reference without a logoff has the same effect as a hurried one (LG-9).
#[async_trait]
pub trait XpLogon: Send + Sync {
    /// The address types this logon takes, in its order, called after logon and again after a
    /// change of configuration (AT-1).
    ///
    /// # Errors
    /// `MAPI_E_END_OF_SESSION`.
    async fn address_types(&self) -> MapiResult<AddressTypes>;

    /// Switches directions and flushes, cancels, aborts (spec section 4).
    ///
    /// All flags are applied as one step with one status row update, which is made before this
    /// returns (TN-3, TN-6). It never waits for a SubmitMessage, StartMessage or EndMessage that
    /// runs meanwhile (TN-2). The caller keeps its flags whatever happens: they are passed by
    /// value (TN-1).
    ///
    /// # Errors
    /// `MAPI_E_INVALID_PARAMETER` for pairs that exclude each other or data that does not fit
    /// (TN-4); `MAPI_E_UNABLE_TO_ABORT`, `MAPI_E_NOT_FOUND` (TN-17); `MAPI_E_DISK_ERROR` when an
    /// abort could not be made durable. On an error nothing was changed.
    async fn transport_notify(
        &self,
        flags: TransportNotify,
        data: NotifyData<'_>,
    ) -> MapiResult<()>;

    /// Takes a message for delivery (spec section 5). The reference is set before the message is
    /// touched (OB-1) and lives until [`XpLogon::end_message`] returns (OB-2). A cancel by it stops
    /// the message at once, also before EndMessage is called (TN-14); until it is set the value 0
    /// names the call, from the moment at which this has returned its future (TN-15).
    ///
    /// With `BEGIN_DEFERRED` the outcome of a deferred message is reported (OB-11).
    ///
    /// # Errors
    /// See OB-3 and OB-7 for the codes; after `MAPI_E_NOT_ME`, `MAPI_E_BUSY`, `MAPI_E_WAIT`,
    /// `MAPI_E_NETWORK_ERROR` and `MAPI_E_CANCEL` no EndMessage follows.
    async fn submit_message(
        &self,
        flags: SubmitMessageFlags,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> Result<(), SubmitError>;

    /// Ends the handling of a message (OB-10).
    ///
    /// # Errors
    /// `MAPI_E_INVALID_PARAMETER` for a reference that is not open; `MAPI_E_CANCEL` when it was
    /// cancelled meanwhile (TN-14).
    async fn end_message(&self, reference: MessageRef) -> MapiResult<EndMessageFlags>;

    /// Whether mail is waiting; for transports that asked for it by `SP_POLL` (IB-1).
    ///
    /// # Errors
    /// `MAPI_E_NETWORK_ERROR`, `MAPI_E_LOGON_FAILED`.
    async fn poll(&self) -> MapiResult<Incoming>;

    /// Fills `message` with the next one waiting and saves it (IB-2); with nothing to hand over
    /// it returns without saving (IB-3). Several may run at once; each has its own reference, and
    /// until it is set the value 1 names the call (TN-15).
    ///
    /// # Errors
    /// `MAPI_E_CANCEL` (TN-14), the errors of the message object, `MAPI_E_NETWORK_ERROR`; the
    /// message then stays on the server (IB-7).
    async fn start_message(
        &self,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> MapiResult<()>;

    /// The object behind this logon's status row (ST-6).
    ///
    /// # Errors
    /// `MAPI_E_END_OF_SESSION`.
    async fn open_status_entry(&self) -> MapiResult<Arc<dyn StatusObject>>;

    /// Checks or changes the state of the logon (ST-7).
    ///
    /// # Errors
    /// `MAPI_E_BUSY`, `MAPI_E_NO_SUPPORT`.
    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()>;

    /// Starts to flush what was deferred and what is waiting (FL-1).
    ///
    /// # Errors
    /// `MAPI_E_END_OF_SESSION`.
    async fn flush_queues(&self, flags: FlushFlags) -> MapiResult<()>;

    /// A chance for low-priority work, for transports that asked for it by `SP_IDLE`.
    ///
    /// # Errors
    /// `MAPI_E_END_OF_SESSION`.
    async fn idle(&self) -> MapiResult<()>;

    /// Ends the logon (LG-9). Accepted messages stay in the durable queue.
    ///
    /// # Errors
    /// `MAPI_E_END_OF_SESSION` when it was called before.
    async fn transport_logoff(&self, flags: LogoffFlags) -> MapiResult<()>;
}
