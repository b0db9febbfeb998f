//! The watch over messages that are late: after `[queue] delay_warning` the sender is told.
//!
//! A message is told of only when two looks in a row found it late: a machine that was asleep or
//! switched off for the night sends its mail first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mapi::{EntryId, MapiResult, SysTime, tags};
use crate::spool::{OutboxRecord, OutboxState, Spool};
use crate::store::{Late, LocalStore};

/// Time between two looks, at most.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// Rows read at once.
const PAGE: usize = 256;

/// What the watch remembers. A start reads every message that is old enough once; from then on each
/// look reads what has become old enough since.
pub(super) struct Watch {
    store: Arc<LocalStore>,
    spool: Arc<dyn Spool>,
    after: Duration,
    /// Everything up to here was looked at.
    seen: Option<EntryId>,
    /// Messages that were submitted early and are not late yet, and when to look at them again.
    not_yet: BTreeMap<EntryId, SysTime>,
    /// Messages that the last look found late.
    late: BTreeSet<EntryId>,
}

/// Looks until `ending`.
pub(super) async fn run(mut watch: Watch, clock: Arc<dyn Clock>, ending: CancellationToken) {
    let pause = EVERY.min(watch.after / 2).max(Duration::from_millis(100));
    loop {
        let now = clock.now();
        tokio::select! {
            () = ending.cancelled() => return,
            looked = watch.look(now) => if let Err(error) = looked {
                tracing::warn!(%error, "The watch over late messages cannot read the queue");
            },
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = clock.sleep_until(now.saturating_add(pause)) => {}
        }
    }
}

impl Watch {
    pub(super) fn new(store: Arc<LocalStore>, spool: Arc<dyn Spool>, after: Duration) -> Self {
        let (not_yet, late) = (BTreeMap::new(), BTreeSet::new());
        Watch { store, spool, after, seen: None, not_yet, late }
    }

    /// One look: tells of what was late before and still is, and finds what has become late.
    async fn look(&mut self, now: SysTime) -> MapiResult<()> {
        for entry in std::mem::take(&mut self.late) {
            match self.store.tell_of_delay(&entry).await {
                Ok(Late::Told | Late::ToldBefore | Late::Untold | Late::Over) => {}
                Ok(Late::Held) => {
                    self.not_yet.insert(entry, now.saturating_add(self.after));
                }
                Err(error) => {
                    tracing::warn!(%entry, %error, "The sender could not be told of a delay");
                    self.not_yet.insert(entry, now.saturating_add(EVERY));
                }
            }
        }
        self.late.extend(self.not_yet.extract_if(.., |_, at| *at <= now).map(|(entry, _)| entry));
        loop {
            let page = self.spool.outbox_page(self.seen.as_ref(), PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for (entry, record) in page {
                // In order of submission: whatever follows is younger.
                if record.submitted.saturating_add(self.after) > now {
                    return Ok(());
                }
                self.seen = Some(entry.clone());
                let at = wanted_from(&record).saturating_add(self.after);
                if at <= now {
                    self.late.insert(entry);
                } else {
                    self.not_yet.insert(entry, at);
                }
            }
        }
    }
}

/// From when on the message is to be sent (OB-19).
fn wanted_from(record: &OutboxRecord) -> SysTime {
    let not_before = match record.state {
        OutboxState::Waiting { not_before } => not_before,
        OutboxState::Deferred { .. } | OutboxState::Held => SysTime::EPOCH,
    };
    let asked = record.props.time(tags::DEFERRED_SEND_TIME).unwrap_or(SysTime::EPOCH);
    record.submitted.max(not_before).max(asked)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::mapi::{MessageData, PropList, Recipient, RecipientType};
    use crate::spool::{SledSpool, SpoolOptions};
    use crate::store::StoreOptions;

    const HOUR: Duration = Duration::from_secs(3600);

    struct House {
        dir: tempfile::TempDir,
        clock: ManualClock,
        store: Arc<LocalStore>,
        spool: Arc<dyn Spool>,
    }

    impl House {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = ManualClock::new(SysTime::from_millis(1_700_000_000_000));
            let options = SpoolOptions { reserve: 0, ..SpoolOptions::default() };
            let spool: Arc<dyn Spool> =
                Arc::new(SledSpool::open(&dir.path().join("spool"), options).unwrap());
            let store = LocalStore::open(
                StoreOptions { maildir: dir.path().join("Mail"), ..StoreOptions::default() },
                Arc::clone(&spool),
                Arc::new(clock.clone()),
                tokio::runtime::Handle::current(),
            );
            let store = store.await.unwrap();
            House { dir, clock, store, spool }
        }

        fn watch(&self) -> Watch {
            Watch::new(Arc::clone(&self.store), Arc::clone(&self.spool), 4 * HOUR)
        }

        async fn submit(&self, not_before: Option<Duration>) -> EntryId {
            let mut props = PropList::new()
                .with(tags::SUBJECT, "x")
                .with(tags::BODY, "x")
                .with(tags::SENDER_EMAIL_ADDRESS, "ann@example.org");
            if let Some(after) = not_before {
                props.set(tags::DEFERRED_SEND_TIME, self.clock.now().saturating_add(after));
            }
            let recipients = vec![Recipient::smtp(0, RecipientType::To, "bob@example.org")];
            let message = MessageData { props, recipients, attachments: Vec::new() };
            self.store.submit(message).await.unwrap().0
        }

        fn warnings(&self) -> usize {
            std::fs::read_dir(self.dir.path().join("Mail/new")).unwrap().count()
        }

        /// Lets time go by, and looks.
        async fn later(&self, watch: &mut Watch, by: Duration) -> usize {
            self.clock.advance(by);
            watch.look(self.clock.now()).await.unwrap();
            self.warnings()
        }
    }

