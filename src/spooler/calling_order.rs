//! The order in which SubmitMessage is called when many messages are handed over at once (OB-14).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Transports that are open for sending, by their status rows, with the number of the opening.
pub(crate) type Openings = BTreeMap<u32, u64>;

/// The places that are taken, by number, with who is to be told that it is first.
#[derive(Debug, Default)]
struct Line(Mutex<BTreeMap<u64, Option<oneshot::Sender<()>>>>);

impl Line {
    fn places(&self) -> MutexGuard<'_, BTreeMap<u64, Option<oneshot::Sender<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to wait for until a place is first; `None` when it is, or has left the line.
    fn wait(&self, number: u64) -> Option<oneshot::Receiver<()>> {
        let mut places = self.places();
        let first = places.first_key_value().is_none_or(|(first, _)| *first >= number);
        let place = places.get_mut(&number).filter(|_| !first)?;
        let (tell, told) = oneshot::channel();
        *place = Some(tell);
        Some(told)
    }

    fn leave(&self, number: u64) {
        let mut places = self.places();
        places.remove(&number);
        let first = places.first_entry().and_then(|mut place| place.get_mut().take());
        drop(places);
        if let Some(tell) = first {
            // An error means that it does not wait any more.
            let _ = tell.send(());
        }
    }
}

/// A message's place in the line: its call may begin when no place before it is left. It is given
/// up when it is dropped, whether or not its turn had come.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Transports that were open for sending when the line began. One that has opened since is
    /// first for those that had waited for it.
    open: Option<Openings>,
    standing: Option<(Arc<Line>, u64)>,
    /// Hears that the call has begun.
    handling: Option<Arc<Handling>>,
}

/// Hands out places, each behind the last.
#[derive(Debug, Default)]
pub(crate) struct CallingOrder {
    line: Arc<Line>,
    last: u64,
}

impl CallingOrder {
    pub(crate) fn next(&mut self, open: Openings) -> Place {
        self.last += 1;
        self.line.places().insert(self.last, None);
        let standing = Some((Arc::clone(&self.line), self.last));
        Place { open: Some(open), standing, handling: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((line, number)) = self.standing.take() {
            line.leave(number);
        }
    }
}

impl Place {
    /// The place of a message that is being handled.
    pub(crate) fn of(mut self, handling: &Arc<Handling>) -> Self {
        self.handling = Some(Arc::clone(handling));
        self
    }

    /// Waits until it is first in the line. Cancel-safe.
    pub(crate) async fn comes(&mut self) {
        if let Some((line, number)) = &self.standing {
            while let Some(told) = line.wait(*number) {
                // The sender goes only with the place.
                let _ = told.await;
            }
        }
    }

    /// Whether a message with this place may go to the transport with this status row, which has
    /// opened so many times.
    pub(crate) fn may_use(&self, row_id: u32, opening: u64) -> bool {
        self.open.as_ref().is_none_or(|open| open.get(&row_id) == Some(&opening))
    }

    /// Lets the next one begin.
    pub(crate) fn leave(&mut self) {
        if let Some((line, number)) = self.standing.take() {
            line.leave(number);
        }
        if let Some(handling) = self.handling.take() {
            handling.begun();
        }
    }
}

/// A message that is being handed over. While its call has not begun, a further look at the table
/// reserves a place for another try, so that younger messages do not pass it when this try finds
/// its transport closed.
#[derive(Debug, Default)]
pub(crate) struct Handling(Mutex<Next>);

#[derive(Debug, Default)]
enum Next {
    /// Nothing follows this try.
    #[default]
    End,
    /// Another try at this place.
    Again(Place),
    /// The call has begun: it need not keep its place.
    Begun,
    /// It is over; the loop has not heard of it yet.
    Over(Last),
}

/// How the last try of a message came out, as far as its order is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// It found its transport closed.
    Closed,
    /// It came to something, and may have named a time to wait for.
    Handled,
}

impl Handling {
    /// Reserves a place for another try; gives it back when the handling is over and had come to
    /// nothing. What else it came to has to be heard first.
    pub(crate) fn again(&self, place: Place) -> Option<Place> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*next {
            Next::Over(Last::Closed) => return Some(place),
            // In the same line the earlier place is the right one.
            Next::Again(earlier) if earlier.open == place.open => {}
            Next::Begun | Next::Over(Last::Handled) => {}
            Next::End | Next::Again(_) => *next = Next::Again(place),
        }
        None
    }

    /// The place for what comes after a try; another one comes when its transport was closed.
    pub(crate) fn next(&self, last: Last) -> Option<Place> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut *next) {
            Next::Again(place) if last == Last::Closed => Some(place),
            Next::End | Next::Again(_) | Next::Begun | Next::Over(_) => {
                *next = Next::Over(last);
                None
            }
        }
    }

    fn begun(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Next::Begun;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn open() -> Openings {
        Openings::from([(1, 7)])
    }

    /// Proves: OB-14
    #[tokio::test]
    async fn a_message_that_found_its_transport_closed_keeps_its_turn_in_the_next_line() {
        let mut order = CallingOrder::default();
        let handling = Arc::new(Handling::default());
        drop(order.next(open()).of(&handling));
        let newer = Openings::from([(1, 8)]);
        assert!(handling.again(order.next(newer.clone())).is_none());
        let mut younger = order.next(newer.clone());
        // Looked at once more in the same line: the first place counts.
        assert!(handling.again(order.next(newer.clone())).is_none());
        assert!(younger.comes().now_or_never().is_none());
        let mut second = handling.next(Last::Closed).unwrap().of(&handling);
        second.comes().now_or_never().unwrap();
        assert!(second.may_use(1, 8));
        second.leave();
        younger.comes().now_or_never().unwrap();
        younger.leave();
        // Its call has begun: nobody waits for it any more, and when it is over the loop is told.
        assert!(handling.again(order.next(newer.clone())).is_none());
        order.next(newer.clone()).comes().now_or_never().unwrap();
        assert!(handling.next(Last::Closed).is_none());
        assert!(handling.again(order.next(newer)).is_some());
    }

    /// Proves: SP-3
    #[test]
    fn what_a_try_came_to_is_heard_before_the_next_one() {
        let mut order = CallingOrder::default();
        let handling = Handling::default();
        assert!(handling.next(Last::Handled).is_none());
        assert!(handling.again(order.next(open())).is_none(), "it may have to wait for its time");
    }

    /// Proves: OB-14
    #[tokio::test]
    async fn places_come_in_order_and_move_on_by_themselves() {
        let mut order = CallingOrder::default();
        let (mut first, second, mut third) =
            (order.next(open()), order.next(open()), order.next(open()));
        let dropped = order.next(open());
        let mut fifth = order.next(open());
        first.comes().await;
        assert!(third.comes().now_or_never().is_none());
        first.leave();
        assert!(third.comes().now_or_never().is_none());
        // Who gives up its place early lets nobody pass those before it.
        drop(dropped);
        assert!(fifth.comes().now_or_never().is_none());
        drop(second);
        third.comes().await;
        assert!(third.may_use(1, 7) && !third.may_use(2, 7));
        // Closed and opened again: those that came meanwhile stand in another line.
        assert!(!third.may_use(1, 8));
        let mut anywhere = Place::default();
        anywhere.comes().await;
        assert!(anywhere.may_use(2, 1));
    }
}
