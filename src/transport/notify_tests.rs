#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use super::*;

fn entry() -> EntryId {
    EntryId::from_bytes(&[7; 16]).unwrap()
}

/// Every one of the 1,024 sets of flags.
fn all_flag_sets() -> Vec<TransportNotify> {
    let flags: Vec<TransportNotify> = TransportNotify::all().iter().collect();
    (0..1_u32 << flags.len())
        .map(|set| {
            flags
                .iter()
                .enumerate()
                .filter(|(bit, _)| set & (1 << bit) != 0)
                .fold(TransportNotify::empty(), |sum, (_, flag)| sum | *flag)
        })
        .collect()
}

/// The data that fits a set of flags.
fn fitting<'a>(flags: TransportNotify, entry: &'a EntryId) -> NotifyData<'a> {
    if flags.contains(TransportNotify::ABORT_DEFERRED) {
        NotifyData::EntryId(entry)
    } else if flags.contains(TransportNotify::CANCEL_MESSAGE) {
        NotifyData::Reference(MessageRef(9))
    } else {
        NotifyData::None
    }
}

fn excluded(flags: TransportNotify) -> bool {
    [
        (TransportNotify::BEGIN_INBOUND, TransportNotify::END_INBOUND),
        (TransportNotify::BEGIN_OUTBOUND, TransportNotify::END_OUTBOUND),
        (TransportNotify::BEGIN_INBOUND_FLUSH, TransportNotify::END_INBOUND_FLUSH),
        (TransportNotify::BEGIN_OUTBOUND_FLUSH, TransportNotify::END_OUTBOUND_FLUSH),
    ]
    .iter()
    .any(|(begin, end)| flags.contains(*begin) && flags.contains(*end))
}

/// The rules TN-6 to TN-13 for one direction, written as a table of their own.
fn by_the_rules(
    before: DirectionState,
    begin: bool,
    end: bool,
    begin_flush: bool,
    end_flush: bool,
) -> DirectionState {
    let open = if begin {
        true
    } else if end {
        false
    } else {
        before.gate == Gate::Open
    };
    let wanted = if begin_flush {
        true
    } else if end_flush || (end && before.flush == Flush::On) {
        false
    } else {
        before.flush != Flush::Off
    };
    DirectionState {
        gate: if open { Gate::Open } else { Gate::Closed },
        flush: match (wanted, open) {
            (false, _) => Flush::Off,
            (true, true) => Flush::On,
            (true, false) => Flush::Remembered,
        },
    }
}

fn reachable() -> HashSet<NotifyState> {
    let entry = entry();
    let mut seen = HashSet::from([NotifyState::default()]);
    let mut todo = vec![NotifyState::default()];
    while let Some(state) = todo.pop() {
        let mut next = vec![state.inbound_drained(), state.outbound_drained()];
        for flags in all_flag_sets() {
            if let Ok(step) = state.step(flags, fitting(flags, &entry)) {
                next.push(step.next);
            }
        }
        todo.extend(next.into_iter().filter(|state| seen.insert(*state)));
    }
    seen
}

/// Proves: TN-1, TN-3, TN-4
#[test]
fn every_flag_set_from_every_reachable_state() {
    let entry = entry();
    let states = reachable();
    // Closed/Off, Closed/Remembered, Open/Off, Open/On for each direction.
    assert_eq!(states.len(), 16);
    assert_eq!(all_flag_sets().len(), 1024);
    for state in states {
        for flags in all_flag_sets() {
            let answer = state.step(flags, fitting(flags, &entry));
            if excluded(flags) {
                let code = answer.expect_err("exclusion").code();
                assert_eq!(code, MapiCode::INVALID_PARAMETER, "{flags:?}");
                continue;
            }
            let step = answer.unwrap_or_else(|error| panic!("{flags:?}: {error}"));
            let inbound = by_the_rules(
                state.inbound,
                flags.contains(TransportNotify::BEGIN_INBOUND),
                flags.contains(TransportNotify::END_INBOUND),
                flags.contains(TransportNotify::BEGIN_INBOUND_FLUSH),
                flags.contains(TransportNotify::END_INBOUND_FLUSH),
            );
            let outbound = by_the_rules(
                state.outbound,
                flags.contains(TransportNotify::BEGIN_OUTBOUND),
                flags.contains(TransportNotify::END_OUTBOUND),
                flags.contains(TransportNotify::BEGIN_OUTBOUND_FLUSH),
                flags.contains(TransportNotify::END_OUTBOUND_FLUSH),
            );
            assert_eq!(step.next, NotifyState { inbound, outbound }, "{state:?} {flags:?}");
            assert_eq!(
                step.inbound.gate.unwrap_or(state.inbound.gate),
                step.next.inbound.gate,
                "{state:?} {flags:?}"
            );
            // A second call with the same flags changes nothing more.
            let again = step.next.step(flags, fitting(flags, &entry)).unwrap();
            assert_eq!(again.next, step.next, "{state:?} {flags:?}");
            assert_eq!((again.inbound.gate, again.outbound.gate), (None, None));
        }
    }
}

