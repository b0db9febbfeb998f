//! Brings sent copies that are owed to the servers, one task for each account, for as long as the
//! session lasts. What cannot be stored stays owed and is tried again, also by the next session.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mapi::MapiCode;
use crate::spi::SentFolder;
use crate::store::LocalStore;

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
    /// Nothing is owed.
    Empty,
    /// Something still is.
    Trouble,
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
        let mut pause = PAUSES.0;
        loop {
            let mut news = std::pin::pin!(self.store.copy_owed());
            // Before the look, so that what comes between the look and the wait is not missed.
            let _not_yet = futures_util::poll!(news.as_mut());
            match self.round().await {
                Round::Empty => {
                    pause = PAUSES.0;
                    news.await;
                }
                Round::Trouble => {
                    self.clock.sleep_until(self.clock.now().saturating_add(pause)).await;
                    pause = pause.saturating_mul(2).min(PAUSES.1);
                }
            }
        }
    }

    /// Stores all that is owed, as far as the server takes it.
    async fn round(&self) -> Round {
        let copies = match self.store.owed_copies(&self.transport).await {
            Ok(copies) => copies,
            Err(error) => {
                tracing::warn!(transport = %self.transport, %error, "Owed copies cannot be listed");
                return Round::Trouble;
            }
        };
        let (mut round, mut trouble) = (Round::Empty, None);
        for copy in &copies {
            let opened = match self.store.open_copy(copy).await {
                Ok(opened) => opened,
                Err(error) if error.code() == MapiCode::NOT_FOUND => continue,
                Err(error) => {
                    tracing::warn!(transport = %self.transport, %error, "An owed copy");
                    round = Round::Trouble;
                    continue;
                }
            };
            let stored = match self.folder.append(opened).await {
                Ok(()) => self.store.settle_copy(copy).await,
                Err(error) => Err(error),
            };
            if let Err(error) = stored {
                tracing::warn!(
                    transport = %self.transport, %error,
                    "A sent copy is not on the server yet, it stays owed"
                );
                round = Round::Trouble;
                trouble = Some(error.to_string());
                // A copy that is not taken says nothing of the others.
                if error.code() != MapiCode::CALL_FAILED {
                    break;
                }
            }
        }
        self.store.note_trouble(&self.transport, trouble);
        self.folder.rest().await;
        round
    }
}
