//! Every message once, whatever crashes in between (IB-6).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postoffice::{Fault, ImapAction, ImapPhase, Protocol};

use super::frozen::Frozen;
use super::rig::{LONG, Rig, freeze, message, messages};
use crate::spool::{AccountKey, Origin};
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

/// A life that ends at commit number `commits`, whatever has been saved until then.
async fn one_short_life(rig: &Rig, commits: u32) {
    let life = rig.start_with(freeze(&rig.spool, commits));
    let mut drained = life.events.drained.subscribe();
    life.inbound.begin_flush();
    let wait = drained.wait_for(|count| *count > 0);
    tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
    life.inbound.stop(Duration::ZERO).await;
}

/// What was saved and not yet recorded as such when the process died is known again although
/// every number has changed.
///
/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_and_a_rebuild_together_neither_lose_nor_repeat() {
    for first in 0..9 {
        for second in [0, 1, 2, 3, 5, 8, 13] {
            let mut rig = Rig::new().await;
            rig.calls = 3;
            rig.settings.tuning.batch = (3, 1 << 20);
            rig.settings.tuning.window = 4;
            rig.settings.tuning.small = 2000;
            rig.settings.tuning.piece = 700;
            let twin = || message(5555, 250);
            let mut all = vec![twin(), message(1, 3000), twin()];
            all.extend(messages(6));
            rig.deliver(all.clone());
            one_short_life(&rig, first).await;
            rig.office.rebuild_mailbox("ann", "INBOX").unwrap();
            let new = [twin(), message(902, 4000)];
            rig.deliver(new.clone());
            all.extend(new);
            one_short_life(&rig, second).await;
            rig.office.rebuild_mailbox("ann", "INBOX").unwrap();
            rig.one_flush().await;
            rig.assert_same(all.clone());
            // And everything is known from then on.
            rig.office.rebuild_mailbox("ann", "INBOX").unwrap();
            rig.one_flush().await;
            rig.assert_same(all);
        }
    }
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

/// Rows by which messages are known again in a rebuilt mailbox.
async fn rows(rig: &Rig, uid_validity: u32) -> Vec<u32> {
    let from = Origin { uid_validity, uid: 0 };
    let account = AccountKey::of("work");
    let page = rig.spool.fetched_page(account, "INBOX", from, 10_000).await.unwrap();
    page.into_iter().map(|(uid, _)| uid).collect()
}

/// What is kept of a mailbox is bounded by what is in it: rows of messages that have gone go too,
/// and nothing is left of earlier numberings.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_messages_that_have_gone_go_too() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.sweep_least = 10;
    rig.deliver(messages(700));
    rig.one_flush().await;
    let first = rig.cursor("INBOX").await;
    assert_eq!((first.counted, rows(&rig, first.uid_validity).await.len()), (700, 700));
    // A few: not worth a look.
    let searches = || rig.office.counters(Protocol::Imap).command("UID SEARCH");
    for uid in 1..=86 {
        rig.office.remove("ann", "INBOX", uid).unwrap();
    }
    rig.one_flush().await;
    // An eighth is.
    assert_eq!((rig.cursor("INBOX").await.counted, searches()), (700, 0), "less than an eighth");
    for uid in [87, 700] {
        rig.office.remove("ann", "INBOX", uid).unwrap();
    }
    rig.deliver([message(9000, 100)]);
    rig.one_flush().await;
    rig.one_flush().await;
    let cursor = rig.cursor("INBOX").await;
    let left = rows(&rig, cursor.uid_validity).await;
    let wanted: Vec<u32> = (88..=699).chain([701]).collect();
    assert_eq!((cursor.counted, left), (613, wanted));
    assert!(searches() <= 2, "a page for each 500 rows");

    // A rebuilt mailbox: the rows are those of the new numbering, and no others.
    for uid in 88..=90 {
        rig.office.remove("ann", "INBOX", uid).unwrap();
    }
    let saved = rig.store.len();
    rig.office.rebuild_mailbox("ann", "INBOX").unwrap();
    rig.one_flush().await;
    rig.one_flush().await;
    assert_eq!(rig.store.len(), saved);
    let second = rig.cursor("INBOX").await;
    assert_ne!(second.uid_validity, cursor.uid_validity);
    assert_eq!((second.counted, second.rematch_until, second.retired), (610, 0, None));
    assert_eq!(rows(&rig, second.uid_validity).await.len(), 610);
    assert_eq!(rows(&rig, cursor.uid_validity).await, Vec::<u32>::new());
    let account = AccountKey::of("work");
    assert!(rig.spool.delivered_page(account, "INBOX", 9).await.unwrap().is_empty());
    assert!(rig.spool.doubtful_page(account, "INBOX", None, 9).await.unwrap().is_empty());
}

/// A server that says OK to a SEARCH and nothing else has not said that all is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_without_an_answer_forgets_nothing() {
    let mut rig = Rig::new().await;
    rig.settings.tuning.sweep_least = 1;
    rig.deliver(messages(4));
    rig.one_flush().await;
    for uid in 1..=2 {
        rig.office.remove("ann", "INBOX", uid).unwrap();
    }
    let silent = Fault::imap(ImapPhase::Search, ImapAction::OkOnly);
    let silent = rig.office.inject(silent);
    rig.one_flush().await;
    assert!(silent.hits() > 0);
    let cursor = rig.cursor("INBOX").await;
    assert_eq!((cursor.counted, rows(&rig, cursor.uid_validity).await.len()), (4, 4));
    silent.remove();
    rig.one_flush().await;
    assert_eq!(rig.cursor("INBOX").await.counted, 2);
}
