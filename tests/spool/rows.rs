//! Rows: put, read, conflicts, atomicity, indexes, counts.

use postrider::mapi::{Priority, SysTime};
use postrider::spool::*;

use crate::bench::*;

fn nothing_skipped() -> &'static (dyn for<'a> Fn(&'a postrider::mapi::EntryId) -> bool + Send + Sync)
{
    &|_| false
}

#[tokio::test]
async fn a_message_goes_its_way_through_all_states() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = submit(&spool, 1, b"content").await;
    assert_eq!(spool.counts(), QueueCounts { queued: 1, ..QueueCounts::default() });
    let record = spool.outbox(&entry(1)).await.unwrap().unwrap();
    assert_eq!(record, OutboxRecord { revision: 1, ..outbox(Some(body)) });
    assert_eq!(spool.waiting_page(None, 10).await.unwrap(), [(entry(1), record.clone())]);

    let deferred =
        OutboxRecord { state: OutboxState::Deferred { transport: "smtp".to_owned() }, ..record };
    let batch = Batch::new().with(put_outbox(1, deferred, Expect::Revision(1))).with(put_queue(
        1,
        queue(body, 500),
        Expect::Absent,
    ));
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.waiting_page(None, 10).await.unwrap(), []);
    assert_eq!(spool.counts().queued, 1, "still one message");
    let due = spool.due(account("smtp"), at(500), 10, nothing_skipped()).await.unwrap();
    assert_eq!(due, DuePage { entries: vec![entry(1)], next: None });

    let lease = Lease { owner: 7, expires: at(2_000), dot: FinalDot::NotSent };
    let mut claimed = spool.queue(&entry(1)).await.unwrap().unwrap();
    claimed.state = QueueState::Claimed(lease);
    claimed.attempts = 1;
    claimed.due = at(2_000);
    let batch = Batch::new().with(put_queue(1, claimed.clone(), Expect::Revision(1)));
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.counts(), QueueCounts { sending: 1, ..QueueCounts::default() });
    let due = spool.due(account("smtp"), at(500), 10, nothing_skipped()).await.unwrap();
    assert_eq!(due, DuePage { entries: vec![], next: Some(at(2_000)) });
    assert_eq!(spool.claimed_page(account("smtp"), None, 10).await.unwrap(), [entry(1)]);
    assert_eq!(spool.claimed_page(account("other"), None, 10).await.unwrap(), []);

    let done = QueueRecord { state: QueueState::Done, ..claimed };
    spool.commit(Batch::new().with(put_queue(1, done, Expect::Revision(2)))).await.unwrap();
    assert_eq!(spool.counts(), QueueCounts { done: 1, ..QueueCounts::default() });
    assert_eq!(spool.done_page(account("smtp"), None, 10).await.unwrap(), [entry(1)]);
    assert_eq!(spool.claimed_page(account("smtp"), None, 10).await.unwrap(), []);
    assert_eq!(spool.done_page(account("other"), None, 10).await.unwrap(), []);

    let batch = Batch::new()
        .with(delete_queue(1))
        .with(delete_outbox(1))
        .with(Op::PutHistory { entry: entry(1), record: Box::new(history(3_000)) });
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.counts(), QueueCounts::default());
    assert_eq!(spool.done_page(account("smtp"), None, 10).await.unwrap(), []);
    assert_eq!(spool.history(&entry(1)).await.unwrap(), Some(history(3_000)));
    assert!(spool.open_body(body).await.is_err(), "the body went with its last user");

    assert_eq!(spool.history_ended_before(at(3_000), 10).await.unwrap(), []);
    assert_eq!(spool.history_ended_before(at(3_001), 10).await.unwrap(), [entry(1)]);
    spool.commit(Batch::new().with(Op::DeleteHistory { entry: entry(1) })).await.unwrap();
    assert_eq!(spool.history(&entry(1)).await.unwrap(), None);
    assert_eq!(spool.history_ended_before(SysTime::MAX, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_batch_whose_expectation_fails_changes_nothing() {
    let bench = Bench::new();
    let spool = bench.open();
    submit(&spool, 1, b"one").await;
    let before = spool.counts();
    let cases = [
        (Expect::Absent, "present"),
        (Expect::Revision(2), "another revision"),
        (Expect::Revision(0), "another revision"),
    ];
    for (expect, what) in cases {
        let body = stage(&spool, b"two").await;
        let batch = Batch::new()
            .with(put_outbox(2, outbox(Some(body.id())), Expect::Absent))
            .with(put_outbox(1, outbox(None), expect))
            .with_body(body);
        let error = spool.commit(batch).await.unwrap_err();
        assert!(matches!(error, SpoolError::Conflict(_)), "{what}: {error}");
        assert_eq!(spool.outbox(&entry(2)).await.unwrap(), None);
        assert_eq!(spool.outbox(&entry(1)).await.unwrap().unwrap().revision, 1);
    }
    let batch = Batch::new().with(Op::DeleteQueue { entry: entry(1), expect: Expect::Revision(1) });
    assert!(matches!(spool.commit(batch).await, Err(SpoolError::Conflict(_))));
    assert_eq!(spool.counts(), before);
}

#[tokio::test]
async fn of_many_with_the_same_expectation_one_wins() {
    let bench = Bench::new();
    let spool = std::sync::Arc::new(bench.open());
    submit(&*spool, 1, b"one").await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let spool = std::sync::Arc::clone(&spool);
            tokio::spawn(async move {
                let record = OutboxRecord { state: OutboxState::Held, ..outbox(None) };
                spool.commit(Batch::new().with(put_outbox(1, record, Expect::Revision(1)))).await
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, SpoolError::Conflict(_)), "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(spool.outbox(&entry(1)).await.unwrap().unwrap().revision, 2);
    assert_eq!(spool.counts(), QueueCounts { held: 1, ..QueueCounts::default() });
}

#[tokio::test]
async fn later_changes_of_a_batch_see_the_earlier_ones() {
    let bench = Bench::new();
    let spool = bench.open();
    let batch = Batch::new()
        .with(put_outbox(1, outbox(None), Expect::Absent))
        .with(put_outbox(1, outbox(None), Expect::Revision(1)))
        .with(delete_outbox(1))
        .with(put_outbox(1, outbox(None), Expect::Absent));
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.outbox(&entry(1)).await.unwrap().unwrap().revision, 1);
    let batch = Batch::new()
        .with(put_outbox(1, outbox(None), Expect::Any))
        .with(delete_outbox(1))
        .with(Op::DeleteOutbox { entry: entry(1), expect: Expect::Absent });
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.outbox(&entry(1)).await.unwrap(), None);
    assert_eq!(spool.waiting_page(None, 10).await.unwrap(), []);
    assert_eq!(spool.counts(), QueueCounts::default());
    assert!(Batch::new().is_empty());
    spool.commit(Batch::new()).await.unwrap();
}

#[tokio::test]
async fn due_messages_come_urgent_first_then_by_time() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = stage(&spool, b"shared").await;
    let id = body.id();
    let lanes = [
        (1, Priority::Normal, 300),
        (2, Priority::Normal, 100),
        (3, Priority::Urgent, 400),
        (4, Priority::NonUrgent, 1),
        (5, Priority::Urgent, 200),
        (6, Priority::Urgent, 9_000),
        (7, Priority::Normal, 8_000),
    ];
    let mut batch = Batch::new().with_body(body);
    for (number, priority, due) in lanes {
        batch.push(put_queue(number, QueueRecord { priority, ..queue(id, due) }, Expect::Absent));
    }
    let other = QueueRecord { transport: "other".to_owned(), ..queue(id, 50) };
    batch.push(put_queue(8, other, Expect::Absent));
    spool.commit(batch).await.unwrap();
    let due = async |now, limit, skip: &[u64]| {
        let skip: Vec<_> = skip.iter().map(|number| entry(*number)).collect();
        spool.due(account("smtp"), at(now), limit, &move |e| skip.contains(e)).await.unwrap()
    };
    let page = |numbers: &[u64], next: Option<u64>| DuePage {
        entries: numbers.iter().map(|number| entry(*number)).collect(),
        next: next.map(at),
    };
    assert_eq!(due(1_000, 10, &[]).await, page(&[5, 3, 2, 1, 4], Some(8_000)));
    assert_eq!(due(1_000, 3, &[]).await, page(&[5, 3, 2], Some(1)), "more is due already");
    assert_eq!(due(1_000, 10, &[5, 2, 7]).await, page(&[3, 1, 4], Some(9_000)));
    assert_eq!(due(0, 10, &[]).await, page(&[], Some(1)));
    assert_eq!(due(9_000, 10, &[]).await, page(&[5, 3, 6, 2, 1, 7, 4], None));
    assert_eq!(due(9_000, 0, &[]).await, page(&[], Some(1)));
}

