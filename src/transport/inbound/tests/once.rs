//! Every message once, whatever crashes in between (IB-6).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::frozen::Frozen;
use super::rig::{LONG, Rig, freeze, message, messages};
use crate::transport::settings::AfterFetch;

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_once_byte_for_byte() {
    let rig = Rig::new().await;
    let all = messages(300);
    rig.deliver(all.clone());
    rig.one_flush().await;
    rig.assert_same(all.clone());
    let cursor = rig.cursor("INBOX").await;
    assert_eq!((cursor.last_uid, cursor.set_aside), (300, vec![]));
    // Again: nothing is listed, nothing is fetched.
    let fetches = rig.office.counters(postoffice::Protocol::Imap).command("UID FETCH");
    assert!(fetches > 0, "{:?}", rig.office.counters(postoffice::Protocol::Imap).commands);
    rig.one_flush().await;
    rig.assert_same(all);
    let again = rig.office.counters(postoffice::Protocol::Imap).command("UID FETCH");
    assert_eq!(again, fetches);
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_sizes_and_mailboxes_are_told() {
    let rig = Rig::new().await;
    rig.deliver([message(1, 500)]);
    rig.one_flush().await;
    let saved = &rig.store.all()[0];
    assert_eq!(saved.mailbox, "INBOX");
    assert_eq!(usize::try_from(saved.size).unwrap(), saved.bytes.len());
    let date = rig.office.messages("ann", "INBOX").unwrap()[0].internal_date;
    let seconds = date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(saved.delivered.as_secs(), seconds);
}

/// Lives that end at each commit in turn, the first at the first, until one lives to the end.
async fn die_at_every_commit(rig: &Rig, wanted: &[Vec<u8>]) {
    for commits in 0..200 {
        let frozen = freeze(&rig.spool, commits);
        let life = rig.start_with(frozen.clone());
        let mut drained = life.events.drained.subscribe();
        life.inbound.begin_flush();
        let wait = drained.wait_for(|count| *count > 0);
        tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
        life.inbound.stop(Duration::ZERO).await;
        assert_eq!(rig.store.doubled.load(Ordering::SeqCst), 0, "after {commits}");
        if !frozen.is_frozen() {
            rig.assert_same(wanted.to_vec());
            return;
        }
    }
    panic!("it never comes to an end");
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_commit_neither_loses_nor_doubles() {
    for first in 0..5 {
        let mut rig = Rig::new().await;
        rig.calls = 3;
        rig.settings.tuning.batch = (4, 1 << 20);
        rig.settings.tuning.window = 6;
        rig.settings.tuning.small = 2000;
        rig.settings.tuning.piece = 700;
        let all = messages(15);
        rig.deliver(all.clone());
        // A life that dies early, then one that lives.
        let frozen = freeze(&rig.spool, first);
        let life = rig.start_with(frozen.clone());
        let mut drained = life.events.drained.subscribe();
        life.inbound.begin_flush();
        let wait = drained.wait_for(|count| *count > 0);
        tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
        life.inbound.stop(Duration::ZERO).await;
        assert!(frozen.is_frozen());
        rig.one_flush().await;
        rig.assert_same(all);
    }
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn one_crash_after_the_other_neither_loses_nor_doubles() {
    let mut rig = Rig::new().await;
    rig.settings.imap.after = AfterFetch::Seen;
    rig.settings.tuning.batch = (3, 1 << 20);
    rig.settings.tuning.window = 5;
    let all = messages(12);
    rig.deliver(all.clone());
    die_at_every_commit(&rig, &all).await;
    let left = rig.office.messages("ann", "INBOX").unwrap();
    assert!(left.iter().all(|message| message.has_flag("\\Seen")));
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_any_moment_it_neither_loses_nor_doubles() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.batch = (5, 1 << 20);
    rig.settings.tuning.small = 1500;
    rig.settings.tuning.piece = 400;
    let all = messages(60);
    rig.deliver(all.clone());
    let mut rounds = 0;
    while rig.cursor("INBOX").await.last_uid < 60 {
        let life = rig.start();
        tokio::select! {
            () = rig.said(1 + rounds % 20) => {}
            () = rig.saved(all.len()) => {}
        }
        drop(life);
        rounds += 1;
        assert!(rounds < 500);
    }
    // A dropped life may still be ending its last save.
    rig.one_flush().await;
    rig.assert_same(all);
    assert!(rounds > 1, "the first life was quick enough for everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_mailbox_neither_loses_nor_repeats() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.small = 2000;
    let mut all = messages(40);
    // Two equal ones, of which both are wanted.
    all.push(message(7777, 300));
    all.push(message(7777, 300));
    rig.deliver(all.clone());
    rig.one_flush().await;
    rig.assert_same(all.clone());
    for round in 0..2 {
        let before = rig.cursor("INBOX").await.uid_validity;
        rig.office.rebuild_mailbox("ann", "INBOX").unwrap();
        // New mail, another copy of an old one, and something large.
        let new = [message(900 + round, 400), message(7777, 300), message(950 + round, 5000)];
        rig.deliver(new.clone());
        all.extend(new);
        rig.one_flush().await;
        rig.assert_same(all.clone());
        assert_ne!(rig.cursor("INBOX").await.uid_validity, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_commit_of_a_rebuilt_mailbox_neither_loses_nor_repeats() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.small = 2000;
    rig.settings.tuning.batch = (3, 1 << 20);
    rig.settings.tuning.window = 4;
    let twin = || message(5555, 250);
    let mut all = vec![twin(), message(1, 3000)];
    all.extend(messages(6));
    rig.deliver(all.clone());
    rig.one_flush().await;
    rig.office.rebuild_mailbox("ann", "INBOX").unwrap();
    let new = [twin(), twin(), message(901, 200), message(902, 4000)];
    rig.deliver(new.clone());
    all.extend(new);
    die_at_every_commit(&rig, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_steps_are_shared() {
    let rig = Rig::new().await;
    rig.deliver(messages(400));
    let slow = Frozen::slow(Arc::clone(&rig.spool), Duration::from_millis(4));
    let life = rig.start_with(slow.clone());
    life.flush().await;
    life.inbound.stop(LONG).await;
    assert_eq!(rig.store.len(), 400);
    let commits = slow.commits.load(Ordering::SeqCst);
    assert!(commits < 200, "{commits} commits for 400 messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_takes_no_cursor_stops_and_resumes() {
    use crate::transport::events::TroubleKind;
    let rig = Rig::new().await;
    let all = messages(5);
    rig.deliver(all.clone());
    let frozen = freeze(&rig.spool, 0);
    let life = rig.start_with(frozen);
    let trouble = life.trouble(TroubleKind::Storage).await;
    assert!(trouble.words.contains("spool"), "{trouble:?}");
    assert_eq!(rig.store.len(), 0, "nothing is handed over before the window is on disk");
    life.inbound.stop(LONG).await;
    rig.one_flush().await;
    rig.assert_same(all);
}

/// What waits behind a message whose cursor cannot be written must not keep a flush open: the
/// host has gone away with the error.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_ends_when_the_spool_dies_under_it() {
    let mut rig = Rig::new().await;
    rig.calls = 1;
    rig.deliver(messages(10));
    // The window is written, no step behind it.
    let life = rig.start_with(freeze(&rig.spool, 1));
    life.flush().await;
    life.inbound.stop(LONG).await;
    rig.one_flush().await;
    rig.assert_same(messages(10));
}
