//! Rows that cannot be read, a disk that fails, a disk that is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use postrider::spool::*;

use crate::bench::*;

/// Changes the rows of a closed spool behind its back.
fn tamper(bench: &Bench, change: impl Fn(&[u8], &[u8]) -> Option<Vec<u8>>) -> usize {
    let tree = bench.tree();
    let mut changed = 0;
    for row in tree.iter() {
        let (key, value) = row.unwrap();
        if let Some(value) = change(&key, &value) {
            tree.insert(key, value).unwrap();
            changed += 1;
        }
    }
    tree.flush().unwrap();
    changed
}

fn cut(value: &[u8]) -> Vec<u8> {
    value[..value.len() - 1].to_vec()
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_set_aside_and_listed() {
    let bench = Bench::new();
    let spool = bench.open();
    for number in 1..=3 {
        let id = submit(&spool, number, b"content").await;
        let batch = Batch::new()
            .with(put_queue(number, queue(id, 10), Expect::Absent))
            .with(Op::PutHistory { entry: entry(number), record: Box::new(history(50)) });
        spool.commit(batch).await.unwrap();
    }
    let cursor = Op::PutCursor {
        account: account("a"),
        mailbox: "INBOX".to_owned(),
        record: CursorRecord::default(),
    };
    spool.commit(Batch::new().with(cursor)).await.unwrap();
    spool.close().await;
    let (second, third) = (entry(2), entry(3));
    let changed = tamper(&bench, |key, value| match key.split_first().unwrap() {
        (b'q', rest) if rest == second.as_bytes() => Some(cut(value)),
        (b'h', rest) if rest == second.as_bytes() => Some(vec![]),
        (b'o', rest) if rest == third.as_bytes() => Some([&[77], &value[1..]].concat()),
        (b'c', _) => Some(vec![1, 255]),
        _ => None,
    });
    assert_eq!(changed, 4);

    let spool = bench.open();
    assert_eq!(spool.queue(&second).await.unwrap(), None);
    assert_eq!(spool.outbox(&third).await.unwrap(), None);
    assert_eq!(spool.history(&second).await.unwrap(), None);
    assert_eq!(spool.cursor(account("a"), "INBOX").await.unwrap(), None);
    assert!(spool.outbox(&second).await.unwrap().is_some());
    let entries = |page: Vec<(postrider::mapi::EntryId, QueueRecord)>| {
        page.into_iter().map(|(entry, _)| entry).collect::<Vec<_>>()
    };
    assert_eq!(entries(spool.queue_page(None, 9).await.unwrap()), [entry(1), entry(3)]);
    let due = spool.due(account("smtp"), at(99), 9, &|_| false).await.unwrap();
    assert_eq!(due.entries, [entry(1), entry(3)]);
    assert_eq!(spool.waiting_page(None, 9).await.unwrap().len(), 2);
    assert_eq!(spool.history_ended_before(at(99), 9).await.unwrap(), [entry(1), entry(3)]);
    // The second is counted by its Outbox row, the third by its queue row.
    let counts = QueueCounts { queued: 3, quarantined: 4, ..QueueCounts::default() };
    assert_eq!(spool.counts(), counts);
    let listed = spool.quarantine(9).await.unwrap();
    let keys: Vec<_> = listed.iter().map(|record| record.key.as_str()).collect();
    for key in [format!("queue/{second}"), format!("history/{second}"), format!("outbox/{third}")] {
        assert!(keys.contains(&key.as_str()), "{key} in {keys:?}");
    }
    let outbox = listed.iter().find(|record| record.key.starts_with("outbox")).unwrap();
    assert_eq!(outbox.bytes[0], 77);
    assert_eq!(outbox.reason, "record format 77 is not known");
    assert_eq!(spool.quarantine(2).await.unwrap().len(), 2);

    let batch = Batch::new().with(put_queue(2, queue_of(&spool, 1).await, Expect::Absent));
    spool.commit(batch).await.unwrap();
    spool.close().await;
    let spool = bench.open();
    assert_eq!(spool.counts(), counts);
    assert_eq!(spool.quarantine(9).await.unwrap(), listed);
}

async fn queue_of(spool: &dyn Spool, number: u64) -> QueueRecord {
    spool.queue(&entry(number)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_batch_that_meets_a_damaged_row_sets_it_aside_and_goes_on() {
    let bench = Bench::new();
    let spool = bench.open();
    for number in 1..=2 {
        submit(&spool, number, b"content").await;
    }
    spool.close().await;
    let first = entry(1);
    tamper(&bench, |key, value| {
        (key[0] == b'o' && &key[1..] == first.as_bytes()).then(|| cut(value))
    });
    let spool = bench.open();
    assert_eq!(spool.counts().queued, 2, "nobody looked yet");
    let batch = Batch::new().with(put_outbox(1, outbox(None), Expect::Revision(1)));
    assert!(matches!(spool.commit(batch).await, Err(SpoolError::Conflict(_))));
    assert_eq!((spool.counts().queued, spool.counts().quarantined), (1, 1));
    let batch = Batch::new().with(put_outbox(1, outbox(None), Expect::Absent));
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.counts().queued, 2);
}

#[tokio::test]
async fn a_record_that_is_damaged_again_does_not_replace_the_first() {
    let bench = Bench::new();
    for size in [1, 2] {
        let spool = bench.open();
        let record = OutboxRecord { size, ..outbox(None) };
        spool.commit(Batch::new().with(put_outbox(1, record, Expect::Absent))).await.unwrap();
        spool.close().await;
        tamper(&bench, |key, value| (key[0] == b'o').then(|| cut(value)));
        let spool = bench.open();
        assert_eq!(spool.outbox(&entry(1)).await.unwrap(), None);
        assert_eq!(spool.counts().quarantined, size);
        let listed = spool.quarantine(9).await.unwrap();
        assert!(listed.iter().all(|record| record.key == format!("outbox/{}", entry(1))));
        assert_eq!(listed.len() as u64, size);
        spool.close().await;
    }
}

#[tokio::test]
async fn a_long_record_that_lost_a_part_goes_to_quarantine_with_the_rest() {
    let bench = Bench::new();
    let spool = bench.open();
    let mut record = outbox(None);
    record.recipients = vec![record.recipients[0].clone(); 1_000];
    spool.commit(Batch::new().with(put_outbox(1, record, Expect::Absent))).await.unwrap();
    spool.close().await;
    assert!(
        tamper(&bench, |key, _| (key[0] == b'x' && key.ends_with(&[0, 1])).then(Vec::new)) == 1
    );
    let spool = bench.open();
    assert_eq!(spool.outbox_page(None, 9).await.unwrap(), []);
    assert!(spool.quarantine(9).await.unwrap()[0].bytes.len() > 20_000);
    assert_eq!(spool.counts(), QueueCounts { quarantined: 1, ..QueueCounts::default() });
    assert_eq!(spool.waiting_page(None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn a_body_whose_row_was_damaged_is_never_removed_by_counting() {
    for size in [100, 20_000] {
        let bench = Bench::new();
        let spool = bench.open();
        let content = bytes(1, size);
        let id = submit(&spool, 1, &content).await;
        submit(&spool, 2, &content).await;
        spool.close().await;
        assert_eq!(tamper(&bench, |key, value| (key[0] == b'b').then(|| cut(value))), 1);
        let spool = bench.open();
        assert!(matches!(spool.open_body(id).await, Err(SpoolError::Corrupt(_))));
        assert_eq!(spool.counts().quarantined, 1);
        // Two records name it; a third brings the bytes again and goes before them.
        submit(&spool, 3, &content).await;
        spool.commit(Batch::new().with(delete_outbox(3))).await.unwrap();
        assert_eq!(spool.read_body(id, u64::MAX).await.unwrap(), content);
        spool.commit(Batch::new().with(delete_outbox(1))).await.unwrap();
        assert_eq!(spool.read_body(id, u64::MAX).await.unwrap(), content);
    }
}

#[tokio::test]
async fn a_message_can_leave_although_the_row_of_its_body_is_damaged() {
    let bench = Bench::new();
    let spool = bench.open();
    submit(&spool, 1, b"content").await;
    spool.close().await;
    tamper(&bench, |key, value| (key[0] == b'b').then(|| cut(value)));
    let spool = bench.open();
    spool.commit(Batch::new().with(delete_outbox(1))).await.unwrap();
    eventually("the quarantine", || spool.counts().quarantined == 1).await;
    assert_eq!(spool.outbox(&entry(1)).await.unwrap(), None);
}

#[tokio::test]
async fn counters_that_are_lost_are_counted_anew() {
    for damage in ["cut", "gone"] {
        let bench = Bench::new();
        let spool = bench.open();
        let id = submit(&spool, 1, b"content").await;
        submit(&spool, 2, b"content").await;
        let held = QueueRecord { state: QueueState::Held, ..queue(id, 10) };
        spool.commit(Batch::new().with(put_queue(1, held, Expect::Absent))).await.unwrap();
        let counts = spool.counts();
        spool.close().await;
        if damage == "cut" {
            tamper(&bench, |key, value| (key == b"mcounts").then(|| cut(value)));
        } else {
            bench.tree().remove("mcounts").unwrap().unwrap();
        }
        assert_eq!(bench.open().counts(), counts, "{damage}");
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_until_the_next_open() {
    for point in [FaultPoint::Apply, FaultPoint::Sync] {
        let broken = Arc::new(AtomicUsize::new(0));
        let mut bench = Bench::new();
        let watched = Arc::clone(&broken);
        bench.options.fault = Some(Arc::new(move |at| match watched.load(Ordering::SeqCst) {
            1 if at == point => Err(std::io::Error::other("pulled out")),
            _ => Ok(()),
        }));
        let spool = Arc::new(bench.open());
        let kept = submit(&*spool, 1, &bytes(1, 20_000)).await;
        broken.store(1, Ordering::SeqCst);
        let staged = stage(&*spool, &bytes(2, 20_000)).await;
        let doubtful = staged.id();
        let batch = Batch::new()
            .with(put_outbox(2, outbox(Some(doubtful)), Expect::Absent))
            .with_body(staged);
        let others: Vec<_> = (10..20)
            .map(|number| {
                let spool = Arc::clone(&spool);
                let batch = Batch::new().with(put_outbox(number, outbox(None), Expect::Absent));
                tokio::spawn(async move { spool.commit(batch).await })
            })
            .collect();
        let error = spool.commit(batch).await.unwrap_err();
        assert!(
            matches!(&error, SpoolError::Unknown(why) if why.contains("pulled out")),
            "{error}"
        );
        for other in others {
            assert!(matches!(other.await.unwrap(), Err(SpoolError::Unknown(_))));
        }
        broken.store(0, Ordering::SeqCst);
        let again = spool.commit(Batch::new().with(delete_outbox(1))).await;
        assert!(matches!(again, Err(SpoolError::Unknown(_))), "well again, but not trusted");
        assert_eq!(spool.read_body(kept, u64::MAX).await.unwrap(), bytes(1, 20_000));
        spool.close().await;
        bench.options.fault = None;
        let spool = bench.open();
        assert!(spool.outbox(&entry(1)).await.unwrap().is_some());
        // In doubt means: with its body, or not at all.
        match spool.outbox(&entry(2)).await.unwrap() {
            Some(_) => {
                assert_eq!(spool.read_body(doubtful, u64::MAX).await.unwrap(), bytes(2, 20_000));
            }
            None => assert_eq!(bench.files().0.len(), 1),
        }
        assert_eq!(bench.files().1.len(), 0);
        submit(&spool, 3, b"on we go").await;
    }
}

#[tokio::test]
async fn the_reserve_keeps_new_mail_out_and_lets_the_rest_pass() {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let mut bench = Bench::new();
    bench.options.reserve = 1_000_000;
    let probe = Arc::clone(&free);
    bench.options.free_space = Some(Arc::new(move |_| Ok(probe.load(Ordering::SeqCst))));
    let spool = bench.open();
    let id = submit(&spool, 1, b"content").await;
    submit(&spool, 2, b"content").await;
    let full = |result: Result<Durable, SpoolError>| {
        assert!(matches!(result, Err(SpoolError::DiskFull { .. })), "{result:?}");
    };

    free.store(900_000, Ordering::SeqCst);
    let new = Batch::new().with(put_outbox(3, outbox(Some(id)), Expect::Absent));
    full(spool.commit(new).await);
    let onward = Batch::new().with(put_queue(1, queue(id, 1), Expect::Absent));
    spool.commit(onward).await.unwrap();
    let body = stage(&spool, &bytes(5, 40_000)).await;
    let object = OutboxRecord { object: Some(body.id()), ..outbox(Some(id)) };
    let onward = Batch::new().with(put_outbox(1, object, Expect::Any)).with_body(body);
    spool.commit(onward).await.unwrap();

    free.store(499_999, Ordering::SeqCst);
    full(spool.commit(Batch::new().with(put_queue(2, queue(id, 1), Expect::Absent))).await);
    assert!(matches!(spool.new_body(None).await, Err(SpoolError::DiskFull { .. })));
    let done = QueueRecord { state: QueueState::Done, ..queue(id, 1) };
    let upkeep = Batch::new()
        .with(put_queue(1, done, Expect::Revision(1)))
        .with(delete_outbox(2))
        .with(Op::PutCursor {
            account: account("a"),
            mailbox: "INBOX".to_owned(),
            record: CursorRecord::default(),
        })
        .with(Op::PutHistory { entry: entry(1), record: Box::new(history(1)) });
    spool.commit(upkeep).await.unwrap();
    assert_eq!(spool.counts(), QueueCounts { done: 1, ..QueueCounts::default() });

    free.store(2_000_000, Ordering::SeqCst);
    assert!(matches!(spool.new_body(Some(1_500_001)).await, Err(SpoolError::DiskFull { .. })));
    let mut writer = spool.new_body(Some(100_000)).await.unwrap();
    free.store(600_000, Ordering::SeqCst);
    let refused = writer.write(&bytes(1, 1_000_000)).await;
    assert!(matches!(refused, Err(SpoolError::DiskFull { .. })));
    assert!(writer.finish().await.is_err(), "a writer that failed once cannot be finished");
    free.store(2_000_000, Ordering::SeqCst);
    submit(&spool, 4, b"resumed").await;
}
