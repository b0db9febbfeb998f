//! A profile over the test server, and the rows of its spool to be written by hand while no
//! session has it.

#![allow(dead_code)]

use std::time::Duration;

use postoffice::{Listener, PostOffice};
use postrider::mapi::{
    EntryId, MapiResult, MessageData, PropList, Recipient, RecipientType, SysTime, tags,
};
use postrider::profile::{Environment, Profile};
use postrider::session::{Logon, Service, Session, SessionOptions, Submission};
use postrider::spool::{
    Batch, Envelope, Expect, Expiry, HistoryEnd, HistoryRecord, Op, OutboxRecord, OutboxState,
    QueueRecipient, QueueRecord, QueueState, RecipientState, SledSpool, Spool, SpoolOptions, Trace,
};

/// The deadline of everything that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a message on the wire may take at the end of a session.
pub const GRACE: Duration = Duration::from_secs(5);

/// A server, a profile with one transport called `work`, folders.
pub struct House {
    pub office: PostOffice,
    folder: tempfile::TempDir,
    pub profile: Profile,
}

impl House {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let office = PostOffice::builder().user("ann", "secret").start().await.unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, office.ca_pem()).unwrap();
        let text = format!(
            r#"
[[transport]]
name = "work"
identity = "ann@example.org"
[transport.smtp]
host = "localhost"
port = {}
user = "ann"
password = "secret"
ca_file = {:?}
[store]
maildir = {:?}
[queue]
retry = {{ first = "1s", factor = 1.0, max = "1s" }}
"#,
            office.port(Listener::Smtps),
            ca_file.display().to_string(),
            folder.path().join("Mail").display().to_string(),
        );
        let file = folder.path().join("test.toml");
        let profile = Profile::parse("test", &text, &file, &Environment::empty()).unwrap();
        House { office, folder, profile }
    }

    pub async fn open(&self, logon: Logon) -> Session {
        let options = SessionOptions::new(self.folder.path().join("state")).logon(logon);
        Session::open(&self.profile, options).await.unwrap()
    }

    /// A session over a spool with these options.
    pub async fn try_open(&self, logon: Logon, spool: SpoolOptions) -> MapiResult<Session> {
        let state = self.folder.path().join("state");
        let options = SessionOptions { spool, ..SessionOptions::new(state).logon(logon) };
        Session::open(&self.profile, options).await
    }

    /// The spool, while no session has it.
    pub async fn spool(&self) -> SledSpool {
        let folder = self.folder.path().join("state/spool");
        let options = SpoolOptions { lock_wait: Duration::from_secs(5), ..SpoolOptions::default() };
        tokio::task::spawn_blocking(move || SledSpool::open(&folder, options))
            .await
            .unwrap()
            .unwrap()
    }

    /// A message that was submitted and that no transport has seen.
    pub async fn submitted(&self, subject: &str) -> EntryId {
        let session = self.open(Logon::None).await;
        let entry = session.submit(letter(subject)).await.unwrap();
        session.shutdown(GRACE).await.unwrap();
        entry
    }

    pub fn deferred(&self, transport: &str) -> OutboxState {
        OutboxState::Deferred { transport: transport.to_owned() }
    }

    pub async fn put_outbox(
        &self,
        spool: &SledSpool,
        entry: &EntryId,
        change: impl FnOnce(&mut OutboxRecord),
    ) {
        let mut record = spool.outbox(entry).await.unwrap().unwrap();
        change(&mut record);
        let (entry, record) = (entry.clone(), Box::new(record));
        let put = Op::PutOutbox { entry, record, expect: Expect::Any };
        spool.commit(Batch::new().with(put)).await.unwrap();
    }

    pub async fn delete_outbox(&self, spool: &SledSpool, entry: &EntryId) {
        let delete = Op::DeleteOutbox { entry: entry.clone(), expect: Expect::Any };
        spool.commit(Batch::new().with(delete)).await.unwrap();
    }

    /// Stores a row of the queue with the body it names.
    pub async fn put_queue(&self, spool: &SledSpool, entry: &EntryId, mut record: QueueRecord) {
        let mut body = spool.new_body(None).await.unwrap();
        body.write(b"From: ann@example.org\r\nTo: bob@example.org\r\nSubject: x\r\n\r\nx\r\n")
            .await
            .unwrap();
        let staged = body.finish().await.unwrap();
        (record.body, record.size) = (staged.id(), staged.size());
        let (entry, record) = (entry.clone(), Box::new(record));
        let put = Op::PutQueue { entry, record, expect: Expect::Any };
        spool.commit(Batch::new().with_body(staged).with(put)).await.unwrap();
    }

    pub async fn put_history(&self, spool: &SledSpool, entry: &EntryId, record: HistoryRecord) {
        let put = Op::PutHistory { entry: entry.clone(), record: Box::new(record) };
        spool.commit(Batch::new().with(put)).await.unwrap();
    }

    pub fn sent_copies(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("Mail/.Sent/cur"))
            .map(|files| files.count())
            .unwrap_or(0)
    }
}

pub fn letter(subject: &str) -> Submission {
    Submission {
        message: MessageData {
            props: PropList::new().with(tags::SUBJECT, subject).with(tags::BODY, "Dear Bob\n"),
            recipients: vec![Recipient::smtp(0, RecipientType::To, "bob@example.org")],
            attachments: Vec::new(),
        },
    }
}

/// The row a transport would have made of a message of the Outbox.
pub async fn queued(
    spool: &SledSpool,
    entry: &EntryId,
    transport: &str,
    state: QueueState,
) -> QueueRecord {
    let outbox = spool.outbox(entry).await.unwrap().unwrap();
    let row = |recipient: &Recipient| QueueRecipient {
        row: recipient.row,
        address: recipient.address.clone(),
        state: RecipientState::Pending,
        notify: None,
        original: None,
    };
    QueueRecord {
        revision: 0,
        transport: transport.to_owned(),
        state,
        priority: postrider::mapi::Priority::Normal,
        submitted: outbox.submitted,
        expires: SysTime::MAX,
        expiry: Expiry::Lifetime,
        due: outbox.submitted,
        attempts: 1,
        envelope: Envelope {
            from: "ann@example.org".to_owned(),
            recipients: outbox.recipients.iter().map(row).collect(),
            ..Envelope::default()
        },
        body: postrider::spool::BodyId([0; 32]),
        size: 0,
        subject: "x".to_owned(),
        message_id: "<1@example.org>".to_owned(),
        last_error: String::new(),
        trace: Trace::default(),
    }
}

pub fn history_of(record: &QueueRecord, end: HistoryEnd) -> HistoryRecord {
    HistoryRecord {
        transport: record.transport.clone(),
        end,
        ended: record.submitted,
        submitted: record.submitted,
        attempts: record.attempts,
        envelope: record.envelope.clone(),
        subject: record.subject.clone(),
        message_id: record.message_id.clone(),
        size: record.size,
        trace: record.trace.clone(),
    }
}

/// Whether something comes about in time.
pub async fn waits<F: Future<Output = bool>>(condition: impl Fn() -> F) -> bool {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.is_ok()
}
