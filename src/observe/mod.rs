//! What happens, for those who look on from outside: counters for `/metrics` and events for
//! hooks. Whoever tells an [`Observer`] something never waits for it and never hears of an error:
//! looking on must not hold up mail.

mod counters;
mod exposition;

pub(crate) use counters::{Counters, Ended, Family};
pub(crate) use exposition::{Exposition, Kind};

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::mapi::{EntryId, SysTime};

/// Events kept for a listener that is slow; older ones are lost to it.
const BACKLOG: usize = 4096;

/// Sees what happens in a session. Clones see the same; the counters go on when a session ends and
/// another is opened with the same observer.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    counters: Counters,
    events: broadcast::Sender<Event>,
}

impl Default for Observer {
    fn default() -> Self {
        let counters = Counters::default();
        Observer(Arc::new(Inner { counters, events: broadcast::Sender::new(BACKLOG) }))
    }
}

impl Observer {
    /// The counters.
    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Events from now on. Who is more than 4,096 behind misses some and is told so.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Whether somebody hears of events: what has to be found out for one needs not be otherwise.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.events.receiver_count() > 0
    }

    /// Tells of an event.
    pub(crate) fn tell(&self, event: Event) {
        // An error means that nobody listens.
        let _ = self.0.events.send(event);
    }
}

/// Something that happened and that somebody outside may want to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message has left the queue, and its history is durable.
    Ended(EntryId),
    /// Recipients were refused for good or given up. May be repeated after a crash.
    Failed {
        /// The message.
        entry: EntryId,
        /// The recipients, by row, each with the reason.
        rows: Vec<(u32, String)>,
    },
    /// A message is late, so many recipients still wait for it.
    Delayed {
        /// The message.
        entry: EntryId,
        /// The recipients, by row.
        rows: Vec<u32>,
    },
    /// A message was put into the store.
    Received {
        /// The mailbox it came from.
        mailbox: String,
        /// `From` of its header.
        from: String,
        /// `Subject` of its header.
        subject: String,
        /// When.
        at: SysTime,
    },
    /// The login of a transport needs its user.
    NeedsSignIn {
        /// Name of the transport.
        transport: String,
        /// What is wrong and what to do.
        why: String,
    },
}
