//! One connection's life: takes claimed messages one after the other, sends each in a task of its
//! own, and says goodbye when nothing has come for a while.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::delivery::{Delivery, Ended, deliver};
use super::flight::Flight;
use super::following::Following;
use super::journal::RowJournal;
use super::lane::WentAhead;
use super::progress::Stage;
use super::reply::{Failure, Fault, Phase};
use super::schedule::{self, AttemptEnd};
use super::shared::Shared;
use super::text::StoredText;
use crate::mapi::EntryId;
use crate::transport::events::TroubleKind;

/// How long an open connection waits for more. Long enough for the next message of a program
/// that sends one after the other, short enough not to take up one of the few connections that
/// servers allow, and far below the 5 minutes after which they hang up.
const KEEP: Duration = Duration::from_secs(5);

/// A connection that is counted while it is open.
struct Open {
    connection: Option<Connection>,
    shared: Arc<Shared>,
}

impl Open {
    fn is_usable(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_usable)
    }

    /// Gives up a connection whose server waits for the text of another message than this one.
    fn keep_for(&mut self, next: Option<&EntryId>) {
        if self.connection.take_if(|connection| !connection.is_usable_for(next)).is_some() {
            self.shared.lane().disconnected();
        }
    }

    /// Says goodbye beside, so that a server that is slow about it does not hold up a place.
    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.lane().disconnected();
            // Beside, so that a server that is slow to say goodbye does not hold up a place.
            self.shared.spawn_aside(connection.quit());
        }
    }

    /// Counts a connection that is gone.
    fn settle(&mut self) {
        if !self.is_usable() && self.connection.take().is_some() {
            self.shared.lane().disconnected();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.connection.take().is_some() {
            self.shared.lane().disconnected();
        }
    }
}

/// Counts a worker until it ends, however that is.
struct Hired(Arc<Shared>);

impl Drop for Hired {
    fn drop(&mut self) {
        self.0.lane().fire();
        self.0.wake.notify_one();
    }
}

/// Serves until there is no work for it.
pub(super) async fn run(shared: Arc<Shared>) {
    let _hired = Hired(Arc::clone(&shared));
    let mut open = Open { connection: None, shared: Arc::clone(&shared) };
    let following = Arc::new(Following::new(&shared));
    let mut moving = false;
    loop {
        let followed = following.take().and_then(|flight| go_on(&shared, flight));
        open.keep_for(followed.as_ref().map(|flight| &flight.entry));
        let flight = match followed {
            Some(flight) => flight,
            None => match next(&shared, open.is_usable(), &mut moving).await {
                Some(flight) => flight,
                None => break,
            },
        };
        if flight.progress.stage() == Stage::Stopped {
            continue;
        }
        attempt(&shared, &mut open, &following, flight, &mut moving).await;
        open.settle();
    }
    open.hang_up();
}

/// The message that follows over the connection, if it may begin now that it is its turn; given
/// back otherwise (TN-9), and what stands in line behind it with it, so that it is not passed when
/// the gate opens at once.
fn go_on(shared: &Shared, flight: Arc<Flight>) -> Option<Arc<Flight>> {
    let mut lane = shared.lane();
    if lane.may_go_on(shared.clock.now()) {
        return Some(flight);
    }
    let why = lane.trouble().map(|(why, _)| why.clone());
    let mut back = vec![flight];
    back.extend(lane.recall());
    shared.go_back(&mut lane, &back);
    drop(lane);
    shared.give_back(back, why.as_ref());
    None
}

/// The next message, waiting for one as long as the connection is worth keeping.
async fn next(shared: &Shared, connected: bool, moving: &mut bool) -> Option<Arc<Flight>> {
    let deadline = tokio::time::sleep(KEEP);
    tokio::pin!(deadline);
    loop {
        let work = shared.work.notified();
        tokio::pin!(work);
        // Before the look, so that what comes between the look and the wait is not missed.
        work.as_mut().enable();
        let taken = {
            let now = shared.clock.now();
            shared.lane().take_in_turn(now)
        };
        if taken.is_some() {
            shared.wake.notify_one();
            return taken;
        }
        if std::mem::take(moving) {
            shared.rest();
        }
        if !connected || shared.lane().is_stopping() {
            return None;
        }
        shared.lane().rest();
        let timed_out = tokio::select! {
            () = work => false,
            () = &mut deadline => true,
        };
        shared.lane().wake();
        if timed_out {
            return None;
        }
    }
}

