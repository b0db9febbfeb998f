//! SubmitMessage, EndMessage and what happens between them and after (spec section 5).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use postoffice::{Fault, SmtpAction, SmtpExtension, SmtpPhase};
use postrider::mapi::{
    EndMessageFlags, EntryId, FlushFlags, MapiCode, MessageRef, Recipient, RecipientType,
    StatusCode, SubmitMessageFlags, TransportNotify, tags,
};
use postrider::spi::{NotifyData, ReportKind, XpLogon};

use crate::foreign_host::wait;
use crate::foreign_message::{Hold, HostMessage};
use crate::foreign_rig::{BEGIN, Rig, code, defer, finish, notify, send, submit};

const NEW: SubmitMessageFlags = SubmitMessageFlags::empty();

fn to(row: u32, address: &str) -> Recipient {
    Recipient::smtp(row, RecipientType::To, address)
}

fn typed(row: u32, kind: &str, address: &str) -> Recipient {
    Recipient { addr_type: kind.to_owned(), ..to(row, address) }
}

fn end(logon: &Arc<dyn XpLogon>, reference: MessageRef) -> MapiCode {
    code(wait("EndMessage", logon.end_message(reference)))
}

fn cancel(logon: &Arc<dyn XpLogon>, reference: MessageRef) -> MapiCode {
    let flags = TransportNotify::CANCEL_MESSAGE;
    let data = NotifyData::Reference(reference);
    code(wait("TransportNotify", logon.transport_notify(flags, data)))
}

fn abort(logon: &Arc<dyn XpLogon>, entry: &EntryId) -> MapiCode {
    let flags = TransportNotify::ABORT_DEFERRED | TransportNotify::CANCEL_MESSAGE;
    let data = NotifyData::EntryId(entry);
    code(wait("TransportNotify", logon.transport_notify(flags, data)))
}

/// Proves: OB-1, OB-2, OB-4, OB-10, OB-11, OB-13
#[test]
fn a_message_goes_the_whole_way() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let message = HostMessage::outgoing(1, &["bob@example.org", "eve@example.org"]);

    submit(&logon, NEW, &message).unwrap();
    let first = message.cell.reference();
    assert!(first >= MessageRef::FIRST, "{first}");
    assert_eq!(message.state().reference_at_touch, Some(first), "set before the first touch");
    let flags = wait("EndMessage", logon.end_message(first)).unwrap();
    assert_eq!(flags, EndMessageFlags::DONT_RESEND);
    assert_eq!(message.responsibility(), [false, false], "nothing is conclusive yet");
    assert_eq!(end(&logon, first), MapiCode::INVALID_PARAMETER, "the reference is dead");
    let props = message.state().data.props.clone();
    assert_eq!(props.text(tags::SENDER_EMAIL_ADDRESS), Some("ann@example.org"));
    assert_eq!(props.text(tags::SENDER_NAME), Some("A Name"));
    assert_eq!(props.text(tags::SENT_REPRESENTING_EMAIL_ADDRESS), Some("ann@example.org"));
    assert!(props.time(tags::PROVIDER_SUBMIT_TIME).is_some());

    host.wait_ended(&message.entry());
    submit(&logon, SubmitMessageFlags::BEGIN_DEFERRED, &message).unwrap();
    assert_eq!(message.responsibility(), [true, true]);
    let second = message.cell.reference();
    assert_ne!(second, first);
    assert_eq!(end(&logon, second), MapiCode::S_OK);
    assert_eq!(end(&logon, second), MapiCode::INVALID_PARAMETER);
    assert_eq!(rig.office.accepted_count(), 1);
    assert!(host.seen().reports.is_empty(), "nobody asked for a report");
    assert!(rig.office.violations().is_empty());
}

