//! One message into the standard input of a program.

use std::fs::File;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::error::Elapsed;

use super::{Facts, Failure};

/// Octets of what a program complains of that are kept.
const LONGEST_COMPLAINT: usize = 1000;
/// How long its complaint is waited for when it has ended: something that it left running may
/// hold the pipe.
const COMPLAINT_DEADLINE: Duration = Duration::from_millis(500);

/// The exit codes by which a program says that it will never take this message (`sysexits.h`): bad
/// data, no such user, no such host, unavailable, not permitted. All others may pass, among them 64
/// and 78, which say that the program was called wrongly.
const PERMANENT: [i32; 5] = [65, 67, 68, 69, 77];

/// Runs the program with the message as its standard input. That is a file, and not a pipe: should
/// this process die, the program still reads the whole message, and never takes a part for it.
///
/// A dropped future kills the program with its children.
pub(super) async fn run(
    words: &[String],
    hidden: &[String],
    text: File,
    facts: &Facts<'_>,
    timeout: Duration,
) -> Result<(), Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::Unavailable("the program has no name".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::from(text))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    hidden.iter().for_each(|name| {
        command.env_remove(name);
    });
    command
        .env("SENDER", facts.sender)
        .env("RECIPIENT", facts.recipient)
        .env("MAILBOX", facts.mailbox)
        .env("DELIVERY_ID", &facts.id)
        .env("REPEATED", if facts.repeated { "1" } else { "0" });
    let mut child = command.spawn().map_err(|error| {
        Failure::Unavailable(format!("the program {program} could not be started: {error}"))
    })?;
    let mut group = Group::of(&child);
    let mut kept = Vec::new();
    let reading = read_complaint(child.stderr.take(), &mut kept);
    let ended = end_of(child.wait(), reading, timeout).await;
    match ended {
        Ok(Ok(status)) => {
            // What it left running in the background is its own affair.
            group.disarm();
            judge(program, status, &visible(&kept))
        }
        Ok(Err(error)) => {
            Err(Failure::Temporary(format!("the program {program} cannot be waited for: {error}")))
        }
        Err(_) => {
            drop(group);
            // Killed by now; waited for so that nothing of it stays.
            let _gone = child.wait().await;
            let timeout = humantime::format_duration(timeout);
            let words =
                format!("the program {program} did not end within {timeout} and was killed");
            Err(Failure::Temporary(words))
        }
    }
}

/// Waits for the end of the program within `timeout`, and some more for what it complains of.
async fn end_of<S>(
    ending: impl Future<Output = S>,
    reading: impl Future<Output = ()>,
    timeout: Duration,
) -> Result<S, Elapsed> {
    tokio::pin!(reading);
    let mut is_read = false;
    let both = async {
        tokio::pin!(ending);
        loop {
            tokio::select! {
                () = &mut reading, if !is_read => is_read = true,
                ended = &mut ending => break ended,
            }
        }
    };
    let ended = tokio::time::timeout(timeout, both).await?;
    if !is_read {
        let _still_open = tokio::time::timeout(COMPLAINT_DEADLINE, &mut reading).await;
    }
    Ok(ended)
}

/// What a program complained of, on one line.
fn visible(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let visible = |sign: char| match sign {
        '\n' | '\t' => ' ',
        sign if sign.is_control() => '\u{fffd}',
        sign => sign,
    };
    text.trim().chars().map(visible).collect()
}

/// Reads all of it, so that nobody waits for a full pipe, and keeps the beginning.
async fn read_complaint(complaint: Option<ChildStderr>, kept: &mut Vec<u8>) {
    if let Some(mut complaint) = complaint {
        let mut chunk = [0; 4096];
        while let Ok(read) = complaint.read(&mut chunk).await
            && read > 0
        {
            let room = LONGEST_COMPLAINT.saturating_sub(kept.len());
            kept.extend_from_slice(chunk.get(..read.min(room)).unwrap_or_default());
        }
    }
}

fn judge(program: &str, status: ExitStatus, complaint: &str) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    let mut words = format!("the program {program} ended with {status}");
    if !complaint.is_empty() {
        words = format!("{words}: {complaint}");
    }
    Err(match status.code() {
        Some(code) if PERMANENT.contains(&code) => Failure::Permanent(words),
        // Shells say so when there is no such program, or none that can be run.
        Some(126 | 127) => Failure::Unavailable(words),
        Some(_) | None => Failure::Temporary(words),
    })
}

/// Kills the process group of a program when the wait for it ends early.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Group(id.and_then(Pid::from_raw))
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself meanwhile; then there is nothing to do.
            let _ended = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_ends_in_time_is_not_late_for_what_it_left_running() {
        let second = Duration::from_secs(1);
        let ending = tokio::time::sleep(Duration::from_millis(800));
        // Something that it left running holds the pipe.
        end_of(ending, std::future::pending(), second).await.unwrap();
        end_of(std::future::pending::<()>(), std::future::ready(()), second).await.unwrap_err();
        end_of(std::future::pending::<()>(), std::future::pending(), second).await.unwrap_err();
    }
}
