//! The MAPI host: it logs transports on, hands them the Outbox, takes what they fetch, flushes
//! them, keeps the status table and makes the reports (spec section 10).
//!
//! It knows transports and the store only through [`spi`](crate::spi).

mod abort;
mod attempt;
mod attendance;
mod calling_order;
mod cancel;
mod deferred;
mod expired;
mod flush;
mod guarded_logon;
mod logoff;
mod open_calls;
mod reception;
mod recipient_rows;
mod reports;
mod routed_message;
mod routing;
mod services;
mod signals;
mod slot;
mod status_object;
mod status_table;
mod submission;
mod submit_call;
mod turns;
mod wishes;

pub use services::TransportService;
pub(crate) use status_table::stopped_row;
pub use status_table::{StatusChange, StatusSubscription, StatusTable};

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::mapi::{
    EntryId, FlushFlags, LogonFlags, MapiCode, MapiError, MapiResult, ModifyStatusFlags,
    ResourceFlags, StatusCode, TransportNotify, ValidateFlags,
};
use crate::spi::{
    MessageStore, NotifyData, ProfileSection, StatusColumns, StatusObject, StatusRowKind,
    XpProvider,
};
use slot::Slot;
use status_table::HostColumns;
use turns::Turns;
use wishes::Wishes;

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
    pub(crate) wishes: Wishes,
    /// Answered once everything that waits in the outgoing queue table has been looked at.
    barriers: mpsc::Sender<oneshot::Sender<()>>,
    /// Messages that a transport gave back (TN-18); not handed over again in this session.
    given_back: Mutex<BTreeSet<EntryId>>,
    /// Entry ids of messages that left the table.
    ended: broadcast::Sender<EntryId>,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) ending: CancellationToken,
    /// Drops what has not ended in its time.
    pub(crate) abandoned: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Messages handed to transports, or taken back from them, at the same time.
const AT_ONCE: usize = 128;

