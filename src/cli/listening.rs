//! The daemon's port for SMTP, as the profile has it.

use std::io;
use std::sync::Arc;

use super::console::Console;
use super::exit::{Exit, Failure};
use super::supervision::Inherited;
use crate::clock::SystemClock;
use crate::listener::{ListenAddress, ListenLogin, ListenSettings, Listener, serve};
use crate::profile::ListenProfile;
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
            Some((_, profile)) if profile.smtp == wanted.smtp => *profile = wanted.clone(),
            _ => {
                let address = ListenAddress::Tcp(wanted.smtp);
                let bound = match self.inherited.take(wanted.smtp) {
                    Some(socket) => Listener::inherit(socket),
                    None => Listener::bind(&address).await,
                };
                let listener = bound.map_err(|error| failure(&address, &error))?;
                let at = listener.local_addr().map_err(|error| failure(&address, &error))?;
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

fn failure(address: &ListenAddress, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::AddrInUse => Exit::TryAgain,
        io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        io::ErrorKind::AddrNotAvailable => Exit::Config,
        _ => Exit::Io,
    };
    Failure::new(exit, format!("cannot listen at {address}: {error}; change listen.smtp"))
}
