//! One account: the verbs of `IXPLogon` over the outbound and the inbound half.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::calls::{BegunCall, Calls, Direction, OpenCall, Outcome};
use super::deferred;
use super::events::Gate;
use super::hub::Hub;
use super::inbound::{HandOver, Inbound, MailboxState};
use super::notify::{DirectionState, Flush, FlushStep, NotifyState, Step};
use super::occupation::Occupation;
use super::outbound::{Abort, Outbound, Taken};
use super::settings::TransportSettings;
use super::status::{Connection, Situation};
use super::status_entry::StatusEntry;
use crate::mapi::{
    EndMessageFlags, EntryId, FlushFlags, LogoffFlags, MapiCode, MapiError, MapiResult, MessageRef,
    SubmitMessageFlags, TransportNotify, ValidateFlags,
};
use crate::spi::{
    AddressTypes, Incoming, Message, MessageRefCell, NotifyData, StatusObject, SubmitError, XpLogon,
};
use crate::spool::Spool;

/// How long a message on the wire may take after an orderly TransportLogoff (LG-9).
pub(super) const LOGOFF_GRACE: Duration = Duration::from_secs(10);

/// The address type this transport takes (AT-2).
const SMTP: &str = "SMTP";

/// The halves of a logon: what the account can do at all.
#[derive(Clone, Default)]
pub(crate) struct Halves {
    /// Sending, unless the account only receives.
    pub(crate) outbound: Option<Arc<Outbound>>,
    /// Receiving, unless the account only sends.
    pub(crate) inbound: Option<Arc<Inbound>>,
}

impl Halves {
    /// What of a state means something to an account that can do this: a direction it does not
    /// have stays closed.
    pub(super) fn possible(&self, mut state: NotifyState) -> NotifyState {
        if self.outbound.is_none() {
            state.outbound = DirectionState::default();
        }
        if self.inbound.is_none() {
            state.inbound = DirectionState::default();
        }
        state
    }
}

/// Makes the halves anew by other settings.
pub(crate) type MakeHalves = Box<dyn Fn(&TransportSettings) -> Halves + Send + Sync>;

/// A logon of the SMTP/IMAP provider.
pub(crate) struct Logon {
    this: Weak<Logon>,
    pub(super) name: String,
    pub(super) spool: Arc<dyn Spool>,
    pub(super) runtime: Handle,
    pub(super) hub: Arc<Hub>,
    halves: Mutex<Halves>,
    pub(super) make_halves: MakeHalves,
    pub(super) occupation: Arc<Occupation>,
    pub(super) calls: Calls,
    ended: AtomicBool,
}

