//! The real daemon with folders and a profile of its own, and what the kernel says of it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postrider::control::Client;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long anything may take before the measurement is called off.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One user's folders with one profile.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// Folders below `parent` with a profile.
    pub(crate) fn new(parent: &Path, profile: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir_in(parent).unwrap();
        let config = folder.path().join("config");
        std::fs::create_dir(&config).unwrap();
        let file = config.join("test.toml");
        std::fs::write(&file, profile(folder.path())).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, private).unwrap();
        Home { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the program. `POSTRIDER_PROGRAM` names another build of it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let built = || env!("CARGO_BIN_EXE_postrider").into();
        let program = std::env::var_os("POSTRIDER_PROGRAM").unwrap_or_else(built);
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.folder.path());
        command.arg("--config").arg(self.path("config")).arg("--state").arg(self.path("state"));
        command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) async fn daemon(&self) -> Daemon {
        let mut command = self.command(&["run"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut listens = None;
        let mut said = Vec::new();
        let ready = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = log.next_line().await.unwrap() {
                if let Some((_, address)) = line.split_once("listening for SMTP at ") {
                    listens = address.trim().parse().ok();
                }
                if line.contains("ready") {
                    return true;
                }
                said.push(line);
            }
            false
        });
        assert!(ready.await.unwrap_or(false), "the daemon is not ready: {said:?}");
        let start = started.elapsed();
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let client = Client::connect(&self.path("state/test/control.sock")).await.unwrap();
        Daemon { child, client, listens, start }
    }
}

/// A running daemon; killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) client: Client,
    /// Where it takes mail by SMTP.
    pub(crate) listens: Option<SocketAddr>,
    /// How long it took to be ready.
    pub(crate) start: Duration,
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// A line of `/proc/PID/status` in its unit.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim_start_matches(':').split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    /// Forgets the peak of memory seen so far.
    pub(crate) fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// Processor time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // The kernel tells in hundredths of a second, whatever its own clock (USER_HZ).
        Duration::from_millis(ticks * 10)
    }

    /// Stops it in good order.
    pub(crate) async fn stop(mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it stops").unwrap();
    }
}

/// A profile of one account that sends to a server without TLS and takes mail by SMTP itself.
pub(crate) fn sending_profile(server: SocketAddr, sent: bool, home: &Path) -> String {
    let mut text =
        String::from("[[transport]]\nname = \"work\"\nidentity = \"ann@example.test\"\n");
    let _ = writeln!(text, "[transport.smtp]\nhost = \"localhost\"\ntls = \"none\"");
    let _ = writeln!(text, "port = {}", server.port());
    let _ = writeln!(
        text,
        "[store]\nmaildir = {:?}\nsent = {sent}",
        home.join("Mail").display().to_string()
    );
    let _ = writeln!(text, "[listen]\nsmtp = \"127.0.0.1:0\"");
    text
}
