//! A message as one transport is to see it: the recipients of the others count as taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::mapi::{Attachment, EntryId, MapiResult, PropList, Recipient};
use crate::spi::{Content, ContentSink, Message, Repetition};

/// Shows responsibility for every row that was given to another transport, so that a transport
/// for any address type takes only its own (OB-3), and keeps it from answering for the others.
pub(crate) struct RoutedMessage {
    inner: Arc<dyn Message>,
    rows: BTreeSet<u32>,
}

impl RoutedMessage {
    pub(crate) fn view(inner: Arc<dyn Message>, rows: BTreeSet<u32>) -> Arc<dyn Message> {
        Arc::new(RoutedMessage { inner, rows })
    }
}

#[async_trait]
impl Message for RoutedMessage {
    fn entry_id(&self) -> Option<EntryId> {
        self.inner.entry_id()
    }

    async fn props(&self) -> MapiResult<PropList> {
        self.inner.props().await
    }

    async fn set_props(&self, props: PropList) -> MapiResult<()> {
        self.inner.set_props(props).await
    }

    async fn recipients(&self) -> MapiResult<Vec<Recipient>> {
        let mut recipients = self.inner.recipients().await?;
        for recipient in &mut recipients {
            recipient.responsibility |= !self.rows.contains(&recipient.row);
        }
        Ok(recipients)
    }

    async fn modify_recipients(&self, mut rows: Vec<Recipient>) -> MapiResult<()> {
        rows.retain(|recipient| self.rows.contains(&recipient.row));
        // What StatusRecips noted stays, also when the transport read the row before.
        for known in self.inner.recipients().await? {
            if let Some(row) = rows.iter_mut().find(|row| row.row == known.row) {
                known.keep_outcome(row);
            }
        }
        self.inner.modify_recipients(rows).await
    }

    async fn attachments(&self) -> MapiResult<Vec<Attachment>> {
        self.inner.attachments().await
    }

    async fn content(&self) -> MapiResult<Option<Content>> {
        self.inner.content().await
    }

    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        self.inner.set_content().await
    }

    async fn save_changes(&self, repetition: Repetition) -> MapiResult<()> {
        self.inner.save_changes(repetition).await
    }
}
