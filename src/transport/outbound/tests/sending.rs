//! Messages that go their way.

use std::sync::Arc;

use postoffice::{Fault, PostOffice, SmtpAction, SmtpExtension, SmtpPhase};

use super::rig::{Note, PATIENCE, Rig, Shape, Told, entry, office};
use crate::clock::Clock;
use crate::mapi::{MapiCode, SysTime, tags};
use crate::net::TlsMode;
use crate::spool::{Batch, Expect, HistoryEnd, Op, QueueState, RecipientState, Spool};
use crate::transport::SmtpSettings;
use crate::transport::events::{Activity, Gate};
use crate::transport::outbound::Taken;
use crate::transport::outbound::testing::RunningOut;

#[tokio::test]
async fn a_message_goes_out_and_is_settled() {
    for tls in [TlsMode::Plain, TlsMode::StartTls, TlsMode::Implicit] {
        let rig = Rig::shaped(Shape { tls, ..Shape::default() }, office().await).await;
        rig.open();
        let entry = rig.send(1, &["bob@example.net", "cat@example.net"]).await;
        let row = rig.hears_end_of(&entry).await;
        assert_eq!((&row.state, row.attempts), (&QueueState::Done, 1));
        assert_eq!(rig.recipient(&entry, 1).await, "delivered");
        let accepted = rig.office.accepted();
        assert_eq!(accepted.len(), 1);
        assert_eq!(accepted[0].recipients(), ["bob@example.net", "cat@example.net"]);
        assert_eq!(accepted[0].envelope.tls, tls != TlsMode::Plain);
        assert_eq!(accepted[0].envelope.user.as_deref(), Some("ann"));
        let text = accepted[0].body.text();
        assert!(text.contains("Subject: note") && text.contains("\r\n.two\r\n"), "{text}");
        assert!(text.contains("From: Ann <ann@example.org>"), "{text}");

        rig.outbound.settle(&entry).await.unwrap();
        rig.outbound.settle(&entry).await.unwrap();
        assert!(rig.row(&entry).await.is_none());
        let history = rig.spool.history(&entry).await.unwrap().unwrap();
        assert_eq!(history.end, HistoryEnd::Finished);
        let again = rig.submit(Note::to(&entry, &["bob@example.net"])).await.unwrap();
        assert!(matches!(again, Taken::Ended(record) if record.envelope.recipients.len() == 2));
        assert_eq!(rig.office.violations(), []);
        assert_eq!(rig.office.accepted_count(), 1);
    }
}

/// Proves: OB-4
#[tokio::test]
async fn each_recipient_has_its_outcome_and_failures_are_told_at_once() {
    let rig = Rig::new().await;
    rig.open();
    let entry =
        rig.send(1, &["bob@x.org", "550-5.1.1@x.org", "450-4.2.1@x.org", "not an address"]).await;
    let row = rig.hears_end_of(&entry).await;
    assert_eq!(row.state, QueueState::Due);
    assert!(row.last_error.contains("450 4.2.1"), "{}", row.last_error);
    let mut states = Vec::new();
    for index in 0..4 {
        states.push(rig.recipient(&entry, index).await);
    }
    assert_eq!(states, ["delivered", "failed", "deferred", "failed"]);

    rig.office.release_named();
    rig.office.remove_faults();
    rig.forget();
    let long_later = row.expires;
    rig.clock.advance(long_later.saturating_since(row.submitted));
    let row = rig.hears_end_of(&entry).await;
    assert_eq!(row.state, QueueState::Done);
    assert_eq!(rig.recipient(&entry, 2).await, "failed");
    // Nobody got it twice.
    assert_eq!(rig.office.accepted_count(), 1);
}

