//! The status table and its subscribers (ST-1, ST-2, ST-5).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::mapi::{ModifyStatusFlags, ResourceFlags, ResourceMethods, StatusCode};
use crate::spi::{StatusColumns, StatusRow, StatusRowKind};

/// How many changes a subscriber may be behind before it gets the whole table instead.
const BACKLOG: usize = 1024;

/// The status table of a session.
pub struct StatusTable {
    rows: Mutex<Rows>,
    changes: broadcast::Sender<StatusChange>,
}

#[derive(Default)]
struct Rows {
    rows: BTreeMap<u32, StatusRow>,
    last_id: u32,
}

/// A change of the status table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// The row is new or looks like this now.
    Row(StatusRow),
    /// The row with this id is gone.
    Gone(u32),
    /// The subscriber was too slow for single changes; this is the whole table as of now.
    Table(Vec<StatusRow>),
}

/// Sees every change of the table in order, the table as it was at the start first.
pub struct StatusSubscription {
    table: Arc<StatusTable>,
    first: Option<Vec<StatusRow>>,
    changes: broadcast::Receiver<StatusChange>,
}

/// What the host itself says of a row (ST-1).
#[derive(Clone, Debug)]
pub(crate) struct HostColumns {
    pub(crate) kind: StatusRowKind,
    pub(crate) provider: String,
    pub(crate) resource_flags: ResourceFlags,
    pub(crate) display_name: String,
}

