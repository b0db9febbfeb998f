//! What happens on the server to messages that are safely in the store.

use std::collections::BTreeSet;

use postoffice::{Action, Fault, ImapAction, ImapCapability, ImapPhase, PostOffice};

use super::rig::{LONG, Rig, message, messages};
use crate::spool::UidRange;
use crate::transport::events::TroubleKind;
use crate::transport::settings::AfterFetch;

fn flagged(rig: &Rig, flag: &str) -> usize {
    let all = rig.office.messages("ann", "INBOX").unwrap();
    all.iter().filter(|message| message.has_flag(flag)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_leaves_no_trace() {
    let rig = Rig::new().await;
    rig.deliver(messages(5));
    rig.one_flush().await;
    let left = rig.office.messages("ann", "INBOX").unwrap();
    assert_eq!(left.len(), 5);
    assert!(left.iter().all(|message| !message.has_flag("\\Seen")));
}

#[tokio::test(flavor = "multi_thread")]
async fn seen_flags() {
    let mut rig = Rig::new().await;
    rig.settings.imap.after = AfterFetch::Seen;
    rig.deliver(messages(5));
    rig.one_flush().await;
    assert_eq!(flagged(&rig, "\\Seen"), 5);
    assert!(rig.cursor("INBOX").await.after_owed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_expunges_what_was_fetched_and_nothing_else() {
    for uidplus in [true, false] {
        let mut builder = PostOffice::builder();
        if !uidplus {
            builder = builder.withhold(ImapCapability::UidPlus);
        }
        let mut rig = Rig::with(builder).await;
        rig.settings.imap.after = AfterFetch::Delete;
        rig.deliver(messages(5));
        rig.one_flush().await;
        assert_eq!(rig.office.message_count("ann", "INBOX"), 0, "UIDPLUS {uidplus}");
        rig.assert_same(messages(5));
        assert!(rig.cursor("INBOX").await.after_owed.is_empty());
    }
}

/// Another program has flagged a message and not expunged it: it is not ours to remove.
#[tokio::test(flavor = "multi_thread")]
async fn delete_without_uidplus_spares_what_others_flagged() {
    let mut rig = Rig::with(PostOffice::builder().withhold(ImapCapability::UidPlus)).await;
    rig.deliver([message(0, 100)]);
    rig.one_flush().await;
    rig.office.set_flags("ann", "INBOX", 1, &["\\Deleted"]).unwrap();
    rig.settings.imap.after = AfterFetch::Delete;
    rig.deliver([message(1, 100)]);
    rig.one_flush().await;
    assert_eq!(flagged(&rig, "\\Deleted"), 2);
    assert_eq!(rig.office.message_count("ann", "INBOX"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn move_makes_its_target() {
    for withheld in
        [&[][..], &[ImapCapability::Move], &[ImapCapability::Move, ImapCapability::UidPlus]]
    {
        let mut builder = PostOffice::builder();
        for capability in withheld {
            builder = builder.withhold(*capability);
        }
        let mut rig = Rig::with(builder).await;
        rig.settings.imap.after = AfterFetch::Move("Gel\u{f6}scht".into());
        rig.deliver(messages(5));
        rig.one_flush().await;
        assert_eq!(rig.office.message_count("ann", "INBOX"), 0, "{withheld:?}");
        let moved = rig.office.messages("ann", "Gel&APY-scht").unwrap();
        let bodies: BTreeSet<Vec<u8>> = moved.iter().map(|it| it.bytes.to_vec()).collect();
        assert_eq!(bodies, messages(5).into_iter().collect(), "{withheld:?}");
        assert_eq!(moved.len(), 5);
    }
}

/// Proves: IB-6
/// IB-6: the cursor is on disk before the server is touched.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_before_the_cursor_is_on_disk() {
    let mut rig = Rig::new().await;
    rig.settings.imap.after = AfterFetch::Delete;
    rig.deliver(messages(3));
    // The window may be committed, the cursor not.
    let life = rig.start_with(super::rig::freeze(&rig.spool, 1));
    rig.saved(1).await;
    life.trouble(TroubleKind::Storage).await;
    life.inbound.stop(LONG).await;
    assert_eq!(rig.office.message_count("ann", "INBOX"), 3);
    assert_eq!(flagged(&rig, "\\Deleted"), 0);
    rig.one_flush().await;
    assert_eq!(rig.office.message_count("ann", "INBOX"), 0);
    rig.assert_same(messages(3));
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn owed_actions_survive_a_crash_and_a_refusal() {
    let mut rig = Rig::new().await;
    rig.settings.imap.after = AfterFetch::Delete;
    rig.deliver(messages(3));
    let refuse = Fault::imap(ImapPhase::Store, ImapAction::No("not today".into()));
    let refuse = rig.office.inject(refuse);
    let life = rig.start();
    let all = UidRange { first: 1, last: 3 };
    let cursor = rig.cursor_when(&life, |cursor| cursor.after_owed == [all]).await;
    assert_eq!(cursor.last_uid, 3);
    let trouble = life.trouble(TroubleKind::Server).await;
    assert!(trouble.words.contains("not today"), "{trouble:?}");
    drop(life);
    assert_eq!(rig.office.message_count("ann", "INBOX"), 3);
    refuse.remove();
    rig.one_flush().await;
    assert_eq!(rig.office.message_count("ann", "INBOX"), 0);
    rig.assert_same(messages(3));
    assert!(rig.cursor("INBOX").await.after_owed.is_empty());
}

/// A refusal while messages still come is shown as long as it lasts.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_the_middle_stays_shown() {
    let mut rig = Rig::new().await;
    rig.settings.imap.after = AfterFetch::Delete;
    rig.settings.tuning.after_batch = 1;
    rig.settings.tuning.batch.0 = 2;
    rig.settings.tuning.window = 2;
    rig.settings.tuning.spread = 2;
    rig.deliver(messages(20));
    let refuse = Fault::imap(ImapPhase::Store, ImapAction::No("not today".into()));
    let refuse = rig.office.inject(refuse);
    let life = rig.start();
    life.flush().await;
    rig.saved(20).await;
    let trouble = life.trouble(TroubleKind::Server).await;
    assert!(trouble.words.contains("not today"), "{trouble:?}");
    // A look that finds nothing new does not make it good.
    life.flush().await;
    life.trouble(TroubleKind::Server).await;
    refuse.remove();
    life.flush().await;
    life.no_trouble().await;
    assert_eq!(rig.office.message_count("ann", "INBOX"), 0);
    life.inbound.stop(LONG).await;
}

/// A server that refuses every STORE: what is owed is bounded, because no more is fetched; the
/// status says so; nothing is forgotten, and all of it is done once the server takes it.
///
/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_for_ever_is_owed_so_much_and_no_more() {
    const MOST: usize = 20;
    let mut rig = Rig::new().await;
    rig.settings.imap.after = AfterFetch::Delete;
    rig.settings.tuning.most_owed = MOST;
    rig.settings.tuning.window = 8;
    rig.settings.tuning.spread = 4;
    rig.settings.tuning.batch.0 = 2;
    let all = messages(120);
    rig.deliver(all.clone());
    // Every second number is nobody's, so that each message is a range of its own.
    for uid in (2..=120).step_by(2) {
        assert!(rig.office.remove("ann", "INBOX", uid).unwrap());
    }
    let there: Vec<Vec<u8>> = all.into_iter().step_by(2).collect();
    let refuse = Fault::imap(ImapPhase::Store, ImapAction::No("not today".into()));
    let refuse = rig.office.inject(refuse);
    for _ in 0..3 {
        let life = rig.start();
        life.flush().await;
        let trouble = life.trouble(TroubleKind::Server).await;
        let says = trouble.words.contains("not today") && trouble.words.contains("no more are");
        assert!(says, "{trouble:?}");
        life.inbound.stop(LONG).await;
        let owed = rig.cursor("INBOX").await.after_owed;
        assert!(owed.len() < MOST + 8, "{owed:?}");
        assert_eq!(owed.first(), Some(&UidRange { first: 1, last: 1 }));
        assert!(rig.store.len() < there.len(), "{} fetched", rig.store.len());
    }
    assert_eq!(rig.office.message_count("ann", "INBOX"), there.len());
    let life = rig.start();
    life.trouble(TroubleKind::Server).await;
    refuse.remove();
    life.flush().await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
    assert_eq!(rig.office.message_count("ann", "INBOX"), 0);
    rig.assert_same(there);
    assert!(rig.cursor("INBOX").await.after_owed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_done_while_mail_comes_by_push() {
    let mut rig = Rig::new().await;
    rig.settings.imap.after = AfterFetch::Delete;
    let life = rig.start();
    for number in 0..5 {
        rig.deliver([message(number, 100)]);
        rig.saved(number + 1).await;
    }
    let empty = |office: &PostOffice| office.message_count("ann", "INBOX") == 0;
    rig.office.wait_until("an empty mailbox", LONG, empty).await.unwrap();
    life.inbound.stop(LONG).await;
}

/// Without MOVE a message is copied, flagged and expunged. Whatever is lost on the way, the target
/// has each message once and the mailbox none.
///
/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_interrupted_is_not_made_again() {
    use ImapPhase::{Copy, Expunge, Status, Store};
    let lost = |phase, after: bool| {
        let fault = Fault::imap(phase, Action::Drop).once();
        if after { fault.after_effect() } else { fault }
    };
    let mut cases: Vec<(String, Vec<Fault>)> = Vec::new();
    for phase in [Status, Copy, Store, Expunge] {
        for after in [false, true] {
            cases.push((format!("{phase:?}, after {after}"), vec![lost(phase, after)]));
        }
    }
    let refused = Fault::imap(Store, ImapAction::No("not now".into())).once();
    cases.push(("a flag refused".into(), vec![refused]));
    let again = vec![lost(Copy, true), lost(Status, true), lost(Store, true), lost(Expunge, true)];
    cases.push(("all of them".into(), again));
    for (name, faults) in cases {
        for make_target in [false, true] {
            let mut rig = Rig::with(PostOffice::builder().withhold(ImapCapability::Move)).await;
            rig.settings.imap.after = AfterFetch::Move("Old".into());
            rig.settings.imap.poll_interval = std::time::Duration::from_millis(50);
            rig.settings.imap.push = false;
            if make_target {
                rig.office.create_mailbox("ann", "Old").unwrap();
                // Others put mail there too.
                rig.deliver_to("Old", [message(77, 300), message(1, 237)]);
            }
            let before = if make_target { 2 } else { 0 };
            let mut all = messages(5);
            all.push(message(1, 237));
            rig.deliver(all.clone());
            let faults: Vec<_> = faults.iter().map(|one| rig.office.inject(one.clone())).collect();
            let life = rig.start();
            rig.saved(6).await;
            rig.cursor_when(&life, |cursor| {
                cursor.last_uid == 6 && cursor.after_owed.is_empty() && cursor.copying.is_none()
            })
            .await;
            life.inbound.stop(LONG).await;
            assert!(faults.iter().all(|fault| fault.hits() > 0), "{name} did not strike");
            assert_eq!(rig.office.message_count("ann", "INBOX"), 0, "{name}");
            let moved = rig.office.messages("ann", "Old").unwrap();
            let mut bodies: Vec<Vec<u8>> =
                moved[before..].iter().map(|it| it.bytes.to_vec()).collect();
            bodies.sort();
            all.sort();
            assert!(bodies == all, "{name}, {make_target}: {} messages", bodies.len());
        }
    }
}

/// The same when the process dies at each commit of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_commit_of_a_copy_copies_once() {
    for commits in 0..8 {
        let mut rig = Rig::with(PostOffice::builder().withhold(ImapCapability::Move)).await;
        rig.settings.imap.after = AfterFetch::Move("Old".into());
        let mut all = messages(4);
        rig.deliver(all.clone());
        let life = rig.start_with(super::rig::freeze(&rig.spool, commits));
        life.flush().await;
        life.inbound.stop(std::time::Duration::ZERO).await;
        rig.one_flush().await;
        assert_eq!(rig.office.message_count("ann", "INBOX"), 0, "after {commits}");
        let moved = rig.office.messages("ann", "Old").unwrap();
        let mut bodies: Vec<Vec<u8>> = moved.iter().map(|it| it.bytes.to_vec()).collect();
        bodies.sort();
        all.sort();
        assert!(bodies == all, "after {commits}: {} messages", bodies.len());
        assert!(rig.cursor("INBOX").await.copying.is_none());
    }
}

/// A message that the user flagged `\\Deleted` before it was copied is moved like the others.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_flagged_is_copied_too() {
    let mut rig = Rig::with(PostOffice::builder().withhold(ImapCapability::Move)).await;
    rig.settings.imap.after = AfterFetch::Move("Old".into());
    rig.deliver(messages(2));
    rig.office.set_flags("ann", "INBOX", 1, &["\\Deleted"]).unwrap();
    rig.one_flush().await;
    assert_eq!(rig.office.messages("ann", "Old").unwrap().len(), 2);
    assert_eq!(rig.office.message_count("ann", "INBOX"), 0);
}
