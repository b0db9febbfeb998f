//! The factory of logons: `IXPProvider`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::events::Gate;
use super::hub::Hub;
use super::inbound::{Inbound, InboundEvents, InboundSettings, MailboxState};
use super::logon::{Halves, Logon, MakeHalves};
use super::outbound::{Outbound, OutboundEvents, OutboundSettings};
use super::settings::TransportSettings;
use super::status::{Connection, Situation, StatusRowKeeper, trouble_sentence};
use crate::clock::Clock;
use crate::mapi::{
    DeinitFlags, EntryId, LogoffFlags, LogonFlags, LogonOutFlags, MapiCode, MapiError, MapiResult,
    SPI_VERSION,
};
use crate::observe::Observer;
use crate::spi::{LogonOutcome, Support, XpLogon, XpProvider};
use crate::spool::{AccountKey, Batch, Spool, SpoolError};

/// The SMTP/IMAP transport provider: sends by SMTP over a durable queue in the spool, fetches by
/// IMAP. One serves several logons (LG-2).
pub struct SmtpImapProvider {
    spool: Arc<dyn Spool>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    observer: Observer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    logons: Vec<Weak<Logon>>,
}

impl State {
    /// Whether init was called and shutdown was not (LG-1).
    fn ready(&self) -> MapiResult<()> {
        match self.phase {
            Phase::Initialized => Ok(()),
            Phase::New => Err(MapiError::new(MapiCode::NOT_INITIALIZED, "call init first")),
            Phase::ShutDown => Err(MapiCode::END_OF_SESSION.into()),
        }
    }

    fn is_logged_on(&self, name: &str) -> bool {
        let logons = self.logons.iter().filter_map(Weak::upgrade);
        logons.into_iter().any(|logon| logon.name() == name && logon.is_logged_on())
    }
}

fn taken(name: &str) -> MapiError {
    let words = format!("a transport called {name} is logged on already");
    MapiError::new(MapiCode::FAILONEPROVIDER, words)
}

/// Where the provider stands in the order of calls (LG-1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Initialized,
    ShutDown,
}

impl SmtpImapProvider {
    /// A provider whose queue lives in `spool`. Its connections and timers run on `runtime`;
    /// its calls may be made from anywhere.
    pub fn new(spool: Arc<dyn Spool>, clock: Arc<dyn Clock>, runtime: Handle) -> Arc<Self> {
        Self::observed(spool, clock, runtime, Observer::default())
    }

    /// The same, whose attempts and troubles are told to `observer`.
    pub fn observed(
        spool: Arc<dyn Spool>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        observer: Observer,
    ) -> Arc<Self> {
        Arc::new(SmtpImapProvider { spool, clock, runtime, observer, state: Mutex::default() })
    }

    /// The mailboxes that are fetched, by name of their transport.
    pub fn mailboxes(&self) -> Vec<(String, MailboxState)> {
        self.logons()
            .iter()
            .flat_map(|logon| {
                let name = logon.name().to_owned();
                logon.mailboxes().into_iter().map(move |mailbox| (name.clone(), mailbox))
            })
            .collect()
    }

    /// Why a transport does not send just now, with the time of its next attempt; `None` when it
    /// sends, or is not one of these.
    pub(crate) fn sending_trouble(&self, transport: &str) -> Option<String> {
        let logons = self.logons();
        let logon = logons.iter().find(|logon| logon.name() == transport)?;
        logon.hub.row.situation().outbound_trouble.as_ref().map(trouble_sentence)
    }

    /// Whether the transport is logged on and sends.
    pub(crate) fn sends(&self, transport: &str) -> bool {
        self.outbound(transport).is_ok()
    }

    /// Keeps a queued message from being sent until it is released.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`, `MAPI_E_UNABLE_TO_ABORT` while it is on its way.
    pub async fn hold(&self, transport: &str, entry: &EntryId) -> MapiResult<()> {
        self.outbound(transport)?.hold(entry).await
    }

    /// Makes a held message due now.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`.
    pub async fn release(&self, transport: &str, entry: &EntryId) -> MapiResult<()> {
        self.outbound(transport)?.release(entry).await
    }

    /// Makes a queued message, or with `None` every one that waits for its time, due now, and
    /// says how many.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`.
    pub async fn retry(&self, transport: &str, entry: Option<&EntryId>) -> MapiResult<u64> {
        self.outbound(transport)?.retry(entry).await
    }

    /// Sees a flush through that ended before all messages were handed over: each is tried once.
    pub(crate) async fn see_flush_through(&self, transport: &str) {
        if let Ok(outbound) = self.outbound(transport) {
            outbound.see_flush_through().await;
        }
    }

    fn outbound(&self, transport: &str) -> MapiResult<Arc<Outbound>> {
        self.logons()
            .iter()
            .filter(|logon| logon.name() == transport)
            .find_map(|logon| logon.outbound())
            .ok_or_else(|| {
                MapiError::new(
                    MapiCode::NOT_INITIALIZED,
                    format!("the transport {transport} is not logged on"),
                )
            })
    }

