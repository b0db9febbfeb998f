//! Sending: a durable queue of one account, drained over SMTP.
//!
//! `intake` makes rows of the queue; `dispatcher` claims what is due (`claims`) as far as the
//! `lane` allows and starts `worker`s, one for each connection; a worker connects (`login`), sends
//! (`delivery`, `transaction`, `connection`), with the envelope of the message that comes next behind
//! the final dot (`following`), and hands the outcome to the `recorder`, which makes
//! it durable; `journal` makes durable before a final dot goes out that it may be out, and
//! `recovery` finds what a process that died had on the wire; `herald` tells the logon. What a
//! reply means is decided in `reply` alone, what follows for a message in `schedule` alone;
//! `progress` settles who may still stop a message. `expiry` gives up what is not wanted any more. `hosts` and `rate` say
//! which host is tried and how many messages may begin.

mod abort;
mod attempt_notes;
mod body;
mod capabilities;
mod claims;
mod connection;
mod deadlines;
mod delivery;
mod dispatcher;
mod entering;
mod expiry;
mod flight;
mod following;
mod herald;
mod hosts;
mod intake;
mod journal;
mod lane;
mod login;
mod progress;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod rate;
mod recorder;
mod recovery;
mod reply;
mod schedule;
mod shared;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
mod text;
mod transaction;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::Gate;
use crate::clock::{Clock, SystemClock};
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult};
use crate::spi::{Message, SubmitError};
use crate::spool::Spool;
use entering::Entrant;
use herald::{Herald, News};
use login::SmtpDialer;
use shared::{Parts, Shared};

pub(crate) use abort::{Abort, cancelled, perhaps_delivered};
pub(crate) use capabilities::SizeLimit;
pub(crate) use herald::OutboundEvents;
pub(crate) use intake::Taken;
pub(crate) use login::ServerReport;
pub(crate) use shared::OutboundSettings;

/// How long the end of an account waits for the disk and its tasks, beside the grace.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Ended messages told of at once at the start.
const DONE_PAGE: usize = 256;

/// The sending side of one account. All its work is done in tasks of the runtime it was started
/// with; dropping it without [`Outbound::stop`] cuts every connection, and rows that were claimed
/// are due at their stored time.
pub(crate) struct Outbound {
    shared: Arc<Shared>,
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.shared.lane().stop();
        self.shared.end.cancel();
    }
}

impl Outbound {
    /// Starts with a closed gate. What ended before and was not settled is told of again (S3).
    pub(crate) fn start(
        settings: OutboundSettings,
        spool: Arc<dyn Spool>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        events: Arc<dyn OutboundEvents>,
    ) -> Arc<Self> {
        let dialer = Arc::new(SmtpDialer::new(
            &settings.smtp,
            &settings.helo,
            settings.deadlines.clone(),
            Arc::clone(&clock),
        ));
        let dice = Box::new(fastrand::f64);
        Self::assemble(Parts { settings, spool, clock, runtime, dialer, dice }, events)
    }

