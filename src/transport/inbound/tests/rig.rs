//! A server, a spool on disk, a store and a host around [`Inbound`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postoffice::{Builder, Listener, PostOffice};
use secrecy::SecretString;

use super::super::{Inbound, InboundSettings, Tuning};
use super::frozen::Frozen;
use super::host::{Events, Host};
use super::store::Store;
use crate::clock::{Clock, SystemClock};
use crate::net::{Cleartext, Deadlines, Server, TlsMode, Trust};
use crate::spi::{SecretError, SecretKind, SecretSource};
use crate::spool::{AccountKey, CursorRecord, FreeSpace, SledSpool, Spool, SpoolOptions};
use crate::transport::events::{Gate, Trouble, TroubleKind};
use crate::transport::settings::{AfterFetch, Credentials, ImapSettings};

/// How long anything may take in a test.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// A password that can be changed.
pub(super) struct Password(pub(super) Mutex<String>);

#[async_trait]
impl SecretSource for Password {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        Ok(SecretString::from(self.0.lock().unwrap().clone()))
    }
}

/// A token that is renewed once when it is refused, as one of OAuth 2.0 is.
pub(super) struct Token {
    shown: Mutex<String>,
    fresh: Mutex<Option<String>>,
    /// The provider answers when it has a permit.
    pub(super) provider: tokio::sync::Semaphore,
    pub(super) renewals: AtomicU64,
}

