//! NOTIFY_NEWMAIL, Poll and StartMessage (spec section 6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use postrider::mapi::{
    FlushFlags, LogonFlags, LogonOutFlags, MapiCode, MessageRef, SpoolerNotify, StatusCode,
    TransportNotify, tags,
};
use postrider::spi::{Incoming, NotifyData, SectionValue};

use crate::foreign_host::{Host, wait};
use crate::foreign_rig::{Rig, log_on, notify, receive};

fn mail(number: usize) -> Vec<u8> {
    format!("From: bob@example.org\r\nSubject: Mail {number}\r\n\r\nHello.\r\n").into_bytes()
}

/// Proves: IB-1, IB-2, IB-3, IB-4, IB-5, OB-2
#[test]
fn start_message_hands_over_until_one_comes_back_unsaved() {
    const COUNT: usize = 12;
    let rig = Rig::new();
    let host = rig.host();
    let logon = rig.log_on(&host);
    rig.office.deliver_all("ann", "INBOX", (0..COUNT).map(mail)).unwrap();
    assert_eq!(receive(&logon).unwrap().state().saves, 0, "inbound has not begun");
    notify(&logon, TransportNotify::BEGIN_INBOUND).unwrap();
    let mut received: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut asked = 0;
    while received.len() < COUNT {
        // IB-4: while more is waiting it is announced again.
        host.wait_until("mail is announced", |seen| seen.count(SpoolerNotify::NEWMAIL) > asked);
        asked = host.seen().count(SpoolerNotify::NEWMAIL);
        loop {
            let message = receive(&logon).unwrap();
            let state = message.state();
            let reference = message.cell.reference();
            assert!(reference >= MessageRef::FIRST, "{reference}");
            if state.saves == 0 {
                assert_eq!(state.reference_at_touch, None, "with nothing to hand over it is left");
                break;
            }
            assert_eq!(state.saves, 1);
            assert_eq!(state.reference_at_touch, Some(reference), "set before the first touch");
            let props = &state.data.props;
            assert!(props.binary(tags::SEARCH_KEY).is_some());
            assert_eq!(props.value(tags::ENTRYID), None, "the host gives entry ids");
            drop(state);
            assert!(received.insert(message.bytes().unwrap()), "a message came twice");
        }
    }
    assert_eq!(received, (0..COUNT).map(mail).collect());
    assert_eq!(receive(&logon).unwrap().state().saves, 0, "nothing is left");
}

/// Proves: IB-2
#[test]
fn a_large_message_is_received_as_it_is() {
    let rig = Rig::new();
    let (host, logon) = rig.running();
    let bytes = [mail(1), b"All work and no play.\r\n".repeat(200_000)].concat();
    rig.office.deliver("ann", "INBOX", bytes.clone()).unwrap();
    host.wait_until("mail is announced", |seen| seen.count(SpoolerNotify::NEWMAIL) > 0);
    let message = receive(&logon).unwrap();
    assert_eq!(message.state().saves, 1);
    assert!(message.bytes().unwrap() == bytes, "the bytes are others");
}

/// Proves: IB-1, LG-7, TN-7
#[test]
fn poll_answers_only_while_inbound_is_enabled() {
    let rig = Rig::new();
    let section = rig.section("ann").with("imap.push", SectionValue::Switch(false));
    let host = Host::new(section);
    let (logon, out) = log_on(&rig.provider, &host, LogonFlags::empty());
    assert_eq!(out, LogonOutFlags::SP_POLL);
    rig.office.deliver("ann", "INBOX", mail(1)).unwrap();
    assert_eq!(wait("Poll", logon.poll()), Ok(Incoming::None), "inbound has not begun");
    notify(&logon, TransportNotify::BEGIN_INBOUND).unwrap();
    assert_eq!(wait("Poll", logon.poll()), Ok(Incoming::Waiting));
    assert_eq!(receive(&logon).unwrap().bytes(), Some(mail(1)));
    assert_eq!(wait("Poll", logon.poll()), Ok(Incoming::None), "nothing is left");
    rig.office.deliver("ann", "INBOX", mail(2)).unwrap();
    assert_eq!(wait("Poll", logon.poll()), Ok(Incoming::Waiting));
    notify(&logon, TransportNotify::END_INBOUND).unwrap();
    assert!(!host.seen().code().contains(StatusCode::INBOUND_ENABLED));
    assert_eq!(wait("Poll", logon.poll()), Ok(Incoming::None));
    assert_eq!(receive(&logon).unwrap().state().saves, 0);
    notify(&logon, TransportNotify::BEGIN_INBOUND).unwrap();
    assert_eq!(wait("Poll", logon.poll()), Ok(Incoming::Waiting), "it was not lost");
    assert_eq!(receive(&logon).unwrap().bytes(), Some(mail(2)));
}

