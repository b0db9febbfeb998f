//! How a session is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::mapi::{LogonFlags, TransportNotify};
use crate::observe::Observer;
use crate::spi::ServiceEntry;
use crate::spool::SpoolOptions;
use crate::spooler::TransportService;

/// Whether and how the transports of a profile are logged on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logon {
    /// Not at all: messages can be submitted and the queue looked at.
    None,
    /// Without connections (LOGON_NO_CONNECT): the queue can be changed as well.
    Offline,
    /// With both directions closed until a flush or a TransportNotify opens them.
    Closed,
    /// With both directions open.
    #[default]
    Full,
}

impl Logon {
    pub(crate) fn flags(self) -> LogonFlags {
        let closed = LogonFlags::NO_INBOUND | LogonFlags::NO_OUTBOUND;
        LogonFlags::NO_DIALOG
            | match self {
                Logon::None | Logon::Offline => closed | LogonFlags::NO_CONNECT,
                Logon::Closed => closed,
                Logon::Full => LogonFlags::empty(),
            }
    }

    /// What every transport is told right after its logon.
    pub(crate) fn begin(self) -> TransportNotify {
        match self {
            Logon::None | Logon::Offline | Logon::Closed => TransportNotify::empty(),
            Logon::Full => TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_OUTBOUND,
        }
    }
}

/// Options of [`Session::open`](super::Session::open).
#[derive(Clone)]
pub struct SessionOptions {
    /// Folder of the profile's spool; made if it is missing.
    pub state_folder: PathBuf,
    /// Whether and how transports are logged on. Default: with both directions open.
    pub logon: Logon,
    /// How long to wait for another process that has the spool. Default: 10 seconds.
    pub lock_wait: Duration,
    /// Where the time comes from. Default: the machine's clock.
    pub clock: Arc<dyn Clock>,
    /// Transports of other providers, logged on behind those of the profile and in this order
    /// (AT-3). Default: none.
    pub transports: Vec<TransportService>,
    /// How the spool is opened, but for its `lock_wait`, which is that of these options. Default:
    /// as [`SpoolOptions`] says.
    pub spool: SpoolOptions,
    /// Called when the logon of one of the profile's transports answers `MAPI_E_UNCONFIGURED`;
    /// it may supply what is missing, and the logon is tried once more (LG-8). Default: none, the
    /// error shows in the status row.
    pub configuration: Option<Arc<dyn ServiceEntry>>,
    /// Who sees what happens: its counters go on from one session to the next. Default: a new one.
    pub observer: Observer,
}

impl SessionOptions {
    /// The defaults, with the spool in `state_folder`.
    pub fn new(state_folder: impl Into<PathBuf>) -> Self {
        SessionOptions {
            state_folder: state_folder.into(),
            logon: Logon::default(),
            lock_wait: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
            transports: Vec::new(),
            spool: SpoolOptions::default(),
            configuration: None,
            observer: Observer::default(),
        }
    }

    /// The same with another way to log on.
    #[must_use]
    pub fn logon(mut self, logon: Logon) -> Self {
        self.logon = logon;
        self
    }

    /// The same with a configuration entry for the profile's transports (LG-8).
    #[must_use]
    pub fn configuration(mut self, entry: Arc<dyn ServiceEntry>) -> Self {
        self.configuration = Some(entry);
        self
    }

    /// The same with one more transport of another provider behind those of the profile: how a
    /// transport for another address type joins a session. Its name must not be one of the
    /// profile's.
    #[must_use]
    pub fn transport(mut self, service: TransportService) -> Self {
        self.transports.push(service);
        self
    }
}
