//! How a command reaches the spool: through the daemon when one runs, else by opening it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::exit::Failure;
use super::interrupt::Interrupts;
use crate::control::Client;
use crate::mapi::{MapiCode, MapiError, MapiResult};
use crate::profile::{ListenProfile, MetricsProfile};
use crate::session::{FsckReport, FsckRequest, Logon, Service};

/// How long a command waits for another that has the spool.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How long one try at the lock takes; between tries the daemon is looked for again, because the
/// one that holds the lock may be a daemon that is starting.
const LOCK_TRY: Duration = Duration::from_millis(250);

/// A session of this process.
#[async_trait]
pub(crate) trait OwnSession: Send + Sync {
    /// What can be asked of it.
    fn service(&self) -> Arc<dyn Service>;

    /// Logs off and lets go of the spool, in bounded time.
    async fn shutdown(self: Box<Self>);
}

/// Opens the spool of one profile.
#[async_trait]
pub(crate) trait Opener: Send + Sync {
    /// Opens it, waiting at most `lock_wait` for another process that has it.
    ///
    /// # Errors
    /// `MAPI_E_BUSY` when another process has it.
    async fn open(&self, logon: Logon, lock_wait: Duration) -> MapiResult<Box<dyn OwnSession>>;

    /// Checks a spool that cannot be opened, for this reason.
    ///
    /// # Errors
    /// As [`fsck_unreadable`](crate::session::fsck_unreadable).
    async fn fsck_unreadable(&self, why: &str, request: FsckRequest) -> MapiResult<FsckReport>;
}

/// Where a profile's session can be found.
pub(crate) struct Place {
    /// The control socket.
    pub(crate) socket: PathBuf,
    /// Opens the spool.
    pub(crate) opener: Box<dyn Opener>,
    /// Where a daemon takes mail by SMTP.
    pub(crate) listen: Option<ListenProfile>,
    /// Where a daemon takes mail of every user.
    pub(crate) submissions: Option<PathBuf>,
    /// Where a daemon shows its metrics beside the control socket.
    pub(crate) metrics: Option<MetricsProfile>,
    /// [`LOCK_WAIT`], shorter in tests.
    pub(crate) lock_wait: Duration,
}

/// A way to the spool that was found.
pub(crate) enum Access {
    /// Through the daemon.
    Daemon(Arc<Client>),
    /// By a session of this process.
    Own(Box<dyn OwnSession>, Arc<dyn Service>),
}

impl Access {
    /// What can be asked.
    pub(crate) fn service(&self) -> &dyn Service {
        match self {
            Access::Daemon(client) => client.as_ref(),
            Access::Own(_, service) => service.as_ref(),
        }
    }

    /// The same, for who keeps it.
    pub(crate) fn shared(&self) -> Arc<dyn Service> {
        match self {
            Access::Daemon(client) => Arc::clone(client) as Arc<dyn Service>,
            Access::Own(_, service) => Arc::clone(service),
        }
    }

    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self, Access::Daemon(_))
    }

    /// Lets go of the spool.
    pub(crate) async fn end(self) {
        if let Access::Own(session, service) = self {
            drop(service);
            session.shutdown().await;
        }
    }
}

