//! The face of the library for who wants to send and fetch through a profile.
//!
//! [`Session::open`] puts the house together: the profile's spool, its store, the SMTP/IMAP
//! provider with a logon for each transport, and the spooler that drives them. What can be asked
//! of a session is the trait [`Service`], which the control socket's client implements as well.

mod answers;
mod check;
mod delays;
mod documents;
mod flush;
mod fsck;
mod hook_command;
mod hooks;
mod metrics_view;
mod options;
mod queue_view;
mod sent_courier;
mod service;
mod status_view;
mod store_options;
mod submit;
mod trace_lookup;
mod trace_view;
mod upkeep;
mod user;

pub use check::check_profile;
pub use documents::{
    CheckReport, Direction, FlushSummary, InboundMode, InboundState, OwedCopiesView,
    QueueCountsView, QueueRow, QueueRowState, RecipientRow, RecipientRowState, StatusReport,
    StatusRowView, TraceReport, TraceStep, TraceStepKind,
};
pub use fsck::{Exported, FsckEvent, FsckEvents, FsckReport, FsckRequest, fsck_unreadable};
pub use options::{Logon, SessionOptions};
pub use service::{FlushRequest, NotifyRequest, RawEnvelope, Service, Submission};
pub(crate) use submit::rules as address_rules;
pub(crate) use user::{login_name, login_name_of};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Clock;
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, SysTime};
use crate::observe::Observer;
use crate::profile::{Profile, make_private_folder, sections_in};
use crate::spi::{MessageStore, ProfileSection, ServiceEntry};
use crate::spool::{SledSpool, Spool, SpoolOptions};
use crate::spooler::{Spooler, SpoolerOptions, StatusTable, TransportService};
use crate::store::{LocalStore, StoreOptions};
use crate::transport::{SmtpImapProvider, sent_folder};
use delays::Watch;
use hooks::Hooks;
use queue_view::Traffic;
use sent_courier::Courier;

/// A profile that is logged on, or at least its spool and store.
///
/// Exactly one process has a profile's spool open; a second waits for it (see
/// [`SessionOptions::lock_wait`]). End it with [`Session::shutdown`]; dropping it stops the work
/// at once, and nothing that was accepted is lost.
pub struct Session {
    profile: Profile,
    sections: Vec<ProfileSection>,
    /// Where spool and tokens lie.
    state_folder: PathBuf,
    logon: Logon,
    clock: Arc<dyn Clock>,
    /// Transports of other providers.
    transports: Vec<TransportService>,
    /// Called for what a transport of the profile lacks (LG-8).
    configuration: Option<Arc<dyn ServiceEntry>>,
    spool: Arc<dyn Spool>,
    /// The same, for what only the spool on sled can do.
    sled: Arc<SledSpool>,
    store: Arc<LocalStore>,
    running: Option<Running>,
    observer: Observer,
    hooks: Option<Hooks>,
    /// When it was opened.
    opened: SysTime,
    /// Cancelled when the session ends or is dropped.
    ending: CancellationToken,
    _ends_with_us: DropGuard,
}

/// What exists when transports are logged on.
struct Running {
    provider: Arc<SmtpImapProvider>,
    spooler: Spooler,
}

