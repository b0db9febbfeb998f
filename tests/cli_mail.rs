//! The program with real mail: the same commands with a daemon and without one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs,
    dead_code,
    unreachable_pub
)]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use postoffice::{Listener, PostOffice};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Nothing here waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A home with a profile whose servers are a post office of the test.
struct Home {
    folder: tempfile::TempDir,
    office: PostOffice,
    _runtime: tokio::runtime::Runtime,
}

impl Home {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let office = runtime
            .block_on(PostOffice::builder().user("ann", "secret").catch_all("ann").start())
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let home = Home { folder, office, _runtime: runtime };
        home.write_profile("");
        home
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn write_profile(&self, more: &str) {
        let (smtps, imaps) = (self.office.port(Listener::Smtps), self.office.port(Listener::Imaps));
        std::fs::create_dir_all(self.path(".config/postrider")).unwrap();
        std::fs::write(self.path(".config/postrider/ca.pem"), self.office.ca_pem()).unwrap();
        let text = format!(
            "[[transport]]\nname = \"work\"\nidentity = \"Ann <ann@example.org>\"\n\
             [transport.smtp]\nhost = \"localhost\"\nport = {smtps}\nca_file = \"ca.pem\"\n\
             user = \"ann\"\npassword = {{ env = \"PW\" }}\n\
             [transport.imap]\nhost = \"localhost\"\nport = {imaps}\nca_file = \"ca.pem\"\n\
             [store]\nmaildir = \"~/Mail\"\n{more}"
        );
        std::fs::write(self.path(".config/postrider/work.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PW", "secret")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs and returns exit code, standard output, standard error.
    fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        told(&self.command(arguments).output().unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.said(&[&["--json"], arguments].concat());
        assert_eq!(code, 0, "{arguments:?}: {err}");
        serde_json::from_str(&out).unwrap()
    }

    /// Sends and returns the entry id.
    fn send(&self, to: &str) -> String {
        let (code, out, err) = self.said(&["send", "-t", to, "-s", "Grüße", "--body", "hi"]);
        assert_eq!(code, 0, "{err}");
        out.trim_end().to_owned()
    }

    /// How many messages lie in a folder of the Maildir.
    fn mail(&self, folder: &str) -> usize {
        let entries = std::fs::read_dir(self.path("Mail").join(folder));
        entries.map_or(0, Iterator::count)
    }

    fn daemon(&self) -> Daemon {
        let mut child = self.command(&["run"]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the daemon ended");
        }
        let (lines, log_lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                // Nobody may be listening any more.
                let _unheard = lines.send(line);
            }
        });
        Daemon { child, log_lines }
    }
}

