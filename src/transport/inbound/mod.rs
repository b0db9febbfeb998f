//! Receiving: IMAP mailboxes to message objects of the host, each message exactly once.
//!
//! An account has lanes, each one connection and its mailboxes. A lane lists what is new, fetches
//! it within a budget of bytes and puts it into a queue; the host is told (IB-1) and takes each
//! with StartMessage ([`Inbound::next`]), which fills the host's message, saves it, and moves the
//! mailbox's cursor on disk. Only what the disk knows as saved is touched on the server (IB-6):
//!
//! ```text
//! window committed -> message saved (synced) -> cursor committed -> flag, delete or move
//! ```
//!
//! A crash between any two of them repeats the message with `Repetition::Possible`, and the store
//! finds it by its `PR_SEARCH_KEY`.

mod account;
mod after;
mod claim;
mod copying;
mod cursor;
mod door;
mod fault;
mod hand_over;
mod key;
mod lane;
mod listing;
mod mailbox;
mod moment;
mod pass;
mod pieces;
mod plan;
mod probe;
mod queue;
mod rematch;
mod responses;
mod session;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
mod tuning;
mod uids;
mod wire;
mod work;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::account::Account;
use self::cursor::Owes;
use self::mailbox::Mailbox;
use super::events::{Activity, Gate, Trouble};
use super::settings::{AfterFetch, ImapSettings};
use crate::clock::Clock;
use crate::mapi::{MapiCode, MapiError, MapiResult};
use crate::net::Deadlines;
use crate::spi::{Incoming, Message};
use crate::spool::{AccountKey, Spool};

pub(crate) use self::hand_over::HandOver;
pub use self::mailbox::{MailboxState, Watched};
pub(crate) use self::probe::{ProbeReport, probe};
pub(crate) use self::tuning::Tuning;

/// Everything receiving needs to know.
#[derive(Clone, Debug)]
pub(crate) struct InboundSettings {
    /// Name of the transport.
    pub(crate) transport: String,
    /// The server, the login and the mailboxes.
    pub(crate) imap: ImapSettings,
    /// Deadlines of connecting.
    pub(crate) deadlines: Deadlines,
    /// Times and sizes.
    pub(crate) tuning: Tuning,
}

impl InboundSettings {
    /// Settings with the usual deadlines, times and sizes.
    pub(crate) fn new(transport: &str, imap: ImapSettings) -> Self {
        InboundSettings {
            transport: transport.to_owned(),
            imap,
            deadlines: Deadlines::default(),
            tuning: Tuning::default(),
        }
    }
}

/// What the logon hears of receiving. Calls come from tasks of the runtime, must not block, and
/// may call back.
pub(crate) trait InboundEvents: Send + Sync + 'static {
    /// Mail is there; not repeated before [`Inbound::next`] was called (IB-1).
    fn new_mail(&self);
    /// Whether a message moves (ST-4).
    fn activity(&self, activity: Activity);
    /// The most important trouble, or that there is none.
    fn trouble(&self, trouble: Option<Trouble>);
    /// What was present when the flush began is handed over, or could not be (TN-10).
    fn flush_drained(&self);
    /// [`Inbound::states`] answers something else now.
    fn changed(&self);
}

/// Receiving for one logon. All work is done in tasks on the runtime given; the calls may be made
/// from anywhere, also from threads without a runtime, and dropping their futures is harmless.
pub(crate) struct Inbound {
    account: Arc<Account>,
    runtime: Handle,
    lanes: Mutex<Vec<JoinHandle<()>>>,
}

