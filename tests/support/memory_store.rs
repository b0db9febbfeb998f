//! A message store in memory, for tests of the spooler alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use postrider::mapi::{
    Attachment, EntryId, MapiCode, MapiError, MapiResult, MessageData, PropList, Recipient,
    SubmitFlags, SysTime,
};
use postrider::spi::{
    Content, ContentSink, Message, MessageStore, OutgoingRow, OutgoingState, Repetition, Report,
};
use tokio::sync::{broadcast, watch};

/// What the store holds; tests look into it.
#[derive(Default)]
pub struct Contents {
    pub outgoing: BTreeMap<EntryId, (OutgoingState, MessageData)>,
    pub locked: Vec<EntryId>,
    pub finished: Vec<EntryId>,
    pub aborted: Vec<EntryId>,
    pub reports: Vec<Report>,
    pub received: Vec<Vec<u8>>,
}

/// The store.
pub struct MemoryStore {
    pub contents: Arc<Mutex<Contents>>,
    added: broadcast::Sender<EntryId>,
    /// Changes whenever the contents do; for tests that wait.
    pub touched: Arc<watch::Sender<u64>>,
}

impl MemoryStore {
    pub fn new() -> Arc<Self> {
        Arc::new(MemoryStore {
            contents: Arc::default(),
            added: broadcast::Sender::new(64),
            touched: Arc::new(watch::Sender::new(0)),
        })
    }

    /// Puts a message into the outgoing queue table; numbers are ascending submit times.
    pub fn submit(&self, number: u8, message: MessageData) -> EntryId {
        self.submit_at(number, message, SysTime::EPOCH)
    }

    /// The same, not before a time.
    pub fn submit_at(&self, number: u8, message: MessageData, not_before: SysTime) -> EntryId {
        let entry = EntryId::from_bytes(&[number; 16]).unwrap();
        let state = OutgoingState::Waiting { not_before };
        self.with(|contents| contents.outgoing.insert(entry.clone(), (state, message)));
        let _ = self.added.send(entry.clone());
        entry
    }

    /// Changes or reads the contents.
    pub fn with<T>(&self, change: impl FnOnce(&mut Contents) -> T) -> T {
        let answer = change(&mut self.contents.lock().unwrap());
        self.touched.send_modify(|version| *version += 1);
        answer
    }

    /// Waits until the contents are as wanted.
    pub async fn wait_until(&self, what: &str, condition: impl Fn(&Contents) -> bool) {
        let mut touched = self.touched.subscribe();
        let wait = touched.wait_for(|_| condition(&self.contents.lock().unwrap()));
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "it did not come about that {what}");
    }
}

