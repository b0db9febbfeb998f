//! `fsck` on spools that were damaged behind their back: what is found, what a repair makes of it,
//! and that nothing is found where nothing is wrong.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postrider::mapi::{EntryId, tags};
use postrider::spool::*;

use crate::bench::*;

fn check(spool: &SledSpool, mode: CheckMode) -> CheckReport {
    spool.check(mode, &|_| ControlFlow::Continue(())).unwrap()
}

/// What is found, by kind, in words that can be compared.
fn kinds(report: &CheckReport) -> Vec<(FindingKind, u64)> {
    report.kinds.iter().map(|(kind, count)| (*kind, *count)).collect()
}

/// A spool with messages of every state, large and small bodies, histories and cursors.
async fn filled(bench: &Bench) {
    let spool = bench.open();
    for number in 1..=12 {
        let size = if number % 3 == 0 { 20_000 } else { 300 };
        let id = submit(&spool, number, &bytes(number, size)).await;
        let state = match number % 6 {
            0 => QueueState::Due,
            1 => QueueState::Held,
            2 => QueueState::Done,
            3 => QueueState::InDoubt { since: at(1), resend: true },
            // Only in the Outbox.
            _ => continue,
        };
        let record = OutboxRecord {
            revision: 0,
            state: OutboxState::Deferred { transport: "smtp".to_owned() },
            ..outbox(Some(id))
        };
        let batch = Batch::new()
            .with(put_queue(number, QueueRecord { state, ..queue(id, number) }, Expect::Absent))
            .with(put_outbox(number, record, Expect::Any));
        spool.commit(batch).await.unwrap();
    }
    // Long enough to continue in other rows.
    let mut long = outbox(None);
    long.recipients = vec![long.recipients[0].clone(); 600];
    let batch = Batch::new()
        .with(put_outbox(20, long, Expect::Absent))
        .with(Op::PutHistory { entry: entry(30), record: Box::new(history(50)) })
        .with(Op::AddDelivered {
            account: account("a"),
            mailbox: "INBOX".to_owned(),
            digest: [3; 16],
        })
        .with(Op::PutCursor {
            account: account("a"),
            mailbox: "INBOX".to_owned(),
            record: CursorRecord::default(),
        })
        .with(Op::PutFetched {
            account: account("a"),
            mailbox: "INBOX".to_owned(),
            at: Origin { uid_validity: 1, uid: 7 },
            record: FetchedRecord { digest: [3; 16], origin: Origin { uid_validity: 1, uid: 7 } },
        })
        .with(Op::PutDoubtful {
            account: account("a"),
            mailbox: "INBOX".to_owned(),
            digest: [4; 16],
            origin: Origin { uid_validity: 1, uid: 8 },
        });
    spool.commit(batch).await.unwrap();
    let id = submit(&spool, 13, &bytes(13, 300)).await;
    let lease = Lease { owner: 1, expires: at(u64::MAX), dot: FinalDot::NotSent };
    let record = QueueRecord { state: QueueState::Claimed(lease), ..queue(id, 13) };
    let record = put_queue(13, record, Expect::Absent);
    spool.commit(Batch::new().with(record)).await.unwrap();
    spool.close().await;
}

/// A damage to a closed spool, and what is found of it.
type Damage = (&'static str, fn(&Bench), &'static [FindingKind]);

fn rows(bench: &Bench, table: u8) -> Vec<(sled::IVec, sled::IVec)> {
    bench.tree().scan_prefix([table]).map(Result::unwrap).collect()
}

fn insert(bench: &Bench, key: &[u8], value: &[u8]) {
    let tree = bench.tree();
    tree.insert(key, value).unwrap();
    tree.flush().unwrap();
}

fn remove(bench: &Bench, key: &[u8]) {
    let tree = bench.tree();
    tree.remove(key).unwrap().expect("the row to be there");
    tree.flush().unwrap();
}

/// The key of the `number`th message in a table.
fn key_of(table: u8, number: u64) -> Vec<u8> {
    [&[table], entry(number).as_bytes()].concat()
}

