//! One account: the verbs of `IXPLogon` over the outbound and the inbound half.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::calls::{Calls, Direction, OpenCall, Outcome};
use super::deferred;
use super::events::Gate;
use super::hub::Hub;
use super::inbound::{HandOver, Inbound, MailboxState};
use super::notify::{Flush, FlushStep, MessageAction, Step};
use super::outbound::{Abort, Outbound, Taken};
use super::settings::TransportSettings;
use super::status::{Connection, Situation};
use super::status_entry::StatusEntry;
use crate::mapi::{
    EndMessageFlags, EntryId, FlushFlags, LogoffFlags, MapiCode, MapiError, MapiResult, MessageRef,
    SpoolerNotify, SubmitMessageFlags, TransportNotify, ValidateFlags,
};
use crate::spi::{
    AddressTypes, Incoming, Message, MessageRefCell, NotifyData, StatusObject, SubmitError, XpLogon,
};
use crate::spool::{HistoryEnd, Spool};

/// How long a message on the wire may take after an orderly TransportLogoff (LG-9).
const LOGOFF_GRACE: Duration = Duration::from_secs(10);

/// The address type this transport takes (AT-2).
const SMTP: &str = "SMTP";

/// The halves of a logon: what the account can do at all.
pub(crate) struct Halves {
    /// Sending, unless the account only receives.
    pub(crate) outbound: Option<Arc<Outbound>>,
    /// Receiving, unless the account only sends.
    pub(crate) inbound: Option<Arc<Inbound>>,
}

/// A logon of the SMTP/IMAP provider.
pub(crate) struct Logon {
    this: Weak<Logon>,
    settings: TransportSettings,
    spool: Arc<dyn Spool>,
    runtime: Handle,
    hub: Arc<Hub>,
    halves: Halves,
    calls: Calls,
    ended: AtomicBool,
}

impl Logon {
    pub(crate) fn new(
        settings: TransportSettings,
        spool: Arc<dyn Spool>,
        runtime: Handle,
        hub: Arc<Hub>,
        halves: Halves,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Logon {
            this: Weak::clone(this),
            settings,
            spool,
            runtime,
            hub,
            halves,
            calls: Calls::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Name of the transport in the profile.
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// What is fetched, and how far.
    pub(crate) fn mailboxes(&self) -> Vec<MailboxState> {
        self.halves.inbound.as_ref().map(|inbound| inbound.states()).unwrap_or_default()
    }

    /// The sending half.
    pub(crate) fn outbound(&self) -> Option<&Arc<Outbound>> {
        self.halves.outbound.as_ref()
    }

    fn alive(&self) -> MapiResult<()> {
        match self.ended.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(MapiError::new(
                MapiCode::END_OF_SESSION,
                format!("the transport {} is logged off", self.settings.name),
            )),
        }
    }

    /// Carries out the part of a TransportNotify that is about one message.
    async fn act(&self, action: MessageAction) -> MapiResult<()> {
        match action {
            MessageAction::CancelCall(reference) => {
                self.calls.cancel(reference);
                Ok(())
            }
            MessageAction::CancelDeferred(entry) => self.abort(&entry, Abort::Cancel).await,
            MessageAction::ParkDeferred(entry) => self.abort(&entry, Abort::Park).await,
        }
    }

    async fn abort(&self, entry: &EntryId, how: Abort) -> MapiResult<()> {
        let outbound = self.halves.outbound.as_ref().ok_or(MapiCode::NOT_FOUND)?;
        match outbound.abort(entry, how).await {
            Err(error) if how == Abort::Cancel && error.code() == MapiCode::NOT_FOUND => {
                self.cancelled_before(entry).await.unwrap_or(Err(error))
            }
            answer => answer,
        }
    }

    /// What to answer to a cancel of a message that has left the queue: it was sent, or it was
    /// cancelled before. `None` when this account never had it.
    async fn cancelled_before(&self, entry: &EntryId) -> Option<MapiResult<()>> {
        let history = match self.spool.history(entry).await {
            Ok(history) => history.filter(|history| history.transport == self.settings.name)?,
            Err(error) => return Some(Err(error.into())),
        };
        Some(match history.end {
            HistoryEnd::Cancelled => Ok(()),
            HistoryEnd::Finished => {
                let words = format!("{entry} was sent already");
                Err(MapiError::new(MapiCode::UNABLE_TO_ABORT, words))
            }
        })
    }

    /// Sets gates and flush modes of both halves; never waits (TN-2).
    fn apply(&self, situation: &Situation, step: &Step) {
        let allowed = situation.connection == Connection::Allowed;
        let effective = |gate: Gate| if allowed { gate } else { Gate::Closed };
        if let Some(outbound) = &self.halves.outbound {
            if let Some(gate) = step.outbound.gate {
                outbound.set_gate(effective(gate));
            }
            match step.outbound.flush {
                FlushStep::Begin => outbound.begin_flush(),
                FlushStep::End => outbound.end_flush(),
                FlushStep::Keep => {}
            }
        }
        if let Some(inbound) = &self.halves.inbound {
            if let Some(gate) = step.inbound.gate {
                inbound.set_gate(effective(gate));
            }
            match step.inbound.flush {
                FlushStep::Begin => inbound.begin_flush(),
                FlushStep::End => inbound.end_flush(),
                FlushStep::Keep => {}
            }
        }
    }

    /// The flags that mean something to this account: a direction it does not have stays closed,
    /// and without connections there is nothing to flush (LG-4).
    fn meaningful(&self, mut flags: TransportNotify) -> TransportNotify {
        let online = self.hub.row.situation().connection == Connection::Allowed;
        if self.halves.outbound.is_none() {
            flags -= TransportNotify::BEGIN_OUTBOUND | TransportNotify::BEGIN_OUTBOUND_FLUSH;
        }
        if self.halves.inbound.is_none() {
            flags -= TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_INBOUND_FLUSH;
        }
        if !online {
            flags -= TransportNotify::BEGIN_OUTBOUND_FLUSH | TransportNotify::BEGIN_INBOUND_FLUSH;
        }
        flags
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
            self.calls.cancel_all();
        }
        let (outbound, inbound) = (self.halves.outbound.clone(), self.halves.inbound.clone());
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
            tracing::error!(transport = %self.settings.name, %error, "The logoff failed");
        }
        // What they had still to say is told again at the next logon (S3).
        self.hub.row.silence();
        self.calls.cancel_all();
        self.hub.arrivals.notify_waiters();
    }
}

