//! Readers and writers at once, and callers without a runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use postrider::spool::*;

use crate::bench::*;

/// A record that says the same everywhere, so that one joined of two writings shows.
fn uniform(mark: u64, recipients: usize) -> OutboxRecord {
    let mut record = outbox(None);
    record.size = mark;
    record.recipients = vec![record.recipients[0].clone(); recipients];
    record.recipients.iter_mut().for_each(|recipient| recipient.display_name = mark.to_string());
    record
}

fn is_uniform(record: &OutboxRecord) -> bool {
    let mark = record.size.to_string();
    record.recipients.iter().all(|recipient| recipient.display_name == mark)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_half_a_change() {
    for fold_at in [1, 50_000, 4 << 20] {
        half_a_change_is_not_seen(fold_at).await;
    }
}

async fn half_a_change_is_not_seen(fold_at: u64) {
    let mut bench = Bench::new();
    bench.options.fold_at = fold_at;
    let spool = Arc::new(bench.open());
    let ended = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (spool, ended) = (Arc::clone(&spool), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut read = 0;
                while !ended.load(Ordering::SeqCst) {
                    for number in 0..4 {
                        let record = spool.outbox(&entry(number)).await.unwrap();
                        assert!(record.is_none_or(|record| is_uniform(&record)));
                    }
                    for (_, record) in spool.outbox_page(None, 9).await.unwrap() {
                        assert!(is_uniform(&record));
                        read += 1;
                    }
                    for (_, record) in spool.waiting_page(None, 9).await.unwrap() {
                        assert!(is_uniform(&record));
                    }
                    spool.due(account("smtp"), at(9), 9, &|_| false).await.unwrap();
                    tokio::task::yield_now().await;
                }
                read
            })
        })
        .collect();
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move {
                for round in 0..150_u64 {
                    // Records of one row, of a few and of none take turns.
                    let recipients = [1, 400, 900, 600][(round % 4) as usize];
                    let put = put_outbox(number, uniform(round, recipients), Expect::Any);
                    spool.commit(Batch::new().with(put)).await.unwrap();
                    if round % 10 == 9 {
                        spool.commit(Batch::new().with(delete_outbox(number))).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    ended.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert_eq!(spool.quarantine(9).await.unwrap(), []);
    assert_eq!(spool.counts(), QueueCounts::default());
}

/// Runs a future on this thread with nothing around it.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn rows_and_small_bodies_need_no_runtime() {
    let bench = Bench::new();
    let spool = bench.open();
    block_on(async {
        let id = submit(&spool, 1, b"content").await;
        assert_eq!(spool.read_body(id, 9).await.unwrap(), b"content");
        assert_eq!(spool.waiting_page(None, 9).await.unwrap().len(), 1);
        spool.close().await;
    });
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_a_batch_whole_or_not_at_all() {
    let bench = Bench::new();
    let spool = bench.open();
    for number in 0..50 {
        let body = stage(&spool, &bytes(number, 7_000)).await;
        let batch = Batch::new()
            .with(put_outbox(number, outbox(Some(body.id())), Expect::Absent))
            .with(put_queue(number, queue(body.id(), 1), Expect::Absent))
            .with_body(body);
        let mut commit = Box::pin(spool.commit(batch));
        // Polled once, so that it was sent; then dropped.
        let waker = Waker::noop();
        let _ = commit.as_mut().poll(&mut Context::from_waker(waker));
        drop(commit);
    }
    spool.commit(Batch::new()).await.unwrap();
    for number in 0..50 {
        let outbox = spool.outbox(&entry(number)).await.unwrap().unwrap();
        assert!(spool.queue(&entry(number)).await.unwrap().is_some());
        let content = spool.read_body(outbox.content.unwrap(), u64::MAX).await.unwrap();
        assert_eq!(content, bytes(number, 7_000));
    }
}
