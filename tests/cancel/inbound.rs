//! Points o to t through the traits alone: the message stays on the server until it is in the
//! store, and gets there exactly once.

use std::sync::Arc;
use std::thread;

use postoffice::{Action, Fault, FaultHandle, ImapPhase, Protocol};
use postrider::mapi::{
    FlushFlags, MapiCode, MessageRef, SpoolerNotify, StatusCode, TransportNotify,
};
use postrider::spi::Message;

use crate::foreign_host::{PATIENCE, wait};
use crate::foreign_message::{Hold, Holds, HostMessage};
use crate::foreign_rig::{code, receive};
use crate::held_spool::Place;
use crate::points::text;
use crate::stage::{Stage, at_once};

const BEGIN: TransportNotify = TransportNotify::BEGIN_INBOUND;

/// So much is fetched in pieces, while the host takes it.
const IN_PIECES: usize = 3_000_000;

/// StartMessage on a thread of its own.
fn starting(stage: &Stage, message: &Arc<HostMessage>) -> thread::JoinHandle<MapiCode> {
    let (logon, message) = (Arc::clone(&stage.logon), Arc::clone(message));
    thread::spawn(move || {
        let lent = Arc::clone(&message) as Arc<dyn Message>;
        code(wait("StartMessage", logon.start_message(lent, &message.cell)))
    })
}

fn answer(call: thread::JoinHandle<MapiCode>) -> MapiCode {
    at_once("StartMessage", || call.join().unwrap())
}

fn deliver(stage: &Stage, size: usize) -> Vec<u8> {
    let bytes = text(size);
    stage.rig.office.deliver("ann", "INBOX", bytes.clone()).unwrap();
    bytes
}

fn hang(stage: &Stage, fault: Fault) -> FaultHandle {
    stage.rig.office.inject(fault.once())
}

fn announced(stage: &Stage) -> usize {
    stage.host.seen().count(SpoolerNotify::NEWMAIL)
}

fn await_announced(stage: &Stage, before: usize) {
    let what = "mail is announced";
    stage.host.wait_until(what, |seen| seen.count(SpoolerNotify::NEWMAIL) > before);
}

fn connections(stage: &Stage) -> u64 {
    stage.rig.office.counters(Protocol::Imap).connections
}

/// The next opportunity has come: the message arrives once, whole, and is still on the server.
fn assert_arrives_once(stage: &Stage, before: usize, bytes: &[u8]) {
    await_announced(stage, before);
    assert_arrives_now(stage, bytes);
}

fn assert_arrives_now(stage: &Stage, bytes: &[u8]) {
    let message = receive(&stage.logon).unwrap();
    assert_eq!(message.state().saves, 1, "nothing was handed over");
    assert!(message.bytes().unwrap() == bytes, "the text is another one");
    assert_left_alone(stage, 1);
}

/// Nothing more comes, and the server has what it had.
fn assert_left_alone(stage: &Stage, on_server: usize) {
    assert_eq!(receive(&stage.logon).unwrap().state().saves, 0, "it came twice");
    wait("FlushQueues", stage.logon.flush_queues(FlushFlags::DOWNLOAD)).unwrap();
    stage.host.wait_flag(StatusCode::INBOUND_FLUSH, false);
    assert_eq!(receive(&stage.logon).unwrap().state().saves, 0, "it came twice");
    assert_eq!(stage.rig.office.message_count("ann", "INBOX"), on_server);
}

/// The half-filled object is the host's to discard.
fn assert_discarded(message: &HostMessage) {
    assert_eq!(message.state().saves, 0);
    assert_eq!(message.bytes(), None);
}

/// Point o.
///
/// Proves: TN-14, TN-15, IB-2
#[test]
fn before_it_has_a_reference_the_value_1_cancels_it() {
    let stage = Stage::new(BEGIN);
    let bytes = deliver(&stage, 100);
    await_announced(&stage, 0);
    let message = HostMessage::incoming();
    let lent = Arc::clone(&message) as Arc<dyn Message>;
    let call = stage.logon.start_message(lent, &message.cell);
    assert_eq!(message.cell.reference(), MessageRef::INBOUND_UNSET);
    assert_eq!(stage.cancel(MessageRef::OUTBOUND_UNSET), MapiCode::S_OK, "the other direction's");
    assert_eq!(stage.cancel(MessageRef::INBOUND_UNSET), MapiCode::S_OK);
    assert_eq!(code(wait("StartMessage", call)), MapiCode::CANCEL);
    assert_eq!(message.state().reference_at_touch, None, "the message was touched");
    assert_discarded(&message);
    // It was not even taken out of the line.
    assert_arrives_now(&stage, &bytes);
}

