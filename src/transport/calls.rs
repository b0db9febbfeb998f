//! Which calls are open, under which reference, and how they are cancelled (OB-2, TN-14, TN-15).

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;

use crate::mapi::{EntryId, MessageRef};
use crate::spi::MessageRefCell;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Calls that are open on one logon.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u32,
    open: HashMap<MessageRef, OpenCall>,
    /// Tokens of calls that have begun and have no reference yet, by a number of their own.
    unset: HashMap<u64, (Direction, CancellationToken)>,
    next_unset: u64,
}

/// Which way a call moves a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

/// A message between SubmitMessage and EndMessage, or in StartMessage.
#[derive(Clone, Debug)]
pub(crate) struct OpenCall {
    direction: Direction,
    pub(crate) cancel: CancellationToken,
    pub(crate) outcome: Outcome,
}

/// What EndMessage is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The call that opened the reference still runs.
    Running,
    /// Accepted and deferred (END_DONT_RESEND).
    Deferred(EntryId),
    /// A deferred message whose outcome was reported: settle it and answer 0.
    Reported(EntryId),
    /// Finished in an earlier session already: answer 0.
    Finished,
}

/// A call that has begun and has no reference yet. Dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct BegunCall<'a> {
    calls: &'a Calls,
    number: u64,
    direction: Direction,
    pub(crate) cancel: CancellationToken,
}

/// A call with a reference. Dropping it closes the reference unless it was
/// [kept](NamedCall::keep).
#[derive(Debug)]
pub(crate) struct NamedCall<'a> {
    calls: &'a Calls,
    pub(crate) reference: MessageRef,
    pub(crate) cancel: CancellationToken,
    kept: bool,
}

impl Calls {
    /// Notes that a call began; it can be cancelled from now on (TN-15).
    pub(crate) fn begin(&self, direction: Direction) -> BegunCall<'_> {
        let cancel = CancellationToken::new();
        let mut state = self.lock();
        let number = state.next_unset;
        state.next_unset = state.next_unset.wrapping_add(1);
        state.unset.insert(number, (direction, cancel.clone()));
        BegunCall { calls: self, number, direction, cancel }
    }

    /// Cancels the call with this reference; the values 0 and 1 mean those without one (TN-15).
    /// A reference nobody knows is no error (TN-16).
    ///
    /// Answers the message that was accepted under this reference and waits for its EndMessage:
    /// it may be on its way already, and is the caller's to stop.
    #[must_use]
    pub(crate) fn cancel(&self, reference: MessageRef) -> Option<EntryId> {
        let state = self.lock();
        let direction = match reference {
            MessageRef::OUTBOUND_UNSET => Direction::Outbound,
            MessageRef::INBOUND_UNSET => Direction::Inbound,
            _ => {
                let call = state.open.get(&reference)?;
                call.cancel.cancel();
                return match &call.outcome {
                    Outcome::Deferred(entry) => Some(entry.clone()),
                    Outcome::Running | Outcome::Reported(_) | Outcome::Finished => None,
                };
            }
        };
        for (_, token) in state.unset.values().filter(|(towards, _)| *towards == direction) {
            token.cancel();
        }
        None
    }

    /// A deferred message was cancelled by its entry id: should its EndMessage still be to come,
    /// it answers so (TN-17).
    pub(crate) fn cancel_deferred(&self, entry: &EntryId) {
        let state = self.lock();
        let is_it =
            |call: &&OpenCall| matches!(&call.outcome, Outcome::Deferred(it) if it == entry);
        state.open.values().filter(is_it).for_each(|call| call.cancel.cancel());
    }

    /// Cancels every StartMessage; for the end of the logon (LG-9). A SubmitMessage ends with the
    /// sending side instead: MAPI_E_CANCEL would tell the host that its message is not wanted any
    /// more (OB-7).
    pub(crate) fn cancel_receiving(&self) {
        let state = self.lock();
        let open = state.open.values().map(|call| (&call.direction, &call.cancel));
        let unset = state.unset.values().map(|(direction, cancel)| (direction, cancel));
        open.chain(unset)
            .filter(|(direction, _)| **direction == Direction::Inbound)
            .for_each(|(_, cancel)| cancel.cancel());
    }

    /// Takes an open call for EndMessage; the reference is dead from now on (OB-10).
    pub(crate) fn end(&self, reference: MessageRef) -> Option<OpenCall> {
        let mut state = self.lock();
        match state.open.get(&reference) {
            Some(call) if call.outcome != Outcome::Running => state.open.remove(&reference),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> BegunCall<'a> {
    /// Assigns a reference and shows it to the host in the same step in which the call leaves
    /// the ranks of those without one, so that a cancel always finds it by one name or the other.
    pub(crate) fn name(self, cell: &MessageRefCell) -> NamedCall<'a> {
        let mut state = self.calls.lock();
        let reference = state.free_reference();
        state.unset.remove(&self.number);
        let cancel = self.cancel.clone();
        let call = OpenCall {
            direction: self.direction,
            cancel: cancel.clone(),
            outcome: Outcome::Running,
        };
        state.open.insert(reference, call);
        cell.set(reference);
        drop(state);
        NamedCall { calls: self.calls, reference, cancel, kept: false }
    }
}

