//! A post office, a spool, a manual clock and the sending side between them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postoffice::PostOffice;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::faulty_spool::FaultySpool;
use crate::clock::{Clock, ManualClock};
use crate::mapi::{
    Attachment, EntryId, MapiCode, MapiResult, PropList, Recipient, RecipientType, SysTime, tags,
};
use crate::net::{TlsMode, Trust};
use crate::spi::{Content, ContentSink, Message, Repetition, SubmitError};
use crate::spool::{QueueRecord, QueueState, RecipientState, SledSpool, Spool, SpoolOptions};
use crate::transport::events::{Activity, Gate, SendingNotes, Trouble};
use crate::transport::outbound::deadlines::Deadlines;
use crate::transport::outbound::testing::{Password, smtp_settings};
use crate::transport::outbound::{Outbound, OutboundEvents, OutboundSettings, Taken};
use crate::transport::{Credentials, Identity, InDoubtPolicy, QueueSettings, SmtpSettings};

/// Nothing a test waits for takes so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A message object in memory.
pub(super) struct Note {
    entry: EntryId,
    props: Mutex<PropList>,
    recipients: Vec<Recipient>,
    content: Option<Vec<u8>>,
}

impl Note {
    pub(super) fn to(entry: &EntryId, addresses: &[&str]) -> Self {
        let recipients = addresses
            .iter()
            .zip(0..)
            .map(|(address, row)| Recipient::smtp(row, RecipientType::To, *address))
            .collect();
        let props = PropList::new()
            .with(tags::SUBJECT, format!("note {entry}"))
            .with(tags::BODY, "one\r\n.two\r\n");
        Note { entry: entry.clone(), props: Mutex::new(props), recipients, content: None }
    }

    pub(super) fn with(
        self,
        tag: crate::mapi::PropTag,
        value: impl Into<crate::mapi::PropValue>,
    ) -> Self {
        self.props.lock().unwrap().set(tag, value);
        self
    }

    pub(super) fn content(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.content = Some(content.into());
        self
    }
}

#[async_trait]
impl Message for Note {
    fn entry_id(&self) -> Option<EntryId> {
        Some(self.entry.clone())
    }

    async fn props(&self) -> MapiResult<PropList> {
        Ok(self.props.lock().unwrap().clone())
    }

    async fn set_props(&self, props: PropList) -> MapiResult<()> {
        self.props.lock().unwrap().merge(props);
        Ok(())
    }

    async fn recipients(&self) -> MapiResult<Vec<Recipient>> {
        Ok(self.recipients.clone())
    }

    async fn modify_recipients(&self, _: Vec<Recipient>) -> MapiResult<()> {
        Err(MapiCode::NO_ACCESS.into())
    }

    async fn attachments(&self) -> MapiResult<Vec<Attachment>> {
        Ok(Vec::new())
    }

    async fn content(&self) -> MapiResult<Option<Content>> {
        Ok(self.content.clone().map(|bytes| Content {
            size: bytes.len() as u64,
            digest: Some(*blake3::hash(&bytes).as_bytes()),
            reader: Box::pin(std::io::Cursor::new(bytes)),
        }))
    }

    async fn set_content(&self) -> MapiResult<Box<dyn ContentSink>> {
        Err(MapiCode::NO_ACCESS.into())
    }

    async fn save_changes(&self, _: Repetition) -> MapiResult<()> {
        Err(MapiCode::NO_ACCESS.into())
    }
}

/// What the logon heard.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    SentDeferred(EntryId),
    Activity(Activity),
    Trouble(Option<Trouble>),
    Notes(SendingNotes),
    ReadyToSend,
    FlushDrained,
}

/// Keeps everything the logon would hear.
pub(super) struct Ears(watch::Sender<Vec<Told>>);

impl OutboundEvents for Ears {
    fn sent_deferred(&self, entry: &EntryId) {
        self.0.send_modify(|told| told.push(Told::SentDeferred(entry.clone())));
    }

    fn activity(&self, activity: Activity) {
        self.0.send_modify(|told| told.push(Told::Activity(activity)));
    }

    fn trouble(&self, trouble: Option<Trouble>) {
        self.0.send_modify(|told| told.push(Told::Trouble(trouble)));
    }

