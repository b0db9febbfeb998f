//! Logging the transports of a profile on, service by service (LG-1, LG-8).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::guarded_logon::{bounded, panicked};
use super::slot::{Slot, SlotSupport};
use super::status_table::HostColumns;
use super::{Shared, deferred, reception, signals};
use crate::mapi::{
    EntryId, LogoffFlags, MapiCode, MapiError, MapiResult, ModifyStatusFlags, ResourceFlags,
    SPI_VERSION, StatusCode,
};
use crate::spi::{
    AddressTypes, LogonOutcome, NotifyData, ProfileSection, ServiceEntry, StatusColumns, StatusRow,
    StatusRowKind, XpProvider,
};

/// How long a TransportLogon may take; it needs no connection.
const LOGON_LIMIT: Duration = Duration::from_secs(60);

/// A transport of the profile, to be logged on.
#[derive(Clone)]
pub struct TransportService {
    /// Name in the profile; unique in a session.
    pub name: String,
    /// Its provider; one provider may serve several services (LG-2).
    pub provider: Arc<dyn XpProvider>,
    /// Name of the provider, for people (`PR_PROVIDER_DLL_NAME`).
    pub provider_name: String,
    /// Settings of the logon.
    pub section: ProfileSection,
    /// Addresses that choose this transport as senders.
    pub senders: Vec<String>,
    /// The message service it belongs to. Transports with the same service are logged on and
    /// fail together, but for `MAPI_E_FAILONEPROVIDER` (LG-8). Default: a service of its own.
    pub service: String,
    /// Called when the logon answers `MAPI_E_UNCONFIGURED`, which is then tried once more.
    /// Default: none, the error is shown (LG-8).
    pub configuration: Option<Arc<dyn ServiceEntry>>,
}

impl TransportService {
    /// A transport with a service of its own, an empty section, and no senders.
    pub fn new(name: impl Into<String>, provider: Arc<dyn XpProvider>) -> Self {
        let name = name.into();
        TransportService {
            service: name.clone(),
            provider_name: name.clone(),
            name,
            provider,
            section: ProfileSection::new(),
            senders: Vec::new(),
            configuration: None,
        }
    }

    /// The same with these settings of the logon.
    #[must_use]
    pub fn section(mut self, section: ProfileSection) -> Self {
        self.section = section;
        self
    }

    /// The same with another name of the provider.
    #[must_use]
    pub fn provider_name(mut self, name: impl Into<String>) -> Self {
        self.provider_name = name.into();
        self
    }

    /// The same with one more address that chooses it as a sender.
    #[must_use]
    pub fn sender(mut self, address: impl Into<String>) -> Self {
        self.senders.push(address.into());
        self
    }

    /// The same as a part of a message service (LG-8).
    #[must_use]
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// The same with a configuration entry (LG-8).
    #[must_use]
    pub fn configuration(mut self, entry: Arc<dyn ServiceEntry>) -> Self {
        self.configuration = Some(entry);
        self
    }
}

/// The ends of deferred messages, for the loop of the logon.
type Ends = mpsc::UnboundedReceiver<EntryId>;

/// Logs every service on, in transport order, and starts the loops of those that made it. What
/// fails shows in its status row.
///
/// # Errors
/// `MAPI_E_VERSION` when a provider speaks another version of the interface (LG-2).
pub(crate) async fn log_on(
    shared: &Arc<Shared>,
    providers: &mut Vec<Arc<dyn XpProvider>>,
    services: Vec<TransportService>,
) -> MapiResult<()> {
    let mut logged_on: Vec<(Arc<Slot>, Ends)> = Vec::new();
    let mut lost: BTreeMap<String, String> = BTreeMap::new();
    for service in services {
        let (slot, ends) = add_slot(shared, &service);
        if let Some(why) = lost.get(&service.service) {
            show_failure(shared, &slot, why);
            continue;
        }
        let answer = match init(providers, &service) {
            Err(error) if error.code() == MapiCode::VERSION => return Err(error),
            Err(error) => Err(error),
            Ok(()) => log_on_one(shared, &slot, &service).await,
        };
        match answer {
            Ok(()) => logged_on.push((slot, ends)),
            Err(error) => {
                report(&slot, &error);
                log_off(&slot).await;
                show_failure(shared, &slot, &error.to_string());
                if error.code() != MapiCode::FAILONEPROVIDER {
                    let why = format!("its service {} failed: {error}", service.service);
                    take_down(shared, &mut logged_on, &service.service, &why).await;
                    lost.insert(service.service, why);
                }
            }
        }
    }
    for (slot, ends) in logged_on {
        begin(shared, slot, ends).await;
    }
    show_ranks(shared);
    Ok(())
}

fn add_slot(shared: &Shared, service: &TransportService) -> (Arc<Slot>, Ends) {
    let host = HostColumns {
        kind: StatusRowKind::Transport,
        provider: service.provider_name.clone(),
        resource_flags: ResourceFlags::empty(),
        display_name: service.name.clone(),
    };
    let (slot, ends) = Slot::new(service, shared.table.new_row_id(), host);
    shared.add_slot(Arc::clone(&slot));
    (slot, ends)
}

