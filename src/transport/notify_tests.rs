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

/// TN-4: what may not stand together.
fn excluded(flags: TransportNotify) -> bool {
    [0x1_0001_u32, 0x2_0002, 0x4_0004, 0x8_0008].iter().any(|both| flags.bits() & both == *both)
}

/// TN-6 to TN-13 for one direction, case by case. States: C closed, R closed and a flush
/// remembered, O open, F open and flushing. Calls: b BEGIN, e END, f BEGIN_FLUSH, x END_FLUSH, in
/// any combination that may stand together. Behind the arrow the state that follows and what the
/// half is told: open or close its gate, begin or end a flush cycle.
const RULES: &str = "
    C  .  -> C
    C  b  -> O open         TN-6, TN-8
    C  e  -> C              idempotent
    C  f  -> R              TN-13: remembered, not begun
    C  x  -> C
    C  bf -> F open begin
    C  bx -> O open
    C  ef -> R
    C  ex -> C
    R  .  -> R
    R  b  -> F open begin   TN-13: it runs when the direction begins
    R  e  -> R
    R  f  -> R
    R  x  -> C              a remembered flush can be ended
    R  bf -> F open begin
    R  bx -> O open
    R  ef -> R
    R  ex -> C
    O  .  -> O
    O  b  -> O              idempotent
    O  e  -> C close        TN-7, TN-9
    O  f  -> F begin        TN-10, TN-12
    O  x  -> O
    O  bf -> F begin
    O  bx -> O
    O  ef -> R close        the flush is for when it opens again
    O  ex -> C close
    F  .  -> F
    F  b  -> F
    F  e  -> C close end    what was flushing ends with its direction
    F  f  -> F begin        a new cycle covers what has come since
    F  x  -> O end          TN-11
    F  bf -> F begin
    F  bx -> O end
    F  ef -> R close end
    F  ex -> C close end
";

/// What the table says of one direction.
struct Row {
    state: char,
    tells: Vec<&'static str>,
}

fn by_the_rules(state: char, call: &str) -> Row {
    let row = RULES.lines().map(str::trim).find_map(|line| {
        let (left, right) = line.split_once(" -> ")?;
        let mut left = left.split_whitespace();
        if left.next()? != state.to_string() || left.next()? != call {
            return None;
        }
        let mut right = right.split_whitespace();
        let state = right.next()?.chars().next()?;
        let told = ["open", "close", "begin", "end"];
        Some(Row { state, tells: right.take_while(|word| told.contains(word)).collect() })
    });
    row.unwrap_or_else(|| panic!("no rule for {state} {call}"))
}

/// The call a set of flags is to one direction; `shift` is 0 for inbound and 1 for outbound.
fn call(flags: TransportNotify, shift: u32) -> String {
    let letters = [('b', 0x1_u32), ('e', 0x1_0000), ('f', 0x4), ('x', 0x4_0000)];
    let set: String = letters
        .iter()
        .filter(|(_, bit)| flags.bits() & (bit << shift) != 0)
        .map(|(letter, _)| letter)
        .collect();
    if set.is_empty() { ".".to_owned() } else { set }
}

fn letter(state: DirectionState) -> char {
    match (state.gate, state.flush) {
        (Gate::Closed, Flush::Off) => 'C',
        (Gate::Closed, Flush::Remembered) => 'R',
        (Gate::Open, Flush::Off) => 'O',
        (Gate::Open, Flush::On) => 'F',
        other => panic!("a state that cannot be: {other:?}"),
    }
}

fn tells(step: DirectionStep) -> Vec<&'static str> {
    let gate = step.gate.map(|gate| if gate == Gate::Open { "open" } else { "close" });
    let flush = match step.flush {
        FlushStep::Keep => None,
        FlushStep::Begin => Some("begin"),
        FlushStep::End => Some("end"),
    };
    gate.into_iter().chain(flush).collect()
}

