//! The status table and its subscribers (ST-1, ST-2, ST-5).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::mapi::{EntryId, ModifyStatusFlags, ResourceFlags, ResourceMethods, StatusCode};
use crate::spi::{StatusColumns, StatusRow, StatusRowKind};

/// How many changes a subscriber may be behind before it gets the whole table instead.
const BACKLOG: usize = 1024;

/// The status table of a session.
pub struct StatusTable {
    rows: Mutex<Rows>,
    changes: broadcast::Sender<StatusChange>,
}

struct Rows {
    rows: BTreeMap<u32, Kept>,
    last_id: u32,
    /// Tells the rows of this session from those of another.
    session: u64,
}

/// A row as it was given and as it is shown.
struct Kept {
    /// What the transport says.
    given: StatusRow,
    /// What the host has to say against it.
    trouble: Option<String>,
    shown: StatusRow,
}

/// The provider UID of the entry ids of status rows.
const STATUS_UID: [u8; 16] = *b"postrider status";

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
            rows: Mutex::new(Rows {
                rows: BTreeMap::new(),
                last_id: 0,
                session: fastrand::u64(..),
            }),
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
        let session = rows.session;
        let present = rows.rows.get(&row_id);
        let mut given = match present {
            Some(kept) if flags.contains(ModifyStatusFlags::UPDATE) => kept.given.clone(),
            _ => blank_row(session, row_id, host),
        };
        merge(&mut given, columns);
        let trouble = present.and_then(|kept| kept.trouble.clone());
        self.show(&mut rows, row_id, given, trouble);
    }

    /// Shows trouble the host has with a transport, whatever that says of itself: its row is a
    /// failure as long. `None` ends it. A row that is not there stays away.
    pub(crate) fn trouble(&self, row_id: u32, words: Option<String>) {
        let mut rows = self.lock();
        if let Some(kept) = rows.rows.get(&row_id) {
            let given = kept.given.clone();
            self.show(&mut rows, row_id, given, words);
        }
    }

    /// Changes what the host says of itself in a row (`PR_RESOURCE_FLAGS`).
    pub(crate) fn resource_flags(&self, row_id: u32, flags: ResourceFlags) {
        let mut rows = self.lock();
        if let Some(kept) = rows.rows.get(&row_id) {
            let given = StatusRow { resource_flags: flags, ..kept.given.clone() };
            let trouble = kept.trouble.clone();
            self.show(&mut rows, row_id, given, trouble);
        }
    }

    /// Keeps a row and tells subscribers if it looks different now; under the lock.
    fn show(&self, rows: &mut Rows, row_id: u32, given: StatusRow, trouble: Option<String>) {
        let shown = shown(&given, trouble.as_deref());
        let changed = rows.rows.get(&row_id).is_none_or(|kept| kept.shown != shown);
        rows.rows.insert(row_id, Kept { given, trouble, shown: shown.clone() });
        if changed {
            // An error means that nobody listens.
            let _ = self.changes.send(StatusChange::Row(shown));
        }
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
        self.lock().shown()
    }

    /// The state of one row.
    pub(crate) fn status_code(&self, row_id: u32) -> Option<StatusCode> {
        self.lock().rows.get(&row_id).map(|kept| kept.shown.status_code)
    }

    /// The row with this entry id.
    pub(crate) fn row_of(&self, entry: &EntryId) -> Option<StatusRow> {
        let rows = self.lock();
        rows.rows.values().find(|kept| kept.given.entry_id == *entry).map(|kept| kept.shown.clone())
    }

    /// Subscribes to every change from now on (ST-5).
    pub fn subscribe(self: &Arc<Self>) -> StatusSubscription {
        let rows = self.lock();
        StatusSubscription {
            table: Arc::clone(self),
            first: Some(rows.shown()),
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
                StatusChange::Table(rows.shown())
            }
            // The table is held by `self`, so its sender cannot be gone.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Rows {
    fn shown(&self) -> Vec<StatusRow> {
        self.rows.values().map(|kept| kept.shown.clone()).collect()
    }
}