/// The first call to a provider (LG-1, LG-2).
fn init(providers: &mut Vec<Arc<dyn XpProvider>>, service: &TransportService) -> MapiResult<()> {
    if providers.iter().any(|known| Arc::ptr_eq(known, &service.provider)) {
        return Ok(());
    }
    let provider = &service.provider;
    std::panic::catch_unwind(AssertUnwindSafe(|| provider.init(SPI_VERSION)))
        .unwrap_or_else(|panic| Err(panicked(&service.name, "XPProviderInit", panic.as_ref())))?;
    providers.push(Arc::clone(provider));
    Ok(())
}

/// TransportLogon, a second time when the service's configuration entry has supplied what was
/// missing (LG-8), and AddressTypes right behind (AT-1).
async fn log_on_one(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    service: &TransportService,
) -> MapiResult<()> {
    let mut answer = try_log_on(shared, slot, service).await;
    if let (Err(error), Some(entry)) = (&answer, &service.configuration)
        && error.code() == MapiCode::UNCONFIGURED
    {
        tracing::info!(transport = %slot.name, %error, "The configuration entry is called");
        slot.set_section(entry.configure(&slot.name, slot.section(), error).await?);
        answer = try_log_on(shared, slot, service).await;
    }
    let LogonOutcome { logon, flags } = answer?;
    slot.set_logon(logon, flags);
    slot.refresh_address_types().await
}

async fn try_log_on(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    service: &TransportService,
) -> MapiResult<LogonOutcome> {
    let support = Arc::new(SlotSupport { slot: Arc::clone(slot), shared: Arc::downgrade(shared) });
    bounded(&slot.name, "TransportLogon", LOGON_LIMIT, async {
        service.provider.transport_logon(support, shared.options.logon).await
    })
    .await
}

/// Opens the directions and starts the loops.
async fn begin(shared: &Arc<Shared>, slot: Arc<Slot>, ends: Ends) {
    let begun = match slot.logon() {
        Ok(logon) => logon.transport_notify(shared.options.begin, NotifyData::None).await,
        Err(error) => Err(error),
    };
    // A critical error in between is the watcher's to show.
    if let Err(error) = begun
        && !slot.critical_error.is_cancelled()
    {
        report(&slot, &error);
        log_off(&slot).await;
        return show_failure(shared, &slot, &error.to_string());
    }
    shared.spawn(deferred::run(Arc::clone(shared), Arc::clone(&slot), ends));
    shared.spawn(reception::run(Arc::clone(shared), Arc::clone(&slot)));
    shared.spawn(signals::watch(Arc::clone(shared), slot));
}

/// A provider failed, and not for itself alone: the others of its service go as well (LG-8).
async fn take_down(
    shared: &Shared,
    logged_on: &mut Vec<(Arc<Slot>, Ends)>,
    service: &str,
    why: &str,
) {
    for (slot, _) in logged_on.extract_if(.., |(slot, _)| slot.service == service) {
        log_off(&slot).await;
        show_failure(shared, &slot, why);
    }
}

async fn log_off(slot: &Slot) {
    if let Ok(logon) = slot.logon()
        && let Err(error) = logon.transport_logoff(LogoffFlags::NORMAL).await
    {
        tracing::warn!(transport = %slot.name, %error, "The logoff failed");
    }
    slot.release();
}

fn report(slot: &Slot, error: &MapiError) {
    match error.code() {
        // Nothing is broken.
        MapiCode::USER_CANCEL => tracing::info!(transport = %slot.name, "Not logged on: {error}"),
        _ => tracing::error!(transport = %slot.name, %error, "The transport is not logged on"),
    }
}

fn show_failure(shared: &Shared, slot: &Slot, words: &str) {
    let columns = StatusColumns {
        status_code: Some(StatusCode::FAILURE),
        status_string: Some(words.to_owned()),
        ..StatusColumns::default()
    };
    shared.table.modify(slot.row_id, &slot.host, columns, ModifyStatusFlags::empty());
}

/// `PR_RESOURCE_FLAGS` of all rows: which transport sends what nobody else claims, which comes
/// last, and whose identity is the session's.
pub(crate) fn show_ranks(shared: &Shared) {
    let rows = shared.table.rows();
    let (mut sender, mut identity) = (None, None);
    for slot in shared.slots() {
        let Some(row) = rows.iter().find(|row| row.row_id == slot.row_id) else { continue };
        let target = slot.route_target();
        let mut flags = ResourceFlags::empty();
        if target.types == Some(AddressTypes::Any) {
            flags |= ResourceFlags::XP_PREFER_LAST;
        }
        if sends(&target.types) && sender.is_none() {
            sender = Some(slot.row_id);
            flags |= ResourceFlags::DEFAULT_OUTBOUND;
        }
        flags |= match (has_identity(row), identity) {
            (false, _) => ResourceFlags::NO_PRIMARY_IDENTITY,
            (true, Some(_)) => ResourceFlags::empty(),
            (true, None) => {
                identity = Some(slot.row_id);
                ResourceFlags::PRIMARY_IDENTITY
            }
        };
        shared.table.resource_flags(slot.row_id, flags);
    }
}

/// Whether a transport that is logged on takes anything at all (AT-4).
fn sends(types: &Option<AddressTypes>) -> bool {
    match types {
        Some(AddressTypes::Any) => true,
        Some(AddressTypes::These { types, uids }) => {
            !uids.is_empty() || types.iter().any(|kind| !kind.is_empty())
        }
        None => false,
    }
}

fn has_identity(row: &StatusRow) -> bool {
    !row.identity_display.is_empty()
}
