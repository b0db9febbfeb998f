//! The program as other programs find it: under the names of sendmail, beside a daemon that sends
//! to a post office of the test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use postoffice::{Accepted, PostOffice};
use tokio::process::Command;

use crate::house::PATIENCE;
use crate::office::office;
use crate::program::{Program, Said, executable, run};

pub(crate) struct Desk {
    pub(crate) office: PostOffice,
    pub(crate) program: Program,
    bin: tempfile::TempDir,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        let office = office().await;
        let program = Program::new(&office, &[]);
        let bin = tempfile::tempdir().unwrap();
        for name in ["sendmail", "mailq", "newaliases", "postrider"] {
            std::os::unix::fs::symlink(executable(), bin.path().join(name)).unwrap();
        }
        Desk { office, program, bin }
    }

    /// Adds lines to the profile: those for the transport come first, then whole sections.
    pub(crate) fn change_profile(&self, of_transport: &str, sections: &str) {
        let file = self.program.path("config/test.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.replacen("identity =", &format!("{of_transport}\nidentity ="), 1);
        self.program.write_profile(&format!("{text}{sections}"));
    }

    /// From here on messages keep their order up to the server.
    pub(crate) fn send_over_one_connection(&self) {
        let text = std::fs::read_to_string(self.program.path("config/test.toml")).unwrap();
        let section = "[transport.smtp]\n";
        assert!(text.contains(section), "{text}");
        let text = text.replacen(section, &format!("{section}connections = 1\n"), 1);
        self.program.write_profile(&text);
    }

    /// The program under a name.
    pub(crate) fn named(&self, name: &str) -> PathBuf {
        self.bin.path().join(name)
    }

    pub(crate) fn sendmail(&self) -> String {
        self.named("sendmail").display().to_string()
    }

    /// A program that finds ours first in its path, and the profile by the environment.
    pub(crate) fn tool(&self, program: impl AsRef<Path>) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", self.bin.path().display()))
            .env("HOME", self.program.path("."))
            .env("TMPDIR", std::env::temp_dir())
            .env("POSTRIDER_CONFIG", self.program.path("config"))
            .env("POSTRIDER_STATE", self.program.path("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Calls the program under a name.
    pub(crate) async fn call(&self, name: &str, arguments: &[&str], input: &[u8]) -> Said {
        let mut command = self.tool(self.named(name));
        command.args(arguments);
        run(command, input).await
    }

    /// Runs a line of shell.
    pub(crate) async fn shell(&self, line: &str, input: &[u8]) -> Said {
        let mut command = self.tool("/bin/sh");
        command.args(["-c", line]);
        run(command, input).await
    }

    /// The next message that the post office takes; nothing in it may be against the standards.
    pub(crate) async fn next(&self) -> Arc<Accepted> {
        let taken = self.next_as_it_is().await;
        assert!(self.office.violations().is_empty(), "{:?}", self.office.violations());
        taken
    }

    /// The same of a message that was against the standards when it was handed over.
    pub(crate) async fn next_as_it_is(&self) -> Arc<Accepted> {
        let taken = realservers::wait::until_async("the message is sent", PATIENCE, async || {
            self.office.take_accepted().into_iter().next()
        });
        taken.await.unwrap()
    }
}

/// Asserts that a call succeeded and said nothing.
pub(crate) fn assert_silent(said: &Said) {
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
}

/// What stands in a header field, folds taken out; the field may stand once only.
pub(crate) fn field(message: &str, name: &str) -> Option<String> {
    let header = message.split_once("\r\n\r\n").map_or(message, |(header, _)| header);
    let unfolded = header.replace("\r\n ", " ").replace("\r\n\t", " ");
    let prefix = format!("{}:", name.to_ascii_lowercase());
    let mut found = unfolded.split("\r\n").filter(|line| {
        line.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(&prefix))
    });
    let value = found.next()?[prefix.len()..].trim().to_owned();
    assert!(found.next().is_none(), "{name} stands twice: {message}");
    Some(value)
}

/// The body of a message.
pub(crate) fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}
