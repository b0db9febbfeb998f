//! ValidateState: trying out, critical sections, a configuration that changes (ST-6, ST-7, IB-9),
//! and SpoolerYield in long work (OB-18).

use std::sync::Arc;
use std::thread;

use postoffice::{Action, Fault, Protocol, SmtpPhase};
use postrider::mapi::{
    Attachment, FlushFlags, LogonFlags, MapiCode, SpoolerNotify, StatusCode, SubmitMessageFlags,
    ValidateFlags,
};
use postrider::spi::{SectionValue, Yield};

use crate::foreign_host::{Host, PATIENCE, Seen, wait};
use crate::foreign_message::HostMessage;
use crate::foreign_rig::{BEGIN, Rig, code, defer, finish, log_on, notify, submit};

const CHECK: ValidateFlags = ValidateFlags::SUPPRESS_UI;
const CHANGED: ValidateFlags = ValidateFlags::CONFIG_CHANGED;
const NEW: SubmitMessageFlags = SubmitMessageFlags::empty();

/// The signals about the state of the logon, in order.
fn signals(seen: &Seen) -> Vec<SpoolerNotify> {
    let wanted = SpoolerNotify::CRITSEC | SpoolerNotify::NONCRIT | SpoolerNotify::CONFIG_CHANGE;
    let all = seen.notified.iter().map(|(flags, _)| *flags);
    all.filter(|flags| flags.intersects(wanted)).collect()
}

const SECTION: [SpoolerNotify; 3] =
    [SpoolerNotify::CRITSEC, SpoolerNotify::NONCRIT, SpoolerNotify::CONFIG_CHANGE];

/// Proves: ST-7
#[test]
fn validate_state_tells_what_is_wrong_with_the_servers() {
    let rig = Rig::new();
    let (_host, logon) = rig.running();
    wait("ValidateState", logon.validate_state(CHECK)).unwrap();
    rig.office.set_password("ann", "another");
    let refused = wait("ValidateState", logon.validate_state(CHECK));
    assert_eq!(code(refused), MapiCode::LOGON_FAILED);
    rig.serve(rig.office.stop());
    let away = wait("ValidateState", logon.validate_state(CHECK));
    assert_eq!(code(away), MapiCode::NETWORK_ERROR);
}

/// Proves: LG-4, ST-7
#[test]
fn without_connections_nothing_is_tried_out() {
    let rig = Rig::new();
    let (logon, _) = log_on(&rig.provider, &rig.host(), LogonFlags::NO_CONNECT);
    wait("ValidateState", logon.validate_state(CHECK)).unwrap();
    wait("ValidateState", logon.validate_state(CHANGED)).unwrap();
    notify(&logon, BEGIN).unwrap();
    for protocol in [Protocol::Smtp, Protocol::Imap] {
        assert_eq!(rig.office.counters(protocol).connections, 0, "{protocol:?}");
    }
}

/// Proves: ST-7
#[test]
fn one_check_runs_at_a_time() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    let fault = rig.office.inject(Fault::smtp(SmtpPhase::Ehlo, Action::Hang).once());
    thread::scope(|scope| {
        let first = scope.spawn(|| wait("ValidateState", logon.validate_state(CHECK)));
        rig.serve(fault.reached(PATIENCE)).unwrap();
        for flags in [CHECK, CHANGED, CHANGED | CHECK] {
            let second = wait("ValidateState", logon.validate_state(flags));
            assert_eq!(code(second), MapiCode::BUSY, "{flags:?}");
        }
        // Unknown flags come before that, and nothing was begun.
        let unknown = ValidateFlags::from_bits_retain(2);
        let refused = wait("ValidateState", logon.validate_state(unknown));
        assert_eq!(code(refused), MapiCode::UNKNOWN_FLAGS);
        assert!(signals(&host.seen()).is_empty());
        // Work goes on beside it.
        defer(&logon, &HostMessage::outgoing(1, &["bob@example.org"]));
        fault.release();
        assert_eq!(code(first.join().unwrap()), MapiCode::S_OK);
    });
    wait("ValidateState", logon.validate_state(CHECK)).unwrap();
}

/// Proves: ST-7, ST-6
#[test]
fn headers_first_is_refused_flag_by_flag() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let entry = wait("OpenStatusEntry", logon.open_status_entry()).unwrap();
    let own = ValidateFlags::SUPPRESS_UI | ValidateFlags::CONFIG_CHANGED;
    for flag in ValidateFlags::all().iter().filter(|flag| !own.contains(*flag)) {
        for flags in [flag, flag | CHANGED] {
            let answer = wait("ValidateState", entry.validate_state(flags));
            assert_eq!(code(answer), MapiCode::NO_SUPPORT, "{flags:?}");
        }
    }
    assert!(signals(&host.seen()).is_empty(), "nothing of it was done");
    let target = HostMessage::outgoing(1, &[]).entry();
    let reserved = wait("FlushQueues", entry.flush_queues(Some(&target), FlushFlags::UPLOAD));
    assert_eq!(code(reserved), MapiCode::INVALID_PARAMETER, "FL-6");
}

