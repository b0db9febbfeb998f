//! How an account works: its trouble, and what is known of the times in which it had some.

use super::super::reply::Failure;
use crate::mapi::SysTime;

/// The account does not work and is left alone for a while.
#[derive(Debug)]
pub(super) struct Paused {
    pub(super) since: SysTime,
    pub(super) failures: u32,
    pub(super) until: SysTime,
    pub(super) why: Failure,
}

/// A time in which the account did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::outbound) struct Outage {
    /// When trouble was first met.
    pub(in crate::transport::outbound) since: SysTime,
    /// When a transaction went through again.
    pub(in crate::transport::outbound) until: SysTime,
}

/// What is known of how the account worked since this process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::transport::outbound) struct Health {
    /// The last time in which it did not work and that is over.
    pub(in crate::transport::outbound) last_outage: Option<Outage>,
    /// When a transaction last went through.
    pub(in crate::transport::outbound) last_success: Option<SysTime>,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::outbound) enum Reaction {
    /// The account waits.
    Pause(SysTime),
    /// The others that are connected go on; no further connection for a while.
    FewerConnections,
}