#[tokio::test]
async fn states_without_a_schedule_are_not_due() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = stage(&spool, b"shared").await;
    let id = body.id();
    let states = [
        QueueState::Held,
        QueueState::Parked,
        QueueState::Done,
        QueueState::InDoubt { since: at(5), resend: false },
        QueueState::InDoubt { since: at(5), resend: true },
    ];
    let mut batch = Batch::new().with_body(body);
    for (number, state) in (0..).zip(states) {
        batch.push(put_queue(number, QueueRecord { state, ..queue(id, 10) }, Expect::Absent));
    }
    batch.push(put_queue(9, QueueRecord { attempts: 3, ..queue(id, 20) }, Expect::Absent));
    spool.commit(batch).await.unwrap();
    let due = spool.due(account("smtp"), at(100), 10, nothing_skipped()).await.unwrap();
    assert_eq!(due.entries, [entry(4), entry(9)]);
    let counts = QueueCounts {
        held: 1,
        parked: 1,
        done: 1,
        in_doubt: 2,
        deferred: 1,
        ..QueueCounts::default()
    };
    assert_eq!(spool.counts(), counts);
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = stage(&spool, b"shared").await;
    let id = body.id();
    let mut batch = Batch::new().with_body(body);
    for number in 0..25 {
        batch.push(put_outbox(number, outbox(None), Expect::Absent));
        let done = QueueRecord { state: QueueState::Done, ..queue(id, 0) };
        batch.push(put_queue(number, done, Expect::Absent));
        let record = Box::new(history(100 - number));
        batch.push(Op::PutHistory { entry: entry(number), record });
    }
    spool.commit(batch).await.unwrap();
    let all: Vec<_> = (0..25).map(entry).collect();
    let (mut outbox, mut waiting, mut queue, mut done) = (vec![], vec![], vec![], vec![]);
    for _ in 0..4 {
        let page = spool.outbox_page(outbox.last(), 7).await.unwrap();
        outbox.extend(page.into_iter().map(|(entry, _)| entry));
        let page = spool.waiting_page(waiting.last(), 7).await.unwrap();
        waiting.extend(page.into_iter().map(|(entry, _)| entry));
        let page = spool.queue_page(queue.last(), 7).await.unwrap();
        queue.extend(page.into_iter().map(|(entry, _)| entry));
        let page = spool.done_page(account("smtp"), done.last(), 7).await.unwrap();
        done.extend(page);
    }
    assert_eq!((&outbox, &waiting, &queue, &done), (&all, &all, &all, &all));
    assert_eq!(spool.outbox_page(outbox.last(), 7).await.unwrap(), []);
    let oldest = spool.history_ended_before(at(80), 2).await.unwrap();
    assert_eq!(oldest, [entry(24), entry(23)]);
}

