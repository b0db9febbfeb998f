//! The daemon's port for metrics, as the profile has it.

use std::io;
use std::sync::Arc;

use super::console::Console;
use super::exit::Failure;
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
    /// same, and when the new one cannot be opened.
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
        // The same number at another address can be opened only behind it.
        let number = wanted.listen.port();
        let closed = self.open.take_if(|(_, open)| open.listen.port() == number);
        let closed = closed.map(|(_, profile)| profile);
        match open(wanted, console).await {
            Ok(port) => {
                self.open = Some((port, wanted.clone()));
                Ok(())
            }
            Err(failure) => {
                if let Some(profile) = closed {
                    match open(&profile, console).await {
                        Ok(port) => self.open = Some((port, profile)),
                        Err(lost) => console.complain(&lost),
                    }
                }
                Err(failure)
            }
        }
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

async fn open(wanted: &MetricsProfile, console: &mut Console<'_>) -> Result<MetricsPort, Failure> {
    let port = MetricsPort::bind(wanted.listen).await;
    let port = port.map_err(|error| failure(wanted, &error))?;
    let at = port.local_addr().map_err(|error| failure(wanted, &error))?;
    console.note(format_args!("metrics at http://{at}/metrics"));
    Ok(port)
}

fn failure(wanted: &MetricsProfile, error: &io::Error) -> Failure {
    let at = wanted.listen;
    Failure::listening(format_args!("listen at {at}"), error, "; change metrics.listen")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    async fn change(measuring: &mut Measuring, listen: SocketAddr) -> Option<String> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err, false);
        let wanted = MetricsProfile { listen };
        let changed = measuring.change(Some(&wanted), &mut console).await;
        changed.err().map(|failure| format!("{failure:?}"))
    }

    #[tokio::test]
    async fn a_port_moves_to_another_address_of_the_same_number() {
        let mut measuring = Measuring::default();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(change(&mut measuring, free).await, None);
        let everywhere = SocketAddr::from(([0, 0, 0, 0], free.port()));
        assert_eq!(change(&mut measuring, everywhere).await, None);
        assert_eq!(measuring.open.as_ref().unwrap().1.listen, everywhere);
    }

    #[tokio::test]
    async fn a_port_that_cannot_be_opened_leaves_the_old_one_open() {
        let mut measuring = Measuring::default();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(change(&mut measuring, free).await, None);
        // No machine's (RFC 5737): of the same number, so that the old one has to be closed first,
        // and of another.
        for port in [free.port(), 1] {
            let nowhere = SocketAddr::from(([192, 0, 2, 1], port));
            assert!(change(&mut measuring, nowhere).await.is_some());
            assert_eq!(measuring.open.as_ref().unwrap().1.listen, free);
            TcpStream::connect(free).unwrap();
        }
    }
}
