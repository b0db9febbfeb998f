//! A store in memory that keeps what a good store keeps, and tells what a transport does wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::mapi::{Attachment, EntryId, MapiCode, MapiResult, PropList, Recipient, SysTime, tags};
use crate::spi::{Content, ContentSink, Message, Repetition, ResumedContent};

/// A message that was saved.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) mailbox: String,
    pub(super) bytes: Vec<u8>,
    pub(super) delivered: SysTime,
    pub(super) size: i32,
}

/// What a store refuses.
pub(super) type Refuse = Box<dyn Fn(&[u8]) -> Option<MapiCode> + Send + Sync>;

/// The store. It survives the transport.
#[derive(Default)]
pub(super) struct Store {
    saved: Mutex<BTreeMap<Vec<u8>, Saved>>,
    order: Mutex<Vec<Vec<u8>>>,
    /// Saved twice without saying that it may be a repetition.
    pub(super) doubled: AtomicUsize,
    pub(super) repeated: AtomicUsize,
    refuse: Mutex<Option<Refuse>>,
    /// While true, writing waits.
    hold: watch::Sender<bool>,
    pub(super) writing: watch::Sender<usize>,
    /// Keeps no bytes, only their number.
    pub(super) forgetful: AtomicBool,
    count: watch::Sender<usize>,
    /// What was kept of messages that did not come whole, by key and announced size.
    pub(super) beginnings: Beginnings,
}

type Beginnings = Mutex<BTreeMap<(Vec<u8>, u64), Vec<u8>>>;

impl Store {
    pub(super) fn message(self: &Arc<Self>) -> Arc<dyn Message> {
        Arc::new(Draft {
            store: Arc::clone(self),
            props: Mutex::default(),
            finished: Arc::default(),
        })
    }

    pub(super) fn all(&self) -> Vec<Saved> {
        let saved = self.saved.lock().unwrap();
        self.order.lock().unwrap().iter().map(|key| saved[key].clone()).collect()
    }

    /// What was saved, sorted.
    pub(super) fn bodies(&self) -> Vec<Vec<u8>> {
        let mut bodies: Vec<Vec<u8>> = self.all().into_iter().map(|saved| saved.bytes).collect();
        bodies.sort();
        bodies
    }

    pub(super) fn len(&self) -> usize {
        *self.count.borrow()
    }

    pub(super) fn counts(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    pub(super) fn refuse(
        &self,
        refuse: impl Fn(&[u8]) -> Option<MapiCode> + Send + Sync + 'static,
    ) {
        *self.refuse.lock().unwrap() = Some(Box::new(refuse));
    }

    pub(super) fn accept(&self) {
        *self.refuse.lock().unwrap() = None;
    }

    pub(super) fn hold(&self, hold: bool) {
        self.hold.send_replace(hold);
    }
}

struct Draft {
    store: Arc<Store>,
    props: Mutex<PropList>,
    finished: Arc<Mutex<Option<Vec<u8>>>>,
}

struct Sink {
    store: Arc<Store>,
    bytes: Vec<u8>,
    length: usize,
    /// The draft takes the bytes at the end.
    finished: Arc<Mutex<Option<Vec<u8>>>>,
    /// Where it is kept for another try.
    place: Option<(Vec<u8>, u64)>,
}

#[async_trait]
impl ContentSink for Sink {
    async fn keep(self: Box<Self>) -> MapiResult<()> {
        if let Some(place) = self.place.filter(|_| !self.store.forgetful.load(Ordering::SeqCst)) {
            self.store.beginnings.lock().unwrap().insert(place, self.bytes);
        }
        Ok(())
    }

    async fn discard(self: Box<Self>) {
        if let Some(place) = self.place {
            self.store.beginnings.lock().unwrap().remove(&place);
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> MapiResult<()> {
        self.store.writing.send_modify(|count| *count += 1);
        let mut hold = self.store.hold.subscribe();
        hold.wait_for(|hold| !hold).await.unwrap();
        self.length += bytes.len();
        if self.store.forgetful.load(Ordering::SeqCst) {
            self.bytes = self.length.to_string().into_bytes();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> MapiResult<()> {
        *self.finished.lock().unwrap() = Some(self.bytes);
        Ok(())
    }
}

#[async_trait]
impl Message for Draft {
    fn entry_id(&self) -> Option<EntryId> {
        None
    }
    async fn props(&self) -> MapiResult<PropList> {
        Ok(self.props.lock().unwrap().clone())
    }
    async fn set_props(&self, props: PropList) -> MapiResult<()> {
        self.props.lock().unwrap().merge(props);
        Ok(())
    }
    async fn recipients(&self) -> MapiResult<Vec<Recipient>> {
        Ok(Vec::new())
    }
    async fn modify_recipients(&self, _: Vec<Recipient>) -> MapiResult<()> {
        Ok(())
    }
    async fn attachments(&self) -> MapiResult<Vec<Attachment>> {
        Ok(Vec::new())
    }
    async fn content(&self) -> MapiResult<Option<Content>> {
        Ok(None)
    }
    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        Ok(Box::new(Sink {
            store: Arc::clone(&self.store),
            bytes: Vec::new(),
            length: 0,
            finished: Arc::clone(&self.finished),
            place: None,
        }))
    }

    async fn resume_content(&self, size: u64) -> MapiResult<ResumedContent> {
        let key = self.props.lock().unwrap().binary(tags::SEARCH_KEY).unwrap().to_vec();
        let place = (key, size);
        let bytes = self.store.beginnings.lock().unwrap().get(&place).cloned().unwrap_or_default();
        let before = (!bytes.is_empty()).then(|| Content {
            size: bytes.len() as u64,
            digest: None,
            reader: Box::pin(std::io::Cursor::new(bytes.clone())),
        });
        let sink = Sink {
            store: Arc::clone(&self.store),
            length: bytes.len(),
            bytes,
            finished: Arc::clone(&self.finished),
            place: Some(place),
        };
        Ok(ResumedContent { sink: Box::new(sink), before })
    }

    async fn save_changes(&self, repetition: Repetition) -> MapiResult<()> {
        let props = self.props.lock().unwrap().clone();
        let bytes = self.finished.lock().unwrap().take().expect("the content was finished");
        if let Some(refuse) = &*self.store.refuse.lock().unwrap()
            && let Some(code) = refuse(&bytes)
        {
            return Err(code.into());
        }
        let key = props.binary(tags::SEARCH_KEY).unwrap().to_vec();
        let saved = Saved {
            mailbox: props.text(tags::SOURCE_MAILBOX).unwrap().to_owned(),
            delivered: props.time(tags::MESSAGE_DELIVERY_TIME).unwrap(),
            size: props.long(tags::MESSAGE_SIZE).unwrap(),
            bytes,
        };
        let mut all = self.store.saved.lock().unwrap();
        if all.contains_key(&key) {
            match repetition {
                Repetition::First => self.store.doubled.fetch_add(1, Ordering::SeqCst),
                Repetition::Possible => self.store.repeated.fetch_add(1, Ordering::SeqCst),
            };
            return Ok(());
        }
        self.store.order.lock().unwrap().push(key.clone());
        all.insert(key, saved);
        self.store.count.send_modify(|count| *count += 1);
        Ok(())
    }
}
