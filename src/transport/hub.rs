//! Where the events of both halves of a logon come together: they change the status row and are
//! passed on to the host.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::events::{Activity, Gate, SendingNotes, Trouble};
use super::inbound::{Inbound, InboundEvents};
use super::logon::Halves;
use super::outbound::{Outbound, OutboundEvents};
use super::status::{Situation, StatusRowKeeper};
use crate::mapi::{EntryId, SpoolerNotify};
use crate::observe::{Event, Family, Observer};
use crate::spi::{Support, Yield};

/// Passes events on.
pub(crate) struct Hub {
    pub(crate) support: Arc<dyn Support>,
    pub(crate) row: StatusRowKeeper,
    /// Wakes StartMessage calls that wait during a flush: mail came, or the flush is over.
    pub(crate) arrivals: Notify,
    /// Name of the transport.
    transport: String,
    /// Who looks on.
    observer: Observer,
    /// The halves themselves, once they exist.
    halves: Mutex<(Weak<Outbound>, Weak<Inbound>)>,
}

impl Hub {
    pub(crate) fn new(
        support: Arc<dyn Support>,
        row: StatusRowKeeper,
        transport: &str,
        observer: Observer,
    ) -> Arc<Self> {
        let (arrivals, transport) = (Notify::new(), transport.to_owned());
        Arc::new(Hub { support, row, arrivals, transport, observer, halves: Mutex::default() })
    }

    /// Shows the trouble of one direction, or its end, and tells who looks on when it is new.
    fn show(
        &self,
        direction: &'static str,
        trouble: Option<Trouble>,
        place: impl FnOnce(&mut Situation) -> &mut Option<Trouble>,
    ) {
        let new = trouble.clone();
        let (before, asked_before) = self.row.update(|situation| {
            let asked = situation.troubles().any(|trouble| trouble.kind.needs_the_user());
            (std::mem::replace(place(situation), trouble), asked)
        });
        let Some(new) = new else { return };
        if before.is_none_or(|before| before.kind != new.kind) {
            let code = new.kind.code().to_string();
            let labels =
                [("transport", &*self.transport), ("direction", direction), ("code", &code)];
            self.observer.counters().add(Family::Troubles, &labels, 1);
        }
        // One refused password is one call for its user, also when both directions meet it.
        if new.kind.needs_the_user() && !asked_before {
            let transport = self.transport.clone();
            self.observer.tell(Event::NeedsSignIn { transport, why: new.words });
        }
    }

    /// Gets to know the halves, which are made with the hub in hand.
    pub(crate) fn attach(&self, halves: &Halves) {
        let weak = (
            halves.outbound.as_ref().map(Arc::downgrade).unwrap_or_default(),
            halves.inbound.as_ref().map(Arc::downgrade).unwrap_or_default(),
        );
        *self.halves.lock().unwrap_or_else(PoisonError::into_inner) = weak;
    }

    fn halves(&self) -> Halves {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        Halves { outbound: halves.0.upgrade(), inbound: halves.1.upgrade() }
    }

    /// The logon is beyond recovery: nothing is begun any more, the row says so, and the host is
    /// told once (OB-9, IB-7).
    fn broken(&self, trouble: Trouble) {
        tracing::error!(words = %trouble.words, "A logon is beyond recovery");
        let first = self.row.update(|situation| {
            let first = situation.broken.is_none();
            situation.broken.get_or_insert(trouble);
            first
        });
        if !first {
            return;
        }
        let Halves { outbound, inbound } = self.halves();
        if let Some(outbound) = outbound {
            outbound.set_gate(Gate::Closed);
        }
        if let Some(inbound) = inbound {
            inbound.set_gate(Gate::Closed);
        }
        self.row.notify(SpoolerNotify::CRITICAL_ERROR, None);
        self.arrivals.notify_waiters();
    }
}

impl OutboundEvents for Hub {
    fn sent_deferred(&self, entry: &EntryId) {
        self.row.notify(SpoolerNotify::SENTDEFERRED, Some(entry));
    }

    fn activity(&self, activity: Activity) {
        self.row.update(|situation| situation.outbound_activity = activity);
    }

    fn trouble(&self, trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) if trouble.kind.is_final() => self.broken(trouble),
            other => self.show("outbound", other, |situation| &mut situation.outbound_trouble),
        }
    }

    fn attempted(&self, result: &'static str) {
        let labels = [("transport", &*self.transport), ("result", result)];
        self.observer.counters().add(Family::Attempts, &labels, 1);
    }

    fn notes(&self, notes: SendingNotes) {
        self.row.update(|situation| situation.sending_notes = notes);
    }

    fn ready_to_send(&self) {
        self.row.notify(SpoolerNotify::READYTOSEND, None);
    }

    /// The half and the row leave flush mode in one step. News of a flush that was begun again
    /// meanwhile are old: that one goes on and announces its own end.
    fn flush_drained(&self) {
        self.row.update(|situation| {
            let half = self.halves().outbound;
            if half.is_none_or(|half| half.end_drained_flush()) {
                situation.notify = situation.notify.outbound_drained();
            }
        });
    }

    fn yield_to_host<'a>(&'a self, entry: &'a EntryId) -> BoxFuture<'a, Yield> {
        Box::pin(async move { self.support.spooler_yield(Some(entry)).await })
    }
}

impl InboundEvents for Hub {
    fn new_mail(&self) {
        self.arrivals.notify_waiters();
        self.row.notify(SpoolerNotify::NEWMAIL, None);
    }

    fn activity(&self, activity: Activity) {
        self.row.update(|situation| situation.inbound_activity = activity);
    }

    fn trouble(&self, trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) if trouble.kind.is_final() => self.broken(trouble),
            other => self.show("inbound", other, |situation| &mut situation.inbound_trouble),
        }
    }

    fn flush_drained(&self) {
        self.row.update(|situation| {
            let half = self.halves().inbound;
            if half.is_none_or(|half| half.end_drained_flush()) {
                situation.notify = situation.notify.inbound_drained();
            }
        });
        self.arrivals.notify_waiters();
    }

    fn changed(&self) {}
}
