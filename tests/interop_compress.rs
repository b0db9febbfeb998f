//! Receiving from Dovecot over connections that are compressed (COMPRESS=DEFLATE, RFC 4978).

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
#[path = "support/letters.rs"]
mod letters;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/real.rs"]
mod real;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use house::{Account, GRACE, House, PATIENCE, Server};
use maildir::await_messages;
use postrider::session::{InboundMode, Logon, Service, Session};
use real::on_server;
use realservers::{Dovecot, DovecotOptions, wait};

/// Counts what the server says.
struct Relay {
    address: SocketAddr,
    octets: Arc<AtomicUsize>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let octets: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&octets);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(server).unwrap();
                let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || pass(up.0, up.1, &AtomicUsize::new(0)));
                std::thread::spawn(move || pass(server, client, &counted));
            }
        });
        Relay { address, octets }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, octets: &AtomicUsize) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        octets.fetch_add(count, Ordering::SeqCst);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn dovecot() -> Dovecot {
    let extra_config = "protocol imap {\n  mail_plugins = $mail_plugins imap_zlib\n}\n".to_owned();
    Dovecot::start(DovecotOptions { extra_config, ..DovecotOptions::default() }).unwrap()
}

fn account(dovecot: &Dovecot, relay: &Relay, line: &str) -> Account {
    let authority = dovecot.certificates().authority_file();
    let server = Server::implicit(relay.address, authority);
    let server = server.login("ann", &dovecot.password_of("ann").unwrap()).with(line);
    Account::new("work", "Ann Example <ann@example.test>").imap(server)
}

/// Some messages of words, and one that nothing makes smaller; together so many octets.
fn fill(dovecot: &Dovecot) -> (usize, usize) {
    let mut octets = 0;
    let mut put = |text: Vec<u8>| {
        octets += text.len();
        dovecot.lmtp_deliver("ann", &text).unwrap();
    };
    for number in 0..40 {
        let words = format!("This is line {number} of a text that says little.\r\n").repeat(400);
        put(format!("Subject: {number}\r\n\r\n{words}").into_bytes());
    }
    let mut noise = b"Subject: noise\r\n\r\n".to_vec();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3_000 {
        noise.extend((0..70).map(|_| random.u8(b'!'..=b'~')));
        noise.extend_from_slice(b"\r\n");
    }
    put(noise);
    (41, octets)
}

async fn await_idle(session: &Session) {
    let waited = wait::until_async("INBOX to be watched", PATIENCE, async || {
        let inbound = session.status().await.unwrap().inbound;
        inbound.iter().any(|state| state.mode == InboundMode::Idle).then_some(())
    });
    waited.await.unwrap();
}

/// What came, and how many octets the server said for it.
async fn receive(dovecot: &Dovecot, count: usize, line: &str) -> (Vec<Vec<u8>>, usize) {
    let relay = Relay::to(dovecot.imaps_address());
    let house = House::new(&[account(dovecot, &relay, line)]);
    let session = house.open(Logon::Full).await;
    let mut messages = await_messages(&house.maildir(), "INBOX", count).await;
    session.shutdown(GRACE).await.unwrap();
    messages.sort();
    (messages, relay.octets.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_comes_in_fewer_octets() {
    let dovecot = dovecot();
    let (count, octets) = fill(&dovecot);
    let mut there: Vec<_> =
        on_server(&dovecot, "ann", "INBOX").into_iter().map(|one| one.bytes).collect();
    there.sort();
    let (compressed, few) = receive(&dovecot, count, "compress = true").await;
    assert!(compressed == there);
    let (clear, all) = receive(&dovecot, count, "compress = false").await;
    assert!(clear == there);
    // The noise is a fifth of it and stays as it is.
    assert!(few < octets / 2 && all > octets, "{few} and {all} for {octets} octets");
    // On this machine it would not pay.
    let (_, unset) = receive(&dovecot, count, "").await;
    assert!(unset > octets, "{unset}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_comes_through() {
    let dovecot = dovecot();
    let relay = Relay::to(dovecot.imaps_address());
    let line = "compress = true\npoll_interval = \"1h\"";
    let house = House::new(&[account(&dovecot, &relay, line)]);
    let session = house.open(Logon::Full).await;
    for count in 1..=3 {
        await_idle(&session).await;
        let text = format!("Subject: pushed {count}\r\n\r\n{}", "text\r\n".repeat(1000));
        dovecot.lmtp_deliver("ann", text.as_bytes()).unwrap();
        await_messages(&house.maildir(), "INBOX", count).await;
    }
    session.shutdown(GRACE).await.unwrap();
    assert!(relay.octets.load(Ordering::SeqCst) < 18_000, "it was not compressed");
}