#[async_trait]
impl MessageStore for MemoryStore {
    async fn outgoing_queue(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>> {
        Ok(self.rows(after, limit, |state| matches!(state, OutgoingState::Waiting { .. })))
    }

    async fn deferred_queue(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> MapiResult<Vec<OutgoingRow>> {
        Ok(self.rows(after, limit, |state| matches!(state, OutgoingState::Deferred { .. })))
    }

    async fn outgoing_row(&self, entry: &EntryId) -> MapiResult<OutgoingRow> {
        let contents = self.contents.lock().unwrap();
        let (state, _) = contents.outgoing.get(entry).ok_or(MapiCode::NOT_IN_QUEUE)?;
        Ok(row(entry, state))
    }

    fn outgoing_added(&self) -> broadcast::Receiver<EntryId> {
        self.added.subscribe()
    }

    async fn open_message(&self, entry: &EntryId) -> MapiResult<Arc<dyn Message>> {
        let contents = self.contents.lock().unwrap();
        let (_, data) = contents.outgoing.get(entry).ok_or(MapiCode::NOT_FOUND)?;
        Ok(Arc::new(MemoryMessage {
            entry: Mutex::new(Some(entry.clone())),
            data: Mutex::new(data.clone()),
            content: Arc::default(),
            contents: Arc::clone(&self.contents),
            touched: Arc::clone(&self.touched),
        }))
    }

    async fn set_lock_state(&self, entry: &EntryId, flags: SubmitFlags) -> MapiResult<()> {
        self.with(|contents| {
            if !contents.outgoing.contains_key(entry) {
                return Err(MapiCode::NOT_IN_QUEUE.into());
            }
            let locked = contents.locked.contains(entry);
            match (flags.contains(SubmitFlags::LOCKED), locked) {
                (true, true) => return Err(MapiCode::BUSY.into()),
                (true, false) => contents.locked.push(entry.clone()),
                (false, _) => contents.locked.retain(|other| other != entry),
            }
            Ok(())
        })
    }

    async fn set_deferred(&self, entry: &EntryId, transport: Option<&str>) -> MapiResult<()> {
        self.with(|contents| {
            let (state, _) = contents.outgoing.get_mut(entry).ok_or(MapiCode::NOT_IN_QUEUE)?;
            *state = match transport {
                Some(transport) => OutgoingState::Deferred { transport: transport.to_owned() },
                None => OutgoingState::Waiting { not_before: SysTime::EPOCH },
            };
            Ok::<_, MapiError>(())
        })?;
        if transport.is_none() {
            let _ = self.added.send(entry.clone());
        }
        Ok(())
    }

    async fn finished_msg(&self, entry: &EntryId) -> MapiResult<()> {
        self.with(|contents| {
            contents.outgoing.remove(entry);
            contents.locked.retain(|other| other != entry);
            contents.finished.push(entry.clone());
        });
        Ok(())
    }

    async fn abort_submit(&self, entry: &EntryId) -> MapiResult<()> {
        self.with(|contents| {
            if contents.locked.contains(entry) {
                return Err(MapiCode::UNABLE_TO_ABORT.into());
            }
            contents.outgoing.remove(entry).ok_or(MapiCode::NOT_IN_QUEUE)?;
            contents.aborted.push(entry.clone());
            Ok(())
        })
    }

    async fn new_incoming(&self) -> MapiResult<Arc<dyn Message>> {
        Ok(Arc::new(MemoryMessage {
            entry: Mutex::new(None),
            data: Mutex::default(),
            content: Arc::default(),
            contents: Arc::clone(&self.contents),
            touched: Arc::clone(&self.touched),
        }))
    }

    async fn deliver_report(&self, report: Report) -> MapiResult<()> {
        self.with(|contents| contents.reports.push(report));
        Ok(())
    }
}

impl MemoryStore {
    fn rows(
        &self,
        after: Option<&EntryId>,
        limit: usize,
        wanted: impl Fn(&OutgoingState) -> bool,
    ) -> Vec<OutgoingRow> {
        let contents = self.contents.lock().unwrap();
        contents
            .outgoing
            .iter()
            .filter(|(entry, (state, _))| after.is_none_or(|after| *entry > after) && wanted(state))
            .take(limit)
            .map(|(entry, (state, _))| row(entry, state))
            .collect()
    }
}

fn row(entry: &EntryId, state: &OutgoingState) -> OutgoingRow {
    let (entry, state) = (entry.clone(), state.clone());
    OutgoingRow { entry, submitted: SysTime::EPOCH, state, expires: None }
}

/// A message of the [`MemoryStore`].
pub struct MemoryMessage {
    entry: Mutex<Option<EntryId>>,
    data: Mutex<MessageData>,
    content: Arc<Mutex<Vec<u8>>>,
    contents: Arc<Mutex<Contents>>,
    touched: Arc<watch::Sender<u64>>,
}

struct Sink(Arc<Mutex<Vec<u8>>>);

#[async_trait]
impl ContentSink for Sink {
    async fn write(&mut self, bytes: &[u8]) -> MapiResult<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> MapiResult<()> {
        Ok(())
    }
}

#[async_trait]
impl Message for MemoryMessage {
    fn entry_id(&self) -> Option<EntryId> {
        self.entry.lock().unwrap().clone()
    }

    async fn props(&self) -> MapiResult<PropList> {
        Ok(self.data.lock().unwrap().props.clone())
    }

    async fn set_props(&self, props: PropList) -> MapiResult<()> {
        self.data.lock().unwrap().props.merge(props);
        Ok(())
    }

    async fn recipients(&self) -> MapiResult<Vec<Recipient>> {
        Ok(self.data.lock().unwrap().recipients.clone())
    }

    async fn modify_recipients(&self, rows: Vec<Recipient>) -> MapiResult<()> {
        let mut data = self.data.lock().unwrap();
        for changed in rows {
            match data.recipients.iter_mut().find(|row| row.row == changed.row) {
                Some(row) => *row = changed,
                None => data.recipients.push(changed),
            }
        }
        Ok(())
    }

    async fn attachments(&self) -> MapiResult<Vec<Attachment>> {
        Ok(self.data.lock().unwrap().attachments.clone())
    }

    async fn content(&self) -> MapiResult<Option<Content>> {
        Ok(None)
    }

    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        Ok(Box::new(Sink(Arc::clone(&self.content))))
    }

    async fn save_changes(&self, _: Repetition) -> MapiResult<()> {
        let mut entry = self.entry.lock().unwrap();
        let mut contents = self.contents.lock().unwrap();
        match &*entry {
            Some(entry) => {
                if let Some((_, data)) = contents.outgoing.get_mut(entry) {
                    *data = self.data.lock().unwrap().clone();
                }
            }
            None => {
                contents.received.push(self.content.lock().unwrap().clone());
                let number = u8::try_from(contents.received.len()).unwrap();
                *entry = Some(EntryId::from_bytes(&[number; 8]).unwrap());
            }
        }
        drop(contents);
        self.touched.send_modify(|version| *version += 1);
        Ok(())
    }
}
