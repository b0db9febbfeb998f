//! Where the events of both halves of a logon come together: they change the status row and are
//! passed on to the host.

use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::Notify;

use super::events::{Activity, Trouble};
use super::inbound::{Inbound, InboundEvents};
use super::logon::Halves;
use super::outbound::{Outbound, OutboundEvents};
use super::status::StatusRowKeeper;
use crate::mapi::{EntryId, SpoolerNotify};
use crate::spi::Support;

/// Passes events on.
pub(crate) struct Hub {
    pub(crate) support: Arc<dyn Support>,
    pub(crate) row: StatusRowKeeper,
    /// Wakes StartMessage calls that wait during a flush: mail came, or the flush is over.
    pub(crate) arrivals: Notify,
    /// The halves themselves, once they exist.
    outbound: OnceLock<Weak<Outbound>>,
    inbound: OnceLock<Weak<Inbound>>,
}

impl Hub {
    pub(crate) fn new(support: Arc<dyn Support>, row: StatusRowKeeper) -> Arc<Self> {
        Arc::new(Hub {
            support,
            row,
            arrivals: Notify::new(),
            outbound: OnceLock::new(),
            inbound: OnceLock::new(),
        })
    }

    /// Gets to know the halves, which are made with the hub in hand.
    pub(crate) fn attach(&self, halves: &Halves) {
        if let Some(outbound) = &halves.outbound {
            // A hub belongs to one logon, whose halves never change.
            let _ = self.outbound.set(Arc::downgrade(outbound));
        }
        if let Some(inbound) = &halves.inbound {
            let _ = self.inbound.set(Arc::downgrade(inbound));
        }
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
        self.row.update(|situation| situation.outbound_trouble = trouble);
    }

    fn ready_to_send(&self) {
        self.row.notify(SpoolerNotify::READYTOSEND, None);
    }

    /// The half and the row leave flush mode in one step. News of a flush that was begun again
    /// meanwhile are old: that one goes on and announces its own end.
    fn flush_drained(&self) {
        self.row.update(|situation| {
            let half = self.outbound.get().and_then(Weak::upgrade);
            if half.is_none_or(|half| half.end_drained_flush()) {
                situation.notify = situation.notify.outbound_drained();
            }
        });
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
        self.row.update(|situation| situation.inbound_trouble = trouble);
    }

    fn flush_drained(&self) {
        self.row.update(|situation| {
            let half = self.inbound.get().and_then(Weak::upgrade);
            if half.is_none_or(|half| half.end_drained_flush()) {
                situation.notify = situation.notify.inbound_drained();
            }
        });
        self.arrivals.notify_waiters();
    }

    fn changed(&self) {}
}
