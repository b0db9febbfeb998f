//! A host that is not our spooler: plain threads, a condition variable, and no runtime.

use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use postrider::mapi::{EntryId, MapiResult, ModifyStatusFlags, SpoolerNotify, StatusCode};
use postrider::spi::{Message, ProfileSection, RecipientReport, StatusColumns, Support, Yield};

/// The deadline of everything that is waited for: generous, because test machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls a future to its end on this thread, which has no runtime: what the contract promises
/// hosts (see `postrider::spi`).
pub(crate) fn wait<F: Future>(what: &str, future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    assert!(tokio::runtime::Handle::try_current().is_err(), "the host's thread has a runtime");
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{what} did not return");
        thread::park_timeout(left);
    }
}

/// The host's side of one logon.
pub(crate) struct Host(Arc<Inner>);

struct Inner {
    section: Mutex<ProfileSection>,
    seen: Mutex<Seen>,
    changed: Condvar,
}

/// Everything the transport has told its host.
#[derive(Default)]
pub(crate) struct Seen {
    /// Calls of the support object, whatever they were.
    pub(crate) calls: usize,
    pub(crate) notified: Vec<(SpoolerNotify, Option<EntryId>)>,
    /// Each ModifyStatusRow as it came.
    pub(crate) rows: Vec<(StatusColumns, ModifyStatusFlags)>,
    /// The row that follows from them (ST-2).
    pub(crate) row: StatusColumns,
    /// Each StatusRecips: message, attempt, recipients.
    pub(crate) reports: Vec<(EntryId, u32, Vec<RecipientReport>)>,
    /// Each SpoolerYield, with the message it was about.
    pub(crate) yields: Vec<Option<EntryId>>,
    /// What SpoolerYield answers; go on, unless a test says otherwise.
    pub(crate) answer: Option<Yield>,
    /// The transport has let go of the support object.
    pub(crate) released: bool,
}

impl Seen {
    pub(crate) fn code(&self) -> StatusCode {
        self.row.status_code.unwrap_or_default()
    }

    pub(crate) fn words(&self) -> &str {
        self.row.status_string.as_deref().unwrap_or_default()
    }

    /// How often NOTIFY_SENTDEFERRED came for a message.
    pub(crate) fn ended(&self, entry: &EntryId) -> usize {
        let of = |(flags, about): &&(SpoolerNotify, Option<EntryId>)| {
            flags.contains(SpoolerNotify::SENTDEFERRED) && about.as_ref() == Some(entry)
        };
        self.notified.iter().filter(of).count()
    }

    /// How often one of `flags` came.
    pub(crate) fn count(&self, flags: SpoolerNotify) -> usize {
        self.notified.iter().filter(|(notified, _)| notified.intersects(flags)).count()
    }
}

impl Host {
    pub(crate) fn new(section: ProfileSection) -> Self {
        Host(Arc::new(Inner {
            section: Mutex::new(section),
            seen: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Other settings, for whoever asks from now on.
    pub(crate) fn set_section(&self, section: ProfileSection) {
        *self.0.section.lock().unwrap_or_else(PoisonError::into_inner) = section;
    }

    /// A support object to log on with.
    pub(crate) fn support(&self) -> Arc<dyn Support> {
        Arc::new(HostSupport(Arc::clone(&self.0)))
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock()
    }

    /// Waits until what was seen is as wanted.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let waited =
            self.0.changed.wait_timeout_while(self.seen(), PATIENCE, |seen| !condition(seen));
        let (seen, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(
            !timeout.timed_out(),
            "it did not come about that {what}; the row is {:?}, notified was {:?}",
            seen.row,
            seen.notified
        );
    }

    /// Waits for NOTIFY_SENTDEFERRED about a message.
    pub(crate) fn wait_ended(&self, entry: &EntryId) {
        self.wait_until("a deferred message ended", |seen| seen.ended(entry) > 0);
    }

    /// Waits for a flag of the status row to be set, or not.
    pub(crate) fn wait_flag(&self, flag: StatusCode, set: bool) {
        let what = format!("{:?} is {set}", flag.names());
        self.wait_until(&what, |seen| seen.code().contains(flag) == set);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.lock();
        seen.calls += 1;
        change(&mut seen);
        drop(seen);
        self.changed.notify_all();
    }
}

struct HostSupport(Arc<Inner>);

impl Drop for HostSupport {
    fn drop(&mut self) {
        self.0.lock().released = true;
        self.0.changed.notify_all();
    }
}

#[async_trait]
impl Support for HostSupport {
    fn profile_section(&self) -> ProfileSection {
        self.0.section.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn spooler_notify(&self, flags: SpoolerNotify, entry: Option<&EntryId>) {
        self.0.note(|seen| seen.notified.push((flags, entry.cloned())));
    }

    async fn spooler_yield(&self, entry: Option<&EntryId>) -> Yield {
        let mut answer = Yield::Continue;
        self.0.note(|seen| {
            seen.yields.push(entry.cloned());
            answer = seen.answer.unwrap_or(Yield::Continue);
        });
        answer
    }

    fn modify_status_row(
        &self,
        columns: StatusColumns,
        flags: ModifyStatusFlags,
    ) -> MapiResult<()> {
        self.0.note(|seen| {
            let mut row = match flags.contains(ModifyStatusFlags::UPDATE) {
                true => seen.row.clone(),
                false => StatusColumns::default(),
            };
            let StatusColumns {
                display_name,
                identity_display,
                identity_entry_id,
                identity_search_key,
                status_code,
                status_string,
                resource_methods,
            } = columns.clone();
            row.display_name = display_name.or(row.display_name);
            row.identity_display = identity_display.or(row.identity_display);
            row.identity_entry_id = identity_entry_id.or(row.identity_entry_id);
            row.identity_search_key = identity_search_key.or(row.identity_search_key);
            row.status_code = status_code.or(row.status_code);
            row.status_string = status_string.or(row.status_string);
            row.resource_methods = resource_methods.or(row.resource_methods);
            seen.row = row;
            seen.rows.push((columns, flags));
        });
        Ok(())
    }

    async fn status_recips(
        &self,
        message: &dyn Message,
        attempt: u32,
        recipients: Vec<RecipientReport>,
    ) -> MapiResult<()> {
        let entry = message.entry_id().unwrap();
        self.0.note(|seen| seen.reports.push((entry, attempt, recipients)));
        Ok(())
    }

    fn make_invalid(&self) {
        self.0.note(|_| {});
    }
}
