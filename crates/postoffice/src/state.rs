//! What all connections of one post office share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::sync::watch;

use crate::certificates::{Authority, Flaw, ServerCertificate};
use crate::config::{Config, Feature, Protocol, UnknownRecipients, Withheld};
use crate::faults::Board;
use crate::mailbox::Store;
use crate::message::Body;
use crate::smtp::{Accepted, Envelope, Violation, ViolationKind};
use crate::transcript::{Speaker, Transcript, TranscriptLine};

/// A wait that was not fulfilled in time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("waited {waited:?} in vain for {what}")]
pub struct WaitError {
    what: String,
    waited: Duration,
}

impl WaitError {
    pub(crate) fn new(what: impl Into<String>, waited: Duration) -> Self {
        Self { what: what.into(), waited }
    }
}

/// What was counted for one protocol since the office was built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// TLS handshakes completed.
    pub tls_handshakes: u64,
    /// TLS handshakes that failed.
    pub tls_failures: u64,
    /// Successful AUTH, LOGIN and AUTHENTICATE.
    pub logins: u64,
    /// Refused ones.
    pub login_failures: u64,
    /// SMTP: messages of which some came after DATA was answered with 354, but never the final dot.
    pub broken_off: u64,
    /// Commands by verb in capitals (`MAIL`, `UID FETCH`).
    pub commands: BTreeMap<String, u64>,
}

impl Counters {
    /// How often the command came; the verb in capitals.
    pub fn command(&self, verb: &str) -> u64 {
        self.commands.get(verb).copied().unwrap_or(0)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) password: Option<String>,
    pub(crate) token: Option<String>,
}

#[derive(Default)]
struct Ledger {
    accepted: VecDeque<Arc<Accepted>>,
    accepted_count: u64,
    violations: Vec<Violation>,
}

/// Violations kept; a client that never stops must not fill the memory.
const VIOLATIONS: usize = 10_000;
/// Different verbs counted; unknown ones beyond are counted together.
const VERBS: usize = 100;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) authority: Authority,
    pub(crate) faults: Arc<Board>,
    certificate: Mutex<(ServerCertificate, Arc<ServerConfig>)>,
    credentials: Mutex<BTreeMap<String, Credentials>>,
    withheld: Mutex<Withheld>,
    store: Mutex<Store>,
    ledger: Mutex<Ledger>,
    counters: Mutex<BTreeMap<Protocol, Counters>>,
    transcript: Mutex<Transcript>,
    connections: AtomicU64,
    changes: watch::Sender<u64>,
    mail: watch::Sender<u64>,
}

