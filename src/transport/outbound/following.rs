//! Which message follows over a connection while the one on it is not answered yet.

use std::sync::{Arc, Mutex, PoisonError};

use super::connection::Connection;
use super::delivery;
use super::flight::Flight;
use super::progress::Stage;
use super::schedule;
use super::shared::Shared;
use super::transaction::{Ahead, Follow};

/// Takes the next message in line for one connection, and keeps it until its turn.
pub(super) struct Following {
    shared: Arc<Shared>,
    next: Mutex<Option<Next>>,
}

/// The message that follows.
struct Next {
    flight: Arc<Flight>,
    /// Whether its envelope was to be written.
    ahead: bool,
}

impl Following {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Following { shared: Arc::clone(shared), next: Mutex::default() }
    }

    /// The message that follows, whose turn it is now.
    pub(super) fn take(&self) -> Option<Arc<Flight>> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        next.map(|next| next.flight)
    }

    /// Whether the envelope of a message was given away whose turn has not come yet.
    pub(super) fn is_ahead(&self) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.as_ref().is_some_and(|next| next.ahead)
    }
}

impl Follow for Following {
    fn next(&self, connection: &Connection) -> Option<Ahead> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_some() || !connection.capabilities().pipelining {
            return None;
        }
        let now = self.shared.clock.now();
        let flight = self.shared.lane().take_following(now)?;
        self.shared.wake.notify_one();
        let is_wanted = flight.progress.stage() != Stage::Stopped
            && !schedule::is_unwanted(&flight.record(), now);
        let most = self.shared.settings.smtp.recipients_per_message;
        let ahead = match is_wanted {
            true => delivery::ahead(connection, &flight, most),
            false => None,
        };
        *next = Some(Next { flight, ahead: ahead.is_some() });
        ahead
    }
}
