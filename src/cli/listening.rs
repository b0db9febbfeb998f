//! The daemon's port for SMTP, as the profile has it.

use std::io;
use std::sync::Arc;

use super::console::Console;
use super::exit::{Exit, Failure};
use super::supervision::Inherited;
use crate::clock::SystemClock;
use crate::listener::{ListenAddress, ListenLogin, ListenSettings, Listener, Reach, serve};
use crate::profile::{ListenPlace, ListenProfile};
use crate::session::Service;

/// What the daemon listens at; often nothing.
pub(crate) struct Listening {
    open: Option<(Listener, ListenProfile)>,
    /// Sockets of the service manager that nobody has taken yet.
    pub(crate) inherited: Inherited,
}

impl Listening {
    /// Listens nowhere yet, and has these sockets at hand.
    pub(crate) fn with(inherited: Inherited) -> Self {
        Listening { open: None, inherited }
    }

    /// Opens the port of the profile, if it has one. What `self` has open is kept when it is the
    /// same, so that a reload turns nobody away.
    pub(crate) async fn change(
        &mut self,
        wanted: Option<&ListenProfile>,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let Some(wanted) = wanted else {
            self.open = None;
            return Ok(());
        };
        match &mut self.open {
            Some((_, profile)) if is_same_place(profile, wanted) => *profile = wanted.clone(),
            _ => {
                // The same place with another reach: it has to be given up first.
                if self.open.as_ref().is_some_and(|(_, profile)| profile.smtp == wanted.smtp) {
                    self.open = None;
                }
                let (address, inherited) = match &wanted.smtp {
                    ListenPlace::Tcp(address) => {
                        (ListenAddress::Tcp(*address), self.inherited.take(*address))
                    }
                    ListenPlace::Unix(path) => (ListenAddress::Unix(path.clone()), None),
                };
                let reach = match &wanted.login {
                    None => Reach::Owner,
                    Some(_) => Reach::Everybody,
                };
                let bound = match inherited {
                    Some(socket) => Listener::inherit(socket),
                    None => Listener::bind(&address, reach).await,
                };
                let listener = bound.map_err(|error| failure(&address, &error))?;
                let at = listener.local_address().map_err(|error| failure(&address, &error))?;
                console.note(format_args!("listening for SMTP at {at}"));
                self.open = Some((listener, wanted.clone()));
            }
        }
        Ok(())
    }

    /// Serves until `shutdown` is ready.
    pub(crate) async fn serve(
        &self,
        service: Arc<dyn Service>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        match &self.open {
            None => shutdown.await,
            Some((listener, profile)) => {
                let login = profile.login.as_ref().map(|login| ListenLogin {
                    user: login.user.clone(),
                    password: login.password.source(),
                });
                let settings = ListenSettings { login, ..ListenSettings::default() };
                serve(listener, settings, service, Arc::new(SystemClock), shutdown).await;
            }
        }
    }
}

/// Whether what is open for one is as the other wants it, but for the login itself.
fn is_same_place(one: &ListenProfile, other: &ListenProfile) -> bool {
    one.smtp == other.smtp && one.login.is_some() == other.login.is_some()
}

fn failure(address: &ListenAddress, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::AddrInUse => Exit::TryAgain,
        io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        io::ErrorKind::AddrNotAvailable => Exit::Config,
        _ => Exit::Io,
    };
    Failure::new(exit, format!("cannot listen at {address}: {error}; change listen.smtp"))
}
