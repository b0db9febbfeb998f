//! The end of a logon, of a provider, and of what they were doing (LG-9, LG-10, TN-18).

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use postoffice::{Action, Fault, FaultHandle, Protocol, SmtpPhase};
use postrider::mapi::{
    DeinitFlags, FlushFlags, LogoffFlags, MapiCode, MessageRef, StatusCode, SubmitMessageFlags,
    TransportNotify, ValidateFlags,
};
use postrider::spi::{NotifyData, XpLogon};

use crate::foreign_host::{PATIENCE, wait};
use crate::foreign_message::HostMessage;
use crate::foreign_rig::{BEGIN, Rig, code, defer, finish, notify, receive, submit};

/// What ends at once may take on a busy machine; the server is silent for longer.
const AT_ONCE: Duration = Duration::from_secs(8);

fn log_off(logon: &Arc<dyn XpLogon>, flags: LogoffFlags) -> MapiCode {
    code(wait("TransportLogoff", logon.transport_logoff(flags)))
}

/// The server stops there until it is told to go on.
fn hang(rig: &Rig, phase: SmtpPhase) -> FaultHandle {
    rig.office.inject(Fault::smtp(phase, Action::Hang).once())
}

/// Hands a message over and waits until the server hangs on it.
fn send_until_it_hangs(
    rig: &Rig,
    logon: &Arc<dyn XpLogon>,
    fault: &FaultHandle,
) -> Arc<HostMessage> {
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(logon, &message);
    rig.serve(fault.reached(PATIENCE)).unwrap();
    message
}

/// The server goes on, and finds that nobody is there any more.
fn release(rig: &Rig, fault: &FaultHandle) {
    fault.remove();
    let closed = |office: &postoffice::PostOffice| office.counters(Protocol::Smtp).open == 0;
    rig.serve(rig.office.wait_until("the connection is gone", PATIENCE, closed)).unwrap();
}

/// A new logon on the same spool sends what was left, once.
fn assert_sent_once_by_the_next(rig: &Rig, message: &Arc<HostMessage>) {
    assert_eq!(rig.office.accepted_count(), 0);
    let (host, logon) = rig.running();
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD)).unwrap();
    finish(&host, &logon, message);
    host.wait_flag(StatusCode::OUTBOUND_FLUSH, false);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: LG-1, LG-9, ST-6
#[test]
fn after_logoff_every_call_is_refused() {
    let rig = Rig::new();
    let (_host, logon) = rig.running();
    let entry = wait("OpenStatusEntry", logon.open_status_entry()).unwrap();
    assert_eq!(log_off(&logon, LogoffFlags::NORMAL), MapiCode::S_OK);
    let ended = MapiCode::END_OF_SESSION;
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    let refused = submit(&logon, SubmitMessageFlags::empty(), &message).unwrap_err();
    assert_eq!(refused.error.code(), ended);
    assert_eq!(code(wait("EndMessage", logon.end_message(MessageRef(2)))), ended);
    assert_eq!(code(receive(&logon)), ended);
    assert_eq!(code(wait("AddressTypes", logon.address_types())), ended);
    assert_eq!(code(notify(&logon, BEGIN)), ended);
    assert_eq!(code(wait("Poll", logon.poll())), ended);
    assert_eq!(code(wait("Idle", logon.idle())), ended);
    assert_eq!(code(wait("OpenStatusEntry", logon.open_status_entry())), ended);
    let validate = ValidateFlags::SUPPRESS_UI;
    assert_eq!(code(wait("ValidateState", logon.validate_state(validate))), ended);
    assert_eq!(code(wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD))), ended);
    assert_eq!(code(wait("ValidateState", entry.validate_state(validate))), ended);
    assert_eq!(code(wait("FlushQueues", entry.flush_queues(None, FlushFlags::UPLOAD))), ended);
    assert_eq!(log_off(&logon, LogoffFlags::NORMAL), ended);
}

/// Proves: LG-9
#[test]
fn unknown_logoff_flags_change_nothing() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let unknown = LogoffFlags::from_bits_retain(0x2) | LogoffFlags::HURRY;
    assert_eq!(log_off(&logon, unknown), MapiCode::UNKNOWN_FLAGS);
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    finish(&host, &logon, &message);
}

/// Proves: LG-9
#[test]
fn an_orderly_logoff_lets_the_message_on_the_wire_finish() {
    for flags in [LogoffFlags::empty(), LogoffFlags::NORMAL] {
        let rig = Rig::new();
        let (_host, logon) = rig.running();
        let fault = hang(&rig, SmtpPhase::Data);
        send_until_it_hangs(&rig, &logon, &fault);
        let other = Arc::clone(&logon);
        let logoff = thread::spawn(move || log_off(&other, flags));
        let deadline = Instant::now() + PATIENCE;
        while wait("AddressTypes", logon.address_types()).is_ok() {
            assert!(Instant::now() < deadline, "the logoff did not begin");
            thread::yield_now();
        }
        fault.remove();
        assert_eq!(logoff.join().unwrap(), MapiCode::S_OK, "{flags:?}");
        assert_eq!(rig.office.accepted_count(), 1, "{flags:?}");
    }
}

