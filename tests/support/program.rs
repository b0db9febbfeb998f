//! The real program with folders of its own, over a post office of the test.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use postoffice::PostOffice;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::house::{PATIENCE, profile_text};
use crate::office::account;

/// One user's folders with one profile.
pub(crate) struct Program {
    folder: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    /// With a profile for ann at that post office; the lines are for the section of IMAP.
    pub(crate) fn new(office: &PostOffice, lines: &[&str]) -> Self {
        let program = Program { folder: tempfile::tempdir().unwrap() };
        let config = program.path("config");
        std::fs::create_dir(&config).unwrap();
        let account = account(office, &config, lines);
        program.write_profile(&profile_text(&[account], &program.maildir()));
        program
    }

    /// Replaces the profile.
    pub(crate) fn write_profile(&self, text: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let mut file = options.open(self.path("config/test.toml")).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    /// A path in the user's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The local Maildir.
    pub(crate) fn maildir(&self) -> PathBuf {
        self.path("Mail")
    }

    /// The control socket of the daemon.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("state/test/control.sock")
    }

    /// A command, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(executable());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .arg("--config")
            .arg(self.path("config"))
            .arg("--state")
            .arg(self.path("state"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).spawn().unwrap()).await
    }

    /// Runs a command that reads `input`.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        run(self.command(arguments), input).await
    }

    /// Runs a command that has to succeed and gives its JSON document.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[&["--json"], arguments].concat()).await;
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    /// Waits until nothing is in the queue any more.
    pub(crate) async fn await_empty_queue(&self) {
        let waited = realservers::wait::until_async("an empty queue", PATIENCE, async || {
            self.json(&["queue"]).await.as_array().unwrap().is_empty().then_some(())
        });
        waited.await.unwrap();
    }

    /// Queues a message and gives its entry id.
    pub(crate) async fn send(&self, subject: &str, to: &str) -> String {
        let said = self.run(&["send", "-t", to, "-s", subject, "--body", "hello\n"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        said.out.trim_end().to_owned()
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) async fn daemon(&self) -> Daemon {
        let mut command = self.command(&["run"]);
        command.stdout(Stdio::null());
        Daemon::start(command).await
    }
}

/// The program under test; `POSTRIDER_PROGRAM` names another build of it.
pub(crate) fn executable() -> std::ffi::OsString {
    std::env::var_os("POSTRIDER_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_postrider").into())
}

/// Reads the rest, so that the daemon is never stopped by a full pipe; a test that fails shows it.
async fn read_on(mut log: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(line)) = log.next_line().await {
        println!("{line}");
    }
}

/// Runs a command that reads `input`.
pub(crate) async fn run(mut command: Command, input: &[u8]) -> Said {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = tokio::spawn(async move {
        // The program may refuse before it has read everything.
        let _ = stdin.write_all(&input).await;
    });
    let said = said(child).await;
    writing.await.unwrap();
    said
}

/// Waits for the end of a command.
pub(crate) async fn said(child: Child) -> Said {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("the command ends").unwrap();
    Said {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running daemon; killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    said: Vec<String>,
    _reading: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// Starts it by this command and waits until it is ready.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let ready = tokio::time::timeout(PATIENCE, async {
            loop {
                match log.next_line().await.unwrap() {
                    Some(line) if line.contains("ready") => return true,
                    Some(line) => said.push(line),
                    None => return false,
                }
            }
        });
        let ready = ready.await.unwrap_or(false);
        assert!(ready, "the daemon is not ready: {said:?}");
        let reading = tokio::spawn(read_on(log));
        Daemon { child, said, _reading: reading }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What it said before it was ready.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    /// Asks it to read its profile anew.
    pub(crate) fn reload(&self) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    /// Kills it at once, as a crash would.
    pub(crate) async fn crash(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop and gives its exit code.
    pub(crate) async fn stop(mut self, signal: Signal) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the daemon stops").unwrap().code().expect("an exit code")
    }
}

/// Asserts that a failure is one line of this program.
pub(crate) fn assert_one_line(said: &Said) {
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(said.err.starts_with("postrider: "), "{said:?}");
}

/// Whether a file exists in a folder below.
pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
