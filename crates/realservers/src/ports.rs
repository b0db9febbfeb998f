//! Loopback ports that stay ours, also while the server behind them is stopped.
//!
//! Binding port 0 and closing it again is a race between parallel tests, and the kernel may hand the
//! port to any outgoing connection meanwhile. So ports come from a range below Linux' ephemeral ports,
//! and each one is leased under a name in the abstract socket namespace: that namespace belongs to the
//! same network namespace as the ports themselves, spans all test processes, needs no file, and a
//! process that dies gives its leases back.

use crate::Error;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the usual `net.ipv4.ip_local_port_range` (32768 to 60999), above what services are given.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback port that no other lease holds and nobody listened on when it was taken.
#[derive(Debug)]
pub(crate) struct PortLease {
    port: u16,
    #[cfg(target_os = "linux")]
    _name: std::os::unix::net::UnixListener,
}

impl PortLease {
    /// Leases a free port.
    ///
    /// # Errors
    /// [`Error::Usage`] when the whole range is taken.
    pub(crate) fn take() -> Result<Self, Error> {
        let start = random_offset();
        (0..COUNT).map(|step| FIRST + (start + step) % COUNT).find_map(Self::try_take).ok_or_else(
            || {
                let last = FIRST + COUNT - 1;
                Error::Usage(format!("no free loopback port in {FIRST}..={last}"))
            },
        )
    }

    fn try_take(port: u16) -> Option<Self> {
        #[cfg(target_os = "linux")]
        let name = lease_name(port)?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self {
            port,
            #[cfg(target_os = "linux")]
            _name: name,
        })
    }

    /// The port's number.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port on 127.0.0.1.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

#[cfg(target_os = "linux")]
fn lease_name(port: u16) -> Option<std::os::unix::net::UnixListener> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("postrider-realservers/{port}");
    let address = SocketAddr::from_abstract_name(name).ok()?;
    UnixListener::bind_addr(&address).ok()
}

fn random_offset() -> u16 {
    let random = RandomState::new().hash_one(std::process::id()) % u64::from(COUNT);
    u16::try_from(random).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn leases_held_at_the_same_time_are_different_ports() {
        let leases: Vec<_> = (0..50).map(|_| PortLease::take().unwrap()).collect();
        let ports: HashSet<_> = leases.iter().map(PortLease::port).collect();
        assert_eq!(ports.len(), leases.len());
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_leased() {
        let lease = PortLease::take().unwrap();
        let port = lease.port();
        let listener = TcpListener::bind(lease.address()).unwrap();
        drop(lease);
        assert!(PortLease::try_take(port).is_none());
        drop(listener);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_leased_port_is_not_leased_twice_although_nobody_listens() {
        let lease = PortLease::take().unwrap();
        assert!(PortLease::try_take(lease.port()).is_none());
        let port = lease.port();
        drop(lease);
        assert!(PortLease::try_take(port).is_some());
    }
}