struct Daemon {
    child: Child,
    log_lines: std::sync::mpsc::Receiver<String>,
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn wait_for(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log_lines.recv_timeout(left).expect(words);
            if line.contains(words) {
                return;
            }
        }
    }

    fn stop(mut self) -> i32 {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("an exit code");
            }
            assert!(Instant::now() < deadline, "the daemon does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn told(output: &Output) -> (i32, String, String) {
    (
        output.status.code().expect("an exit code"),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn without_a_daemon_mail_goes_out_and_in_by_flush_and_fetch() {
    let home = Home::new();
    let (code, out, err) = home.said(&["send", "-t", "bob@example.net", "-s", "x", "--body", "hi"]);
    assert_eq!(code, 0);
    assert!(err.contains("no daemon is running"), "{err}");
    let id = out.trim_end();
    let queue = home.json(&["queue"]);
    assert_eq!((&queue[0]["id"], &queue[0]["state"]), (&id.into(), &"queued".into()));
    assert_eq!(home.json(&["status"])["queue"]["queued"], 1);
    assert_eq!(home.office.accepted_count(), 0);
    let flushed = home.json(&["flush", "--upload"]);
    assert_eq!((&flushed["sent"], &flushed["left"]), (&1.into(), &0.into()));
    assert_eq!(home.office.accepted_count(), 1);
    let row = home.json(&["queue", "show", id]);
    assert_eq!(row["state"], "finished");
    assert_eq!(row["recipients"][0]["state"], "delivered");
    assert_eq!(home.json(&["fetch"])["received"], 1);
    assert_eq!((home.mail("new"), home.mail(".Sent/cur")), (1, 1));
    assert_eq!(home.json(&["fetch"])["received"], 0);
}

#[test]
fn the_queue_can_be_changed_without_a_daemon() {
    let home = Home::new();
    let (held, cancelled) = (home.send("a@example.net"), home.send("b@example.net"));
    let (code, out, _) = home.said(&["export", &held]);
    assert_eq!(code, 0);
    assert!(out.contains("Subject: =?utf-8?") && out.contains("\r\n\r\nhi"), "{out}");
    assert_eq!(home.said(&["hold", &held]).1, format!("{held} held\n"));
    assert_eq!(home.said(&["cancel", &cancelled]).1, format!("{cancelled} cancelled\n"));
    let (code, out, err) = home.said(&["cancel", &cancelled]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("MAPI_E_NOT_IN_QUEUE"), "{err}");
    assert_eq!(home.json(&["flush", "--upload"])["sent"], 0);
    let (code, _, err) = home.said(&["profile", "remove", "work"]);
    assert_eq!(code, 1);
    assert!(err.contains("--force"), "{err}");
    // The end tells two messages of the same millisecond apart, so a beginning needs most of it.
    assert_eq!(home.said(&["release", &held[..25]]).1, format!("{held} released\n"));
    assert_eq!(home.json(&["flush", "--upload"])["sent"], 1);
    assert_eq!(home.office.accepted_count(), 1);
    assert_eq!(home.said(&["profile", "remove", "work"]).0, 0);
}

#[test]
fn with_a_daemon_each_recipient_has_an_outcome() {
    let home = Home::new();
    let daemon = home.daemon();
    let send = ["send", "-t", "bob@example.net", "-t", "550-5.1.1@example.net", "--body", "hi"];
    let (code, out, err) = home.said(&[&send[..], &["--wait"]].concat());
    assert_eq!(code, 1, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[1].starts_with("bob@example.net\tdelivered\t250"), "{out}");
    assert!(lines[2].starts_with("550-5.1.1@example.net\tfailed\t550 5.1.1"), "{out}");
    let mut raw = home.command(&["send", "--raw", "--wait"]).stdin(Stdio::piped()).spawn().unwrap();
    raw.stdin.take().unwrap().write_all(b"To: bob@example.net\r\n\r\nraw\r\n").unwrap();
    assert_eq!(told(&raw.wait_with_output().unwrap()).0, 0);
    assert_eq!(home.said(&["notify", "end-outbound"]), (0, "S_OK\n".into(), String::new()));
    let waiting = home.send("carol@example.net");
    let (code, out, _) = home.said(&["notify", "begin-outbound", "--transport", "nope"]);
    assert_eq!((code, out.as_str()), (1, "MAPI_E_NOT_FOUND 0x8004010F\n"));
    assert_eq!(home.json(&["queue", "show", &waiting])["state"], "queued");
    assert_eq!(home.said(&["notify", "begin-outbound"]).0, 0);
    let status = home.json(&["status"]);
    assert_eq!(status["pid"], daemon.child.id());
    assert_eq!(status["rows"][0]["name"], "work");
    let (code, _, err) = home.said(&["run"]);
    assert_eq!(code, 75);
    assert!(err.contains("already"), "{err}");
    assert_eq!(daemon.stop(), 0);
    assert!(!home.path(".local/state/postrider/work/control.sock").exists());
}

#[test]
fn a_reload_reads_the_profile_and_a_broken_one_changes_nothing() {
    let home = Home::new();
    let daemon = home.daemon();
    home.write_profile("sent = false\n");
    daemon.signal(Signal::HUP);
    daemon.wait_for("ready");
    let send = ["send", "-t", "bob@example.net", "--body", "hi", "--wait"];
    assert_eq!(home.said(&send).0, 0);
    assert_eq!(home.mail(".Sent/cur"), 0, "the new profile keeps no copies");
    home.write_profile("snet = false\n");
    daemon.signal(Signal::HUP);
    daemon.wait_for("did you mean sent?");
    daemon.wait_for("ready");
    assert_eq!(home.json(&["status"])["pid"], daemon.child.id());
    home.write_profile("");
    assert_eq!(home.said(&send).0, 0);
    assert_eq!(daemon.stop(), 0);
}

/// One that can be read and not be opened; asked twice, because after the first time it must not
/// be what the daemon goes back to.
#[test]
fn a_reload_that_cannot_be_opened_leaves_the_old_profile_in_force() {
    let home = Home::new();
    let daemon = home.daemon();
    std::fs::write(home.path("file"), "no folder").unwrap();
    let good = std::fs::read_to_string(home.path(".config/postrider/work.toml")).unwrap();
    let line = good.lines().find(|line| line.starts_with("maildir")).unwrap();
    let broken = good.replace(line, &format!("maildir = {:?}", home.path("file")));
    for _ in 0..2 {
        std::fs::write(home.path(".config/postrider/work.toml"), &broken).unwrap();
        daemon.signal(Signal::HUP);
        daemon.wait_for("use the reloaded profile");
        daemon.wait_for("ready");
        assert_eq!(home.json(&["status"])["pid"], daemon.child.id());
    }
    std::fs::write(home.path(".config/postrider/work.toml"), &good).unwrap();
    let send = ["send", "-t", "bob@example.net", "--body", "hi", "--wait"];
    assert_eq!(home.said(&send).0, 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn commands_without_a_daemon_wait_for_each_other() {
    let home = Home::new();
    let children: Vec<Child> = (0..6)
        .map(|_| home.command(&["send", "-t", "b@example.net", "--body", "x"]).spawn().unwrap())
        .collect();
    for child in children {
        let (code, _, err) = told(&child.wait_with_output().unwrap());
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(home.json(&["queue"]).as_array().unwrap().len(), 6);
}

#[test]
fn check_logs_in_both_ways() {
    let home = Home::new();
    let reports = home.json(&["profile", "check"]);
    assert_eq!(reports.as_array().unwrap().len(), 2);
    assert!(reports.as_array().unwrap().iter().all(|report| report["ok"] == true), "{reports}");
    assert!(reports[0]["offers"].to_string().contains("PIPELINING"), "{reports}");
    let wrong = home.command(&["profile", "check"]).env("PW", "hunter2").output().unwrap();
    let (code, out, err) = told(&wrong);
    assert_eq!(code, 1);
    assert_eq!(out.matches("MAPI_E_LOGON_FAILED").count(), 2, "{out}");
    assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
}