impl Session {
    /// Opens the profile's spool and store in this process and, unless `options` say otherwise,
    /// logs its transports on. Needs a tokio runtime.
    ///
    /// # Errors
    /// `MAPI_E_BUSY` when another process has the spool for longer than the wait allows,
    /// `MAPI_E_NO_ACCESS` when the state folder belongs to another user or others can change it,
    /// `MAPI_E_DISK_ERROR`, `MAPI_E_NOT_ENOUGH_DISK`, `MAPI_E_VERSION` for a spool of a newer
    /// version, `MAPI_E_INVALID_PARAMETER` for two transports of one name. A transport that cannot
    /// be logged on is no error: its status row says why.
    pub async fn open(profile: &Profile, options: SessionOptions) -> MapiResult<Session> {
        check_names(profile, &options.transports)?;
        let runtime = tokio::runtime::Handle::current();
        let (folder, wait) = (options.state_folder.join("spool"), options.lock_wait);
        let spool_options = SpoolOptions { lock_wait: wait, ..options.spool };
        let state_folder = options.state_folder.clone();
        let opened = tokio::task::spawn_blocking(move || {
            make_private_folder(&state_folder).map_err(|error| unusable(&state_folder, &error))?;
            SledSpool::open(&folder, spool_options).map_err(MapiError::from)
        });
        let opened = opened.await;
        let sled = Arc::new(
            opened.map_err(|error| MapiError::new(MapiCode::CALL_FAILED, error.to_string()))??,
        );
        let spool = Arc::clone(&sled) as Arc<dyn Spool>;
        let store_options = StoreOptions {
            observer: options.observer.clone(),
            ..store_options::of(
                profile,
                &sections_in(profile, &options.state_folder),
                &options.state_folder,
            )?
        };
        let store = LocalStore::open(
            store_options,
            Arc::clone(&spool),
            Arc::clone(&options.clock),
            runtime.clone(),
        )
        .await?;
        upkeep::reconcile(spool.as_ref(), profile, options.clock.now()).await?;
        let ending = CancellationToken::new();
        let forget = upkeep::forget(Arc::clone(&spool), Arc::clone(&options.clock), ending.clone());
        drop(runtime.spawn(forget));
        let opened = options.clock.now();
        let hooks = match options.logon {
            Logon::Full | Logon::Closed => {
                let (spool, clock) = (Arc::clone(&spool), Arc::clone(&options.clock));
                Hooks::start(profile, spool, clock, options.observer.clone())
            }
            Logon::None | Logon::Offline => None,
        };
        if let (Logon::Full, Some(after)) = (options.logon, profile.queue.delay_warning) {
            let watch = Watch::new(Arc::clone(&store), Arc::clone(&spool), after);
            let watched = delays::run(watch, Arc::clone(&options.clock), ending.clone());
            drop(runtime.spawn(watched));
        }
        let mut session = Session {
            profile: profile.clone(),
            sections: sections_in(profile, &options.state_folder),
            state_folder: options.state_folder,
            logon: options.logon,
            clock: options.clock,
            transports: options.transports,
            configuration: options.configuration,
            spool,
            sled,
            store,
            running: None,
            observer: options.observer,
            hooks,
            opened,
            _ends_with_us: ending.clone().drop_guard(),
            ending,
        };
        if options.logon != Logon::None {
            session.running = Some(session.log_on(runtime.clone()).await?);
        }
        if session.traffic() == Traffic::Running {
            session.send_couriers(&runtime);
        }
        Ok(session)
    }

    async fn log_on(&self, runtime: tokio::runtime::Handle) -> MapiResult<Running> {
        let (spool, clock) = (Arc::clone(&self.spool), Arc::clone(&self.clock));
        let provider = SmtpImapProvider::observed(spool, clock, runtime, self.observer.clone());
        let services = self
            .profile
            .transports
            .iter()
            .zip(&self.sections)
            .map(|(transport, section)| TransportService {
                provider_name: "SMTP/IMAP".to_owned(),
                section: section.clone(),
                senders: std::iter::once(transport.identity.address.clone())
                    .chain(transport.aliases.iter().cloned())
                    .collect(),
                configuration: self.configuration.clone(),
                ..TransportService::new(&transport.name, Arc::clone(&provider) as _)
            })
            .chain(self.transports.iter().cloned())
            .collect();
        let poll_interval = self
            .profile
            .transports
            .iter()
            .filter_map(|transport| transport.imap.as_ref().map(|imap| imap.poll_interval))
            .min()
            .unwrap_or(Duration::from_secs(60));
        let options =
            SpoolerOptions { logon: self.logon.flags(), begin: self.logon.begin(), poll_interval };
        let store = Arc::clone(&self.store) as Arc<dyn MessageStore>;
        let spooler = Spooler::start(store, Arc::clone(&self.clock), services, options).await?;
        Ok(Running { provider, spooler })
    }

    /// Starts to bring sent copies to the servers that are to get them.
    fn send_couriers(&self, runtime: &tokio::runtime::Handle) {
        for (transport, section) in self.profile.transports.iter().zip(&self.sections) {
            if !self.store.owes_copies_of(&transport.name) {
                continue;
            }
            let Ok(Some(folder)) = sent_folder(section) else { continue };
            let courier = Courier {
                transport: transport.name.clone(),
                store: Arc::clone(&self.store),
                folder,
                clock: Arc::clone(&self.clock),
            };
            drop(runtime.spawn(courier.run(self.ending.clone())));
        }
    }

