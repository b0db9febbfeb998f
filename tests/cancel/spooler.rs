//! AbortSubmit by the spooler (what `Session::cancel` is) where a call about the message runs: the
//! spooler over the real store and the running provider, with the disk standing still.

use std::sync::Arc;

use postrider::clock::SystemClock;
use postrider::mapi::{EntryId, FlushFlags, LogonFlags, MapiCode, MessageRef, TransportNotify};
use postrider::spi::{MessageStore, NotifyData};
use postrider::spool::HistoryEnd;
use postrider::spooler::{Spooler, SpoolerOptions, TransportService};
use postrider::store::{LocalStore, RawSubmission, StoreOptions};

use crate::foreign_host::{PATIENCE, wait};
use crate::foreign_rig::{BEGIN, Rig, code};
use crate::held_spool::{HeldSpool, Place};
use crate::maildir::messages;
use crate::points::{LARGE, TO, text};
use crate::stage::{AT_ONCE, rig};

/// What a session is made of.
struct House {
    // Before the rig, whose runtime it works on.
    spooler: Spooler,
    store: Arc<LocalStore>,
    held: Arc<HeldSpool>,
    rig: Rig,
}

impl House {
    fn new() -> Self {
        let (rig, held) = rig();
        let maildir = rig.folder.path().join("Mail");
        let options = StoreOptions { maildir, ..StoreOptions::default() };
        let clock = Arc::new(SystemClock);
        let (spool, runtime) = (Arc::clone(&rig.spool), rig.runtime());
        let opening = LocalStore::open(options, spool, Arc::clone(&clock) as _, runtime);
        let store = rig.serve(opening).unwrap();
        let service = TransportService::new("ann", Arc::clone(&rig.provider))
            .provider_name("SMTP/IMAP")
            .section(rig.section("ann"))
            .sender("ann@example.org");
        let options =
            SpoolerOptions { logon: LogonFlags::NO_DIALOG, begin: BEGIN, poll_interval: PATIENCE };
        let lent = Arc::clone(&store) as Arc<dyn MessageStore>;
        let spooler = rig.serve(Spooler::start(lent, clock, vec![service], options)).unwrap();
        House { spooler, store, held, rig }
    }

    fn submit(&self, size: usize) -> EntryId {
        let submission = RawSubmission {
            recipients: TO.map(str::to_owned).to_vec(),
            default_sender: "ann@example.org".to_owned(),
            ..RawSubmission::default()
        };
        let bytes = Box::pin(std::io::Cursor::new(text(size)));
        self.rig.serve(self.store.submit_raw(submission, bytes)).unwrap().0
    }

    /// AbortSubmit; neither a server nor a disk is waited for.
    fn cancel(&self, entry: &EntryId) -> MapiCode {
        let call = async { tokio::time::timeout(AT_ONCE, self.spooler.cancel(entry)).await };
        code(self.rig.serve(call).expect("AbortSubmit waits for somebody"))
    }

    fn ended(&self, entry: &EntryId) -> Option<HistoryEnd> {
        self.rig.serve(self.rig.spool.history(entry)).unwrap().map(|history| history.end)
    }

    fn is_in_outbox(&self, entry: &EntryId) -> bool {
        self.rig.serve(self.rig.spool.outbox(entry)).unwrap().is_some()
    }

    /// Another message goes all the way.
    fn assert_next_goes(&self) {
        let before = self.rig.office.accepted_count();
        let mut ends = self.spooler.ended();
        let entry = self.submit(100);
        let ended = async { while ends.recv().await.unwrap() != entry {} };
        self.rig.serve(async { tokio::time::timeout(PATIENCE, ended).await }).unwrap();
        assert_eq!(self.ended(&entry), Some(HistoryEnd::Finished));
        assert_eq!(self.rig.office.accepted_count(), before + 1);
    }

    fn log_off(self) {
        self.rig.serve(self.spooler.logoff(crate::house::GRACE)).unwrap();
    }
}