/// Bodies of this size lie in files, and files are read by threads of a runtime: not the host's.
/// Proves: OB-6
#[test]
fn a_large_message_is_sent_as_it_is() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let head = "From: ann@example.org\r\nTo: bob@example.org\r\nSubject: big\r\n\r\n";
    let bytes = [head.as_bytes(), &b"All work and no play.\r\n".repeat(100_000)].concat();
    let message = HostMessage::raw(1, "bob@example.org", bytes.clone());
    defer(&logon, &message);
    finish(&host, &logon, &message);
    let accepted = rig.office.accepted();
    let sent: Vec<&[u8]> =
        accepted.iter().filter_map(|one| one.bytes()).map(|sent| &sent[..]).collect();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].ends_with(&bytes[head.len()..]), "the text is another one");
}

/// Proves: OB-2, OB-10, TN-19
#[test]
fn references_are_unique_among_messages_open_at_the_same_time() {
    const THREADS: u8 = 8;
    const EACH: u8 = 6;
    let rig = Rig::new();
    let logon = rig.log_on(&rig.host());
    let references: Vec<MessageRef> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let logon = &logon;
                scope.spawn(move || {
                    let numbers = (1..=EACH).map(|number| thread * EACH + number);
                    let submitted = numbers.map(|number| {
                        let message = HostMessage::outgoing(number, &["bob@example.org"]);
                        submit(logon, NEW, &message).unwrap();
                        message.cell.reference()
                    });
                    submitted.collect::<Vec<MessageRef>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let unique: BTreeSet<MessageRef> = references.iter().copied().collect();
    assert_eq!(unique.len(), usize::from(THREADS * EACH));
    assert!(unique.iter().all(|reference| *reference >= MessageRef::FIRST), "never 0 or 1");
    for reference in &references {
        assert_eq!(end(&logon, *reference), MapiCode::S_OK);
        assert_eq!(end(&logon, *reference), MapiCode::INVALID_PARAMETER, "dead afterwards");
    }
}

/// Proves: OB-3, OB-7, AT-2
#[test]
fn recipients_of_others_are_left_alone() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let mut taken = to(1, "taken@example.org");
    taken.responsibility = true;
    for (number, rows) in
        [(1, vec![typed(0, "LOG", "audit")]), (2, vec![typed(0, "FAX", "555"), taken.clone()])]
    {
        let message = HostMessage::outgoing_with(number, rows);
        let refused = submit(&logon, NEW, &message).unwrap_err();
        assert_eq!(refused.error.code(), MapiCode::NOT_ME);
        let reference = message.cell.reference();
        assert_eq!(end(&logon, reference), MapiCode::INVALID_PARAMETER, "no EndMessage follows");
    }
    let rows = vec![typed(0, "LOG", "audit"), taken, typed(2, "smtp", "bob@example.org")];
    let message = HostMessage::outgoing_with(3, rows);
    defer(&logon, &message);
    finish(&host, &logon, &message);
    assert_eq!(message.responsibility(), [false, true, true]);
    let accepted = rig.office.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].recipients(), ["bob@example.org"]);
}

/// Proves: OB-4, OB-12
#[test]
fn failures_are_reported_once_and_deliveries_on_request_only() {
    let rig = Rig::new();
    rig.office.withhold(SmtpExtension::Dsn);
    let (host, logon) = rig.running();
    let mut curious = to(1, "carol@example.org");
    curious.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    let rows = vec![
        to(0, "bob@example.org"),
        curious,
        to(2, "550-5.1.1@example.org"),
        to(3, "554-5.7.1@example.org"),
    ];
    let message = HostMessage::outgoing_with(1, rows);
    defer(&logon, &message);
    finish(&host, &logon, &message);
    assert_eq!(message.responsibility(), [true; 4], "sent or failed, all is conclusive");
    let seen = host.seen();
    let [(entry, 1, recipients)] = seen.reports.as_slice() else {
        panic!("StatusRecips did not come once: {:?}", seen.reports);
    };
    assert_eq!(*entry, message.entry());
    let told: Vec<(u32, ReportKind, &str)> =
        recipients.iter().map(|report| (report.row, report.kind, report.status.as_str())).collect();
    let expected = [
        (1, ReportKind::Relay, "2.0.0"),
        (2, ReportKind::Failure, "5.1.1"),
        (3, ReportKind::Failure, "5.7.1"),
    ];
    assert_eq!(told, expected);
    for report in recipients {
        assert!(!report.remote_mta.is_empty() && report.time.as_millis() > 0, "{report:?}");
    }
    assert!(recipients[1].diagnostic.starts_with("550"), "{:?}", recipients[1]);
}