/// Locks, whatever became of an earlier holder: what these mutexes protect is consistent at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        authority: Authority,
        certificate: (ServerCertificate, Arc<ServerConfig>),
        credentials: BTreeMap<String, Credentials>,
        withheld: Withheld,
    ) -> Self {
        let first_validity = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|since| u32::try_from(since.as_secs()).ok())
            .unwrap_or(1);
        let mut store = Store::new(first_validity);
        for user in credentials.keys() {
            store.add_user(user);
        }
        let transcript = Transcript::new(config.limits.transcript);
        Self {
            config,
            authority,
            faults: Arc::default(),
            certificate: Mutex::new(certificate),
            credentials: Mutex::new(credentials),
            withheld: Mutex::new(withheld),
            store: Mutex::new(store),
            ledger: Mutex::default(),
            counters: Mutex::default(),
            transcript: Mutex::new(transcript),
            connections: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            mail: watch::Sender::new(0),
        }
    }

    // ----- changes -----

    /// Whoever waits for something looks again.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Sessions that idle look again, and so does whoever waits.
    pub(crate) fn mail_changed(&self) {
        self.mail.send_modify(|changes| *changes += 1);
        self.changed();
    }

    pub(crate) fn mail_changes(&self) -> watch::Receiver<u64> {
        self.mail.subscribe()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    // ----- configuration that may change -----

    pub(crate) fn offers(&self, feature: impl Into<Feature>) -> bool {
        lock(&self.withheld).offers(feature.into())
    }

    pub(crate) fn change_offer(&self, change: impl FnOnce(&mut Withheld)) {
        change(&mut lock(&self.withheld));
    }

    pub(crate) fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&lock(&self.certificate).1)
    }

    pub(crate) fn certificate(&self) -> ServerCertificate {
        lock(&self.certificate).0.clone()
    }

    pub(crate) fn present(&self, flaw: Flaw) -> Result<(), crate::certificates::CertificateError> {
        let certificate = self.authority.issue(flaw)?;
        let config = certificate.server_config()?;
        *lock(&self.certificate) = (certificate, config);
        Ok(())
    }

    // ----- users -----

    pub(crate) fn set_credentials(&self, user: &str, change: impl FnOnce(&mut Credentials)) {
        change(lock(&self.credentials).entry(user.to_owned()).or_default());
        lock(&self.store).add_user(user);
        self.changed();
    }

    pub(crate) fn credentials(&self, user: &str) -> Option<Credentials> {
        lock(&self.credentials).get(user).cloned()
    }

    /// Whose INBOX an address belongs to: a route for the address, one for its domain, a user named like the
    /// whole address or its local part, the catch-all user.
    pub(crate) fn owner(&self, address: &str) -> Option<String> {
        let address = address.to_ascii_lowercase();
        let (local, domain) = address.rsplit_once('@').unwrap_or((address.as_str(), ""));
        let route = |key: &str| {
            let mut routes = self.config.routes.iter();
            routes.find(|(from, _)| from == key).map(|(_, user)| user.clone())
        };
        if let Some(user) = route(&address).or_else(|| route(domain)) {
            return Some(user);
        }
        let store = lock(&self.store);
        let named = |name: &str| store.users().find(|user| user.eq_ignore_ascii_case(name));
        let plain = local.split_once('+').map_or(local, |(plain, _)| plain);
        named(&address)
            .or_else(|| named(local))
            .or_else(|| named(plain))
            .map(str::to_owned)
            .or_else(|| self.config.catch_all.clone())
    }

    pub(crate) fn takes(&self, address: &str) -> bool {
        self.config.unknown == UnknownRecipients::Relay || self.owner(address).is_some()
    }

    // ----- mail -----

    /// Reads or changes mailboxes without telling anyone; call [`Self::mail_changed`] after a change.
    pub(crate) fn with_store<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        work(&mut lock(&self.store))
    }

    /// Takes a message: into the record and into the mailboxes of its recipients.
    pub(crate) fn accept(&self, envelope: Envelope, body: Body, received: Option<String>) -> u64 {
        let mut owners: Vec<String> =
            envelope.recipients.iter().filter_map(|to| self.owner(&to.address)).collect();
        owners.sort();
        owners.dedup();
        if let Some(bytes) = body.bytes() {
            let bytes: Arc<[u8]> = match received {
                Some(header) => [header.as_bytes(), bytes].concat().into(),
                None => Arc::clone(bytes),
            };
            let mut store = lock(&self.store);
            for owner in &owners {
                if let Ok(inbox) = store.mailbox_mut(owner, "INBOX") {
                    inbox.append(Arc::clone(&bytes), Default::default(), SystemTime::now());
                }
            }
        }
        let id = {
            let mut ledger = lock(&self.ledger);
            ledger.accepted_count += 1;
            let id = ledger.accepted_count;
            while ledger.accepted.len() >= self.config.limits.accepted.max(1) {
                ledger.accepted.pop_front();
            }
            let at = SystemTime::now();
            ledger.accepted.push_back(Arc::new(Accepted { id, at, envelope, body }));
            id
        };
        self.mail_changed();
        id
    }

    pub(crate) fn accepted(&self) -> Vec<Arc<Accepted>> {
        lock(&self.ledger).accepted.iter().cloned().collect()
    }

    pub(crate) fn accepted_count(&self) -> u64 {
        lock(&self.ledger).accepted_count
    }

    pub(crate) fn forget_accepted(&self) -> Vec<Arc<Accepted>> {
        std::mem::take(&mut lock(&self.ledger).accepted).into()
    }

    pub(crate) fn violation(&self, connection: u64, kind: ViolationKind, detail: String) {
        tracing::debug!(connection, ?kind, detail, "protocol violation");
        let mut ledger = lock(&self.ledger);
        if ledger.violations.len() < VIOLATIONS {
            ledger.violations.push(Violation { connection, kind, detail });
        }
        drop(ledger);
        self.changed();
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        lock(&self.ledger).violations.clone()
    }

    // ----- counting and recording -----

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn count(&self, protocol: Protocol, change: impl FnOnce(&mut Counters)) {
        change(lock(&self.counters).entry(protocol).or_default());
        self.changed();
    }

    pub(crate) fn count_command(&self, protocol: Protocol, verb: &str) {
        self.count(protocol, |counters| {
            let known = counters.commands.contains_key(verb);
            let verb = if known || counters.commands.len() < VERBS { verb } else { "..." };
            *counters.commands.entry(verb.to_owned()).or_default() += 1;
        });
    }

    pub(crate) fn counters(&self, protocol: Protocol) -> Counters {
        lock(&self.counters).get(&protocol).cloned().unwrap_or_default()
    }

    pub(crate) fn record(
        &self,
        protocol: Protocol,
        connection: u64,
        speaker: Speaker,
        text: String,
    ) {
        tracing::trace!(?protocol, connection, ?speaker, text);
        lock(&self.transcript).push(TranscriptLine { connection, protocol, speaker, text });
    }

    pub(crate) fn transcript(&self) -> Vec<TranscriptLine> {
        lock(&self.transcript).lines()
    }
}