fn value_of(bench: &Bench, key: &[u8]) -> Vec<u8> {
    bench.tree().get(key).unwrap().expect("the row to be there").to_vec()
}

fn file_of(bench: &Bench, number: u64) -> PathBuf {
    let digest = BodyId(*blake3::hash(&bytes(number, 20_000)).as_bytes()).to_string();
    let mut files = bench.files().0.into_iter();
    files.find(|file| file.to_str().unwrap().contains(&digest)).expect("the file to be there")
}

/// Where a fixture flips a byte of a record.
fn flip(bench: &Bench, key: &[u8], at: usize) {
    let mut value = value_of(bench, key);
    value[at] ^= 0x40;
    insert(bench, key, &value);
}

fn body_key(content: &[u8]) -> Vec<u8> {
    [b"b".as_slice(), blake3::hash(content).as_bytes()].concat()
}

const DAMAGES: &[Damage] = &[
    (
        "a body file is cut",
        |b| {
            let file = std::fs::OpenOptions::new().write(true).open(file_of(b, 6)).unwrap();
            file.set_len(19_000).unwrap();
        },
        &[FindingKind::DamagedBody],
    ),
    (
        "a bit of a body file is flipped",
        |b| {
            let file = file_of(b, 12);
            let mut content = std::fs::read(&file).unwrap();
            content[7_777] ^= 1;
            std::fs::write(file, content).unwrap();
        },
        &[FindingKind::DamagedBody],
    ),
    (
        "a body file is missing",
        |b| std::fs::remove_file(file_of(b, 9)).unwrap(),
        &[FindingKind::DamagedBody],
    ),
    (
        "a bit of a small body is flipped",
        |b| {
            let (key, value) = rows(b, b'i').into_iter().next().unwrap();
            let mut value = value.to_vec();
            value[100] ^= 1;
            insert(b, &key, &value);
        },
        &[FindingKind::DamagedBody],
    ),
    (
        "the bytes of a small body are missing",
        |b| {
            let key = rows(b, b'i').into_iter().next().unwrap().0;
            remove(b, &key);
        },
        &[FindingKind::DamagedBody],
    ),
    (
        "a file is left over",
        |b| {
            let digest = blake3::hash(b"left over").to_hex();
            let folder = b.dir().join("bodies").join(digest.get(..2).unwrap());
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{digest}.{:016x}", 7)), "left over").unwrap();
        },
        &[FindingKind::OrphanBody],
    ),
    (
        "bytes of a small body are left over",
        |b| {
            insert(b, &[b"i".as_slice(), &900_u64.to_be_bytes()].concat(), b"\x01nobody's");
        },
        &[FindingKind::OrphanBody],
    ),
    (
        "the version of a record is flipped",
        |b| flip(b, &key_of(b'o', 4), 0),
        &[FindingKind::UnreadableRecord],
    ),
    (
        "a record is garbage",
        |b| insert(b, &key_of(b'q', 6), &[1, 255, 255, 255, 255, 255, 9]),
        &[FindingKind::UnreadableRecord],
    ),
    (
        "a history is garbage",
        |b| insert(b, &key_of(b'h', 30), b"\x01\xff\xff\xff\xff\xff"),
        &[FindingKind::UnreadableRecord],
    ),
    (
        "a cursor is garbage",
        |b| {
            let key = rows(b, b'c').into_iter().next().unwrap().0;
            insert(b, &key, &[1, 255]);
        },
        &[FindingKind::UnreadableRecord],
    ),
    (
        "what a message of a mailbox is makes no sense",
        |b| {
            let key = rows(b, b'v').into_iter().next().unwrap().0;
            insert(b, &key, &[1, 3, 3]);
        },
        &[FindingKind::UnreadableRecord],
    ),
    (
        "rows of mailboxes have keys that are cut",
        |b| {
            for table in *b"rvy" {
                let (key, value) = rows(b, table).into_iter().next().unwrap();
                insert(b, &key[..key.len() - 1], &value);
            }
        },
        &[FindingKind::UnreadableRecord],
    ),
    (
        "a doubtful message has a value",
        |b| {
            let key = rows(b, b'y').into_iter().next().unwrap().0;
            insert(b, &key, &[1]);
        },
        &[FindingKind::UnreadableRecord],
    ),
    (
        "a long record lost a part",
        |b| {
            let key = rows(b, b'x').into_iter().nth(1).unwrap().0;
            remove(b, &key);
        },
        &[FindingKind::UnreadableRecord],
    ),
    (
        "a long record lost its head",
        |b| remove(b, &key_of(b'o', 20)),
        &[FindingKind::UnknownRow, FindingKind::DanglingIndex, FindingKind::WrongCounts],
    ),
    (
        "an entry of an index leads nowhere",
        |b| insert(b, &key_of(b'w', 99), b""),
        &[FindingKind::DanglingIndex],
    ),
    (
        "an entry of the due index has another time",
        |b| {
            let (key, _) = rows(b, b'd').into_iter().next().unwrap();
            let mut other = key.to_vec();
            other[17] ^= 1;
            insert(b, &other, b"");
        },
        &[FindingKind::DanglingIndex],
    ),
    (
        "an entry of the index of Message-IDs leads nowhere",
        |b| insert(b, &[b"k", [7_u8; 16].as_slice(), entry(30).as_bytes()].concat(), b""),
        &[FindingKind::DanglingIndex],
    ),
    (
        "the index of Message-IDs lacks a history",
        |b| {
            let mut keys = rows(b, b'k').into_iter().map(|(key, _)| key);
            remove(b, &keys.find(|key| key.ends_with(entry(30).as_bytes())).unwrap());
        },
        &[FindingKind::MissingIndex],
    ),
    (
        "the index of what is claimed lacks an entry",
        |b| {
            let key = rows(b, b'l').into_iter().next().unwrap().0;
            remove(b, &key);
        },
        &[FindingKind::MissingIndex],
    ),
    ("an index lacks an entry", |b| remove(b, &key_of(b'w', 4)), &[FindingKind::MissingIndex]),
    (
        "the due index lacks an entry",
        |b| {
            let key = rows(b, b'd').into_iter().next().unwrap().0;
            remove(b, &key);
        },
        &[FindingKind::MissingIndex],
    ),
    (
        "the index of ends lacks an entry",
        |b| {
            let key = rows(b, b't').into_iter().next().unwrap().0;
            remove(b, &key);
        },
        &[FindingKind::MissingIndex],
    ),
    (
        "a body has too few users",
        |b| {
            // Two records name it: postcard writes the count first.
            let key = body_key(&bytes(6, 20_000));
            let mut value = value_of(b, &key);
            assert_eq!(value[1], 2);
            value[1] = 1;
            insert(b, &key, &value);
        },
        &[FindingKind::WrongUseCount],
    ),
    (
        "a body has too many users",
        |b| {
            let key = body_key(&bytes(4, 300));
            let mut value = value_of(b, &key);
            value[1] = 9;
            insert(b, &key, &value);
        },
        &[FindingKind::WrongUseCount],
    ),
    (
        "the row of a body in a file is lost",
        |b| remove(b, &body_key(&bytes(6, 20_000))),
        &[FindingKind::LostBodyRow],
    ),
    (
        "the row of a small body is lost",
        |b| remove(b, &body_key(&bytes(4, 300))),
        &[FindingKind::LostBodyRow],
    ),
    (
        "counts are off",
        |b| {
            let mut value = value_of(b, b"mcounts");
            value[1] += 3;
            insert(b, b"mcounts", &value);
        },
        &[FindingKind::WrongCounts],
    ),
    ("a row is of no table", |b| insert(b, b"Yonder", b"what?"), &[FindingKind::UnknownRow]),
];