#[tokio::test]
async fn a_history_that_is_put_again_leaves_no_trace_of_the_first() {
    let bench = Bench::new();
    let spool = bench.open();
    for ended in [100, 200] {
        let record = Box::new(history(ended));
        spool.commit(Batch::new().with(Op::PutHistory { entry: entry(1), record })).await.unwrap();
    }
    assert_eq!(spool.history_ended_before(at(150), 10).await.unwrap(), []);
    assert_eq!(spool.history_ended_before(at(201), 10).await.unwrap(), [entry(1)]);
}

#[tokio::test]
async fn cursors_and_delivered_messages_are_kept_per_account_and_mailbox() {
    let bench = Bench::new();
    let spool = bench.open();
    let cursor = CursorRecord { uid_validity: 9, last_uid: 4, ..CursorRecord::default() };
    let put = |account, mailbox: &str, record| Op::PutCursor {
        account,
        mailbox: mailbox.to_owned(),
        record,
    };
    let earlier = CursorRecord { last_uid: 1, ..cursor.clone() };
    let delivered = |mailbox: &str, digest| Op::AddDelivered {
        account: account("a"),
        mailbox: mailbox.to_owned(),
        digest,
    };
    let batch = Batch::new()
        .with(put(account("a"), "INBOX", earlier))
        .with(put(account("a"), "INBOX", cursor.clone()))
        .with(delivered("INBOX", [1; 16]))
        .with(delivered("INBOX", [1; 16]))
        .with(delivered("Lists", [2; 16]));
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.cursor(account("a"), "INBOX").await.unwrap(), Some(cursor));
    assert_eq!(spool.cursor(account("a"), "INBO").await.unwrap(), None);
    assert_eq!(spool.cursor(account("b"), "INBOX").await.unwrap(), None);
    assert_eq!(spool.delivered(account("a"), "INBOX", [1; 16]).await.unwrap(), 2);
    assert_eq!(spool.delivered(account("a"), "Lists", [1; 16]).await.unwrap(), 0);
    spool.commit(Batch::new().with(delivered("INBOX", [1; 16]))).await.unwrap();
    assert_eq!(spool.delivered(account("a"), "INBOX", [1; 16]).await.unwrap(), 3);
}