/// Proves: LG-9
#[test]
fn a_hurried_logoff_drops_the_message_on_the_wire_and_loses_nothing() {
    let rig = Rig::new();
    let (_host, logon) = rig.running();
    let fault = hang(&rig, SmtpPhase::Data);
    let message = send_until_it_hangs(&rig, &logon, &fault);
    let start = Instant::now();
    assert_eq!(log_off(&logon, LogoffFlags::HURRY), MapiCode::S_OK);
    assert!(start.elapsed() < AT_ONCE, "it took {:?}", start.elapsed());
    release(&rig, &fault);
    assert_sent_once_by_the_next(&rig, &message);
}

/// Proves: LG-9
#[test]
fn releasing_a_logon_without_logoff_loses_nothing() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let fault = hang(&rig, SmtpPhase::Data);
    let message = send_until_it_hangs(&rig, &logon, &fault);
    drop(logon);
    let calls = host.seen().calls;
    host.wait_until("the support object is released", |seen| seen.released);
    assert_eq!(host.seen().calls, calls, "who released it hears nothing more");
    release(&rig, &fault);
    assert_sent_once_by_the_next(&rig, &message);
}

/// Proves: LG-9
#[test]
fn the_support_object_is_released_when_the_logon_is() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    assert_eq!(log_off(&logon, LogoffFlags::NORMAL), MapiCode::S_OK);
    drop(logon);
    host.wait_until("the support object is released", |seen| seen.released);
}

/// Proves: LG-9
#[test]
fn a_logon_that_has_logged_off_tells_its_host_nothing_more() {
    for flags in [LogoffFlags::NORMAL, LogoffFlags::HURRY] {
        let rig = Rig::new();
        let (host, logon) = rig.running();
        for number in 1..=20 {
            defer(&logon, &HostMessage::outgoing(number, &["bob@example.org"]));
        }
        assert_eq!(log_off(&logon, flags), MapiCode::S_OK);
        let calls = host.seen().calls;
        drop(logon);
        // Released last: after this nothing can come any more.
        host.wait_until("the support object is released", |seen| seen.released);
        assert_eq!(host.seen().calls, calls, "{flags:?}");
    }
}

/// Proves: LG-10
#[test]
fn shutdown_logs_off_what_is_open() {
    let rig = Rig::new();
    for flags in [DeinitFlags::empty(), DeinitFlags::NORMAL, DeinitFlags::HURRY] {
        let provider = rig.another_provider();
        let (ann, bea) = (rig.host(), crate::foreign_host::Host::new(rig.section("bea")));
        let logons = [&ann, &bea].map(|host| {
            let (logon, _) = crate::foreign_rig::log_on(&provider, host, Default::default());
            notify(&logon, BEGIN).unwrap();
            logon
        });
        assert_eq!(code(wait("Shutdown", provider.shutdown(flags))), MapiCode::S_OK, "{flags:?}");
        for logon in &logons {
            let ended = MapiCode::END_OF_SESSION;
            assert_eq!(code(wait("AddressTypes", logon.address_types())), ended, "{flags:?}");
            assert_eq!(log_off(logon, LogoffFlags::NORMAL), ended);
        }
        let open = |office: &postoffice::PostOffice| {
            office.counters(Protocol::Smtp).open + office.counters(Protocol::Imap).open
        };
        rig.serve(
            rig.office.wait_until("all connections end", PATIENCE, |office| open(office) == 0),
        )
        .unwrap();
    }
}

/// Proves: LG-10, LG-9
#[test]
fn a_hurried_shutdown_does_not_wait_for_the_server() {
    let rig = Rig::new();
    let (_host, logon) = rig.running();
    let fault = hang(&rig, SmtpPhase::Data);
    let message = send_until_it_hangs(&rig, &logon, &fault);
    let start = Instant::now();
    wait("Shutdown", rig.provider.shutdown(DeinitFlags::HURRY)).unwrap();
    assert!(start.elapsed() < AT_ONCE, "it took {:?}", start.elapsed());
    release(&rig, &fault);
    let provider = rig.another_provider();
    let host = rig.host();
    let (logon, _) = crate::foreign_rig::log_on(&provider, &host, Default::default());
    notify(&logon, BEGIN).unwrap();
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD)).unwrap();
    finish(&host, &logon, &message);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: TN-18, OB-11
#[test]
fn a_message_given_back_meets_its_row_at_the_next_logon() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    let entry = message.entry();
    let abort =
        logon.transport_notify(TransportNotify::ABORT_DEFERRED, NotifyData::EntryId(&entry));
    wait("TransportNotify", abort).unwrap();
    notify(&logon, TransportNotify::BEGIN_OUTBOUND).unwrap();
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD)).unwrap();
    host.wait_flag(StatusCode::OUTBOUND_FLUSH, false);
    assert_eq!(rig.office.accepted_count(), 0, "a flush does not take up what was given back");
    assert_eq!(log_off(&logon, LogoffFlags::NORMAL), MapiCode::S_OK);
    assert_eq!(host.seen().ended(&entry), 0);

    let (host, logon) = rig.running();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    finish(&host, &logon, &message);
    assert_eq!(rig.office.accepted_count(), 1);
}
