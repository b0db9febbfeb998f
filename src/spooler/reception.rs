//! The reception loop of one logon: NEWMAIL or Poll -> StartMessage -> the store (IB-1 to IB-4).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::Shared;
use super::slot::Slot;
use crate::mapi::{LogonOutFlags, MapiCode, StatusCode, TransportNotify};
use crate::spi::{Incoming, MessageRefCell, NotifyData};

/// How many StartMessage calls begin a round, so that one that breaks down holds up nobody.
const FIRST: usize = 8;

/// Most StartMessage calls that run at once: saving waits for the disk, and all that wait at the
/// same time share one round of it. They become more only as messages come.
const PARALLEL: usize = 128;

/// How long to wait after the store refused a message or StartMessage failed, unless NEWMAIL
/// comes before.
const AFTER_TROUBLE: Duration = Duration::from_secs(30);

/// How a round of StartMessage calls ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nothing is left for now.
    Empty,
    /// Something failed; try again by and by.
    Trouble,
}

/// Runs until the session ends or the logon reports a critical error.
pub(crate) async fn run(shared: Arc<Shared>, slot: Arc<Slot>) {
    let mut round = Round::Empty;
    loop {
        let polled = slot.wants(LogonOutFlags::SP_POLL);
        let idles = slot.wants(LogonOutFlags::SP_IDLE);
        let pause = match round {
            Round::Trouble => Some(AFTER_TROUBLE),
            Round::Empty if polled || idles => Some(shared.options.poll_interval),
            Round::Empty => None,
        };
        let timer = async {
            match pause {
                Some(pause) => {
                    let until = shared.clock.now().saturating_add(pause);
                    shared.clock.sleep_until(until).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = slot.critical_error.cancelled() => return,
            () = slot.new_mail.notified() => {}
            () = timer => {
                if idles {
                    idle(&slot).await;
                }
                if round == Round::Empty && !polled {
                    continue;
                }
            }
        }
        let work = AssertUnwindSafe(receive(&shared, &slot));
        round = work.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(transport = %slot.name, "Receiving broke down");
            Round::Trouble
        });
    }
}

/// A chance for low-priority work (LG-7), but not in a critical section (IB-9).
async fn idle(slot: &Slot) {
    let (false, Ok(logon)) = (slot.in_critical_section(), slot.logon()) else { return };
    if let Err(error) = logon.idle().await {
        tracing::warn!(transport = %slot.name, %error, "Idle failed");
    }
}

/// A StartMessage call that runs.
struct Starting<'a>(&'a Slot);

impl<'a> Starting<'a> {
    fn begin(slot: &'a Slot) -> Self {
        slot.starts.add();
        Starting(slot)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.starts.remove();
    }
}

/// Takes what there is, unless the direction is closed (TN-7).
async fn receive(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Round {
    let flush = slot.inbound_flushes.load(Ordering::SeqCst);
    let code = shared.table.status_code(slot.row_id).unwrap_or_default();
    if !code.contains(StatusCode::INBOUND_ENABLED) || slot.in_critical_section() {
        return Round::Empty;
    }
    let flushing = code.contains(StatusCode::INBOUND_FLUSH);
    if slot.wants(LogonOutFlags::SP_POLL) && !flushing && !polled(slot).await {
        return Round::Empty;
    }
    let starting = Starting::begin(slot);
    let round = drain(shared, slot).await;
    let still = shared.table.status_code(slot.row_id).unwrap_or_default();
    if flushing
        && still.contains(StatusCode::INBOUND_FLUSH)
        // Another flush that has begun meanwhile has a cycle of its own.
        && slot.inbound_flushes.load(Ordering::SeqCst) == flush
        && let Ok(logon) = slot.logon()
    {
        // FL-3: one came back unsaved, so the cycle is over.
        let end = TransportNotify::END_INBOUND_FLUSH;
        if let Err(error) = logon.transport_notify(end, NotifyData::None).await {
            tracing::warn!(transport = %slot.name, %error, "The inbound flush could not be ended");
        }
    }
    drop(starting);
    round
}

/// Whether Poll says that mail is there (IB-1).
async fn polled(slot: &Slot) -> bool {
    match slot.logon() {
        Ok(logon) => matches!(logon.poll().await, Ok(Incoming::Waiting)),
        Err(_) => false,
    }
}

/// What a StartMessage call came to.
enum Start {
    /// There may be more.
    Saved,
    /// The host did not want this one; there may be others.
    Cancelled,
    /// One came back unsaved.
    Ended(Round),
}

/// Calls StartMessage until all that run come back unsaved (IB-3).
async fn drain(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Round {
    let mut starts = FuturesUnordered::new();
    starts.extend((0..FIRST).map(|_| start(shared, slot)));
    let mut round = Round::Empty;
    while let Some(ended) = starts.next().await {
        let follow = match ended {
            Start::Saved => 2,
            Start::Cancelled => 1,
            Start::Ended(Round::Empty) => 0,
            Start::Ended(Round::Trouble) => {
                round = Round::Trouble;
                0
            }
        };
        for _ in 0..follow.min(PARALLEL - starts.len()) {
            starts.push(start(shared, slot));
        }
    }
    round
}

/// Calls StartMessage once.
async fn start(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Start {
    let open = shared
        .table
        .status_code(slot.row_id)
        .is_some_and(|code| code.contains(StatusCode::INBOUND_ENABLED));
    if !open || shared.ending.is_cancelled() || slot.in_critical_section() {
        return Start::Ended(Round::Empty);
    }
    let Ok(logon) = slot.logon() else { return Start::Ended(Round::Empty) };
    let message = match shared.store.new_incoming().await {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(transport = %slot.name, %error, "The store takes no new mail");
            return Start::Ended(Round::Trouble);
        }
    };
    let cell = MessageRefCell::inbound();
    let received = logon.start_message(Arc::clone(&message), &cell).await;
    slot.returns.fetch_add(1, Ordering::SeqCst);
    match received {
        Ok(()) if message.entry_id().is_some() => {
            shared.received.fetch_add(1, Ordering::Relaxed);
            slot.works(&shared.table);
            Start::Saved
        }
        Ok(()) => Start::Ended(Round::Empty),
        Err(error) if error.code() == MapiCode::CANCEL => Start::Cancelled,
        Err(error) if error.code() == MapiCode::END_OF_SESSION => Start::Ended(Round::Empty),
        Err(error) => {
            tracing::warn!(transport = %slot.name, %error, "A message could not be received");
            slot.show_panic(&shared.table);
            Start::Ended(Round::Trouble)
        }
    }
}
