//! Mail through the house beside Postfix on the same disk, in turn: end to end, a backlog, and one
//! message to many.
//!
//! `cargo bench --bench relay -- [relay] [drain] [fanout] [rounds=N] [messages=N] [dir=FOLDER]`
//! (default: all three, two rounds, 5,000 messages). `smtp-source` hands the mail over,
//! `smtp-sink` takes it; both servers say 250 only when a message is durable, and neither keeps a
//! copy of what was sent (`sent = false`); what a copy costs is measured beside it. Of several
//! rounds the median counts. `ours` alone leaves Postfix out, for a profiler.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code
)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/figures.rs"]
mod figures;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::{Daemon, Home, PATIENCE, sending_profile};
use figures::figure;
use postrider::mapi::TransportNotify;
use postrider::session::{NotifyRequest, Service};
use realservers::{Dovecot, DovecotOptions, Postfix, PostfixOptions, SinkOptions, SmtpSink};

/// Octets of a message.
const SIZE: u32 = 4_096;
/// What a message may cost of the processor.
const CPU_ALLOWED_MS: f64 = 0.5;
/// Messages to fifty recipients each.
const FANS: u64 = 500;

struct Plan {
    what: Vec<String>,
    rounds: usize,
    messages: u64,
    dir: PathBuf,
    alone: bool,
}

fn main() {
    let mut plan = Plan {
        what: Vec::new(),
        rounds: 2,
        messages: 5_000,
        dir: std::env::temp_dir(),
        alone: false,
    };
    // cargo itself passes `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with("--")) {
        match arg.split_once('=') {
            Some(("rounds", number)) => plan.rounds = number.parse().unwrap(),
            Some(("messages", number)) => plan.messages = number.parse().unwrap(),
            Some(("dir", dir)) => plan.dir = dir.into(),
            _ if arg == "ours" => plan.alone = true,
            _ => plan.what.push(arg),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&plan));
}

impl Plan {
    fn wants(&self, what: &str) -> bool {
        self.what.is_empty() || self.what.iter().any(|wanted| wanted == what)
    }
}

/// Postfix with a sink behind it, and where its mail goes.
struct Peer {
    postfix: Postfix,
    _dovecot: Dovecot,
}

fn peer(sink: &SmtpSink) -> Peer {
    let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
    let set = |name: &str, value: String| (name.to_owned(), value);
    let main = vec![
        set("default_transport", "smtp".to_owned()),
        set("relayhost", format!("[127.0.0.1]:{}", sink.address().port())),
        set("mynetworks", "127.0.0.0/8".to_owned()),
        set("smtpd_relay_restrictions", "permit_mynetworks, reject".to_owned()),
        set("smtpd_tls_security_level", "none".to_owned()),
        set("smtp_tls_security_level", "none".to_owned()),
        // Only the flush is to take up what was deferred.
        set("queue_run_delay", "1h".to_owned()),
        set("minimal_backoff_time", "1h".to_owned()),
        set("maximal_backoff_time", "1h".to_owned()),
        set("transport_retry_time", "1s".to_owned()),
    ];
    let postfix = Postfix::start(&dovecot, PostfixOptions { main }).unwrap();
    Peer { postfix, _dovecot: dovecot }
}

