//! One server's processes: started as a process group of their own, stopped together, and not left
//! behind by a test that panics or is killed.

use crate::{Error, wait};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long its children may go on after that.
const GRACE_WITHOUT_LEADER: Duration = Duration::from_secs(2);
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// Where daemons live that are not in an ordinary user's `PATH`.
const SYSTEM_FOLDERS: [&str; 5] =
    ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/lib/postfix/sbin", "/usr/libexec/postfix"];

/// Finds a program in `PATH` and in the folders of system daemons.
///
/// # Errors
/// [`Error::Missing`] with the package to install.
pub(crate) fn locate(program: &'static str, package: &'static str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or(Error::Missing { program, package })
}

/// A running server: the process that was started and all it forked.
///
/// Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    group: Pid,
    keeper: Keeper,
}

impl ServerProcess {
    /// Starts `command` in a process group of its own, without standard input. `work` is the folder that
    /// is removed should this process die without running destructors.
    ///
    /// # Errors
    /// [`Error::Io`] when the program cannot be started.
    pub(crate) fn spawn(command: &mut Command, work: &Path) -> Result<Self, Error> {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .map_err(Error::io("starting a server"))?;
        let group = Pid::from_child(&child);
        match Keeper::watch(group, work) {
            Ok(keeper) => Ok(Self { child, group, keeper }),
            Err(error) => {
                // Not yet guarded by our own Drop.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Whether the process that was started still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `greet` succeeds. `ended` makes the error for a server that ends meanwhile, `unready` the one
    /// for a server that does not greet in time.
    pub(crate) fn await_ready(
        &mut self,
        greet: impl Fn() -> Result<(), Error>,
        ended: impl Fn() -> Error,
        unready: impl Fn(String) -> Error,
    ) -> Result<(), Error> {
        let mut last = None;
        let ready = wait::try_until("a server's greetings", wait::PATIENCE, || {
            if !self.is_running() {
                return Err(ended());
            }
            last = greet().err();
            Ok(last.is_none().then_some(()))
        });
        match (ready, last) {
            (Err(Error::Deadline { waited, .. }), Some(error)) => {
                Err(unready(format!("not ready after {waited:?}: {error}")))
            }
            (outcome, _) => outcome,
        }
    }

    /// The process of a server that may have been stopped.
    ///
    /// # Errors
    /// [`Error::Usage`] when it does not run.
    pub(crate) fn of<'a>(slot: Option<&'a Self>, server: &str) -> Result<&'a Self, Error> {
        slot.ok_or_else(|| Error::Usage(format!("{server} does not run")))
    }

    /// Sends a signal to every process of the server.
    ///
    /// # Errors
    /// [`Error::Io`] when there is none left.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        kill_process_group(self.group, signal)
            .map_err(|error| Error::io("signalling a server")(error.into()))
    }

    /// Asks the server to end and waits until its last process is gone; what is still there after ten
    /// seconds is killed.
    ///
    /// # Errors
    /// [`Error::Deadline`] when even SIGKILL did not end it.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        self.end(Some(Signal::TERM))
    }

    /// Kills every process at once, as a crash of the machine would.
    ///
    /// # Errors
    /// [`Error::Deadline`] when SIGKILL did not end it.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        self.end(None)
    }

    fn end(&mut self, ask_first: Option<Signal>) -> Result<(), Error> {
        if let Some(signal) = ask_first {
            // A paused process would not see the request.
            let _ = kill_process_group(self.group, Signal::CONT);
            // First the leader only: both Dovecot and Postfix end their own children in order.
            if self.is_running() {
                let _ = kill_process(self.group, signal);
            }
            let led = self.await_end_of_leader();
            // Dovecot leaves those that a client still talks to.
            if led.is_ok() && self.group_is_alive() {
                let _ = kill_process_group(self.group, signal);
                let _ = self.await_end_of_group();
            }
        }
        wait::until("the end of a server's processes", GRACE, || {
            let ended = !self.is_running() && !self.group_is_alive();
            if !ended {
                let _ = kill_process_group(self.group, Signal::KILL);
            }
            ended.then_some(())
        })?;
        self.keeper.dismiss();
        Ok(())
    }

    fn await_end_of_leader(&mut self) -> Result<(), Error> {
        wait::until("the end of a server's leading process", GRACE, || {
            (!self.is_running()).then_some(())
        })
    }

    fn await_end_of_group(&mut self) -> Result<(), Error> {
        let limit = GRACE_WITHOUT_LEADER;
        wait::until("the end of a server's children", limit, || {
            (!self.group_is_alive()).then_some(())
        })
    }

    fn group_is_alive(&self) -> bool {
        group_members(self.group).map_or_else(
            || rustix::process::test_kill_process_group(self.group).is_ok(),
            |members| members > 0,
        )
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Its folder is going too, so nothing would be gained by an orderly end.
        let _ = self.end(None);
    }
}