    fn notes(&self, notes: SendingNotes) {
        self.0.send_modify(|told| told.push(Told::Notes(notes)));
    }

    fn ready_to_send(&self) {
        self.0.send_modify(|told| told.push(Told::ReadyToSend));
    }

    fn flush_drained(&self) {
        self.0.send_modify(|told| told.push(Told::FlushDrained));
    }
}

/// See the module.
pub(super) struct Rig {
    pub(super) office: PostOffice,
    pub(super) spool: Arc<SledSpool>,
    pub(super) clock: ManualClock,
    pub(super) password: Arc<Password>,
    pub(super) settings: OutboundSettings,
    pub(super) faulty: Arc<FaultySpool>,
    pub(super) outbound: Arc<Outbound>,
    pub(super) ears: Arc<Ears>,
    pub(super) folder: TempDir,
    _certificates: TempDir,
}

/// How a rig differs from the usual.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) tls: TlsMode,
    pub(super) connections: usize,
    pub(super) in_doubt: InDoubtPolicy,
    pub(super) deadlines: Deadlines,
    pub(super) trust: Option<Trust>,
    /// What else is different about the server.
    pub(super) smtp: Arc<dyn Fn(&mut SmtpSettings) + Send + Sync>,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            tls: TlsMode::Plain,
            connections: 2,
            in_doubt: InDoubtPolicy::Resend,
            deadlines: Deadlines { quit: Duration::from_millis(200), ..Deadlines::default() },
            trust: None,
            smtp: Arc::new(|_| {}),
        }
    }
}

pub(super) fn entry(number: u16) -> EntryId {
    EntryId::from_bytes(&number.to_be_bytes()).unwrap()
}

pub(super) async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").catch_all("ann").start().await.unwrap()
}

async fn open_spool(folder: &TempDir) -> Arc<SledSpool> {
    let path = folder.path().to_owned();
    let options = SpoolOptions { reserve: 0, ..SpoolOptions::default() };
    tokio::task::spawn_blocking(move || Arc::new(SledSpool::open(&path, options).unwrap()))
        .await
        .unwrap()
}

impl Rig {
    pub(super) async fn new() -> Self {
        Rig::shaped(Shape::default(), office().await).await
    }

    pub(super) async fn shaped(shape: Shape, office: PostOffice) -> Self {
        let (mut smtp, certificates) = smtp_settings(&office, shape.tls);
        smtp.connections = shape.connections;
        if let Some(trust) = shape.trust {
            smtp.server.trust = trust;
        }
        let password = Arc::new(Password::new("secret"));
        let source = Arc::clone(&password) as Arc<dyn crate::spi::SecretSource>;
        smtp.credentials = Some(Credentials { user: "ann".to_owned(), password: source });
        (shape.smtp)(&mut smtp);
        let identity = Identity { name: "Ann".to_owned(), address: "ann@example.org".to_owned() };
        let queue = QueueSettings { in_doubt: shape.in_doubt, ..QueueSettings::default() };
        let mut settings = OutboundSettings::new("work", identity, smtp, queue);
        settings.deadlines = shape.deadlines;
        let folder = tempfile::tempdir().unwrap();
        let spool = open_spool(&folder).await;
        let clock = ManualClock::new(SysTime::from_millis(1_700_000_000_000));
        let ears = Arc::new(Ears(watch::Sender::new(Vec::new())));
        let faulty = FaultySpool::new(Arc::clone(&spool));
        let outbound = begin(&settings, &faulty, &clock, &ears);
        Rig {
            faulty,
            office,
            spool,
            clock,
            password,
            settings,
            outbound,
            ears,
            folder,
            _certificates: certificates,
        }
    }

    /// The next life of the same account on the same disk, after an orderly end or none.
    pub(super) async fn restart(&mut self, grace: Option<Duration>) {
        match grace {
            Some(grace) => self.outbound.stop(grace).await,
            None => {
                self.outbound.shared.lane().stop();
                self.outbound.shared.end.cancel();
                self.outbound.shared.tasks.close();
                self.outbound.shared.tasks.wait().await;
            }
        }
        self.spool.close().await;
        self.spool = open_spool(&self.folder).await;
        self.ears = Arc::new(Ears(watch::Sender::new(Vec::new())));
        self.faulty = FaultySpool::new(Arc::clone(&self.spool));
        self.outbound = begin(&self.settings, &self.faulty, &self.clock, &self.ears);
    }

