//! The MAPI host: it logs transports on, hands them the Outbox, takes what they fetch, flushes
//! them, keeps the status table and makes the reports (spec section 10).
//!
//! It knows transports and the store only through [`spi`](crate::spi).

mod attempt;
mod calling_order;
mod deferred;
mod flush;
mod logoff;
mod reception;
mod reports;
mod routed_message;
mod routing;
mod running;
mod slot;
mod status_table;
mod submission;
mod turns;

pub use status_table::{StatusChange, StatusSubscription, StatusTable};

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::mapi::{
    EntryId, FlushFlags, LogonFlags, MapiCode, MapiError, MapiResult, ModifyStatusFlags,
    ResourceFlags, ResourceMethods, SPI_VERSION, StatusCode, TransportNotify,
};
use crate::spi::{
    LogonOutcome, MessageStore, NotifyData, OutgoingState, ProfileSection, StatusColumns,
    StatusRowKind, XpProvider,
};
use running::RunningCalls;
use slot::{Slot, SlotSupport};
use status_table::HostColumns;
use turns::Turns;

/// A transport of the profile, to be logged on.
#[derive(Clone)]
pub struct TransportService {
    /// Name in the profile.
    pub name: String,
    /// Its provider; one provider may serve several services (LG-2).
    pub provider: Arc<dyn XpProvider>,
    /// Name of the provider, for people.
    pub provider_name: String,
    /// Settings of the logon.
    pub section: ProfileSection,
    /// Addresses that choose this transport as senders.
    pub senders: Vec<String>,
}

/// How a session is to be run.
#[derive(Clone, Copy, Debug)]
pub struct SpoolerOptions {
    /// How transports are logged on.
    pub logon: LogonFlags,
    /// Directions and flushes to begin with.
    pub begin: TransportNotify,
    /// Time between two calls of Poll for transports that cannot push.
    pub poll_interval: Duration,
}

/// A running session. Dropping it ends its tasks at once; [`Spooler::logoff`] ends it in order.
pub struct Spooler {
    shared: Arc<Shared>,
    providers: Vec<Arc<dyn XpProvider>>,
}

/// What the tasks of a session share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: SpoolerOptions,
    pub(crate) table: Arc<StatusTable>,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// Something that was not possible may be possible now: look at the whole table.
    pub(crate) reconsider: Notify,
    /// At the next look nothing has to wait for the time a transport named.
    pub(crate) resume: AtomicBool,
    /// Bounds the SubmitMessage calls that run at once; their commits share flushes.
    pub(crate) hand_over: Arc<Semaphore>,
    /// The same for the ends of deferred messages, apart, so that ends never wait for beginnings.
    pub(crate) finish: Arc<Semaphore>,
    /// Keeps calls about one message apart.
    pub(crate) turns: Turns,
    /// The calls themselves, for those who cancel.
    pub(crate) running: RunningCalls,
    /// Answered once everything that waits in the outgoing queue table has been looked at.
    barriers: mpsc::Sender<oneshot::Sender<()>>,
    /// Messages that a transport gave back (TN-18); not handed over again in this session.
    given_back: Mutex<BTreeSet<EntryId>>,
    /// Entry ids of messages that left the table.
    ended: broadcast::Sender<EntryId>,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) ending: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Messages handed to transports, or taken back from them, at the same time.
const AT_ONCE: usize = 128;

/// How long a cancel waits for a running call about its message.
const CANCEL_WAIT: Duration = Duration::from_secs(15);

impl Spooler {
    /// Starts a session: logs every service on, in transport order, and starts the loops. A
    /// service that cannot be logged on shows why in its status row; the others go on (LG-8).
    ///
    /// # Errors
    /// `MAPI_E_VERSION` when a provider speaks another version of the interface (LG-2).
    pub async fn start(
        store: Arc<dyn MessageStore>,
        clock: Arc<dyn Clock>,
        services: Vec<TransportService>,
        options: SpoolerOptions,
    ) -> MapiResult<Spooler> {
        let (barriers, barrier_requests) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            store,
            clock,
            options,
            table: StatusTable::new(),
            slots: Mutex::new(Vec::new()),
            reconsider: Notify::new(),
            resume: AtomicBool::new(false),
            hand_over: Arc::new(Semaphore::new(AT_ONCE)),
            finish: Arc::new(Semaphore::new(AT_ONCE)),
            turns: Turns::default(),
            running: RunningCalls::default(),
            barriers,
            given_back: Mutex::default(),
            ended: broadcast::Sender::new(4096),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let mut spooler = Spooler { shared, providers: Vec::new() };
        for (index, service) in services.into_iter().enumerate() {
            spooler.add(service, index == 0).await?;
        }
        let shared = &spooler.shared;
        shared.tasks.spawn(submission::run(Arc::clone(shared), barrier_requests));
        spooler.add_own_row();
        Ok(spooler)
    }

