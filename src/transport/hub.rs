//! Where the events of both halves of a logon come together: they change the status row and are
//! passed on to the host.

use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::Notify;

use super::events::{Activity, Trouble};
use super::inbound::InboundEvents;
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
    /// The sending half, to leave flush mode with the row.
    outbound: OnceLock<Weak<Outbound>>,
}

impl Hub {
    pub(crate) fn new(support: Arc<dyn Support>, row: StatusRowKeeper) -> Arc<Self> {
        Arc::new(Hub { support, row, arrivals: Notify::new(), outbound: OnceLock::new() })
    }

    /// Tells which sending half this is the hub of.
    pub(crate) fn attach(&self, outbound: &Arc<Outbound>) {
        // A logon has one sending half for all its life.
        let _ = self.outbound.set(Arc::downgrade(outbound));
    }
}

impl OutboundEvents for Hub {
    fn sent_deferred(&self, entry: &EntryId) {
        self.support.spooler_notify(SpoolerNotify::SENTDEFERRED, Some(entry));
    }

    fn activity(&self, activity: Activity) {
        self.row.update(|situation| situation.outbound_activity = activity);
    }

    fn trouble(&self, trouble: Option<Trouble>) {
        self.row.update(|situation| situation.outbound_trouble = trouble);
    }

    fn ready_to_send(&self) {
        self.support.spooler_notify(SpoolerNotify::READYTOSEND, None);
    }

    fn flush_drained(&self) {
        self.row.update(|situation| {
            let before = situation.notify;
            situation.notify = before.outbound_drained();
            // Retry times count again from here on (TN-12).
            if situation.notify != before
                && let Some(outbound) = self.outbound.get().and_then(Weak::upgrade)
            {
                outbound.end_flush();
            }
        });
    }
}

impl InboundEvents for Hub {
    fn new_mail(&self) {
        self.arrivals.notify_waiters();
        self.support.spooler_notify(SpoolerNotify::NEWMAIL, None);
    }

    fn activity(&self, activity: Activity) {
        self.row.update(|situation| situation.inbound_activity = activity);
    }

    fn trouble(&self, trouble: Option<Trouble>) {
        self.row.update(|situation| situation.inbound_trouble = trouble);
    }

    fn flush_drained(&self) {
        self.row.update(|situation| situation.notify = situation.notify.inbound_drained());
        self.arrivals.notify_waiters();
    }

    fn changed(&self) {}
}
