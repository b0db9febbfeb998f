//! The lives of the daemon: begun, killed, and the last one ended in order.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use postoffice::{PostOffice, Protocol};
use postrider::control::Client;
use postrider::session::{QueueRowState, Service};
use realservers::wait;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::house::PATIENCE;
use crate::ledger::Ledger;
use crate::mailbag::Mailbag;
use crate::program::Program;

/// The end of a life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) at: SystemTime,
    /// The number of the last connection that was made until then.
    connections: u64,
}

/// In which life a connection was made, counted from 0.
pub(crate) fn life_of(kills: &[Kill], connection: u64) -> usize {
    kills.partition_point(|kill| kill.connections < connection)
}

/// The daemon, however often it was begun.
pub(crate) struct Lives {
    program: Arc<Program>,
    office: Arc<PostOffice>,
    present: Option<Life>,
    kills: Vec<Kill>,
    /// How many lives were killed before they said that they were ready.
    killed_at_start: u64,
    /// How often `fsck` was run.
    checks: u64,
    log: Arc<Mutex<String>>,
}

struct Life {
    child: Child,
    ready: watch::Receiver<bool>,
    reading: JoinHandle<()>,
}

impl Lives {
    pub(crate) fn new(program: Arc<Program>, office: Arc<PostOffice>) -> Self {
        Lives {
            program,
            office,
            present: None,
            kills: Vec::new(),
            killed_at_start: 0,
            checks: 0,
            log: Arc::default(),
        }
    }

    /// How its lives ended, but for the last.
    pub(crate) fn kills(&self) -> &[Kill] {
        &self.kills
    }

    pub(crate) fn killed_at_start(&self) -> u64 {
        self.killed_at_start
    }

    pub(crate) fn checks(&self) -> u64 {
        self.checks
    }

    /// What all lives wrote to standard error.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Starts the daemon and does not wait for it.
    pub(crate) async fn begin(&mut self) {
        let mut child = self.program.command(&["run"]).stdout(Stdio::null()).spawn().unwrap();
        let (told, ready) = watch::channel(false);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (log, life) = (Arc::clone(&self.log), self.kills.len());
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("ready: profile") {
                    told.send_replace(true);
                }
                let _ = writeln!(log.lock().unwrap(), "life {life}: {line}");
            }
        });
        self.present = Some(Life { child, ready, reading });
    }

    /// Waits until it answers.
    pub(crate) async fn ready(&mut self) {
        let life = self.present.as_mut().expect("a daemon");
        let waited = tokio::time::timeout(PATIENCE, life.ready.wait_for(|ready| *ready)).await;
        let ready = waited.is_ok_and(|heard| heard.is_ok());
        assert!(ready, "the daemon is not ready:\n{}", self.log());
    }

    /// Kills it once its time is over.
    pub(crate) async fn end_after(&mut self, span: Duration) {
        let mut life = self.present.take().expect("a daemon");
        let ended = tokio::time::timeout(span, life.child.wait()).await;
        assert!(ended.is_err(), "the daemon ended by itself: {ended:?}\n{}", self.log());
        if !*life.ready.borrow() {
            self.killed_at_start += 1;
        }
        let at = SystemTime::now();
        life.child.kill().await.unwrap();
        let made = |protocol| self.office.counters(protocol).connections;
        let connections = made(Protocol::Smtp) + made(Protocol::Imap);
        self.kills.push(Kill { at, connections });
        life.reading.await.unwrap();
    }

    /// Asks it to stop, which it has to do with success.
    pub(crate) async fn stop(&mut self) {
        let mut life = self.present.take().expect("a daemon");
        let pid = Pid::from_raw(i32::try_from(life.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, life.child.wait()).await;
        let status = ended.expect("the daemon stops").unwrap();
        life.reading.await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// Has `fsck` look at the spool between two lives, where the program has that command.
    pub(crate) async fn check_spool(&mut self, round: u32) {
        let help = self.program.run(&["--help"]).await.out;
        if !help.lines().any(|line| line.trim_start().starts_with("fsck ")) {
            return;
        }
        let mut said = self.program.run(&["fsck"]).await;
        // Others want the spool at this moment, too, and on a busy machine one may wait in vain.
        let begun = Instant::now();
        while said.code == 75 && said.err.contains("MAPI_E_BUSY") && begun.elapsed() < PATIENCE {
            said = self.program.run(&["fsck"]).await;
        }
        assert_eq!(said.code, 0, "after round {round}: {said:?}");
        self.checks += 1;
    }

    /// Waits until the queue is empty, what was held is released, and all mail is fetched.
    pub(crate) async fn drain(&mut self, ledger: &Ledger, bag: &Mailbag, limit: Duration) {
        self.ready().await;
        let socket = self.program.socket();
        let emptied = wait::until_async("an empty queue", limit, async || {
            release_all(&socket, ledger).await.then_some(())
        });
        if let Err(error) = emptied.await {
            let queue = self.program.json(&["queue"]).await;
            panic!("{error}:\n{queue:#}\n{}", self.log());
        }
        let maildir = self.program.maildir();
        let fetched = wait::until_async("all mail to be fetched", limit, async || {
            bag.is_fetched(&maildir).await.then_some(())
        });
        if let Err(error) = fetched.await {
            panic!("{error}: {}\n{}", bag.state(&maildir).await, self.log());
        }
    }
}

/// Brings everything forward that waits; whether nothing is left.
async fn release_all(socket: &Path, ledger: &Ledger) -> bool {
    let client = Client::connect(socket).await.unwrap();
    let rows = client.queue(None, 1000).await.unwrap();
    for row in &rows {
        let entry = row.id.parse().unwrap();
        if row.state == QueueRowState::InDoubt {
            ledger.tally().in_doubt.insert(row.id.clone());
        }
        // It may have moved on since it was listed.
        let _ = match row.state {
            QueueRowState::Held => client.release(&entry).await,
            QueueRowState::Deferred => client.retry(Some(&entry)).await.map(drop),
            _ => Ok(()),
        };
    }
    rows.is_empty()
}
