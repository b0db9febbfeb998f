//! A message that is being received (IB-2, IB-5, IB-6).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

use super::hand::{Hand, Letter, return_path};
use super::maildir::{
    Draft, FileState, Look, Maildir, MaildirError, Origin, Place, Resumed, Together, Token,
};
use super::{on, status_report};
use crate::mapi::{
    Attachment, EntryId, MapiCode, MapiError, MapiResult, MessageData, PropList, Recipient,
    SysTime, tags,
};
use crate::mime::{Defaults, IncomingHeader, StatusReport, StatusReportReader, compose};
use crate::observe::{Event, Family, Observer};
use crate::spi::{Content, ContentSink, Message, Repetition, ResumedContent};
use crate::spool::Spool;

/// Messages of up to this many octets stay in memory until they are saved.
const IN_MEMORY: usize = 256 * 1024;

/// A message nobody has saved yet; dropping it leaves nothing behind.
pub(super) struct IncomingMessage {
    maildir: Arc<Maildir>,
    /// Who gets it instead of the Maildir, which then only holds its text meanwhile.
    hand: Option<Arc<Hand>>,
    spool: Arc<dyn Spool>,
    /// Octets of free space to leave alone.
    reserve: u64,
    runtime: Handle,
    /// When it was made; stands in for a missing `PR_MESSAGE_DELIVERY_TIME`.
    made: SysTime,
    state: Arc<Mutex<State>>,
    saved: OnceLock<EntryId>,
    observer: Observer,
}

#[derive(Default)]
struct State {
    props: PropList,
    recipients: Vec<Recipient>,
    header: IncomingHeader,
    written: Option<Written>,
    /// What it says when it is a delivery status notification.
    status_report: Option<StatusReport>,
}

/// Octets of the message: those in the file, then those in memory.
struct Written {
    draft: Option<Draft>,
    rest: Vec<u8>,
}

impl IncomingMessage {
    pub(super) fn new(
        (maildir, hand): (Arc<Maildir>, Option<Arc<Hand>>),
        spool: Arc<dyn Spool>,
        reserve: u64,
        runtime: Handle,
        made: SysTime,
        observer: Observer,
    ) -> Self {
        let (state, saved) = (Arc::default(), OnceLock::new());
        IncomingMessage { maildir, hand, spool, reserve, runtime, made, state, saved, observer }
    }