/// Proves: OB-4, OB-8, OB-11, OB-12
#[test]
fn a_failure_is_told_while_others_still_wait() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let later = SmtpAction::reply(451, "4.3.0", "later");
    rig.office.inject(Fault::smtp(SmtpPhase::Rcpt, later).matching("bob@").once());
    let rows = vec![to(0, "bob@example.org"), to(1, "550-5.1.1@example.org")];
    let message = HostMessage::outgoing_with(1, rows);
    defer(&logon, &message);
    host.wait_ended(&message.entry());
    let saves = message.state().saves;
    let still = send(&logon, SubmitMessageFlags::BEGIN_DEFERRED, &message);
    assert_eq!(still, EndMessageFlags::DONT_RESEND, "it stays deferred");
    assert_eq!(message.responsibility(), [false, true]);
    assert_eq!(message.state().saves, saves + 1, "what must be kept is saved");
    assert_eq!(host.seen().reports.len(), 1);

    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD)).unwrap();
    host.wait_until("it ended", |seen| seen.ended(&message.entry()) > 1);
    let last = send(&logon, SubmitMessageFlags::BEGIN_DEFERRED, &message);
    assert_eq!(last, EndMessageFlags::empty());
    assert_eq!(message.responsibility(), [true, true]);
    assert_eq!(host.seen().reports.len(), 1, "the failure is not told again");
    assert_eq!(rig.office.accepted()[0].recipients(), ["bob@example.org"]);
}

/// Proves: OB-10, OB-11
#[test]
fn a_message_handed_over_again_is_not_sent_again() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    defer(&logon, &message);
    notify(&logon, BEGIN).unwrap();
    finish(&host, &logon, &message);
    // The host forgot that it was finished, as after a crash.
    let forgotten = HostMessage::outgoing(1, &["bob@example.org"]);
    assert_eq!(send(&logon, NEW, &forgotten), EndMessageFlags::empty());
    assert_eq!(forgotten.responsibility(), [true]);
    let forgotten = HostMessage::outgoing(1, &["bob@example.org"]);
    let flags = SubmitMessageFlags::BEGIN_DEFERRED;
    assert_eq!(send(&logon, flags, &forgotten), EndMessageFlags::empty());
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD)).unwrap();
    host.wait_flag(StatusCode::OUTBOUND_FLUSH, false);
    assert_eq!(rig.office.accepted_count(), 1);
    let never = HostMessage::outgoing(9, &["bob@example.org"]);
    let refused = submit(&logon, flags, &never).unwrap_err();
    assert_eq!(refused.error.code(), MapiCode::NOT_FOUND, "it was never deferred");
}

/// Proves: TN-2, TN-14, TN-16, OB-7
#[test]
fn transport_notify_cancels_a_submission_that_still_runs() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let hold = Hold::default();
    let message = HostMessage::held(1, "bob@example.org", hold.clone());
    let submission = {
        let (logon, message) = (Arc::clone(&logon), Arc::clone(&message));
        thread::spawn(move || submit(&logon, NEW, &message).unwrap_err().error.code())
    };
    wait("the transport to read the recipients", hold.reached.cancelled());
    let reference = message.cell.reference();
    assert_eq!(end(&logon, reference), MapiCode::INVALID_PARAMETER, "SubmitMessage still runs");
    assert_eq!(cancel(&logon, MessageRef(u32::MAX)), MapiCode::S_OK, "nobody knows it");
    assert_eq!(notify(&logon, TransportNotify::END_INBOUND), Ok(()), "it does not wait");
    assert!(!host.seen().code().contains(StatusCode::INBOUND_ENABLED));
    assert_eq!(cancel(&logon, reference), MapiCode::S_OK);
    // The message is still held: only the cancel can have ended the call.
    assert_eq!(submission.join().unwrap(), MapiCode::CANCEL);
    hold.go.cancel();
    assert_eq!(cancel(&logon, reference), MapiCode::S_OK, "it has just ended");
    // The host may still send it, as nothing was taken.
    defer(&logon, &message);
    finish(&host, &logon, &message);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: TN-14, OB-7
