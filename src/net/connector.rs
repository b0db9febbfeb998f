//! One server of a profile and all that is needed to connect to it again and again.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::{
    Channel, Cleartext, Deadlines, NetError, NetErrorKind, Phase, Server, Stream, TlsMode, dial,
    tls,
};

/// Connects to one server. The TLS settings are made at the first use and kept, sessions for
/// resumption included.
pub(crate) struct Connector {
    pub(super) server: Server,
    pub(super) deadlines: Deadlines,
    /// `host:port`, for people.
    pub(super) name: String,
    cleartext: Cleartext,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connector").field(&self.name).finish()
    }
}

impl Connector {
    /// A connector to `server`; nothing is done yet.
    pub(crate) fn new(server: Server, deadlines: Deadlines, cleartext: Cleartext) -> Self {
        let name = if server.host.contains(':') {
            format!("[{}]:{}", server.host, server.port)
        } else {
            format!("{}:{}", server.host, server.port)
        };
        Connector { server, deadlines, name, cleartext, tls: OnceCell::new() }
    }

    /// `host:port`, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The server's port.
    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    /// How far passwords are safe on `stream`; what [`super::sasl`] asks before it gives one out.
    pub(crate) fn channel(&self, stream: &Stream) -> Channel {
        let loopback = stream.peer_addr().is_ok_and(|peer| is_loopback(peer.ip()));
        match (stream.is_encrypted(), self.cleartext) {
            (true, _) if stream.binding().is_some() => Channel::Bound,
            (true, _) => Channel::Encrypted,
            (false, _) if loopback => Channel::Loopback,
            (false, Cleartext::Allowed) => Channel::ClearAllowed,
            (false, Cleartext::LoopbackOnly) => Channel::Clear,
        }
    }

    /// Dials and, for implicit TLS, shakes hands. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`NetError`] by phase; [`NetErrorKind::Settings`] for TLS settings that cannot be used.
    pub(crate) async fn open(&self) -> Result<Stream, NetError> {
        let Server { host, port, .. } = &self.server;
        // The settings first: a wrong ca_file needs no connection to be found.
        let config = match self.server.tls {
            TlsMode::Implicit | TlsMode::StartTls => Some(self.tls_config().await?),
            TlsMode::Plain => None,
        };
        let tcp = dial::dial(host, *port, &self.name, &self.deadlines).await?;
        match (self.server.tls, config) {
            (TlsMode::Implicit, Some(config)) => self.shake_hands(tcp, config).await,
            _ => Ok(Stream::plain(tcp)),
        }
    }

    /// The TLS handshake behind STARTTLS.
    pub(super) async fn upgrade(&self, stream: Stream) -> Result<Stream, NetError> {
        let config = self.tls_config().await?;
        // What stands ahead came in clear, behind the reply to STARTTLS.
        let tcp = stream
            .into_plain()
            .ok_or_else(|| NetError::new(NetErrorKind::EarlyPlaintext, &self.name, ""))?;
        self.shake_hands(tcp, config).await
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        config: Arc<ClientConfig>,
    ) -> Result<Stream, NetError> {
        let work = tls::handshake(tcp, &self.server.host, &self.name, config);
        self.deadlines.bound(Phase::Tls, &self.name, work).await
    }

    async fn tls_config(&self) -> Result<Arc<ClientConfig>, NetError> {
        let make = || async {
            let (server, name) = (self.server.clone(), self.name.clone());
            tokio::task::spawn_blocking(move || tls::client_config(&server, &name))
                .await
                .unwrap_or_else(|error| {
                    Err(NetError::new(NetErrorKind::Settings, &self.name, error.to_string()))
                })
        };
        self.tls.get_or_try_init(make).await.map(Arc::clone)
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(v6.is_loopback(), |v4| v4.is_loopback()),
    }
}
