//! The provider, the mail server it talks to, and the runtime both work on: the host has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use postoffice::{Listener, PostOffice};
use postrider::clock::SystemClock;
use postrider::mapi::{
    EndMessageFlags, LogonFlags, LogonOutFlags, MapiCode, MapiResult, SPI_VERSION,
    SubmitMessageFlags, TransportNotify,
};
use postrider::spi::{
    LogonOutcome, Message, NotifyData, ProfileSection, SecretError, SecretSource, SectionValue,
    SubmitError, XpLogon, XpProvider,
};
use postrider::spool::{FaultPoint, SledSpool, Spool, SpoolOptions};
use postrider::transport::SmtpImapProvider;
use secrecy::SecretString;
use tokio::runtime::Runtime;

use crate::foreign_host::{Host, wait};
use crate::foreign_message::HostMessage;

/// Both directions.
pub(crate) const BEGIN: TransportNotify =
    TransportNotify::BEGIN_INBOUND.union(TransportNotify::BEGIN_OUTBOUND);

/// What a test starts with.
pub(crate) struct Rig {
    pub(crate) provider: Arc<dyn XpProvider>,
    pub(crate) office: PostOffice,
    /// From now on no flush of the spool succeeds.
    pub(crate) disk_fails: Arc<AtomicBool>,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Rig {
    /// A provider that agreed on the version, a server with the users `ann` and `bea`.
    pub(crate) fn new() -> Self {
        let rig = Self::uninitialized();
        rig.provider.init(SPI_VERSION).unwrap();
        rig
    }

    /// A provider that was not spoken to yet.
    pub(crate) fn uninitialized() -> Self {
        Self::over(|spool| spool)
    }

    /// The same over a spool with another before it.
    pub(crate) fn over(before: impl FnOnce(Arc<dyn Spool>) -> Arc<dyn Spool>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let office = PostOffice::builder().user("ann", "secret").user("bea", "secret");
        let office = runtime.block_on(office.start()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), office.ca_pem()).unwrap();
        let disk_fails = Arc::new(AtomicBool::new(false));
        let fails = Arc::clone(&disk_fails);
        let fault: postrider::spool::Fault = Arc::new(move |point| match point {
            FaultPoint::Sync if fails.load(Ordering::SeqCst) => {
                Err(std::io::Error::other("the disk is broken"))
            }
            FaultPoint::Sync | FaultPoint::Apply | FaultPoint::Fold => Ok(()),
        });
        let options = SpoolOptions { fault: Some(fault), ..SpoolOptions::default() };
        let spool = SledSpool::open(&folder.path().join("spool"), options);
        let spool = before(Arc::new(spool.unwrap()));
        let provider = make_provider(&spool, &runtime);
        Rig { provider, office, disk_fails, spool, folder, runtime }
    }

    /// A new provider over the same spool, as after a restart of the host.
    pub(crate) fn another_provider(&self) -> Arc<dyn XpProvider> {
        let provider = make_provider(&self.spool, &self.runtime);
        provider.init(SPI_VERSION).unwrap();
        provider
    }

    /// What the provider works on.
    pub(crate) fn runtime(&self) -> tokio::runtime::Handle {
        self.runtime.handle().clone()
    }

    /// Does something on the server's side.
    pub(crate) fn serve<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The profile section of `ann` or `bea`. What fails is tried again by a flush only.
    pub(crate) fn section(&self, user: &str) -> ProfileSection {
        self.section_without(user, "-")
    }

    /// The same without `part` and what lies below it.
    pub(crate) fn section_without(&self, user: &str, part: &str) -> ProfileSection {
        let below = format!("{part}.");
        let mut section = ProfileSection::new();
        for (key, value) in self.settings(user) {
            if key != part && !key.starts_with(&below) {
                section.set(&key, value);
            }
        }
        section
    }

    fn settings(&self, user: &str) -> Vec<(String, SectionValue)> {
        let text = |text: &str| SectionValue::Text(text.to_owned());
        let ca_file = self.folder.path().join("ca.pem").display().to_string();
        let mut settings = vec![
            ("name".to_owned(), text(user)),
            ("identity.address".to_owned(), text(&format!("{user}@example.org"))),
            ("identity.name".to_owned(), text("A Name")),
            ("queue.retry.first".to_owned(), text("1h")),
            ("queue.retry.max".to_owned(), text("1h")),
        ];
        for (part, listener) in [("smtp", Listener::Smtps), ("imap", Listener::Imaps)] {
            let port = u64::from(self.office.port(listener));
            settings.extend([
                (format!("{part}.host"), text("localhost")),
                (format!("{part}.port"), SectionValue::Number(port)),
                (format!("{part}.ca_file"), text(&ca_file)),
                (format!("{part}.user"), text(user)),
                (format!("{part}.password"), SectionValue::Secret(Arc::new(Password))),
            ]);
        }
        settings
    }

