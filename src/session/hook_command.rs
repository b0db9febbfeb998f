//! Running one hook: a program with a document on standard input, in bounded time.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// How much of what a hook says on standard error is kept for the log, in bytes.
const LONGEST_COMPLAINT: u64 = 1000;

/// What a hook must not get to see of this process's own supervision.
const SUPERVISION: [&str; 5] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"];

/// How a hook ended.
#[derive(Debug)]
pub(super) enum HookEnd {
    /// By itself; the first line it said on standard error.
    Exited(ExitStatus, String),
    /// It took too long and was ended with everything it had started.
    TimedOut,
    /// It could not be started.
    NotStarted(io::Error),
}

/// Runs `words`, a program and its arguments, without a shell. Dropping the call ends it.
pub(super) async fn call(
    words: &[String],
    hidden: &[String],
    input: Vec<u8>,
    limit: Duration,
) -> HookEnd {
    let Some((program, arguments)) = words.split_first() else {
        return HookEnd::NotStarted(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    for name in hidden.iter().map(String::as_str).chain(SUPERVISION) {
        command.env_remove(name);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return HookEnd::NotStarted(error),
    };
    let mut group = Group::of(&child);
    let ended = tokio::time::timeout(limit, attend(&mut child, input)).await;
    match ended {
        Ok(Ok((status, said))) => {
            group.0 = None;
            HookEnd::Exited(status, said)
        }
        Ok(Err(error)) => HookEnd::NotStarted(error),
        Err(_) => HookEnd::TimedOut,
    }
}

async fn attend(child: &mut Child, input: Vec<u8>) -> io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A program that does not read is not to blame for that.
            let _unread = stdin.write_all(&input).await;
        }
    };
    let read = async move {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            let _broken = (&mut stderr).take(LONGEST_COMPLAINT).read_to_end(&mut said).await;
            // The rest is read too, so that the program can go on.
            let _broken = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        said
    };
    let talking = async { tokio::join!(write, read).1 };
    tokio::pin!(talking);
    // What a program leaves running in the background may keep the pipe open for ever.
    let (status, said) = tokio::select! {
        status = child.wait() => (status?, None),
        said = &mut talking => (child.wait().await?, Some(said)),
    };
    let said = match said {
        Some(said) => said,
        None => tokio::time::timeout(Duration::from_millis(200), talking).await.unwrap_or_default(),
    };
    let line: String = String::from_utf8_lossy(&said)
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .map(|sign| if sign.is_control() { ' ' } else { sign })
        .collect();
    Ok((status, line))
}

/// Ends a process and all it has started when the wait for it ends early.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that nobody is left.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn it_gets_the_document_and_its_exit_code_is_known() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("got");
        let script = format!("cat > {}; echo sorry >&2; exit 3", file.display());
        let input = vec![b'x'; 1_000_000];
        let end = call(&shell(&script), &[], input.clone(), Duration::from_secs(60)).await;
        let HookEnd::Exited(status, said) = end else { panic!("{end:?}") };
        assert_eq!((status.code(), said.as_str()), (Some(3), "sorry"));
        assert_eq!(std::fs::read(file).unwrap(), input);
    }

    #[tokio::test]
    async fn one_that_does_not_read_does_not_hold_us_up() {
        let end = call(&shell("exit 0"), &[], vec![b'x'; 1_000_000], Duration::from_secs(60)).await;
        assert!(matches!(end, HookEnd::Exited(status, _) if status.success()));
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_its_children() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let words = shell(&script);
        let running = call(&words, &[], Vec::new(), Duration::from_secs(3));
        assert!(matches!(running.await, HookEnd::TimedOut));
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let pid = Pid::from_raw(pid).unwrap();
        // It may be a zombie for a moment, until init has seen to it.
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "the child of a hook lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn secrets_of_the_environment_are_not_passed_on() {
        // PATH stands for the variable that holds a password: the shell sets none of its own.
        let hidden = ["HOME".to_owned()];
        let script = "test -z \"$HOME\" && test -z \"$NOTIFY_SOCKET\"";
        let end = call(&shell(script), &hidden, Vec::new(), Duration::from_secs(60)).await;
        assert!(matches!(end, HookEnd::Exited(status, _) if status.success()));
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_started() {
        let words = ["/nowhere/hook".to_owned()];
        let end = call(&words, &[], Vec::new(), Duration::from_secs(60)).await;
        assert!(matches!(end, HookEnd::NotStarted(_)));
        assert!(matches!(call(&[], &[], Vec::new(), Duration::ZERO).await, HookEnd::NotStarted(_)));
    }
}