#[test]
fn a_message_cancelled_before_end_message_is_not_sent() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    submit(&logon, NEW, &message).unwrap();
    assert_eq!(cancel(&logon, message.cell.reference()), MapiCode::S_OK);
    assert_eq!(end(&logon, message.cell.reference()), MapiCode::CANCEL);
    notify(&logon, BEGIN).unwrap();
    let next = HostMessage::outgoing(2, &["bob@example.org"]);
    defer(&logon, &next);
    finish(&host, &logon, &next);
    assert_eq!(rig.office.accepted_count(), 1, "only the next one is sent");
    assert_eq!(host.seen().ended(&message.entry()), 0);
}

/// Proves: TN-17, OB-7
#[test]
fn an_aborted_message_leaves_for_good() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    assert_eq!(abort(&logon, &message.entry()), MapiCode::S_OK);
    let unknown = EntryId::from_bytes(&[99; 16]).unwrap();
    assert_eq!(abort(&logon, &unknown), MapiCode::NOT_FOUND);
    notify(&logon, BEGIN).unwrap();
    let again = submit(&logon, NEW, &message).unwrap_err();
    assert_eq!(again.error.code(), MapiCode::CANCEL, "a resubmission is no longer wanted");
    let sent = HostMessage::outgoing(2, &["bob@example.org"]);
    defer(&logon, &sent);
    host.wait_ended(&sent.entry());
    assert_eq!(abort(&logon, &sent.entry()), MapiCode::UNABLE_TO_ABORT, "it is sent");
    finish(&host, &logon, &sent);
    assert_eq!(rig.office.accepted_count(), 1);
    assert_eq!(host.seen().ended(&message.entry()), 0);
}

/// Proves: TN-3, TN-4, TN-5, TN-17
#[test]
fn flags_that_make_no_sense_change_nothing() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let before = host.seen().calls;
    let entry = EntryId::from_bytes(&[1; 16]).unwrap();
    let unknown = MapiCode::UNKNOWN_FLAGS;
    let invalid = MapiCode::INVALID_PARAMETER;
    let end_both = TransportNotify::END_INBOUND | TransportNotify::END_OUTBOUND;
    let cases = [
        (TransportNotify::from_bits_retain(0x10) | end_both, NotifyData::None, unknown),
        (TransportNotify::BEGIN_INBOUND | end_both, NotifyData::None, invalid),
        (
            TransportNotify::BEGIN_OUTBOUND_FLUSH | TransportNotify::END_OUTBOUND_FLUSH,
            NotifyData::None,
            invalid,
        ),
        (TransportNotify::CANCEL_MESSAGE | end_both, NotifyData::None, invalid),
        (TransportNotify::CANCEL_MESSAGE, NotifyData::EntryId(&entry), invalid),
        (TransportNotify::ABORT_DEFERRED, NotifyData::Reference(MessageRef(2)), invalid),
        (
            TransportNotify::ABORT_DEFERRED | end_both,
            NotifyData::EntryId(&entry),
            MapiCode::NOT_FOUND,
        ),
        (TransportNotify::empty(), NotifyData::None, MapiCode::S_OK),
    ];
    for (flags, data, expected) in cases {
        let answer = wait("TransportNotify", logon.transport_notify(flags, data));
        assert_eq!(code(answer), expected, "{flags:?}");
    }
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    let refused = submit(&logon, SubmitMessageFlags::from_bits_retain(0x2), &message).unwrap_err();
    assert_eq!(refused.error.code(), unknown);
    assert_eq!(message.state().reference_at_touch, None, "the message was not touched");
    assert_eq!(host.seen().calls, before, "the row was not changed");
    notify(&logon, end_both | TransportNotify::BEGIN_OUTBOUND_FLUSH).unwrap();
    assert_eq!(host.seen().calls, before + 1, "several flags are one row update");
}