/// The row as subscribers see it.
fn shown(given: &StatusRow, trouble: Option<&str>) -> StatusRow {
    let mut row = given.clone();
    if let Some(words) = trouble {
        row.status_code = (row.status_code - StatusCode::AVAILABLE) | StatusCode::FAILURE;
        row.status_string = words.to_owned();
    }
    row
}

/// The row of a transport that is in the profile and not logged on.
pub(crate) fn stopped_row(row_id: u32, name: &str) -> StatusRow {
    let host = HostColumns {
        kind: StatusRowKind::Transport,
        provider: String::new(),
        resource_flags: ResourceFlags::empty(),
        display_name: name.to_owned(),
    };
    StatusRow { status_string: "not running".to_owned(), ..blank_row(0, row_id, &host) }
}

fn blank_row(session: u64, row_id: u32, host: &HostColumns) -> StatusRow {
    let instance_key = [session.to_le_bytes().as_slice(), &row_id.to_le_bytes()].concat();
    StatusRow {
        row_id,
        entry_id: entry_id(&instance_key),
        instance_key,
        kind: host.kind,
        display_name: host.display_name.clone(),
        provider: host.provider.clone(),
        identity_display: String::new(),
        identity_entry_id: None,
        identity_search_key: Vec::new(),
        status_code: StatusCode::empty(),
        status_string: String::new(),
        resource_methods: ResourceMethods::empty(),
        resource_flags: host.resource_flags,
    }
}

/// Four bytes of flags that say "for the time of the session", our UID, and the instance.
fn entry_id(instance: &[u8]) -> EntryId {
    let bytes = [[0x80, 0, 0, 0].as_slice(), &STATUS_UID, instance].concat();
    // Far from the longest that is taken.
    EntryId::from_bytes(&bytes).unwrap_or_else(|_| EntryId::from_ulid(ulid::Ulid::nil()))
}

fn merge(row: &mut StatusRow, columns: StatusColumns) {
    let StatusColumns {
        display_name,
        identity_display,
        identity_entry_id,
        identity_search_key,
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
    if let Some(value) = identity_entry_id {
        row.identity_entry_id = Some(value);
    }
    if let Some(value) = identity_search_key {
        row.identity_search_key = value;
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
#[allow(clippy::unwrap_used)]
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

    /// Proves: ST-1, ST-5
    #[tokio::test]
    async fn trouble_of_the_host_stands_over_what_the_transport_says() {
        let table = StatusTable::new();
        let row = table.new_row_id();
        let ready = StatusColumns {
            status_string: Some("ready".to_owned()),
            ..columns(StatusCode::AVAILABLE | StatusCode::OUTBOUND_ENABLED)
        };
        table.modify(row, &host(), ready, ModifyStatusFlags::empty());
        table.trouble(row, Some("it hangs".to_owned()));
        let now = || table.rows().first().unwrap().clone();
        assert_eq!(now().status_code, StatusCode::FAILURE | StatusCode::OUTBOUND_ENABLED);
        assert_eq!(now().status_string, "it hangs");
        let mut subscription = table.subscribe();
        let _ = subscription.changed().await;
        // What the transport says meanwhile is kept, and shows where it is no contradiction.
        let both = StatusCode::AVAILABLE | StatusCode::INBOUND_ENABLED;
        table.modify(row, &host(), columns(both), ModifyStatusFlags::UPDATE);
        assert_eq!(now().status_code, StatusCode::FAILURE | StatusCode::INBOUND_ENABLED);
        table.trouble(row, None);
        assert_eq!((now().status_code, now().status_string.as_str()), (both, "ready"));
        for code in [StatusCode::FAILURE | StatusCode::INBOUND_ENABLED, both] {
            let change = subscription.changed().await;
            assert!(matches!(&change, StatusChange::Row(row) if row.status_code == code));
        }
        assert_eq!(now().entry_id, table.row_of(&now().entry_id).unwrap().entry_id);
        table.trouble(row + 1, Some("nobody".to_owned()));
        assert_eq!(table.rows().len(), 1);
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
