//! Stands between a client and Dovecot, in clear: what passes, and when.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What passed of one connection, with the times.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) sent: Vec<(Instant, Vec<u8>)>,
    /// Octets from the server, and the beginning of each piece.
    pub(crate) received: Vec<(Instant, usize, Vec<u8>)>,
}

/// A relay; each connection through it is noted.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Mutex<Passed>>>>>,
}

impl Relay {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Arc<Mutex<Passed>>>>> = Arc::default();
        let noted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(server).unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let passed: Arc<Mutex<Passed>> = Arc::default();
                noted.lock().unwrap().push(Arc::clone(&passed));
                let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let note = Arc::clone(&passed);
                std::thread::spawn(move || {
                    pass(up.0, up.1, |bytes| {
                        note.lock().unwrap().sent.push((Instant::now(), bytes.to_vec()));
                    });
                });
                std::thread::spawn(move || {
                    pass(server, client, |bytes| {
                        let head = bytes[..bytes.len().min(200)].to_vec();
                        let piece = (Instant::now(), bytes.len(), head);
                        passed.lock().unwrap().received.push(piece);
                    });
                });
            }
        });
        Relay { address, connections }
    }

    /// The connection that was made last.
    pub(crate) fn last(&self) -> Arc<Mutex<Passed>> {
        Arc::clone(self.connections.lock().unwrap().last().expect("a connection"))
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, note: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        note(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

impl Passed {
    /// From the first command that opens a mailbox to LOGOUT, in ms, and octets that the server
    /// sent meanwhile.
    pub(crate) fn work(&self) -> (f64, usize) {
        let said = |bytes: &[u8], word: &[u8]| {
            bytes.to_ascii_uppercase().windows(word.len()).any(|part| part == word)
        };
        let opens = |bytes: &[u8]| said(bytes, b" SELECT ") || said(bytes, b" EXAMINE ");
        let begun =
            self.sent.iter().find(|(_, bytes)| opens(bytes)).expect("a mailbox is opened").0;
        let ended = self.sent.iter().find(|(_, bytes)| said(bytes, b" LOGOUT")).expect("LOGOUT").0;
        let within = self.received.iter().filter(|(at, ..)| *at >= begun && *at <= ended);
        ((ended - begun).as_secs_f64() * 1e3, within.map(|(_, count, _)| count).sum())
    }
}