    /// Logs one service on and starts its loops (LG-1).
    async fn add(&mut self, service: TransportService, first: bool) -> MapiResult<()> {
        if !self.providers.iter().any(|known| Arc::ptr_eq(known, &service.provider)) {
            service.provider.init(SPI_VERSION)?;
            self.providers.push(Arc::clone(&service.provider));
        }
        let shared = &self.shared;
        let mut resource_flags = ResourceFlags::empty();
        resource_flags
            .set(ResourceFlags::DEFAULT_OUTBOUND | ResourceFlags::PRIMARY_IDENTITY, first);
        let host = HostColumns {
            kind: StatusRowKind::Transport,
            provider: service.provider_name,
            resource_flags,
            display_name: service.name.clone(),
        };
        let (slot, sent_deferred) = Slot::new(
            service.name,
            service.senders,
            service.section,
            shared.table.new_row_id(),
            host,
        );
        shared.slots.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&slot));
        let support =
            Arc::new(SlotSupport { slot: Arc::clone(&slot), shared: Arc::downgrade(shared) });
        match service.provider.transport_logon(support, shared.options.logon).await {
            Ok(LogonOutcome { logon, flags }) => slot.set_logon(logon, flags),
            Err(error) => {
                show_failed_logon(shared, &slot, &error);
                return Ok(());
            }
        }
        shared.tasks.spawn(deferred::run(Arc::clone(shared), Arc::clone(&slot), sent_deferred));
        shared.tasks.spawn(reception::run(Arc::clone(shared), Arc::clone(&slot)));
        shared.tasks.spawn(watch(Arc::clone(shared), Arc::clone(&slot)));
        slot.refresh_address_types().await?;
        slot.logon()?.transport_notify(shared.options.begin, NotifyData::None).await
    }

    /// The spooler's own row (`PR_RESOURCE_TYPE` 37).
    fn add_own_row(&self) {
        let table = &self.shared.table;
        let host = HostColumns {
            kind: StatusRowKind::Spooler,
            provider: env!("CARGO_PKG_NAME").to_owned(),
            resource_flags: ResourceFlags::empty(),
            display_name: "spooler".to_owned(),
        };
        let columns = StatusColumns {
            status_code: Some(StatusCode::AVAILABLE),
            status_string: Some("ready".to_owned()),
            resource_methods: Some(ResourceMethods::FLUSH_QUEUES),
            ..StatusColumns::default()
        };
        table.modify(table.new_row_id(), &host, columns, ModifyStatusFlags::empty());
    }

    /// The status table.
    pub fn status_table(&self) -> &Arc<StatusTable> {
        &self.shared.table
    }

    /// Entry ids of messages that left the outgoing queue table, from now on. A receiver that is
    /// more than 4,096 behind misses some.
    pub fn ended(&self) -> broadcast::Receiver<EntryId> {
        self.shared.ended.subscribe()
    }

    /// Messages that reached their end, and messages that were received, since the start.
    pub fn traffic(&self) -> (u64, u64) {
        (self.shared.sent.load(Ordering::Relaxed), self.shared.received.load(Ordering::Relaxed))
    }

    /// Calls TransportNotify on the transport called `name`, or on all.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND` for an unknown name; with all transports, the error of the last one
    /// that failed when none succeeded, except that an abort needs only one that knew the message.
    pub async fn transport_notify(
        &self,
        name: Option<&str>,
        flags: TransportNotify,
        data: NotifyData<'_>,
    ) -> MapiResult<()> {
        let slots = self.shared.slots_named(name)?;
        let mut failure: Option<MapiError> = None;
        let mut success = false;
        for slot in slots {
            let answer = match slot.logon() {
                Ok(logon) => logon.transport_notify(flags, data).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(()) => success = true,
                // A transport that has the message and cannot abort it speaks for all.
                Err(error) if error.code() == MapiCode::UNABLE_TO_ABORT => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        match (success, failure) {
            (false, Some(error)) => Err(error),
            _ => self.after_abort(flags, data).await,
        }
    }

    /// What an abort by a transport means for the message in the store: cancelled, it goes
    /// (OB-15); given back, it waits for the next session, in which it meets its parked row
    /// (TN-18).
    async fn after_abort(&self, flags: TransportNotify, data: NotifyData<'_>) -> MapiResult<()> {
        let (true, NotifyData::EntryId(entry)) =
            (flags.contains(TransportNotify::ABORT_DEFERRED), data)
        else {
            return Ok(());
        };
        if flags.contains(TransportNotify::CANCEL_MESSAGE) {
            return match self.cancel(entry).await {
                Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => Ok(()),
                answer => answer,
            };
        }
        self.shared.given_back().insert(entry.clone());
        self.shared.store.set_deferred(entry, None).await
    }

    /// Flushes all transports, or one (FL-4, FL-7); returns when it is done, with
    /// `FLUSH_ASYNC_OK` at once.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`, `MAPI_E_UNKNOWN_FLAGS`, the errors of the logons.
    pub async fn flush(&self, name: Option<&str>, flags: FlushFlags) -> MapiResult<()> {
        flush::check(flags)?;
        let slots = self.shared.slots_named(name)?;
        if !flags.contains(FlushFlags::ASYNC_OK) {
            return flush::flush(&self.shared, &slots, flags).await;
        }
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = shared.ending.cancelled() => {}
                flushed = flush::flush(&shared, &slots, flags) => {
                    if let Err(error) = flushed {
                        tracing::warn!(%error, "A flush in the background failed");
                    }
                }
            }
        });
        Ok(())
    }

    /// Cancels a message for good, wherever it is (OB-15, TN-17). A SubmitMessage about it that
    /// runs is cancelled as well (TN-14).
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` when it is too late, `MAPI_E_NOT_IN_QUEUE` when it is gone;
    /// `MAPI_E_END_OF_SESSION` when the transport that has it is not logged on.
    pub async fn cancel(&self, entry: &EntryId) -> MapiResult<()> {
        // From now on no SubmitMessage for it begins; while we have the turn, nothing at all does.
        let _unwanted = self.shared.running.unwanted(entry);
        let turn = self.shared.turns.take(entry);
        tokio::pin!(turn);
        let _turn = match futures_util::poll!(turn.as_mut()) {
            Poll::Ready(turn) => turn,
            Poll::Pending => {
                self.reach_into(entry).await?;
                tokio::time::timeout(CANCEL_WAIT, turn).await.map_err(|_| {
                    let words = format!("{entry} is being handed to a transport");
                    MapiError::new(MapiCode::UNABLE_TO_ABORT, words)
                })?
            }
        };
        let store = &self.shared.store;
        self.abort_deferred(entry).await?;
        // Should this be the end, the message is handed over again, and the transport that has
        // cancelled it says so.
        store.set_deferred(entry, None).await?;
        store.abort_submit(entry).await?;
        self.shared.given_back().remove(entry);
        self.shared.ended(entry);
        Ok(())
    }

    /// Ends the call about a message that runs, as far as that can be.
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` when it tells the end of the message: that need not be waited for.
    async fn reach_into(&self, entry: &EntryId) -> MapiResult<()> {
        let row = self.shared.store.outgoing_row(entry).await?;
        if matches!(row.state, OutgoingState::Deferred { .. }) {
            self.abort_deferred(entry).await?;
        }
        self.shared.running.cancel(entry).await
    }

    /// Asks the transport that has the message, or while nobody is known to have it, every one:
    /// after a crash or a logoff one may have it all the same.
    async fn abort_deferred(&self, entry: &EntryId) -> MapiResult<()> {
        let row = self.shared.store.outgoing_row(entry).await?;
        let slots = match &row.state {
            OutgoingState::Deferred { transport } => self.shared.slots_named(Some(transport))?,
            OutgoingState::Waiting { .. } => self.shared.slots(),
        };
        let deferred = matches!(row.state, OutgoingState::Deferred { .. });
        let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
        for slot in slots {
            let logon = match slot.logon() {
                Ok(logon) => logon,
                Err(error) if deferred => return Err(error),
                Err(_) => continue,
            };
            match logon.transport_notify(flags, NotifyData::EntryId(entry)).await {
                Ok(()) => {}
                // The transport has nothing of it; the store decides.
                Err(error) if error.code() == MapiCode::NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at the whole outgoing queue table again: for changes the store does not announce,
    /// such as `entry` released from hold.
    pub fn reconsider(&self, entry: &EntryId) {
        self.shared.given_back().remove(entry);
        self.shared.reconsider();
    }

    /// Ends the session in order: flushes end, deferred messages are given back, directions end,
    /// every logon logs off, every provider shuts down (SP-5). `grace` bounds how long messages
    /// in process may take; zero is a hurry.
    ///
    /// # Errors
    /// The first error of a logoff, and the session is over all the same; `MAPI_E_END_OF_SESSION`
    /// when it was over before.
    pub async fn logoff(&self, grace: Duration) -> MapiResult<()> {
        if self.shared.ending.is_cancelled() {
            return Err(MapiCode::END_OF_SESSION.into());
        }
        logoff::run(&self.shared, &self.providers, grace).await
    }
}

impl Drop for Spooler {
    fn drop(&mut self) {
        self.shared.ending.cancel();
        self.shared.slots().iter().for_each(|slot| slot.release());
    }
}

impl Shared {
    /// The logons in transport order.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slots_named(&self, name: Option<&str>) -> MapiResult<Vec<Arc<Slot>>> {
        let mut slots = self.slots();
        if let Some(name) = name {
            slots.retain(|slot| slot.name == name);
            if slots.is_empty() {
                return Err(MapiError::new(
                    MapiCode::NOT_FOUND,
                    format!("the profile has no transport called {name}"),
                ));
            }
        }
        Ok(slots)
    }

    pub(crate) fn given_back(&self) -> MutexGuard<'_, BTreeSet<EntryId>> {
        self.given_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reconsider(&self) {
        self.reconsider.notify_one();
    }

    /// NOTIFY_READYTOSEND: what was told to wait need not wait any longer (SP-6).
    pub(crate) fn resume(&self) {
        self.resume.store(true, Ordering::SeqCst);
        self.reconsider();
    }

    /// Announces that a message left the table.
    pub(crate) fn ended(&self, entry: &EntryId) {
        // An error means that nobody listens.
        let _ = self.ended.send(entry.clone());
    }

    /// Waits until everything that waits in the outgoing queue table was offered to its transport
    /// and the calls about it have returned.
    pub(crate) async fn settled(&self) {
        let (answer, answered) = oneshot::channel();
        if self.barriers.send(answer).await.is_ok() {
            // An error means that the session has ended.
            let _ = answered.await;
        }
    }
}

/// Keeps an eye on what a logon signals beside mail: a new configuration, a critical error.
async fn watch(shared: Arc<Shared>, slot: Arc<Slot>) {
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = slot.critical_error.cancelled() => {
                slot.release();
                let columns = StatusColumns {
                    status_code: Some(StatusCode::FAILURE),
                    status_string: Some(
                        "the transport reported a critical error and was released".to_owned(),
                    ),
                    ..StatusColumns::default()
                };
                let update = ModifyStatusFlags::UPDATE;
                shared.table.modify(slot.row_id, &slot.host, columns, update);
                return;
            }
            () = slot.config_change.notified() => {
                if let Err(error) = slot.refresh_address_types().await {
                    tracing::warn!(transport = %slot.name, %error, "AddressTypes failed");
                }
                shared.reconsider();
            }
        }
    }
}

fn show_failed_logon(shared: &Shared, slot: &Slot, error: &MapiError) {
    tracing::error!(transport = %slot.name, %error, "The transport could not be logged on");
    let columns = StatusColumns {
        status_code: Some(StatusCode::FAILURE),
        status_string: Some(error.to_string()),
        ..StatusColumns::default()
    };
    shared.table.modify(slot.row_id, &slot.host, columns, ModifyStatusFlags::empty());
}
