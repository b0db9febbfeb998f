//! `TransportNotify` as a pure state machine: state + flags + data in, state + actions out.
//!
//! No I/O, no clock, no locks; whoever owns a [`NotifyState`] applies a [`Step`] as one unit
//! (TN-3) and serialises steps (TN-19).

use super::events::Gate;
use crate::mapi::{
    EntryId, MapiCode, MapiError, MapiResult, MessageRef, StatusCode, TransportNotify,
};
use crate::spi::NotifyData;

/// Flush mode of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Flush {
    /// Background.
    #[default]
    Off,
    /// Asked for while the direction was closed: begins when it opens (TN-13).
    Remembered,
    /// As fast as possible (TN-10, TN-12).
    On,
}

/// One direction of a logon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct DirectionState {
    pub(crate) gate: Gate,
    pub(crate) flush: Flush,
}

/// Both directions of a logon; the default is the state before any TransportNotify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct NotifyState {
    pub(crate) inbound: DirectionState,
    pub(crate) outbound: DirectionState,
}

/// What to do about one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectionStep {
    /// Set the gate; `None` when it stays as it is.
    pub(crate) gate: Option<Gate>,
    /// Change of flush mode.
    pub(crate) flush: FlushStep,
}

/// Change of flush mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FlushStep {
    /// None.
    #[default]
    Keep,
    /// Begin a cycle, also when one is running: it then covers what has come since.
    Begin,
    /// End it.
    End,
}

/// What to do about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessageAction {
    /// Cancel the call that has this reference, or none yet (TN-14, TN-15).
    CancelCall(MessageRef),
    /// Cancel a deferred message for good (TN-17).
    CancelDeferred(EntryId),
    /// Give a deferred message back (TN-18).
    ParkDeferred(EntryId),
}

/// What one TransportNotify amounts to. The message action comes first: when it fails, nothing
/// of the step is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) next: NotifyState,
    pub(crate) message: Option<MessageAction>,
    pub(crate) inbound: DirectionStep,
    pub(crate) outbound: DirectionStep,
}

impl Step {
    /// Brings what is as new, closed and quiet, to `state`.
    pub(crate) fn to(state: NotifyState) -> Self {
        let direction = |state: DirectionState| DirectionStep {
            gate: Some(state.gate),
            flush: match state.flush {
                Flush::On => FlushStep::Begin,
                Flush::Off | Flush::Remembered => FlushStep::Keep,
            },
        };
        Step {
            next: state,
            message: None,
            inbound: direction(state.inbound),
            outbound: direction(state.outbound),
        }
    }
}

const EXCLUSIVE: [(TransportNotify, TransportNotify); 4] = [
    (TransportNotify::BEGIN_INBOUND, TransportNotify::END_INBOUND),
    (TransportNotify::BEGIN_OUTBOUND, TransportNotify::END_OUTBOUND),
    (TransportNotify::BEGIN_INBOUND_FLUSH, TransportNotify::END_INBOUND_FLUSH),
    (TransportNotify::BEGIN_OUTBOUND_FLUSH, TransportNotify::END_OUTBOUND_FLUSH),
];

impl NotifyState {
    /// Works out a call.
    ///
    /// # Errors
    /// `MAPI_E_UNKNOWN_FLAGS` (TN-5); `MAPI_E_INVALID_PARAMETER` for flags that exclude each
    /// other (TN-4) or data that does not fit them.
    pub(crate) fn step(self, flags: TransportNotify, data: NotifyData<'_>) -> MapiResult<Step> {
        let unknown = TransportNotify::unknown_bits(flags.bits());
        if unknown != 0 {
            return Err(MapiError::new(
                MapiCode::UNKNOWN_FLAGS,
                format!("unknown TransportNotify bits 0x{unknown:X}"),
            ));
        }
        for (begin, end) in EXCLUSIVE {
            if flags.contains(begin | end) {
                return Err(invalid("begin and end of the same thing exclude each other"));
            }
        }
        let message = message_action(flags, data)?;
        let (inbound, inbound_step) = self.inbound.apply(
            flags.contains(TransportNotify::BEGIN_INBOUND),
            flags.contains(TransportNotify::END_INBOUND),
            flags.contains(TransportNotify::BEGIN_INBOUND_FLUSH),
            flags.contains(TransportNotify::END_INBOUND_FLUSH),
        );
        let (outbound, outbound_step) = self.outbound.apply(
            flags.contains(TransportNotify::BEGIN_OUTBOUND),
            flags.contains(TransportNotify::END_OUTBOUND),
            flags.contains(TransportNotify::BEGIN_OUTBOUND_FLUSH),
            flags.contains(TransportNotify::END_OUTBOUND_FLUSH),
        );
        let next = NotifyState { inbound, outbound };
        Ok(Step { next, message, inbound: inbound_step, outbound: outbound_step })
    }

