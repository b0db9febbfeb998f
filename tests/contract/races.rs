//! Many tasks at once: TransportNotify with whatever flags, submissions, cancels, arrivals, and a
//! logoff in the end (TN-19).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use postrider::mapi::{EntryId, MapiCode, StatusCode, TransportNotify};
use postrider::session::{FlushRequest, Logon, QueueRowState, Service, Session};

use crate::house::GRACE;
use crate::maildir::{await_messages, contains};
use crate::post::{Post, Shape, code, ended, notify, send, soon};
use crate::watcher::Watcher;

const NOTIFIERS: usize = 6;
const CALLS: usize = 60;
const SENDERS: usize = 4;
const MESSAGES: usize = 25;
const ARRIVALS: usize = 60;

/// The whole test is to take no longer than this, whatever happens.
const LIMIT: Duration = Duration::from_secs(120);

/// A call that opened or closed a direction, with the moments between which it took effect.
#[derive(Clone, Copy, Debug)]
struct Call {
    opens: bool,
    begun: u64,
    over: u64,
}

/// One direction: its flags and its bit.
#[derive(Clone, Copy)]
struct Direction {
    begin: TransportNotify,
    end: TransportNotify,
    enabled: StatusCode,
}

const DIRECTIONS: [Direction; 2] = [
    Direction {
        begin: TransportNotify::BEGIN_INBOUND,
        end: TransportNotify::END_INBOUND,
        enabled: StatusCode::INBOUND_ENABLED,
    },
    Direction {
        begin: TransportNotify::BEGIN_OUTBOUND,
        end: TransportNotify::END_OUTBOUND,
        enabled: StatusCode::OUTBOUND_ENABLED,
    },
];

/// The seed of this run: given by the environment, or new.
fn seed() -> u64 {
    let given = std::env::var("POSTRIDER_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("POSTRIDER_SEED={seed}");
    seed
}

/// Flags without a message, seldom those that exclude each other.
fn random_flags(rng: &mut Rng) -> TransportNotify {
    let pairs = [
        (TransportNotify::BEGIN_INBOUND, TransportNotify::END_INBOUND),
        (TransportNotify::BEGIN_OUTBOUND, TransportNotify::END_OUTBOUND),
        (TransportNotify::BEGIN_INBOUND_FLUSH, TransportNotify::END_INBOUND_FLUSH),
        (TransportNotify::BEGIN_OUTBOUND_FLUSH, TransportNotify::END_OUTBOUND_FLUSH),
    ];
    pairs.into_iter().fold(TransportNotify::empty(), |flags, (begin, end)| {
        flags
            | match rng.u8(..20) {
                0..=4 => begin,
                5..=8 => end,
                9 => begin | end,
                _ => TransportNotify::empty(),
            }
    })
}

fn excludes_itself(flags: TransportNotify) -> bool {
    let all = (flags.bits() & 0xF) & (flags.bits() >> 16 & 0xF);
    all != 0
}

/// Calls TransportNotify and notes when.
async fn notifier(
    session: Arc<Session>,
    time: Arc<AtomicU64>,
    mut rng: Rng,
) -> Vec<[Option<Call>; 2]> {
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let flags = random_flags(&mut rng);
        let begun = time.fetch_add(1, Ordering::SeqCst);
        let answer = notify(&session, flags).await;
        let over = time.fetch_add(1, Ordering::SeqCst);
        match excludes_itself(flags) {
            true => assert_eq!(answer.unwrap_err().code(), MapiCode::INVALID_PARAMETER),
            false => {
                answer.unwrap();
                calls.push(DIRECTIONS.map(|direction| {
                    let opens = flags.contains(direction.begin);
                    let acts = opens || flags.contains(direction.end);
                    acts.then_some(Call { opens, begun, over })
                }));
            }
        }
        if rng.bool() {
            tokio::task::yield_now().await;
        }
    }
    calls
}

/// What must have become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    Cancelled,
}