    fn assemble(parts: Parts, events: Arc<dyn OutboundEvents>) -> Arc<Self> {
        let end = CancellationToken::new();
        let (herald, speak) = Herald::new(Arc::clone(&events), end.clone());
        let (landings, landed) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(parts, herald, events, landings, end));
        // Ends by itself, when everything was said.
        shared.tasks.spawn_on(speak, &shared.runtime);
        shared.spawn("the recorder", recorder::run(Arc::clone(&shared), landed));
        shared.spawn("the dispatcher", dispatcher::run(Arc::clone(&shared)));
        shared.spawn("the reminder", remind(Arc::clone(&shared)));
        shared.spawn("the watch over expiries", expiry::run(Arc::clone(&shared)));
        Arc::new(Outbound { shared })
    }

    /// Lets transactions start (TN-8), or starts none any more and lets those on the wire finish
    /// (TN-9). Never waits.
    pub(crate) fn set_gate(&self, gate: Gate) {
        self.shared.lane().set_gate(gate);
        self.nudge();
    }

    /// Does not wait for trouble of the account to pass. Never waits.
    pub(crate) fn try_now(&self) {
        self.shared.lane().try_now();
        self.nudge();
    }

    /// TN-12: everything queued is due now, each message once, over all connections.
    /// `flush_drained` is told when nothing is left that can move. Never waits.
    pub(crate) fn begin_flush(&self) {
        let under_way = self.shared.flights.all();
        let mut lane = self.shared.lane();
        lane.begin_flush();
        lane.not_tried_yet(under_way.iter().map(|flight| flight.entry.clone()));
        drop(lane);
        self.nudge();
    }

    /// Leaves flush mode. Never waits.
    pub(crate) fn end_flush(&self) {
        self.shared.lane().end_flush();
        self.nudge();
    }

    /// Leaves flush mode if the flush that runs was announced as drained and nothing has come
    /// since; says whether it did. From then on retry times count again. Never waits.
    pub(crate) fn end_drained_flush(&self) -> bool {
        let ended = self.shared.lane().end_drained_flush();
        if ended {
            self.nudge();
        }
        ended
    }

    /// Sees a flush through that may have ended by itself before all messages had come: what it
    /// has tried is not tried again. Waits until nothing is under way and nothing is left that can
    /// be tried now; ends at once when nothing may be sent.
    pub(crate) async fn see_flush_through(&self) {
        let asked = {
            let mut lane = self.shared.lane();
            lane.go_on_flushing();
            lane.new_work();
            lane.asked()
        };
        self.nudge();
        let mut looked = self.shared.quiet_since.subscribe();
        tokio::select! {
            _ = looked.wait_for(|looked| *looked >= asked) => {}
            () = self.shared.end.cancelled() => {}
        }
        // Nothing flies, so each end has been told; it counts when the host has heard of it.
        self.shared.herald.has_said_all().await;
    }

    fn nudge(&self) {
        self.shared.wake.notify_one();
        self.shared.work.notify_waiters();
    }

    /// The inside of SubmitMessage: when it answers [`Taken::Deferred`], the message is in the
    /// queue and survives a power loss. A message that was submitted before is not queued again.
    ///
    /// Needs no runtime of the caller. A dropped future does not undo what was begun: the message
    /// is taken or not, whole.
    ///
    /// # Errors
    /// `MAPI_E_NOT_ME` without a recipient for us (OB-3); `MAPI_E_CANCEL` when `cancel` fired
    /// before the message was stored, or it was cancelled earlier (OB-7); `MAPI_E_WAIT` while the
    /// disk is full; `MAPI_E_CORRUPT_DATA`, `MAPI_E_INVALID_PARAMETER` for what cannot be sent.
    /// Nothing is stored then.
    pub(crate) async fn take(
        &self,
        entry: EntryId,
        message: Arc<dyn Message>,
        cancel: CancellationToken,
    ) -> Result<Taken, SubmitError> {
        let shared = Arc::clone(&self.shared);
        // Noted by the first poll, so that messages enter in the order of the calls.
        let entrant = Entrant::new(&shared, &entry);
        let work = async move {
            let taken = intake::take(&shared, entry, message, cancel).await;
            drop(entrant);
            taken
        };
        match self.shared.tasks.spawn_on(work, &self.shared.runtime).await {
            Ok(taken) => taken,
            Err(error) => Err(broken(&error).into()),
        }
    }

    /// Ends a message whose outcome the host has: its row becomes history. Idempotent.
    ///
    /// # Errors
    /// `MAPI_E_BUSY` when it has not ended; those of the spool.
    pub(crate) async fn settle(&self, entry: &EntryId) -> MapiResult<()> {
        let entry = entry.clone();
        self.on_runtime(|shared| async move { intake::settle(&shared, &entry).await }).await
    }

    /// Takes a deferred message away: cancelled it leaves for good (TN-17), parked it waits for
    /// its message (TN-18). Durable when it returns. A message on the wire whose final dot is not
    /// out loses its connection, so that the server does not get it; the server is not waited for.
    ///
    /// Nobody knows whether a message in doubt was delivered: cancelling one ends its resending,
    /// and the answer is `MAPI_E_UNABLE_TO_ABORT` all the same, because it may have been sent.
    ///
    /// # Errors
    /// `MAPI_E_UNABLE_TO_ABORT` when its final dot is out or it has ended; `MAPI_E_NOT_FOUND`;
    /// those of the spool.
    pub(crate) async fn abort(&self, entry: &EntryId, how: Abort) -> MapiResult<()> {
        let entry = entry.clone();
        self.on_runtime(move |shared| async move { abort::abort(&shared, &entry, how).await }).await
    }

    /// Keeps a message from being sent until it is released. One on the wire whose final dot is
    /// not out loses its connection.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`; `MAPI_E_UNABLE_TO_ABORT` once its final dot is out.
    pub(crate) async fn hold(&self, entry: &EntryId) -> MapiResult<()> {
        self.abort(entry, Abort::Hold).await.map_err(|error| match error.code() {
            MapiCode::NOT_FOUND => {
                MapiError::new(MapiCode::NOT_IN_QUEUE, error.detail().to_owned())
            }
            _ => error,
        })
    }

    /// Makes a message that is on hold, or in doubt and kept, due now.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`.
    pub(crate) async fn release(&self, entry: &EntryId) -> MapiResult<()> {
        self.wish(entry, abort::Wish::Release).await.map(drop)
    }

    /// Makes a message, or every one that waits for its time, due now, and tries the account
    /// again at once. Says how many changed.
    ///
    /// # Errors
    /// `MAPI_E_NOT_IN_QUEUE`.
    pub(crate) async fn retry(&self, entry: Option<&EntryId>) -> MapiResult<u64> {
        let count = match entry {
            Some(entry) => u64::from(self.wish(entry, abort::Wish::Retry).await?),
            None => {
                self.on_runtime(|shared| async move { abort::retry_all(&shared).await }).await?
            }
        };
        self.try_now();
        Ok(count)
    }

    async fn wish(&self, entry: &EntryId, wish: abort::Wish) -> MapiResult<bool> {
        let entry = entry.clone();
        let changed = self
            .on_runtime(move |shared| async move { abort::grant(&shared, &entry, wish).await })
            .await?;
        self.shared.lane().new_work();
        self.nudge();
        Ok(changed)
    }

    /// Ends the sending side (LG-9). Messages on the wire get at most `grace`; with zero they are
    /// dropped at once. What was claimed and not sent is due again at its time, what waits for
    /// the reply to its final dot becomes in doubt. Returns within `grace` and ten seconds.
    pub(crate) async fn stop(&self, grace: Duration) {
        let shared = Arc::clone(&self.shared);
        shared.lane().stop();
        self.nudge();
        let ended = shared.runtime.clone().spawn(async move {
            if tokio::time::timeout(grace, shared.flights.all_landed()).await.is_err() {
                shared.flights.all().iter().for_each(|flight| flight.progress.cut());
                if tokio::time::timeout(END_PATIENCE, shared.flights.all_landed()).await.is_err() {
                    tracing::warn!("Some outcomes could not be recorded before the end");
                }
            }
            shared.end.cancel();
            shared.tasks.close();
            if tokio::time::timeout(END_PATIENCE, shared.tasks.wait()).await.is_err() {
                tracing::warn!("Some tasks of the sending side did not end");
            }
        });
        if let Err(error) = ended.await {
            tracing::error!(%error, "The end of the sending side broke down");
        }
    }

    /// Does work on our runtime; a dropped future lets it go on.
    async fn on_runtime<T, F>(&self, work: impl FnOnce(Arc<Shared>) -> F) -> MapiResult<T>
    where
        T: Send + 'static,
        F: Future<Output = MapiResult<T>> + Send + 'static,
    {
        let task = self.shared.runtime.spawn(work(Arc::clone(&self.shared)));
        task.await.unwrap_or_else(|error| Err(broken(&error)))
    }
}