#[tokio::test]
async fn what_was_refused_for_now_is_tried_again_in_time() {
    let rig = Rig::new().await;
    let fault = Fault::smtp(SmtpPhase::FinalDot, SmtpAction::reply(451, "4.3.0", "not now"));
    rig.office.inject(fault.times(2));
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let row = rig.deferred(&entry).await;
    assert_eq!(row.attempts, 1);
    let wait = row.due.saturating_since(SysTime::from_millis(1_700_000_000_000)).as_secs();
    assert!((22..=30).contains(&wait), "{wait}");
    rig.wait_for_due(&row);
    let row = rig.row_when(&entry, |row| row.attempts == 2).await;
    rig.wait_for_due(&row);
    let row = rig.hears_end_of(&entry).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 3));
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: TN-8
#[tokio::test]
async fn nothing_starts_behind_a_closed_gate() {
    let rig = Rig::new().await;
    let one = rig.send(1, &["bob@x.org"]).await;
    assert_eq!(rig.row(&one).await.unwrap().attempts, 0);
    assert_eq!(rig.office.counters(postoffice::Protocol::Smtp).connections, 0);
    rig.open();
    rig.hears_end_of(&one).await;

    // The one on the wire is completed; the next waits (TN-9).
    let hang = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, postoffice::Action::Hang).once());
    let two = rig.send(2, &["bob@x.org"]).await;
    hang.reached(PATIENCE).await.unwrap();
    rig.outbound.set_gate(Gate::Closed);
    let three = rig.send(3, &["bob@x.org"]).await;
    hang.release();
    rig.hears_end_of(&two).await;
    assert_eq!(rig.row(&three).await.unwrap().attempts, 0);
    assert_eq!(rig.office.accepted_count(), 2);
    rig.open();
    rig.hears_end_of(&three).await;
}

/// Proves: ST-4
#[tokio::test]
async fn activity_is_told_while_a_message_moves() {
    let rig = Rig::new().await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    rig.hears_end_of(&entry).await;
    rig.hears("the end of activity", |told| told.contains(&Told::Activity(Activity::Idle))).await;
    let activity: Vec<Told> =
        rig.told().into_iter().filter(|told| matches!(told, Told::Activity(_))).collect();
    assert_eq!(activity, [Told::Activity(Activity::Moving), Told::Activity(Activity::Idle)]);
}

/// Whoever waits for the end of activity before he logs off has heard of every end by then.
///
/// Proves: ST-4, TN-9
#[tokio::test]
async fn activity_ends_after_what_moved_is_recorded_and_told() {
    let rig = Rig::new().await;
    rig.open();
    let idle = Told::Activity(Activity::Idle);
    for number in 0..20 {
        let entry = rig.send(number, &["bob@x.org"]).await;
        rig.hears("the end of activity", |told| {
            told.iter().filter(|told| **told == idle).count() > usize::from(number)
        })
        .await;
        let ended = Told::SentDeferred(entry);
        assert!(rig.told().contains(&ended), "{number}: {:?}", rig.told());
    }
}

#[tokio::test]
async fn connections_are_reused_and_bounded() {
    let rig = Rig::new().await;
    for number in 0..60 {
        rig.send(number, &["bob@x.org"]).await;
    }
    rig.open();
    for number in 0..60 {
        rig.hears_end_of(&entry(number)).await;
    }
    assert_eq!(rig.office.accepted_count(), 60);
    let connections = rig.office.counters(postoffice::Protocol::Smtp).connections;
    assert!((1..=2).contains(&connections), "{connections}");
    // One that comes soon after uses a connection that is still there.
    let next = rig.send(100, &["bob@x.org"]).await;
    rig.hears_end_of(&next).await;
    assert_eq!(rig.office.counters(postoffice::Protocol::Smtp).connections, connections);
}

#[tokio::test]
async fn a_connection_the_server_closed_meanwhile_costs_nothing() {
    let rig = Rig::shaped(Shape { connections: 1, ..Shape::default() }, office().await).await;
    rig.open();
    let one = rig.send(1, &["bob@x.org"]).await;
    rig.hears_end_of(&one).await;
    rig.office.disconnect_all();
    let two = rig.send(2, &["bob@x.org"]).await;
    let row = rig.hears_end_of(&two).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
    assert!(!rig.told().iter().any(|told| matches!(told, Told::Trouble(_))));
}

