//! A provider with its server, and what is to be asserted about it again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postoffice::Protocol;
use postrider::mapi::{
    EndMessageFlags, EntryId, MapiCode, MessageRef, SPI_VERSION, SubmitMessageFlags,
    TransportNotify,
};
use postrider::spi::{NotifyData, XpLogon};
use postrider::spool::{HistoryEnd, HistoryRecord, QueueRecord};

use crate::foreign_host::{Host, PATIENCE, wait};
use crate::foreign_message::HostMessage;
use crate::foreign_rig::{Rig, code, defer, finish, notify};
use crate::held_spool::HeldSpool;

/// Far below every deadline of the provider and of the spooler that a silent server or disk could
/// use up, far above what a busy test machine needs.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(10);

pub(crate) const NEW: SubmitMessageFlags = SubmitMessageFlags::empty();

/// What a call answers, which must not wait for anybody.
pub(crate) fn at_once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let answer = call();
    assert!(begun.elapsed() < AT_ONCE, "{what} took {:?}", begun.elapsed());
    answer
}

/// The provider, its server, its host and one logon.
pub(crate) struct Stage {
    // Before the rig, whose runtime it works on.
    pub(crate) logon: Arc<dyn XpLogon>,
    pub(crate) host: Host,
    pub(crate) held: Arc<HeldSpool>,
    pub(crate) rig: Rig,
}

impl Stage {
    /// With these directions begun.
    pub(crate) fn new(begin: TransportNotify) -> Self {
        Self::with(begin, |_| {})
    }

    /// The same, with the server prepared before anybody connects to it.
    pub(crate) fn with(begin: TransportNotify, prepare: impl FnOnce(&Rig)) -> Self {
        let (rig, held) = rig();
        rig.provider.init(SPI_VERSION).unwrap();
        prepare(&rig);
        let host = rig.host();
        let logon = rig.log_on(&host);
        notify(&logon, begin).unwrap();
        Stage { logon, host, held, rig }
    }

    /// R: TransportNotify(CANCEL_MESSAGE).
    pub(crate) fn cancel(&self, reference: MessageRef) -> MapiCode {
        let data = NotifyData::Reference(reference);
        self.notify("CANCEL_MESSAGE", TransportNotify::CANCEL_MESSAGE, data)
    }

    /// E: TransportNotify(ABORT_DEFERRED | CANCEL_MESSAGE).
    pub(crate) fn abort(&self, entry: &EntryId) -> MapiCode {
        let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
        self.notify("ABORT_DEFERRED", flags, NotifyData::EntryId(entry))
    }

    fn notify(&self, what: &str, flags: TransportNotify, data: NotifyData<'_>) -> MapiCode {
        at_once(what, || code(wait(what, self.logon.transport_notify(flags, data))))
    }

    /// EndMessage, which must not wait for a server.
    pub(crate) fn end(&self, message: &HostMessage) -> Result<EndMessageFlags, MapiCode> {
        let call = || wait("EndMessage", self.logon.end_message(message.cell.reference()));
        at_once("EndMessage", call).map_err(|error| error.code())
    }

    pub(crate) fn queued(&self, entry: &EntryId) -> Option<QueueRecord> {
        self.rig.serve(self.rig.spool.queue(entry)).unwrap()
    }

    pub(crate) fn history(&self, entry: &EntryId) -> Option<HistoryRecord> {
        self.rig.serve(self.rig.spool.history(entry)).unwrap()
    }

    /// The queue has forgotten the message, and the history says how it ended.
    pub(crate) fn assert_ended(&self, entry: &EntryId, end: HistoryEnd) {
        assert_eq!(self.queued(entry), None, "it is still queued");
        assert_eq!(self.history(entry).map(|history| history.end), Some(end));
    }

    /// It was cancelled: no SubmitMessage for it follows, and it cannot be submitted again.
    pub(crate) fn assert_cancelled(&self, message: &Arc<HostMessage>) {
        let entry = message.entry();
        self.assert_ended(&entry, HistoryEnd::Cancelled);
        assert_eq!(self.abort(&entry), MapiCode::S_OK, "cancelled twice is cancelled");
        let again = crate::foreign_rig::submit(&self.logon, NEW, message).unwrap_err();
        assert_eq!(again.error.code(), MapiCode::CANCEL, "a resubmission is no longer wanted");
        assert_eq!(self.host.seen().ended(&entry), 0, "the host was told of an end");
    }

    /// Another message goes all the way.
    pub(crate) fn assert_next_goes(&self, number: u8) {
        let before = self.rig.office.accepted_count();
        let next = HostMessage::outgoing(number, &["bob@example.org"]);
        defer(&self.logon, &next);
        finish(&self.host, &self.logon, &next);
        assert_eq!(self.rig.office.accepted_count(), before + 1);
        assert!(self.rig.office.violations().is_empty(), "{:?}", self.rig.office.violations());
    }

    pub(crate) fn connections(&self) -> u64 {
        self.rig.office.counters(Protocol::Smtp).connections
    }

    /// Waits until no connection is left that sends.
    pub(crate) fn await_no_connection(&self) {
        let office = &self.rig.office;
        let none = |office: &postoffice::PostOffice| office.counters(Protocol::Smtp).open == 0;
        let gone = self.rig.serve(office.wait_until("no connection", PATIENCE, none));
        assert!(gone.is_ok(), "{}", office.transcript_text());
    }
}

/// A rig over a spool that can be made to wait; nobody has spoken to its provider yet.
pub(crate) fn rig() -> (Rig, Arc<HeldSpool>) {
    let mut held = None;
    let rig = Rig::over(|spool| {
        let before = HeldSpool::before(spool);
        held = Some(Arc::clone(&before));
        before
    });
    (rig, held.unwrap())
}