impl Drop for BegunCall<'_> {
    fn drop(&mut self) {
        self.calls.lock().unset.remove(&self.number);
    }
}

impl NamedCall<'_> {
    /// Leaves the reference open for EndMessage. `true` when the call was cancelled before that:
    /// whoever did so did not know yet what it came to.
    #[must_use]
    pub(crate) fn keep(mut self, outcome: Outcome) -> bool {
        self.kept = true;
        let mut state = self.calls.lock();
        if let Some(call) = state.open.get_mut(&self.reference) {
            call.outcome = outcome;
        }
        self.cancel.is_cancelled()
    }
}

impl Drop for NamedCall<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.calls.lock().open.remove(&self.reference);
        }
    }
}

impl State {
    /// The next number that is neither 0 nor 1 nor in use (OB-2).
    fn free_reference(&mut self) -> MessageRef {
        loop {
            self.last = self.last.wrapping_add(1).max(MessageRef::FIRST.0);
            let reference = MessageRef(self.last);
            if !self.open.contains_key(&reference) {
                return reference;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry() -> EntryId {
        EntryId::from_bytes(&[1; 16]).unwrap()
    }

    /// Proves: OB-2
    #[test]
    fn references_are_unique_and_never_0_or_1() {
        let calls = Calls::default();
        calls.lock().last = u32::MAX - 1;
        let cells: Vec<MessageRefCell> = (0..4).map(|_| MessageRefCell::outbound()).collect();
        let open: Vec<NamedCall<'_>> =
            cells.iter().map(|cell| calls.begin(Direction::Outbound).name(cell)).collect();
        let mut numbers: Vec<u32> = cells.iter().map(|cell| cell.reference().0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, [2, 3, 4, u32::MAX]);
        drop(open);
        assert!(calls.lock().open.is_empty());
    }

    /// Proves: TN-15, TN-16
    #[test]
    fn cancel_finds_a_call_by_either_name() {
        let calls = Calls::default();
        let cell = MessageRefCell::outbound();
        let outbound = calls.begin(Direction::Outbound);
        let inbound = calls.begin(Direction::Inbound);
        assert_eq!(calls.cancel(MessageRef::OUTBOUND_UNSET), None);
        assert!(outbound.cancel.is_cancelled());
        assert!(!inbound.cancel.is_cancelled());
        let named = calls.begin(Direction::Outbound).name(&cell);
        assert_eq!(calls.cancel(MessageRef::OUTBOUND_UNSET), None);
        assert!(!named.cancel.is_cancelled());
        assert_eq!(calls.cancel(MessageRef(4711)), None);
        assert!(!named.cancel.is_cancelled());
        assert_eq!(calls.cancel(cell.reference()), None);
        assert!(named.cancel.is_cancelled());
    }

    /// Either the canceller hears what the call came to, or the call hears of the cancel.
    #[test]
    fn a_cancel_and_the_end_of_a_call_know_of_each_other() {
        let calls = Calls::default();
        let cell = MessageRefCell::outbound();
        let early = calls.begin(Direction::Outbound).name(&cell);
        assert_eq!(calls.cancel(cell.reference()), None);
        assert!(early.keep(Outcome::Deferred(entry())));
        let late = calls.begin(Direction::Outbound).name(&cell);
        assert!(!late.keep(Outcome::Deferred(entry())));
        assert_eq!(calls.cancel(cell.reference()), Some(entry()));
        let third = calls.begin(Direction::Outbound).name(&cell);
        assert!(!third.keep(Outcome::Deferred(entry())));
        calls.cancel_deferred(&entry());
        assert!(calls.end(cell.reference()).unwrap().cancel.is_cancelled());
    }

    /// Proves: LG-9, OB-7
    #[test]
    fn the_end_cancels_no_submission() {
        let calls = Calls::default();
        let (one, two) = (MessageRefCell::outbound(), MessageRefCell::inbound());
        let (out, into) = (calls.begin(Direction::Outbound), calls.begin(Direction::Inbound));
        let out_named = calls.begin(Direction::Outbound).name(&one);
        let into_named = calls.begin(Direction::Inbound).name(&two);
        calls.cancel_receiving();
        assert!(into.cancel.is_cancelled() && into_named.cancel.is_cancelled());
        assert!(!out.cancel.is_cancelled() && !out_named.cancel.is_cancelled());
    }

    /// Proves: OB-2, OB-10
    #[test]
    fn a_reference_lives_until_end_message() {
        let calls = Calls::default();
        let cell = MessageRefCell::outbound();
        let call = calls.begin(Direction::Outbound).name(&cell);
        assert!(calls.end(cell.reference()).is_none(), "SubmitMessage still runs");
        assert!(!call.keep(Outcome::Deferred(entry())));
        assert_eq!(calls.end(cell.reference()).unwrap().outcome, Outcome::Deferred(entry()));
        assert!(calls.end(cell.reference()).is_none());
    }
}
