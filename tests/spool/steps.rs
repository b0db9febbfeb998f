//! What is noted of messages, and how they are found by their Message-ID.

use postrider::spool::*;

use crate::bench::*;

fn step(millis: u64, what: StepKind) -> Step {
    Step { at: at(millis), what }
}

fn add(number: u64, step: Step) -> Batch {
    Batch::new().with(Op::AddStep { entry: entry(number), step: Box::new(step) })
}

async fn found(spool: &dyn Spool, message_id: &str) -> Vec<postrider::mapi::EntryId> {
    spool.by_message_id(message_id, 9).await.unwrap()
}

#[tokio::test]
async fn steps_go_with_their_rows_into_the_history() {
    let bench = Bench::new();
    let spool = bench.open();
    let mut record = outbox(None);
    record.trace.push(step(1, StepKind::Held));
    spool.commit(Batch::new().with(put_outbox(1, record, Expect::Absent))).await.unwrap();
    spool.commit(add(1, step(2, StepKind::Released))).await.unwrap();
    assert_eq!(spool.outbox(&entry(1)).await.unwrap().unwrap().trace.steps().len(), 2);
    // Nothing is made out of nothing.
    spool.commit(add(7, step(2, StepKind::Released))).await.unwrap();
    assert_eq!(spool.outbox(&entry(7)).await.unwrap(), None);
    assert_eq!(spool.history(&entry(7)).await.unwrap(), None);

    let mut ended = history(50);
    ended.trace.push(step(3, StepKind::TakenUp));
    // In either order, and in one batch.
    let put = Op::PutHistory { entry: entry(1), record: Box::new(ended.clone()) };
    spool.commit(Batch::new().with(delete_outbox(1)).with(put)).await.unwrap();
    spool.commit(add(1, step(9, StepKind::Hurried))).await.unwrap();
    let put = Op::PutHistory { entry: entry(1), record: Box::new(ended) };
    spool.commit(Batch::new().with(put)).await.unwrap();
    drop(spool);
    let spool = bench.open();
    let trace = spool.history(&entry(1)).await.unwrap().unwrap().trace;
    let kinds: Vec<_> = trace.steps().iter().map(|step| step.what.clone()).collect();
    let expected = [StepKind::Held, StepKind::Released, StepKind::TakenUp, StepKind::Hurried];
    assert_eq!(kinds, expected, "each once, in order");
}

#[tokio::test]
async fn a_message_is_found_by_its_message_id_as_long_as_its_rows_live() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = stage(&spool, b"content").await;
    let id = body.id();
    let named =
        |message_id: &str| QueueRecord { message_id: message_id.to_owned(), ..queue(id, 5) };
    let batch = Batch::new()
        .with(put_queue(1, named("<one@x>"), Expect::Absent))
        .with(put_queue(2, named("<one@x>"), Expect::Absent))
        .with(put_queue(3, named(""), Expect::Absent));
    spool.commit(batch.with_body(body)).await.unwrap();
    assert_eq!(found(&spool, " one@x").await, [entry(2), entry(1)], "the latest first");
    assert_eq!(spool.by_message_id("<one@x>", 1).await.unwrap(), [entry(2)]);
    assert!(found(&spool, "<two@x>").await.is_empty());
    assert!(found(&spool, "").await.is_empty());

    let record = HistoryRecord { message_id: "<one@x>".to_owned(), ..history(50) };
    let end = |number| {
        Batch::new()
            .with(Op::DeleteQueue { entry: entry(number), expect: Expect::Any })
            .with(Op::PutHistory { entry: entry(number), record: Box::new(record.clone()) })
    };
    spool.commit(end(1)).await.unwrap();
    spool.commit(end(2)).await.unwrap();
    assert_eq!(found(&spool, "<one@x>").await, [entry(2), entry(1)]);
    spool.commit(Batch::new().with(Op::DeleteHistory { entry: entry(2) })).await.unwrap();
    assert_eq!(found(&spool, "<one@x>").await, [entry(1)]);
    let known = spool.known_between(&entry(0), &entry(9), 9).await.unwrap();
    assert_eq!(known, [entry(1)]);
    spool.commit(Batch::new().with(put_outbox(2, outbox(None), Expect::Any))).await.unwrap();
    assert_eq!(spool.known_between(&entry(0), &entry(9), 9).await.unwrap(), [entry(1), entry(2)]);
    assert_eq!(spool.known_between(&entry(2), &entry(2), 9).await.unwrap(), [entry(2)]);
    spool.commit(Batch::new().with(Op::DeleteHistory { entry: entry(1) })).await.unwrap();
    assert!(found(&spool, "<one@x>").await.is_empty());
}

#[tokio::test]
async fn a_repair_mends_the_index_of_message_ids() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = stage(&spool, b"content").await;
    let id = body.id();
    let put = Op::PutHistory { entry: entry(2), record: Box::new(history(50)) };
    let batch = Batch::new().with(put_queue(1, queue(id, 5), Expect::Absent)).with(put);
    spool.commit(batch.with_body(body)).await.unwrap();
    let message_id = history(50).message_id;
    let before = found(&spool, &message_id).await;
    assert!(before.contains(&entry(2)), "{before:?}");
    spool.close().await;
    drop(spool);
    let tree = bench.tree();
    let index: Vec<_> = tree.scan_prefix(b"k").keys().map(|key| key.unwrap()).collect();
    assert!(!index.is_empty());
    for key in index {
        tree.remove(key).unwrap();
    }
    let stray = [b"k".as_slice(), &[7; 16], entry(2).as_bytes()].concat();
    tree.insert(stray.clone(), b"").unwrap();
    // Without its counters a spool is repaired.
    tree.remove(b"mcounts").unwrap();
    drop(tree);
    let spool = bench.open();
    assert_eq!(found(&spool, &message_id).await, before);
    spool.close().await;
    drop(spool);
    assert!(!bench.tree().contains_key(stray).unwrap());
}
