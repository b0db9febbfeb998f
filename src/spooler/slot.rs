//! One logon as the spooler keeps it, and the support object the logon calls back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::guarded_logon::{GuardedLogon, LastPanic};
use super::open_calls::OpenCalls;
use super::reports;
use super::routing::RouteTarget;
use super::status_table::{HostColumns, StatusTable};
use super::{Shared, TransportService};
use crate::mapi::{
    EntryId, LogonOutFlags, MapiCode, MapiError, MapiResult, ModifyStatusFlags, SpoolerNotify,
    StatusCode,
};
use crate::spi::{
    AddressTypes, Message, ProfileSection, RecipientReport, StatusColumns, Support, XpLogon, Yield,
};

/// A logon and what the host knows of it.
pub(crate) struct Slot {
    pub(crate) name: String,
    /// The message service it belongs to (LG-8).
    pub(crate) service: String,
    pub(crate) senders: Vec<String>,
    section: Mutex<ProfileSection>,
    pub(crate) row_id: u32,
    pub(crate) host: HostColumns,
    /// From the success of TransportLogon to the release. The logon holds its support object and
    /// that this slot: only the release breaks the circle.
    logon: Mutex<Option<(Arc<dyn XpLogon>, LogonOutFlags)>>,
    types: Mutex<Option<AddressTypes>>,
    /// NOTIFY_NEWMAIL, coalesced (IB-1).
    pub(crate) new_mail: Notify,
    /// Entry ids of NOTIFY_SENTDEFERRED, in order (OB-11).
    pub(crate) sent_deferred: mpsc::UnboundedSender<EntryId>,
    /// Ends that were notified and are not recorded yet.
    pub(crate) ends: Backlog,
    /// StartMessage calls that run.
    pub(crate) starts: Backlog,
    /// SubmitMessage calls that run.
    pub(crate) submits: OpenCalls,
    /// Those of them that have come to a standstill.
    standing: Backlog,
    /// How often a StartMessage has returned: a sign of life.
    pub(crate) returns: AtomicU64,
    last_panic: Arc<LastPanic>,
    /// NOTIFY_CONFIG_CHANGE: AddressTypes is to be called again (AT-1, SP-6).
    pub(crate) config_change: Notify,
    /// How often STATUS_INBOUND_FLUSH was set: tells one flush from the next.
    pub(crate) inbound_flushes: AtomicU64,
    /// Inside NOTIFY_CRITSEC (IB-9).
    critical_section: AtomicBool,
    /// The row changes no more: a logon may have something to say while it goes.
    released: AtomicBool,
    /// Cancelled by NOTIFY_CRITICAL_ERROR: nothing is called any more but the release (SP-2).
    pub(crate) critical_error: CancellationToken,
}

impl Slot {
    pub(crate) fn new(
        service: &TransportService,
        row_id: u32,
        host: HostColumns,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<EntryId>) {
        let (sent_deferred, receiver) = mpsc::unbounded_channel();
        let slot = Slot {
            name: service.name.clone(),
            service: service.service.clone(),
            senders: service.senders.clone(),
            section: Mutex::new(service.section.clone()),
            row_id,
            host,
            logon: Mutex::new(None),
            types: Mutex::new(None),
            new_mail: Notify::new(),
            sent_deferred,
            ends: Backlog::default(),
            starts: Backlog::default(),
            submits: OpenCalls::default(),
            standing: Backlog::default(),
            returns: AtomicU64::new(0),
            last_panic: Arc::default(),
            config_change: Notify::new(),
            inbound_flushes: AtomicU64::new(0),
            critical_section: AtomicBool::new(false),
            released: AtomicBool::new(false),
            critical_error: CancellationToken::new(),
        };
        (Arc::new(slot), receiver)
    }

    pub(crate) fn set_logon(&self, logon: Arc<dyn XpLogon>, flags: LogonOutFlags) {
        *self.lock_logon() =
            Some((GuardedLogon::guard(logon, &self.name, &self.last_panic), flags));
    }

    /// The settings of the logon (LG-3).
    pub(crate) fn section(&self) -> ProfileSection {
        self.section.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the logon other settings: to be seen by the next that asks.
    pub(crate) fn set_section(&self, section: ProfileSection) {
        *self.section.lock().unwrap_or_else(PoisonError::into_inner) = section;
    }

    /// Whether a call has come to a standstill, so that the transport gets nothing more for now.
    pub(crate) fn stands_still(&self) -> bool {
        self.standing.count() > 0
    }

    /// Waits until a call has come to a standstill.
    pub(crate) async fn standstill(&self) {
        self.standing.some().await;
    }

    pub(crate) fn stand_still(&self) {
        self.standing.add();
    }

    /// One call moves again or is over; `true` when none is left.
    pub(crate) fn move_on(&self) -> bool {
        self.standing.remove();
        !self.stands_still()
    }

    /// Releases the logon (LG-1); calls that run keep it until they return.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        let released = self.lock_logon().take();
        // Not under the lock: the logon's own end may call back.
        drop(released);
    }

    fn lock_logon(&self) -> MutexGuard<'_, Option<(Arc<dyn XpLogon>, LogonOutFlags)>> {
        self.logon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The logon while it may be called.
    ///
    /// # Errors
    /// `MAPI_E_END_OF_SESSION` when it never came about, reported a critical error (SP-2) or was
    /// released.
    pub(crate) fn logon(&self) -> MapiResult<Arc<dyn XpLogon>> {
        match self.lock_logon().as_ref() {
            Some((logon, _)) if !self.critical_error.is_cancelled() => Ok(Arc::clone(logon)),
            _ => Err(MapiError::new(
                MapiCode::END_OF_SESSION,
                format!("the transport {} is not logged on", self.name),
            )),
        }
    }

