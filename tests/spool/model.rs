//! Random batches against a model of a few lines: same answers, same rows, same indexes.

use std::collections::{BTreeMap, BTreeSet};

use postrider::mapi::{EntryId, Priority};
use postrider::spool::*;
use proptest::prelude::*;

use crate::bench::*;

const ENTRIES: u64 = 4;
const BODIES: u64 = 3;
const TRANSPORTS: [&str; 2] = ["one", "two"];

/// What a test may do; numbers stand for entries and bodies.
#[derive(Clone, Debug)]
enum Deed {
    PutOutbox { entry: u64, state: u8, object: Option<u64>, content: Option<u64>, expect: Want },
    DeleteOutbox { entry: u64, expect: Want },
    PutQueue { entry: u64, state: u8, lane: u8, transport: u8, due: u64, body: u64, expect: Want },
    DeleteQueue { entry: u64, expect: Want },
    PutHistory { entry: u64, ended: u64 },
    DeleteHistory { entry: u64 },
}

/// An expectation that is right or wrong by what the model holds.
#[derive(Clone, Copy, Debug)]
enum Want {
    Any,
    Absent,
    Current,
    Stale,
}

#[derive(Clone, Debug)]
enum Step {
    Commit { deeds: Vec<Deed>, staged: Vec<u64> },
    Reopen { close: bool },
}

#[derive(Clone, Debug, Default)]
struct Model {
    outbox: BTreeMap<u64, OutboxRecord>,
    queue: BTreeMap<u64, QueueRecord>,
    history: BTreeMap<u64, HistoryRecord>,
}

fn content(number: u64) -> Vec<u8> {
    // One of them is large enough for a file.
    bytes(number, if number == 0 { 9_000 } else { 90 })
}

fn body_id(number: u64) -> BodyId {
    BodyId(*blake3::hash(&content(number)).as_bytes())
}

fn expect(want: Want, revision: Option<u64>) -> (Expect, bool) {
    match (want, revision) {
        (Want::Any, _) => (Expect::Any, true),
        (Want::Absent, revision) => (Expect::Absent, revision.is_none()),
        (Want::Current, Some(revision)) => (Expect::Revision(revision), true),
        (Want::Current, None) => (Expect::Revision(1), false),
        (Want::Stale, revision) => (Expect::Revision(revision.unwrap_or(0) + 1), false),
    }
}

fn outbox_record(state: u8, object: Option<u64>, content: Option<u64>) -> OutboxRecord {
    let state = match state % 3 {
        0 => OutboxState::Waiting { not_before: at(u64::from(state)) },
        1 => OutboxState::Deferred { transport: "one".to_owned() },
        _ => OutboxState::Held,
    };
    OutboxRecord { state, object: object.map(body_id), ..outbox(content.map(body_id)) }
}

fn queue_record(state: u8, lane: u8, transport: u8, due: u64, body: u64) -> QueueRecord {
    let (state, attempts) = match state % 8 {
        0 => (QueueState::Due, 0),
        1 => (QueueState::Due, 2),
        2 => (QueueState::Claimed(Lease { owner: 3, expires: at(9), dot: FinalDot::NotSent }), 1),
        3 => (QueueState::InDoubt { since: at(1), resend: false }, 1),
        4 => (QueueState::InDoubt { since: at(1), resend: true }, 1),
        5 => (QueueState::Held, 0),
        6 => (QueueState::Parked, 1),
        _ => (QueueState::Done, 1),
    };
    QueueRecord {
        state,
        attempts,
        priority: Priority::ALL[usize::from(lane % 3)],
        transport: TRANSPORTS[usize::from(transport % 2)].to_owned(),
        expiry: if lane.is_multiple_of(2) { Expiry::Own } else { Expiry::Lifetime },
        ..queue(body_id(body), due)
    }
}

