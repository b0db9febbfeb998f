//! `run`: the daemon.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::{OwnSession, Place};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::interrupt::{Interrupts, listen};
use super::listening::Listening;
use super::measuring::Measuring;
use super::submissions::Submissions;
use super::supervision::{Inherited, Supervision};
use crate::control::{ControlSocket, serve};
use crate::mapi::{MapiCode, MapiError, MapiResult};
use crate::session::Logon;

/// How long one try at the lock of the spool takes.
const LOCK_TRY: Duration = Duration::from_millis(500);

/// Reads the profile anew and says where its session is to be found.
pub(crate) type Reread<'a> = &'a (dyn Fn() -> Result<Place, Failure> + Sync);

const NOT_RELOADED: &str = "the profile was not reloaded; the daemon goes on with the old one";

/// Why the daemon stopped answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    Stop,
    Reload,
}

struct Signals {
    stop: Interrupts,
    reload: Signal,
}

impl Signals {
    async fn next(&mut self) -> Pause {
        tokio::select! {
            _ = self.stop.next() => Pause::Stop,
            _ = self.reload.recv() => Pause::Reload,
        }
    }
}

/// `run`.
pub(crate) async fn run(
    place: Place,
    console: &mut Console<'_>,
    profile: &str,
    reread: Reread<'_>,
) -> Result<(), Failure> {
    let mut signals = Signals { stop: Interrupts::new()?, reload: listen(SignalKind::hangup())? };
    let opened = tokio::select! {
        opened = open(&place) => opened,
        signal = signals.stop.next() => return Err(signal.failure()),
    };
    let mut session = opened.map_err(|error| Failure::contract("run", &error))?;
    let socket = match ControlSocket::bind(&place.socket).await {
        Ok(socket) => socket,
        Err(error) => {
            session.shutdown().await;
            return Err(socket_failure(&place, &error));
        }
    };
    let supervision = Supervision::of_process();
    let mut listening = Listening::with(Inherited::of_process());
    if let Err(failure) = listening.change(place.listen.as_ref(), console).await {
        session.shutdown().await;
        return Err(failure);
    }
    let mut submissions = Submissions::default();
    if let Err(failure) = submissions.change(place.submissions.as_deref()).await {
        session.shutdown().await;
        return Err(failure);
    }
    for address in listening.inherited.close_rest() {
        console.note(format_args!(
            "the socket of the service manager at {address} is closed: it is not listen.smtp of \
             the profile"
        ));
    }
    let mut measuring = Measuring::default();
    if let Err(failure) = measuring.change(place.metrics.as_ref(), console).await {
        session.shutdown().await;
        return Err(failure);
    }
    let mut place = place;
    loop {
        supervision.ready();
        console.note(format_args!("ready: profile {profile}, pid {}", std::process::id()));
        let mut pause = Pause::Stop;
        let pausing = CancellationToken::new();
        let paused = async {
            pause = signals.next().await;
            pausing.cancel();
        };
        tokio::join!(
            serve(&socket, session.service(), paused),
            listening.serve(session.service(), pausing.cancelled()),
            submissions.serve(session.service(), pausing.cancelled()),
            measuring.serve(session.service(), pausing.cancelled()),
            supervision.attend(session.service(), pausing.cancelled()),
        );
        if pause == Pause::Stop {
            supervision.stopping();
            drop((listening, submissions));
            // First the socket, then the spool: who finds no socket waits for the spool's lock.
            drop(socket);
            tracing::info!("stopping");
            session.shutdown().await;
            return Ok(());
        }
        supervision.reloading();
        match reread() {
            Err(failure) => {
                console.complain(&failure);
                console.note(NOT_RELOADED);
            }
            Ok(fresh) => {
                session.shutdown().await;
                session = match reopen(&fresh, &place, console).await? {
                    Reopened::Fresh(session) => {
                        place = fresh;
                        session
                    }
                    // With its ports and sockets, which are open.
                    Reopened::Old(session) => {
                        console.note(NOT_RELOADED);
                        session
                    }
                };
                if let Err(failure) = listening.change(place.listen.as_ref(), console).await {
                    console.complain(&failure);
                }
                if let Err(failure) = submissions.change(place.submissions.as_deref()).await {
                    console.complain(&failure);
                }
                if let Err(failure) = measuring.change(place.metrics.as_ref(), console).await {
                    console.complain(&failure);
                }
            }
        }
    }
}

/// The session after a reload.
enum Reopened {
    /// Of the profile as it is now.
    Fresh(Box<dyn OwnSession>),
    /// Of that of before: the new one cannot be opened.
    Old(Box<dyn OwnSession>),
}

async fn reopen(
    fresh: &Place,
    old: &Place,
    console: &mut Console<'_>,
) -> Result<Reopened, Failure> {
    match open(fresh).await {
        Ok(session) => Ok(Reopened::Fresh(session)),
        Err(error) => {
            console.complain(&Failure::contract("use the reloaded profile", &error));
            let session = open(old).await;
            let what = "go on with the old profile";
            session.map(Reopened::Old).map_err(|error| Failure::contract(what, &error))
        }
    }
}

/// Opens the session; a daemon that runs already is told apart from a command that will be done
/// in a moment.
async fn open(place: &Place) -> MapiResult<Box<dyn OwnSession>> {
    let deadline = Instant::now() + place.lock_wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match place.opener.open(Logon::Full, left.min(LOCK_TRY)).await {
            Err(error) if error.code() == MapiCode::BUSY => {
                if place.daemon().await?.is_some() {
                    let detail = "a daemon is running for this profile already";
                    return Err(MapiError::new(MapiCode::BUSY, detail));
                }
                if left.is_zero() {
                    return Err(error);
                }
                tokio::time::sleep(LOCK_TRY.min(left) / 5).await;
            }
            answer => return answer,
        }
    }
}

fn socket_failure(place: &Place, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::AddrInUse => Exit::TryAgain,
        // The path does not fit into a socket's address.
        std::io::ErrorKind::InvalidInput => Exit::Config,
        _ => Exit::Io,
    };
    let path = place.socket.display();
    Failure::new(exit, format!("cannot listen at {path}: {error}; choose a folder with --state"))
}
