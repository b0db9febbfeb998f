//! Points a to e and l to n through the traits alone: SubmitMessage, EndMessage, the queue.

use std::sync::Arc;
use std::thread;

use postrider::mapi::{EndMessageFlags, MapiCode, MessageRef, SubmitMessageFlags, TransportNotify};
use postrider::spi::Message;
use postrider::spool::{HistoryEnd, QueueState};

use crate::foreign_host::wait;
use crate::foreign_message::{Hold, Holds, HostMessage};
use crate::foreign_rig::{defer, finish, notify, submit};
use crate::held_spool::Place;
use crate::points::{LARGE, Point, TO, text};
use crate::stage::{NEW, Stage, at_once};

const BEGIN: TransportNotify = TransportNotify::BEGIN_OUTBOUND;
const DONT_RESEND: EndMessageFlags = EndMessageFlags::DONT_RESEND;
const DEFERRED: SubmitMessageFlags = SubmitMessageFlags::BEGIN_DEFERRED;

/// SubmitMessage on a thread of its own; what it answers.
fn submitting(
    stage: &Stage,
    flags: SubmitMessageFlags,
    message: &Arc<HostMessage>,
) -> thread::JoinHandle<MapiCode> {
    let (logon, message) = (Arc::clone(&stage.logon), Arc::clone(message));
    thread::spawn(move || match submit(&logon, flags, &message) {
        Ok(()) => MapiCode::S_OK,
        Err(refused) => refused.error.code(),
    })
}

/// What a call on another thread answers, which must not wait for anybody any more.
fn answer(what: &str, call: thread::JoinHandle<MapiCode>) -> MapiCode {
    at_once(what, || call.join().unwrap())
}

/// Point a: the host has called, and nothing has run yet.
///
/// Proves: TN-14, TN-15, OB-7
#[test]
fn before_it_has_a_reference_the_value_0_cancels_it() {
    let stage = Stage::new(BEGIN);
    let message = Point::FinalDot.message(1);
    let lent = || Arc::clone(&message) as Arc<dyn Message>;

    // The value for the other direction is not meant for it.
    let call = stage.logon.submit_message(NEW, lent(), &message.cell);
    assert_eq!(message.cell.reference(), MessageRef::OUTBOUND_UNSET);
    assert_eq!(stage.cancel(MessageRef::INBOUND_UNSET), MapiCode::S_OK);
    assert_eq!(stage.cancel(MessageRef::OUTBOUND_UNSET), MapiCode::S_OK);
    let refused = wait("SubmitMessage", call).unwrap_err();
    assert_eq!(refused.error.code(), MapiCode::CANCEL);
    assert_eq!(message.state().reference_at_touch, None, "the message was touched");
    assert_eq!(stage.queued(&message.entry()), None);
    assert_eq!(stage.history(&message.entry()), None);

    // Nothing was taken, so it may be submitted; with the call gone the value names nobody.
    assert_eq!(stage.cancel(MessageRef::OUTBOUND_UNSET), MapiCode::S_OK);
    defer(&stage.logon, &message);
    finish(&stage.host, &stage.logon, &message);
    assert_eq!(stage.rig.office.accepted_count(), 1);
    let call = stage.logon.submit_message(NEW, lent(), &message.cell);
    drop(call);
    stage.assert_next_goes(2);
}

/// Point b: the host's store does not give the text of a large message.
///
/// Proves: TN-2, TN-14, OB-7
#[test]
fn while_it_is_converted_it_can_be_cancelled() {
    for at in [0, 30, 1_000_000] {
        let stage = Stage::new(BEGIN);
        let hold = Hold::default();
        let holds = Holds { content: Some((at, hold.clone())), ..Holds::default() };
        let message = HostMessage::raw_held(1, &TO, text(LARGE), holds);
        let call = submitting(&stage, NEW, &message);
        wait("the transport to read the text", hold.reached.cancelled());
        assert_eq!(stage.abort(&message.entry()), MapiCode::NOT_FOUND, "nothing is deferred");
        assert!(!call.is_finished());
        assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
        assert_eq!(answer("SubmitMessage", call), MapiCode::CANCEL);
        assert_eq!(stage.end(&message), Err(MapiCode::INVALID_PARAMETER), "no EndMessage follows");
        assert_eq!(stage.queued(&message.entry()), None);
        assert_eq!(stage.history(&message.entry()), None);
        stage.assert_next_goes(2);
        assert_eq!(stage.connections(), 1, "nobody has connected for it");
        // The host may still send it, as nothing was taken.
        hold.go.cancel();
        defer(&stage.logon, &message);
        finish(&stage.host, &stage.logon, &message);
        assert_eq!(stage.rig.office.accepted_count(), 2);
    }
}

/// Point b, when the row of the queue is on its way to the disk.
///
/// Proves: TN-2, TN-14, OB-7
#[test]
fn while_it_is_stored_it_can_be_cancelled() {
    let stage = Stage::new(BEGIN);
    let hold = stage.held.hold(Place::Accept);
    let message = Point::FinalDot.message(1);
    let call = submitting(&stage, NEW, &message);
    wait("the transport to store it", hold.reached.cancelled());
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    hold.go.cancel();
    assert_eq!(answer("SubmitMessage", call), MapiCode::CANCEL);
    assert_eq!(stage.end(&message), Err(MapiCode::INVALID_PARAMETER));
    stage.assert_cancelled(&message);
    stage.assert_next_goes(2);
    assert_eq!(stage.rig.office.accepted_count(), 1);
}