    /// The state after the transport ended an inbound flush by itself (TN-10, FL-5).
    pub(crate) fn inbound_drained(mut self) -> Self {
        self.inbound = self.inbound.drained();
        self
    }

    /// The state after the transport ended an outbound flush by itself (FL-5).
    pub(crate) fn outbound_drained(mut self) -> Self {
        self.outbound = self.outbound.drained();
        self
    }

    /// The bits of `PR_STATUS_CODE` that follow from this state.
    pub(crate) fn status_bits(self) -> StatusCode {
        let mut bits = StatusCode::empty();
        bits.set(StatusCode::INBOUND_ENABLED, self.inbound.gate == Gate::Open);
        bits.set(StatusCode::INBOUND_FLUSH, self.inbound.flush == Flush::On);
        bits.set(StatusCode::OUTBOUND_ENABLED, self.outbound.gate == Gate::Open);
        bits.set(StatusCode::OUTBOUND_FLUSH, self.outbound.flush == Flush::On);
        bits
    }
}

impl DirectionState {
    /// Gate first, flush second, so that `BEGIN | BEGIN_FLUSH` opens and flushes, and
    /// `END | BEGIN_FLUSH` closes and remembers the flush (TN-13).
    fn apply(
        self,
        begin: bool,
        end: bool,
        begin_flush: bool,
        end_flush: bool,
    ) -> (DirectionState, DirectionStep) {
        let mut next = self;
        if begin {
            next.gate = Gate::Open;
            if next.flush == Flush::Remembered {
                next.flush = Flush::On;
            }
        }
        if end {
            next.gate = Gate::Closed;
            // What was flushing ends with its direction and does not come back by itself.
            if next.flush == Flush::On {
                next.flush = Flush::Off;
            }
        }
        if begin_flush {
            next.flush = match next.gate {
                Gate::Open => Flush::On,
                Gate::Closed => Flush::Remembered,
            };
        }
        if end_flush {
            next.flush = Flush::Off;
        }
        let flush = match (self.flush, next.flush) {
            (Flush::On, Flush::On) if begin_flush => FlushStep::Begin,
            (Flush::Off | Flush::Remembered, Flush::On) => FlushStep::Begin,
            (Flush::On, Flush::Off | Flush::Remembered) => FlushStep::End,
            _ => FlushStep::Keep,
        };
        let gate = (next.gate != self.gate).then_some(next.gate);
        (next, DirectionStep { gate, flush })
    }

    fn drained(mut self) -> Self {
        if self.flush == Flush::On {
            self.flush = Flush::Off;
        }
        self
    }
}

fn message_action(
    flags: TransportNotify,
    data: NotifyData<'_>,
) -> MapiResult<Option<MessageAction>> {
    let cancel = flags.contains(TransportNotify::CANCEL_MESSAGE);
    let abort = flags.contains(TransportNotify::ABORT_DEFERRED);
    match (abort, cancel, data) {
        (false, false, _) => Ok(None),
        (false, true, NotifyData::Reference(reference)) => {
            Ok(Some(MessageAction::CancelCall(reference)))
        }
        (true, true, NotifyData::EntryId(entry)) => {
            Ok(Some(MessageAction::CancelDeferred(entry.clone())))
        }
        (true, false, NotifyData::EntryId(entry)) => {
            Ok(Some(MessageAction::ParkDeferred(entry.clone())))
        }
        (false, true, _) => Err(invalid("CANCEL_MESSAGE needs a message reference")),
        (true, _, _) => Err(invalid("ABORT_DEFERRED needs an entry id")),
    }
}

fn invalid(why: &str) -> MapiError {
    MapiError::new(MapiCode::INVALID_PARAMETER, why)
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
