//! A message of the Outbox, opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::object;
use super::outbox::update;
use crate::mapi::{
    Attachment, EntryId, MapiCode, MapiError, MapiResult, MessageData, PropList, Recipient,
};
use crate::spi::{Content, ContentSink, Message, Repetition};
use crate::spool::{OutboxRecord, Spool};

/// Changes to properties and recipients stay with this object until `save_changes` puts them
/// into the row; the bodies of a submitted message are never rewritten.
pub(super) struct OutboxMessage {
    spool: Arc<dyn Spool>,
    entry: EntryId,
    state: Mutex<State>,
}

struct State {
    record: OutboxRecord,
    /// What stands in the object body, once it was needed.
    object: Option<Arc<MessageData>>,
    changed_props: PropList,
    changed_rows: BTreeMap<u32, Recipient>,
}

impl OutboxMessage {
    pub(super) fn new(spool: Arc<dyn Spool>, entry: EntryId, record: OutboxRecord) -> Self {
        let state = State {
            record,
            object: None,
            changed_props: PropList::new(),
            changed_rows: BTreeMap::new(),
        };
        OutboxMessage { spool, entry, state: Mutex::new(state) }
    }

    async fn object(&self, state: &mut State) -> MapiResult<Option<Arc<MessageData>>> {
        if state.object.is_none()
            && let Some(body) = state.record.object
        {
            let object = object::load(&state.record, body, self.spool.as_ref()).await?;
            state.object = Some(Arc::new(object));
        }
        Ok(state.object.clone())
    }
}

#[async_trait]
impl Message for OutboxMessage {
    fn entry_id(&self) -> Option<EntryId> {
        Some(self.entry.clone())
    }

    async fn props(&self) -> MapiResult<PropList> {
        let mut state = self.state.lock().await;
        if object::row_is_whole(&state.record) {
            return Ok(state.record.props.clone());
        }
        let object = self.object(&mut state).await?;
        let moved = object.map(|object| object.props.clone()).unwrap_or_default();
        Ok(object::with_moved(&state.record.props, moved))
    }

    async fn set_props(&self, props: PropList) -> MapiResult<()> {
        let mut state = self.state.lock().await;
        state.record.props.merge(props.clone());
        state.changed_props.merge(props);
        Ok(())
    }

    async fn recipients(&self) -> MapiResult<Vec<Recipient>> {
        Ok(self.state.lock().await.record.recipients.clone())
    }

    async fn modify_recipients(&self, rows: Vec<Recipient>) -> MapiResult<()> {
        let mut state = self.state.lock().await;
        for row in rows {
            put_row(&mut state.record.recipients, &row);
            state.changed_rows.insert(row.row, row);
        }
        Ok(())
    }

    async fn attachments(&self) -> MapiResult<Vec<Attachment>> {
        let mut state = self.state.lock().await;
        let object = self.object(&mut state).await?;
        Ok(object.map(|object| object.attachments.clone()).unwrap_or_default())
    }

    async fn content(&self) -> MapiResult<Option<Content>> {
        let Some(body) = self.state.lock().await.record.content else { return Ok(None) };
        let reader = self.spool.open_body(body).await?;
        Ok(Some(Content { size: reader.size, digest: Some(body.0), reader: reader.reader }))
    }

    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        let words = format!("the message {} is submitted, its content stays", self.entry);
        Err(MapiError::new(MapiCode::NO_ACCESS, words))
    }

    async fn save_changes(&self, _repetition: Repetition) -> MapiResult<()> {
        let mut state = self.state.lock().await;
        if state.changed_props.is_empty() && state.changed_rows.is_empty() {
            return Ok(());
        }
        update(self.spool.as_ref(), &self.entry, |record| {
            let before = record.clone();
            record.props.merge(state.changed_props.clone());
            state.changed_rows.values().for_each(|row| put_row(&mut record.recipients, row));
            Ok(*record != before)
        })
        .await?;
        state.changed_props = PropList::new();
        state.changed_rows.clear();
        Ok(())
    }
}

/// Replaces the row with the same number or adds it.
fn put_row(rows: &mut Vec<Recipient>, row: &Recipient) {
    match rows.iter_mut().find(|old| old.row == row.row) {
        Some(old) => *old = row.clone(),
        None => rows.push(row.clone()),
    }
}
