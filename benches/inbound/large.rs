//! One message of 200 MB: how long, and how much memory.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use crate::figures::figure;
use crate::user::{User, await_true, folder, holds};
use crate::{median, real, rounds, server};

const SIZE: usize = 200_000_000;

/// What may come on top of the memory of an idle daemon.
const ALLOWED_MB: f64 = 16.0;

pub(crate) fn run() {
    let dovecot = server::start();
    let text = server::message(1, SIZE);
    let user = User::new(real::receiver(&dovecot, ""));
    let daemon = user.daemon();
    user.await_idle();
    let root = dovecot.maildir("ann", "INBOX");
    println!("{:>10} {:>10} {:>10} {:>10}", "floor s", "fetch s", "idle MB", "peak MB");
    let (mut floors, mut ours, mut above) = (Vec::new(), Vec::new(), Vec::new());
    // Before the first one: what is kept after a round counts as well.
    let mut idle = None;
    for number in 0..rounds() {
        let floor = floor(&text);
        daemon.forget_peak();
        let idle = *idle.get_or_insert_with(|| daemon.kib("VmRSS:"));
        server::place(&root, &text, &format!("{}.M1P1.bench", 1_700_000_000 + number));
        let began = Instant::now();
        await_true("the message", || holds(&user.maildir().join("new"), number + 1));
        let took = began.elapsed().as_secs_f64();
        let peak = daemon.kib("VmHWM:");
        println!("{floor:>10.2} {took:>10.2} {:>10.1} {:>10.1}", mb(idle), mb(peak));
        floors.push(floor);
        ours.push(took);
        above.push(mb(peak.saturating_sub(idle)));
    }
    let peak = above.iter().copied().fold(0.1, f64::max);
    figure("inbound.large-memory", peak, "MB", ALLOWED_MB / peak, Some(1.0));
    // Dovecot takes up to half a second to say that the message is there.
    figure("inbound.large-floor", median(&ours), "s", median(&floors) / median(&ours), None);
}

fn mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

/// The same octets written and synced.
fn floor(text: &[u8]) -> f64 {
    let folder = folder();
    let began = Instant::now();
    let mut file = File::create_new(folder.path().join("floor")).unwrap();
    text.chunks(256 * 1024).for_each(|part| file.write_all(part).unwrap());
    file.sync_all().unwrap();
    began.elapsed().as_secs_f64()
}
