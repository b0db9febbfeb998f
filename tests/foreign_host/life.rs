//! From init to the first message (LG-1 to LG-8).

use postoffice::Protocol;
use postrider::mapi::{
    DeinitFlags, FlushFlags, LogonFlags, LogonOutFlags, MapiCode, SPI_VERSION, SpoolerNotify,
    StatusCode, SubmitMessageFlags, TransportNotify,
};
use postrider::spi::{AddressTypes, Incoming, SectionValue};

use crate::foreign_host::{Host, wait};
use crate::foreign_message::HostMessage;
use crate::foreign_rig::{
    BEGIN, Rig, code, defer, finish, log_on, notify, receive, submit, try_log_on,
};

/// Proves: LG-1, LG-2
#[test]
fn no_call_comes_before_init() {
    let rig = Rig::uninitialized();
    let host = rig.host();
    let logon = try_log_on(&rig.provider, &host, LogonFlags::empty());
    assert_eq!(code(logon), MapiCode::NOT_INITIALIZED);
    let shutdown = wait("Shutdown", rig.provider.shutdown(DeinitFlags::NORMAL));
    assert_eq!(code(shutdown), MapiCode::NOT_INITIALIZED);
    assert!(host.seen().rows.is_empty(), "a logon that failed has no row");
    assert_eq!(rig.provider.init(SPI_VERSION), Ok(SPI_VERSION), "it can still begin");
    rig.log_on(&host);
}

/// Proves: LG-2
#[test]
fn a_host_of_an_older_version_is_refused() {
    let rig = Rig::uninitialized();
    assert_eq!(code(rig.provider.init(SPI_VERSION - 1)), MapiCode::VERSION);
    let host = rig.host();
    let logon = try_log_on(&rig.provider, &host, LogonFlags::empty());
    assert_eq!(code(logon), MapiCode::NOT_INITIALIZED);
    assert_eq!(rig.provider.init(SPI_VERSION + 1), Ok(SPI_VERSION), "a newer host adapts");
}

/// Proves: LG-2, LG-3, LG-9
#[test]
fn one_provider_serves_two_logons() {
    let rig = Rig::new();
    let (ann, bea) = (rig.host(), Host::new(rig.section("bea")));
    let (first, second) = (rig.log_on(&ann), rig.log_on(&bea));
    for (number, host, logon) in [(1, &ann, &first), (2, &bea, &second)] {
        notify(logon, TransportNotify::BEGIN_OUTBOUND).unwrap();
        let message = HostMessage::outgoing(number, &["bob@example.org"]);
        defer(logon, &message);
        finish(host, logon, &message);
        assert_eq!(host.seen().notified.len(), 1, "each host hears of its own message alone");
    }
    let accepted = rig.office.accepted();
    let users: Vec<Option<&str>> =
        accepted.iter().map(|message| message.envelope.user.as_deref()).collect();
    assert_eq!(users, [Some("ann"), Some("bea")], "each logon has the login of its section");
    assert_eq!(ann.seen().row.display_name.as_deref(), Some("ann"));
    assert_eq!(bea.seen().row.display_name.as_deref(), Some("bea"));

    wait("TransportLogoff", first.transport_logoff(Default::default())).unwrap();
    let message = HostMessage::outgoing(3, &["bob@example.org"]);
    defer(&second, &message);
    finish(&bea, &second, &message);
}

/// Proves: LG-1, AT-1, AT-2, AT-4
#[test]
fn address_types_are_told_right_after_the_logon() {
    let rig = Rig::new();
    let these = |types: &[&str]| AddressTypes::These {
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        uids: Vec::new(),
    };
    let logon = rig.log_on(&rig.host());
    assert_eq!(wait("AddressTypes", logon.address_types()), Ok(these(&["SMTP"])));
    let logon = rig.log_on(&Host::new(rig.section_without("bea", "smtp")));
    assert_eq!(wait("AddressTypes", logon.address_types()), Ok(these(&[""])));
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    let error = submit(&logon, SubmitMessageFlags::empty(), &message).unwrap_err();
    assert_eq!(error.error.code(), MapiCode::NOT_ME, "it sends nothing");
}

/// Proves: LG-1, LG-10
#[test]
fn nothing_begins_after_shutdown() {
    let rig = Rig::new();
    wait("Shutdown", rig.provider.shutdown(DeinitFlags::NORMAL)).unwrap();
    let host = rig.host();
    let logon = try_log_on(&rig.provider, &host, LogonFlags::empty());
    assert_eq!(code(logon), MapiCode::END_OF_SESSION);
    assert_eq!(code(rig.provider.init(SPI_VERSION)), MapiCode::END_OF_SESSION);
    let again = wait("Shutdown", rig.provider.shutdown(DeinitFlags::NORMAL));
    assert_eq!(code(again), MapiCode::END_OF_SESSION);
}

