//! From a host name to a TCP connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

use super::{Deadlines, NetError, NetErrorKind, Phase};

/// Silence after which the system starts to ask whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Questions without an answer after which the connection is dead.
const KEEPALIVE_COUNT: u32 = 4;
/// How long sent bytes may stay unacknowledged (RFC 5482), where the system knows this.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Connects to `host`, trying its addresses one after the other with a small lead each
/// (RFC 8305). Cancel-safe: dropping it closes what was begun.
pub(super) async fn dial(
    host: &str,
    port: u16,
    server: &str,
    deadlines: &Deadlines,
) -> Result<TcpStream, NetError> {
    let addresses = deadlines.bound(Phase::Resolve, server, resolve(host, port, server)).await?;
    let tcp =
        deadlines.bound(Phase::Connect, server, race(addresses, server, deadlines.stagger)).await?;
    prepare(&tcp).map_err(|error| NetError::from_io(server, &error))?;
    Ok(tcp)
}

async fn resolve(host: &str, port: u16, server: &str) -> Result<Vec<SocketAddr>, NetError> {
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| NetError::new(NetErrorKind::Resolve, server, error.to_string()))?;
    let addresses = interleave(found);
    if addresses.is_empty() {
        return Err(NetError::new(NetErrorKind::Resolve, server, ""));
    }
    Ok(addresses)
}

/// Families in turn, beginning with that of the first address, so that a dead family costs one
/// lead and not one for each of its addresses (RFC 8305 section 4).
fn interleave(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<SocketAddr> = found.collect();
    let first_is_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed
}

async fn race(
    addresses: Vec<SocketAddr>,
    server: &str,
    stagger: Duration,
) -> Result<TcpStream, NetError> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last: Option<io::Error> = None;
    loop {
        match waiting.next() {
            Some(address) => running.push(TcpStream::connect(address)),
            None if running.is_empty() => {
                return Err(match last {
                    Some(error) => NetError::from_io(server, &error),
                    None => NetError::new(NetErrorKind::Resolve, server, ""),
                });
            }
            None => {}
        }
        let lead = if waiting.len() == 0 { Duration::MAX } else { stagger };
        match tokio::time::timeout(lead, running.next()).await {
            Ok(Some(Ok(tcp))) => return Ok(tcp),
            Ok(Some(Err(error))) => last = Some(error),
            Ok(None) | Err(_) => {}
        }
    }
}

/// No waiting for more to send (Nagle cost 99 % of the speed on one SMTP connection), and a dead
/// peer is noticed also where nothing is being sent.
fn prepare(tcp: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    // What a system does not know of these is no reason to fail.
    let _ = sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_COUNT);
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(
        tcp,
        u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &&str| text.parse::<SocketAddr>().unwrap();
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let wanted = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        let mixed = interleave(found.iter().map(parse));
        assert_eq!(mixed, wanted.iter().map(parse).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_second_address_is_tried_at_once_when_the_first_refuses() {
        let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        let addresses = vec![dead, alive.local_addr().unwrap()];
        let lead = Duration::from_secs(3600);
        let tcp = tokio::time::timeout(Duration::from_secs(5), race(addresses, "test", lead));
        assert_eq!(tcp.await.unwrap().unwrap().peer_addr().unwrap(), alive.local_addr().unwrap());
    }
}
