//! Limits of the provider, and hosts for when the first one is out of reach.

use std::sync::Arc;
use std::time::Duration;

use postoffice::{Listener, Protocol};

use super::rig::{PATIENCE, Rig, Shape, Told, entry, office};
use crate::clock::Clock;
use crate::spool::QueueState;
use crate::transport::SmtpSettings;
use crate::transport::events::SendingNotes;
use crate::transport::outbound::Abort;

fn shape(smtp: impl Fn(&mut SmtpSettings) + Send + Sync + 'static) -> Shape {
    Shape { smtp: Arc::new(smtp), ..Shape::default() }
}

/// Waits until the owner was told last what `wanted` looks for.
async fn hears_notes(rig: &Rig, wanted: impl Fn(&SendingNotes) -> bool) -> SendingNotes {
    let last = |told: &[Told]| {
        told.iter().rev().find_map(|told| match told {
            Told::Notes(notes) => Some(notes.clone()),
            _ => None,
        })
    };
    rig.hears("a note", |told| last(told).is_some_and(|notes| wanted(&notes))).await;
    last(&rig.told()).unwrap()
}

#[tokio::test]
async fn no_more_messages_a_minute_than_the_profile_says() {
    let rig = Rig::shaped(shape(|smtp| smtp.messages_per_minute = Some(3)), office().await).await;
    let begun = rig.clock.now();
    for number in 0..7 {
        rig.send(number, &["bob@x.org"]).await;
    }
    rig.open();
    for round in 0..3_u16 {
        for number in (0..7).skip(usize::from(round) * 3).take(3) {
            assert_eq!(rig.hears_end_of(&entry(number)).await.state, QueueState::Done);
        }
        let sent = u64::from(round * 3 + 3).min(7);
        if sent == 7 {
            break;
        }
        let until = begun.saturating_add(Duration::from_secs(60 * (u64::from(round) + 1)));
        let notes = hears_notes(&rig, |notes| notes.throttled.is_some()).await;
        let words = notes.throttled.unwrap();
        assert_eq!(words, format!("throttled until {until} (3 messages a minute)"));
        assert_eq!(rig.office.accepted_count(), sent);
        // Those that wait are queued, not claimed, and no attempt of theirs has begun.
        for number in (0..7).skip(usize::try_from(sent).unwrap()) {
            let row = rig.row_when(&entry(number), |row| row.state == QueueState::Due).await;
            assert_eq!(row.attempts, 0);
        }
        rig.forget();
        rig.clock.advance(Duration::from_secs(59));
        rig.outbound.try_now();
        rig.clock.advance(Duration::from_secs(1));
    }
    hears_notes(&rig, |notes| notes.throttled.is_none()).await;
    assert_eq!(rig.office.accepted_count(), 7);
}

#[tokio::test]
async fn a_flush_sees_what_is_throttled_through_and_then_ends_at_once() {
    let rig = Rig::shaped(shape(|smtp| smtp.messages_per_minute = Some(2)), office().await).await;
    for number in 0..4 {
        rig.send(number, &["bob@x.org"]).await;
    }
    rig.open();
    rig.outbound.begin_flush();
    hears_notes(&rig, |notes| notes.throttled.is_some()).await;
    assert!(!rig.told().contains(&Told::FlushDrained));
    rig.clock.advance(Duration::from_secs(60));
    // With the last two the limit is reached again, but nothing waits for it.
    rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
    assert_eq!(rig.office.accepted_count(), 4);
}

#[tokio::test]
async fn many_recipients_are_many_messages_to_the_limits() {
    let limits = shape(|smtp| {
        smtp.recipients_per_message = 2;
        smtp.messages_per_minute = Some(2);
    });
    let rig = Rig::shaped(limits, office().await).await;
    rig.open();
    let everybody = ["a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org"];
    let first = rig.send(1, &everybody).await;
    hears_notes(&rig, |notes| notes.throttled.is_some()).await;
    let sizes = |rig: &Rig| {
        rig.office.accepted().iter().map(|one| one.recipients().len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&rig), [2, 2]);
    rig.clock.advance(Duration::from_secs(60));
    rig.hears_end_of(&first).await;
    assert_eq!(sizes(&rig), [2, 2, 1]);
    for index in 0..5 {
        assert_eq!(rig.recipient(&first, index).await, "delivered");
    }

    // One that waits for its turn in the middle can be cancelled, and the rest is not sent.
    rig.forget();
    let second = rig.send(2, &everybody).await;
    hears_notes(&rig, |notes| notes.throttled.is_some()).await;
    let cancel = rig.outbound.abort(&second, Abort::Cancel);
    let cancelled = tokio::time::timeout(PATIENCE, cancel).await.unwrap();
    assert!(cancelled.is_ok(), "{cancelled:?}");
    rig.clock.advance(Duration::from_secs(120));
    let third = rig.send(3, &["bob@x.org"]).await;
    rig.hears_end_of(&third).await;
    assert_eq!(sizes(&rig), [2, 2, 1, 2, 1]);
}

#[tokio::test]
async fn mail_goes_through_the_next_host_while_the_first_is_down_and_the_status_says_so() {
    let second = office().await;
    let port = second.port(Listener::Smtp);
    let other = shape(move |smtp| {
        let place = format!("127.0.0.1:{port}");
        smtp.fallback = vec![smtp.server.beside(&place).unwrap()];
    });
    let rig = Rig::shaped(other, office().await).await;
    rig.office.stop().await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let row = rig.hears_end_of(&entry).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
    assert_eq!(second.accepted_count(), 1);
    let notes = hears_notes(&rig, |notes| notes.detour.is_some()).await;
    let words = notes.detour.unwrap();
    assert!(words.contains(&format!("through 127.0.0.1:{port}, because")), "{words}");
    assert!(!rig.told().iter().any(|told| matches!(told, Told::Trouble(Some(_)))), "no trouble");

    // Both are down: the account waits as it would with one.
    second.stop().await;
    let waiting = rig.send(2, &["bob@x.org"]).await;
    let trouble = rig.hears_trouble().await;
    assert!(trouble.words.contains(&format!("127.0.0.1:{port}")), "{}", trouble.words);
    assert_eq!(rig.row_when(&waiting, |row| row.state == QueueState::Due).await.attempts, 0);
    rig.office.restart().await.unwrap();
    rig.forget();
    rig.clock.advance(Duration::from_secs(300));
    rig.hears_end_of(&waiting).await;
    assert_eq!(rig.office.counters(Protocol::Smtp).connections, 1);
    hears_notes(&rig, |notes| notes.detour.is_none()).await;
}
