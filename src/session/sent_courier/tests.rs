use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::*;
use crate::clock::ManualClock;
use crate::mapi::{MapiResult, SysTime};
use crate::spi::{MessageStore, SentCopy};
use crate::spool::{SledSpool, SpoolOptions};
use crate::store::{CopyTo, OwedOptions, RawSubmission, StoreOptions};

/// A server that does not take some copies.
#[derive(Default)]
struct Folder {
    trouble: Mutex<HashMap<String, MapiCode>>,
    /// Message-IDs of the copies it was offered.
    offered: Mutex<Vec<String>>,
}

#[async_trait]
impl SentFolder for Folder {
    async fn append(&self, copy: SentCopy) -> MapiResult<()> {
        self.offered.lock().unwrap().push(copy.message_id.clone());
        match self.trouble.lock().unwrap().get(&copy.message_id) {
            Some(code) => Err((*code).into()),
            None => Ok(()),
        }
    }

    async fn rest(&self) {}
}

struct Rig {
    _dir: tempfile::TempDir,
    clock: ManualClock,
    folder: Arc<Folder>,
    store: Arc<LocalStore>,
}

fn id(number: u32) -> String {
    format!("<{number}@x>")
}

impl Rig {
    async fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(SysTime::from_millis(1_700_000_000_000));
        let spool = SledSpool::open(&dir.path().join("spool"), SpoolOptions::default()).unwrap();
        let transports = HashMap::from([("work".to_owned(), CopyTo::Server)]);
        let options = StoreOptions {
            maildir: dir.path().join("Mail"),
            owed: Some(OwedOptions { folder: dir.path().join("owed"), transports }),
            ..StoreOptions::default()
        };
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let store = LocalStore::open(options, Arc::new(spool), shared, Handle::current());
        let store = store.await.unwrap();
        Rig { _dir: dir, clock, folder: Arc::default(), store }
    }

    fn courier(&self) -> Courier {
        Courier {
            transport: "work".to_owned(),
            store: Arc::clone(&self.store),
            folder: Arc::clone(&self.folder) as Arc<dyn SentFolder>,
            clock: Arc::new(self.clock.clone()),
        }
    }

    /// Sends a message, so that its copy is owed.
    async fn send(&self, number: u32) {
        // Each later than the one before.
        self.clock.advance(Duration::from_secs(1));
        let store = &self.store;
        let envelope = RawSubmission {
            recipients: vec!["bob@example.org".into()],
            default_sender: "ann@example.org".into(),
            ..RawSubmission::default()
        };
        let text = format!("Message-ID: {}\r\nSubject: x\r\n\r\nhi\r\n", id(number));
        let text = Box::pin(std::io::Cursor::new(text.into_bytes()));
        let (entry, _) = store.submit_raw(envelope, text).await.unwrap();
        store.set_deferred(&entry, Some("work")).await.unwrap();
        store.finished_msg(&entry).await.unwrap();
    }

    fn trouble(&self, number: u32, code: MapiCode) {
        self.folder.trouble.lock().unwrap().insert(id(number), code);
    }

    fn offered(&self) -> Vec<String> {
        std::mem::take(&mut *self.folder.offered.lock().unwrap())
    }

    async fn owed(&self) -> usize {
        self.store.owed_copies("work").await.unwrap().len()
    }
}

/// Nothing a test waits for takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn until(happened: impl AsyncFn() -> bool) {
    let wait = async {
        while !happened().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_always_fails_does_not_keep_the_others_waiting() {
    for code in [MapiCode::NETWORK_ERROR, MapiCode::CORRUPT_DATA, MapiCode::CALL_FAILED] {
        let rig = Rig::new().await;
        for number in 1..=3 {
            rig.send(number).await;
        }
        rig.trouble(1, code);
        let (courier, mut failures) = (rig.courier(), Failures::default());
        courier.round(&mut failures).await;
        courier.round(&mut failures).await;
        assert_eq!(rig.owed().await, 1, "{code:?}");
        assert_eq!(rig.offered(), [id(1), id(2), id(3)], "{code:?}");
        // Each time a little later, and behind one that never failed.
        for pause in [30, 60, 120] {
            rig.clock.advance(Duration::from_secs(pause));
            rig.send(4).await;
            let _round = courier.round(&mut failures).await;
            assert_eq!(rig.offered(), [id(4), id(1)], "{code:?} {pause}");
            let Round::Through { again: Some(again) } = courier.round(&mut failures).await else {
                panic!("{code:?}: the courier did not get through");
            };
            let left = again.saturating_since(rig.clock.now()).as_secs();
            assert_eq!(left, (2 * pause).min(3600), "{code:?}");
            assert!(rig.offered().is_empty());
        }
    }
}

#[tokio::test]
async fn an_account_that_cannot_log_in_is_asked_once_a_round() {
    for code in [MapiCode::LOGON_FAILED, MapiCode::WAIT] {
        let rig = Rig::new().await;
        rig.send(1).await;
        rig.send(2).await;
        rig.trouble(1, code);
        let (courier, mut failures) = (rig.courier(), Failures::default());
        assert_eq!(courier.round(&mut failures).await, Round::Shut);
        assert_eq!(courier.round(&mut failures).await, Round::Shut);
        assert_eq!(rig.offered(), [id(1), id(1)], "{code:?}");
        rig.folder.trouble.lock().unwrap().clear();
        assert_eq!(courier.round(&mut failures).await, Round::Through { again: None });
        assert_eq!(rig.owed().await, 0);
    }
}

#[tokio::test]
async fn a_new_copy_does_not_wait_for_one_that_failed() {
    for code in [MapiCode::NETWORK_ERROR, MapiCode::CALL_FAILED] {
        let rig = Rig::new().await;
        rig.send(1).await;
        rig.trouble(1, code);
        let ending = CancellationToken::new();
        let running = tokio::spawn(rig.courier().run(ending.clone()));
        until(async || !rig.folder.offered.lock().unwrap().is_empty()).await;
        rig.send(2).await;
        until(async || rig.owed().await == 1).await;
        assert_eq!(rig.offered(), [id(1), id(2)], "{code:?}");
        rig.folder.trouble.lock().unwrap().clear();
        rig.clock.advance(Duration::from_secs(60));
        until(async || rig.owed().await == 0).await;
        ending.cancel();
        running.await.unwrap();
    }
}

#[test]
fn pauses_grow_to_an_hour() {
    let pauses = [0, 1, 2, 3, 8, 9, 100, u32::MAX].map(|failures| pause(failures).as_secs());
    assert_eq!(pauses, [30, 30, 60, 120, 3600, 3600, 3600, 3600]);
}