impl Spooler {
    /// Starts a session: logs every service on, in transport order, and starts the loops. A
    /// service that cannot be logged on shows why in its status row; the others go on. Of a
    /// service with several transports all fail with one that fails, except by
    /// `MAPI_E_FAILONEPROVIDER`; when `MAPI_E_UNCONFIGURED` is the reason, the service's
    /// configuration entry, if it has one, is called and the logon tried once more (LG-8).
    /// Needs a tokio runtime with its timer.
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
            wishes: Wishes::default(),
            barriers,
            given_back: Mutex::default(),
            ended: broadcast::Sender::new(4096),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            ending: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let mut spooler = Spooler { shared, providers: Vec::new() };
        services::log_on(&spooler.shared, &mut spooler.providers, services).await?;
        let shared = &spooler.shared;
        shared.spawn(submission::run(Arc::clone(shared), barrier_requests));
        spooler.add_own_row();
        Ok(spooler)
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
            resource_methods: Some(status_object::METHODS),
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
        let call = |slot: Arc<Slot>| async move {
            match slot.logon() {
                Ok(logon) => logon.transport_notify(flags, data).await,
                Err(error) => Err(error),
            }
        };
        let abort = flags.contains(TransportNotify::ABORT_DEFERRED);
        let mut answers = Vec::new();
        if abort {
            // One after the other: a transport that has the message and cannot abort it speaks
            // for all.
            for slot in slots {
                answers.push(call(slot).await);
                if answers.last().is_some_and(is_unable) {
                    break;
                }
            }
        } else {
            answers = join_all(slots.into_iter().map(call)).await;
        }
        let mut failure: Option<MapiError> = None;
        let mut success = false;
        for answer in answers {
            match answer {
                Err(error) if abort && error.code() == MapiCode::UNABLE_TO_ABORT => {
                    return Err(error);
                }
                Ok(()) => success = true,
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
        flush_slots(&self.shared, slots, flags).await
    }

    /// The object behind the row with this entry id: of a transport, or the spooler's own, which
    /// flushes all of them or one (ST-6, FL-7).
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND` when no row has this entry id; `MAPI_E_END_OF_SESSION` for a transport
    /// that is not logged on; `MAPI_E_NO_SUPPORT` for one without a status object.
    pub async fn open_status_entry(&self, entry: &EntryId) -> MapiResult<Arc<dyn StatusObject>> {
        status_object::open(&self.shared, entry).await
    }

    /// Gives the transport called `name` other settings and has it take them up
    /// (`ValidateState(CONFIG_CHANGED)`, ST-7).
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND` for an unknown name; `MAPI_E_BUSY` while it is in a critical section,
    /// `MAPI_E_UNCONFIGURED` for settings that make no sense: it then goes on with the old ones.
    pub async fn reconfigure(&self, name: &str, section: ProfileSection) -> MapiResult<()> {
        for slot in self.shared.slots_named(Some(name))? {
            let logon = slot.logon()?;
            let before = slot.section();
            slot.set_section(section.clone());
            if let Err(error) = logon.validate_state(ValidateFlags::CONFIG_CHANGED).await {
                slot.set_section(before);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Opens a closed direction of one transport and flushes it with the same step (TN-3), so
    /// that each message is tried once. What was handed over behind the flush may still be on its
    /// way when this returns; the direction stays open.
    ///
    /// # Errors
    /// `MAPI_E_NOT_FOUND`, `MAPI_E_END_OF_SESSION` when it is not logged on, the logon's own.
    pub async fn open_and_flush(&self, name: &str, direction: FlushFlags) -> MapiResult<()> {
        let slots = self.shared.slots_named(Some(name))?;
        let upload = direction.contains(FlushFlags::UPLOAD);
        for slot in &slots {
            flush::open_and_flush(&self.shared, slot, upload).await?;
        }
        Ok(())
    }

    /// Waits until every end that the transport has told of has left the table.
    pub async fn ends_taken_up(&self, name: &str) {
        for slot in self.shared.slots_named(Some(name)).unwrap_or_default() {
            tokio::select! {
                () = slot.ends.zero() => {}
                () = slot.critical_error.cancelled() => {}
                () = self.shared.ending.cancelled() => {}
            }
        }
    }

    /// Looks at the whole outgoing queue table again: for changes the store does not announce,
    /// such as `entry` released from hold.
    pub fn reconsider(&self, entry: &EntryId) {
        self.shared.given_back().remove(entry);
        self.shared.reconsider();
    }

    /// Hands a message over at once that waits for a time its transport named (SP-3).
    pub fn retry(&self, entry: &EntryId) {
        self.shared.given_back().remove(entry);
        self.shared.resume();
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
        self.shared.abandoned.cancel();
        self.shared.slots().iter().for_each(|slot| slot.release());
    }
}

impl Shared {
    /// The logons in transport order.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add_slot(&self, slot: Arc<Slot>) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    /// Starts a task of the session. It is dropped where it is when the session cannot wait for
    /// it any longer.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let abandoned = self.abandoned.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = abandoned.cancelled() => {}
            }
        });
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
    /// and the calls about it have returned, but for those that have come to a standstill.
    pub(crate) async fn settled(&self) {
        let (answer, answered) = oneshot::channel();
        if self.barriers.send(answer).await.is_ok() {
            // An error means that the session has ended.
            let _ = answered.await;
        }
    }
}

fn is_unable(answer: &MapiResult<()>) -> bool {
    matches!(answer, Err(error) if error.code() == MapiCode::UNABLE_TO_ABORT)
}

/// Flushes logons; with `FLUSH_ASYNC_OK` in the background (FL-7).
async fn flush_slots(
    shared: &Arc<Shared>,
    slots: Vec<Arc<Slot>>,
    flags: FlushFlags,
) -> MapiResult<()> {
    if !flags.contains(FlushFlags::ASYNC_OK) {
        return flush::flush(shared, &slots, flags).await;
    }
    let task_shared = Arc::clone(shared);
    shared.spawn(async move {
        tokio::select! {
            () = task_shared.ending.cancelled() => {}
            flushed = flush::flush(&task_shared, &slots, flags) => {
                if let Err(error) = flushed {
                    tracing::warn!(%error, "A flush in the background failed");
                }
            }
        }
    });
    Ok(())
}
