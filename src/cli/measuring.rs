//! The daemon's port for metrics, as the profile has it.

use std::io;
use std::sync::Arc;

use super::console::Console;
use super::exit::{Exit, Failure};
use crate::control::MetricsPort;
use crate::profile::MetricsProfile;
use crate::session::Service;

/// Where the daemon shows its metrics; often nowhere.
#[derive(Default)]
pub(crate) struct Measuring {
    open: Option<(MetricsPort, MetricsProfile)>,
}

impl Measuring {
    /// Opens the port of the profile, if it has one; the one that is open is kept when it is the
    /// same.
    pub(crate) async fn change(
        &mut self,
        wanted: Option<&MetricsProfile>,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let Some(wanted) = wanted else {
            self.open = None;
            return Ok(());
        };
        if self.open.as_ref().is_some_and(|(_, open)| open == wanted) {
            return Ok(());
        }
        let port = MetricsPort::bind(wanted.listen).await;
        let port = port.map_err(|error| failure(wanted, &error))?;
        let at = port.local_addr().map_err(|error| failure(wanted, &error))?;
        console.note(format_args!("metrics at http://{at}/metrics"));
        self.open = Some((port, wanted.clone()));
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
            Some((port, _)) => port.serve(service, shutdown).await,
        }
    }
}

fn failure(wanted: &MetricsProfile, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::AddrInUse => Exit::TryAgain,
        io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        io::ErrorKind::AddrNotAvailable => Exit::Config,
        _ => Exit::Io,
    };
    let at = wanted.listen;
    Failure::new(exit, format!("cannot listen at {at}: {error}; change metrics.listen"))
}
