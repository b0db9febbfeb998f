//! Points f to k through the traits alone: the server stands still somewhere in the dialogue.

use postoffice::{Listener, Protocol, SmtpExtension};
use postrider::mapi::{EndMessageFlags, MapiCode, MessageRef, StatusCode, TransportNotify};
use postrider::spi::NotifyData;
use postrider::spool::{HistoryEnd, RecipientState};

use crate::foreign_host::{PATIENCE, wait};
use crate::foreign_message::{Holds, HostMessage};
use crate::foreign_rig::{code, finish, submit};
use crate::held_spool::Place;
use crate::points::{Fate, LARGE, Point, TO, text};
use crate::sockets::await_closed;
use crate::stage::{NEW, Stage};

const BEGIN: TransportNotify = TransportNotify::BEGIN_OUTBOUND;
const DONT_RESEND: EndMessageFlags = EndMessageFlags::DONT_RESEND;

/// How the host names the message it cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// By its reference: SubmitMessage has returned, EndMessage was not called.
    Reference,
    /// By its entry id: EndMessage has returned, the message is deferred.
    EntryId,
}

fn cancel_at(point: Point, name: Name) {
    let mut fault = None;
    let stage = Stage::with(BEGIN, |rig| {
        if !point.is_pipelined() {
            rig.office.withhold(SmtpExtension::Pipelining);
        }
        fault = Some(rig.office.inject(point.fault()));
    });
    let hang = fault.unwrap();
    let message = point.message(1);
    let entry = message.entry();
    submit(&stage.logon, NEW, &message).unwrap();
    let reference = message.cell.reference();
    if name == Name::EntryId {
        assert_eq!(stage.end(&message), Ok(DONT_RESEND));
    }
    stage.rig.serve(hang.reached(PATIENCE)).unwrap();

    // The server says nothing from here on.
    match (point.fate(), name) {
        (Fate::Cancelled, Name::Reference) => {
            assert_eq!(stage.cancel(reference), MapiCode::S_OK);
            stage.assert_ended(&entry, HistoryEnd::Cancelled);
            assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
        }
        (Fate::Cancelled, Name::EntryId) => {
            assert_eq!(stage.cancel(reference), MapiCode::S_OK, "the reference is dead");
            assert!(stage.queued(&entry).is_some(), "and names nothing any more");
            assert_eq!(stage.abort(&entry), MapiCode::S_OK);
            stage.assert_ended(&entry, HistoryEnd::Cancelled);
        }
        (Fate::Stands, Name::Reference) => {
            assert_eq!(stage.cancel(reference), MapiCode::S_OK);
            assert_eq!(stage.end(&message), Ok(DONT_RESEND), "the outcome stands");
        }
        (Fate::Stands, Name::EntryId) => {
            assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT);
        }
    }
    match point.fate() {
        Fate::Cancelled => {
            stage.host.wait_flag(StatusCode::OUTBOUND_ACTIVE, false);
            match point {
                // A server that does not read does not see either that we have gone.
                Point::AmidText => await_closed(stage.rig.office.port(Listener::Smtps)),
                _ => stage.await_no_connection(),
            }
            // Whatever it had not read yet, it reads now.
            hang.remove();
            stage.await_no_connection();
            assert_eq!(stage.rig.office.accepted_count(), 0);
            assert_eq!(stage.rig.office.counters(Protocol::Smtp).broken_off, point.broken_off());
            stage.assert_cancelled(&message);
            stage.assert_next_goes(2);
            assert_eq!(stage.connections(), 2, "the connection was used again");
            stage.assert_cancelled(&message);
        }
        Fate::Stands => {
            assert!(stage.queued(&entry).is_some());
            hang.remove();
            finish(&stage.host, &stage.logon, &message);
            assert_eq!(message.responsibility(), [true; 3]);
            stage.assert_ended(&entry, HistoryEnd::Finished);
            assert_eq!(stage.rig.office.accepted_count(), 1, "it was sent once");
            assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT, "it is sent");
            stage.assert_next_goes(2);
        }
    }
}

