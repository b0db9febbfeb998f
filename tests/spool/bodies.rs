//! Bodies: inline and in files, shared, verified, removed with their last user.

use postrider::spool::*;
use tokio::io::AsyncReadExt;

use crate::bench::*;

/// Sizes on both sides of the step from row to file.
const SIZES: [usize; 7] = [0, 1, 6_143, 6_144, 6_145, 300_000, 700_001];

#[tokio::test]
async fn bodies_of_every_size_come_back() {
    let bench = Bench::new();
    let spool = bench.open();
    for (number, size) in (0..).zip(SIZES) {
        let content = bytes(number, size);
        let id = submit(&spool, number, &content).await;
        assert_eq!(id, BodyId(*blake3::hash(&content).as_bytes()));
        assert_eq!(spool.read_body(id, size as u64).await.unwrap(), content, "{size}");
        let mut reader = spool.open_body(id).await.unwrap();
        assert_eq!(reader.size, size as u64);
        let mut read = vec![0; size];
        reader.reader.read_exact(&mut read).await.unwrap();
        assert_eq!(reader.reader.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(read, content);
    }
    eventually("staging to be empty", || bench.files().1.is_empty()).await;
    assert_eq!(bench.files().0.len(), 3, "three are too large for a row");
    spool.close().await;
    let spool = bench.open();
    for (number, size) in (0..).zip(SIZES) {
        let content = bytes(number, size);
        let id = BodyId(*blake3::hash(&content).as_bytes());
        assert_eq!(spool.read_body(id, u64::MAX).await.unwrap(), content, "{size}");
    }
}

#[tokio::test]
async fn a_body_larger_than_the_limit_is_refused() {
    let bench = Bench::new();
    let spool = bench.open();
    let id = submit(&spool, 1, b"four").await;
    assert!(matches!(spool.read_body(id, 3).await, Err(SpoolError::Corrupt(_))));
    assert!(spool.read_body(id, 4).await.is_ok());
}

#[tokio::test]
async fn equal_bodies_are_stored_once_and_go_with_the_last_user() {
    for size in [100, 50_000] {
        let bench = Bench::new();
        let spool = bench.open();
        let content = bytes(1, size);
        let first = submit(&spool, 1, &content).await;
        assert_eq!(submit(&spool, 2, &content).await, first);
        spool
            .commit(Batch::new().with(put_queue(1, queue(first, 1), Expect::Absent)))
            .await
            .unwrap();
        let files = usize::from(size > 10_000);
        eventually("staging to be empty", || bench.files().1.is_empty()).await;
        assert_eq!(bench.files().0.len(), files);
        for op in [delete_outbox(1), delete_outbox(2)] {
            spool.commit(Batch::new().with(op)).await.unwrap();
            assert_eq!(spool.read_body(first, u64::MAX).await.unwrap(), content);
        }
        spool.commit(Batch::new().with(delete_queue(1))).await.unwrap();
        assert!(matches!(spool.open_body(first).await, Err(SpoolError::Corrupt(_))));
        eventually("the file to go", || bench.files().0.is_empty()).await;
        spool.close().await;
        let left: Vec<_> = bench.tree().iter().keys().collect();
        assert_eq!(left.len(), 3, "schema, counts and journal: {left:?}");
    }
}

#[tokio::test]
async fn a_record_that_names_two_bodies_or_one_twice_counts_each() {
    let bench = Bench::new();
    let spool = bench.open();
    let body = stage(&spool, b"both").await;
    let id = body.id();
    let record = OutboxRecord { object: Some(id), ..outbox(Some(id)) };
    let batch = Batch::new().with(put_outbox(1, record, Expect::Absent)).with_body(body);
    spool.commit(batch).await.unwrap();
    spool.commit(Batch::new().with(put_outbox(1, outbox(Some(id)), Expect::Any))).await.unwrap();
    assert!(spool.open_body(id).await.is_ok());
    spool.commit(Batch::new().with(put_outbox(1, outbox(None), Expect::Any))).await.unwrap();
    assert!(spool.open_body(id).await.is_err());
}

#[tokio::test]
async fn a_record_may_not_name_a_body_that_is_not_there() {
    let bench = Bench::new();
    let spool = bench.open();
    let batch = Batch::new().with(put_outbox(1, outbox(Some(BodyId([7; 32]))), Expect::Absent));
    assert!(matches!(spool.commit(batch).await, Err(SpoolError::Corrupt(_))));
    assert_eq!(spool.outbox(&entry(1)).await.unwrap(), None);
    assert_eq!(spool.counts(), QueueCounts::default());
}

#[tokio::test]
async fn what_is_staged_and_not_used_leaves_nothing_behind() {
    let bench = Bench::new();
    let spool = bench.open();
    let content = bytes(3, 40_000);
    drop(stage(&spool, &content).await);
    let mut unfinished = spool.new_body(None).await.unwrap();
    unfinished.write(&content).await.unwrap();
    assert_eq!(bench.files().1.len(), 1);
    drop(unfinished);
    // Staged for a batch that does not name it, and for one that is refused.
    let unused = stage(&spool, &content).await;
    let batch = Batch::new().with(put_outbox(1, outbox(None), Expect::Absent)).with_body(unused);
    spool.commit(batch).await.unwrap();
    let refused = stage(&spool, &content).await;
    let record = outbox(Some(refused.id()));
    let batch = Batch::new().with(put_outbox(1, record, Expect::Absent)).with_body(refused);
    assert!(spool.commit(batch).await.is_err());
    assert_eq!(bench.files(), (vec![], vec![]));
}

#[tokio::test]
async fn a_damaged_file_is_noticed_before_its_last_byte_is_handed_out() {
    let content = bytes(5, 100_000);
    for damage in ["flipped bit", "cut", "gone"] {
        let bench = Bench::new();
        let spool = bench.open();
        let id = submit(&spool, 1, &content).await;
        let file = bench.files().0.remove(0);
        match damage {
            "flipped bit" => {
                let mut flipped = content.clone();
                flipped[99_999] ^= 1;
                std::fs::write(&file, flipped).unwrap();
            }
            "cut" => std::fs::write(&file, &content[..99_999]).unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        let error = spool.read_body(id, u64::MAX).await.unwrap_err();
        assert!(matches!(error, SpoolError::Corrupt(_)), "{damage}: {error}");
        if damage == "gone" {
            continue;
        }
        let mut reader = spool.open_body(id).await.unwrap().reader;
        let error = reader.read_exact(&mut vec![0; content.len()]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{damage}");
        assert!(reader.read(&mut [0; 8]).await.is_err(), "{damage}: and it stays so");
    }
}

#[tokio::test]
async fn a_link_in_place_of_a_body_is_not_followed() {
    let bench = Bench::new();
    let spool = bench.open();
    let content = bytes(5, 100_000);
    let id = submit(&spool, 1, &content).await;
    let file = bench.files().0.remove(0);
    let elsewhere = bench.dir().join("elsewhere");
    std::fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(matches!(spool.open_body(id).await, Err(SpoolError::Io { .. })));
}

#[tokio::test]
async fn folders_and_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    std::fs::create_dir_all(bench.dir()).unwrap();
    std::fs::set_permissions(bench.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let spool = bench.open();
    submit(&spool, 1, &bytes(1, 9_000)).await;
    let file = bench.files().0.remove(0);
    let folder = file.parent().unwrap().to_owned();
    let dirs = [bench.dir(), bench.dir().join("db"), bench.dir().join("bodies"), folder];
    for path in dirs.iter().chain([&bench.dir().join("staging")]) {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o700,
            "{path:?}"
        );
    }
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_body_that_comes_while_its_last_user_goes_is_there() {
    let bench = Bench::new();
    let spool = std::sync::Arc::new(bench.open());
    for size in [10, 20_000] {
        let content = bytes(9, size);
        for round in 0..30 {
            submit(&*spool, 1, &content).await;
            let staged = stage(&*spool, &content).await;
            let id = staged.id();
            let going = {
                let spool = std::sync::Arc::clone(&spool);
                tokio::spawn(async move { spool.commit(Batch::new().with(delete_outbox(1))).await })
            };
            let batch = Batch::new()
                .with(put_outbox(2, outbox(Some(id)), Expect::Absent))
                .with_body(staged);
            spool.commit(batch).await.unwrap();
            going.await.unwrap().unwrap();
            assert_eq!(spool.read_body(id, u64::MAX).await.unwrap(), content, "{round}");
            spool.commit(Batch::new().with(delete_outbox(2))).await.unwrap();
        }
    }
    eventually("all files to go", || bench.files() == (vec![], vec![])).await;
}

#[tokio::test]
async fn no_row_is_so_large_that_sled_moves_it_into_a_file_it_never_syncs() {
    let bench = Bench::new();
    let spool = std::sync::Arc::new(bench.open());
    // The longest keys with the longest values, many at once, put again and again.
    let named = |number: u64| {
        let name = [vec![b'n'; 504], number.to_be_bytes().to_vec()].concat();
        postrider::mapi::EntryId::from_bytes(&name).unwrap()
    };
    for round in 0..3 {
        let mut tasks = Vec::new();
        for number in 0..120 {
            let (spool, entry) = (std::sync::Arc::clone(&spool), named(number * 7 % 120));
            tasks.push(tokio::spawn(async move {
                let body = stage(&*spool, &bytes(round * 1_000 + number, 6_144)).await;
                let mut record = outbox(Some(body.id()));
                record.recipients[0].display_name = "x".repeat(5_900);
                let (record, expect) = (Box::new(record), Expect::Any);
                let batch = Batch::new().with(Op::PutOutbox { entry, record, expect });
                spool.commit(batch.with_body(body)).await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(std::fs::read_dir(bench.dir().join("db/blobs")).unwrap().count(), 0);
    }
}