    #[tokio::test]
    async fn a_message_is_told_of_when_two_looks_found_it_late() {
        let house = House::new().await;
        let mut watch = house.watch();
        house.submit(None).await;
        assert_eq!(house.later(&mut watch, HOUR).await, 0);
        house.submit(None).await;
        // The machine slept over night: both are late at the first look.
        assert_eq!(house.later(&mut watch, 9 * HOUR).await, 0);
        assert_eq!(house.later(&mut watch, EVERY).await, 2);
        assert_eq!(house.later(&mut watch, 9 * HOUR).await, 2, "once");
        // Neither does a restart tell of it again.
        let mut watch = house.watch();
        house.later(&mut watch, EVERY).await;
        assert_eq!(house.later(&mut watch, EVERY).await, 2);
    }

    #[tokio::test]
    async fn what_was_sent_meanwhile_is_not_late() {
        let house = House::new().await;
        let mut watch = house.watch();
        let entry = house.submit(None).await;
        assert_eq!(house.later(&mut watch, 5 * HOUR).await, 0);
        crate::spi::MessageStore::abort_submit(house.store.as_ref(), &entry).await.unwrap();
        assert_eq!(house.later(&mut watch, EVERY).await, 0);
        assert!(watch.late.is_empty() && watch.not_yet.is_empty());
    }

    #[tokio::test]
    async fn time_runs_from_when_a_message_may_be_sent_and_not_while_it_is_held() {
        let house = House::new().await;
        let mut watch = house.watch();
        house.submit(Some(10 * HOUR)).await;
        let held = house.submit(None).await;
        house.store.hold(&held).await.unwrap();
        for _ in 0..13 {
            assert_eq!(house.later(&mut watch, HOUR).await, 0);
        }
        assert_eq!(house.later(&mut watch, HOUR).await, 0, "late for the first time");
        assert_eq!(house.later(&mut watch, HOUR).await, 1);
        house.store.release(&held).await.unwrap();
        let mut looks = 0;
        while house.later(&mut watch, HOUR).await < 2 {
            looks += 1;
            assert!(looks < 10, "what was released is late in the end");
        }
    }
}