/// An entry id the queue does not know yet is unknown, and asking for it does not harm the message
/// that is about to have it: it goes at once and not by its retry time.
///
/// Proves: TN-17, TN-19
#[test]
fn an_abort_that_comes_too_early_leaves_the_message_alone() {
    let stage = Stage::new(BEGIN);
    let hold = stage.held.hold(Place::Accept);
    let message = Point::FinalDot.message(1);
    let call = submitting(&stage, NEW, &message);
    wait("the transport to store it", hold.reached.cancelled());
    assert_eq!(stage.abort(&message.entry()), MapiCode::NOT_FOUND);
    hold.go.cancel();
    assert_eq!(answer("SubmitMessage", call), MapiCode::S_OK);
    assert_eq!(stage.end(&message), Ok(DONT_RESEND));
    finish(&stage.host, &stage.logon, &message);
    let history = stage.history(&message.entry()).unwrap();
    assert_eq!((history.end, history.attempts), (HistoryEnd::Finished, 1));
}

/// Points c and d: from the cancel on nothing more of it is sent, however long the host takes to
/// call EndMessage.
///
/// Proves: TN-14, OB-10
#[test]
fn between_submit_message_and_end_message_it_is_cancelled_at_once() {
    let stage = Stage::new(TransportNotify::empty());
    let message = Point::FinalDot.message(1);
    submit(&stage.logon, NEW, &message).unwrap();
    assert!(stage.queued(&message.entry()).is_some());
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    stage.assert_ended(&message.entry(), HistoryEnd::Cancelled);
    notify(&stage.logon, BEGIN).unwrap();
    stage.assert_next_goes(2);
    assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
    assert_eq!(stage.end(&message), Err(MapiCode::INVALID_PARAMETER), "the reference is dead");
    stage.assert_cancelled(&message);
    assert_eq!(stage.rig.office.accepted_count(), 1, "only the other one");
}

/// Points c and d by the entry id: who calls EndMessage after that hears of it.
///
/// Proves: TN-17, OB-10
#[test]
fn aborted_before_end_message_it_is_not_deferred_any_more() {
    let stage = Stage::new(TransportNotify::empty());
    let message = Point::FinalDot.message(1);
    submit(&stage.logon, NEW, &message).unwrap();
    assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
    stage.assert_ended(&message.entry(), HistoryEnd::Cancelled);
    assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
    notify(&stage.logon, BEGIN).unwrap();
    stage.assert_cancelled(&message);
    stage.assert_next_goes(2);
}

/// Point d: called and not begun it is cancelled; begun it is over in one step.
///
/// Proves: TN-14, TN-16
#[test]
fn an_end_message_that_has_not_begun_can_be_cancelled() {
    let stage = Stage::new(TransportNotify::empty());
    let message = Point::FinalDot.message(1);
    submit(&stage.logon, NEW, &message).unwrap();
    let reference = message.cell.reference();
    let call = stage.logon.end_message(reference);
    assert_eq!(stage.cancel(reference), MapiCode::S_OK);
    let ended = at_once("EndMessage", || wait("EndMessage", call));
    assert_eq!(ended.unwrap_err().code(), MapiCode::CANCEL);
    stage.assert_cancelled(&message);

    let message = Point::FinalDot.message(3);
    submit(&stage.logon, NEW, &message).unwrap();
    assert_eq!(stage.end(&message), Ok(DONT_RESEND));
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    notify(&stage.logon, BEGIN).unwrap();
    finish(&stage.host, &stage.logon, &message);
    assert_eq!(stage.rig.office.accepted_count(), 1);
}

/// Point e: with the direction closed, put off by the server, and behind another.
///
/// Proves: TN-16, TN-17
#[test]
fn while_it_is_queued_it_can_be_cancelled() {
    // The direction is closed.
    let stage = Stage::new(TransportNotify::empty());
    let message = Point::FinalDot.message(1);
    defer(&stage.logon, &message);
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK, "its reference is dead");
    assert!(stage.queued(&message.entry()).is_some(), "and names nothing");
    assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
    notify(&stage.logon, BEGIN).unwrap();
    stage.assert_cancelled(&message);
    stage.assert_next_goes(2);
    assert_eq!(stage.rig.office.accepted_count(), 1);

    // The server has put it off.
    let later = postoffice::SmtpAction::reply(450, "4.2.1", "later");
    let later = postoffice::Fault::smtp(postoffice::SmtpPhase::Rcpt, later);
    let later = stage.rig.office.inject(later);
    let message = HostMessage::outgoing(3, &["bob@example.org"]);
    defer(&stage.logon, &message);
    let put_off = || {
        let row = stage.queued(&message.entry())?;
        (row.state == QueueState::Due && row.attempts == 1).then_some(())
    };
    let limit = crate::foreign_host::PATIENCE;
    realservers::wait::until("it is put off", limit, put_off).unwrap();
    assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
    later.remove();
    stage.assert_cancelled(&message);

    // It is claimed and waits for a connection behind others that hang.
    let stage = Stage::with(BEGIN, |rig| {
        rig.office.inject(Point::Greeting.fault().times(u32::MAX));
    });
    let waiting: Vec<_> = (1..=30).map(|number| Point::FinalDot.message(number)).collect();
    for message in &waiting {
        defer(&stage.logon, message);
    }
    for message in waiting.iter().rev() {
        assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
    }
    stage.await_no_connection();
    stage.rig.office.remove_faults();
    for message in &waiting {
        stage.assert_ended(&message.entry(), HistoryEnd::Cancelled);
    }
    stage.assert_next_goes(99);
    assert_eq!(stage.rig.office.accepted_count(), 1);
}

