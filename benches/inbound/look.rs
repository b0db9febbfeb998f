//! Nothing new in a mailbox of a hundred thousand.

use crate::figures::figure;
use crate::house::{Account, Server};
use crate::peers::Mbsync;
use crate::relay::Relay;
use crate::user::User;
use crate::{median, rounds, server};
use realservers::Security;

const MESSAGES: usize = 100_000;

/// What a look may take after the login.
const ALLOWED_MS: f64 = 50.0;

pub(crate) fn run() {
    let dovecot = server::start();
    server::fill(&dovecot, "ann", &vec![400; MESSAGES]);
    let relay = Relay::to(dovecot.imap_address());
    let password = dovecot.password_of("ann").unwrap();
    let imap = Server::plain(relay.address).login("ann", &password);
    let user = User::new(Account::new("work", "ann@example.test").imap(imap));
    let peer = Mbsync::new(&dovecot, "ann", Some(relay.address.port()));
    let took = user.fetch();
    assert_eq!(user.new_messages(), MESSAGES);
    println!("{MESSAGES} messages; the first fetch took {:.1} s", took.wall.as_secs_f64());
    if let Some(peer) = &peer {
        println!("mbsync's first took {:.1} s", peer.pull().wall.as_secs_f64());
    }
    println!(
        "{:>12} {:>10} {:>10} {:>8} {:>10} {:>10} {:>8}",
        "bare ms", "mbsync ms", "octets", "all ms", "fetch ms", "octets", "all ms"
    );
    let (mut bares, mut theirs, mut ours, mut whole) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds().max(5) {
        let mut probe = dovecot.connect(Security::None).unwrap();
        probe.login("ann", &password).unwrap();
        let began = std::time::Instant::now();
        probe.command("EXAMINE INBOX").unwrap();
        let bare = began.elapsed().as_secs_f64() * 1e3;
        drop(probe);
        let peer = peer.as_ref().map(|peer| {
            let took = peer.pull();
            let (work, octets) = relay.last().lock().unwrap().work();
            (work, octets, took.wall.as_secs_f64() * 1e3)
        });
        let took = user.fetch();
        let (work, octets) = relay.last().lock().unwrap().work();
        let all = took.wall.as_secs_f64() * 1e3;
        let (peer_work, peer_octets, peer_all) = peer.unwrap_or((f64::NAN, 0, f64::NAN));
        println!(
            "{bare:>12.1} {peer_work:>10.1} {peer_octets:>10} {peer_all:>8.0} {work:>10.1} \
             {octets:>10} {all:>8.0}"
        );
        bares.push(bare);
        ours.push(work);
        whole.push(all);
        theirs.extend(peer.map(|peer| peer.0));
    }
    let work = median(&ours);
    figure("inbound.look-allowed", work, "ms", ALLOWED_MS / work, Some(1.0));
    figure("inbound.look-bare", work, "ms", median(&bares) / work, None);
    if !theirs.is_empty() {
        figure("inbound.look-mbsync", work, "ms", median(&theirs) / work, None);
    }
    println!("the whole command, from its start to its end: {:.0} ms", median(&whole));
}