impl Inbound {
    /// Starts with the gate closed: nothing is connected.
    pub(crate) fn start(
        settings: InboundSettings,
        spool: Arc<dyn Spool>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        events: Arc<dyn InboundEvents>,
    ) -> Arc<Self> {
        let key = AccountKey::of(&settings.transport);
        let owes = match settings.imap.after {
            AfterFetch::Keep => Owes::Nothing,
            AfterFetch::Seen | AfterFetch::Delete | AfterFetch::Move(_) => Owes::Action,
        };
        let mut names: Vec<&String> = Vec::new();
        for name in &settings.imap.mailboxes {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mailboxes: Vec<Arc<Mailbox>> = names
            .into_iter()
            .enumerate()
            .map(|(number, name)| {
                Arc::new(Mailbox::new(number, name, key, owes, Arc::clone(&spool)))
            })
            .collect();
        let lanes = lane::assign(mailboxes.len(), settings.imap.connections);
        let account = Arc::new(Account::new(settings, clock, events, mailboxes, lanes));
        let tasks = account
            .lanes
            .iter()
            .map(|lane| runtime.spawn(guarded(Arc::clone(&account), Arc::clone(lane))))
            .collect();
        Arc::new(Inbound { account, runtime, lanes: Mutex::new(tasks) })
    }

    /// Opens or closes the direction (TN-6, TN-7); never waits. Opening connects and fetches.
    /// Closing lets the host finish the messages it has begun, gives up what it has not, and ends
    /// the connections in good order.
    pub(crate) fn set_gate(&self, gate: Gate) {
        self.account.control.send_if_modified(|control| {
            let changed = control.gate != gate;
            control.gate = gate;
            control.hurry += u64::from(changed && gate == Gate::Open);
            changed
        });
        self.account.tick();
    }

    /// Looks at every mailbox now and fetches as fast as possible (TN-10), also where a pause
    /// after a fault would still last. [`Inbound::next`] waits for mail until
    /// [`InboundEvents::flush_drained`] was called. A flush while the gate is closed runs when it
    /// opens (TN-13).
    pub(crate) fn begin_flush(&self) {
        self.account.begin_flush();
    }

    /// Leaves flush mode; fetching goes on (TN-11).
    pub(crate) fn end_flush(&self) {
        self.account.end_flush();
    }

    /// Leaves flush mode if the flush that runs was announced as drained; says whether it did.
    /// Never waits.
    pub(crate) fn end_drained_flush(&self) -> bool {
        self.account.end_drained_flush()
    }

    /// The inside of StartMessage: takes the next fetched message, fills and saves `message`, and
    /// records that (IB-2, IB-6). Several calls may run at the same time. Dropping the future
    /// does not end the work.
    ///
    /// # Errors
    /// `MAPI_E_CANCEL` when `cancel` fired before the save: nothing is saved and the message is
    /// handed over again (TN-14). Errors of the message object: the message is tried again later,
    /// and set aside after some tries. `MAPI_E_NETWORK_ERROR` when it broke off on its way.
    pub(crate) async fn next(
        &self,
        message: Arc<dyn Message>,
        cancel: CancellationToken,
    ) -> MapiResult<HandOver> {
        let work = hand_over::next(Arc::clone(&self.account), message, cancel);
        joined(self.runtime.spawn(work).await)
    }

    /// Looks at the server, unless mail is waiting already (IB-1).
    ///
    /// # Errors
    /// `MAPI_E_NETWORK_ERROR`, `MAPI_E_LOGON_FAILED`, `MAPI_E_WAIT` with the words of the trouble
    /// that keeps mail from being fetched.
    pub(crate) async fn poll(&self) -> MapiResult<Incoming> {
        joined(self.runtime.spawn(poll(Arc::clone(&self.account))).await)
    }

    /// The mailboxes as of now, in the order of the profile.
    pub(crate) fn states(&self) -> Vec<MailboxState> {
        self.account.mailboxes.iter().map(|mailbox| mailbox.snapshot()).collect()
    }

    /// Whether new mail will be announced: false when push is off or the server is known not to
    /// offer IDLE (LG-7).
    pub(crate) fn push_expected(&self) -> bool {
        self.account.push_expected()
    }

    #[cfg(test)]
    /// The most bytes that were fetched and not yet handed over at one time.
    pub(crate) fn peak_buffered(&self) -> u64 {
        self.account.budget.peak()
    }

    /// Ends receiving: as closing the gate, and what is not done after `grace` is dropped.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.account.control.send_modify(|control| control.stopping = true);
        self.account.tick();
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let account = Arc::clone(&self.account);
        let stopping = self.runtime.spawn(async move {
            let aborts: Vec<_> = lanes.iter().map(JoinHandle::abort_handle).collect();
            let all = futures_util::future::join_all(lanes);
            tokio::pin!(all);
            if tokio::time::timeout(grace, &mut all).await.is_err() {
                account.kill.cancel();
                aborts.iter().for_each(tokio::task::AbortHandle::abort);
                all.await;
            }
            account.kill.cancel();
        });
        // An error would be a panic or the end of the runtime; both end the lanes.
        let _ = stopping.await;
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.account.kill.cancel();
        let lanes = self.lanes.get_mut().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().for_each(JoinHandle::abort);
    }
}

/// A lane, whose panic is beyond recovery (OB-9): nobody would serve its mailboxes any more.
async fn guarded(account: Arc<Account>, lane: Arc<lane::Lane>) {
    let run = lane::run(Arc::clone(&account), lane);
    if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
        account.events.trouble(Some(Trouble::breakdown("receiving", panic.as_ref())));
    }
}

fn joined<T>(outcome: Result<MapiResult<T>, tokio::task::JoinError>) -> MapiResult<T> {
    outcome.unwrap_or_else(|error| {
        Err(MapiError::new(MapiCode::CALL_FAILED, format!("a task of the transport: {error}")))
    })
}

async fn poll(account: Arc<Account>) -> MapiResult<Incoming> {
    let waiting = |account: &Account| !account.queue.is_empty();
    let mut control = account.control.subscribe();
    // What is still in the queue of a closed direction is on its way out of it (TN-7).
    if lane::is_closed(&control.borrow_and_update()) {
        return Ok(Incoming::None);
    }
    if waiting(&account) {
        return Ok(Incoming::Waiting);
    }
    let look = account.ask_for_look(false);
    let mut tick = account.tick.subscribe();
    let limit = account.settings.deadlines.total() + account.settings.tuning.command;
    let looked = async {
        loop {
            tick.borrow_and_update();
            let closed = lane::is_closed(&control.borrow_and_update());
            if waiting(&account) || closed || account.has_looked(look) {
                return;
            }
            tokio::select! {
                _ = tick.changed() => {}
                _ = control.changed() => {}
                () = account.kill.cancelled() => return,
            }
        }
    };
    let in_time = tokio::time::timeout(limit, looked).await.is_ok();
    if lane::is_closed(&account.control.borrow()) {
        return Ok(Incoming::None);
    }
    if waiting(&account) {
        return Ok(Incoming::Waiting);
    }
    match account.connection_trouble() {
        Some(trouble) => Err(MapiError::from(&trouble)),
        None if in_time => Ok(Incoming::None),
        None => Err(MapiError::new(MapiCode::TIMEOUT, "the server did not answer a look in time")),
    }
}
