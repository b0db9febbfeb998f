//! A post office in this process, a profile for it with folders of its own, and sessions on it.

use std::path::PathBuf;
use std::time::Duration;

use postoffice::{Fault, FaultHandle, Listener, PostOffice, SmtpAction, SmtpPhase};
use postrider::mapi::{EntryId, MapiResult, StatusCode, TransportNotify, tags};
use postrider::profile::{Environment, Profile};
use postrider::session::{Logon, NotifyRequest, QueueRowState, Service, Session, SessionOptions};
use postrider::spi::StatusRow;

use crate::house::{Account, PATIENCE, Server, await_queue_row, profile_text};
use crate::letters::letter;

/// What a test needs.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Transports with the user each belongs to at `example.org`.
    pub(crate) transports: Vec<(&'static str, &'static str)>,
    /// SMTP connections of each.
    pub(crate) connections: usize,
    /// Time between two attempts.
    pub(crate) retry: &'static str,
}

impl Default for Shape {
    /// One transport, `work` of ann's, one connection, and retries that no test waits for.
    fn default() -> Self {
        Shape { transports: vec![("work", "ann")], connections: 1, retry: "1h" }
    }
}

/// The post office and a user's folders and profile.
pub(crate) struct Post {
    pub(crate) office: PostOffice,
    folder: tempfile::TempDir,
    profile: Profile,
}

impl Post {
    /// One transport called `work`.
    pub(crate) async fn start() -> Self {
        Post::shaped(Shape::default()).await
    }

    pub(crate) async fn shaped(shape: Shape) -> Self {
        let users = shape.transports.iter().map(|(_, user)| *user);
        let office =
            users.fold(PostOffice::builder(), |builder, user| builder.user(user, "secret"));
        let office = office.start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, office.ca_pem()).unwrap();
        let accounts: Vec<Account> = shape
            .transports
            .iter()
            .map(|(name, user)| {
                let smtp = Server::plain(office.address(Listener::Smtp).unwrap())
                    .with(format!("connections = {}", shape.connections));
                let imap = Server::implicit(office.address(Listener::Imaps).unwrap(), &ca_file)
                    .login(user, "secret");
                Account::new(name, &format!("{user}@example.org")).smtp(smtp).imap(imap)
            })
            .collect();
        let text = profile_text(&accounts, &folder.path().join("Mail"))
            .replace("\"1s\"", &format!("{:?}", shape.retry));
        let file = folder.path().join("test.toml");
        let profile = Profile::parse("test", &text, &file, &Environment::empty());
        Post { profile: profile.unwrap_or_else(|error| panic!("{error}\n{text}")), office, folder }
    }

    /// Opens a session with the spool that is there.
    pub(crate) async fn open(&self, logon: Logon) -> Session {
        let options = SessionOptions::new(self.folder.path().join("state")).logon(logon);
        Session::open(&self.profile, options).await.unwrap()
    }

    /// The local Maildir.
    pub(crate) fn maildir(&self) -> PathBuf {
        self.folder.path().join("Mail")
    }

    /// Where the spool lies.
    pub(crate) fn spool_folder(&self) -> PathBuf {
        self.folder.path().join("state").join("spool")
    }

    /// Puts a message on the server.
    pub(crate) fn arrive(&self, subject: &str) {
        let text = format!("From: bob@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n");
        self.office.deliver("ann", "INBOX", text.into_bytes()).unwrap();
    }

    /// A message that is so large that it is fetched in pieces.
    pub(crate) fn arrive_large(&self, subject: &str) {
        let line = "all work and no play makes jack a dull boy\r\n";
        let text = format!("Subject: {subject}\r\n\r\n{}", line.repeat(3_000_000 / line.len()));
        self.office.deliver("ann", "INBOX", text.into_bytes()).unwrap();
    }

    /// Makes the server say "later" to every recipient until the fault is removed.
    pub(crate) fn busy(&self) -> FaultHandle {
        let later = SmtpAction::reply(450, "4.2.1", "busy");
        self.office.inject(Fault::smtp(SmtpPhase::Rcpt, later))
    }

    /// The subjects of what the server accepted, in its order.
    pub(crate) fn accepted(&self) -> Vec<String> {
        self.office.accepted().iter().map(|one| subject(one.bytes().unwrap())).collect()
    }

    /// Waits until the server has accepted `count` messages, and gives their subjects. However
    /// many they are and however busy the machine is: the deadline is for one more to come.
    pub(crate) async fn await_accepted(&self, count: u64) -> Vec<String> {
        while self.office.accepted_count() < count {
            let more = self.office.accepted_count().saturating_add(1).min(count);
            self.office.wait_accepted(more, PATIENCE).await.unwrap();
        }
        self.accepted()
    }
}

fn subject(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_else(|| panic!("no subject: {text}")).to_owned()
}

/// TransportNotify on the transport `work`.
pub(crate) async fn notify(session: &Session, flags: TransportNotify) -> MapiResult<()> {
    notify_with(session, NotifyRequest { flags: flags.bits(), ..NotifyRequest::default() }).await
}

/// TransportNotify about a message.
pub(crate) async fn notify_entry(
    session: &Session,
    flags: TransportNotify,
    entry: &EntryId,
) -> MapiResult<()> {
    let entry = Some(entry.to_string());
    notify_with(session, NotifyRequest { flags: flags.bits(), entry, ..NotifyRequest::default() })
        .await
}

/// TransportNotify never waits for a server; a call that does fails here (TN-2).
pub(crate) async fn notify_with(session: &Session, request: NotifyRequest) -> MapiResult<()> {
    let request = NotifyRequest { transport: Some("work".to_owned()), ..request };
    let call = tokio::time::timeout(PATIENCE, session.notify(request));
    call.await.expect("TransportNotify waits for something")
}

/// The row of a transport as of now.
pub(crate) fn row(session: &Session, transport: &str) -> StatusRow {
    let rows = session.status_table().unwrap().rows();
    let row = rows.into_iter().find(|row| row.display_name == transport);
    row.unwrap_or_else(|| panic!("there is no row of {transport}"))
}

/// The state of the transport `work` as of now.
pub(crate) fn code(session: &Session) -> StatusCode {
    row(session, "work").status_code
}

/// Submits a short message to bob.
pub(crate) async fn send(session: &Session, subject: &str) -> EntryId {
    session.submit(letter(subject, &["bob@example.org"])).await.unwrap()
}

/// Submits a message that does not fit into the buffers on the way to the server, so that its
/// final dot is not out while its text still is on its way.
pub(crate) async fn send_large(session: &Session, subject: &str) -> EntryId {
    let mut submission = letter(subject, &["bob@example.org"]);
    let text = "all work and no play makes jack a dull boy\n".repeat(400_000);
    submission.message.props.set(tags::BODY, text);
    session.submit(submission).await.unwrap()
}

/// Submits a short message that the server puts off: it waits for its next attempt.
pub(crate) async fn send_put_off(session: &Session, subject: &str) -> EntryId {
    let entry = send(session, subject).await;
    await_queue_row(session, &entry, "put off", |row| row.state == QueueRowState::Deferred).await;
    entry
}

/// Waits until a message has ended.
pub(crate) async fn ended(session: &Session, entry: &EntryId) -> QueueRowState {
    session.wait(entry, Some(PATIENCE)).await.unwrap().state
}

/// Waits for something that must come, though not within any particular time.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, work).await;
    waited.unwrap_or_else(|_| panic!("it did not come about: {what}"))
}

/// A grace that no message on the wire needs to use up.
pub(crate) const SHORT: Duration = Duration::from_millis(200);
