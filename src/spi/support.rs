//! The host's side: the support object a logon calls back (`IMAPISupport`).

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Message, ProfileSection, StatusColumns};
use crate::mapi::{EntryId, MapiResult, ModifyStatusFlags, SpoolerNotify, SysTime};

/// The answer of SpoolerYield (OB-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// Go on.
    Continue,
    /// `MAPI_W_CANCEL_MESSAGE`: stop delivery to those not yet reached.
    CancelMessage,
}

/// Whether a report tells of failure or of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReportKind {
    /// Non-delivery (NDR).
    Failure,
    /// Delivery (DR), made on request only.
    Delivery,
}

/// What happened to one recipient, for a report (OB-12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientReport {
    /// Number of the recipient's row in its message.
    pub row: u32,
    /// Failure or delivery.
    pub kind: ReportKind,
    /// Enhanced status code of RFC 3463, such as `5.1.1`.
    pub status: String,
    /// The server's own words, first line first; empty when there was no server.
    pub diagnostic: String,
    /// The host that said so; empty when there was none.
    pub remote_mta: String,
    /// `PR_DELIVER_TIME` or `PR_REPORT_TIME`.
    pub time: SysTime,
}

/// What a host offers to one logon.
///
/// A host promises that none of these calls waits for the logon that makes it, so a transport may
/// make them from anywhere.
#[async_trait]
pub trait Support: Send + Sync {
    /// The settings of this logon (`OpenProfileSection`, LG-3).
    fn profile_section(&self) -> ProfileSection;

    /// Tells the host of an event; returns at once, before the host has acted.
    /// `SENTDEFERRED` comes with the entry id of the message (OB-11).
    fn spooler_notify(&self, flags: SpoolerNotify, entry: Option<&EntryId>);

    /// Lets others work during something long (OB-18), such as the conversion of a large message
    /// in SubmitMessage. `entry` is the message the work is about, if it is about one: several
    /// calls may run at once, and the answer is about that message. The host also takes each call
    /// as a sign that the one it comes from has not come to a standstill.
    async fn spooler_yield(&self, entry: Option<&EntryId>) -> Yield;

    /// Makes or merges the status row; subscribers have it before this returns (ST-2, ST-5).
    ///
    /// # Errors
    /// `MAPI_E_END_OF_SESSION` after the logon was released.
    fn modify_status_row(&self, columns: StatusColumns, flags: ModifyStatusFlags)
    -> MapiResult<()>;

    /// Reports the recipients of one attempt that ended, once per message and attempt (OB-12,
    /// SP-4). When it returns `Ok` the report is durable; the same call again makes no second
    /// one. `attempt` counts from 1.
    ///
    /// # Errors
    /// Those of the host's store; the transport then reports again later.
    async fn status_recips(
        &self,
        message: &dyn Message,
        attempt: u32,
        recipients: Vec<RecipientReport>,
    ) -> MapiResult<()>;

    /// The logon's objects are dead; the host calls them no more.
    fn make_invalid(&self);
}