    pub(crate) fn wants(&self, flag: LogonOutFlags) -> bool {
        self.lock_logon().as_ref().is_some_and(|(_, flags)| flags.contains(flag))
    }

    /// Queues the end of a deferred message to be taken up.
    pub(crate) fn deferred_ended(&self, entry: &EntryId) {
        self.ends.add();
        if self.sent_deferred.send(entry.clone()).is_err() {
            // The loop has ended with the session; the transport tells it again in the next.
            self.ends.remove();
        }
    }

    pub(crate) fn in_critical_section(&self) -> bool {
        self.critical_section.load(Ordering::SeqCst)
    }

    /// A transport that panics is in trouble, whatever its row says, until a call about a message
    /// goes well.
    pub(crate) fn show_panic(&self, table: &StatusTable) {
        if let Some(words) = self.last_panic.take() {
            table.trouble(self.row_id, Some(words));
        }
    }

    /// A call about a message went well.
    pub(crate) fn works(&self, table: &StatusTable) {
        if !self.stands_still() {
            table.trouble(self.row_id, None);
        }
    }

    /// Calls AddressTypes and keeps the answer (AT-1).
    pub(crate) async fn refresh_address_types(&self) -> MapiResult<()> {
        let types = self.logon()?.address_types().await?;
        *self.types.lock().unwrap_or_else(PoisonError::into_inner) = Some(types);
        Ok(())
    }

    pub(crate) fn route_target(&self) -> RouteTarget {
        RouteTarget {
            name: self.name.clone(),
            senders: self.senders.clone(),
            types: self.types.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// How much work of a kind is under way.
#[derive(Debug, Default)]
pub(crate) struct Backlog(watch::Sender<usize>);

impl Backlog {
    pub(crate) fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    pub(crate) fn remove(&self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }

    fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there is some.
    async fn some(&self) {
        // The sender is `self`, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Waits until there is none.
    pub(crate) async fn zero(&self) {
        // The sender is `self`, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// The support object of one slot.
pub(crate) struct SlotSupport {
    pub(crate) slot: Arc<Slot>,
    pub(crate) shared: Weak<Shared>,
}

#[async_trait]
impl Support for SlotSupport {
    fn profile_section(&self) -> ProfileSection {
        self.slot.section()
    }

    fn spooler_notify(&self, flags: SpoolerNotify, entry: Option<&EntryId>) {
        let slot = &self.slot;
        if flags.contains(SpoolerNotify::CRITSEC) {
            slot.critical_section.store(true, Ordering::SeqCst);
        }
        if flags.contains(SpoolerNotify::NONCRIT) {
            slot.critical_section.store(false, Ordering::SeqCst);
            slot.new_mail.notify_one();
        }
        if flags.contains(SpoolerNotify::NEWMAIL) {
            slot.new_mail.notify_one();
        }
        if let (true, Some(entry)) = (flags.contains(SpoolerNotify::SENTDEFERRED), entry) {
            slot.deferred_ended(entry);
        }
        if flags.contains(SpoolerNotify::CONFIG_CHANGE) {
            slot.config_change.notify_one();
        }
        if flags.contains(SpoolerNotify::CRITICAL_ERROR) {
            slot.critical_error.cancel();
        }
        if flags.contains(SpoolerNotify::READYTOSEND)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.resume();
        }
    }

    /// Go on, unless the session ends or the message is being cancelled by the user.
    async fn spooler_yield(&self, entry: Option<&EntryId>) -> Yield {
        tokio::task::yield_now().await;
        self.slot.submits.alive(entry);
        let Some(shared) = self.shared.upgrade() else { return Yield::CancelMessage };
        let unwanted = entry.is_some_and(|entry| shared.wishes.is_unwanted(entry));
        match shared.ending.is_cancelled() || unwanted {
            false => Yield::Continue,
            true => Yield::CancelMessage,
        }
    }

    fn modify_status_row(
        &self,
        columns: StatusColumns,
        flags: ModifyStatusFlags,
    ) -> MapiResult<()> {
        let shared = self.shared.upgrade().ok_or(MapiCode::END_OF_SESSION)?;
        if self.slot.released.load(Ordering::SeqCst) {
            return Err(MapiCode::END_OF_SESSION.into());
        }
        let before = shared.table.status_code(self.slot.row_id).unwrap_or_default();
        shared.table.modify(self.slot.row_id, &self.slot.host, columns, flags);
        let after = shared.table.status_code(self.slot.row_id).unwrap_or_default();
        let begun = after - before;
        if begun.intersects(StatusCode::OUTBOUND_ENABLED | StatusCode::OUTBOUND_FLUSH) {
            shared.reconsider();
        }
        if begun.contains(StatusCode::INBOUND_FLUSH) {
            self.slot.inbound_flushes.fetch_add(1, Ordering::SeqCst);
        }
        if begun.intersects(StatusCode::INBOUND_ENABLED | StatusCode::INBOUND_FLUSH) {
            self.slot.new_mail.notify_one();
        }
        Ok(())
    }

    async fn status_recips(
        &self,
        message: &dyn Message,
        attempt: u32,
        recipients: Vec<RecipientReport>,
    ) -> MapiResult<()> {
        let shared = self.shared.upgrade().ok_or(MapiCode::END_OF_SESSION)?;
        reports::deliver(shared.store.as_ref(), message, attempt, recipients).await
    }

    fn make_invalid(&self) {
        self.slot.critical_error.cancel();
    }
}