/// Proves: TN-12
#[tokio::test]
async fn a_flush_tries_everything_once_and_ends() {
    let rig = Rig::new().await;
    rig.office
        .inject(Fault::smtp(SmtpPhase::Rcpt, SmtpAction::reply(450, "4.2.1", "later")).times(2));
    rig.open();
    let (one, two) = (rig.send(1, &["bob@x.org"]).await, rig.send(2, &["bob@x.org"]).await);
    rig.deferred(&one).await;
    rig.deferred(&two).await;
    let stubborn = rig.send(3, &["450-4.2.0@x.org"]).await;
    rig.deferred(&stubborn).await;
    rig.outbound.begin_flush();
    rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
    assert_eq!(rig.row(&one).await.unwrap().state, QueueState::Done);
    assert_eq!(rig.row(&two).await.unwrap().state, QueueState::Done);
    assert_eq!(rig.row(&stubborn).await.unwrap().attempts, 2);

    // What comes during the flush ends it again.
    rig.forget();
    let late = rig.send(4, &["bob@x.org"]).await;
    rig.hears_end_of(&late).await;
    rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
    rig.outbound.end_flush();
    let row = rig.row(&stubborn).await.unwrap();
    rig.wait_for_due(&row);
    rig.row_when(&stubborn, |row| row.attempts == 3).await;
}

