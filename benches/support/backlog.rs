//! A spool with a long queue, as a transport would have left it.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use postrider::mapi::{EntryId, Priority, PropList, Recipient, RecipientType, SysTime, tags};
use postrider::spool::*;

/// The transport that has it all.
pub(crate) const ACCOUNT: &str = "smtp";

/// When the first message was submitted: a while ago, and not so long that any expires. In
/// milliseconds; another process that looks at the same spool is told by `BACKLOG_BEGAN`.
pub(crate) fn began() -> u64 {
    static BEGAN: OnceLock<u64> = OnceLock::new();
    *BEGAN.get_or_init(|| {
        let told = std::env::var("BACKLOG_BEGAN").ok().and_then(|text| text.parse().ok());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ago = now.saturating_sub(Duration::from_secs(24 * 3_600));
        told.unwrap_or(u64::try_from(ago.as_millis()).unwrap_or(0))
    })
}

/// A body that is not committed yet.
pub(crate) async fn stage(spool: &dyn Spool, content: &str) -> StagedBody {
    let mut writer = spool.new_body(None).await.unwrap();
    writer.write(content.as_bytes()).await.unwrap();
    writer.finish().await.unwrap()
}

/// Fills a spool that is not open: every message has an Outbox row, a queue row and its place in
/// the due index, and all share a body.
pub(crate) async fn fill(dir: &Path, messages: u64) {
    let spool = SledSpool::open(dir, SpoolOptions::default()).unwrap();
    let body = stage(&spool, "shared by all").await;
    let id = body.id();
    let mut batch = Batch::new().with_body(body);
    for number in 0..messages {
        message(number, id).into_iter().for_each(|op| batch.push(op));
        if number % 900 == 899 || number + 1 == messages {
            spool.commit(std::mem::take(&mut batch)).await.unwrap();
        }
    }
    spool.close().await;
}

/// The entry id of a message.
pub(crate) fn entry(number: u64) -> EntryId {
    EntryId::from_ulid(ulid::Ulid::from_parts(began() + number, u128::from(number)))
}

/// The rows of a message that the transport has accepted.
pub(crate) fn message(number: u64, body: BodyId) -> [Op; 2] {
    let submitted = SysTime::from_millis(began() + number);
    let outbox = OutboxRecord {
        revision: 0,
        submitted,
        state: OutboxState::Deferred { transport: ACCOUNT.to_owned() },
        props: PropList::new().with(tags::SUBJECT, "a subject of the usual length"),
        recipients: vec![Recipient::smtp(0, RecipientType::To, "somebody@example.org")],
        object: None,
        content: Some(body),
        size: 4_096,
        trace: Trace::default(),
        reports: Vec::new(),
    };
    let queue = QueueRecord {
        revision: 0,
        transport: ACCOUNT.to_owned(),
        state: QueueState::Due,
        priority: Priority::Normal,
        submitted,
        expires: submitted.saturating_add(Duration::from_secs(432_000)),
        expiry: Expiry::Lifetime,
        due: submitted,
        attempts: 0,
        envelope: Envelope {
            from: "me@example.org".to_owned(),
            recipients: vec![QueueRecipient {
                row: 0,
                address: "somebody@example.org".to_owned(),
                state: RecipientState::Pending,
                notify: None,
                original: None,
            }],
            ..Envelope::default()
        },
        body,
        size: 4_096,
        subject: "a subject of the usual length".to_owned(),
        message_id: format!("<{number}@example.org>"),
        last_error: String::new(),
        trace: Trace::default(),
    };
    let (entry, expect) = (entry(number), Expect::Absent);
    [
        Op::PutOutbox { entry: entry.clone(), record: Box::new(outbox), expect },
        Op::PutQueue { entry, record: Box::new(queue), expect },
    ]
}