/// One attempt, over a fresh connection when the kept one turns out to be closed, or when its
/// login has run out and there is a new token.
async fn attempt(
    shared: &Arc<Shared>,
    open: &mut Open,
    following: &Arc<Following>,
    flight: Arc<Flight>,
    moving: &mut bool,
) {
    let mut renewed = false;
    loop {
        if is_late(shared, &flight) {
            return shared.give_back(vec![flight], None);
        }
        if !open.is_usable() {
            if std::mem::take(moving) {
                shared.rest();
            }
            if !dial(shared, open, &flight).await {
                return;
            }
            if is_late(shared, &flight) {
                continue;
            }
        }
        if !*moving {
            *moving = shared.begin_moving(&flight);
            if !*moving {
                return;
            }
        }
        let was_ahead = open.connection.as_ref().is_some_and(Connection::is_ahead);
        let delivery = guarded(shared, open, following, &flight).await;
        if let Some(end) = went_ahead(open, following, &delivery, was_ahead) {
            shared.lane().went_ahead(end, shared.clock.now());
        }
        if delivery.end == Ended::Stale {
            open.settle();
            continue;
        }
        if !renewed && lost_its_login(&delivery) {
            renewed = true;
            let refused = open.connection.as_ref().and_then(Connection::token).cloned();
            let has_another = match refused {
                Some(refused) => shared.dialer.renew(&refused).await,
                None => false,
            };
            if has_another {
                // Also the final dot may have been what was refused.
                flight.progress.next_transaction();
                open.hang_up();
                continue;
            }
        }
        return finish(shared, open, flight, delivery);
    }
}

/// Whether the server took nothing because it does not know any more who we are.
fn lost_its_login(delivery: &Delivery) -> bool {
    let trouble = delivery.trouble.as_ref().map(Failure::trouble_kind);
    delivery.end == Ended::AccountTrouble && trouble == Some(TroubleKind::LoginRefused)
}

/// How the server took an envelope ahead of its turn: that of this message (`was_ahead`), or of the
/// one that follows it; `None` when there was none, or nothing is known of it yet.
fn went_ahead(
    open: &Open,
    following: &Following,
    delivery: &Delivery,
    was_ahead: bool,
) -> Option<WentAhead> {
    let was_silent = open.connection.as_ref().is_some_and(Connection::was_silent);
    match &delivery.end {
        Ended::Recorded(AttemptEnd::InDoubt(_)) if following.is_ahead() => {
            Some(WentAhead::Confused)
        }
        _ if was_ahead && was_silent => Some(WentAhead::Confused),
        Ended::Stale if was_ahead => Some(WentAhead::Badly),
        Ended::Recorded(AttemptEnd::Broken(_)) if following.is_ahead() => Some(WentAhead::Badly),
        Ended::Recorded(AttemptEnd::Answered) if was_ahead => Some(WentAhead::Well),
        _ => None,
    }
}

/// Whether the message is not wanted any more (OB-19): given back, it is given up.
fn is_late(shared: &Shared, flight: &Flight) -> bool {
    let record = flight.record();
    schedule::is_unwanted(&record, shared.clock.now())
}

