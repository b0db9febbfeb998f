//! The status row, its object, and flushing (spec sections 7 and 8).

use postoffice::{Action, Fault, SmtpAction, SmtpPhase};
use postrider::mapi::{
    EntryId, FlushFlags, MapiCode, ModifyStatusFlags, ResourceMethods, SpoolerNotify, StatusCode,
    TransportNotify, ValidateFlags,
};

use crate::foreign_host::{PATIENCE, Seen, wait};
use crate::foreign_message::HostMessage;
use crate::foreign_rig::{BEGIN, Rig, code, defer, finish, notify};

/// Whether a row ever had a flag.
fn had(seen: &Seen, flag: StatusCode) -> bool {
    seen.rows.iter().any(|(row, _)| row.status_code.is_some_and(|code| code.contains(flag)))
}

/// Proves: ST-1, ST-2, LG-1
#[test]
fn the_row_is_made_at_logon_and_merged_afterwards() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    {
        let seen = host.seen();
        let [(made, flags)] = seen.rows.as_slice() else { panic!("{:?}", seen.rows) };
        assert_eq!(*flags, ModifyStatusFlags::empty(), "the first call makes the row");
        assert_eq!(made.display_name.as_deref(), Some("ann"));
        assert_eq!(made.identity_display.as_deref(), Some("A Name <ann@example.org>"));
        let one_off = EntryId::one_off("A Name", "SMTP", "ann@example.org").unwrap();
        assert_eq!(made.identity_entry_id, Some(one_off));
        let key = b"SMTP:ANN@EXAMPLE.ORG\0".to_vec();
        assert_eq!(made.identity_search_key, Some(key));
        assert_eq!(made.status_code, Some(StatusCode::AVAILABLE));
        assert_eq!(made.status_string.as_deref(), Some("switched off"));
        let methods = ResourceMethods::VALIDATE_STATE | ResourceMethods::FLUSH_QUEUES;
        assert_eq!(made.resource_methods, Some(methods));
    }
    notify(&logon, BEGIN).unwrap();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    finish(&host, &logon, &message);
    wait("TransportLogoff", logon.transport_logoff(Default::default())).unwrap();
    let seen = host.seen();
    assert!(seen.rows.len() > 1);
    assert!(seen.rows[1..].iter().all(|(_, flags)| *flags == ModifyStatusFlags::UPDATE));
    assert_eq!(seen.row.display_name.as_deref(), Some("ann"), "merging keeps the other columns");
}

/// Proves: ST-4, TN-9
#[test]
fn outbound_is_active_exactly_while_a_message_moves() {
    let rig = Rig::new();
    let fault = rig.office.inject(Fault::smtp(SmtpPhase::Data, Action::Hang).once());
    let (host, logon) = rig.running();
    assert!(!had(&host.seen(), StatusCode::OUTBOUND_ACTIVE));
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    rig.serve(fault.reached(PATIENCE)).unwrap();
    host.wait_flag(StatusCode::OUTBOUND_ACTIVE, true);
    // What is on the wire is completed, never cut.
    notify(&logon, TransportNotify::END_OUTBOUND).unwrap();
    {
        let seen = host.seen();
        assert!(!seen.code().contains(StatusCode::OUTBOUND_ENABLED));
        assert!(seen.code().contains(StatusCode::OUTBOUND_ACTIVE));
    }
    fault.remove();
    host.wait_flag(StatusCode::OUTBOUND_ACTIVE, false);
    finish(&host, &logon, &message);
    assert_eq!(rig.office.accepted_count(), 1);
}

/// Proves: ST-3
#[test]
fn a_server_that_is_away_makes_the_row_offline_and_is_no_failure() {
    let rig = Rig::new();
    rig.serve(rig.office.stop());
    let (host, logon) = rig.running();
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    host.wait_flag(StatusCode::OFFLINE, true);
    {
        let seen = host.seen();
        assert!(!seen.code().intersects(StatusCode::AVAILABLE | StatusCode::FAILURE));
        assert!(seen.words().contains("MAPI_E_NETWORK_ERROR"), "{:?}", seen.row);
    }
    rig.serve(rig.office.restart()).unwrap();
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD | FlushFlags::DOWNLOAD)).unwrap();
    finish(&host, &logon, &message);
    host.wait_flag(StatusCode::OFFLINE, false);
    assert!(host.seen().code().contains(StatusCode::AVAILABLE));
}

/// Proves: FL-1, TN-12
#[test]
fn a_flush_wakes_what_was_deferred() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let later = SmtpAction::reply(451, "4.3.0", "later");
    let fault = Fault::smtp(SmtpPhase::Rcpt, later).matching("bob@").once();
    let fault = rig.office.inject(fault);
    // The recipient that fails at once has the host told that the attempt is over.
    let message = HostMessage::outgoing(1, &["bob@example.org", "550-5.1.1@example.org"]);
    defer(&logon, &message);
    host.wait_ended(&message.entry());
    assert_eq!(fault.hits(), 1);
    assert_eq!(rig.office.accepted_count(), 0, "it waits an hour for its next attempt");
    wait("FlushQueues", logon.flush_queues(FlushFlags::UPLOAD)).unwrap();
    assert!(had(&host.seen(), StatusCode::OUTBOUND_FLUSH), "shown before the call returns");
    host.wait_until("it ended", |seen| seen.ended(&message.entry()) > 1);
    finish(&host, &logon, &message);
    host.wait_flag(StatusCode::OUTBOUND_FLUSH, false);
    assert!(!had(&host.seen(), StatusCode::INBOUND_FLUSH), "that was not asked for");
}

