//! A large message from Dovecot goes on at the octet where its connection was cut, also after the
//! program was started again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    clippy::string_slice,
    unreachable_pub
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/real.rs"]
mod real;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use house::{Account, GRACE, House, PATIENCE, Server};
use maildir::await_messages;
use postrider::session::Logon;
use real::{dovecot, on_server};
use realservers::{Dovecot, wait};

const SIZE: usize = 40_000_000;
/// Where the first connection is cut, as the octets are counted on the wire.
const CUT: u64 = 27_000_000;

/// Stands before the server, counts what it sends and hangs up when it is told to.
struct Wire {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Octets from the server, by connection.
    sent: Mutex<Vec<Arc<AtomicU64>>>,
    /// So many octets later a connection is cut, and no other is made.
    left: AtomicU64,
}

impl Wire {
    fn before(server: SocketAddr, left: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { sent: Mutex::default(), left: AtomicU64::new(left) });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if shared.left.load(Ordering::SeqCst) == 0 {
                    continue;
                }
                let server = TcpStream::connect(server).unwrap();
                let sent: Arc<AtomicU64> = Arc::default();
                shared.sent.lock().unwrap().push(Arc::clone(&sent));
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &up, &mut &down);
                    let _ = down.shutdown(Shutdown::Write);
                });
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.pass(server, client, &sent));
            }
        });
        Wire { address, state }
    }

    fn connections(&self) -> Vec<u64> {
        let sent = self.state.sent.lock().unwrap();
        sent.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    fn is_cut(&self) -> bool {
        self.state.left.load(Ordering::SeqCst) == 0
    }

    fn mend(&self) {
        self.state.left.store(u64::MAX, Ordering::SeqCst);
    }
}

impl State {
    fn pass(&self, mut server: TcpStream, mut client: TcpStream, sent: &AtomicU64) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            let octets = count as u64;
            let left = self.left.load(Ordering::SeqCst);
            if left < octets {
                self.left.store(0, Ordering::SeqCst);
                break;
            }
            self.left.store(left - octets, Ordering::SeqCst);
            sent.fetch_add(octets, Ordering::SeqCst);
            if client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}

fn provider() -> Dovecot {
    let dovecot = dovecot(&[]);
    let mut text = b"From: bob@example.test\r\nSubject: large\r\n\r\n".to_vec();
    let mut number = 0_u64;
    while text.len() < SIZE {
        number += 1;
        text.extend_from_slice(format!("line {number} of a message that is large\r\n").as_bytes());
    }
    dovecot.lmtp_deliver("ann", &text).unwrap();
    dovecot
}

fn house(dovecot: &Dovecot, wire: &Wire) -> House {
    let server = Server::plain(wire.address).login("ann", &dovecot.password_of("ann").unwrap());
    House::new(&[Account::new("work", "Ann Example <ann@example.test>").imap(server)])
}

async fn await_cut(wire: &Wire) {
    let waited = wait::until_async("the cut", PATIENCE, async || wire.is_cut().then_some(()));
    waited.await.unwrap();
}

fn assert_whole(dovecot: &Dovecot, local: &[Vec<u8>]) {
    let server = on_server(dovecot, "ann", "INBOX");
    assert!(local.len() == 1 && local[0] == server[0].bytes, "the bytes differ");
}

fn in_tmp(house: &House) -> Vec<String> {
    let entries = std::fs::read_dir(house.maildir().join("tmp")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_costs_what_was_on_it() {
    let dovecot = provider();
    let wire = Wire::before(dovecot.imap_address(), CUT);
    let house = house(&dovecot, &wire);
    let session = house.open(Logon::Full).await;
    await_cut(&wire).await;
    wire.mend();
    let local = await_messages(&house.maildir(), "INBOX", 1).await;
    session.shutdown(GRACE).await.unwrap();
    assert_whole(&dovecot, &local);
    let octets: u64 = wire.connections().iter().sum();
    // A piece that was on its way, two looks at the ends, and what stands around it.
    assert!(octets < SIZE as u64 + 1_500_000, "{octets}: {:?}", wire.connections());
    assert_eq!(in_tmp(&house), Vec::<String>::new());
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_session_goes_on_where_the_last_one_was_cut() {
    let dovecot = provider();
    let wire = Wire::before(dovecot.imap_address(), CUT);
    let house = house(&dovecot, &wire);
    let session = house.open(Logon::Full).await;
    await_cut(&wire).await;
    let kept = wait::until_async("what came to be kept", PATIENCE, async || {
        let names = in_tmp(&house);
        // The last note says more than the one that was made on the way.
        let octets = names.iter().filter_map(|name| name.split('.').nth(4)?.parse::<u64>().ok());
        (octets.max()? > 20_000_000).then_some(())
    });
    kept.await.unwrap_or_else(|error| panic!("{error}: {:?}", in_tmp(&house)));
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(in_tmp(&house).len(), 1);
    let before = wire.connections().iter().sum::<u64>();
    wire.mend();
    let session = house.open(Logon::Full).await;
    let local = await_messages(&house.maildir(), "INBOX", 1).await;
    session.shutdown(GRACE).await.unwrap();
    assert_whole(&dovecot, &local);
    let second = wire.connections().iter().sum::<u64>() - before;
    assert!(second < SIZE as u64 - CUT + 1_500_000, "{second}: {:?}", wire.connections());
    assert_eq!(in_tmp(&house), Vec::<String>::new());
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_in_the_middle_costs_no_second_fetch() {
    let dovecot = provider();
    let wire = Wire::before(dovecot.imap_address(), u64::MAX);
    let house = house(&dovecot, &wire);
    let session = house.open(Logon::Full).await;
    let begun = wait::until_async("the first half", PATIENCE, async || {
        (wire.connections().iter().sum::<u64>() > 10_000_000).then_some(())
    });
    begun.await.unwrap();
    dovecot.kill().unwrap();
    dovecot.start_again().unwrap();
    let local = await_messages(&house.maildir(), "INBOX", 1).await;
    session.shutdown(GRACE).await.unwrap();
    assert_whole(&dovecot, &local);
    let octets: u64 = wire.connections().iter().sum();
    assert!(octets < SIZE as u64 + 3_000_000, "{octets}: {:?}", wire.connections());
}