/// Submits messages and cancels some of them a little later.
async fn sender(
    session: Arc<Session>,
    number: usize,
    mut rng: Rng,
) -> Vec<(String, EntryId, Fate)> {
    let mut sent = Vec::new();
    for message in 0..MESSAGES {
        let subject = format!("{number}-{message}.");
        let entry = send(&session, &subject).await;
        for _ in 0..rng.u8(..8) {
            tokio::task::yield_now().await;
        }
        let mut fate = Fate::Sent;
        if rng.u8(..4) == 0 {
            let answer = session.cancel(&entry).await;
            // Shown when the test fails.
            println!("{subject} {entry} cancelled: {answer:?}");
            match answer {
                Ok(()) => fate = Fate::Cancelled,
                Err(error) => assert!(
                    matches!(error.code(), MapiCode::UNABLE_TO_ABORT | MapiCode::NOT_IN_QUEUE),
                    "{subject}: {error}"
                ),
            }
        }
        sent.push((subject, entry, fate));
    }
    sent
}

/// Whether some serial order of the calls explains what the row showed: `shown` begins with the
/// state before all calls and changes with each element.
///
/// Every call takes effect while one of the shown states stands that it asks for, not earlier than
/// the calls that were over before it began. If the earliest such states do not suffice, nothing
/// does; and each shown change needs a call that can have made it.
fn assert_explained(shown: &[bool], calls: &[Call]) {
    let mut by_begin = calls.to_vec();
    by_begin.sort_by_key(|call| call.begun);
    let mut placed: Vec<(Call, usize)> = Vec::new();
    for call in by_begin {
        let behind = placed.iter().filter(|(other, _)| other.over < call.begun);
        let from = behind.map(|(_, at)| *at).max().unwrap_or(0);
        let at = (from..shown.len()).find(|at| shown[*at] == call.opens);
        let at = at.unwrap_or_else(|| panic!("{call:?} was never shown: {shown:?}\n{calls:#?}"));
        placed.push((call, at));
    }
    for (at, state) in shown.iter().enumerate().skip(1) {
        let made = placed.iter().any(|(call, from)| call.opens == *state && *from <= at);
        assert!(made, "nobody asked for change {at} of {shown:?}: {calls:#?}");
    }
    // The last state is that of a call with no later call behind it.
    let last_begin = calls.iter().filter(|one| !calls.iter().any(|two| two.begun > one.over));
    let possible = last_begin.into_iter().any(|call| Some(&call.opens) == shown.last());
    assert!(possible || calls.is_empty(), "{shown:?} is not how it ended: {calls:#?}");
}

/// The states of one bit, each once until it changes.
fn states(codes: &[StatusCode], bit: StatusCode) -> Vec<bool> {
    let mut states: Vec<bool> = codes.iter().map(|code| code.contains(bit)).collect();
    states.dedup();
    states
}

async fn storm(post: &Post, rng: &mut Rng) -> Vec<(String, EntryId, Fate)> {
    let session = Arc::new(post.open(Logon::Closed).await);
    let watcher = Watcher::of(&session, "work");
    let time = Arc::new(AtomicU64::new(0));
    let notifiers: Vec<_> = (0..NOTIFIERS)
        .map(|_| tokio::spawn(notifier(Arc::clone(&session), Arc::clone(&time), rng.fork())))
        .collect();
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| tokio::spawn(sender(Arc::clone(&session), number, rng.fork())))
        .collect();
    for number in 0..ARRIVALS {
        post.arrive(&format!("arrival {number}."));
        tokio::task::yield_now().await;
    }
    let mut calls = Vec::new();
    for notifier in notifiers {
        calls.extend(notifier.await.unwrap());
    }
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await.unwrap());
    }
    // In the middle of everything; it ends both directions like any other call.
    let begun = time.fetch_add(1, Ordering::SeqCst);
    session.shutdown(GRACE).await.unwrap();
    calls.push([Some(Call { opens: false, begun, over: begun }); 2]);
    let codes = watcher.until_gone().await;
    for (number, direction) in DIRECTIONS.iter().enumerate() {
        let calls: Vec<Call> = calls.iter().filter_map(|both| both[number]).collect();
        assert_explained(&states(&codes, direction.enabled), &calls);
    }
    sent
}

