//! What receiving is measured against: `mbsync`, and the disk itself.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use realservers::Dovecot;

use crate::user::{Took, run};

/// Where `mbsync` is.
pub(crate) fn mbsync() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("mbsync")).find(|file| file.exists())
}

/// `mbsync` with folders of its own, that pulls a user's INBOX and syncs what it writes.
pub(crate) struct Mbsync {
    program: PathBuf,
    pub(crate) folder: tempfile::TempDir,
}

impl Mbsync {
    /// `port` in clear; `None` for Dovecot's own TLS.
    pub(crate) fn new(dovecot: &Dovecot, user: &str, port: Option<u16>) -> Option<Self> {
        let (program, folder) = (mbsync()?, crate::user::folder());
        let password = dovecot.password_of(user).unwrap();
        let security = match port {
            Some(port) => format!("Port {port}\nSSLType None\nAuthMechs LOGIN"),
            None => format!(
                "Port {}\nSSLType IMAPS\nSystemCertificates no\nCertificateFile {}",
                dovecot.imaps_address().port(),
                dovecot.certificates().authority_file().display()
            ),
        };
        let mail = folder.path().join("Mail");
        std::fs::create_dir(&mail).unwrap();
        let mail = mail.display();
        let text = format!(
            "FSync yes\nIMAPAccount a\nHost localhost\n{security}\nUser {user}\nPass \"{password}\"\n\n\
             IMAPStore far\nAccount a\n\nMaildirStore near\nPath {mail}/\nInbox {mail}/INBOX\n\n\
             Channel c\nFar :far:\nNear :near:\nSync Pull\nCreate Near\nSyncState *\n"
        );
        std::fs::write(folder.path().join("rc"), text).unwrap();
        Some(Mbsync { program, folder })
    }

    pub(crate) fn pull(&self) -> Took {
        let rc = self.folder.path().join("rc");
        run(Command::new(&self.program)
            .env("HOME", self.folder.path())
            .arg("-c")
            .arg(rc)
            .arg("-aq"))
    }

    pub(crate) fn messages(&self) -> usize {
        let folder = self.folder.path().join("Mail/INBOX");
        let count = |part: &str| std::fs::read_dir(folder.join(part)).map_or(0, Iterator::count);
        count("new") + count("cur")
    }
}

/// The floor: files of these sizes, each written to `tmp` of a folder, synced and moved to `new`,
/// by 8 threads.
pub(crate) fn floor(folder: &tempfile::TempDir, sizes: &[usize]) -> Duration {
    for part in ["tmp", "new"] {
        std::fs::create_dir(folder.path().join(part)).unwrap();
    }
    let text = crate::server::message(0, sizes.iter().copied().max().unwrap_or(0));
    let next = Mutex::new(sizes.iter().copied().enumerate());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some((number, size)) = next.lock().unwrap().next() else { return };
                    store(folder.path(), number, &text[..size]);
                }
            });
        }
    });
    File::open(folder.path().join("new")).unwrap().sync_all().unwrap();
    began.elapsed()
}

fn store(folder: &Path, number: usize, text: &[u8]) {
    let name = format!("{number}.floor");
    let tmp = folder.join("tmp").join(&name);
    let mut file = File::create_new(&tmp).unwrap();
    file.write_all(text).unwrap();
    file.sync_all().unwrap();
    std::fs::rename(tmp, folder.join("new").join(name)).unwrap();
}
