//! A spool to test, and records to fill it with.

use std::path::PathBuf;
use std::time::Duration;

use postrider::mapi::{EntryId, Priority, PropList, Recipient, RecipientType, SysTime, tags};
use postrider::spool::*;

/// A spool in a folder of its own.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) options: SpoolOptions,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let options = SpoolOptions {
            lock_wait: Duration::from_secs(30),
            reserve: 0,
            ..SpoolOptions::default()
        };
        Bench { dir: tempfile::tempdir().unwrap(), options }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    pub(crate) fn open(&self) -> SledSpool {
        SledSpool::open(&self.dir(), self.options.clone()).unwrap()
    }

    /// The tree of a closed spool.
    pub(crate) fn tree(&self) -> sled::Db {
        // Threads of sled that are just ending may hold its lock an instant longer.
        let until = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            match sled::open(self.dir().join("db")) {
                Ok(tree) => return tree,
                Err(error) => assert!(std::time::Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Body files, and what stands in `staging/`.
    pub(crate) fn files(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let list = |dir: PathBuf| -> Vec<PathBuf> {
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let bodies = list(self.dir().join("bodies")).into_iter().flat_map(list).collect();
        (bodies, list(self.dir().join("staging")))
    }
}

pub(crate) fn entry(number: u64) -> EntryId {
    EntryId::from_ulid(ulid::Ulid::from_parts(1_700_000_000_000 + number, u128::from(number)))
}

pub(crate) fn at(millis: u64) -> SysTime {
    SysTime::from_millis(millis)
}

pub(crate) fn account(transport: &str) -> AccountKey {
    AccountKey::of(transport)
}

pub(crate) fn outbox(content: Option<BodyId>) -> OutboxRecord {
    OutboxRecord {
        revision: 0,
        submitted: at(1_000),
        state: OutboxState::Waiting { not_before: SysTime::EPOCH },
        props: PropList::new().with(tags::SUBJECT, "greetings"),
        recipients: vec![Recipient::smtp(0, RecipientType::To, "ann@example.org")],
        object: None,
        content,
        size: 7,
        trace: Trace::default(),
        reports: Vec::new(),
    }
}

pub(crate) fn queue(body: BodyId, due: u64) -> QueueRecord {
    QueueRecord {
        revision: 0,
        transport: "smtp".to_owned(),
        state: QueueState::Due,
        priority: Priority::Normal,
        submitted: at(1_000),
        expires: at(900_000),
        expiry: Expiry::Lifetime,
        due: at(due),
        attempts: 0,
        envelope: Envelope {
            from: "bob@example.org".to_owned(),
            recipients: vec![QueueRecipient {
                row: 0,
                address: "ann@example.org".to_owned(),
                state: RecipientState::Pending,
                notify: None,
                original: None,
            }],
            ..Envelope::default()
        },
        body,
        size: 7,
        subject: "greetings".to_owned(),
        message_id: "<1@example.org>".to_owned(),
        last_error: String::new(),
        trace: Trace::default(),
    }
}

pub(crate) fn history(ended: u64) -> HistoryRecord {
    HistoryRecord {
        transport: "smtp".to_owned(),
        end: HistoryEnd::Finished,
        ended: at(ended),
        submitted: at(1_000),
        attempts: 1,
        envelope: queue(BodyId([0; 32]), 0).envelope,
        subject: "greetings".to_owned(),
        message_id: "<1@example.org>".to_owned(),
        size: 7,
        trace: Trace::default(),
    }
}

pub(crate) fn put_outbox(number: u64, record: OutboxRecord, expect: Expect) -> Op {
    Op::PutOutbox { entry: entry(number), record: Box::new(record), expect }
}

pub(crate) fn put_queue(number: u64, record: QueueRecord, expect: Expect) -> Op {
    Op::PutQueue { entry: entry(number), record: Box::new(record), expect }
}

pub(crate) fn delete_outbox(number: u64) -> Op {
    Op::DeleteOutbox { entry: entry(number), expect: Expect::Any }
}

pub(crate) fn delete_queue(number: u64) -> Op {
    Op::DeleteQueue { entry: entry(number), expect: Expect::Any }
}

/// A body with these bytes, not used by anything yet.
pub(crate) async fn stage(spool: &dyn Spool, bytes: &[u8]) -> StagedBody {
    let mut writer = spool.new_body(Some(bytes.len() as u64)).await.unwrap();
    for part in bytes.chunks(100_000) {
        writer.write(part).await.unwrap();
    }
    writer.finish().await.unwrap()
}

/// Bytes that differ for each number.
pub(crate) fn bytes(number: u64, len: usize) -> Vec<u8> {
    number
        .to_be_bytes()
        .into_iter()
        .chain((0..).map(|at: u64| (at % 253) as u8))
        .take(len)
        .collect()
}

/// Submits a message whose content are these bytes.
pub(crate) async fn submit(spool: &dyn Spool, number: u64, content: &[u8]) -> BodyId {
    let body = stage(spool, content).await;
    let id = body.id();
    let batch =
        Batch::new().with(put_outbox(number, outbox(Some(id)), Expect::Absent)).with_body(body);
    spool.commit(batch).await.unwrap();
    id
}

/// Waits for something another thread does.
pub(crate) async fn eventually(what: &str, done: impl Fn() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < until, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
