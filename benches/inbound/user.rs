//! One user of the real program, with folders of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::house::{Account, profile_text};

/// Folders and a profile.
pub(crate) struct User {
    folder: tempfile::TempDir,
}

/// What a command took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl User {
    pub(crate) fn new(account: Account) -> Self {
        let user = User { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(user.path("config")).unwrap();
        let text = profile_text(&[account], &user.maildir());
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).write(true).mode(0o600);
        let mut file = file.open(user.path("config/test.toml")).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        user
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn maildir(&self) -> PathBuf {
        self.path("Mail")
    }

    pub(crate) fn new_messages(&self) -> usize {
        std::fs::read_dir(self.maildir().join("new")).map_or(0, Iterator::count)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = std::env::var_os("POSTRIDER_PROGRAM")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_postrider").into());
        let mut command = Command::new(program);
        command.env("HOME", self.folder.path());
        command.arg("--config").arg(self.path("config")).arg("--state").arg(self.path("state"));
        command.args(arguments);
        command
    }

    /// `postrider fetch`.
    pub(crate) fn fetch(&self) -> Took {
        run(&mut self.command(&["fetch"]))
    }

    /// `postrider run`, ready.
    pub(crate) fn daemon(&self) -> Daemon {
        let mut command = self.command(&["run"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the daemon does not start");
        }
        let _ = std::thread::spawn(move || log.lines().for_each(drop));
        Daemon(child)
    }

    /// Whether the daemon waits for news.
    pub(crate) fn await_idle(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            let output = self.command(&["--json", "status"]).output().unwrap();
            if String::from_utf8_lossy(&output.stdout).contains("\"mode\": \"idle\"")
                || String::from_utf8_lossy(&output.stdout).contains("\"mode\":\"idle\"")
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the daemon does not watch its mailbox");
    }
}

/// A daemon; killed when dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A number of KiB in `/proc/<pid>/status`.
    pub(crate) fn kib(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
    }

    /// Counts the peak of its memory anew.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that has to succeed.
pub(crate) fn run(command: &mut Command) -> Took {
    let (began, cpu) = (Instant::now(), children_cpu());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let took = Took { wall: began.elapsed(), cpu: children_cpu() - cpu };
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    took
}

/// Processor time of the children that have ended.
fn children_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    // Numbers 16 and 17; the first behind the name is number 3. In hundredths of a second.
    let ticks: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Waits for a condition that comes from another process.
pub(crate) fn await_true(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < until, "{what}: it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A folder on the same disk as those of users.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// `true` when it is a folder with that many entries.
pub(crate) fn holds(folder: &Path, count: usize) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| entries.count() == count)
}
