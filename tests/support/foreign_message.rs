//! Message objects of a host that is not our spooler: in memory, and watching what is done to
//! them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use postrider::mapi::{
    Attachment, EntryId, MapiResult, MessageData, MessageRef, PropList, Recipient, RecipientType,
    tags,
};
use postrider::spi::{Content, ContentSink, Message, MessageRefCell, Repetition};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_util::sync::CancellationToken;

/// A message, with the cell of the reference of the call it is lent to.
pub(crate) struct HostMessage {
    pub(crate) cell: MessageRefCell,
    state: Mutex<State>,
    content: Shared,
    holds: Holds,
}

/// RFC 5322 bytes.
type Shared = Arc<Mutex<Option<Vec<u8>>>>;

struct Sink {
    content: Shared,
    bytes: Vec<u8>,
    hold: Option<Hold>,
}

#[async_trait]
impl ContentSink for Sink {
    async fn write(&mut self, bytes: &[u8]) -> MapiResult<()> {
        if let Some(hold) = &self.hold {
            hold.stop().await;
        }
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

/// Keeps whoever comes to a place until it is let go.
#[derive(Clone, Default)]
pub(crate) struct Hold {
    /// Someone is kept.
    pub(crate) reached: CancellationToken,
    /// Nobody is kept any more.
    pub(crate) go: CancellationToken,
}

impl Hold {
    /// Comes to the place.
    pub(crate) async fn stop(&self) {
        self.reached.cancel();
        self.go.cancelled().await;
    }

    /// A reader that keeps its caller, and then is at its end.
    pub(crate) fn reader(&self) -> HeldReader {
        let hold = self.clone();
        HeldReader(Box::pin(async move { hold.stop().await }))
    }
}

/// See [`Hold::reader`].
pub(crate) struct HeldReader(Pin<Box<dyn Future<Output = ()> + Send>>);

impl AsyncRead for HeldReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(context).map(Ok)
    }
}

/// Where a message keeps those who work on it.
#[derive(Clone, Default)]
pub(crate) struct Holds {
    /// Who reads the recipients.
    pub(crate) recipients: Option<Hold>,
    /// Who has read so many bytes of the content.
    pub(crate) content: Option<(usize, Hold)>,
    /// Who writes the content.
    pub(crate) sink: Option<Hold>,
    /// Who saves.
    pub(crate) save: Option<Hold>,
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
        Self::make(Some(number), data(number, recipients), Holds::default())
    }

    /// The same, keeping whoever reads its recipients.
    pub(crate) fn held(number: u8, to: &str, hold: Hold) -> Arc<Self> {
        let recipients = vec![Recipient::smtp(0, RecipientType::To, to)];
        let holds = Holds { recipients: Some(hold), ..Holds::default() };
        Self::make(Some(number), data(number, recipients), holds)
    }

    /// RFC 5322 bytes to several recipients, keeping whom `holds` says.
    pub(crate) fn raw_held(number: u8, to: &[&str], bytes: Vec<u8>, holds: Holds) -> Arc<Self> {
        let rows = (0..).zip(to);
        let recipients = rows.map(|(row, to)| Recipient::smtp(row, RecipientType::To, *to));
        let message = Self::make(Some(number), data(number, recipients.collect()), holds);
        *lock(&message.content) = Some(bytes);
        message
    }

    /// The same as RFC 5322 bytes, which are to be sent as they are.
    pub(crate) fn raw(number: u8, to: &str, bytes: Vec<u8>) -> Arc<Self> {
        let message = Self::outgoing(number, &[to]);
        *lock(&message.content) = Some(bytes);
        message
    }

    /// A new message for StartMessage.
    pub(crate) fn incoming() -> Arc<Self> {
        Self::incoming_held(Holds::default())
    }

    /// The same, keeping whom `holds` says.
    pub(crate) fn incoming_held(holds: Holds) -> Arc<Self> {
        Self::make(None, MessageData::default(), holds)
    }

    fn make(number: Option<u8>, data: MessageData, holds: Holds) -> Arc<Self> {
        let cell = match number {
            Some(_) => MessageRefCell::outbound(),
            None => MessageRefCell::inbound(),
        };
        let entry = number.map(|number| EntryId::from_bytes(&[number; 16]).unwrap());
        let state = State { entry, data, ..State::default() };
        Arc::new(HostMessage { cell, state: Mutex::new(state), content: Shared::default(), holds })
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
        if let Some(hold) = &self.holds.recipients {
            hold.stop().await;
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
        Ok(self.bytes().map(|mut bytes| {
            let size = bytes.len() as u64;
            let reader: Pin<Box<dyn AsyncRead + Send>> = match &self.holds.content {
                None => Box::pin(io::Cursor::new(bytes)),
                Some((at, hold)) => {
                    let rest = bytes.split_off(*at);
                    let held = io::Cursor::new(bytes).chain(hold.reader());
                    Box::pin(held.chain(io::Cursor::new(rest)))
                }
            };
            Content { size, digest: None, reader }
        }))
    }

    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        drop(self.touch());
        Ok(Box::new(Sink {
            content: Arc::clone(&self.content),
            bytes: Vec::new(),
            hold: self.holds.sink.clone(),
        }))
    }

    async fn save_changes(&self, _: Repetition) -> MapiResult<()> {
        if let Some(hold) = &self.holds.save {
            hold.stop().await;
        }
        let mut state = self.touch();
        state.saves += 1;
        state.entry.get_or_insert_with(|| EntryId::from_bytes(b"received").unwrap());
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