    pub(super) fn open(&self) {
        self.outbound.set_gate(Gate::Open);
    }

    pub(super) async fn submit(&self, note: Note) -> Result<Taken, SubmitError> {
        let entry = note.entry.clone();
        self.outbound.take(entry, Arc::new(note), CancellationToken::new()).await
    }

    /// Submits a plain note and expects it to be deferred.
    pub(super) async fn send(&self, number: u16, addresses: &[&str]) -> EntryId {
        let entry = entry(number);
        let taken = self.submit(Note::to(&entry, addresses)).await.unwrap();
        assert!(matches!(taken, Taken::Deferred));
        entry
    }

    pub(super) async fn row(&self, entry: &EntryId) -> Option<QueueRecord> {
        self.spool.queue(entry).await.unwrap()
    }

    /// The state of one recipient, in a word.
    pub(super) async fn recipient(&self, entry: &EntryId, index: usize) -> &'static str {
        match self.row(entry).await.unwrap().envelope.recipients[index].state {
            RecipientState::Pending => "pending",
            RecipientState::Delivered { .. } => "delivered",
            RecipientState::Deferred { .. } => "deferred",
            RecipientState::Failed { .. } => "failed",
        }
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.ears.0.borrow().clone()
    }

    pub(super) fn forget(&self) {
        self.ears.0.send_modify(Vec::clear);
    }

    /// Waits until the logon has heard enough.
    pub(super) async fn hears(&self, what: &str, enough: impl Fn(&[Told]) -> bool) {
        let mut told = self.ears.0.subscribe();
        let waited =
            tokio::time::timeout(PATIENCE, told.wait_for(|told| enough(told))).await.is_ok();
        assert!(
            waited,
            "never heard: {what}; heard {:?}; the office: {}",
            self.told(),
            self.office.transcript_text()
        );
    }

    pub(super) async fn hears_end_of(&self, entry: &EntryId) -> QueueRecord {
        let wanted = Told::SentDeferred(entry.clone());
        self.hears("the end of a message", |told| told.contains(&wanted)).await;
        self.row(entry).await.unwrap()
    }

    pub(super) async fn hears_trouble(&self) -> Trouble {
        self.hears("trouble", |told| told.iter().any(|t| matches!(t, Told::Trouble(Some(_)))))
            .await;
        self.told()
            .into_iter()
            .rev()
            .find_map(|told| match told {
                Told::Trouble(trouble) => trouble,
                _ => None,
            })
            .unwrap()
    }

    /// Waits until the row is as wanted: looks again after each thing that is heard of the
    /// message's flight, and after each change of the count of flights.
    pub(super) async fn row_when(
        &self,
        entry: &EntryId,
        wanted: impl Fn(&QueueRecord) -> bool,
    ) -> QueueRecord {
        let wait = async {
            loop {
                if let Some(flight) = self.outbound.shared.flights.of(entry) {
                    flight.landed().await;
                }
                let row = self.row(entry).await.unwrap();
                if wanted(&row) && !self.outbound.shared.flights.has(entry) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(row) => row,
            Err(_) => panic!(
                "the row stayed {:?}; heard {:?}; the office: {}",
                self.row(entry).await,
                self.told(),
                self.office.transcript_text()
            ),
        }
    }

    pub(super) async fn deferred(&self, entry: &EntryId) -> QueueRecord {
        self.row_when(entry, |row| row.state == QueueState::Due && row.attempts > 0).await
    }

    /// Moves the clock to when the message is due.
    pub(super) fn wait_for_due(&self, row: &QueueRecord) {
        self.clock.advance(row.due.saturating_since(self.clock.now()));
    }
}

fn begin(
    settings: &OutboundSettings,
    spool: &Arc<FaultySpool>,
    clock: &ManualClock,
    ears: &Arc<Ears>,
) -> Arc<Outbound> {
    Outbound::start(
        settings.clone(),
        Arc::clone(spool) as Arc<dyn Spool>,
        Arc::new(clock.clone()),
        tokio::runtime::Handle::current(),
        Arc::clone(ears) as Arc<dyn OutboundEvents>,
    )
}
