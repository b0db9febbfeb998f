//! Connecting to peers that follow a script.

pub(crate) mod bound;
mod deflate;
mod imap;
mod peer;
mod smtp;
mod tls;

use std::time::Duration;

use super::{Cleartext, Connector, Deadlines, Server, TlsMode, Trust};

/// Deadlines that let a test see them pass.
fn short() -> Deadlines {
    Deadlines {
        resolve: Duration::from_secs(5),
        connect: Duration::from_secs(5),
        stagger: Duration::from_millis(50),
        tls: Duration::from_millis(300),
        greeting: Duration::from_millis(300),
        handshake: Duration::from_millis(300),
        login: Duration::from_millis(300),
    }
}

fn connector(port: u16, tls: TlsMode, trust: Trust) -> Connector {
    let server = Server { host: "localhost".into(), port, tls, trust, client: None };
    Connector::new(server, short(), Cleartext::LoopbackOnly)
}

fn plain(port: u16) -> Connector {
    connector(port, TlsMode::Plain, Trust::Platform)
}