    /// The host of a logon of `ann`.
    pub(crate) fn host(&self) -> Host {
        Host::new(self.section("ann"))
    }

    /// Logs on without further flags.
    pub(crate) fn log_on(&self, host: &Host) -> Arc<dyn XpLogon> {
        log_on(&self.provider, host, LogonFlags::NO_DIALOG).0
    }

    /// A logon of `ann` with both directions begun.
    pub(crate) fn running(&self) -> (Host, Arc<dyn XpLogon>) {
        let host = self.host();
        let logon = self.log_on(&host);
        notify(&logon, BEGIN).unwrap();
        (host, logon)
    }
}

/// The password of both users.
struct Password;

#[async_trait]
impl SecretSource for Password {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        Ok(SecretString::from("secret"))
    }
}

fn make_provider(spool: &Arc<dyn Spool>, runtime: &Runtime) -> Arc<dyn XpProvider> {
    let clock = Arc::new(SystemClock);
    SmtpImapProvider::new(Arc::clone(spool), clock, runtime.handle().clone())
}

/// TransportLogon.
pub(crate) fn try_log_on(
    provider: &Arc<dyn XpProvider>,
    host: &Host,
    flags: LogonFlags,
) -> MapiResult<LogonOutcome> {
    wait("TransportLogon", provider.transport_logon(host.support(), flags))
}

/// TransportLogon that succeeds.
pub(crate) fn log_on(
    provider: &Arc<dyn XpProvider>,
    host: &Host,
    flags: LogonFlags,
) -> (Arc<dyn XpLogon>, LogonOutFlags) {
    let outcome = try_log_on(provider, host, flags).unwrap();
    (outcome.logon, outcome.flags)
}

/// TransportNotify without data.
pub(crate) fn notify(logon: &Arc<dyn XpLogon>, flags: TransportNotify) -> MapiResult<()> {
    wait("TransportNotify", logon.transport_notify(flags, NotifyData::None))
}

/// SubmitMessage.
pub(crate) fn submit(
    logon: &Arc<dyn XpLogon>,
    flags: SubmitMessageFlags,
    message: &Arc<HostMessage>,
) -> Result<(), SubmitError> {
    let lent = Arc::clone(message) as Arc<dyn Message>;
    wait("SubmitMessage", logon.submit_message(flags, lent, &message.cell))
}

/// SubmitMessage and EndMessage.
pub(crate) fn send(
    logon: &Arc<dyn XpLogon>,
    flags: SubmitMessageFlags,
    message: &Arc<HostMessage>,
) -> EndMessageFlags {
    submit(logon, flags, message).unwrap();
    wait("EndMessage", logon.end_message(message.cell.reference())).unwrap()
}

/// Hands a message over, to be deferred.
pub(crate) fn defer(logon: &Arc<dyn XpLogon>, message: &Arc<HostMessage>) {
    let end = send(logon, SubmitMessageFlags::empty(), message);
    assert_eq!(end, EndMessageFlags::DONT_RESEND);
}

/// Waits for the end of a deferred message and hears what became of it (OB-11).
pub(crate) fn finish(host: &Host, logon: &Arc<dyn XpLogon>, message: &Arc<HostMessage>) {
    host.wait_ended(&message.entry());
    let end = send(logon, SubmitMessageFlags::BEGIN_DEFERRED, message);
    assert_eq!(end, EndMessageFlags::empty());
}

/// StartMessage with a new message; the message, saved or not.
pub(crate) fn receive(logon: &Arc<dyn XpLogon>) -> MapiResult<Arc<HostMessage>> {
    let message = HostMessage::incoming();
    let lent = Arc::clone(&message) as Arc<dyn Message>;
    wait("StartMessage", logon.start_message(lent, &message.cell)).map(|()| message)
}

/// The code of an answer.
pub(crate) fn code<T>(answer: MapiResult<T>) -> MapiCode {
    answer.map_or_else(|error| error.code(), |_| MapiCode::S_OK)
}