impl Model {
    /// The operation for a deed, and whether its expectation is met; the model is changed as if.
    fn perform(&mut self, deed: &Deed) -> (Op, bool) {
        match *deed {
            Deed::PutOutbox { entry, state, object, content, expect: want } => {
                let revision = self.outbox.get(&entry).map(|record| record.revision);
                let (expect, met) = expect(want, revision);
                let record = outbox_record(state, object, content);
                let revision = revision.unwrap_or(0) + 1;
                self.outbox.insert(entry, OutboxRecord { revision, ..record.clone() });
                (put_outbox(entry, record, expect), met)
            }
            Deed::DeleteOutbox { entry: number, expect: want } => {
                let revision = self.outbox.remove(&number).map(|record| record.revision);
                let (expect, met) = expect(want, revision);
                (Op::DeleteOutbox { entry: entry(number), expect }, met)
            }
            Deed::PutQueue { entry, state, lane, transport, due, body, expect: want } => {
                let revision = self.queue.get(&entry).map(|record| record.revision);
                let (expect, met) = expect(want, revision);
                let record = queue_record(state, lane, transport, due, body);
                let revision = revision.unwrap_or(0) + 1;
                self.queue.insert(entry, QueueRecord { revision, ..record.clone() });
                (put_queue(entry, record, expect), met)
            }
            Deed::DeleteQueue { entry: number, expect: want } => {
                let revision = self.queue.remove(&number).map(|record| record.revision);
                let (expect, met) = expect(want, revision);
                (Op::DeleteQueue { entry: entry(number), expect }, met)
            }
            Deed::PutHistory { entry: number, ended } => {
                self.history.insert(number, history(ended));
                let record = Box::new(history(ended));
                (Op::PutHistory { entry: entry(number), record }, true)
            }
            Deed::DeleteHistory { entry: number } => {
                self.history.remove(&number);
                (Op::DeleteHistory { entry: entry(number) }, true)
            }
        }
    }

    fn uses(&self, body: u64) -> bool {
        let body = body_id(body);
        self.queue.values().any(|record| record.body == body)
            || self.outbox.values().any(|record| record.bodies().any(|its| its == body))
    }

    fn counts(&self) -> QueueCounts {
        let mut counts = QueueCounts::default();
        for record in self.queue.values() {
            match (&record.state, record.attempts) {
                (QueueState::Due, 0) => counts.queued += 1,
                (QueueState::Due, _) => counts.deferred += 1,
                (QueueState::Claimed(_), _) => counts.sending += 1,
                (QueueState::InDoubt { .. }, _) => counts.in_doubt += 1,
                (QueueState::Held, _) => counts.held += 1,
                (QueueState::Parked, _) => counts.parked += 1,
                (QueueState::Done, _) => counts.done += 1,
            }
        }
        for record in self.outbox.iter().filter(|(entry, _)| !self.queue.contains_key(entry)) {
            match record.1.state {
                OutboxState::Held => counts.held += 1,
                _ => counts.queued += 1,
            }
        }
        counts
    }