/// Proves: FL-1, FL-3, TN-10, TN-11
#[test]
fn an_inbound_flush_hands_over_all_that_was_there() {
    const COUNT: usize = 30;
    let rig = Rig::new();
    let (host, logon) = rig.running();
    host.wait_flag(StatusCode::INBOUND_ENABLED, true);
    rig.office.deliver_all("ann", "INBOX", (0..COUNT).map(mail)).unwrap();
    wait("FlushQueues", logon.flush_queues(FlushFlags::DOWNLOAD)).unwrap();
    let flushing = |seen: &crate::foreign_host::Seen| {
        seen.rows.iter().any(|(row, _)| {
            row.status_code.is_some_and(|code| code.contains(StatusCode::INBOUND_FLUSH))
        })
    };
    assert!(flushing(&host.seen()), "the row shows it before the call returns");
    let received: Vec<Vec<u8>> = thread::scope(|scope| {
        let drain = || {
            let mut bytes = Vec::new();
            loop {
                let message = receive(&logon).unwrap();
                if message.state().saves == 0 {
                    return bytes;
                }
                bytes.push(message.bytes().unwrap());
            }
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(drain)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(received.len(), COUNT, "one comes back unsaved only when all was handed over");
    let unique: BTreeSet<Vec<u8>> = received.into_iter().collect();
    assert_eq!(unique, (0..COUNT).map(mail).collect());
    host.wait_flag(StatusCode::INBOUND_FLUSH, false);
    notify(&logon, TransportNotify::END_INBOUND_FLUSH).unwrap();
}

/// Proves: TN-10, TN-14
#[test]
fn a_start_message_that_waits_during_a_flush_can_be_cancelled() {
    let rig = Rig::new();
    let fault = postoffice::Fault::imap(postoffice::ImapPhase::Select, postoffice::Action::Hang);
    let fault = rig.office.inject(fault);
    let (_host, logon) = rig.running();
    rig.serve(fault.reached(crate::foreign_host::PATIENCE)).unwrap();
    wait("FlushQueues", logon.flush_queues(FlushFlags::DOWNLOAD)).unwrap();
    let message = crate::foreign_message::HostMessage::incoming();
    let start = {
        let (logon, message) = (Arc::clone(&logon), Arc::clone(&message));
        thread::spawn(move || {
            let lent = Arc::clone(&message) as Arc<dyn postrider::spi::Message>;
            wait("StartMessage", logon.start_message(lent, &message.cell)).unwrap_err().code()
        })
    };
    let deadline = std::time::Instant::now() + crate::foreign_host::PATIENCE;
    while message.cell.reference() < MessageRef::FIRST {
        assert!(std::time::Instant::now() < deadline, "no reference was set");
        thread::yield_now();
    }
    let data = NotifyData::Reference(message.cell.reference());
    let flags = TransportNotify::CANCEL_MESSAGE;
    wait("TransportNotify", logon.transport_notify(flags, data)).unwrap();
    assert_eq!(start.join().unwrap(), MapiCode::CANCEL, "the server is still silent");
    assert_eq!(message.state().saves, 0);
}
