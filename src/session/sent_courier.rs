//! Brings sent copies that are owed to the servers, one task for each account, for as long as the
//! session lasts. What cannot be stored stays owed and is tried again, also by the next session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mapi::{MapiCode, MapiError, SysTime};
use crate::spi::SentFolder;
use crate::store::{LocalStore, OwedCopy};

/// Pauses after a failure: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60 * 60));

/// What a courier needs.
pub(super) struct Courier {
    pub(super) transport: String,
    pub(super) store: Arc<LocalStore>,
    pub(super) folder: Arc<dyn SentFolder>,
    pub(super) clock: Arc<dyn Clock>,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// All was tried that is due; what is left is due from then on.
    Through { again: Option<SysTime> },
    /// The connection failed.
    Broken,
    /// No copy can be stored now: the account cannot log in, or the disk fails.
    Shut,
}

/// Why a copy is not settled.
enum Trouble {
    /// It says nothing of the others.
    Copy(MapiError),
    /// The network is away, or this is a copy at which the server hangs up.
    Connection(MapiError),
    /// It concerns them all.
    All(MapiError),
}

impl Trouble {
    fn of(error: MapiError) -> Self {
        match error.code() {
            MapiCode::CALL_FAILED | MapiCode::CORRUPT_DATA => Trouble::Copy(error),
            MapiCode::NETWORK_ERROR => Trouble::Connection(error),
            _ => Trouble::All(error),
        }
    }

    fn error(&self) -> &MapiError {
        let (Trouble::Copy(error) | Trouble::Connection(error) | Trouble::All(error)) = self;
        error
    }
}

/// What failed so far.
#[derive(Default)]
struct Failures {
    /// Rounds that failed since a copy was stored.
    rounds: u32,
    /// Copies that failed: how often, and from when on they are due again. So one that always fails
    /// costs the others nothing.
    copies: HashMap<OwedCopy, (u32, SysTime)>,
}

impl Failures {
    fn of(&self, copy: &OwedCopy) -> (u32, SysTime) {
        self.copies.get(copy).copied().unwrap_or((0, SysTime::EPOCH))
    }

    fn add(&mut self, copy: &OwedCopy, now: SysTime) {
        let failures = self.of(copy).0.saturating_add(1);
        self.copies.insert(copy.clone(), (failures, now.saturating_add(pause(failures))));
    }

    /// Those of these copies that are due, oldest first, but behind those that failed less often.
    fn due<'a>(&self, copies: &'a [OwedCopy], now: SysTime) -> Vec<&'a OwedCopy> {
        let mut due: Vec<_> = copies.iter().filter(|copy| self.of(copy).1 <= now).collect();
        due.sort_by_key(|copy| self.of(copy).0);
        due
    }

    /// Forgets all that is not among these.
    fn keep_only(&mut self, copies: &[OwedCopy]) {
        let mut before = std::mem::take(&mut self.copies);
        self.copies.extend(copies.iter().filter_map(|copy| before.remove_entry(copy)));
    }
}

/// The pause after so many failures.
fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSES.0.saturating_mul(1 << doublings).min(PAUSES.1)
}

impl Courier {
    /// Works until the session ends. A copy whose storing is cut off is looked for before it is
    /// stored by the next session.
    pub(super) async fn run(self, ending: CancellationToken) {
        tokio::select! {
            () = ending.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let mut failures = Failures::default();
        loop {
            let mut news = std::pin::pin!(self.store.copy_owed());
            // Before the look, so that what comes between the look and the wait is not missed.
            let _not_yet = futures_util::poll!(news.as_mut());
            let round = self.round(&mut failures).await;
            failures.rounds = match round {
                Round::Through { .. } => 0,
                Round::Broken | Round::Shut => failures.rounds.saturating_add(1),
            };
            let later = self.clock.now().saturating_add(pause(failures.rounds));
            match round {
                Round::Through { again: None } => news.await,
                Round::Through { again: Some(again) } => self.news_or(again, news).await,
                // A message was sent just now: the network may be back.
                Round::Broken => self.news_or(later, news).await,
                Round::Shut => self.clock.sleep_until(later).await,
            }
        }
    }

    async fn news_or(&self, time: SysTime, news: impl Future<Output = ()>) {
        tokio::select! {
            () = news => {}
            () = self.clock.sleep_until(time) => {}
        }
    }

    /// Stores all that is owed and due, as far as the server takes it.
    async fn round(&self, failures: &mut Failures) -> Round {
        let copies = match self.store.owed_copies(&self.transport).await {
            Ok(copies) => copies,
            Err(error) => {
                tracing::warn!(transport = %self.transport, %error, "Owed copies cannot be listed");
                return Round::Shut;
            }
        };
        failures.keep_only(&copies);
        let (mut cut_off, mut why) = (None, None);
        for copy in failures.due(&copies, self.clock.now()) {
            let Err(trouble) = self.bring(copy).await else {
                failures.rounds = 0;
                failures.copies.remove(copy);
                continue;
            };
            tracing::warn!(
                transport = %self.transport, error = %trouble.error(),
                "A sent copy is not on the server yet, it stays owed"
            );
            why = Some(trouble.error().to_string());
            match trouble {
                Trouble::Copy(_) => failures.add(copy, self.clock.now()),
                Trouble::Connection(_) => {
                    failures.add(copy, self.clock.now());
                    cut_off = Some(Round::Broken);
                    break;
                }
                Trouble::All(_) => {
                    cut_off = Some(Round::Shut);
                    break;
                }
            }
        }
        // The reason of one that failed stands until it is stored.
        if why.is_some() || failures.copies.is_empty() {
            self.store.note_trouble(&self.transport, why);
        }
        self.folder.rest().await;
        let again = || failures.copies.values().map(|(_, again)| *again).min();
        cut_off.unwrap_or_else(|| Round::Through { again: again() })
    }

    /// Stores one copy, so that it is owed no more.
    async fn bring(&self, copy: &OwedCopy) -> Result<(), Trouble> {
        let opened = match self.store.open_copy(copy).await {
            Err(error) if error.code() == MapiCode::NOT_FOUND => return Ok(()),
            opened => opened.map_err(Trouble::Copy)?,
        };
        self.folder.append(opened).await.map_err(Trouble::of)?;
        self.store.settle_copy(copy).await.map_err(Trouble::All)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