impl Logon {
    pub(crate) fn new(
        name: String,
        spool: Arc<dyn Spool>,
        runtime: Handle,
        hub: Arc<Hub>,
        halves: Halves,
        make_halves: MakeHalves,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Logon {
            this: Weak::clone(this),
            name,
            spool,
            runtime,
            hub,
            halves: Mutex::new(halves),
            make_halves,
            occupation: Arc::default(),
            calls: Calls::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Name of the transport in the profile.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was not logged off.
    pub(crate) fn is_logged_on(&self) -> bool {
        !self.ended.load(Ordering::SeqCst)
    }

    /// What is fetched, and how far.
    pub(crate) fn mailboxes(&self) -> Vec<MailboxState> {
        self.halves().inbound.map(|inbound| inbound.states()).unwrap_or_default()
    }

    /// The sending half.
    pub(crate) fn outbound(&self) -> Option<Arc<Outbound>> {
        self.halves().outbound
    }

    pub(super) fn halves(&self) -> Halves {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_halves(&self, halves: Halves) {
        let old = std::mem::replace(
            &mut *self.halves.lock().unwrap_or_else(PoisonError::into_inner),
            halves,
        );
        // Not under the lock.
        drop(old);
    }

    /// # Errors
    /// `MAPI_E_END_OF_SESSION` after the logoff; beyond recovery what that is (OB-9).
    pub(super) fn alive(&self) -> MapiResult<()> {
        if !self.is_logged_on() {
            return Err(MapiError::new(
                MapiCode::END_OF_SESSION,
                format!("the transport {} is logged off", self.name),
            ));
        }
        match self.hub.row.situation().broken {
            Some(broken) => Err(MapiError::from(&broken)),
            None => Ok(()),
        }
    }

    /// Sets flush modes and gates of both halves; never waits (TN-2). The flush first: what moves
    /// when a gate opens is the flush's already (TN-3).
    fn apply(&self, situation: &Situation, step: &Step) {
        let allowed = situation.connection == Connection::Allowed && situation.broken.is_none();
        let effective = |gate: Gate| if allowed { gate } else { Gate::Closed };
        let halves = self.halves();
        if let Some(outbound) = halves.outbound {
            match step.outbound.flush {
                FlushStep::Begin => outbound.begin_flush(),
                FlushStep::End => outbound.end_flush(),
                FlushStep::Keep => {}
            }
            if let Some(gate) = step.outbound.gate {
                outbound.set_gate(effective(gate));
            }
        }
        if let Some(inbound) = halves.inbound {
            match step.inbound.flush {
                FlushStep::Begin => inbound.begin_flush(),
                FlushStep::End => inbound.end_flush(),
                FlushStep::Keep => {}
            }
            if let Some(gate) = step.inbound.gate {
                inbound.set_gate(effective(gate));
            }
        }
    }

    /// Brings halves that are new to where the situation is.
    pub(super) fn apply_all(&self, situation: &Situation) {
        self.apply(situation, &Step::to(situation.notify));
    }

    /// The flags that mean something to this account: a direction it does not have stays closed,
    /// and without connections there is nothing to flush (LG-4).
    fn meaningful(&self, mut flags: TransportNotify) -> TransportNotify {
        let halves = self.halves();
        let online = self.hub.row.situation().connection == Connection::Allowed;
        if halves.outbound.is_none() {
            flags -= TransportNotify::BEGIN_OUTBOUND | TransportNotify::BEGIN_OUTBOUND_FLUSH;
        }
        if halves.inbound.is_none() {
            flags -= TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_INBOUND_FLUSH;
        }
        if !online {
            flags -= TransportNotify::BEGIN_OUTBOUND_FLUSH | TransportNotify::BEGIN_INBOUND_FLUSH;
        }
        flags
    }

    /// The inside of SubmitMessage.
    async fn submit(
        &self,
        begun: BegunCall<'_>,
        flags: SubmitMessageFlags,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> Result<(), SubmitError> {
        self.alive()?;
        refuse_unknown(SubmitMessageFlags::unknown_bits(flags.bits()))?;
        self.occupation.not_critical()?;
        let call = begun.name(reference);
        let Some(outbound) = self.outbound() else { return Err(MapiCode::NOT_ME.into()) };
        let outcome = if flags.contains(SubmitMessageFlags::BEGIN_DEFERRED) {
            // What is told of here has happened: no cancel undoes it (TN-14).
            let entry = entry_of(message.as_ref())?;
            deferred::report(self.spool.as_ref(), &self.hub.support, message.as_ref(), entry)
                .await?
        } else if call.cancel.is_cancelled() {
            return Err(MapiCode::CANCEL.into());
        } else {
            self.take(&outbound, &message, &call).await?
        };
        if call.keep(outcome.clone())
            && let Outcome::Deferred(entry) = &outcome
        {
            self.stop_accepted(entry).await?;
        }
        Ok(())
    }

    /// The inside of StartMessage.
    async fn start(
        &self,
        begun: BegunCall<'_>,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> MapiResult<()> {
        self.alive()?;
        let call = begun.name(reference);
        let Some(inbound) = self.halves().inbound else { return Ok(()) };
        if call.cancel.is_cancelled() {
            return Err(MapiCode::CANCEL.into());
        }
        loop {
            // Listening begins before the look, so that no arrival is missed.
            let arrival = self.hub.arrivals.notified();
            tokio::pin!(arrival);
            arrival.as_mut().enable();
            match inbound.next(Arc::clone(&message), call.cancel.clone()).await? {
                HandOver::Saved => return Ok(()),
                // In a flush "nothing" may only mean "not yet"; the flush ends by itself.
                HandOver::Nothing if self.flushing_inbound() && self.alive().is_ok() => {}
                HandOver::Nothing => return Ok(()),
            }
            tokio::select! {
                () = arrival => {}
                () = call.cancel.cancelled() => return Err(MapiCode::CANCEL.into()),
            }
        }
    }

    /// The inside of SubmitMessage for a message that is new to us.
    async fn take(
        &self,
        outbound: &Arc<Outbound>,
        message: &Arc<dyn Message>,
        call: &super::calls::NamedCall<'_>,
    ) -> Result<Outcome, SubmitError> {
        let entry = entry_of(message.as_ref())?;
        match outbound.take(entry.clone(), Arc::clone(message), call.cancel.clone()).await? {
            Taken::Deferred => Ok(Outcome::Deferred(entry)),
            Taken::Ended(history) => {
                deferred::mark_finished(message.as_ref(), &history.envelope).await?;
                Ok(Outcome::Finished)
            }
        }
    }

    fn flushing_inbound(&self) -> bool {
        self.hub.row.situation().notify.inbound.flush == Flush::On
    }

    async fn stop(&self, grace: Duration) {
        if grace.is_zero() {
            self.calls.cancel_receiving();
        }
        self.stop_halves(grace).await;
        // What they had still to say is told again at the next logon (S3).
        self.hub.row.silence();
        self.calls.cancel_receiving();
        self.hub.arrivals.notify_waiters();
    }

    /// Ends both halves.
    pub(super) async fn stop_halves(&self, grace: Duration) {
        let Halves { outbound, inbound } = self.halves();
        // On our own runtime, because the caller's may have none (see `spi`).
        let stopped = self.runtime.spawn(async move {
            let outbound = async {
                if let Some(outbound) = outbound {
                    outbound.stop(grace).await;
                }
            };
            let inbound = async {
                if let Some(inbound) = inbound {
                    inbound.stop(grace).await;
                }
            };
            tokio::join!(outbound, inbound);
        });
        if let Err(error) = stopped.await {
            tracing::error!(transport = %self.name, %error, "The logoff failed");
        }
    }
}

fn entry_of(message: &dyn Message) -> MapiResult<EntryId> {
    message.entry_id().ok_or_else(|| {
        MapiError::new(MapiCode::INVALID_PARAMETER, "the message was never saved: no entry id")
    })
}

pub(super) fn refuse_unknown(unknown: u32) -> MapiResult<()> {
    match unknown {
        0 => Ok(()),
        bits => {
            Err(MapiError::new(MapiCode::UNKNOWN_FLAGS, format!("unknown flag bits 0x{bits:X}")))
        }
    }
}

#[async_trait]
impl XpLogon for Logon {
    async fn address_types(&self) -> MapiResult<AddressTypes> {
        self.alive()?;
        let types = match self.outbound() {
            Some(_) => vec![SMTP.to_owned()],
            None => vec![String::new()],
        };
        Ok(AddressTypes::These { types, uids: Vec::new() })
    }

    async fn transport_notify(
        &self,
        flags: TransportNotify,
        data: NotifyData<'_>,
    ) -> MapiResult<()> {
        self.alive()?;
        // Whether a call is valid does not depend on the state, so this decides for good.
        let checked = self.hub.row.situation().notify.step(flags, data)?;
        if let Some(action) = checked.message {
            self.act(action).await?;
        }
        let flags = self.meaningful(flags);
        let applied = self.hub.row.update(|situation| {
            let step = situation.notify.step(flags, data)?;
            situation.notify = step.next;
            self.apply(situation, &step);
            // Also where it is open already: waiting messages start to flow (TN-8), whatever they
            // were waiting for.
            if flags.contains(TransportNotify::BEGIN_OUTBOUND)
                && let Some(outbound) = self.outbound()
            {
                outbound.try_now();
            }
            Ok(())
        });
        self.hub.arrivals.notify_waiters();
        applied
    }

    /// Begins with the call and not with the first poll of its future, so that the value 0 names
    /// it from then on (TN-15).
    fn submit_message<'life0, 'life1, 'async_trait>(
        &'life0 self,
        flags: SubmitMessageFlags,
        message: Arc<dyn Message>,
        reference: &'life1 MessageRefCell,
    ) -> Pin<Box<dyn Future<Output = Result<(), SubmitError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        let begun = self.calls.begin(Direction::Outbound);
        Box::pin(async move { self.submit(begun, flags, message, reference).await })
    }

    async fn end_message(&self, reference: MessageRef) -> MapiResult<EndMessageFlags> {
        self.alive()?;
        let Some(OpenCall { cancel, outcome, .. }) = self.calls.end(reference) else {
            return Err(MapiError::new(
                MapiCode::INVALID_PARAMETER,
                format!("no message is open under the reference {reference}"),
            ));
        };
        let outbound = self.outbound().ok_or(MapiCode::CALL_FAILED)?;
        match outcome {
            Outcome::Deferred(entry) if cancel.is_cancelled() => {
                match self.abort(&entry, Abort::Cancel).await {
                    Ok(()) => Err(MapiCode::CANCEL.into()),
                    // In doubt when it was cancelled: it has ended here all the same.
                    Err(_) if self.was_cancelled(&entry).await? => Err(MapiCode::CANCEL.into()),
                    // Past its final dot the outcome stands (TN-14).
                    Err(error) if error.code() == MapiCode::UNABLE_TO_ABORT => {
                        Ok(EndMessageFlags::DONT_RESEND)
                    }
                    Err(error) => Err(error),
                }
            }
            Outcome::Deferred(_) => Ok(EndMessageFlags::DONT_RESEND),
            Outcome::Reported(entry) => {
                outbound.settle(&entry).await?;
                Ok(EndMessageFlags::empty())
            }
            Outcome::Finished | Outcome::Running => Ok(EndMessageFlags::empty()),
        }
    }

    async fn poll(&self) -> MapiResult<Incoming> {
        self.alive()?;
        match self.halves().inbound {
            Some(inbound) => inbound.poll().await,
            None => Ok(Incoming::None),
        }
    }

    /// Begins with the call, as [`Logon::submit_message`] does; the value 1 names it.
    fn start_message<'life0, 'life1, 'async_trait>(
        &'life0 self,
        message: Arc<dyn Message>,
        reference: &'life1 MessageRefCell,
    ) -> Pin<Box<dyn Future<Output = MapiResult<()>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        let begun = self.calls.begin(Direction::Inbound);
        Box::pin(async move { self.start(begun, message, reference).await })
    }