/// Proves: TN-2, TN-14, OB-10
#[test]
fn by_its_reference_it_can_be_cancelled_at_every_point_of_the_dialogue() {
    for point in Point::ALL {
        println!("{point:?}");
        cancel_at(point, Name::Reference);
    }
}

/// Proves: TN-2, TN-16, TN-17
#[test]
fn by_its_entry_id_it_can_be_cancelled_at_every_point_of_the_dialogue() {
    for point in Point::ALL {
        println!("{point:?}");
        cancel_at(point, Name::EntryId);
    }
}

/// Point j: everything but the piece with the final dot is out, and the server has read it.
///
/// Proves: TN-14, TN-17
#[test]
fn right_before_the_final_dot_the_server_gets_no_message() {
    for name in [Name::Reference, Name::EntryId] {
        let stage = Stage::new(BEGIN);
        let end = stage.held.hold(Place::EndOfBody);
        let message = HostMessage::raw_held(1, &TO, text(300_000), Holds::default());
        submit(&stage.logon, NEW, &message).unwrap();
        wait("the provider to come there", end.reached.cancelled());
        match name {
            Name::Reference => {
                assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
                assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
            }
            Name::EntryId => {
                assert_eq!(stage.end(&message), Ok(DONT_RESEND));
                assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
            }
        }
        stage.await_no_connection();
        assert_eq!(stage.rig.office.accepted_count(), 0);
        assert_eq!(stage.rig.office.counters(Protocol::Smtp).broken_off, 1);
        end.go.cancel();
        stage.assert_cancelled(&message);
        stage.assert_next_goes(2);
        assert_eq!(stage.connections(), 2);
    }
}

/// A message to more recipients than one transaction takes: those of the first have it, those of
/// the second do not, and the history knows which.
///
/// Proves: TN-14, TN-17
#[test]
fn between_two_transactions_what_was_sent_stays_sent() {
    for point in [Point::Envelope, Point::AmidText] {
        let stage = Stage::new(BEGIN);
        let phase_again = point.fault().nth(2);
        let hang = stage.rig.office.inject(phase_again);
        let to: Vec<String> = (0..150).map(|number| format!("n{number}@example.org")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let size = if point == Point::AmidText { LARGE } else { 100 };
        let message = HostMessage::raw_held(1, &to, text(size), Holds::default());
        submit(&stage.logon, NEW, &message).unwrap();
        assert_eq!(stage.end(&message), Ok(DONT_RESEND));
        stage.rig.serve(hang.reached(PATIENCE)).unwrap();
        assert_eq!(stage.rig.office.accepted_count(), 1, "the first transaction is over");
        assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
        hang.remove();
        stage.await_no_connection();
        assert_eq!(stage.rig.office.accepted_count(), 1);
        let history = stage.history(&message.entry()).unwrap();
        assert_eq!(history.end, HistoryEnd::Cancelled);
        let delivered = history
            .envelope
            .recipients
            .iter()
            .filter(|recipient| matches!(recipient.state, RecipientState::Delivered { .. }));
        assert_eq!(delivered.count(), 100);
        stage.assert_cancelled(&message);
        stage.assert_next_goes(2);
    }
}

/// Point k, and the reply never comes: the connection breaks, the message is in doubt, and a
/// cancel ends its resending.
///
/// Proves: TN-14, TN-17
#[test]
fn a_message_in_doubt_is_not_sent_again_once_it_is_cancelled() {
    let stage = Stage::new(BEGIN);
    let hang = stage.rig.office.inject(Point::FinalDot.fault());
    let message = Point::FinalDot.message(1);
    submit(&stage.logon, NEW, &message).unwrap();
    assert_eq!(stage.end(&message), Ok(DONT_RESEND));
    stage.rig.serve(hang.reached(PATIENCE)).unwrap();
    assert_eq!(stage.abort(&message.entry()), MapiCode::UNABLE_TO_ABORT);
    stage.rig.office.disconnect_all();
    let in_doubt = || {
        let row = stage.queued(&message.entry());
        let doubt = row
            .is_some_and(|row| matches!(row.state, postrider::spool::QueueState::InDoubt { .. }));
        doubt.then_some(())
    };
    realservers::wait::until("the message is in doubt", PATIENCE, in_doubt).unwrap();
    hang.remove();
    // It may have been delivered all the same.
    let entry = message.entry();
    assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT);
    stage.assert_ended(&entry, HistoryEnd::Cancelled);
    let told = || (stage.host.seen().ended(&entry) == 1).then_some(());
    realservers::wait::until("the host hears of its end", PATIENCE, told).unwrap();
    assert_eq!(submit(&stage.logon, NEW, &message).unwrap_err().error.code(), MapiCode::CANCEL);
    stage.assert_next_goes(2);
    assert_eq!(stage.rig.office.accepted_count(), 1, "only the other one");
}