/// Proves: TN-13, FL-1
#[test]
fn a_flush_of_a_closed_direction_runs_when_it_begins() {
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    let message = HostMessage::outgoing(1, &["bob@example.org"]);
    defer(&logon, &message);
    let both = FlushFlags::UPLOAD | FlushFlags::DOWNLOAD;
    wait("FlushQueues", logon.flush_queues(both)).unwrap();
    assert!(!had(&host.seen(), StatusCode::OUTBOUND_FLUSH | StatusCode::INBOUND_FLUSH));
    notify(&logon, TransportNotify::BEGIN_OUTBOUND).unwrap();
    assert!(had(&host.seen(), StatusCode::OUTBOUND_FLUSH), "it was remembered");
    finish(&host, &logon, &message);
    host.wait_flag(StatusCode::OUTBOUND_FLUSH, false);
    assert!(!had(&host.seen(), StatusCode::INBOUND_FLUSH), "inbound has not begun");
}

/// Proves: FL-6, ST-7
#[test]
fn unknown_flags_are_refused_and_change_nothing() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let entry = wait("OpenStatusEntry", logon.open_status_entry()).unwrap();
    let calls = host.seen().rows.len();
    let flush = FlushFlags::from_bits_retain(0x40) | FlushFlags::UPLOAD;
    let validate = ValidateFlags::from_bits_retain(0x2) | ValidateFlags::CONFIG_CHANGED;
    let unknown = MapiCode::UNKNOWN_FLAGS;
    assert_eq!(code(wait("FlushQueues", logon.flush_queues(flush))), unknown);
    assert_eq!(code(wait("FlushQueues", entry.flush_queues(None, flush))), unknown);
    assert_eq!(code(wait("ValidateState", logon.validate_state(validate))), unknown);
    assert_eq!(code(wait("ValidateState", entry.validate_state(validate))), unknown);
    let seen = host.seen();
    assert!(!had(&seen, StatusCode::OUTBOUND_FLUSH), "{} rows, then {:?}", calls, seen.rows);
    assert_eq!(seen.count(SpoolerNotify::CONFIG_CHANGE), 0);
}

/// Proves: ST-7, AT-1
#[test]
fn validate_state_passes_on_that_the_configuration_changed() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let quiet = ValidateFlags::SUPPRESS_UI;
    wait("ValidateState", logon.validate_state(quiet)).unwrap();
    assert_eq!(host.seen().count(SpoolerNotify::CONFIG_CHANGE), 0);
    wait("ValidateState", logon.validate_state(quiet | ValidateFlags::CONFIG_CHANGED)).unwrap();
    assert_eq!(host.seen().count(SpoolerNotify::CONFIG_CHANGE), 1);
    wait("AddressTypes", logon.address_types()).unwrap();
    for headers in [
        ValidateFlags::REFRESH_XP_HEADER_CACHE,
        ValidateFlags::PROCESS_XP_HEADER_CACHE,
        ValidateFlags::SHOW_XP_SESSION_UI,
    ] {
        let answer = code(wait("ValidateState", logon.validate_state(headers)));
        assert_eq!(answer, MapiCode::NO_SUPPORT, "{headers:?}");
    }
}

/// Proves: ST-6, FL-1, LG-9
#[test]
fn the_status_object_does_what_its_bits_say() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let entry = wait("OpenStatusEntry", logon.open_status_entry()).unwrap();
    let methods = entry.resource_methods();
    assert_eq!(host.seen().row.resource_methods, Some(methods), "the row says the same");
    let unsupported = MapiCode::NO_SUPPORT;
    assert!(!methods.contains(ResourceMethods::SETTINGS_DIALOG));
    assert_eq!(code(wait("SettingsDialog", entry.settings_dialog())), unsupported);
    assert!(!methods.contains(ResourceMethods::CHANGE_PASSWORD));
    assert_eq!(code(wait("ChangePassword", entry.change_password())), unsupported);
    assert!(methods.contains(ResourceMethods::VALIDATE_STATE));
    wait("ValidateState", entry.validate_state(ValidateFlags::CONFIG_CHANGED)).unwrap();
    assert_eq!(host.seen().count(SpoolerNotify::CONFIG_CHANGE), 1);
    assert!(methods.contains(ResourceMethods::FLUSH_QUEUES));
    wait("FlushQueues", entry.flush_queues(None, FlushFlags::UPLOAD)).unwrap();
    assert!(had(&host.seen(), StatusCode::OUTBOUND_FLUSH));
    host.wait_flag(StatusCode::OUTBOUND_FLUSH, false);
    drop(logon);
    host.wait_until("the support object is released", |seen| seen.released);
    let ended = code(wait("FlushQueues", entry.flush_queues(None, FlushFlags::UPLOAD)));
    assert_eq!(ended, MapiCode::END_OF_SESSION, "it does not keep the logon alive");
}