/// Counts the live processes of a group; `None` without a Linux `/proc`. Asking with signal 0 would not
/// do: where process 1 does not reap (many containers), dead orphans stay members for ever.
fn group_members(group: Pid) -> Option<usize> {
    if !Path::new("/proc/self/stat").exists() {
        return None;
    }
    let entries = fs::read_dir("/proc").ok()?;
    let wanted = group.as_raw_nonzero().get();
    let members = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| is_live_member(stat, wanted))
        .count();
    Some(members)
}

/// Reads one line of `/proc/PID/stat`: `PID (name) STATE PPID PGRP ...`; the name may hold anything.
fn is_live_member(stat: &str, group: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    let state = fields.next();
    let pgrp = fields.nth(1).and_then(|field| field.parse::<i32>().ok());
    pgrp == Some(group) && !matches!(state, Some("Z" | "X"))
}

/// A shell that waits for the end of a pipe whose other end this process holds. Should this process die
/// (SIGKILL, Ctrl-C, a crash), no destructor runs, but the pipe closes: then the shell ends the server and
/// removes its folder.
#[derive(Debug)]
struct Keeper {
    shell: Child,
}

const KEEPER_SCRIPT: &str = r#"read -r _
kill -s TERM -- "-$1"
sleep 1
kill -s KILL -- "-$1"
rm -rf -- "$2"
"#;

impl Keeper {
    fn watch(group: Pid, work: &Path) -> Result<Self, Error> {
        let shell = Command::new("/bin/sh")
            .args(["-c", KEEPER_SCRIPT, "realservers-keeper"])
            .arg(group.as_raw_nonzero().to_string())
            .arg(work)
            // Out of reach of a terminal's Ctrl-C.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("starting the keeper"))?;
        Ok(Self { shell })
    }

    fn dismiss(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// Opens a file that takes a server's standard output or error; it is continued, not truncated.
pub(crate) fn output_file(path: &Path) -> Result<File, Error> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map_err(Error::file(path))
}

/// The last lines of these logs, for an error message. A log that does not exist is left out.
pub(crate) fn log_tail(logs: &[&Path]) -> String {
    let tails: Vec<_> = logs.iter().filter_map(|log| tail(log)).collect();
    tails.join("\n")
}

fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(LOG_TAIL_BYTES);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;

    /// A leader with a child that ignores SIGTERM, which has written `ready` when both run.
    fn stubborn(work: &WorkDir) -> ServerProcess {
        let ready = work.path().join("ready");
        let script = r#"(trap '' TERM; : > "$1"; while :; do sleep 1; done) & wait"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "stubborn"]).arg(&ready);
        let server = ServerProcess::spawn(&mut command, work.path()).unwrap();
        wait::until("both processes", wait::PATIENCE, || ready.exists().then_some(())).unwrap();
        server
    }

    #[test]
    fn a_missing_program_names_its_package_and_the_script() {
        let error = locate("no-such-daemon", "no-such-package").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`no-such-daemon`") && text.contains("`no-such-package`"));
        assert!(text.contains("ci/install-test-servers"));
    }

    #[test]
    fn killing_ends_the_children_too() {
        let work = WorkDir::new().unwrap();
        let server = stubborn(&work);
        let group = server.group;
        assert!(group_members(group).unwrap() >= 2);
        server.kill().unwrap();
        assert_eq!(group_members(group), Some(0));
    }

    #[test]
    fn a_panic_ends_the_children_too() {
        let work = WorkDir::new().unwrap();
        let server = stubborn(&work);
        let group = server.group;
        server.signal(Signal::STOP).unwrap();
        let panicked = std::thread::spawn(move || {
            let _server = server;
            std::panic::resume_unwind(Box::new("a failed assertion"));
        });
        assert!(panicked.join().is_err());
        assert_eq!(group_members(group), Some(0));
    }

    #[test]
    fn the_keeper_ends_the_server_when_its_owner_is_gone() {
        let work = WorkDir::new().unwrap();
        let mut server = stubborn(&work);
        // What the kernel does when the owner dies.
        drop(server.keeper.shell.stdin.take());
        let group = server.group;
        wait::until("the keeper's work", wait::PATIENCE, || {
            let gone = !server.is_running() && group_members(group) == Some(0);
            (gone && !work.path().exists()).then_some(())
        })
        .unwrap();
    }

    #[test]
    fn a_process_name_with_parentheses_and_spaces_is_read() {
        assert!(is_live_member("12 (a) Z 1 (b) S 1 77 77 0", 77));
        assert!(!is_live_member("12 (sh) Z 1 77 77 0", 77));
        assert!(!is_live_member("12 (sh) S 1 78 77 0", 77));
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let work = WorkDir::new().unwrap();
        let log = work.write("log", &format!("{}the end", "x".repeat(40_000)));
        let tail = log_tail(&[&log.unwrap(), Path::new("/nonexistent")]);
        assert_eq!(tail.len() as u64, LOG_TAIL_BYTES);
        assert!(tail.ends_with("the end"));
    }
}