fn broken(error: &tokio::task::JoinError) -> MapiError {
    MapiError::new(MapiCode::CALL_FAILED, format!("the sending side broke down: {error}"))
}

/// Connects to the server of `settings` and logs in, without a queue, and tells what it offers
/// (ST-7). Needs a tokio runtime.
///
/// # Errors
/// `MAPI_E_NETWORK_ERROR`, `MAPI_E_LOGON_FAILED`, `MAPI_E_WAIT` with what went wrong.
pub(crate) async fn probe(settings: &OutboundSettings) -> MapiResult<ServerReport> {
    let clock = Arc::new(SystemClock);
    let dialer = SmtpDialer::new(&settings.smtp, &settings.helo, settings.deadlines.clone(), clock);
    match dialer.connect().await {
        Ok((connection, report)) => {
            connection.quit().await;
            Ok(report)
        }
        Err(failure) => Err(MapiError::new(failure.trouble_kind().code(), failure.words())),
    }
}

/// Tells again of what ended and was not settled before the last end.
async fn remind(shared: Arc<Shared>) {
    let mut after = None;
    loop {
        let page = match shared.spool.done_page(shared.account, after.as_ref(), DONE_PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "Ended messages cannot be listed");
                return;
            }
        };
        let Some(last) = page.last() else { return };
        after = Some(last.clone());
        for entry in page {
            shared.herald.tell(News::SentDeferred(entry));
        }
    }
}