    fn due(&self, transport: &str, now: u64) -> DuePage {
        let mut rows: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, record)| record.transport == transport)
            .filter_map(|(number, record)| Some((record.priority, record.scheduled()?, *number)))
            .collect();
        rows.sort();
        let (due, later): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.1 <= at(now));
        DuePage {
            entries: due.into_iter().map(|(_, _, number)| entry(number)).collect(),
            next: later.into_iter().map(|(_, time, _)| time).min(),
        }
    }

    /// Messages whose two rows do not fit together.
    fn unsettled(&self) -> Vec<u64> {
        let fits = |number: &u64| match (self.outbox.get(number), self.queue.get(number)) {
            (None, queue) => queue.is_none(),
            (Some(OutboxRecord { state: OutboxState::Deferred { transport }, .. }), queue) => queue
                .is_some_and(|queue| {
                    queue.transport == *transport && queue.state != QueueState::Parked
                }),
            (Some(_), _) => true,
        };
        (0..ENTRIES).filter(|number| !fits(number)).collect()
    }

    async fn compare(&self, spool: &dyn Spool) {
        let owned = |rows: &BTreeMap<u64, OutboxRecord>| -> Vec<(EntryId, OutboxRecord)> {
            rows.iter().map(|(number, record)| (entry(*number), record.clone())).collect()
        };
        assert_eq!(spool.outbox_page(None, 99).await.unwrap(), owned(&self.outbox));
        let mut waiting = owned(&self.outbox);
        waiting.retain(|(_, record)| matches!(record.state, OutboxState::Waiting { .. }));
        assert_eq!(spool.waiting_page(None, 99).await.unwrap(), waiting);
        let mut deferred = owned(&self.outbox);
        deferred.retain(|(_, record)| matches!(record.state, OutboxState::Deferred { .. }));
        assert_eq!(spool.deferred_page(None, 99).await.unwrap(), deferred);
        let unsettled: Vec<_> = self.unsettled().into_iter().map(entry).collect();
        assert_eq!(spool.unsettled_page(None, 99).await.unwrap(), unsettled);
        let mut accounts: Vec<_> =
            self.queue.values().map(|record| account(&record.transport)).collect();
        accounts.sort();
        accounts.dedup();
        assert_eq!(spool.queue_accounts().await.unwrap(), accounts);
        let queue: Vec<_> =
            self.queue.iter().map(|(number, record)| (entry(*number), record.clone())).collect();
        assert_eq!(spool.queue_page(None, 99).await.unwrap(), queue);
        for transport in TRANSPORTS {
            for now in [0, 2, 9] {
                let due = spool.due(account(transport), at(now), 99, &|_| false).await.unwrap();
                assert_eq!(due, self.due(transport, now));
            }
            let mut of = spool.queue_of(account(transport), 99).await.unwrap();
            of.sort();
            let all = queue.iter().filter(|(_, record)| record.transport == transport);
            assert_eq!(of, all.map(|(entry, _)| entry.clone()).collect::<Vec<_>>());
            let done: Vec<_> = queue
                .iter()
                .filter(|(_, record)| record.transport == transport)
                .filter(|(_, record)| record.state == QueueState::Done)
                .map(|(entry, _)| entry.clone())
                .collect();
            assert_eq!(spool.done_page(account(transport), None, 99).await.unwrap(), done);
            let claimed: Vec<_> = queue
                .iter()
                .filter(|(_, record)| record.transport == transport)
                .filter(|(_, record)| matches!(record.state, QueueState::Claimed(_)))
                .map(|(entry, _)| entry.clone())
                .collect();
            assert_eq!(spool.claimed_page(account(transport), None, 99).await.unwrap(), claimed);
            let mut expiring: Vec<_> = queue
                .iter()
                .filter(|(_, record)| record.transport == transport && expires_itself(record))
                .map(|(entry, record)| (record.expires, entry.clone()))
                .collect();
            expiring.sort();
            let page = spool.expiring_page(account(transport), None, 99).await.unwrap();
            assert_eq!(page, expiring);
        }
        let mut ended: Vec<_> =
            self.history.iter().map(|(number, record)| (record.ended, entry(*number))).collect();
        ended.sort();
        let ended: Vec<_> = ended.into_iter().map(|(_, entry)| entry).collect();
        assert_eq!(spool.history_ended_before(at(99), 99).await.unwrap(), ended);
        for number in 0..ENTRIES {
            let record = self.history.get(&number).cloned();
            assert_eq!(spool.history(&entry(number)).await.unwrap(), record);
        }
        for body in 0..BODIES {
            match spool.read_body(body_id(body), u64::MAX).await {
                Ok(read) => assert!(self.uses(body) && read == content(body), "body {body}"),
                Err(error) => assert!(!self.uses(body), "body {body}: {error}"),
            }
        }
        assert_eq!(spool.counts(), self.counts());
    }

    /// How many rows the tree has to have.
    fn rows(&self) -> usize {
        let bodies: Vec<u64> = (0..BODIES).filter(|body| self.uses(*body)).collect();
        let waiting = self
            .outbox
            .values()
            .filter(|record| matches!(record.state, OutboxState::Waiting { .. }))
            .count();
        let deferred = self
            .outbox
            .values()
            .filter(|record| matches!(record.state, OutboxState::Deferred { .. }))
            .count();
        // Each once in the index of Message-IDs.
        let named: BTreeSet<_> = self.queue.keys().chain(self.history.keys()).collect();
        let claimed = self
            .queue
            .values()
            .filter(|record| matches!(record.state, QueueState::Claimed(_)))
            .count();
        self.outbox.len()
            + named.len()
            + claimed
            + self.queue.values().filter(|record| expires_itself(record)).count()
            + waiting
            + deferred
            + self.unsettled().len()
            // Each row of the queue stands in one of three indexes.
            + 2 * self.queue.len()
            + 2 * self.history.len()
            + bodies.len()
            + bodies.iter().filter(|body| **body != 0).count()
    }
}