/// Proves: TN-14
#[test]
fn data_must_fit() {
    let state = NotifyState::default();
    let entry = entry();
    let cancel = TransportNotify::CANCEL_MESSAGE;
    let abort = TransportNotify::ABORT_DEFERRED;
    let misfits = [
        (cancel, NotifyData::None),
        (cancel, NotifyData::EntryId(&entry)),
        (abort, NotifyData::None),
        (abort, NotifyData::Reference(MessageRef(2))),
        (abort | cancel, NotifyData::Reference(MessageRef(2))),
    ];
    for (flags, data) in misfits {
        let code = state.step(flags, data).expect_err("misfit").code();
        assert_eq!(code, MapiCode::INVALID_PARAMETER, "{flags:?} {data:?}");
    }
    let actions = [
        (cancel, NotifyData::Reference(MessageRef(0)), MessageAction::CancelCall(MessageRef(0))),
        (abort | cancel, NotifyData::EntryId(&entry), MessageAction::CancelDeferred(entry.clone())),
        (abort, NotifyData::EntryId(&entry), MessageAction::ParkDeferred(entry.clone())),
    ];
    for (flags, data, action) in actions {
        assert_eq!(state.step(flags, data).unwrap().message, Some(action));
    }
}

/// Proves: TN-5
#[test]
fn unknown_bits_change_nothing() {
    let flags = TransportNotify::from_bits_retain(0x10) | TransportNotify::BEGIN_INBOUND;
    let error = NotifyState::default().step(flags, NotifyData::None).expect_err("unknown");
    assert_eq!(error.code(), MapiCode::UNKNOWN_FLAGS);
}

/// Proves: TN-5
#[test]
fn no_bits_are_fine() {
    let step = NotifyState::default().step(TransportNotify::empty(), NotifyData::None).unwrap();
    assert_eq!(step.next, NotifyState::default());
    assert_eq!((step.inbound, step.outbound), Default::default());
}

/// Proves: TN-13
#[test]
fn a_flush_of_a_closed_direction_waits_for_it() {
    let flush = TransportNotify::BEGIN_OUTBOUND_FLUSH;
    let waiting = NotifyState::default().step(flush, NotifyData::None).unwrap();
    assert_eq!(waiting.outbound, DirectionStep::default());
    assert_eq!(waiting.next.status_bits(), StatusCode::empty());
    let begun = waiting.next.step(TransportNotify::BEGIN_OUTBOUND, NotifyData::None).unwrap();
    assert_eq!(begun.outbound, DirectionStep { gate: Some(Gate::Open), flush: FlushStep::Begin });
    assert_eq!(begun.next.status_bits(), StatusCode::OUTBOUND_ENABLED | StatusCode::OUTBOUND_FLUSH);
    let drained = begun.next.outbound_drained();
    assert_eq!(drained.status_bits(), StatusCode::OUTBOUND_ENABLED);
}

#[test]
fn a_second_begin_of_a_flush_covers_what_came_since() {
    let both = TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_INBOUND_FLUSH;
    let on = NotifyState::default().step(both, NotifyData::None).unwrap();
    let again = on.next.step(TransportNotify::BEGIN_INBOUND_FLUSH, NotifyData::None).unwrap();
    assert_eq!(again.inbound, DirectionStep { gate: None, flush: FlushStep::Begin });
}