    fn sink(&self) -> MaildirSink {
        MaildirSink {
            maildir: Arc::clone(&self.maildir),
            reserve: self.reserve,
            runtime: self.runtime.clone(),
            message: Arc::clone(&self.state),
            header: IncomingHeader::default(),
            status_report: None,
            draft: None,
            beginning: None,
            buffer: Vec::new(),
            broken: false,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who looks on that the message is in the store.
    fn seen(&self, mailbox: String) {
        self.observer.counters().add(Family::Received, &[("mailbox", &mailbox)], 1);
        if !self.observer.is_heard() {
            return;
        }
        let parsed = self.state().header.parse();
        let text = |tag| parsed.props.text(tag).unwrap_or_default().to_owned();
        let (name, address) =
            (text(tags::SENT_REPRESENTING_NAME), text(tags::SENT_REPRESENTING_EMAIL_ADDRESS));
        let from = match name.is_empty() {
            true => address,
            false => format!("{name} <{address}>"),
        };
        let (subject, at) = (text(tags::SUBJECT), self.made);
        self.observer.tell(Event::Received { mailbox, from, subject, at });
    }

    /// Into the Maildir: what is short together with others that come now.
    async fn deliver(&self, mut written: Written, place: Place) -> MapiResult<()> {
        if written.draft.is_none() {
            let text = std::mem::take(&mut written.rest);
            match self.maildir.save_together(text, &place).await? {
                Together::Saved => return Ok(()),
                Together::Text(text) => written.rest = text,
                Together::Draft(draft) => written.draft = Some(*draft),
            }
        }
        let maildir = Arc::clone(&self.maildir);
        let saved = on(&self.runtime, move || {
            let draft = whole(&maildir, written)?;
            maildir.deliver(draft, &place)
        });
        Ok(saved.await??)
    }

    /// What is to be written: the content, or what the properties make (a transport for another
    /// kind of address may have no RFC 5322 bytes).
    fn take_written(&self) -> MapiResult<(PropList, Written)> {
        let mut state = self.state();
        let props = state.props.clone();
        if let Some(written) = state.written.take() {
            return Ok((props, written));
        }
        if props.value(tags::BODY).is_none() && props.value(tags::HTML).is_none() {
            let words = "a message without content cannot be saved";
            return Err(MapiError::new(MapiCode::CORRUPT_DATA, words));
        }
        let key = blake3::hash(props.binary(tags::SEARCH_KEY).unwrap_or_default()).to_hex();
        let defaults = Defaults {
            from: None,
            date: props.time(tags::MESSAGE_DELIVERY_TIME).unwrap_or(self.made),
            message_id: format!("<{}@received.invalid>", key.get(..32).unwrap_or_default()),
        };
        let message = MessageData {
            props: props.clone(),
            recipients: state.recipients.clone(),
            attachments: Vec::new(),
        };
        Ok((props, Written { draft: None, rest: compose(&message, &defaults)? }))
    }
}

#[async_trait]
impl Message for IncomingMessage {
    fn entry_id(&self) -> Option<EntryId> {
        self.saved.get().cloned()
    }

    /// Those set, and beneath them those that the content gives: its header, and of a delivery
    /// status notification the class (IB-8).
    async fn props(&self) -> MapiResult<PropList> {
        let state = self.state();
        let mut props = state.header.parse().props;
        if let Some(report) = &state.status_report {
            props.set(tags::MESSAGE_CLASS, report.message_class());
        }
        props.merge(state.props.clone());
        Ok(props)
    }

    async fn set_props(&self, props: PropList) -> MapiResult<()> {
        if self.saved.get().is_some() {
            return Err(saved_already());
        }
        self.state().props.merge(props);
        Ok(())
    }

    /// Those set, else those of the header.
    async fn recipients(&self) -> MapiResult<Vec<Recipient>> {
        let state = self.state();
        match state.recipients.is_empty() {
            true => Ok(state.header.parse().recipients),
            false => Ok(state.recipients.clone()),
        }
    }

    async fn modify_recipients(&self, rows: Vec<Recipient>) -> MapiResult<()> {
        if self.saved.get().is_some() {
            return Err(saved_already());
        }
        let mut state = self.state();
        for row in rows {
            match state.recipients.iter_mut().find(|old| old.row == row.row) {
                Some(old) => *old = row,
                None => state.recipients.push(row),
            }
        }
        Ok(())
    }

    async fn attachments(&self) -> MapiResult<Vec<Attachment>> {
        Ok(Vec::new())
    }

    /// Always `None`: what was written can be read in the Maildir once it is saved.
    async fn content(&self) -> MapiResult<Option<Content>> {
        Ok(None)
    }

    /// `MAPI_E_NOT_ENOUGH_DISK` while the reserve of free space is touched, so that who receives
    /// hears of it and can tell.
    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        if self.saved.get().is_some() {
            return Err(saved_already());
        }
        self.maildir.admit(self.reserve)?;
        Ok(Box::new(self.sink()))
    }

    /// Needs the `PR_SEARCH_KEY` to be set; without it nothing is kept or found.
    async fn resume_content(&self, size: u64) -> MapiResult<ResumedContent> {
        let token = self.state().props.binary(tags::SEARCH_KEY).map(received);
        let Some(token) = token else {
            return Ok(ResumedContent { sink: self.set_content().await?, before: None });
        };
        if self.saved.get().is_some() {
            return Err(saved_already());
        }
        self.maildir.admit(self.reserve)?;
        let (maildir, mut sink) = (Arc::clone(&self.maildir), self.sink());
        let resumed = on(&self.runtime, move || -> Result<_, MaildirError> {
            let resumed = maildir.resume(token, size, |bytes| {
                // The first piece is no shorter than a header that is kept.
                sink.read_along(bytes, bytes);
            })?;
            Ok((resumed, sink))
        });
        let (resumed, mut sink) = resumed.await??;
        let Some(Resumed { draft, octets, reader }) = resumed else {
            let sink = MaildirSink { beginning: Some((token, size)), ..self.sink() };
            return Ok(ResumedContent { sink: Box::new(sink), before: None });
        };
        sink.draft = Some(draft);
        let reader = tokio::fs::File::from_std(reader).take(octets);
        let before = Content { size: octets, digest: None, reader: Box::pin(reader) };
        Ok(ResumedContent { sink: Box::new(sink), before: Some(before) })
    }

    /// Saves it into the mailbox that `PR_SOURCE_MAILBOX` names, else INBOX, or hands it over where
    /// the store has a [`Receiver`](super::Receiver). Saved already: harmless.
    /// `MAPI_E_NOT_ENOUGH_DISK` as from `set_content`. A caller that goes away leaves it saved or
    /// not.
    async fn save_changes(&self, repetition: Repetition) -> MapiResult<()> {
        if self.saved.get().is_some() {
            return Ok(());
        }
        self.maildir.admit(self.reserve)?;
        let (props, written) = self.take_written()?;
        let key = match props.binary(tags::SEARCH_KEY) {
            Some(key) => key.to_vec(),
            None => fastrand::u128(..).to_be_bytes().to_vec(),
        };
        let place = Place {
            mailbox: props.text(tags::SOURCE_MAILBOX).unwrap_or("INBOX").to_owned(),
            token: received(&key),
            time: props.time(tags::MESSAGE_DELIVERY_TIME).unwrap_or(self.made),
            state: FileState::New,
            look: match repetition {
                Repetition::First => Look::Here,
                Repetition::Possible => Look::Everywhere,
            },
        };
        let maildir = Arc::clone(&self.maildir);
        let place_mailbox = place.mailbox.clone();
        match &self.hand {
            None => self.deliver(written, place).await?,
            Some(hand) => {
                let Place { mailbox, token, look, .. } = place;
                let sender = return_path(self.state().header.kept());
                let draft = on(&self.runtime, move || whole(&maildir, written)).await??;
                hand.deliver(draft, Letter { sender, mailbox, token, look }).await?;
            }
        }
        let digest = blake3::hash(&key);
        let entry = EntryId::from_bytes(digest.as_bytes().get(..16).unwrap_or_default())
            .map_err(|error| MapiError::new(MapiCode::CALL_FAILED, error.to_string()))?;
        self.saved.get_or_init(|| entry);
        self.seen(place_mailbox);
        let report = self.state().status_report.take();
        if let Some(report) = report {
            status_report::tie(self.spool.as_ref(), &report, digest.as_bytes(), self.made).await;
        }
        Ok(())
    }
}

/// What a received message with this key is found again by.
fn received(key: &[u8]) -> Token {
    Token::of(Origin::Received, key)
}

/// All of it in one file.
fn whole(maildir: &Maildir, written: Written) -> Result<Draft, MaildirError> {
    let mut draft = match written.draft {
        Some(draft) => draft,
        None => maildir.draft()?,
    };
    draft.write(&written.rest)?;
    Ok(draft)
}

fn saved_already() -> MapiError {
    MapiError::new(MapiCode::NO_ACCESS, "the message is saved and cannot be changed")
}

/// Takes the octets of a message: into memory, and into a file once they are many.
struct MaildirSink {
    maildir: Arc<Maildir>,
    reserve: u64,
    runtime: Handle,
    message: Arc<Mutex<State>>,
    header: IncomingHeader,
    /// Reads along when the header announces a delivery status notification.
    status_report: Option<StatusReportReader>,
    draft: Option<Draft>,
    /// The file, once there is one, is to be one that can be taken up later: of this message, which is
    /// to have so many octets.
    beginning: Option<(Token, u64)>,
    buffer: Vec<u8>,
    /// A write failed or was abandoned half way.
    broken: bool,
}

#[async_trait]
impl ContentSink for MaildirSink {
    async fn write(&mut self, bytes: &[u8]) -> MapiResult<()> {
        if self.broken {
            return Err(broken());
        }
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        self.read_along(bytes, &buffer);
        self.buffer = buffer;
        if self.buffer.len() < IN_MEMORY {
            return Ok(());
        }
        self.broken = true;
        let maildir = Arc::clone(&self.maildir);
        let (draft, mut buffer) = (self.draft.take(), std::mem::take(&mut self.buffer));
        let reserve = self.reserve;
        let beginning = self.beginning;
        let written = on(&self.runtime, move || -> MapiResult<(Draft, Vec<u8>)> {
            if let Err(error) = maildir.admit(reserve) {
                // What there is would keep the disk full.
                if let Some(draft) = draft {
                    draft.discard();
                }
                return Err(error);
            }
            let mut draft = match (draft, beginning) {
                (Some(draft), _) => draft,
                (None, Some((token, size))) => maildir.begin(token, size)?,
                (None, None) => maildir.draft()?,
            };
            draft.write(&buffer)?;
            maildir.note(&mut draft)?;
            buffer.clear();
            Ok((draft, buffer))
        });
        let (draft, buffer) = written.await??;
        (self.draft, self.buffer, self.broken) = (Some(draft), buffer, false);
        Ok(())
    }