#[tokio::test]
async fn what_was_fetched_is_listed_by_uid_and_can_be_forgotten() {
    let bench = Bench::new();
    let spool = bench.open();
    let (account, mailbox) = (account("a"), "INBOX".to_owned());
    let at = |uid_validity, uid| Origin { uid_validity, uid };
    let row = |number: u8| FetchedRecord { digest: [number; 16], origin: at(1, number.into()) };
    let mut batch = Batch::new();
    for (place, number) in [(at(1, 1), 1), (at(1, 300), 2), (at(2, 2), 3)] {
        let (mailbox, record) = (mailbox.clone(), row(number));
        batch.push(Op::PutFetched { account, mailbox, at: place, record });
    }
    for origin in [at(1, 9), at(1, 8)] {
        let mailbox = mailbox.clone();
        batch.push(Op::PutDoubtful { account, mailbox, digest: [7; 16], origin });
    }
    for digest in [[5; 16], [5; 16], [6; 16]] {
        batch.push(Op::AddDelivered { account, mailbox: mailbox.clone(), digest });
    }
    spool.commit(batch).await.unwrap();
    let fetched = async |from, limit| spool.fetched_page(account, "INBOX", from, limit).await;
    assert_eq!(fetched(at(1, 0), 9).await.unwrap(), [(1, row(1)), (300, row(2))]);
    assert_eq!(fetched(at(1, 0), 1).await.unwrap(), [(1, row(1))]);
    assert_eq!(fetched(at(1, 2), 9).await.unwrap(), [(300, row(2))]);
    assert_eq!(fetched(at(2, 0), 9).await.unwrap(), [(2, row(3))]);
    let doubtful = async |digest| spool.doubtful_page(account, "INBOX", digest, 9).await.unwrap();
    assert_eq!(doubtful(None).await, [([7; 16], at(1, 8)), ([7; 16], at(1, 9))]);
    assert_eq!(doubtful(Some([8; 16])).await, []);
    let digests = async || spool.delivered_page(account, "INBOX", 9).await.unwrap();
    assert_eq!(digests().await, [[5; 16], [6; 16]]);

    let take = |digest| Op::TakeDelivered { account, mailbox: mailbox.clone(), digest };
    let batch = Batch::new()
        .with(take([5; 16]))
        .with(take([6; 16]))
        .with(take([9; 16]))
        .with(Op::DeleteFetched { account, mailbox: mailbox.clone(), at: at(1, 1) })
        .with(Op::DeleteDoubtful {
            account,
            mailbox: mailbox.clone(),
            digest: [7; 16],
            origin: at(1, 9),
        });
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.delivered(account, "INBOX", [5; 16]).await.unwrap(), 1);
    assert_eq!(digests().await, [[5; 16]]);
    assert_eq!(fetched(at(1, 0), 9).await.unwrap(), [(300, row(2))]);
    assert_eq!(doubtful(Some([7; 16])).await, [([7; 16], at(1, 8))]);
    let forget = Op::ForgetDelivered { account, mailbox, digest: [5; 16] };
    spool.commit(Batch::new().with(forget)).await.unwrap();
    assert_eq!(digests().await, [] as [[u8; 16]; 0]);
}

#[tokio::test]
async fn records_of_any_size_are_kept_and_shrink_without_a_trace() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = stage(&spool, b"shared").await;
    let mut record = queue(body.id(), 10);
    let recipient = record.envelope.recipients[0].clone();
    record.envelope.recipients = (0..3_000)
        .map(|row| QueueRecipient {
            row,
            address: format!("{row}@example.org"),
            ..recipient.clone()
        })
        .collect();
    let batch = Batch::new().with(put_queue(1, record.clone(), Expect::Absent)).with_body(body);
    spool.commit(batch).await.unwrap();
    let read = spool.queue(&entry(1)).await.unwrap().unwrap();
    assert_eq!(read, QueueRecord { revision: 1, ..record.clone() });
    assert_eq!(spool.queue_page(None, 5).await.unwrap(), [(entry(1), read)]);
    record.envelope.recipients.truncate(1);
    let batch = Batch::new().with(put_queue(1, record.clone(), Expect::Revision(1)));
    spool.commit(batch).await.unwrap();
    assert_eq!(spool.queue(&entry(1)).await.unwrap(), Some(QueueRecord { revision: 2, ..record }));
    spool.commit(Batch::new().with(delete_queue(1))).await.unwrap();
    spool.close().await;
    let left: Vec<_> = bench.tree().iter().keys().collect();
    assert_eq!(left.len(), 3, "schema, counts and journal: {left:?}");
}