impl Place {
    /// The daemon, if one answers.
    pub(crate) async fn daemon(&self) -> MapiResult<Option<Client>> {
        match Client::connect(&self.socket).await {
            Ok(client) => Ok(Some(client)),
            Err(error) if error.code() == MapiCode::NETWORK_ERROR => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds a way: the daemon, else a session of this process with `logon`.
    pub(crate) async fn reach(&self, logon: Logon) -> MapiResult<Access> {
        let deadline = Instant::now() + self.lock_wait;
        loop {
            if let Some(client) = self.daemon().await? {
                return Ok(Access::Daemon(Arc::new(client)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.opener.open(logon, left.min(LOCK_TRY)).await {
                Ok(session) => {
                    let service = session.service();
                    return Ok(Access::Own(session, service));
                }
                Err(error) if error.code() != MapiCode::BUSY => return Err(error),
                Err(error) if left.is_zero() => {
                    let detail = match error.detail() {
                        "" => "another process has the spool; try again later".to_owned(),
                        detail => detail.to_owned(),
                    };
                    return Err(MapiError::new(MapiCode::BUSY, detail));
                }
                // An opener that does not wait itself must not be asked in a busy loop.
                Err(_) => tokio::time::sleep(LOCK_TRY.min(left) / 5).await,
            }
        }
    }

    /// Does `work` on the spool; a daemon that went away before it can have done anything is
    /// replaced once. A signal ends the work and lets go of the spool in good order.
    pub(crate) async fn with<T>(
        &self,
        what: &str,
        logon: Logon,
        mut work: impl AsyncFnMut(&Access) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut interrupts = Interrupts::new()?;
        let mut may_repeat = true;
        loop {
            let access = tokio::select! {
                access = self.reach(logon) => access,
                signal = interrupts.next() => return Err(signal.failure()),
            };
            let access = access.map_err(|error| Failure::contract(what, &error))?;
            let answer = tokio::select! {
                answer = work(&access) => answer,
                signal = interrupts.next() => Err(signal.failure()),
            };
            let was_daemon = access.is_daemon();
            access.end().await;
            match answer {
                Err(failure)
                    if failure.code == Some(MapiCode::NETWORK_ERROR)
                        && was_daemon
                        && may_repeat
                        && matches!(self.daemon().await, Ok(None)) =>
                {
                    may_repeat = false;
                }
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A place whose spool is a [`FakeService`].
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use super::*;
    use crate::control::fake::FakeService;

    /// Opens a fake and remembers it.
    pub(crate) struct FakeOpener {
        pub(crate) fake: Arc<FakeService>,
        pub(crate) events: Arc<Mutex<Vec<String>>>,
        /// How often it is busy first.
        pub(crate) busy: Mutex<u32>,
    }

    struct FakeSession {
        fake: Arc<FakeService>,
        events: Arc<Mutex<Vec<String>>>,
    }

    #[async_trait]
    impl OwnSession for FakeSession {
        fn service(&self) -> Arc<dyn Service> {
            Arc::clone(&self.fake) as Arc<dyn Service>
        }

        async fn shutdown(self: Box<Self>) {
            self.events.lock().unwrap().push("shutdown".into());
        }
    }

    #[async_trait]
    impl Opener for FakeOpener {
        async fn open(&self, logon: Logon, _: Duration) -> MapiResult<Box<dyn OwnSession>> {
            let mut busy = self.busy.lock().unwrap();
            if *busy > 0 {
                *busy -= 1;
                return Err(MapiCode::BUSY.into());
            }
            self.events.lock().unwrap().push(format!("open {logon:?}"));
            let events = Arc::clone(&self.events);
            Ok(Box::new(FakeSession { fake: Arc::clone(&self.fake), events }))
        }

        async fn fsck_unreadable(&self, _: &str, _: FsckRequest) -> MapiResult<FsckReport> {
            Err(MapiCode::NO_SUPPORT.into())
        }
    }

    /// A place without a daemon, and what happens there.
    pub(crate) struct FakePlace {
        pub(crate) place: Place,
        pub(crate) fake: Arc<FakeService>,
        pub(crate) events: Arc<Mutex<Vec<String>>>,
        pub(crate) temp: tempfile::TempDir,
    }

    pub(crate) fn place(fake: FakeService, busy: u32) -> FakePlace {
        let temp = tempfile::tempdir().unwrap();
        let (fake, events) = (Arc::new(fake), Arc::new(Mutex::new(Vec::new())));
        let opener = FakeOpener {
            fake: Arc::clone(&fake),
            events: Arc::clone(&events),
            busy: Mutex::new(busy),
        };
        let place = Place {
            socket: temp.path().join("control.sock"),
            opener: Box::new(opener),
            listen: None,
            submissions: None,
            metrics: None,
            lock_wait: Duration::from_millis(300),
        };
        FakePlace { place, fake, events, temp }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::fake::place;
    use super::*;
    use crate::cli::exit::Exit;
    use crate::control::fake::FakeService;
    use crate::control::{ControlSocket, serve};

    async fn pid(access: &Access) -> Result<(u32, bool), Failure> {
        let status = access.service().status().await;
        let status = status.map_err(|error| Failure::contract("ask", &error))?;
        Ok((status.pid, access.is_daemon()))
    }

    #[tokio::test]
    async fn without_a_daemon_the_spool_is_opened_and_let_go() {
        let at = place(FakeService::default(), 2);
        assert_eq!(at.place.with("ask", Logon::Closed, pid).await.unwrap(), (42, false));
        assert_eq!(*at.events.lock().unwrap(), ["open Closed", "shutdown"]);
    }

    #[tokio::test]
    async fn the_wait_for_the_lock_ends_with_try_again() {
        let at = place(FakeService::default(), u32::MAX);
        let failure = at.place.with("ask", Logon::None, pid).await.unwrap_err();
        assert_eq!(failure.exit, Exit::TryAgain);
        assert!(failure.line().unwrap().contains("another process has the spool"));
        assert!(at.events.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_daemon_is_asked_first() {
        let at = place(FakeService::default(), 0);
        let socket = ControlSocket::bind(&at.place.socket).await.unwrap();
        let service = Arc::new(FakeService::default());
        let asked = {
            let served = serve(&socket, service, std::future::pending());
            tokio::select! {
                () = served => unreachable!(),
                asked = at.place.with("ask", Logon::None, pid) => asked,
            }
        };
        assert_eq!(asked.unwrap(), (42, true));
        assert!(at.events.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_daemon_that_dies_in_between_is_replaced_once() {
        let at = place(FakeService::default(), 0);
        let listener = tokio::net::UnixListener::bind(&at.place.socket).unwrap();
        let path = at.place.socket.clone();
        let dying = tokio::spawn(async move {
            let accepted = listener.accept().await.unwrap();
            std::fs::remove_file(path).unwrap();
            drop((accepted, listener));
        });
        assert_eq!(at.place.with("ask", Logon::None, pid).await.unwrap(), (42, false));
        dying.await.unwrap();
        assert_eq!(*at.events.lock().unwrap(), ["open None", "shutdown"]);
    }

    #[tokio::test]
    async fn an_answer_of_the_session_is_no_reason_to_repeat() {
        let at = place(FakeService::failing(MapiCode::NETWORK_ERROR, "down"), 0);
        let failure = at.place.with("ask", Logon::Closed, pid).await.unwrap_err();
        assert_eq!(failure.code, Some(MapiCode::NETWORK_ERROR));
        assert_eq!(at.fake.calls(), ["status"]);
        drop(at.temp);
    }
}