/// The servers of the profile were wrong; mended, the same logon works, with all that waits.
///
/// Proves: ST-7, IB-9, AT-1, SP-6, ST-1
#[test]
fn a_changed_configuration_is_taken_up_in_a_critical_section() {
    let rig = Rig::new();
    let wrong = rig.section("ann").with("smtp.port", SectionValue::Number(1));
    let wrong = wrong.with("imap.port", SectionValue::Number(1));
    let host = Host::new(wrong);
    let logon = rig.log_on(&host);
    notify(&logon, BEGIN).unwrap();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    host.wait_flag(StatusCode::OFFLINE, true);
    let mended = rig.section("ann").with("identity.name", SectionValue::Text("Else".to_owned()));
    host.set_section(mended);
    wait("ValidateState", logon.validate_state(CHANGED)).unwrap();
    assert_eq!(signals(&host.seen()), SECTION);
    assert_eq!(host.seen().row.identity_display.as_deref(), Some("Else <ann@example.org>"));
    // Both directions are as they were.
    let both = StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
    assert!(host.seen().code().contains(both));
    wait("AddressTypes", logon.address_types()).unwrap();
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD)).unwrap();
    finish(&host, &logon, &message);
    rig.office.deliver("ann", "INBOX", *b"Subject: hi\r\n\r\n").unwrap();
    host.wait_until("mail is announced", |seen| seen.count(SpoolerNotify::NEWMAIL) > 0);
    host.wait_flag(StatusCode::OFFLINE, false);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: ST-7, LG-8
#[test]
fn a_configuration_that_makes_no_sense_changes_nothing() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let renamed = rig.section("ann").with("name", SectionValue::Text("other".to_owned()));
    let bad = [
        (rig.section_without("ann", "smtp.host"), MapiCode::UNCONFIGURED),
        (renamed, MapiCode::INVALID_PARAMETER),
    ];
    for (section, expected) in bad {
        host.set_section(section);
        let answer = wait("ValidateState", logon.validate_state(CHANGED));
        assert_eq!(code(answer), expected);
    }
    let told = host.seen().count(SpoolerNotify::CONFIG_CHANGE);
    assert_eq!(told, 0, "there is nothing new to ask for");
    let (begun, ended) = {
        let seen = host.seen();
        (seen.count(SpoolerNotify::CRITSEC), seen.count(SpoolerNotify::NONCRIT))
    };
    assert_eq!((begun, ended), (2, 2), "no critical section is left open");
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    finish(&host, &logon, &message);
}

/// A message on the wire gets its time; nothing begins beside it.
///
/// Proves: IB-9, ST-7, OB-7
#[test]
fn in_a_critical_section_the_answer_is_busy() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let fault = rig.office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    rig.serve(fault.reached(PATIENCE)).unwrap();
    thread::scope(|scope| {
        let change = scope.spawn(|| wait("ValidateState", logon.validate_state(CHANGED)));
        host.wait_until("the section begins", |seen| signals(seen) == SECTION[..1]);
        for flags in [CHECK, CHANGED] {
            let second = wait("ValidateState", logon.validate_state(flags));
            assert_eq!(code(second), MapiCode::BUSY, "{flags:?}");
        }
        let other = HostMessage::outgoing(2, &["bob@example.org"]);
        let refused = submit(&logon, NEW, &other).unwrap_err();
        assert_eq!(refused.error.code(), MapiCode::BUSY);
        assert_eq!(signals(&host.seen()), SECTION[..1], "it lasts");
        fault.release();
        assert_eq!(code(change.join().unwrap()), MapiCode::S_OK);
    });
    assert_eq!(signals(&host.seen()), SECTION);
    finish(&host, &logon, &message);
    assert_eq!(rig.office.accepted_count(), 1, "it was sent once");
    let other = HostMessage::outgoing(2, &["bob@example.org"]);
    defer(&logon, &other);
    finish(&host, &logon, &other);
}

/// Two megabytes: as RFC 5322 bytes, and as an attachment from which they are made.
fn large(number: u8) -> [Arc<HostMessage>; 2] {
    let line = format!("{}\r\n", "x".repeat(76));
    let text = format!("Subject: large\r\n\r\n{}", line.repeat(2 * 1024 * 1024 / line.len()));
    let raw = HostMessage::raw(number, "bob@example.org", text.into_bytes());
    let made = HostMessage::outgoing(number + 1, &["bob@example.org"]);
    made.state().data.attachments.push(Attachment {
        filename: "large.bin".to_owned(),
        mime_tag: String::new(),
        content_id: String::new(),
        data: vec![7; 2 * 1024 * 1024],
    });
    [raw, made]
}

/// Proves: OB-18
#[test]
fn long_work_on_a_message_yields_and_can_be_stopped() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let small = HostMessage::outgoing(9, &["bob@example.org"]);
    defer(&logon, &small);
    finish(&host, &logon, &small);
    assert!(host.seen().yields.is_empty(), "nothing of that is long");
    for message in large(1) {
        host.seen().answer = Some(Yield::CancelMessage);
        let stopped = submit(&logon, NEW, &message).unwrap_err().error;
        assert_eq!(stopped.code(), MapiCode::USER_CANCEL, "{stopped}");
        {
            let mut seen = host.seen();
            assert_eq!(seen.yields, [Some(message.entry())], "it stops at once");
            seen.yields.clear();
            seen.answer = None;
        }
        // Nothing of it is left: it is a new message when it comes again.
        defer(&logon, &message);
        let yields = std::mem::take(&mut host.seen().yields);
        assert!(yields.len() >= 8, "{} for two megabytes", yields.len());
        assert!(yields.iter().all(|entry| *entry == Some(message.entry())));
        finish(&host, &logon, &message);
    }
    assert_eq!(rig.office.accepted_count(), 3, "what was stopped was not sent");
}