    /// The status table while transports are logged on; subscribe to see every change (ST-5).
    pub fn status_table(&self) -> Option<&Arc<StatusTable>> {
        self.running.as_ref().map(|running| running.spooler.status_table())
    }

    /// Ends the session in order (SP-5): a message on the wire gets at most `grace` to finish,
    /// deferred messages are given back, the spool is closed. A session that was opened only to
    /// look or to change the queue gives nothing back and is quick.
    ///
    /// # Errors
    /// The first error of a logoff; the session is over all the same.
    pub async fn shutdown(&self, grace: Duration) -> MapiResult<()> {
        let answer = match &self.running {
            None => Ok(()),
            Some(running) if self.logon == Logon::Offline => {
                running.spooler.logoff(Duration::ZERO).await
            }
            Some(running) => running.spooler.logoff(grace).await,
        };
        if let Some(hooks) = &self.hooks {
            hooks.finish().await;
        }
        self.ending.cancel();
        self.spool.close().await;
        answer
    }

    fn running(&self) -> MapiResult<&Running> {
        self.running.as_ref().ok_or_else(|| {
            MapiError::new(
                MapiCode::NOT_INITIALIZED,
                "no transport is logged on; start the daemon with `postrider run`",
            )
        })
    }

    fn traffic(&self) -> Traffic {
        match self.logon {
            Logon::Full | Logon::Closed => Traffic::Running,
            Logon::None | Logon::Offline => Traffic::Stopped,
        }
    }

    /// The transport that has a message, if one has.
    async fn transport_of(&self, entry: &EntryId) -> MapiResult<Option<String>> {
        Ok(self.spool.queue(entry).await?.map(|record| record.transport))
    }

    /// Whether the transport that has a message, if one has, is logged on.
    async fn can_be_asked(&self, entry: &EntryId) -> MapiResult<bool> {
        let transport = self.transport_of(entry).await?;
        Ok(match (&self.running, transport) {
            (Some(running), Some(transport)) => running.provider.sends(&transport),
            (Some(_), None) => true,
            (None, _) => false,
        })
    }

    /// The row of a message that is in the outgoing queue table.
    async fn outgoing_row(&self, entry: &EntryId) -> MapiResult<Option<QueueRow>> {
        let Some(outbox) = self.spool.outbox(entry).await? else { return Ok(None) };
        let queue = self.spool.queue(entry).await?;
        Ok(Some(queue_view::outgoing_row(entry, &outbox, queue.as_ref(), self.traffic())))
    }

    /// Waits until the message has left the table.
    async fn ended(&self, entry: &EntryId) -> MapiResult<QueueRow> {
        let running = self.running()?;
        loop {
            let mut ended = running.spooler.ended();
            if self.outgoing_row(entry).await?.is_none() {
                return self.queue_row(entry).await;
            }
            loop {
                let heard = tokio::select! {
                    heard = ended.recv() => heard,
                    () = self.ending.cancelled() => return Err(MapiCode::END_OF_SESSION.into()),
                };
                match heard {
                    Ok(other) if other != *entry => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Err(MapiCode::END_OF_SESSION.into()),
                }
            }
        }
    }
}

/// Why the state folder cannot be used.
fn unusable(folder: &Path, error: &std::io::Error) -> MapiError {
    let code = match error.kind() {
        std::io::ErrorKind::PermissionDenied => MapiCode::NO_ACCESS,
        std::io::ErrorKind::StorageFull => MapiCode::NOT_ENOUGH_DISK,
        _ => MapiCode::DISK_ERROR,
    };
    MapiError::new(code, format!("the state folder {}: {error}", folder.display()))
}

/// Calls name a transport by its name alone, so no two may share one.
fn check_names(profile: &Profile, others: &[TransportService]) -> MapiResult<()> {
    let mut names: Vec<&str> = profile.transports.iter().map(|one| one.name.as_str()).collect();
    for other in others {
        if names.contains(&other.name.as_str()) {
            let words = format!("there is a transport called {} already", other.name);
            return Err(MapiError::new(MapiCode::INVALID_PARAMETER, words));
        }
        names.push(&other.name);
    }
    Ok(())
}