    /// Only what lies in a file already is kept; what is in memory is little.
    async fn keep(self: Box<Self>) -> MapiResult<()> {
        let MaildirSink { maildir, runtime, draft, buffer, .. } = *self;
        let Some(mut draft) = draft.filter(Draft::is_beginning) else { return Ok(()) };
        on(&runtime, move || -> MapiResult<()> {
            draft.write(&buffer)?;
            Ok(maildir.keep(draft)?)
        })
        .await?
    }

    async fn discard(self: Box<Self>) {
        if let Some(draft) = self.draft {
            // Should it be cut off, the next sweep does it.
            let _ = on(&self.runtime, move || draft.discard()).await;
        }
    }

    async fn finish(self: Box<Self>) -> MapiResult<()> {
        if self.broken {
            return Err(broken());
        }
        let mut state = self.message.lock().unwrap_or_else(PoisonError::into_inner);
        state.written = Some(Written { draft: self.draft, rest: self.buffer });
        state.header = self.header;
        state.status_report = self.status_report.and_then(StatusReportReader::finish);
        Ok(())
    }
}

impl MaildirSink {
    /// Reads along what comes; `all` is everything that came so far, as long as none of it has
    /// left the memory.
    fn read_along(&mut self, bytes: &[u8], all: &[u8]) {
        if self.header.is_complete() {
            self.status_report.iter_mut().for_each(|reader| reader.push(bytes));
            return;
        }
        self.header.push(bytes);
        if self.header.is_complete() {
            // Nothing has left the buffer yet: it holds no less than a header that is kept.
            self.status_report = StatusReportReader::for_header(self.header.kept());
            self.status_report.iter_mut().for_each(|reader| reader.push(all));
        }
    }
}

fn broken() -> MapiError {
    MapiError::new(MapiCode::DISK_ERROR, "the message was not written whole")
}