/// Point l: the server has the message, the disk does not know.
///
/// Proves: TN-14, TN-17
#[test]
fn once_the_server_has_answered_the_outcome_stands_before_it_is_on_disk() {
    let stage = Stage::new(BEGIN);
    let hold = stage.held.hold(Place::Outcome);
    let message = Point::FinalDot.message(1);
    submit(&stage.logon, NEW, &message).unwrap();
    wait("the outcome", hold.reached.cancelled());
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    assert_eq!(stage.end(&message), Ok(DONT_RESEND));
    assert_eq!(stage.abort(&message.entry()), MapiCode::UNABLE_TO_ABORT);
    assert_eq!(stage.host.seen().ended(&message.entry()), 0, "the host was told too early");
    hold.go.cancel();

    // On disk, and told, and not yet taken up by the host.
    stage.host.wait_ended(&message.entry());
    assert_eq!(stage.abort(&message.entry()), MapiCode::UNABLE_TO_ABORT);
    finish(&stage.host, &stage.logon, &message);
    stage.assert_ended(&message.entry(), HistoryEnd::Finished);
    assert_eq!(message.responsibility(), [true; 3]);
    assert_eq!(stage.rig.office.accepted_count(), 1);
    stage.assert_next_goes(2);
}

/// Points m and n: the host hears of the end. What is over cannot be cancelled.
///
/// Proves: TN-14, TN-16, TN-17, OB-11
#[test]
fn while_and_after_the_host_hears_of_the_end_the_outcome_stands() {
    let stage = Stage::new(BEGIN);
    let sent = Point::FinalDot.message(1);
    let entry = sent.entry();
    defer(&stage.logon, &sent);
    stage.host.wait_ended(&entry);

    // SubmitMessage(BEGIN_DEFERRED), with the host's store standing still.
    let hold = Hold::default();
    let holds = Holds { recipients: Some(hold.clone()), ..Holds::default() };
    let message = HostMessage::raw_held(1, &TO, text(100), holds);
    let call = submitting(&stage, DEFERRED, &message);
    wait("the transport to read the recipients", hold.reached.cancelled());
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT);
    hold.go.cancel();
    assert_eq!(answer("SubmitMessage", call), MapiCode::S_OK);
    assert_eq!(message.responsibility(), [true; 3]);

    // Between it and EndMessage.
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT);

    // During EndMessage, with the disk standing still.
    let hold = stage.held.hold(Place::Settle);
    let ending = {
        let (logon, message) = (Arc::clone(&stage.logon), Arc::clone(&message));
        thread::spawn(move || wait("EndMessage", logon.end_message(message.cell.reference())))
    };
    wait("the transport to settle", hold.reached.cancelled());
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT);
    hold.go.cancel();
    assert_eq!(ending.join().unwrap().unwrap(), EndMessageFlags::empty());

    // Gone.
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT);
    stage.assert_ended(&entry, HistoryEnd::Finished);
    assert_eq!(stage.rig.office.accepted_count(), 1);
    stage.assert_next_goes(2);
}

/// A message with a failed recipient that is told of while another still waits can be cancelled:
/// the failure stays, the rest is never sent.
///
/// Proves: TN-14, OB-11
#[test]
fn a_message_told_of_by_halves_is_cancelled_by_the_reference_of_that_call() {
    let stage = Stage::new(BEGIN);
    let later = postoffice::SmtpAction::reply(451, "4.3.0", "later");
    let later = postoffice::Fault::smtp(postoffice::SmtpPhase::Rcpt, later).matching("bob@");
    let later = stage.rig.office.inject(later);
    let message = HostMessage::outgoing(1, &["bob@example.org", "550-5.1.1@example.org"]);
    defer(&stage.logon, &message);
    stage.host.wait_ended(&message.entry());
    submit(&stage.logon, DEFERRED, &message).unwrap();
    assert_eq!(message.responsibility(), [false, true]);
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    stage.assert_ended(&message.entry(), HistoryEnd::Cancelled);
    assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
    later.remove();
    stage.assert_next_goes(2);
    assert_eq!(stage.rig.office.accepted_count(), 1, "only the other one");
    assert_eq!(stage.host.seen().reports.len(), 1);
}