/// Point p: the call waits for the server during a flush, for a large message as for a small one.
///
/// Proves: TN-10, TN-14
#[test]
fn while_it_waits_for_the_server_it_can_be_cancelled() {
    let phases = [ImapPhase::Login, ImapPhase::Select, ImapPhase::Fetch, ImapPhase::MidLiteral];
    for phase in phases {
        println!("{phase:?}");
        let mut fault = None;
        let stage = Stage::with(TransportNotify::empty(), |rig| {
            rig.office.deliver("ann", "INBOX", text(100)).unwrap();
            fault = Some(rig.office.inject(Fault::imap(phase, Action::Hang).once()));
        });
        let hang = fault.unwrap();
        crate::foreign_rig::notify(&stage.logon, BEGIN).unwrap();
        stage.rig.serve(hang.reached(PATIENCE)).unwrap();
        wait("FlushQueues", stage.logon.flush_queues(FlushFlags::DOWNLOAD)).unwrap();
        let message = HostMessage::incoming();
        let call = starting(&stage, &message);
        let named = || (message.cell.reference() >= MessageRef::FIRST).then_some(());
        realservers::wait::until("it has a reference", PATIENCE, named).unwrap();
        assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
        assert_eq!(answer(call), MapiCode::CANCEL, "the server is silent");
        assert_discarded(&message);
        let before = announced(&stage);
        hang.remove();
        assert_arrives_once(&stage, before, &text(100));
    }
}

/// Points p and q: the host takes a large message that the server does not give, or not whole. The
/// server is silent for ever, and the message comes over another connection.
///
/// Proves: TN-2, TN-14, IB-7
#[test]
fn amid_a_large_message_it_can_be_cancelled() {
    let faults = [
        Fault::imap(ImapPhase::Fetch, Action::Hang).matching("BODY.PEEK"),
        Fault::imap(ImapPhase::MidLiteral, Action::Hang),
        Fault::imap(ImapPhase::MidLiteral, Action::Hang).at_byte(1),
        Fault::imap(ImapPhase::MidLiteral, Action::Hang).nth(3),
    ];
    for fault in faults {
        println!("{fault:?}");
        let stage = Stage::new(BEGIN);
        let hang = hang(&stage, fault);
        let bytes = deliver(&stage, IN_PIECES);
        await_announced(&stage, 0);
        let message = HostMessage::incoming();
        let call = starting(&stage, &message);
        stage.rig.serve(hang.reached(PATIENCE)).unwrap();
        let (before, used) = (announced(&stage), connections(&stage));
        assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
        assert_eq!(answer(call), MapiCode::CANCEL);
        assert_discarded(&message);
        // The next opportunity does not wait for the server to speak again.
        let waiting = std::time::Instant::now();
        await_announced(&stage, before);
        assert!(waiting.elapsed() < crate::stage::AT_ONCE, "{:?}", waiting.elapsed());
        assert_arrives_now(&stage, &bytes);
        assert_eq!(connections(&stage), used + 1, "the connection was used again");
        let words = stage.host.seen().words().to_owned();
        assert!(!words.contains("lost"), "a cancel is no trouble: {words}");
        let commands = stage.rig.office.counters(Protocol::Imap);
        assert!(commands.open <= 1, "the silent connection is still open");
        hang.remove();
    }
}

/// Point r: the store does not take the text.
///
/// Proves: TN-14, IB-7
#[test]
fn while_the_store_writes_it_can_be_cancelled() {
    for size in [100, IN_PIECES] {
        let stage = Stage::new(BEGIN);
        let bytes = deliver(&stage, size);
        await_announced(&stage, 0);
        let hold = Hold::default();
        let holds = Holds { sink: Some(hold.clone()), ..Holds::default() };
        let message = HostMessage::incoming_held(holds);
        let call = starting(&stage, &message);
        wait("the transport to write", hold.reached.cancelled());
        let before = announced(&stage);
        assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
        assert_eq!(answer(call), MapiCode::CANCEL);
        assert_discarded(&message);
        assert_arrives_once(&stage, before, &bytes);
    }
}

/// Points r and s: SaveChanges runs, or the cursor is on its way to the disk. The outcome stands.
///
/// Proves: TN-14, IB-6
#[test]
fn once_it_is_being_saved_the_outcome_stands() {
    for place in [None, Some(Place::Cursor)] {
        let stage = Stage::new(BEGIN);
        let bytes = deliver(&stage, 100);
        await_announced(&stage, 0);
        let mut holds = Holds::default();
        let hold = match place {
            Some(place) => stage.held.hold(place),
            None => holds.save.insert(Hold::default()).clone(),
        };
        let message = HostMessage::incoming_held(holds);
        let call = starting(&stage, &message);
        wait("the transport to save", hold.reached.cancelled());
        assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
        assert!(!call.is_finished(), "nobody knows yet whether it is saved");
        hold.go.cancel();
        assert_eq!(answer(call), MapiCode::S_OK);
        assert_eq!(message.state().saves, 1);
        assert!(message.bytes().unwrap() == bytes);
        assert_left_alone(&stage, 1);
    }
}

/// Point t.
///
/// Proves: TN-16
#[test]
fn after_all_the_reference_names_nothing() {
    let stage = Stage::new(BEGIN);
    let bytes = deliver(&stage, 100);
    await_announced(&stage, 0);
    let message = receive(&stage.logon).unwrap();
    assert_eq!(message.state().saves, 1);
    assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
    assert_eq!(stage.cancel(MessageRef::INBOUND_UNSET), MapiCode::S_OK);
    assert!(message.bytes().unwrap() == bytes);
    assert_left_alone(&stage, 1);
}
