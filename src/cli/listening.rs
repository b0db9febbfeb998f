//! The daemon's port for SMTP, as the profile has it.

use std::io;
use std::sync::Arc;

use super::console::Console;
use super::exit::Failure;
use super::supervision::Inherited;
use crate::clock::SystemClock;
use crate::listener::{ListenAddress, ListenLogin, ListenSettings, Listener, Reach, serve};
use crate::profile::{ListenPlace, ListenProfile};
use crate::session::Service;

/// What the daemon listens at; often nothing.
pub(crate) struct Listening {
    open: Option<(Listener, ListenProfile)>,
    /// Sockets of the service manager.
    pub(crate) inherited: Inherited,
}

impl Listening {
    /// Listens nowhere yet, and has these sockets at hand.
    pub(crate) fn with(inherited: Inherited) -> Self {
        Listening { open: None, inherited }
    }

    /// Opens the port of the profile, if it has one. What `self` has open is kept when it is the
    /// same, so that a reload turns nobody away, and when the new one cannot be opened.
    pub(crate) async fn change(
        &mut self,
        wanted: Option<&ListenProfile>,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let Some(wanted) = wanted else {
            self.open = None;
            return Ok(());
        };
        if let Some((_, profile)) = &mut self.open
            && is_same_place(profile, wanted)
        {
            *profile = wanted.clone();
            return Ok(());
        }
        let closed = self.open.take_if(|(_, open)| is_in_the_way(&open.smtp, &wanted.smtp));
        let closed = closed.map(|(_, profile)| profile);
        match self.open(wanted, console).await {
            Ok(listener) => {
                self.open = Some((listener, wanted.clone()));
                Ok(())
            }
            Err(failure) => {
                if let Some(profile) = closed {
                    match self.open(&profile, console).await {
                        Ok(listener) => self.open = Some((listener, profile)),
                        Err(lost) => console.complain(&lost),
                    }
                }
                Err(failure)
            }
        }
    }

    async fn open(
        &mut self,
        wanted: &ListenProfile,
        console: &mut Console<'_>,
    ) -> Result<Listener, Failure> {
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
        Ok(listener)
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

/// Whether what is open for one is as the other wants it. A socket in the file system has a mode
/// that follows from whether there is a login.
fn is_same_place(one: &ListenProfile, other: &ListenProfile) -> bool {
    match (&one.smtp, &other.smtp) {
        (ListenPlace::Tcp(one), ListenPlace::Tcp(other)) => one == other,
        (ListenPlace::Unix(path), ListenPlace::Unix(wanted)) => {
            path == wanted && one.login.is_some() == other.login.is_some()
        }
        (ListenPlace::Tcp(_), ListenPlace::Unix(_))
        | (ListenPlace::Unix(_), ListenPlace::Tcp(_)) => false,
    }
}

/// Whether one has to be closed before the other can be opened.
fn is_in_the_way(one: &ListenPlace, other: &ListenPlace) -> bool {
    match (one, other) {
        (ListenPlace::Tcp(one), ListenPlace::Tcp(other)) => one.port() == other.port(),
        _ => one == other,
    }
}

fn failure(address: &ListenAddress, error: &io::Error) -> Failure {
    Failure::listening(format_args!("listen at {address}"), error, "; change listen.smtp")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::profile::{Login, Password};

    fn at(address: std::net::SocketAddr, login: Option<Login>) -> ListenProfile {
        ListenProfile { smtp: ListenPlace::Tcp(address), login }
    }

    fn login() -> Option<Login> {
        let password = Password::Text("secret".into());
        Some(Login { user: "ann".to_owned(), password })
    }

    async fn change(listening: &mut Listening, wanted: Option<&ListenProfile>) -> Option<String> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err, false);
        listening.change(wanted, &mut console).await.err().map(|failure| format!("{failure:?}"))
    }

    /// The service manager keeps a copy of its own: the port can never be bound again.
    #[tokio::test]
    async fn a_port_of_the_service_manager_outlives_every_reload() {
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = kept.local_addr().unwrap();
        let inherited = Inherited::of_sockets(vec![kept.try_clone().unwrap()]);
        let mut listening = Listening::with(inherited);
        let (open, guarded) = (at(address, None), at(address, login()));
        for wanted in [Some(&open), Some(&guarded), Some(&open), None, Some(&guarded)] {
            assert_eq!(change(&mut listening, wanted).await, None, "{wanted:?}");
            assert_eq!(listening.open.is_some(), wanted.is_some());
        }
    }

    #[tokio::test]
    async fn a_port_moves_to_another_address_of_the_same_number() {
        let mut listening = Listening::with(Inherited::default());
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(change(&mut listening, Some(&at(free, None))).await, None);
        let everywhere = std::net::SocketAddr::from(([0, 0, 0, 0], free.port()));
        assert_eq!(change(&mut listening, Some(&at(everywhere, login()))).await, None);
    }

    /// An address that is no machine's (RFC 5737), so that it cannot be bound.
    fn nowhere(port: u16) -> std::net::SocketAddr {
        std::net::SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[tokio::test]
    async fn a_port_that_cannot_be_opened_leaves_the_old_one_open() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let inherited = kept.local_addr().unwrap();
        let sockets = Inherited::of_sockets(vec![kept.try_clone().unwrap()]);
        for (old, wanted, sockets) in [
            (free, nowhere(free.port()), Inherited::default()),
            // The service manager has the number: no other address of it can be bound.
            (inherited, ([0, 0, 0, 0], inherited.port()).into(), sockets),
        ] {
            let mut listening = Listening::with(sockets);
            assert_eq!(change(&mut listening, Some(&at(old, None))).await, None);
            assert!(change(&mut listening, Some(&at(wanted, None))).await.is_some());
            let (listener, profile) = listening.open.as_ref().unwrap();
            assert!(listener.local_address().unwrap().to_string().contains(&old.to_string()));
            assert!(is_same_place(profile, &at(old, None)));
            std::net::TcpStream::connect(old).unwrap();
        }
    }
}