impl Token {
    pub(super) fn new(shown: &str, fresh: &str) -> Arc<Self> {
        Arc::new(Token {
            shown: Mutex::new(shown.into()),
            fresh: Mutex::new(Some(fresh.into())),
            provider: tokio::sync::Semaphore::new(0),
            renewals: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl SecretSource for Token {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        Ok(SecretString::from(self.shown.lock().unwrap().clone()))
    }

    fn kind(&self) -> SecretKind {
        SecretKind::Token
    }

    async fn renew(&self, _refused: &SecretString) -> Result<Option<SecretString>, SecretError> {
        self.provider.acquire().await.unwrap().forget();
        let Some(fresh) = self.fresh.lock().unwrap().take() else { return Ok(None) };
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.shown.lock().unwrap().clone_from(&fresh);
        Ok(Some(SecretString::from(fresh)))
    }
}

/// What survives a crash, and the server.
pub(super) struct Rig {
    pub(super) office: PostOffice,
    pub(super) store: Arc<Store>,
    pub(super) spool: Arc<dyn Spool>,
    pub(super) password: Arc<Password>,
    pub(super) settings: InboundSettings,
    pub(super) calls: usize,
    pub(super) clock: Arc<dyn Clock>,
    /// Octets free where the spool is; it keeps 1,000 in reserve.
    pub(super) free: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

/// A life of the transport.
pub(super) struct Life {
    pub(super) inbound: Arc<Inbound>,
    pub(super) events: Arc<Events>,
    pub(super) host: Host,
}

pub(super) fn quick() -> Tuning {
    let ms = Duration::from_millis;
    Tuning {
        idle_done: Duration::from_secs(2),
        silence: Duration::from_secs(5),
        network_pause: (ms(10), ms(100)),
        login_pause: (ms(20), ms(100)),
        throttle_pause: (ms(50), ms(200)),
        retry_pause: ms(20),
        storage_pause: ms(50),
        ..Tuning::default()
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(PostOffice::builder()).await
    }

    pub(super) async fn with(builder: Builder) -> Self {
        let office = builder.user("ann", "secret").start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool");
        let free = Arc::new(AtomicU64::new(u64::MAX));
        let source = Arc::clone(&free);
        let probe: FreeSpace = Arc::new(move |_: &Path| Ok(source.load(Ordering::SeqCst)));
        let free_space = Some(probe);
        let options = SpoolOptions { reserve: 1000, free_space, ..SpoolOptions::default() };
        let spool = tokio::task::spawn_blocking(move || SledSpool::open(&dir, options));
        let password = Arc::new(Password(Mutex::new("secret".into())));
        let imap = ImapSettings {
            server: Server {
                host: "127.0.0.1".into(),
                port: office.port(Listener::Imap),
                tls: TlsMode::Plain,
                trust: Trust::Platform,
                client: None,
            },
            credentials: Credentials { user: "ann".into(), password: password.clone() },
            auth: None,
            mailboxes: vec!["INBOX".into()],
            push: true,
            poll_interval: Duration::from_secs(3600),
            after: AfterFetch::Keep,
            connections: 4,
            cleartext: Cleartext::LoopbackOnly,
            sent_mailbox: None,
            saves_sent: None,
            compress: crate::net::Compress::WhereItPays,
        };
        let settings = InboundSettings {
            transport: "work".into(),
            imap,
            deadlines: Deadlines {
                greeting: Duration::from_secs(5),
                handshake: Duration::from_secs(5),
                login: Duration::from_secs(5),
                ..Deadlines::default()
            },
            tuning: quick(),
        };
        Rig {
            office,
            store: Arc::default(),
            spool: Arc::new(spool.await.unwrap().unwrap()),
            password,
            settings,
            calls: 8,
            clock: Arc::new(SystemClock),
            free,
            folder,
        }
    }

    /// A folder that is there as long as this.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Puts messages with these bodies into INBOX.
    pub(super) fn deliver(&self, bodies: impl IntoIterator<Item = Vec<u8>>) {
        self.deliver_to("INBOX", bodies);
    }

    pub(super) fn deliver_to(&self, mailbox: &str, bodies: impl IntoIterator<Item = Vec<u8>>) {
        self.office.deliver_all("ann", mailbox, bodies).unwrap();
    }

    /// Starts with the gate closed.
    pub(super) fn closed_with(&self, spool: Arc<dyn Spool>) -> Life {
        let events: Arc<Events> = Arc::default();
        let inbound = Inbound::start(
            self.settings.clone(),
            spool,
            Arc::clone(&self.clock),
            tokio::runtime::Handle::current(),
            events.clone(),
        );
        let store = Arc::clone(&self.store);
        let host = Host::start(inbound.clone(), store, events.clone(), self.calls);
        Life { inbound, events, host }
    }

    pub(super) fn start_with(&self, spool: Arc<dyn Spool>) -> Life {
        let life = self.closed_with(spool);
        life.inbound.set_gate(Gate::Open);
        life
    }

    /// Starts without a host that takes anything.
    pub(super) fn start_alone(&self) -> Life {
        let life = self.closed_with(Arc::clone(&self.spool));
        life.host.leave();
        life.inbound.set_gate(Gate::Open);
        life
    }

    pub(super) fn start(&self) -> Life {
        self.start_with(Arc::clone(&self.spool))
    }

    /// Lives until everything present was handed over.
    pub(super) async fn one_flush(&self) {
        let life = self.start();
        life.flush().await;
        life.inbound.stop(LONG).await;
    }

    pub(super) async fn saved(&self, count: usize) {
        let mut counts = self.store.counts();
        let waited = tokio::time::timeout(LONG, counts.wait_for(|now| *now >= count)).await;
        assert!(waited.is_ok(), "{} of {count} saved\n{}", self.store.len(), self.transcript());
    }

    /// Waits until so many more IDLE commands have come to the server.
    pub(super) async fn idles(&self, more: u64) {
        let idles =
            |office: &PostOffice| office.counters(postoffice::Protocol::Imap).command("IDLE");
        let wanted = idles(&self.office) + more;
        let enough = |office: &PostOffice| idles(office) >= wanted;
        self.office.wait_until("IDLE", LONG, enough).await.unwrap();
    }

    /// Waits until so many more commands have come to the server.
    pub(super) async fn said(&self, count: u64) {
        let total = |office: &PostOffice| -> u64 {
            office.counters(postoffice::Protocol::Imap).commands.values().sum()
        };
        let wanted = total(&self.office) + count;
        let enough = |office: &PostOffice| total(office) >= wanted;
        self.office.wait_until("commands", LONG, enough).await.unwrap();
    }

    fn transcript(&self) -> String {
        let text = self.office.transcript_text();
        // An IDLE that is renewed over and over says nothing.
        let chatter = |line: &&str| {
            ["IDLE", "idling", "DONE", "idle is over"].iter().any(|word| line.ends_with(word))
        };
        let lines: Vec<&str> = text.lines().filter(|line| !chatter(line)).collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    pub(super) async fn cursor(&self, mailbox: &str) -> CursorRecord {
        self.spool.cursor(AccountKey::of("work"), mailbox).await.unwrap().unwrap_or_default()
    }

    /// The cursor once it fulfils a condition.
    pub(super) async fn cursor_when(
        &self,
        life: &Life,
        what: impl Fn(&CursorRecord) -> bool,
    ) -> CursorRecord {
        let mut changes = life.events.changes.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let cursor = self.cursor("INBOX").await;
                if what(&cursor) {
                    return cursor;
                }
                // Not every commit is an event; those that are not follow one closely.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        };
        match tokio::time::timeout(LONG, wait).await {
            Ok(cursor) => cursor,
            Err(_) => panic!("{:?}\n{}", self.cursor("INBOX").await, self.transcript()),
        }
    }

    /// Everything in the store is what is in INBOX, each once, byte for byte.
    pub(super) fn assert_same(&self, mut wanted: Vec<Vec<u8>>) {
        wanted.sort();
        let got = self.store.bodies();
        let show = |all: &[Vec<u8>]| -> Vec<String> {
            all.iter().map(|it| String::from_utf8_lossy(it).chars().take(30).collect()).collect()
        };
        assert_eq!(show(&got), show(&wanted));
        assert!(got == wanted, "the bytes differ");
        assert_eq!(self.store.doubled.load(std::sync::atomic::Ordering::SeqCst), 0);
    }
}

impl Life {
    /// Flushes and waits for the end of it.
    pub(super) async fn flush(&self) {
        let mut drained = self.events.drained.subscribe();
        let before = *drained.borrow_and_update();
        self.inbound.begin_flush();
        let waited = tokio::time::timeout(LONG, drained.wait_for(|now| *now > before)).await;
        assert!(waited.is_ok(), "the flush does not end: {:?}", self.inbound.states());
        self.inbound.end_flush();
    }

    pub(super) async fn trouble(&self, kind: TroubleKind) -> Trouble {
        self.trouble_of(&[kind]).await
    }

    pub(super) async fn trouble_of(&self, kinds: &[TroubleKind]) -> Trouble {
        let mut trouble = self.events.trouble.subscribe();
        let is_it =
            |now: &Option<Trouble>| now.as_ref().is_some_and(|now| kinds.contains(&now.kind));
        match tokio::time::timeout(LONG, trouble.wait_for(is_it)).await {
            Ok(now) => now.unwrap().clone().unwrap(),
            Err(_) => panic!("no {kinds:?}: {:?}", self.events.troubles.lock().unwrap()),
        }
    }

    pub(super) async fn no_trouble(&self) {
        let mut trouble = self.events.trouble.subscribe();
        let waited = tokio::time::timeout(LONG, trouble.wait_for(Option::is_none)).await;
        assert!(waited.is_ok(), "{:?}", self.events.troubles.lock().unwrap());
    }

    pub(super) async fn state_when(&self, what: impl Fn(&[super::super::MailboxState]) -> bool) {
        let mut changes = self.events.changes.subscribe();
        let wait = async {
            while !what(&self.inbound.states()) {
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        };
        let waited = tokio::time::timeout(LONG, wait).await;
        assert!(waited.is_ok(), "{:?}", self.inbound.states());
    }
}

/// A message of about so many bytes that is told from others by its number.
pub(super) fn message(number: usize, bytes: usize) -> Vec<u8> {
    let head = format!("Subject: number {number}\r\nFrom: ann@example.org\r\n\r\n");
    let line = format!("{number} {{5}} (and so on) \u{e4}\r\n");
    let mut all = head.into_bytes();
    while all.len() < bytes {
        all.extend_from_slice(line.as_bytes());
    }
    all
}

pub(super) fn messages(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| message(number, 200 + number * 37 % 3000)).collect()
}

pub(super) fn freeze(spool: &Arc<dyn Spool>, commits: u32) -> Arc<Frozen> {
    Frozen::after(Arc::clone(spool), commits)
}

/// Waits until a fault has struck so often.
pub(super) async fn struck(fault: &postoffice::FaultHandle, times: u32) {
    fault.reached_times(times, LONG).await.unwrap();
}
