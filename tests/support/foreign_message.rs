//! Message objects of a host that is not our spooler: in memory, and watching what is done to
//! them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use postrider::mapi::{
    Attachment, EntryId, MapiResult, MessageData, MessageRef, PropList, Recipient, RecipientType,
    tags,
};
use postrider::spi::{Content, ContentSink, Message, MessageRefCell, Repetition};
use tokio_util::sync::CancellationToken;

/// A message, with the cell of the reference of the call it is lent to.
pub(crate) struct HostMessage {
    pub(crate) cell: MessageRefCell,
    state: Mutex<State>,
    content: Shared,
    hold: Option<Hold>,
}

/// RFC 5322 bytes.
type Shared = Arc<Mutex<Option<Vec<u8>>>>;

struct Sink {
    content: Shared,
    bytes: Vec<u8>,
}

#[async_trait]
impl ContentSink for Sink {
    async fn write(&mut self, bytes: &[u8]) -> MapiResult<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> MapiResult<()> {
        *lock(&self.content) = Some(self.bytes);
        Ok(())
    }
}

/// What the test looks at.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) entry: Option<EntryId>,
    pub(crate) data: MessageData,
    pub(crate) saves: u32,
    /// What the cell showed when the transport first touched the message (OB-1, IB-2).
    pub(crate) reference_at_touch: Option<MessageRef>,
}

/// Keeps whoever reads the recipients until it is let go.
#[derive(Clone, Default)]
pub(crate) struct Hold {
    /// Someone is kept.
    pub(crate) reached: CancellationToken,
    /// Nobody is kept any more.
    pub(crate) go: CancellationToken,
}

impl HostMessage {
    /// A message of the Outbox with the entry id `number`, to internet addresses.
    pub(crate) fn outgoing(number: u8, to: &[&str]) -> Arc<Self> {
        let rows = (0..).zip(to);
        let recipients = rows.map(|(row, to)| Recipient::smtp(row, RecipientType::To, *to));
        Self::outgoing_with(number, recipients.collect())
    }

    /// The same with these rows.
    pub(crate) fn outgoing_with(number: u8, recipients: Vec<Recipient>) -> Arc<Self> {
        Self::make(Some(number), data(number, recipients), None)
    }

    /// The same, keeping whoever reads its recipients.
    pub(crate) fn held(number: u8, to: &str, hold: Hold) -> Arc<Self> {
        let recipients = vec![Recipient::smtp(0, RecipientType::To, to)];
        Self::make(Some(number), data(number, recipients), Some(hold))
    }

    /// The same as RFC 5322 bytes, which are to be sent as they are.
    pub(crate) fn raw(number: u8, to: &str, bytes: Vec<u8>) -> Arc<Self> {
        let message = Self::outgoing(number, &[to]);
        *lock(&message.content) = Some(bytes);
        message
    }

    /// A new message for StartMessage.
    pub(crate) fn incoming() -> Arc<Self> {
        Self::make(None, MessageData::default(), None)
    }

    fn make(number: Option<u8>, data: MessageData, hold: Option<Hold>) -> Arc<Self> {
        let cell = match number {
            Some(_) => MessageRefCell::outbound(),
            None => MessageRefCell::inbound(),
        };
        let entry = number.map(|number| EntryId::from_bytes(&[number; 16]).unwrap());
        let state = State { entry, data, ..State::default() };
        Arc::new(HostMessage { cell, state: Mutex::new(state), content: Shared::default(), hold })
    }

    /// What the message holds now; does not count as a touch.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The RFC 5322 bytes it was given.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        lock(&self.content).clone()
    }

    pub(crate) fn entry(&self) -> EntryId {
        self.state().entry.clone().unwrap()
    }

    /// `PR_RESPONSIBILITY` of each row.
    pub(crate) fn responsibility(&self) -> Vec<bool> {
        self.state().data.recipients.iter().map(|row| row.responsibility).collect()
    }

    fn touch(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.reference_at_touch.get_or_insert(self.cell.reference());
        state
    }
}

fn data(number: u8, recipients: Vec<Recipient>) -> MessageData {
    MessageData {
        props: PropList::new()
            .with(tags::SUBJECT, format!("Number {number}"))
            .with(tags::BODY, "Hello.\n"),
        recipients,
        attachments: Vec::new(),
    }
}

#[async_trait]
impl Message for HostMessage {
    fn entry_id(&self) -> Option<EntryId> {
        self.touch().entry.clone()
    }

    async fn props(&self) -> MapiResult<PropList> {
        Ok(self.touch().data.props.clone())
    }

    async fn set_props(&self, props: PropList) -> MapiResult<()> {
        self.touch().data.props.merge(props);
        Ok(())
    }

    async fn recipients(&self) -> MapiResult<Vec<Recipient>> {
        if let Some(hold) = &self.hold {
            hold.reached.cancel();
            hold.go.cancelled().await;
        }
        Ok(self.touch().data.recipients.clone())
    }

    async fn modify_recipients(&self, rows: Vec<Recipient>) -> MapiResult<()> {
        let mut state = self.touch();
        for changed in rows {
            match state.data.recipients.iter_mut().find(|row| row.row == changed.row) {
                Some(row) => *row = changed,
                None => state.data.recipients.push(changed),
            }
        }
        Ok(())
    }

    async fn attachments(&self) -> MapiResult<Vec<Attachment>> {
        Ok(self.touch().data.attachments.clone())
    }

    async fn content(&self) -> MapiResult<Option<Content>> {
        drop(self.touch());
        Ok(self.bytes().map(|bytes| Content {
            size: bytes.len() as u64,
            digest: None,
            reader: Box::pin(std::io::Cursor::new(bytes)),
        }))
    }

    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        drop(self.touch());
        Ok(Box::new(Sink { content: Arc::clone(&self.content), bytes: Vec::new() }))
    }

    async fn save_changes(&self, _: Repetition) -> MapiResult<()> {
        let mut state = self.touch();
        state.saves += 1;
        state.entry.get_or_insert_with(|| EntryId::from_bytes(b"received").unwrap());
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