/// Point b: the message is being read by the transport, and the reader stands still.
///
/// Proves: OB-15, TN-14
#[test]
fn abort_submit_reaches_into_a_conversion() {
    let house = House::new();
    let reading = house.held.hold(Place::Body(1_000_000));
    let entry = house.submit(LARGE);
    wait("the provider to come there", reading.reached.cancelled());
    assert_eq!(house.cancel(&entry), MapiCode::S_OK);
    assert!(!house.is_in_outbox(&entry));
    assert_eq!(house.ended(&entry), Some(HistoryEnd::Cancelled));
    assert_eq!(house.cancel(&entry), MapiCode::NOT_IN_QUEUE);
    house.assert_next_goes();
    reading.go.cancel();
    house.assert_next_goes();
    assert_eq!(house.rig.office.accepted_count(), 2);
    assert_eq!(messages(&house.rig.folder.path().join("Mail"), "Sent").len(), 2);
    house.log_off();
}

/// Point b, when the row is on its way to the disk: the answer comes with the disk.
///
/// Proves: OB-15, TN-14
#[test]
fn abort_submit_while_the_row_is_stored() {
    let house = House::new();
    let storing = house.held.hold(Place::Accept);
    let entry = house.submit(100);
    wait("the provider to come there", storing.reached.cancelled());
    let (answer, ()) = house.rig.serve(async {
        let letting_go = async { storing.go.cancel() };
        tokio::join!(tokio::time::timeout(AT_ONCE, house.spooler.cancel(&entry)), letting_go)
    });
    answer.expect("AbortSubmit waits for somebody").unwrap();
    assert!(!house.is_in_outbox(&entry));
    assert_eq!(house.ended(&entry), Some(HistoryEnd::Cancelled));
    house.assert_next_goes();
    assert_eq!(house.rig.office.accepted_count(), 1);
    house.log_off();
}

/// Point l: the server has it, the disk does not know.
///
/// Proves: OB-15, TN-17
#[test]
fn abort_submit_before_the_outcome_is_on_disk() {
    let house = House::new();
    let recording = house.held.hold(Place::Outcome);
    let entry = house.submit(100);
    wait("the provider to come there", recording.reached.cancelled());
    assert_eq!(house.cancel(&entry), MapiCode::UNABLE_TO_ABORT);
    let mut ends = house.spooler.ended();
    recording.go.cancel();
    house.rig.serve(ends.recv()).unwrap();
    assert_eq!(house.ended(&entry), Some(HistoryEnd::Finished));
    assert_eq!(house.cancel(&entry), MapiCode::NOT_IN_QUEUE);
    house.assert_next_goes();
    assert_eq!(house.rig.office.accepted_count(), 2);
    house.log_off();
}

/// Point m: the spooler hears of the end, and EndMessage is with the disk.
///
/// Proves: OB-15, TN-17
#[test]
fn abort_submit_while_the_spooler_hears_of_the_end() {
    let house = House::new();
    let settling = house.held.hold(Place::Settle);
    let entry = house.submit(100);
    wait("the provider to come there", settling.reached.cancelled());
    assert_eq!(house.cancel(&entry), MapiCode::UNABLE_TO_ABORT);
    let mut ends = house.spooler.ended();
    settling.go.cancel();
    house.rig.serve(ends.recv()).unwrap();
    assert_eq!(house.ended(&entry), Some(HistoryEnd::Finished));
    house.assert_next_goes();
    house.log_off();
}

/// Point s, received by the spooler: the message is in the Maildir and its cursor with the disk.
///
/// Proves: TN-14, TN-16, IB-6
#[test]
fn what_the_spooler_has_saved_stays_and_comes_once() {
    let house = House::new();
    let maildir = house.rig.folder.path().join("Mail");
    let committing = house.held.hold(Place::Cursor);
    house.rig.office.deliver("ann", "INBOX", text(100)).unwrap();
    wait("the provider to come there", committing.reached.cancelled());
    assert_eq!(messages(&maildir, "INBOX").len(), 1);
    for reference in 1..100 {
        let data = NotifyData::Reference(MessageRef(reference));
        let flags = TransportNotify::CANCEL_MESSAGE;
        let call = async {
            tokio::time::timeout(AT_ONCE, house.spooler.transport_notify(None, flags, data)).await
        };
        house.rig.serve(call).expect("TransportNotify waits for somebody").unwrap();
    }
    committing.go.cancel();
    house.rig.serve(house.spooler.flush(None, FlushFlags::DOWNLOAD)).unwrap();
    assert_eq!(messages(&maildir, "INBOX").len(), 1);
    assert_eq!(house.rig.office.message_count("ann", "INBOX"), 1);
    house.assert_next_goes();
    assert_eq!(messages(&maildir, "INBOX").len(), 1);
    house.log_off();
}