/// Proves: TN-19, TN-1, TN-2, SP-1, SP-5
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_calls_loses_nothing_and_leaves_a_state_of_some_serial_order() {
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let shape = Shape { connections: 3, retry: "1s", ..Shape::default() };
    let test = async {
        let post = Post::shaped(shape).await;
        let sent = storm(&post, &mut rng).await;

        let session = post.open(Logon::Full).await;
        let both = FlushRequest { upload: true, download: true };
        soon("the flush", session.flush(both)).await.unwrap();
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for (subject, entry, fate) in &sent {
            let state = match fate {
                Fate::Sent => QueueRowState::Finished,
                Fate::Cancelled => QueueRowState::Cancelled,
            };
            let ended = match session.queue_row(entry).await {
                // Taken back before any transport had it: there is nothing to remember.
                Err(error) if error.code() == MapiCode::NOT_FOUND => QueueRowState::Cancelled,
                _ => ended(&session, entry).await,
            };
            assert_eq!(ended, state, "{subject}");
            if *fate == Fate::Sent {
                expected.insert(subject, 1);
            }
        }
        let accepted = post.accepted();
        let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
        for subject in &accepted {
            *counted.entry(subject).or_default() += 1;
        }
        assert_eq!(counted, expected);
        let received = await_messages(&post.maildir(), "INBOX", ARRIVALS).await;
        for number in 0..ARRIVALS {
            let line = format!("Subject: arrival {number}.\r\n");
            let copies = received.iter().filter(|one| contains(one, line.as_bytes())).count();
            assert_eq!(copies, 1, "{line}");
        }
        assert!(session.queue(None, 1).await.unwrap().is_empty());
        session.shutdown(GRACE).await.unwrap();
    };
    let done = tokio::time::timeout(LIMIT, test).await;
    assert!(done.is_ok(), "it took too long (POSTRIDER_SEED={seed})");
}

/// Proves: TN-19
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_calls_that_race_the_last_one_shown_stands() {
    let post = Post::start().await;
    let session = Arc::new(post.open(Logon::Closed).await);
    let watcher = Watcher::of(&session, "work");
    for _ in 0..50 {
        let begin = TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_OUTBOUND;
        let end = TransportNotify::END_INBOUND | TransportNotify::END_OUTBOUND;
        let calls = [begin, end, begin, end].map(|flags| {
            let session = Arc::clone(&session);
            tokio::spawn(async move { notify(&session, flags).await })
        });
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let now = code(&session);
        let enabled = StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
        // Both directions went the same way in every call, so they never differ.
        let seen = watcher.until_last("the last change", |code| code & enabled == now & enabled);
        for code in seen.await {
            assert!(code.contains(enabled) || !code.intersects(enabled), "{code:?}");
        }
    }
    // The gates follow the row: what it shows is what they do.
    notify(&session, TransportNotify::BEGIN_OUTBOUND).await.unwrap();
    let entry = send(&session, "through").await;
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    session.shutdown(GRACE).await.unwrap();
}

#[test]
fn the_check_of_serial_orders_finds_what_cannot_be() {
    let call = |opens, begun, over| Call { opens, begun, over };
    // Closed, then opened and closed one after the other.
    assert_explained(&[false, true, false], &[call(true, 0, 1), call(false, 2, 3)]);
    // At the same time, either may be the last.
    assert_explained(&[false, true], &[call(true, 0, 3), call(false, 1, 2)]);
    let wrong: [(&[bool], &[Call]); 4] = [
        (&[false, true], &[call(true, 0, 1), call(false, 2, 3)]),
        (&[false], &[call(true, 0, 1)]),
        (&[false, true, false], &[call(true, 0, 1)]),
        (&[false, true], &[call(false, 0, 1)]),
    ];
    for (shown, calls) in wrong {
        let checked = std::panic::catch_unwind(|| assert_explained(shown, calls));
        assert!(checked.is_err(), "{shown:?} {calls:?}");
    }
}