/// What a spool holds that must not be lost: messages with their content, as far as it can be read.
async fn messages(spool: &SledSpool) -> Vec<(EntryId, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for (entry, record) in spool.outbox_page(None, 99).await.unwrap() {
        let content = match record.content {
            Some(body) => spool.read_body(body, u64::MAX).await.ok(),
            None => None,
        };
        found.push((entry, content));
    }
    found
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_wrong() {
    let bench = Bench::new();
    assert!(check(&bench.open(), CheckMode::Look).is_clean(), "an empty spool");
    filled(&bench).await;
    let spool = bench.open();
    for mode in [CheckMode::Look, CheckMode::Repair, CheckMode::Look] {
        let report = check(&spool, mode);
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!((report.messages, report.histories, report.bodies), (14, 1, 13));
        assert_eq!(report.schema, 2);
    }
}

#[tokio::test]
async fn every_damage_is_found_mended_and_not_found_again() {
    for (what, damage, expected) in DAMAGES {
        let bench = Bench::new();
        filled(&bench).await;
        let before = messages(&bench.open()).await;
        damage(&bench);
        let spool = bench.open();
        let counts = spool.counts();
        let seen = check(&spool, CheckMode::Look);
        let found: Vec<_> = kinds(&seen).into_iter().map(|(kind, _)| kind).collect();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(found, expected, "{what}: {seen:#?}");
        assert!(seen.findings.iter().all(|one| one.remedy == Remedy::Repairable), "{what}");
        assert_eq!(spool.counts(), counts, "{what}: a look changes nothing");
        assert_eq!(kinds(&check(&spool, CheckMode::Look)), kinds(&seen), "{what}");

        let mended = check(&spool, CheckMode::Repair);
        for kind in &found {
            assert!(mended.kinds.contains_key(kind), "{what}: {mended:#?}");
        }
        assert!(mended.findings.iter().all(|one| one.remedy != Remedy::Repairable), "{what}");
        for round in ["again", "after an open"] {
            let spool = if round == "again" { &spool } else { &reopened(&bench, &spool).await };
            let again = check(spool, CheckMode::Repair);
            assert!(again.is_clean(), "{what}, {round}: {again:#?}");
        }
        let spool = bench.open();
        let after = messages(&spool).await;
        for (entry, content) in before {
            match after.iter().find(|(other, _)| *other == entry) {
                Some((_, its)) if *its == content => {}
                // Its body is lost: on hold, and it says why.
                Some((_, None)) => assert!(is_set_aside(&spool, &entry).await, "{what}: {entry}"),
                other => {
                    let listed = spool.quarantine(99).await.unwrap();
                    assert!(
                        listed.iter().any(|row| row.key.contains(&entry.to_string())
                            || row.key.starts_with("overflow")),
                        "{what}: {entry} is {other:?} and not in quarantine {listed:?}"
                    );
                }
            }
        }
        spool.close().await;
    }
}

async fn reopened(bench: &Bench, spool: &SledSpool) -> SledSpool {
    spool.close().await;
    bench.open()
}

async fn is_set_aside(spool: &SledSpool, entry: &EntryId) -> bool {
    let code = "MAPI_E_CORRUPT_DATA";
    match spool.queue(entry).await.unwrap() {
        Some(row) if row.state == QueueState::Done => true,
        Some(row) => {
            let still =
                matches!(row.state, QueueState::Held | QueueState::InDoubt { resend: false, .. });
            still && row.last_error.starts_with(code)
        }
        None => {
            let row = spool.outbox(entry).await.unwrap().unwrap();
            let why = row.props.text(tags::REPORT_TEXT).unwrap_or_default();
            row.state == OutboxState::Held && why.starts_with(code)
        }
    }
}

/// The repair is cut off at each of its commits in turn, and begun again.
#[tokio::test]
async fn a_repair_that_is_cut_off_is_finished_by_the_next() {
    let mut cut = 0;
    for stop in 0.. {
        let mut bench = Bench::new();
        filled(&bench).await;
        for (what, damage, _) in DAMAGES {
            // One at a time where two would undo each other.
            if !["a body file is missing", "a long record lost its head"].contains(what) {
                damage(&bench);
            }
        }
        let left = Arc::new(AtomicU64::new(stop));
        let counter = Arc::clone(&left);
        let armed = Arc::new(AtomicBool::new(false));
        let is_armed = Arc::clone(&armed);
        bench.options.fault = Some(Arc::new(move |point| {
            let take = |left: u64| left.checked_sub(1);
            let counts = point == FaultPoint::Apply && is_armed.load(Ordering::SeqCst);
            match counts && counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err()
            {
                true => Err(std::io::Error::other("pulled out")),
                false => Ok(()),
            }
        }));
        let spool = bench.open();
        armed.store(true, Ordering::SeqCst);
        let first = spool.check(CheckMode::Repair, &|_| ControlFlow::Continue(()));
        armed.store(false, Ordering::SeqCst);
        spool.close().await;
        let through = first.is_ok();
        cut += u32::from(!through);
        let spool = bench.open();
        let second = check(&spool, CheckMode::Repair);
        assert_eq!(second.is_clean(), through, "stopped at {stop}: {second:#?}");
        let third = check(&spool, CheckMode::Repair);
        assert!(third.is_clean(), "stopped at {stop}: {third:#?}");
        assert_eq!(spool.outbox_page(None, 99).await.unwrap().len(), 12, "stopped at {stop}");
        spool.close().await;
        if through {
            break;
        }
    }
    assert!(cut > 5, "{cut} points");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_beside_the_traffic_finds_nothing_wrong() {
    let bench = Bench::new();
    let spool = Arc::new(bench.open());
    for number in 0..300 {
        submit(
            &*spool,
            10_000 + number,
            &bytes(number % 40, if number % 5 == 0 { 9_000 } else { 99 }),
        )
        .await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let through = Arc::new(AtomicU64::new(0));
    let traffic: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (spool, stop) = (Arc::clone(&spool), Arc::clone(&stop));
            let through = Arc::clone(&through);
            tokio::spawn(async move {
                let mut rounds = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    let number = writer * 1_000 + rounds % 50;
                    let size = if rounds.is_multiple_of(3) { 9_000 } else { 120 };
                    let id = submit(&*spool, number, &bytes(rounds % 7, size)).await;
                    let deferred = OutboxRecord {
                        state: OutboxState::Deferred { transport: "smtp".to_owned() },
                        ..outbox(Some(id))
                    };
                    for batch in [
                        Batch::new().with(put_queue(number, queue(id, rounds), Expect::Absent)),
                        Batch::new().with(put_outbox(number, deferred, Expect::Any)),
                        Batch::new().with(put_queue(
                            number,
                            QueueRecord { state: QueueState::Done, ..queue(id, rounds) },
                            Expect::Any,
                        )),
                        Batch::new().with(delete_queue(number)).with(Op::PutHistory {
                            entry: entry(number),
                            record: Box::new(history(rounds)),
                        }),
                        Batch::new().with(delete_outbox(number)),
                    ] {
                        spool.commit(batch).await.unwrap();
                    }
                    drop(stage(&*spool, &bytes(rounds % 5, 9_000)).await);
                    rounds += 1;
                    through.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    for round in 0.. {
        if round >= 12 && through.load(Ordering::SeqCst) >= 40 {
            break;
        }
        assert!(std::time::Instant::now() < until, "{through:?} messages went through");
        let checked = Arc::clone(&spool);
        let mode = if round % 2 == 0 { CheckMode::Look } else { CheckMode::Repair };
        let report = tokio::task::spawn_blocking(move || check(&checked, mode)).await.unwrap();
        assert!(report.is_clean(), "round {round}: {report:#?}");
        assert!(report.messages >= 300);
    }
    stop.store(true, Ordering::SeqCst);
    for writer in traffic {
        writer.await.unwrap();
    }
    spool.close().await;
    assert!(check(&bench.open(), CheckMode::Look).is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn damage_is_found_and_mended_beside_the_traffic() {
    let bench = Bench::new();
    filled(&bench).await;
    let key = body_key(&bytes(6, 20_000));
    let mut value = value_of(&bench, &key);
    value[1] = 1;
    insert(&bench, &key, &value);
    remove(&bench, &key_of(b'w', 4));
    std::fs::remove_file(file_of(&bench, 9)).unwrap();
    let spool = Arc::new(bench.open());
    let stop = Arc::new(AtomicBool::new(false));
    let (busy, ended) = (Arc::clone(&spool), Arc::clone(&stop));
    let traffic = tokio::spawn(async move {
        for number in 100.. {
            if ended.load(Ordering::SeqCst) {
                return;
            }
            submit(&*busy, number, &bytes(number, 9_000)).await;
            busy.commit(Batch::new().with(delete_outbox(number))).await.unwrap();
        }
    });
    let checked = Arc::clone(&spool);
    let report = tokio::task::spawn_blocking(move || check(&checked, CheckMode::Repair)).await;
    stop.store(true, Ordering::SeqCst);
    traffic.await.unwrap();
    let expected = [
        (FindingKind::MissingIndex, 1),
        (FindingKind::DamagedBody, 1),
        (FindingKind::WrongUseCount, 1),
    ];
    assert_eq!(kinds(&report.unwrap()), expected);
    // Both records that name it may go now, one after the other, and take it along.
    spool.commit(Batch::new().with(delete_queue(6))).await.unwrap();
    let id = BodyId(*blake3::hash(&bytes(6, 20_000)).as_bytes());
    assert_eq!(spool.read_body(id, u64::MAX).await.unwrap(), bytes(6, 20_000));
    spool.commit(Batch::new().with(delete_outbox(6))).await.unwrap();
    assert!(spool.open_body(id).await.is_err());
}

#[tokio::test]
async fn a_message_in_flight_is_left_to_its_transport() {
    let bench = Bench::new();
    let spool = bench.open();
    let id = submit(&spool, 1, &bytes(1, 20_000)).await;
    let lease = Lease { owner: 1, expires: at(u64::MAX), dot: FinalDot::NotSent };
    let claimed = QueueRecord { state: QueueState::Claimed(lease), attempts: 1, ..queue(id, 1) };
    spool.commit(Batch::new().with(put_queue(1, claimed, Expect::Absent))).await.unwrap();
    std::fs::remove_file(file_of(&bench, 1)).unwrap();
    let report = check(&spool, CheckMode::Repair);
    assert_eq!(report.findings[0].remedy, Remedy::InUse);
    assert_eq!(spool.queue(&entry(1)).await.unwrap().unwrap().state, QueueState::Claimed(lease));
}

#[tokio::test]
async fn what_a_record_in_quarantine_may_name_is_kept() {
    let bench = Bench::new();
    filled(&bench).await;
    flip(&bench, &key_of(b'o', 4), 0);
    let spool = bench.open();
    check(&spool, CheckMode::Repair);
    let id = BodyId(*blake3::hash(&bytes(4, 300)).as_bytes());
    assert_eq!(spool.read_body(id, u64::MAX).await.unwrap(), bytes(4, 300));
    assert_eq!(spool.counts().quarantined, 1);
}

#[tokio::test]
async fn one_check_at_a_time_and_it_can_be_ended() {
    let bench = Bench::new();
    filled(&bench).await;
    let spool = bench.open();
    let inner = std::cell::RefCell::new(None);
    let ended = spool.check(CheckMode::Look, &|_| {
        let second = spool.check(CheckMode::Look, &|_| ControlFlow::Continue(()));
        *inner.borrow_mut() = Some(second);
        ControlFlow::Break(())
    });
    assert!(matches!(ended, Err(SpoolError::Abandoned)));
    assert!(matches!(inner.into_inner(), Some(Err(SpoolError::Checking))));
    assert!(check(&spool, CheckMode::Look).is_clean());
}
