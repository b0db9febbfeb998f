//! Ten thousand messages into a fresh Maildir.

use crate::figures::figure;
use crate::peers::{Mbsync, floor};
use crate::user::{User, folder};
use crate::{median, real, rounds, server};

const MESSAGES: usize = 10_000;

pub(crate) fn run() {
    let dovecot = server::start();
    let sizes = server::sizes(MESSAGES);
    server::fill(&dovecot, "ann", &sizes);
    let megabytes = sizes.iter().sum::<usize>() as f64 / 1e6;
    println!("{MESSAGES} messages, {megabytes:.0} MB, TLS; everything synced");
    println!(
        "{:>10} {:>10} {:>8} {:>10} {:>8}",
        "floor s", "mbsync s", "cpu s", "fetch s", "cpu s"
    );
    let (mut floors, mut theirs, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let (mut their_cpu, mut our_cpu) = (Vec::new(), Vec::new());
    // Nothing is removed before the end: for some seconds ext4 makes way around the inodes that
    // were freed, at the cost of whoever is measured next.
    let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
    for _ in 0..rounds() {
        // What the server was filled with is nobody's work here.
        rustix::fs::sync();
        let folder = folder();
        let floor = floor(&folder, &sizes).as_secs_f64();
        kept.push(Box::new(folder));
        let peer = Mbsync::new(&dovecot, "ann", None).map(|peer| {
            let took = peer.pull();
            assert_eq!(peer.messages(), MESSAGES);
            kept.push(Box::new(peer));
            took
        });
        let user = User::new(real::receiver(&dovecot, ""));
        let took = user.fetch();
        assert_eq!(user.new_messages(), MESSAGES);
        kept.push(Box::new(user));
        let peer = peer.map(|peer| (peer.wall.as_secs_f64(), peer.cpu.as_secs_f64()));
        let (wall, cpu) = (took.wall.as_secs_f64(), took.cpu.as_secs_f64());
        let (peer_wall, peer_cpu) = peer.unwrap_or((f64::NAN, f64::NAN));
        println!("{floor:>10.2} {peer_wall:>10.2} {peer_cpu:>8.2} {wall:>10.2} {cpu:>8.2}");
        floors.push(floor);
        ours.push(wall);
        our_cpu.push(cpu);
        theirs.extend(peer.map(|peer| peer.0));
        their_cpu.extend(peer.map(|peer| peer.1));
    }
    let wall = median(&ours);
    figure("inbound.fetch-floor", wall, "s", median(&floors) / wall, Some(1.0 / 1.1));
    if !theirs.is_empty() {
        figure("inbound.fetch-mbsync", wall, "s", median(&theirs) / wall, Some(4.0));
        let cpu = median(&our_cpu);
        figure("inbound.fetch-cpu", cpu, "s", median(&their_cpu) / cpu, None);
    }
}