/// Proves: LG-4, ST-3
#[test]
fn a_logon_without_connections_makes_none() {
    let rig = Rig::new();
    let host = rig.host();
    rig.office.deliver("ann", "INBOX", *b"Subject: hi\r\n\r\n").unwrap();
    let (logon, _) = log_on(&rig.provider, &host, LogonFlags::NO_CONNECT);
    assert!(host.seen().code().contains(StatusCode::OFFLINE), "{:?}", host.seen().row);
    notify(&logon, BEGIN).unwrap();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    let flush = FlushFlags::UPLOAD | FlushFlags::DOWNLOAD | FlushFlags::FORCE;
    wait("FlushQueues", logon.flush_queues(flush)).unwrap();
    assert_eq!(wait("Poll", logon.poll()), Ok(Incoming::None));
    assert_eq!(receive(&logon).unwrap().state().saves, 0);
    wait("TransportLogoff", logon.transport_logoff(Default::default())).unwrap();
    for protocol in [Protocol::Smtp, Protocol::Imap] {
        assert_eq!(rig.office.counters(protocol).connections, 0, "{protocol:?}");
    }

    // What it took waits for a logon that may connect.
    let (host, logon) = rig.running();
    finish(&host, &logon, &message);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: LG-5, TN-6, TN-8, ST-2
#[test]
fn directions_begin_by_transport_notify_only() {
    let rig = Rig::new();
    let closed = LogonFlags::NO_INBOUND | LogonFlags::NO_OUTBOUND;
    for (number, flags) in [(1, LogonFlags::empty()), (2, closed)] {
        let host = rig.host();
        let (logon, _) = log_on(&rig.provider, &host, flags);
        let enabled = StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
        assert!(!host.seen().code().intersects(enabled));
        let message = HostMessage::outgoing(number, &["bob@example.org"]);
        defer(&logon, &message);
        assert_eq!(rig.office.accepted_count(), u64::from(number) - 1, "nothing is sent yet");
        for (begin, bit) in [
            (TransportNotify::BEGIN_OUTBOUND, StatusCode::OUTBOUND_ENABLED),
            (TransportNotify::BEGIN_INBOUND, StatusCode::INBOUND_ENABLED),
        ] {
            notify(&logon, begin).unwrap();
            assert!(host.seen().code().contains(bit), "the row shows it before the call returns");
        }
        finish(&host, &logon, &message);
        rig.office.deliver("ann", "INBOX", *b"Subject: hi\r\n\r\n").unwrap();
        host.wait_until("mail is announced", |seen| seen.count(SpoolerNotify::NEWMAIL) > 0);
        wait("TransportLogoff", logon.transport_logoff(Default::default())).unwrap();
    }
}

/// Proves: LG-6, LG-8, ST-3
#[test]
fn a_refused_password_is_told_and_not_asked_for() {
    let rig = Rig::new();
    rig.office.set_password("ann", "another");
    let (host, logon) = rig.running();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    host.wait_flag(StatusCode::FAILURE, true);
    assert!(host.seen().words().contains("MAPI_E_LOGON_FAILED"), "{:?}", host.seen().row);
    assert_eq!(code(wait("Poll", logon.poll())), MapiCode::LOGON_FAILED);
    assert_eq!(rig.office.accepted_count(), 0);
    // No message is to blame, and none is lost.
    rig.office.set_password("ann", "secret");
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD | FlushFlags::DOWNLOAD)).unwrap();
    finish(&host, &logon, &message);
    host.wait_flag(StatusCode::FAILURE, false);
}

/// Proves: LG-7
#[test]
fn the_out_flags_say_whether_to_poll() {
    let rig = Rig::new();
    let (_, out) = log_on(&rig.provider, &rig.host(), LogonFlags::empty());
    assert_eq!(out, LogonOutFlags::empty(), "the server can push");
    let pulling = rig.section("bea").with("imap.push", SectionValue::Switch(false));
    let (_, out) = log_on(&rig.provider, &Host::new(pulling), LogonFlags::empty());
    assert_eq!(out, LogonOutFlags::SP_POLL);
}

/// Proves: LG-3, LG-8
#[test]
fn what_the_profile_lacks_is_named() {
    let rig = Rig::new();
    let lacking = [
        "name",
        "identity.address",
        "smtp.host",
        "smtp.password",
        "smtp.user",
        "imap.host",
        "imap.user",
        "imap.password",
    ];
    for key in lacking {
        let host = Host::new(rig.section_without("ann", key));
        let logon = try_log_on(&rig.provider, &host, LogonFlags::NO_DIALOG);
        let error = logon.unwrap_err();
        assert_eq!(error.code(), MapiCode::UNCONFIGURED, "{key}: {error}");
        assert!(error.detail().contains(key), "{key} is not named: {error}");
        assert!(host.seen().released && host.seen().rows.is_empty(), "{key}");
    }
    let bad = rig.section("ann").with("smtp.tls", SectionValue::Text("perhaps".to_owned()));
    let host = Host::new(bad);
    let error = try_log_on(&rig.provider, &host, LogonFlags::NO_DIALOG);
    assert!(error.unwrap_err().detail().contains("smtp.tls"));
    // The configuration was mended: the same provider serves.
    let (host, logon) = rig.running();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    finish(&host, &logon, &message);
}

/// Proves: LG-1, TN-5
#[test]
fn unknown_flags_log_nobody_on_and_shut_nothing_down() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = try_log_on(&rig.provider, &host, LogonFlags::from_bits_retain(0x2));
    assert_eq!(code(logon), MapiCode::UNKNOWN_FLAGS);
    let shutdown =
        wait("Shutdown", rig.provider.shutdown(DeinitFlags::from_bits_retain(0x4000_0000)));
    assert_eq!(code(shutdown), MapiCode::UNKNOWN_FLAGS);
    let logon = rig.log_on(&host);
    assert_eq!(notify(&logon, TransportNotify::empty()), Ok(()), "it is alive");
}
