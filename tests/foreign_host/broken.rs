//! What is beyond recovery, and what this provider cannot serve (OB-9, IB-7, SP-2, LG-8).

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use postrider::mapi::{
    FlushFlags, LogoffFlags, LogonFlags, MapiCode, MessageRef, SpoolerNotify, StatusCode,
    SubmitMessageFlags,
};

use crate::foreign_host::{Host, Seen, wait};
use crate::foreign_message::{Hold, HostMessage};
use crate::foreign_rig::{Rig, code, defer, finish, receive, submit, try_log_on};

const NEW: SubmitMessageFlags = SubmitMessageFlags::empty();

fn critical_errors(seen: &Seen) -> usize {
    seen.count(SpoolerNotify::CRITICAL_ERROR)
}

/// A spool whose flush failed does not know what is on the disk, and takes nothing any more.
///
/// Proves: OB-9, SP-2, ST-3, LG-8
#[test]
fn a_spool_that_is_lost_is_a_critical_error_and_then_an_error() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let first = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &first);
    finish(&host, &logon, &first);
    assert_eq!(critical_errors(&host.seen()), 0);

    rig.disk_fails.store(true, Ordering::SeqCst);
    let message = HostMessage::outgoing(2, &["bob@example.org"]);
    let error = submit(&logon, NEW, &message).unwrap_err().error;
    assert_eq!(error.code(), MapiCode::DISK_ERROR, "{error}");
    {
        let seen = host.seen();
        assert_eq!(critical_errors(&seen), 1, "it was signalled before the call returned");
        assert_eq!(seen.code(), StatusCode::FAILURE, "{:?}", seen.row);
        assert!(seen.words().contains("MAPI_E_DISK_ERROR"), "{:?}", seen.row);
    }
    // The host only releases it; whoever calls it all the same gets the error at once.
    let again = submit(&logon, NEW, &HostMessage::outgoing(3, &["bob@example.org"]));
    assert_eq!(again.unwrap_err().error.code(), MapiCode::DISK_ERROR);
    let answers = [
        code(wait("AddressTypes", logon.address_types())),
        code(wait("Poll", logon.poll())),
        code(wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD))),
        code(wait("EndMessage", logon.end_message(MessageRef(7)))),
        code(receive(&logon)),
    ];
    assert_eq!(answers, [MapiCode::DISK_ERROR; 5]);
    assert_eq!(critical_errors(&host.seen()), 1, "once");
    assert_eq!(rig.office.accepted_count(), 1, "nothing was begun any more");
    drop(logon);
    host.wait_until("the support object is released", |seen| seen.released);
    // The next logon has the same spool: this provider is of no use, its service may be.
    let refused = try_log_on(&rig.provider, &rig.host(), LogonFlags::NO_DIALOG).unwrap_err();
    assert_eq!(refused.code(), MapiCode::FAILONEPROVIDER, "{refused}");
}

/// Proves: IB-7, SP-2
#[test]
fn a_lost_spool_is_a_critical_error_for_what_receives_too() {
    let rig = Rig::new();
    let receiving = rig.section_without("bea", "smtp");
    let host = Host::new(receiving);
    let logon = rig.log_on(&host);
    rig.disk_fails.store(true, Ordering::SeqCst);
    rig.office.deliver("bea", "INBOX", *b"Subject: hi\r\n\r\n").unwrap();
    let begin = postrider::mapi::TransportNotify::BEGIN_INBOUND;
    crate::foreign_rig::notify(&logon, begin).unwrap();
    host.wait_until("the error is signalled", |seen| critical_errors(seen) == 1);
    assert_eq!(code(receive(&logon)), MapiCode::DISK_ERROR);
    let seen = host.seen();
    assert_eq!(seen.code(), StatusCode::FAILURE, "{:?}", seen.row);
    drop(seen);
    assert_eq!(rig.office.messages("bea", "INBOX").unwrap().len(), 1, "it stays on the server");
}

/// Two logons over one queue would send everything twice.
///
/// Proves: LG-8, LG-2
#[test]
fn an_account_is_logged_on_once_at_a_time() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let second = rig.host();
    let refused = try_log_on(&rig.provider, &second, LogonFlags::NO_DIALOG).unwrap_err();
    assert_eq!(refused.code(), MapiCode::FAILONEPROVIDER, "{refused}");
    assert!(second.seen().released && second.seen().rows.is_empty());
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    finish(&host, &logon, &message);
    wait("TransportLogoff", logon.transport_logoff(LogoffFlags::NORMAL)).unwrap();
    // The first is still held, and over.
    let _next = rig.log_on(&rig.host());
}

/// The host would forget a message that is answered with E_CANCEL.
///
/// Proves: LG-9, OB-7, SP-1
#[test]
fn a_submission_cut_short_by_the_logoff_is_not_cancelled() {
    let rig = Rig::new();
    let (_host, logon) = rig.running();
    let hold = Hold::default();
    let held = HostMessage::held(1, "bob@example.org", hold.clone());
    let answer = thread::scope(|scope| {
        let call = scope.spawn(|| submit(&logon, NEW, &held));
        wait("the transport reads the message", hold.reached.cancelled());
        let started = Instant::now();
        wait("TransportLogoff", logon.transport_logoff(LogoffFlags::HURRY)).unwrap();
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        let answer = call.join().unwrap();
        hold.go.cancel();
        answer
    });
    let error = answer.unwrap_err().error;
    assert_eq!(error.code(), MapiCode::END_OF_SESSION, "{error}");
    // At the next logon it is a message like any other.
    let (host, logon) = rig.running();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    finish(&host, &logon, &message);
    assert_eq!(rig.office.accepted_count(), 1);
}