/// Hands mail over by SMTP over ten connections.
fn source(to: SocketAddr, messages: u64, recipients: u32) -> std::process::Child {
    let mut command = Command::new("/usr/sbin/smtp-source");
    command.args(["-s", "10", "-l", &SIZE.to_string(), "-m", &messages.to_string()]);
    command.args(["-r", &recipients.to_string()]);
    command.args(["-f", "ann@example.test", "-t", "bob@example.net", &to.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("smtp-source starts")
}

async fn await_sunk(sink: &SmtpSink, messages: u64) {
    let until = Instant::now() + PATIENCE;
    while sink.counts().unwrap().messages < messages {
        assert!(Instant::now() < until, "only {:?} of {messages}", sink.counts());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Messages a second from the first byte in to the last message out, and how long `source` had.
async fn relayed(to: SocketAddr, sink: &SmtpSink, messages: u64, recipients: u32) -> (f64, f64) {
    let before = sink.counts().unwrap().messages;
    let started = Instant::now();
    let mut source = source(to, messages, recipients);
    let accepting = tokio::task::spawn_blocking(move || {
        assert!(source.wait().unwrap().success());
        started.elapsed()
    });
    await_sunk(sink, before + messages).await;
    let rate = messages as f64 / started.elapsed().as_secs_f64();
    let accepted = messages as f64 / accepting.await.unwrap().as_secs_f64();
    (rate, accepted)
}

/// Whether nothing is left to do for the daemon.
async fn await_quiet(daemon: &Daemon) {
    let until = Instant::now() + PATIENCE;
    loop {
        let counts = daemon.client.status().await.unwrap().queue;
        if counts.queued + counts.sending + counts.deferred == 0 {
            return;
        }
        assert!(Instant::now() < until, "it does not come to rest: {counts:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// One of ours: daemon and sink of its own.
struct Ours {
    _home: Home,
    daemon: Daemon,
    sink: SmtpSink,
}

async fn ours(dir: &Path, sent: bool) -> Ours {
    let sink = SmtpSink::start(SinkOptions::default()).unwrap();
    let home = Home::new(dir, |folder| sending_profile(sink.address(), sent, folder));
    let daemon = home.daemon().await;
    Ours { _home: home, daemon, sink }
}

impl Ours {
    fn port(&self) -> SocketAddr {
        self.daemon.listens.expect("it listens")
    }

    /// Rate and processor milliseconds a message, everything settled.
    async fn relay(&self, messages: u64, recipients: u32) -> (f64, f64, f64) {
        let cpu = self.daemon.cpu();
        let (rate, accepted) = relayed(self.port(), &self.sink, messages, recipients).await;
        await_quiet(&self.daemon).await;
        let cpu = (self.daemon.cpu() - cpu).as_secs_f64() * 1_000.0 / messages as f64;
        (rate, accepted, cpu)
    }

    async fn drain(&self, messages: u64) -> (f64, f64) {
        self.sink.stop().unwrap();
        let mut source = source(self.port(), messages, 1);
        assert!(
            tokio::task::spawn_blocking(move || source.wait()).await.unwrap().unwrap().success()
        );
        self.sink.start_again().unwrap();
        let (cpu, started) = (self.daemon.cpu(), Instant::now());
        let flags = TransportNotify::BEGIN_OUTBOUND_FLUSH.bits();
        let request = NotifyRequest { flags, ..NotifyRequest::default() };
        self.daemon.client.notify(request).await.unwrap();
        await_sunk(&self.sink, messages).await;
        let rate = messages as f64 / started.elapsed().as_secs_f64();
        await_quiet(&self.daemon).await;
        let cpu = (self.daemon.cpu() - cpu).as_secs_f64() * 1_000.0 / messages as f64;
        (rate, cpu)
    }
}

async fn postfix_drain(peer: &Peer, sink: &SmtpSink, messages: u64) -> f64 {
    sink.stop().unwrap();
    let mut source = source(peer.postfix.smtp_address(), messages, 1);
    assert!(source.wait().unwrap().success());
    let until = Instant::now() + PATIENCE;
    // Everything deferred: the active queue is empty again.
    let mut calm = 0;
    while calm < 5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        calm = if peer.postfix.active().unwrap() == 0 { calm + 1 } else { 0 };
        assert!(Instant::now() < until, "Postfix does not defer");
    }
    sink.start_again().unwrap();
    let started = Instant::now();
    peer.postfix.flush_queue().unwrap();
    await_sunk(sink, messages).await;
    messages as f64 / started.elapsed().as_secs_f64()
}

async fn measure(plan: &Plan) {
    let peer_sink = SmtpSink::start(SinkOptions::default()).unwrap();
    let peer = (!plan.alone).then(|| peer(&peer_sink));
    let messages = plan.messages;
    if plan.wants("relay") {
        let (mut rates, mut cpus, mut theirs, mut kept) = (vec![], vec![], vec![], vec![]);
        for round in 1..=plan.rounds {
            let ours = ours(&plan.dir, false).await;
            let (rate, accepted, cpu) = ours.relay(messages, 1).await;
            println!("relay {round}: {rate:.0}/s (accepted {accepted:.0}/s), {cpu:.2} CPU ms");
            rates.push(rate);
            cpus.push(cpu);
            ours.daemon.stop().await;
            if let Some(peer) = &peer {
                let to = peer.postfix.smtp_address();
                let (rate, accepted) = relayed(to, &peer_sink, messages, 1).await;
                println!("relay {round}: Postfix {rate:.0}/s (accepted {accepted:.0}/s)");
                theirs.push(rate);
            }
            if !plan.alone {
                let ours = self::ours(&plan.dir, true).await;
                let (rate, _, cpu) = ours.relay(messages, 1).await;
                println!("relay {round}: {rate:.0}/s, {cpu:.2} CPU ms with sent copies");
                kept.push(rate);
            }
        }
        let cpu = median(&mut cpus);
        figure("relay.cpu", cpu, "ms/msg", CPU_ALLOWED_MS / cpu, Some(1.0));
        if !plan.alone {
            let (ours, theirs) = (median(&mut rates), median(&mut theirs));
            figure("relay.rate", ours, "msg/s", ours / theirs, Some(10.0));
            let kept = median(&mut kept);
            figure("relay.rate-with-sent-copies", kept, "msg/s", kept / theirs, None);
        }
    }
    if plan.wants("drain") {
        let (mut rates, mut theirs) = (vec![], vec![]);
        for round in 1..=plan.rounds {
            let ours = ours(&plan.dir, false).await;
            let (rate, cpu) = ours.drain(messages).await;
            println!("drain {round}: {rate:.0}/s, {cpu:.2} CPU ms");
            rates.push(rate);
            ours.daemon.stop().await;
            if let Some(peer) = &peer {
                let rate = postfix_drain(peer, &peer_sink, messages).await;
                println!("drain {round}: Postfix {rate:.0}/s");
                theirs.push(rate);
            }
        }
        if !plan.alone {
            let (ours, theirs) = (median(&mut rates), median(&mut theirs));
            figure("relay.drain", ours, "msg/s", ours / theirs, Some(6.0));
        }
    }
    if plan.wants("fanout") {
        let (mut rates, mut theirs) = (vec![], vec![]);
        for round in 1..=plan.rounds {
            let ours = ours(&plan.dir, false).await;
            let (rate, _, cpu) = ours.relay(FANS, 50).await;
            println!("fanout {round}: {rate:.0}/s, {cpu:.2} CPU ms");
            let counts = ours.sink.counts().unwrap();
            assert_eq!(counts.messages, FANS, "one transaction each");
            rates.push(rate);
            ours.daemon.stop().await;
            if let Some(peer) = &peer {
                let to = peer.postfix.smtp_address();
                let (rate, _) = relayed(to, &peer_sink, FANS, 50).await;
                println!("fanout {round}: Postfix {rate:.0}/s");
                theirs.push(rate);
            }
        }
        if !plan.alone {
            let (ours, theirs) = (median(&mut rates), median(&mut theirs));
            figure("relay.fanout", ours, "msg/s", ours / theirs, Some(10.0));
        }
    }
}