/// Connects and logs in; on failure the claim is given back, uncounted.
async fn dial(shared: &Arc<Shared>, open: &mut Open, flight: &Arc<Flight>) -> bool {
    let dialled = tokio::select! {
        biased;
        () = flight.progress.dropped() => None,
        dialled = shared.dialer.dial() => Some(dialled),
    };
    match dialled {
        Some(Ok(connection)) => {
            open.settle();
            open.connection = Some(connection);
            shared.lane().connected();
            shared.note(|notes| notes.detour = shared.dialer.detour());
            true
        }
        Some(Err(failure)) => {
            // First the message, so that it is tried again in its old place.
            shared.give_back(vec![Arc::clone(flight)], Some(&failure));
            shared.trouble(&failure);
            false
        }
        None => {
            shared.give_back(vec![Arc::clone(flight)], None);
            false
        }
    }
}

/// Delivers in a task of its own: whatever breaks in there ends one attempt and nothing else.
async fn guarded(
    shared: &Arc<Shared>,
    open: &mut Open,
    following: &Arc<Following>,
    flight: &Arc<Flight>,
) -> Delivery {
    let Some(mut connection) = open.connection.take() else {
        return broken_down("there is no connection", flight.progress.stage());
    };
    let watched = Arc::clone(flight);
    let stage = move || watched.progress.stage();
    let text = {
        let record = flight.record();
        StoredText::new(Arc::clone(&shared.spool), record.body)
    };
    let journal = RowJournal::new(shared, flight);
    let (flight, clock) = (Arc::clone(flight), Arc::clone(&shared.wall));
    let most = shared.settings.smtp.recipients_per_message;
    let follow = Arc::clone(following);
    let end = shared.end.clone();
    let task = shared.tasks.spawn_on(
        async move {
            let (clock, follow) = (clock.as_ref(), follow.as_ref());
            tokio::select! {
                biased;
                () = end.cancelled() => (connection_lost(&flight), None),
                delivery =
                    deliver(&mut connection, &flight, &text, &journal, clock, most, follow) =>
                {
                    (delivery, Some(connection))
                }
            }
        },
        &shared.runtime,
    );
    match task.await {
        Ok((delivery, connection)) => {
            open.connection = connection;
            if open.connection.is_none() {
                shared.lane().disconnected();
            }
            delivery
        }
        Err(error) => {
            shared.lane().disconnected();
            broken_down(&error.to_string(), stage())
        }
    }
}

fn connection_lost(flight: &Flight) -> Delivery {
    let end = match flight.progress.stage() {
        Stage::DotOut => {
            let why = Failure::fault(Phase::Dot, Fault::Closed, "", "the account was closed");
            Ended::Recorded(AttemptEnd::InDoubt(why))
        }
        Stage::Stoppable | Stage::Over | Stage::Stopped => Ended::Stopped,
    };
    Delivery { end, trouble: None }
}

fn broken_down(why: &str, stage: Stage) -> Delivery {
    tracing::error!(%why, "A delivery broke down");
    let failure = Failure::fault(Phase::Body, Fault::Internal, "", why);
    let end = match stage {
        Stage::DotOut => AttemptEnd::InDoubt(failure),
        Stage::Stoppable | Stage::Over | Stage::Stopped => AttemptEnd::Broken(failure),
    };
    Delivery { end: Ended::Recorded(end), trouble: None }
}

fn finish(shared: &Arc<Shared>, open: &mut Open, flight: Arc<Flight>, delivery: Delivery) {
    open.settle();
    let until = match &delivery.trouble {
        Some(failure) => {
            let until = shared.trouble(failure);
            if until.is_some() {
                // The next try asks for the password anew: what was good at the login may have
                // run out in mid-session.
                open.hang_up();
            }
            until
        }
        None => {
            if matches!(delivery.end, Ended::Recorded(AttemptEnd::Answered)) {
                shared.mended();
            }
            None
        }
    };
    match delivery.end {
        Ended::Recorded(end) => shared.land(flight, end),
        Ended::AccountTrouble => {
            let until = until.unwrap_or_else(|| shared.clock.now());
            shared.land(flight, AttemptEnd::Paused { until });
        }
        // Stopped: the row is with whoever stopped it. Cut: it is given back.
        Ended::Stopped | Ended::Stale => shared.give_back(vec![flight], None),
    }
}