    async fn open_status_entry(&self) -> MapiResult<Arc<dyn StatusObject>> {
        self.alive()?;
        Ok(Arc::new(StatusEntry::new(Weak::clone(&self.this))))
    }

    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()> {
        self.alive()?;
        let this = self.this.upgrade().ok_or(MapiCode::END_OF_SESSION)?;
        this.validate(flags).await
    }

    async fn flush_queues(&self, flags: FlushFlags) -> MapiResult<()> {
        self.alive()?;
        refuse_unknown(FlushFlags::unknown_bits(flags.bits()))?;
        let mut notify = TransportNotify::empty();
        notify.set(TransportNotify::BEGIN_OUTBOUND_FLUSH, flags.contains(FlushFlags::UPLOAD));
        notify.set(TransportNotify::BEGIN_INBOUND_FLUSH, flags.contains(FlushFlags::DOWNLOAD));
        self.transport_notify(notify, NotifyData::None).await
    }

    async fn idle(&self) -> MapiResult<()> {
        self.alive()
    }

    async fn transport_logoff(&self, flags: LogoffFlags) -> MapiResult<()> {
        refuse_unknown(LogoffFlags::unknown_bits(flags.bits()))?;
        if self.ended.swap(true, Ordering::SeqCst) {
            return Err(MapiCode::END_OF_SESSION.into());
        }
        let hurry = flags.contains(LogoffFlags::HURRY);
        self.stop(if hurry { Duration::ZERO } else { LOGOFF_GRACE }).await;
        Ok(())
    }
}

impl Drop for Logon {
    /// Releasing without a logoff does the same as a hurried one (LG-9).
    fn drop(&mut self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        self.hub.row.silence();
        self.calls.cancel_receiving();
        let halves = self.halves.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Halves { outbound, inbound } = std::mem::take(halves);
        self.runtime.spawn(async move {
            if let Some(outbound) = outbound {
                outbound.stop(Duration::ZERO).await;
            }
            if let Some(inbound) = inbound {
                inbound.stop(Duration::ZERO).await;
            }
        });
    }
}