/// Has the dispatcher look again and again.
fn looks(rig: &Rig) -> tokio::task::JoinHandle<()> {
    let shared = std::sync::Arc::clone(&rig.outbound.shared);
    tokio::spawn(async move {
        for _ in 0..100 {
            shared.wake.notify_one();
            tokio::task::yield_now().await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_counts_no_look_from_before_it_began() {
    let rig = Rig::new().await;
    rig.open();
    let entry = rig.send(1, &["450-4.2.1@example.org"]).await;
    rig.deferred(&entry).await;
    for attempts in 2..150 {
        rig.forget();
        // Looks that find nothing due, one of them hopefully half done when the flush begins.
        let looks = looks(&rig);
        tokio::task::yield_now().await;
        rig.outbound.begin_flush();
        rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
        assert_eq!(rig.row(&entry).await.unwrap().attempts, attempts, "it was not tried");
        rig.outbound.end_flush();
        looks.await.unwrap();
    }
}

/// Proves: TN-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_ends_behind_the_ends_of_its_messages() {
    let rig = Rig::new().await;
    for round in 0..60 {
        rig.outbound.set_gate(Gate::Closed);
        for number in 0..4 {
            rig.send(round * 4 + number, &["ann@example.org"]).await;
        }
        rig.forget();
        rig.outbound.begin_flush();
        rig.open();
        let looks = tokio::spawn({
            let shared = std::sync::Arc::clone(&rig.outbound.shared);
            async move {
                while !shared
                    .spool
                    .done_page(shared.account, None, 4)
                    .await
                    .is_ok_and(|page| page.len() >= 4)
                {
                    shared.wake.notify_one();
                    tokio::task::yield_now().await;
                }
            }
        });
        rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
        looks.await.unwrap();
        let told = rig.told();
        let drained = told.iter().position(|told| *told == Told::FlushDrained).unwrap();
        let ends = told[..drained].iter().filter(|told| matches!(told, Told::SentDeferred(_)));
        assert_eq!(ends.count(), 4, "round {round}: {told:?}");
        rig.outbound.end_flush();
    }
}

/// A straggler that was tried between the end of a flush and its going on has had its try.
///
/// Proves: TN-12
#[tokio::test]
async fn a_flush_that_goes_on_tries_nothing_twice() {
    let rig = Rig::new().await;
    rig.outbound.begin_flush();
    rig.open();
    rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
    assert!(rig.outbound.end_drained_flush());
    let entry = rig.send(1, &["450-4.2.1@example.org"]).await;
    assert_eq!(rig.deferred(&entry).await.attempts, 1);
    rig.outbound.see_flush_through().await;
    assert_eq!(rig.row(&entry).await.unwrap().attempts, 1);
}

#[tokio::test]
async fn a_flush_of_nothing_ends_at_once() {
    let rig = Rig::new().await;
    rig.outbound.begin_flush();
    rig.open();
    rig.hears("the end of the flush", |told| told.contains(&Told::FlushDrained)).await;
}

#[tokio::test]
async fn a_server_without_8bitmime_gets_seven_bits() {
    let office = office().await;
    office.withhold(SmtpExtension::EightBitMime);
    let rig = Rig::shaped(Shape::default(), office).await;
    rig.open();
    let entry = entry(1);
    let content = "From: ann@example.org\r\nSubject: eight\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
        gr\u{fc}n\r\n";
    rig.submit(Note::to(&entry, &["bob@x.org"]).content(content)).await.unwrap();
    rig.hears_end_of(&entry).await;
    let text = rig.office.accepted()[0].body.text();
    assert!(text.is_ascii() && text.contains("gr=C3=BCn"), "{text}");

    rig.office.offer(SmtpExtension::EightBitMime);
    rig.office.disconnect_all();
    let second = super::rig::entry(2);
    rig.submit(Note::to(&second, &["bob@x.org"]).content(content)).await.unwrap();
    rig.hears_end_of(&second).await;
    let text = rig.office.accepted()[1].body.text();
    assert!(text.contains("gr\u{fc}n"), "{text}");
    assert_eq!(rig.office.violations(), []);
}

#[tokio::test]
async fn a_body_the_spool_has_is_not_stored_again() {
    let rig = Rig::new().await;
    let content = "From: ann@example.org\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\
        Message-ID: <a@b>\r\nSubject: whole\r\n\r\ntext\r\n";
    let mut writer = rig.spool.new_body(None).await.unwrap();
    writer.write(content.as_bytes()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    let body = staged.id();
    let outbox = crate::spool::OutboxRecord {
        revision: 0,
        submitted: SysTime::EPOCH,
        state: crate::spool::OutboxState::Held,
        props: crate::mapi::PropList::new(),
        recipients: Vec::new(),
        object: None,
        content: Some(body),
        size: 0,
        trace: crate::spool::Trace::default(),
        reports: Vec::new(),
    };
    let put = Op::PutOutbox { entry: entry(1), record: Box::new(outbox), expect: Expect::Absent };
    rig.spool.commit(Batch::new().with(put).with_body(staged)).await.unwrap();
    rig.submit(Note::to(&entry(1), &["bob@x.org"]).content(content)).await.unwrap();
    let row = rig.row(&entry(1)).await.unwrap();
    assert_eq!(
        (row.body, row.subject.as_str(), row.message_id.as_str()),
        (body, "note x0001", "<a@b>")
    );
    rig.open();
    rig.hears_end_of(&entry(1)).await;
    assert_eq!(rig.office.accepted()[0].body.text(), content);
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_and_not_stored() {
    let rig = Rig::new().await;
    let nobody = rig.submit(Note::to(&entry(1), &[])).await.unwrap_err();
    assert_eq!(nobody.error.code(), MapiCode::NOT_ME);
    let nul = Note::to(&entry(2), &["bob@x.org"]).content("Subject: x\r\n\r\n\0");
    assert_eq!(rig.submit(nul).await.unwrap_err().error.code(), MapiCode::CORRUPT_DATA);
    let injected = Note::to(&entry(3), &["bob@x.org"]).with(tags::SUBJECT, "a\r\nBcc: eve@x.org");
    let error = rig.submit(injected).await.unwrap_err();
    assert_eq!(error.error.code(), MapiCode::INVALID_PARAMETER);
    assert!(rig.spool.queue_page(None, 10).await.unwrap().is_empty());
}

/// Proves: OB-19
#[tokio::test]
async fn a_message_past_its_expiry_is_reported_and_not_sent() {
    let rig = Rig::new().await;
    let expiry = SysTime::from_millis(1_700_000_000_000 + 60_000);
    let note = Note::to(&entry(1), &["bob@x.org"]).with(tags::EXPIRY_TIME, expiry);
    rig.submit(note).await.unwrap();
    rig.clock.advance(std::time::Duration::from_secs(61));
    rig.open();
    let row = rig.hears_end_of(&entry(1)).await;
    assert_eq!(row.state, QueueState::Done);
    assert_eq!(rig.recipient(&entry(1), 0).await, "failed");
    assert_eq!(rig.office.accepted_count(), 0);
}

/// Proves: OB-19
#[tokio::test]
async fn expiry_comes_at_its_time_behind_a_closed_gate_and_between_attempts() {
    let rig = Rig::new().await;
    let expiry = SysTime::from_millis(1_700_000_000_000 + 20_000);
    let brief = |number| Note::to(&entry(number), &["bob@x.org"]).with(tags::EXPIRY_TIME, expiry);
    // One waits for the gate, one for its next attempt, one is on hold.
    rig.submit(brief(1)).await.unwrap();
    rig.submit(brief(2)).await.unwrap();
    rig.outbound.hold(&entry(2)).await.unwrap();
    rig.clock.advance(std::time::Duration::from_secs(21));
    let row = rig.hears_end_of(&entry(1)).await;
    let RecipientState::Failed { reply, attempt: 0, .. } = &row.envelope.recipients[0].state else {
        panic!("{row:?}");
    };
    assert_eq!(reply.enhanced, "5.4.7");
    assert!(reply.text.starts_with("not wanted any more after 2023-11-14T22:13:40Z"), "{reply}");
    assert_eq!(rig.row(&entry(2)).await.unwrap().state, QueueState::Held);
    rig.outbound.release(&entry(2)).await.unwrap();
    assert_eq!(rig.hears_end_of(&entry(2)).await.state, QueueState::Done);

    let later = postoffice::SmtpAction::reply(450, "4.2.1", "busy");
    rig.office.inject(postoffice::Fault::smtp(postoffice::SmtpPhase::Rcpt, later));
    rig.open();
    let expiry = rig.clock.now().saturating_add(std::time::Duration::from_secs(10));
    let note = Note::to(&entry(3), &["bob@x.org"]).with(tags::EXPIRY_TIME, expiry);
    rig.submit(note).await.unwrap();
    let row = rig.deferred(&entry(3)).await;
    assert_eq!(row.due, expiry, "no attempt comes in between");
    rig.wait_for_due(&row);
    let row = rig.hears_end_of(&entry(3)).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
    assert_eq!(rig.office.accepted_count(), 0);
}

#[tokio::test]
async fn many_recipients_go_in_as_many_transactions_as_the_server_wants() {
    let office = postoffice::PostOffice::builder()
        .user("ann", "secret")
        .catch_all("ann")
        .max_recipients(7)
        .start()
        .await
        .unwrap();
    let rig = Rig::shaped(Shape::default(), office).await;
    rig.open();
    let addresses: Vec<String> = (0..20).map(|n| format!("r{n}@x.org")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let entry = rig.send(1, &addresses).await;
    let row = rig.hears_end_of(&entry).await;
    assert_eq!((row.state, row.attempts), (QueueState::Done, 1));
    let mut got: Vec<String> = rig
        .office
        .accepted()
        .iter()
        .flat_map(|accepted| {
            accepted.recipients().into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    got.sort();
    let mut wanted: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
    wanted.sort();
    assert_eq!(got, wanted);
    assert_eq!(rig.office.accepted_count(), 3);
}

/// Not a test of speed: prints how fast a backlog is drained, and fails only when something waits
/// that should not.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_drained_without_waiting() {
    let rig = Rig::shaped(Shape { connections: 4, ..Shape::default() }, office().await).await;
    let notes: Vec<_> = (0..1000).map(|number| rig.send(number, &["bob@x.org"])).collect();
    futures_util::future::join_all(notes).await;
    let start = std::time::Instant::now();
    rig.open();
    rig.office.wait_accepted(1000, PATIENCE).await.unwrap();
    println!("1000 messages drained in {:?}", start.elapsed());
    rig.hears("every end", |told| {
        told.iter().filter(|told| matches!(told, Told::SentDeferred(_))).count() == 1000
    })
    .await;
    println!("... and recorded in {:?}", start.elapsed());
    assert!(rig.office.counters(postoffice::Protocol::Smtp).connections <= 4);
}

/// A token that has run out by the time of the final dot costs one more transaction, no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_gone_at_the_final_dot_is_renewed_and_the_message_sent_at_once() {
    let office = PostOffice::builder().token("ann", "old").catch_all("ann").start().await.unwrap();
    let tokens = RunningOut::new(2);
    let credentials = tokens.credentials();
    let smtp: Arc<dyn Fn(&mut SmtpSettings) + Send + Sync> =
        Arc::new(move |smtp| smtp.credentials = Some(credentials.clone()));
    let shape = Shape { tls: TlsMode::Implicit, connections: 1, smtp, ..Shape::default() };
    let rig = Rig::shaped(shape, office).await;
    let refusal = SmtpAction::reply(530, "5.7.0", "Authentication required");
    let fault = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, refusal).once());
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    fault.reached(PATIENCE).await.unwrap();
    rig.office.set_token("ann", Some("new"));
    tokio::time::timeout(PATIENCE, tokens.asked()).await.unwrap();
    let row = rig.hears_end_of(&entry).await;
    assert_eq!(rig.office.accepted_count(), 1);
    assert_eq!(row.attempts, 1, "the same attempt");
    let began = rig.office.transcript_text().matches("MAIL FROM").count();
    assert_eq!(began, 2, "one was refused, one accepted");
}
