#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::maildir::{FileState, Look, Origin, Place};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::mapi::EntryId;
use crate::spi::MessageStore;
use crate::spool::{SledSpool, SpoolOptions};
use crate::store::{RawSubmission, StoreOptions};

const TEXT: &[u8] = b"Message-ID: <1@x>\r\nSubject: x\r\n\r\nhi\r\n";

struct House {
    _dir: tempfile::TempDir,
    store: Arc<LocalStore>,
}

impl House {
    async fn new() -> House {
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
        clock.advance(Duration::from_secs(1));
        House { _dir: dir, store }
    }

    fn owed(&self) -> &Owed {
        self.store.owed.as_ref().unwrap()
    }

    /// Puts a copy into its place.
    fn put(&self, token: Token) {
        let maildir = &self.owed().maildir;
        let mut draft = maildir.draft().unwrap();
        draft.write(TEXT).unwrap();
        let (state, look) = (FileState::Seen, Look::Here);
        let time = SysTime::from_millis(1_700_000_000_000);
        let place = Place { mailbox: "work".to_owned(), token, time, state, look };
        maildir.deliver(draft, &place).unwrap();
    }

    async fn copies(&self) -> Vec<OwedCopy> {
        self.store.owed_copies("work").await.unwrap()
    }

    /// What the server is told of the only copy.
    async fn repetition(&self) -> Repetition {
        let copies = self.copies().await;
        assert_eq!(copies.len(), 1);
        self.store.open_copy(&copies[0]).await.unwrap().repetition
    }

    async fn settle(&self) {
        for copy in self.copies().await {
            self.store.settle_copy(&copy).await.unwrap();
        }
    }

    async fn submit(&self) -> EntryId {
        let envelope = RawSubmission {
            recipients: vec!["bob@example.org".into()],
            default_sender: "ann@example.org".into(),
            ..RawSubmission::default()
        };
        let text = Box::pin(std::io::Cursor::new(TEXT.to_vec()));
        let (entry, _) = self.store.submit_raw(envelope, text).await.unwrap();
        self.store.set_deferred(&entry, Some("work")).await.unwrap();
        entry
    }

    fn remembers_nothing(&self) -> bool {
        let copies = self.owed().copies();
        copies.kept.is_empty() && copies.fresh.is_empty()
    }
}

/// Proves: OB-16
#[tokio::test]
async fn a_copy_that_is_offered_while_its_message_still_leaves_is_fresh_once() {
    let house = House::new().await;
    let token = Token::of(Origin::Sent, b"1");
    house.owed().keeps(token, false);
    house.put(token);
    let _offered = house.repetition().await;
    house.owed().added(token);
    assert_eq!(house.repetition().await, Repetition::Possible);
    house.settle().await;
    assert!(house.remembers_nothing());
}

#[tokio::test]
async fn a_copy_is_fresh_until_it_is_offered_and_nothing_is_remembered_of_one_that_is_settled() {
    let house = House::new().await;
    let entry = house.submit().await;
    house.store.finished_msg(&entry).await.unwrap();
    assert_eq!(house.repetition().await, Repetition::First);
    assert_eq!(house.repetition().await, Repetition::Possible);
    house.settle().await;
    assert!(house.copies().await.is_empty() && house.remembers_nothing());
}

/// The message could not leave the Outbox after its copy was made, and is finished again.
#[tokio::test]
async fn a_copy_that_is_made_again_is_fresh_only_if_it_was_never_offered() {
    let house = House::new().await;
    let token = Token::of(Origin::Sent, b"1");
    for (offered, expected) in [(true, Repetition::Possible), (false, Repetition::First)] {
        house.owed().keeps(token, false);
        house.put(token);
        if offered {
            house.repetition().await;
            house.settle().await;
        }
        house.owed().keeps(token, false);
        house.put(token);
        house.owed().added(token);
        assert_eq!(house.repetition().await, expected, "{offered}");
        house.settle().await;
        assert!(house.remembers_nothing(), "{offered}");
    }
    house.owed().keeps(token, true);
    house.put(token);
    house.owed().added(token);
    assert_eq!(house.repetition().await, Repetition::Possible);
}

/// What is damaged here leaves the Outbox without a copy.
#[tokio::test]
async fn nothing_is_remembered_of_a_copy_that_could_not_be_made() {
    let house = House::new().await;
    let token = Token::of(Origin::Sent, b"1");
    house.owed().keeps(token, false);
    house.owed().forgets(token);
    assert!(house.remembers_nothing());
}
