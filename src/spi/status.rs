//! Rows of the status table and the objects behind them (spec section 8).

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::mapi::{
    FlushFlags, MapiResult, ResourceFlags, ResourceMethods, StatusCode, ValidateFlags,
};

/// Which resource a row is about (`PR_RESOURCE_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// `PR_RESOURCE_TYPE`.
    pub kind: StatusRowKind,
    /// `PR_DISPLAY_NAME`.
    pub display_name: String,
    /// `PR_PROVIDER_DLL_NAME`.
    pub provider: String,
    /// `PR_IDENTITY_DISPLAY`; empty without an identity.
    pub identity_display: String,
    /// `PR_STATUS_CODE`.
    pub status_code: StatusCode,
    /// `PR_STATUS_STRING`.
    pub status_string: String,
    /// `PR_RESOURCE_METHODS`.
    pub resource_methods: ResourceMethods,
    /// `PR_RESOURCE_FLAGS`.
    pub resource_flags: ResourceFlags,
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

    /// Flushes (FL-1).
    ///
    /// # Errors
    /// `MAPI_E_NO_SUPPORT`, `MAPI_E_END_OF_SESSION`.
    async fn flush_queues(&self, flags: FlushFlags) -> MapiResult<()>;

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
