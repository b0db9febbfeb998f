//! Where and for whom the listener listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::spi::SecretSource;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket in the file system. One that nobody listens at any more is replaced.
    Unix(PathBuf),
}

/// Who may connect to a socket in the file system; a TCP port is reached by whoever can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its owner (mode 0600).
    Owner,
    /// Every user of the machine (mode 0666): for a listener that asks for a login.
    Everybody,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who may submit, when not everybody who reaches the port may.
#[derive(Clone)]
pub struct ListenLogin {
    /// User name.
    pub user: String,
    /// Password; asked for at each login.
    pub password: Arc<dyn SecretSource>,
}

impl fmt::Debug for ListenLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How the listener behaves.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// AUTH is required when this is set.
    pub login: Option<ListenLogin>,
    /// The largest message in octets, told as SIZE (RFC 1870). Default: 1 GiB.
    pub size: u64,
    /// Most recipients of one message. Default: 1,000; RFC 5321 section 4.5.3.1.8 asks for 100.
    pub recipients: usize,
    /// Most connections at the same time; further ones are told 421. Default: 200.
    pub connections: usize,
    /// How long a client may be silent. Default: 5 minutes, RFC 5321 section 4.5.3.2.7.
    pub silence: Duration,
    /// The longest delay of FUTURERELEASE (RFC 4865). Default: 366 days.
    pub future_release: Duration,
}

impl Default for ListenSettings {
    fn default() -> Self {
        ListenSettings {
            login: None,
            // What the store behind it takes: who is told a SIZE should not be refused below it.
            size: crate::store::SIZE_LIMIT,
            recipients: 1_000,
            connections: 200,
            silence: Duration::from_secs(5 * 60),
            future_release: Duration::from_secs(366 * 24 * 60 * 60),
        }
    }
}
