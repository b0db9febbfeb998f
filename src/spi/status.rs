//! Rows of the status table and the objects behind them (spec section 8).

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::mapi::{
    EntryId, FlushFlags, MapiResult, ResourceFlags, ResourceMethods, StatusCode, ValidateFlags,
};

/// Which resource a row is about (`PR_RESOURCE_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub enum StatusRowKind {
    /// 36: a transport logon.
    Transport,
    /// 37: the spooler itself.
    Spooler,
}

/// The columns a transport gives of its row; `None` leaves a column as it is (ST-1, ST-2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusColumns {
    /// `PR_DISPLAY_NAME`.
    pub display_name: Option<String>,
    /// `PR_IDENTITY_DISPLAY`.
    pub identity_display: Option<String>,
    /// `PR_IDENTITY_ENTRYID`; see [`EntryId::one_off`].
    pub identity_entry_id: Option<EntryId>,
    /// `PR_IDENTITY_SEARCH_KEY`: address type, colon and address in capitals, and a zero byte.
    pub identity_search_key: Option<Vec<u8>>,
    /// `PR_STATUS_CODE`.
    pub status_code: Option<StatusCode>,
    /// `PR_STATUS_STRING`, for people.
    pub status_string: Option<String>,
    /// `PR_RESOURCE_METHODS`.
    pub resource_methods: Option<ResourceMethods>,
}

/// One row of the status table, complete (ST-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRow {
    /// `PR_ROWID`: unique in the session.
    pub row_id: u32,
    /// `PR_ENTRYID`: what the row's status object is opened by, as long as the session lasts.
    pub entry_id: EntryId,
    /// `PR_INSTANCE_KEY`: tells this row from one that had its place before.
    pub instance_key: Vec<u8>,
    /// `PR_RESOURCE_TYPE`.
    pub kind: StatusRowKind,
    /// `PR_DISPLAY_NAME`.
    pub display_name: String,
    /// `PR_PROVIDER_DLL_NAME`.
    pub provider: String,
    /// `PR_IDENTITY_DISPLAY`; empty without an identity.
    pub identity_display: String,
    /// `PR_IDENTITY_ENTRYID`; `None` without an identity.
    pub identity_entry_id: Option<EntryId>,
    /// `PR_IDENTITY_SEARCH_KEY`; empty without an identity.
    pub identity_search_key: Vec<u8>,
    /// `PR_STATUS_CODE`.
    pub status_code: StatusCode,
    /// `PR_STATUS_STRING`.
    pub status_string: String,
    /// `PR_RESOURCE_METHODS`.
    pub resource_methods: ResourceMethods,
    /// `PR_RESOURCE_FLAGS`.
    pub resource_flags: ResourceFlags,
}

impl StatusRow {
    /// `PR_OBJECT_TYPE` of every row: `MAPI_STATUS`.
    pub const OBJECT_TYPE: u32 = 10;
}

impl StatusRowKind {
    /// `PR_RESOURCE_TYPE` as the public header numbers it.
    pub const fn number(self) -> u32 {
        match self {
            StatusRowKind::Transport => 36,
            StatusRowKind::Spooler => 37,
        }
    }
}

/// What `OpenStatusEntry` gives (`IMAPIStatus`, ST-6).
#[async_trait]
pub trait StatusObject: Send + Sync {
    /// The calls that do something; the others answer `MAPI_E_NO_SUPPORT`.
    fn resource_methods(&self) -> ResourceMethods;

    /// Checks or changes the state (ST-7).
    ///
    /// # Errors
    /// `MAPI_E_BUSY`, `MAPI_E_NO_SUPPORT`.
    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()>;

    /// Flushes (FL-1). `target` is for the spooler's own object: the entry id of the row of the
    /// one transport that is to be flushed, `None` for all (FL-7). To the object of a transport
    /// it is reserved (FL-6).
    ///
    /// # Errors
    /// `MAPI_E_NO_SUPPORT`, `MAPI_E_END_OF_SESSION`, `MAPI_E_UNKNOWN_FLAGS`;
    /// `MAPI_E_INVALID_PARAMETER` for a target where it is reserved, `MAPI_E_NOT_FOUND` for one
    /// that nobody knows.
    async fn flush_queues(&self, target: Option<&EntryId>, flags: FlushFlags) -> MapiResult<()>;

    /// Shows a settings dialog.
    ///
    /// # Errors
    /// `MAPI_E_NO_SUPPORT`.
    async fn settings_dialog(&self) -> MapiResult<()>;

    /// Changes the password at the provider.
    ///
    /// # Errors
    /// `MAPI_E_NO_SUPPORT`.
    async fn change_password(&self) -> MapiResult<()>;
}