/// Whether a row stands in the index of those that expire by themselves.
fn expires_itself(record: &QueueRecord) -> bool {
    record.expiry == Expiry::Own && record.state != QueueState::Done
}

async fn run(steps: Vec<Step>, fold_at: u64) {
    let mut bench = Bench::new();
    bench.options.fold_at = fold_at;
    let mut spool = bench.open();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Reopen { close } => {
                if close {
                    spool.close().await;
                }
                drop(spool);
                spool = bench.open();
            }
            Step::Commit { deeds, staged } => {
                let mut after = model.clone();
                let mut batch = Batch::new();
                let mut met = true;
                for deed in &deeds {
                    let (op, its) = after.perform(deed);
                    batch.push(op);
                    met &= its;
                }
                for body in &staged {
                    batch = batch.with_body(stage(&spool, &content(*body)).await);
                }
                let bodies = (0..BODIES)
                    .all(|body| !after.uses(body) || model.uses(body) || staged.contains(&body));
                match spool.commit(batch).await {
                    Ok(_) => {
                        assert!(met && bodies, "{deeds:?} went through");
                        model = after;
                    }
                    Err(SpoolError::Conflict(_)) => assert!(!met, "{deeds:?}"),
                    Err(SpoolError::Corrupt(_)) => assert!(met && !bodies, "{deeds:?}"),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        model.compare(&spool).await;
    }
    spool.close().await;
    let tree = bench.tree();
    let keys: Vec<_> = tree.iter().keys().map(Result::unwrap).collect();
    let rows = keys.iter().filter(|key| key[0] != b'm').count();
    assert_eq!(rows, model.rows(), "{keys:?}\n{model:?}");
    let (files, staging) = bench.files();
    assert_eq!((files.len(), staging), (usize::from(model.uses(0)), vec![]));
}

fn wants() -> impl Strategy<Value = Want> {
    prop_oneof![
        8 => Just(Want::Any),
        2 => Just(Want::Current),
        1 => Just(Want::Absent),
        1 => Just(Want::Stale),
    ]
}

fn deeds() -> impl Strategy<Value = Deed> {
    let entry = 0..ENTRIES;
    let body = proptest::option::of(0..BODIES);
    prop_oneof![
        4 => (entry.clone(), any::<u8>(), body.clone(), body, wants()).prop_map(
            |(entry, state, object, content, expect)| {
                Deed::PutOutbox { entry, state, object, content, expect }
            }
        ),
        2 => (entry.clone(), wants())
            .prop_map(|(entry, expect)| Deed::DeleteOutbox { entry, expect }),
        5 => (entry.clone(), any::<u8>(), any::<u8>(), any::<u8>(), 0..5_u64, 0..BODIES, wants())
            .prop_map(|(entry, state, lane, transport, due, body, expect)| {
                Deed::PutQueue { entry, state, lane, transport, due, body, expect }
            }),
        2 => (entry.clone(), wants())
            .prop_map(|(entry, expect)| Deed::DeleteQueue { entry, expect }),
        1 => (entry.clone(), 0..9_u64).prop_map(|(entry, ended)| Deed::PutHistory { entry, ended }),
        1 => entry.prop_map(|entry| Deed::DeleteHistory { entry }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let staged = proptest::collection::vec(0..BODIES, 0..=4);
    let commit = (proptest::collection::vec(deeds(), 1..5), staged)
        .prop_map(|(deeds, staged)| Step::Commit { deeds, staged });
    let reopen = any::<bool>().prop_map(|close| Step::Reopen { close });
    proptest::collection::vec(prop_oneof![15 => commit, 1 => reopen], 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_batches_do_what_the_model_does(
        steps in steps(),
        fold_at in prop_oneof![Just(1), 200..4_000_u64, Just(4 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, fold_at));
    }
}