/// After a crash the host hands over again what the account has already, and a cancel reaches into
/// that call. Its answer cannot say that the message was in doubt, so that the next one does, in
/// this life of the account and in those after it: the answer before may have reached nobody.
///
/// Proves: TN-14, TN-17
#[test]
fn a_doubt_that_no_answer_told_of_is_told_by_each_that_follows() {
    let stage = Stage::new(BEGIN);
    let lost = postoffice::Fault::smtp(postoffice::SmtpPhase::FinalDot, postoffice::Action::Drop);
    stage.rig.office.inject(lost.after_effect().once());
    let message = Point::FinalDot.message(1);
    let entry = message.entry();
    submit(&stage.logon, NEW, &message).unwrap();
    assert_eq!(stage.end(&message), Ok(DONT_RESEND));
    let in_doubt = || {
        let row = stage.queued(&entry);
        let doubt = row
            .is_some_and(|row| matches!(row.state, postrider::spool::QueueState::InDoubt { .. }));
        doubt.then_some(())
    };
    realservers::wait::until("the message is in doubt", PATIENCE, in_doubt).unwrap();
    submit(&stage.logon, NEW, &message).unwrap();
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    stage.assert_ended(&entry, HistoryEnd::Cancelled);
    assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
    assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT, "the server has it");
    assert_eq!(stage.abort(&entry), MapiCode::UNABLE_TO_ABORT, "it still has it");

    // A crash, as far as the account can tell: what it had in memory is gone.
    drop(stage.logon);
    let logon = stage.rig.log_on(&stage.rig.host());
    let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
    let abort =
        || wait("ABORT_DEFERRED", logon.transport_notify(flags, NotifyData::EntryId(&entry)));
    assert_eq!(code(abort()), MapiCode::UNABLE_TO_ABORT, "in the next life, too");
    let again = submit(&logon, NEW, &message).unwrap_err().error.code();
    assert_eq!(again, MapiCode::CANCEL, "and it is not sent again");
    assert_eq!(stage.rig.office.accepted_count(), 1);
}

/// A reference of a message that never was, or is gone, is no error and no other message's.
///
/// Proves: TN-16
#[test]
fn a_reference_nobody_knows_cancels_nothing() {
    let stage = Stage::new(BEGIN);
    let hang = stage.rig.office.inject(Point::AfterMail.fault());
    let message = Point::AfterMail.message(1);
    submit(&stage.logon, NEW, &message).unwrap();
    let own = message.cell.reference();
    assert_eq!(stage.end(&message), Ok(DONT_RESEND));
    stage.rig.serve(hang.reached(PATIENCE)).unwrap();
    for number in (0..100).chain([u32::MAX]) {
        assert_eq!(stage.cancel(MessageRef(number)), MapiCode::S_OK, "{number}, own {own}");
    }
    hang.remove();
    finish(&stage.host, &stage.logon, &message);
    assert_eq!(stage.rig.office.accepted_count(), 1);
}