impl StatusTable {
    /// An empty table.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(StatusTable {
            rows: Mutex::new(Rows::default()),
            changes: broadcast::Sender::new(BACKLOG),
        })
    }

    /// Draws a row id; the row appears with its first [`modify`](Self::modify).
    pub(crate) fn new_row_id(&self) -> u32 {
        let mut rows = self.lock();
        rows.last_id += 1;
        rows.last_id
    }

    /// Makes the row, or merges columns into it (ST-2). Subscribers are told under the lock, so
    /// that they see changes in their order.
    pub(crate) fn modify(
        &self,
        row_id: u32,
        host: &HostColumns,
        columns: StatusColumns,
        flags: ModifyStatusFlags,
    ) {
        let mut rows = self.lock();
        let present = rows.rows.get(&row_id);
        let mut row = match present {
            Some(row) if flags.contains(ModifyStatusFlags::UPDATE) => row.clone(),
            _ => blank_row(row_id, host),
        };
        merge(&mut row, columns);
        if present == Some(&row) {
            return;
        }
        rows.rows.insert(row_id, row.clone());
        // An error means that nobody listens.
        let _ = self.changes.send(StatusChange::Row(row));
    }

    /// Removes a row (LG-9).
    pub(crate) fn remove(&self, row_id: u32) {
        let mut rows = self.lock();
        if rows.rows.remove(&row_id).is_some() {
            let _ = self.changes.send(StatusChange::Gone(row_id));
        }
    }

    /// The rows as of now, in the order they were made.
    pub fn rows(&self) -> Vec<StatusRow> {
        self.lock().rows.values().cloned().collect()
    }

    /// The state of one row.
    pub(crate) fn status_code(&self, row_id: u32) -> Option<StatusCode> {
        self.lock().rows.get(&row_id).map(|row| row.status_code)
    }

    /// Subscribes to every change from now on (ST-5).
    pub fn subscribe(self: &Arc<Self>) -> StatusSubscription {
        let rows = self.lock();
        StatusSubscription {
            table: Arc::clone(self),
            first: Some(rows.rows.values().cloned().collect()),
            changes: self.changes.subscribe(),
        }
    }

    /// Waits until `condition` holds for the state of a row, or the row is gone (`None`).
    pub(crate) async fn wait_for(
        self: &Arc<Self>,
        row_id: u32,
        condition: impl Fn(StatusCode) -> bool,
    ) -> Option<StatusCode> {
        let mut subscription = self.subscribe();
        loop {
            let code = self.status_code(row_id)?;
            if condition(code) {
                return Some(code);
            }
            subscription.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusSubscription {
    /// The table the subscription is about.
    pub fn table(&self) -> &Arc<StatusTable> {
        &self.table
    }

    /// The next change; the first is the whole table. Never ends while the table lives.
    /// Cancel-safe.
    pub async fn changed(&mut self) -> StatusChange {
        if let Some(rows) = self.first.take() {
            return StatusChange::Table(rows);
        }
        match self.changes.recv().await {
            Ok(change) => change,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // What is still in the channel is older than the table that is answered now.
                let rows = self.table.lock();
                self.changes = self.changes.resubscribe();
                StatusChange::Table(rows.rows.values().cloned().collect())
            }
            // The table is held by `self`, so its sender cannot be gone.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn blank_row(row_id: u32, host: &HostColumns) -> StatusRow {
    StatusRow {
        row_id,
        kind: host.kind,
        display_name: host.display_name.clone(),
        provider: host.provider.clone(),
        identity_display: String::new(),
        status_code: StatusCode::empty(),
        status_string: String::new(),
        resource_methods: ResourceMethods::empty(),
        resource_flags: host.resource_flags,
    }
}

fn merge(row: &mut StatusRow, columns: StatusColumns) {
    let StatusColumns {
        display_name,
        identity_display,
        status_code,
        status_string,
        resource_methods,
    } = columns;
    if let Some(value) = display_name {
        row.display_name = value;
    }
    if let Some(value) = identity_display {
        row.identity_display = value;
    }
    if let Some(value) = status_code {
        row.status_code = value;
    }
    if let Some(value) = status_string {
        row.status_string = value;
    }
    if let Some(value) = resource_methods {
        row.resource_methods = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostColumns {
        HostColumns {
            kind: StatusRowKind::Transport,
            provider: "test".to_owned(),
            resource_flags: ResourceFlags::empty(),
            display_name: "work".to_owned(),
        }
    }

    fn columns(code: StatusCode) -> StatusColumns {
        StatusColumns { status_code: Some(code), ..StatusColumns::default() }
    }

    /// Proves: ST-5
    #[tokio::test]
    async fn subscribers_see_every_change_in_order() {
        let table = StatusTable::new();
        let row = table.new_row_id();
        table.modify(row, &host(), columns(StatusCode::AVAILABLE), ModifyStatusFlags::empty());
        let mut subscription = table.subscribe();
        let codes =
            [StatusCode::OUTBOUND_ENABLED, StatusCode::OUTBOUND_ACTIVE, StatusCode::OFFLINE];
        for code in codes {
            table.modify(row, &host(), columns(code), ModifyStatusFlags::UPDATE);
        }
        table.remove(row);
        assert!(
            matches!(subscription.changed().await, StatusChange::Table(rows) if rows.len() == 1)
        );
        for code in codes {
            let change = subscription.changed().await;
            assert!(
                matches!(&change, StatusChange::Row(row) if row.status_code == code
                    && row.display_name == "work"),
                "{change:?}"
            );
        }
        assert_eq!(subscription.changed().await, StatusChange::Gone(row));
    }

    /// Proves: ST-5
    #[tokio::test]
    async fn a_slow_subscriber_gets_the_table() {
        let table = StatusTable::new();
        let row = table.new_row_id();
        let mut subscription = table.subscribe();
        let _ = subscription.changed().await;
        for number in 0..=u32::try_from(BACKLOG).unwrap_or(u32::MAX) {
            let code = StatusCode::from_bits_retain(number);
            table.modify(row, &host(), columns(code), ModifyStatusFlags::UPDATE);
        }
        assert!(
            matches!(subscription.changed().await, StatusChange::Table(rows) if rows.len() == 1)
        );
    }

    /// Proves: ST-2
    #[tokio::test]
    async fn without_the_update_flag_the_row_is_made_anew() {
        let table = StatusTable::new();
        let row = table.new_row_id();
        let text = StatusColumns {
            status_string: Some("words".to_owned()),
            ..columns(StatusCode::AVAILABLE)
        };
        table.modify(row, &host(), text, ModifyStatusFlags::empty());
        table.modify(row, &host(), columns(StatusCode::OFFLINE), ModifyStatusFlags::UPDATE);
        assert_eq!(table.rows().first().map(|row| row.status_string.as_str()), Some("words"));
        table.modify(row, &host(), columns(StatusCode::OFFLINE), ModifyStatusFlags::empty());
        assert_eq!(table.rows().first().map(|row| row.status_string.as_str()), Some(""));
    }
}
