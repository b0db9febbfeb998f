//! A profile over test servers with folders of its own, and sessions on it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider::profile::{Environment, Profile};
use postrider::session::{Logon, QueueRow, RecipientRowState, Service, Session, SessionOptions};
use postrider::spi::StatusRow;
use postrider::spooler::StatusChange;

/// The deadline of everything that is waited for: generous, because test machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a message on the wire may take at the end of a session.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// One of the two servers of an account, as its profile names it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    port: u16,
    lines: Vec<String>,
}

impl Server {
    /// TLS from the first byte.
    pub(crate) fn implicit(address: SocketAddr, ca_file: &Path) -> Self {
        Self::at(address, "implicit").with(format!("ca_file = {:?}", ca_file.display().to_string()))
    }

    /// STARTTLS.
    pub(crate) fn starttls(address: SocketAddr, ca_file: &Path) -> Self {
        Self::at(address, "starttls").with(format!("ca_file = {:?}", ca_file.display().to_string()))
    }

    /// No TLS at all.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self::at(address, "none")
    }

    fn at(address: SocketAddr, tls: &str) -> Self {
        Server { port: address.port(), lines: vec![format!("tls = {tls:?}")] }
    }

    /// Logs in with a password that stands in the profile.
    pub(crate) fn login(self, user: &str, password: &str) -> Self {
        self.with(format!("user = {user:?}")).with(format!("password = {password:?}"))
    }

    /// Logs in with the password of a file, which can be mended while a session runs.
    pub(crate) fn login_by_file(self, user: &str, file: &Path) -> Self {
        let file = file.display().to_string();
        self.with(format!("user = {user:?}")).with(format!("password = {{ file = {file:?} }}"))
    }

    /// One more line of the profile.
    pub(crate) fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    fn write(&self, part: &str, text: &mut String) {
        let _ = writeln!(text, "[transport.{part}]\nhost = \"localhost\"\nport = {}", self.port);
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
    }
}

/// A transport of the profile.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    name: String,
    identity: String,
    smtp: Option<Server>,
    imap: Option<Server>,
}

impl Account {
    /// A transport called `name` for the sender `identity`.
    pub(crate) fn new(name: &str, identity: &str) -> Self {
        Account { name: name.to_owned(), identity: identity.to_owned(), smtp: None, imap: None }
    }

    /// Sends there.
    pub(crate) fn smtp(mut self, server: Server) -> Self {
        self.smtp = Some(server);
        self
    }

    /// Receives from there.
    pub(crate) fn imap(mut self, server: Server) -> Self {
        self.imap = Some(server);
        self
    }

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "[[transport]]\nname = {:?}", self.name);
        let _ = writeln!(text, "identity = {:?}", self.identity);
        for (part, server) in [("smtp", &self.smtp), ("imap", &self.imap)] {
            if let Some(server) = server {
                server.write(part, text);
            }
        }
    }
}

/// The text of a profile with these accounts, its mail in `maildir`, that tries again quickly.
pub(crate) fn profile_text(accounts: &[Account], maildir: &Path) -> String {
    profile_text_with(accounts, &format!("maildir = {:?}", maildir.display().to_string()))
}

/// The same with other lines for `[store]`.
pub(crate) fn profile_text_with(accounts: &[Account], store: &str) -> String {
    let mut text = String::new();
    accounts.iter().for_each(|account| account.write(&mut text));
    let _ = writeln!(text, "[store]\n{store}");
    text.push_str("[queue]\nretry = { first = \"1s\", factor = 1.0, max = \"1s\" }\n");
    text
}

/// The folders and the profile of one user.
pub(crate) struct House {
    folder: tempfile::TempDir,
    profile: Profile,
    kept: std::sync::Mutex<Vec<tempfile::TempDir>>,
}

impl House {
    /// Moves in.
    pub(crate) fn new(accounts: &[Account]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let maildir = folder.path().join("Mail");
        let store = format!("maildir = {:?}", maildir.display().to_string());
        Self::in_folder(folder, accounts, &store)
    }

    /// Moves in with these lines for `[store]`.
    pub(crate) fn with_store(accounts: &[Account], store: &str) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), accounts, store)
    }

    fn in_folder(folder: tempfile::TempDir, accounts: &[Account], store: &str) -> Self {
        let text = profile_text_with(accounts, store);
        let file = folder.path().join("test.toml");
        let profile = Profile::parse("test", &text, &file, &Environment::empty());
        let profile = profile.unwrap_or_else(|error| panic!("{error}\n{text}"));
        House { folder, profile, kept: std::sync::Mutex::default() }
    }

    /// Keeps a folder that the profile points into for as long as itself.
    pub(crate) fn keep(&self, folder: tempfile::TempDir) {
        self.kept.lock().unwrap().push(folder);
    }

    /// Opens a session on the profile, with the spool that is there.
    pub(crate) async fn open(&self, logon: Logon) -> Session {
        let options = SessionOptions::new(self.folder.path().join("state")).logon(logon);
        Session::open(&self.profile, options).await.unwrap()
    }

    /// A path in the user's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The local Maildir.
    pub(crate) fn maildir(&self) -> PathBuf {
        self.folder.path().join("Mail")
    }
}

/// Waits until the status row of a transport is as it should be.
pub(crate) async fn await_row(
    session: &Session,
    transport: &str,
    what: &str,
    condition: impl Fn(&StatusRow) -> bool,
) -> StatusRow {
    let mut changes = session.status_table().unwrap().subscribe();
    let mut last = None;
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let rows = match changes.changed().await {
                StatusChange::Table(rows) => rows,
                StatusChange::Row(row) => vec![row],
                StatusChange::Gone(_) => continue,
            };
            for row in rows.into_iter().filter(|row| row.display_name == transport) {
                if condition(&row) {
                    return row;
                }
                last = Some(row);
            }
        }
    });
    match waited.await {
        Ok(row) => row,
        Err(_) => panic!("the status row was never {what}; last it was {last:?}"),
    }
}

/// Waits until a row of the queue is as it should be.
pub(crate) async fn await_queue_row(
    session: &Session,
    entry: &postrider::mapi::EntryId,
    what: &str,
    condition: impl Fn(&QueueRow) -> bool,
) -> QueueRow {
    let found = realservers::wait::until_async(what, PATIENCE, async || {
        let row = session.queue_row(entry).await.unwrap();
        condition(&row).then_some(row)
    });
    match found.await {
        Ok(row) => row,
        Err(error) => panic!("{error}: {:?}", session.queue_row(entry).await),
    }
}

/// Asserts that every recipient of a message has this outcome.
pub(crate) fn assert_all(row: &QueueRow, state: RecipientRowState) {
    assert!(!row.recipients.is_empty(), "{row:?}");
    assert!(row.recipients.iter().all(|recipient| recipient.state == state), "{row:?}");
}
