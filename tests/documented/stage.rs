//! An empty home directory in which the commands of one page run, beside a mail server of its own
//! that stands for every server a page names.

use std::path::PathBuf;
use std::process::Stdio;

use postoffice::{Listener, PostOffice};
use tokio::process::Command;

use crate::page::{Block, Page};
use crate::program::{Daemon, Said, executable, said};

pub(crate) struct Stage {
    office: PostOffice,
    home: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let office = PostOffice::builder().user("ann", "secret").user("bob", "secret");
        let office = office.start().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let stage = Stage { office, home };
        std::fs::create_dir(stage.path("bin")).unwrap();
        std::os::unix::fs::symlink(executable(), stage.path("bin/postrider")).unwrap();
        // The keeper of passwords that the pages name.
        stage.write("bin/pass", "#!/bin/sh\necho secret\n", 0o700);
        stage.write("ca.pem", stage.office.ca_pem(), 0o600);
        for (file, name) in [("msmtprc", ".msmtprc"), ("mbsyncrc", ".mbsyncrc")] {
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(root.join("tests/fixtures/import").join(file));
            stage.write(name, &text.unwrap(), 0o600);
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), text).unwrap();
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), permissions).unwrap();
    }

    /// The commands of a block with the post office in place of the servers they name.
    fn staged(&self, text: &str) -> String {
        let port = |listener| self.office.address(listener).unwrap().port();
        let (smtps, imaps) = (port(Listener::Smtps), port(Listener::Imaps));
        text.replace("@smtp.example.org", &format!("@localhost:{smtps}"))
            .replace("@imap.example.org", &format!("@localhost:{imaps}"))
    }

    fn shell(&self, script: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-euc", script])
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.home.path())
            .env("SSL_CERT_FILE", self.path("ca.pem"))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn script(&self, script: &str) -> Said {
        said(self.shell(script).spawn().unwrap()).await
    }

    /// Runs a block; a line that starts the daemon leaves it running for the rest of the page.
    pub(crate) async fn run(&self, page: &Page, block: &Block, daemon: &mut Option<Daemon>) {
        let mut script = String::new();
        for line in self.staged(&block.text).lines() {
            if line.split('#').next().unwrap().trim() != "postrider run" {
                script.push_str(line);
                script.push('\n');
                continue;
            }
            self.succeed(page, &std::mem::take(&mut script)).await;
            let mut command = self.shell("exec postrider run");
            command.stdout(Stdio::null());
            *daemon = Some(Daemon::start(command).await);
        }
        self.succeed(page, &script).await;
    }

    async fn succeed(&self, page: &Page, script: &str) {
        let said = self.script(script).await;
        assert_eq!(said.code, 0, "{}:\n{script}\n{said:?}", page.name);
    }

    /// The program knows the commands it is named in: asked for help instead of work, it finds
    /// nothing wrong with what stands before.
    pub(crate) async fn understand(&self, page: &Page, text: &str) {
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().filter(|line| line.starts_with("postrider ")) {
            let words = line.split(" #").next().unwrap();
            self.succeed(page, &format!("{words} --help")).await;
        }
    }
}
