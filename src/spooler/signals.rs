//! What a logon signals beside mail: a new configuration, a critical error (SP-2).

use std::sync::Arc;

use super::Shared;
use super::services;
use super::slot::Slot;
use crate::mapi::{ModifyStatusFlags, StatusCode};
use crate::spi::StatusColumns;

/// Until the session ends or the logon is released.
pub(super) async fn watch(shared: Arc<Shared>, slot: Arc<Slot>) {
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = slot.critical_error.cancelled() => {
                show_critical_error(&shared, &slot);
                return slot.release();
            }
            () = slot.config_change.notified() => {
                if let Err(error) = slot.refresh_address_types().await {
                    tracing::warn!(transport = %slot.name, %error, "AddressTypes failed");
                }
                services::show_ranks(&shared);
                shared.reconsider();
            }
        }
    }
}

/// The logon is about to be released (SP-2). What it said of its failure stays to be read.
fn show_critical_error(shared: &Shared, slot: &Slot) {
    let rows = shared.table.rows().into_iter();
    let row = rows.filter(|row| row.status_code.contains(StatusCode::FAILURE));
    let own = row.filter(|row| row.row_id == slot.row_id).map(|row| row.status_string).next();
    let mut words = "the transport reported a critical error and was released".to_owned();
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        words = format!("{words}: {own}");
    }
    tracing::error!(transport = %slot.name, "{words}");
    let columns = StatusColumns {
        status_code: Some(StatusCode::FAILURE),
        status_string: Some(words),
        ..StatusColumns::default()
    };
    shared.table.trouble(slot.row_id, None);
    shared.table.modify(slot.row_id, &slot.host, columns, ModifyStatusFlags::UPDATE);
}