    fn logons(&self) -> Vec<Arc<Logon>> {
        self.lock().logons.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a logon that this provider cannot serve, though its service may be fine (LG-8): a
    /// second one over the same queue, and any over a spool that is lost.
    async fn usable(&self, name: &str) -> MapiResult<()> {
        let unusable = |words: String| Err(MapiError::new(MapiCode::FAILONEPROVIDER, words));
        if self.lock().is_logged_on(name) {
            return Err(taken(name));
        }
        let (spool, account) = (Arc::clone(&self.spool), AccountKey::of(name));
        let asked = self.runtime.spawn(async move {
            spool.done_page(account, None, 1).await?;
            // Changes nothing; a spool that takes nothing any more says so.
            spool.commit(Batch::new()).await.map(drop)
        });
        match asked.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SpoolError::DiskFull { .. })) => Ok(()),
            Ok(Err(error)) => unusable(error.to_string()),
            Err(error) => unusable(format!("the spool: {error}")),
        }
    }

    /// What makes the halves of a logon, now and by other settings later.
    fn maker(&self, hub: &Arc<Hub>) -> MakeHalves {
        let (spool, clock) = (Arc::clone(&self.spool), Arc::clone(&self.clock));
        let (runtime, hub) = (self.runtime.clone(), Arc::clone(hub));
        Box::new(move |settings| {
            let outbound = settings.smtp.clone().map(|smtp| {
                Outbound::start(
                    OutboundSettings::new(
                        &settings.name,
                        settings.identity.clone(),
                        smtp,
                        settings.queue,
                    ),
                    Arc::clone(&spool),
                    Arc::clone(&clock),
                    runtime.clone(),
                    Arc::clone(&hub) as Arc<dyn OutboundEvents>,
                )
            });
            let inbound = settings.imap.clone().map(|imap| {
                Inbound::start(
                    InboundSettings::new(&settings.name, imap),
                    Arc::clone(&spool),
                    Arc::clone(&clock),
                    runtime.clone(),
                    Arc::clone(&hub) as Arc<dyn InboundEvents>,
                )
            });
            if let Some(outbound) = &outbound {
                outbound.set_gate(Gate::Closed);
            }
            Halves { outbound, inbound }
        })
    }
}

#[async_trait]
impl XpProvider for SmtpImapProvider {
    fn init(&self, host_version: u32) -> MapiResult<u32> {
        if host_version < SPI_VERSION {
            return Err(MapiError::new(
                MapiCode::VERSION,
                format!(
                    "the host speaks version 0x{host_version:08X}, 0x{SPI_VERSION:08X} is needed"
                ),
            ));
        }
        let mut state = self.lock();
        match state.phase {
            Phase::ShutDown => Err(MapiCode::END_OF_SESSION.into()),
            Phase::New | Phase::Initialized => {
                state.phase = Phase::Initialized;
                Ok(SPI_VERSION)
            }
        }
    }

    async fn transport_logon(
        &self,
        support: Arc<dyn Support>,
        flags: LogonFlags,
    ) -> MapiResult<LogonOutcome> {
        self.lock().ready()?;
        let unknown = LogonFlags::unknown_bits(flags.bits());
        if unknown != 0 {
            return Err(MapiError::new(
                MapiCode::UNKNOWN_FLAGS,
                format!("unknown TransportLogon bits 0x{unknown:X}"),
            ));
        }
        // Nothing is ever asked of the user, so LOGON_NO_DIALOG changes nothing (LG-6); both
        // directions start closed, with or without LOGON_NO_INBOUND and _OUTBOUND (LG-5).
        let settings = TransportSettings::from_section(&support.profile_section())?;
        let situation = Situation {
            connection: match flags.contains(LogonFlags::NO_CONNECT) {
                true => Connection::Offline,
                false => Connection::Allowed,
            },
            ..Situation::default()
        };
        self.usable(&settings.name).await?;
        let (name, identity) = (settings.name.clone(), &settings.identity);
        let row = StatusRowKeeper::create(Arc::clone(&support), &name, identity, situation);
        let hub = Hub::new(support, row, &name, self.observer.clone());
        let make_halves = self.maker(&hub);
        let halves = make_halves(&settings);
        hub.attach(&halves);
        let mut out = LogonOutFlags::empty();
        if let Some(inbound) = &halves.inbound {
            out.set(LogonOutFlags::SP_POLL, !inbound.push_expected());
        }
        let (spool, runtime) = (Arc::clone(&self.spool), self.runtime.clone());
        let logon = Logon::new(name, spool, runtime, hub, halves, make_halves);
        let mut state = self.lock();
        // A shutdown that came meanwhile has not seen this logon.
        state.ready()?;
        state.logons.retain(|logon| logon.strong_count() > 0);
        if state.is_logged_on(logon.name()) {
            return Err(taken(logon.name()));
        }
        state.logons.push(Arc::downgrade(&logon));
        drop(state);
        Ok(LogonOutcome { logon, flags: out })
    }

    async fn shutdown(&self, flags: DeinitFlags) -> MapiResult<()> {
        let unknown = DeinitFlags::unknown_bits(flags.bits());
        if unknown != 0 {
            return Err(MapiError::new(
                MapiCode::UNKNOWN_FLAGS,
                format!("unknown Shutdown bits 0x{unknown:X}"),
            ));
        }
        let logons = {
            let mut state = self.lock();
            state.ready()?;
            state.phase = Phase::ShutDown;
            std::mem::take(&mut state.logons)
        };
        let how = match flags.contains(DeinitFlags::HURRY) {
            true => LogoffFlags::HURRY,
            false => LogoffFlags::NORMAL,
        };
        for logon in logons.iter().filter_map(Weak::upgrade) {
            match logon.transport_logoff(how).await {
                Ok(()) => {}
                Err(error) if error.code() == MapiCode::END_OF_SESSION => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