/// What TN-14, TN-17 and TN-18 make of the two flags about one message.
fn about_message(flags: TransportNotify, entry: &EntryId) -> Option<MessageAction> {
    match flags.bits() >> 30 {
        0 => None,
        1 => Some(MessageAction::ParkDeferred(entry.clone())),
        2 => Some(MessageAction::CancelCall(MessageRef(9))),
        _ => Some(MessageAction::CancelDeferred(entry.clone())),
    }
}

/// `PR_STATUS_CODE` by the numbers of the public header.
fn bits(state: char, shift: u32) -> u32 {
    match state {
        'O' => 0x1_0000_u32 << shift,
        'F' => 0x5_0000_u32 << shift,
        _ => 0,
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

/// Proves: TN-1, TN-3, TN-4, TN-6, TN-7, TN-8, TN-9, TN-10, TN-11, TN-12, TN-13
#[test]
fn every_flag_set_from_every_reachable_state() {
    let entry = entry();
    let states = reachable();
    // C, R, O and F for each direction.
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
            assert_eq!(step.message, about_message(flags, &entry), "{flags:?}");
            let mut code = 0;
            for (before, told, after, shift) in [
                (state.inbound, step.inbound, step.next.inbound, 0),
                (state.outbound, step.outbound, step.next.outbound, 1),
            ] {
                let row = by_the_rules(letter(before), &call(flags, shift));
                assert_eq!(letter(after), row.state, "{state:?} {flags:?}");
                assert_eq!(tells(told), row.tells, "{state:?} {flags:?}");
                code |= bits(row.state, 4 * shift);
            }
            assert_eq!(step.next.status_bits().bits(), code, "{state:?} {flags:?}");
            // A second call with the same flags changes nothing more.
            let again = step.next.step(flags, fitting(flags, &entry)).unwrap();
            assert_eq!(again.next, step.next, "{state:?} {flags:?}");
        }
    }
}

/// What a flush that ended by itself leaves, in every state.
///
/// Proves: TN-10, TN-12, FL-5
#[test]
fn a_flush_that_is_drained_ends_and_nothing_else_does() {
    for state in reachable() {
        let open = |letter: char| if letter == 'F' { 'O' } else { letter };
        let inbound = state.inbound_drained();
        assert_eq!(letter(inbound.inbound), open(letter(state.inbound)));
        assert_eq!(inbound.outbound, state.outbound);
        let outbound = state.outbound_drained();
        assert_eq!(letter(outbound.outbound), open(letter(state.outbound)));
        assert_eq!(outbound.inbound, state.inbound);
    }
}

/// Halves that begin anew are brought to where the row says they are.
///
/// Proves: ST-7
#[test]
fn what_begins_anew_is_brought_to_the_state() {
    for state in reachable() {
        let step = Step::to(state);
        assert_eq!((step.next, &step.message), (state, &None));
        for (told, state) in [(step.inbound, state.inbound), (step.outbound, state.outbound)] {
            let expected = match letter(state) {
                'O' => vec!["open"],
                'F' => vec!["open", "begin"],
                _ => vec!["close"],
            };
            assert_eq!(tells(told), expected, "{state:?}");
        }
    }
}

/// Data that does not fit is refused whatever else is asked, and data that nobody asked for is
/// left alone.
///
/// Proves: TN-14, TN-17, TN-18
#[test]
fn data_that_does_not_fit_is_refused_with_every_flag_set() {
    let entry = entry();
    let data =
        [NotifyData::None, NotifyData::Reference(MessageRef(9)), NotifyData::EntryId(&entry)];
    for flags in all_flag_sets().into_iter().filter(|flags| !excluded(*flags)) {
        for (kind, data) in data.iter().enumerate() {
            let fits = match flags.bits() >> 30 {
                0 => true,
                2 => kind == 1,
                _ => kind == 2,
            };
            let answer = NotifyState::default().step(flags, *data);
            assert_eq!(answer.is_ok(), fits, "{flags:?} {data:?}");
            if let Err(error) = answer {
                assert_eq!(error.code(), MapiCode::INVALID_PARAMETER, "{flags:?} {data:?}");
            }
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