fn entry_of(message: &dyn Message) -> MapiResult<EntryId> {
    message.entry_id().ok_or_else(|| {
        MapiError::new(MapiCode::INVALID_PARAMETER, "the message was never saved: no entry id")
    })
}

fn refuse_unknown(unknown: u32) -> MapiResult<()> {
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
        let types = match self.halves.outbound {
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
            Ok(())
        });
        self.hub.arrivals.notify_waiters();
        applied
    }

    async fn submit_message(
        &self,
        flags: SubmitMessageFlags,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> Result<(), SubmitError> {
        self.alive()?;
        refuse_unknown(SubmitMessageFlags::unknown_bits(flags.bits()))?;
        let call = self.calls.begin(Direction::Outbound).name(reference);
        let Some(outbound) = &self.halves.outbound else { return Err(MapiCode::NOT_ME.into()) };
        let outcome = if flags.contains(SubmitMessageFlags::BEGIN_DEFERRED) {
            let entry = entry_of(message.as_ref())?;
            deferred::report(self.spool.as_ref(), &self.hub.support, message.as_ref(), entry)
                .await?
        } else {
            self.take(outbound, &message, &call).await?
        };
        call.keep(outcome);
        Ok(())
    }

    async fn end_message(&self, reference: MessageRef) -> MapiResult<EndMessageFlags> {
        self.alive()?;
        let Some(OpenCall { cancel, outcome }) = self.calls.end(reference) else {
            return Err(MapiError::new(
                MapiCode::INVALID_PARAMETER,
                format!("no message is open under the reference {reference}"),
            ));
        };
        let outbound = self.halves.outbound.as_ref().ok_or(MapiCode::CALL_FAILED)?;
        match outcome {
            Outcome::Deferred(entry) if cancel.is_cancelled() => {
                match outbound.abort(&entry, Abort::Cancel).await {
                    Ok(()) => Err(MapiCode::CANCEL.into()),
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
        match &self.halves.inbound {
            Some(inbound) => inbound.poll().await,
            None => Ok(Incoming::None),
        }
    }

    async fn start_message(
        &self,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> MapiResult<()> {
        self.alive()?;
        let call = self.calls.begin(Direction::Inbound).name(reference);
        let Some(inbound) = &self.halves.inbound else { return Ok(()) };
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

    async fn open_status_entry(&self) -> MapiResult<Arc<dyn StatusObject>> {
        self.alive()?;
        Ok(Arc::new(StatusEntry::new(Weak::clone(&self.this))))
    }

    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()> {
        self.alive()?;
        refuse_unknown(ValidateFlags::unknown_bits(flags.bits()))?;
        let headers =
            ValidateFlags::all() - ValidateFlags::SUPPRESS_UI - ValidateFlags::CONFIG_CHANGED;
        if flags.intersects(headers) {
            return Err(MapiError::new(
                MapiCode::NO_SUPPORT,
                "headers first is not offered by this transport",
            ));
        }
        if flags.contains(ValidateFlags::CONFIG_CHANGED) {
            // What kept a pause going may have been mended.
            if let Some(inbound) = &self.halves.inbound {
                inbound.hurry();
            }
            self.hub.row.notify(SpoolerNotify::CONFIG_CHANGE, None);
        }
        Ok(())
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
        self.calls.cancel_all();
        let (outbound, inbound) = (self.halves.outbound.take(), self.halves.inbound.take());
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
