//! The service manager: readiness, status and watchdog (`sd_notify`), and the sockets it hands over.
//! Without one nothing here does anything.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::session::{Service, StatusReport};

/// How often the status text is looked at.
const GLANCE: Duration = Duration::from_secs(5);

/// The service manager, if there is one.
pub(crate) struct Supervision {
    present: Presence,
    /// A sign of life is expected within this.
    watchdog: Option<Duration>,
}

/// Whether anybody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Supervised,
    Alone,
}

impl Supervision {
    /// Looks at the environment of the process.
    pub(crate) fn of_process() -> Self {
        let present = match std::env::var_os("NOTIFY_SOCKET") {
            Some(_) => Presence::Supervised,
            None => Presence::Alone,
        };
        Supervision { present, watchdog: sd_notify::watchdog_enabled() }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if self.present == Presence::Alone {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "The service manager does not listen");
        }
    }

    /// Everything is open: programs that start after this one may hand over mail.
    pub(crate) fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The profile is read anew; `ready` ends it.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// Keeps the status text true and gives signs of life until `shutdown` is ready. There is a sign
    /// only when the session has answered: a daemon that hangs is started again.
    pub(crate) async fn attend(
        &self,
        service: Arc<dyn Service>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        if self.present == Presence::Alone {
            return shutdown.await;
        }
        let pause = self.watchdog.map_or(GLANCE, |limit| (limit / 3).min(GLANCE));
        let attending = async {
            let mut told = String::new();
            loop {
                let answer =
                    tokio::time::timeout(self.watchdog.unwrap_or(GLANCE), service.status());
                if let Ok(answer) = answer.await {
                    self.tell(&[NotifyState::Watchdog]);
                    let words = answer.map_or_else(|error| error.to_string(), |it| summary(&it));
                    if words != told {
                        self.tell(&[NotifyState::Status(&words)]);
                        told = words;
                    }
                }
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = attending => {}
            () = shutdown => {}
        }
    }
}

/// The status in one line, for `systemctl status`.
fn summary(report: &StatusReport) -> String {
    let queue = &report.queue;
    let counts = [
        (queue.queued.saturating_add(queue.sending), "to send"),
        (queue.deferred, "deferred"),
        (queue.in_doubt, "in doubt"),
        (queue.held, "held"),
    ];
    let mut words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if words.is_empty() {
        words.push("nothing to send".to_owned());
    }
    if let Some(error) = &report.last_error {
        words.push(super::text::one_line(error));
    }
    words.join("; ")
}

/// Sockets that the service manager has opened for us (`LISTEN_FDS`).
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    waiting: Vec<TcpListener>,
    /// Kept when their port is given up: the service manager holds it, nobody can bind it, and a
    /// later profile may want it again.
    taken: Vec<TcpListener>,
}

impl Inherited {
    /// Takes those of the process. To be called once. What is no TCP socket is left alone.
    pub(crate) fn of_process() -> Self {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for place in 0..passed.len() {
            match passed.take_tcp_listener(place) {
                Ok(Some(socket)) => sockets.push(socket),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(place, %error, "A socket of the service manager is not used");
                }
            }
        }
        Inherited { waiting: sockets, taken: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn of_sockets(sockets: Vec<TcpListener>) -> Self {
        Inherited { waiting: sockets, taken: Vec::new() }
    }

    /// The socket that listens at exactly this address: the profile says where mail is taken from,
    /// and no unit can open more than that. It can be taken again.
    pub(crate) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_there = |one: &TcpListener| one.local_addr().is_ok_and(|local| local == address);
        if let Some(place) = self.waiting.iter().position(is_there) {
            self.taken.push(self.waiting.swap_remove(place));
        }
        self.taken.iter().find(|one| is_there(one))?.try_clone().ok()
    }

    /// Where those listen that nobody took; they are closed.
    pub(crate) fn close_rest(&mut self) -> Vec<SocketAddr> {
        self.waiting.drain(..).filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::fake::FakeService;

    #[test]
    fn a_socket_is_taken_only_at_the_address_of_the_profile() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut inherited = Inherited::of_sockets(vec![socket]);
        let other = SocketAddr::new(address.ip(), address.port() ^ 1);
        assert!(inherited.take(other).is_none());
        assert_eq!(inherited.take(address).unwrap().local_addr().unwrap(), address);
        assert!(inherited.take(address).is_some(), "again after it was given up");
        assert_eq!(inherited.close_rest(), []);
    }

    #[test]
    fn the_status_is_one_line() {
        let mut report = FakeService::default().report();
        assert_eq!(summary(&report), "1 to send; 2 deferred; 451 later");
        report.queue = Default::default();
        report.last_error = Some("two\nlines".to_owned());
        assert_eq!(summary(&report), "nothing to send; two lines");
    }
}
