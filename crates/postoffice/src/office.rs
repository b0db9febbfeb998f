//! The running post office: its life, its faults and what it has seen.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::Builder;
use crate::certificates::{Authority, CertificateError, Flaw, ServerCertificate};
use crate::config::{Feature, Listener, Protocol};
use crate::connection::Connection;
use crate::faults::{Fault, FaultHandle};
use crate::smtp::{Accepted, Violation};
use crate::state::{Counters, Shared, WaitError, lock};
use crate::transcript::TranscriptLine;

/// Waits between two tries to bind a port that was ours and is not free yet.
const REBIND_PAUSE: Duration = Duration::from_millis(20);
/// How often that is tried.
const REBIND_TRIES: u32 = 100;

/// What runs while the office is open.
struct Running {
    stop: CancellationToken,
    /// Cancelled and replaced by [`PostOffice::disconnect_all`].
    connections: Arc<Mutex<CancellationToken>>,
    tasks: TaskTracker,
}

/// An SMTP and IMAP server on loopback, see the [crate documentation](crate).
///
/// Dropping it closes all listeners and connections.
pub struct PostOffice {
    pub(crate) shared: Arc<Shared>,
    addresses: BTreeMap<Listener, SocketAddr>,
    running: Mutex<Option<Running>>,
}

impl std::fmt::Debug for PostOffice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostOffice").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Drop for PostOffice {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.running).take() {
            running.stop.cancel();
        }
    }
}

impl PostOffice {
    /// Sets up a post office.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn open(shared: Arc<Shared>) -> io::Result<Self> {
        let mut addresses = BTreeMap::new();
        let mut listeners = Vec::new();
        for &(listener, address) in &shared.config.listeners {
            let socket = TcpListener::bind(address).await?;
            addresses.insert(listener, socket.local_addr()?);
            listeners.push((listener, socket));
        }
        let running = serve(&shared, listeners);
        Ok(Self { shared, addresses, running: Mutex::new(Some(running)) })
    }

    // ----- where -----

    /// Where a listener is; `None` if it was left out. The address stays the same over stops and restarts.
    pub fn address(&self, listener: Listener) -> Option<SocketAddr> {
        self.addresses.get(&listener).copied()
    }

    /// The port of a listener; 0 if it was left out.
    pub fn port(&self, listener: Listener) -> u16 {
        self.address(listener).map_or(0, |address| address.port())
    }

    /// `smtp://127.0.0.1:2525` and the like; `None` if the listener was left out.
    pub fn url(&self, listener: Listener) -> Option<String> {
        Some(format!("{}://{}", listener.scheme(), self.address(listener)?))
    }

    // ----- life -----

    /// Closes all listeners and connections and waits until they are gone. Mail and records stay.
    pub async fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.stop.cancel();
            running.tasks.close();
            running.tasks.wait().await;
        }
    }

    /// Serves again at the same addresses after [`PostOffice::stop`]; does nothing if it runs.
    ///
    /// # Errors
    /// If somebody else has taken a port meanwhile.
    pub async fn restart(&self) -> io::Result<()> {
        if lock(&self.running).is_some() {
            return Ok(());
        }
        let mut listeners = Vec::new();
        for (&listener, &address) in &self.addresses {
            listeners.push((listener, rebind(address).await?));
        }
        let running = serve(&self.shared, listeners);
        *lock(&self.running) = Some(running);
        Ok(())
    }

    /// Closes all connections at once; new ones are accepted.
    pub fn disconnect_all(&self) {
        if let Some(running) = lock(&self.running).as_ref() {
            let fresh = running.stop.child_token();
            let old = std::mem::replace(&mut *lock(&running.connections), fresh);
            old.cancel();
        }
    }

    // ----- TLS -----

    /// The authority clients have to trust.
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// The authority's certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        self.shared.authority.pem()
    }

    /// The certificate presented now.
    pub fn certificate(&self) -> ServerCertificate {
        self.shared.certificate()
    }

    /// Presents a new certificate with this flaw to connections from now on.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn present(&self, flaw: Flaw) -> Result<(), CertificateError> {
        self.shared.present(flaw)
    }

    // ----- offers and users -----

    /// Withholds a feature from now on; EHLO and CAPABILITY on open connections tell the new state too.
    pub fn withhold(&self, feature: impl Into<Feature>) {
        let feature = feature.into();
        self.shared.change_offer(|withheld| withheld.withhold(feature));
    }

    /// Offers a feature (again).
    pub fn offer(&self, feature: impl Into<Feature>) {
        let feature = feature.into();
        self.shared.change_offer(|withheld| withheld.offer(feature));
    }

    /// Sets a user's password; adds the user if need be.
    pub fn set_password(&self, user: &str, password: &str) {
        self.shared.set_credentials(user, |known| known.password = Some(password.to_owned()));
    }

    /// Sets or takes away a user's bearer token; adds the user if need be.
    pub fn set_token(&self, user: &str, token: Option<&str>) {
        self.shared.set_credentials(user, |known| known.token = token.map(str::to_owned));
    }

    // ----- faults -----

    /// Adds a fault behind those in force.
    pub fn inject(&self, fault: Fault) -> FaultHandle {
        self.shared.faults.add(fault)
    }

    /// Takes all faults back and lets everything go on that hangs.
    pub fn remove_faults(&self) {
        self.shared.faults.remove_all();
    }

    /// Lets everything go on that hangs by the name of a recipient.
    pub fn release_named(&self) {
        self.shared.faults.release_named();
    }

    /// How many faults have struck by the name of an address since the last [`PostOffice::release_named`].
    pub fn named_hits(&self) -> u32 {
        self.shared.faults.named_hits()
    }

    // ----- what was seen -----

    /// All messages accepted by SMTP, oldest first.
    pub fn accepted(&self) -> Vec<Arc<Accepted>> {
        self.shared.accepted()
    }

    /// How many messages were ever accepted, those forgotten included.
    pub fn accepted_count(&self) -> u64 {
        self.shared.accepted_count()
    }

    /// Empties and returns the record of accepted messages; mailboxes and the count stay.
    pub fn take_accepted(&self) -> Vec<Arc<Accepted>> {
        self.shared.forget_accepted()
    }

    /// What clients did that they must not; a good client leaves this empty.
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.violations()
    }

    /// What was counted for a protocol.
    pub fn counters(&self, protocol: Protocol) -> Counters {
        self.shared.counters(protocol)
    }

    /// The last lines said on all connections.
    pub fn transcript(&self) -> Vec<TranscriptLine> {
        self.shared.transcript()
    }

    /// The transcript as text, one line each.
    pub fn transcript_text(&self) -> String {
        self.transcript().iter().map(|line| format!("{line}\n")).collect()
    }

    // ----- waiting -----

    /// Waits until the condition holds; it is looked at whenever something has happened. Cancel-safe.
    ///
    /// # Errors
    /// [`WaitError`] naming `what` if it does not hold within the given time.
    pub async fn wait_until(
        &self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), WaitError> {
        let mut changes = self.shared.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if condition(self) {
                    return;
                }
                // The sender lives as long as the office.
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(within, wait).await.map_err(|_| WaitError::new(what, within))
    }

    /// Waits until `count` messages have been accepted in all and returns those in the record. Cancel-safe.
    ///
    /// # Errors
    /// [`WaitError`] if there are fewer after the given time.
    pub async fn wait_accepted(
        &self,
        count: u64,
        within: Duration,
    ) -> Result<Vec<Arc<Accepted>>, WaitError> {
        let enough = |office: &Self| office.accepted_count() >= count;
        let waited = self.wait_until("accepted messages", within, enough).await;
        waited.map_err(|_| {
            let what = format!("{count} accepted messages (there are {})", self.accepted_count());
            WaitError::new(what, within)
        })?;
        Ok(self.accepted())
    }
}

