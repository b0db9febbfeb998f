//! From the delivery of a message to its file in `new`, beside a bare socket in IDLE.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use realservers::Security;
use rustix::fs::inotify;

use crate::figures::figure;
use crate::user::User;
use crate::{median, real, server};

const DELIVERIES: usize = 15;

/// How long after the bare socket the file may come.
const ALLOWED_MS: f64 = 50.0;

pub(crate) fn run() {
    let dovecot = server::start();
    let user = User::new(real::receiver(&dovecot, ""));
    let daemon = user.daemon();
    user.await_idle();
    let (bare_sees, bare) = mpsc::channel();
    let mut probe = dovecot.connect(Security::None).unwrap();
    probe.login("ann", &dovecot.password_of("ann").unwrap()).unwrap();
    probe.command("EXAMINE INBOX").unwrap();
    probe.start("IDLE").unwrap();
    std::thread::spawn(move || {
        while let Ok(response) = probe.next_response() {
            let now = Instant::now();
            if response.text.contains("EXISTS") && bare_sees.send(now).is_err() {
                return;
            }
        }
    });
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, user.maildir().join("new"), inotify::WatchFlags::MOVED_TO).unwrap();
    let (file_comes, file) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut reader = inotify::Reader::new(watch.as_fd(), &mut buffer);
        while reader.next().is_ok() {
            if file_comes.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    println!("{:>10} {:>10} {:>12}", "bare ms", "file ms", "behind ms");
    let (mut behind, mut all) = (Vec::new(), Vec::new());
    for number in 0..DELIVERIES {
        let text = format!("Subject: push {number}\r\n\r\n{}", "some text\r\n".repeat(200));
        dovecot.lmtp_deliver("ann", text.as_bytes()).unwrap();
        let delivered = Instant::now();
        let patience = Duration::from_secs(30);
        let (bare, file) =
            (bare.recv_timeout(patience).unwrap(), file.recv_timeout(patience).unwrap());
        let ms = |at: Instant| at.saturating_duration_since(delivered).as_secs_f64() * 1e3;
        let late = ms(file) - ms(bare);
        println!("{:>10.1} {:>10.1} {late:>12.1}", ms(bare), ms(file));
        behind.push(late.max(0.1));
        all.push(ms(file));
        // Back in IDLE, both of them.
        std::thread::sleep(Duration::from_millis(300));
    }
    drop(daemon);
    figure("inbound.push-behind", median(&behind), "ms", ALLOWED_MS / median(&behind), Some(1.0));
    println!("from the end of LMTP to the file: {:.0} ms (median)", median(&all));
}
