//! The spooler's own status object: it flushes all transports, or one (FL-7, ST-6).

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use super::flush;
use super::{Shared, flush_slots};
use crate::mapi::{
    EntryId, FlushFlags, MapiCode, MapiError, MapiResult, ResourceMethods, ValidateFlags,
};
use crate::spi::{StatusObject, StatusRowKind};

/// What the object behind the spooler's row can do.
pub(crate) const METHODS: ResourceMethods = ResourceMethods::FLUSH_QUEUES;

/// `IMAPIStatus` of the spooler; ends with the session.
pub(crate) struct SpoolerStatus(pub(crate) Weak<Shared>);

/// Opens the object behind a row of the table (ST-6).
pub(crate) async fn open(
    shared: &Arc<Shared>,
    entry: &EntryId,
) -> MapiResult<Arc<dyn StatusObject>> {
    let row = shared.table.row_of(entry).ok_or_else(|| no_row(entry))?;
    match row.kind {
        StatusRowKind::Spooler => Ok(Arc::new(SpoolerStatus(Arc::downgrade(shared)))),
        StatusRowKind::Transport => {
            let slot = shared.slots().into_iter().find(|slot| slot.row_id == row.row_id);
            slot.ok_or_else(|| no_row(entry))?.logon()?.open_status_entry().await
        }
    }
}

fn no_row(entry: &EntryId) -> MapiError {
    MapiError::new(MapiCode::NOT_FOUND, format!("{entry} is no row of the status table"))
}

#[async_trait]
impl StatusObject for SpoolerStatus {
    fn resource_methods(&self) -> ResourceMethods {
        METHODS
    }

    async fn validate_state(&self, _: ValidateFlags) -> MapiResult<()> {
        Err(MapiCode::NO_SUPPORT.into())
    }

    async fn flush_queues(&self, target: Option<&EntryId>, flags: FlushFlags) -> MapiResult<()> {
        let shared = self.0.upgrade().ok_or(MapiCode::END_OF_SESSION)?;
        flush::check(flags)?;
        let mut slots = shared.slots();
        if let Some(target) = target {
            let row = shared.table.row_of(target).ok_or_else(|| no_row(target))?;
            slots.retain(|slot| slot.row_id == row.row_id);
            if slots.is_empty() {
                return Err(MapiError::new(MapiCode::NOT_FOUND, "the target is no transport"));
            }
        }
        flush_slots(&shared, slots, flags).await
    }

    async fn settings_dialog(&self) -> MapiResult<()> {
        Err(MapiCode::NO_SUPPORT.into())
    }

    async fn change_password(&self) -> MapiResult<()> {
        Err(MapiCode::NO_SUPPORT.into())
    }
}