async fn rebind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < REBIND_TRIES => {
                tries += 1;
                tokio::time::sleep(REBIND_PAUSE).await;
            }
            result => return result,
        }
    }
}

fn serve(shared: &Arc<Shared>, listeners: Vec<(Listener, TcpListener)>) -> Running {
    let stop = CancellationToken::new();
    let connections = Arc::new(Mutex::new(stop.child_token()));
    let tasks = TaskTracker::new();
    for (listener, socket) in listeners {
        let accept = accept(
            Arc::clone(shared),
            listener,
            socket,
            stop.clone(),
            Arc::clone(&connections),
            tasks.clone(),
        );
        tasks.spawn(accept);
    }
    Running { stop, connections, tasks }
}

async fn accept(
    shared: Arc<Shared>,
    listener: Listener,
    socket: TcpListener,
    stop: CancellationToken,
    connections: Arc<Mutex<CancellationToken>>,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of file descriptors, most likely: others have to close first.
                tracing::warn!(%error, ?listener, "cannot accept");
                tokio::time::sleep(REBIND_PAUSE).await;
                continue;
            }
        };
        let token = lock(&connections).clone();
        let protocol = listener.protocol();
        let mut connection = Connection::new(Arc::clone(&shared), protocol, tcp, token);
        connection.note(&format!("connected to {}", listener.scheme()));
        tasks.spawn(async move {
            let implicit_tls = listener.implicit_tls();
            let id = connection.id;
            let end = match protocol {
                Protocol::Smtp => crate::smtp::serve(connection, implicit_tls).await,
                Protocol::Imap => crate::imap::serve(connection, implicit_tls).await,
            };
            if let Err(end) = end {
                tracing::debug!(?protocol, connection = id, %end, "session ended");
            }
        });
    }
}
