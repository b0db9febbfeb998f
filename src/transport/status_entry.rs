//! The object behind a logon's status row (ST-6).

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use super::logon::Logon;
use super::status::METHODS;
use crate::mapi::{
    EntryId, FlushFlags, MapiCode, MapiError, MapiResult, ResourceMethods, ValidateFlags,
};
use crate::spi::{StatusObject, XpLogon};

/// `IMAPIStatus` of a logon; ends with it.
pub(crate) struct StatusEntry {
    logon: Weak<Logon>,
}

impl StatusEntry {
    pub(crate) fn new(logon: Weak<Logon>) -> Self {
        StatusEntry { logon }
    }

    fn logon(&self) -> MapiResult<Arc<Logon>> {
        self.logon.upgrade().ok_or_else(|| MapiCode::END_OF_SESSION.into())
    }
}

#[async_trait]
impl StatusObject for StatusEntry {
    fn resource_methods(&self) -> ResourceMethods {
        METHODS
    }

    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()> {
        self.logon()?.validate_state(flags).await
    }

    async fn flush_queues(&self, target: Option<&EntryId>, flags: FlushFlags) -> MapiResult<()> {
        let logon = self.logon()?;
        match target {
            None => logon.flush_queues(flags).await,
            Some(_) => Err(MapiError::new(
                MapiCode::INVALID_PARAMETER,
                "the target of FlushQueues is reserved here",
            )),
        }
    }

    async fn settings_dialog(&self) -> MapiResult<()> {
        Err(MapiCode::NO_SUPPORT.into())
    }

    async fn change_password(&self) -> MapiResult<()> {
        Err(MapiCode::NO_SUPPORT.into())
    }
}
