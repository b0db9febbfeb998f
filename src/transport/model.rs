//! The open calls and the status row under a scheduler that tries how their threads can follow
//! each other. A failure prints the schedule, which `shuttle::replay` runs again.

use std::sync::Arc;

use async_trait::async_trait;
use shuttle::sync::Mutex;
use shuttle::thread;

use super::calls::{Calls, Direction, Outcome};
use super::events::{Activity, Gate};
use super::settings::Identity;
use super::status::{Situation, StatusRowKeeper};
use crate::mapi::{
    EntryId, MapiResult, MessageRef, ModifyStatusFlags, SpoolerNotify, StatusCode, TransportNotify,
};
use crate::spi::{
    Message, MessageRefCell, NotifyData, ProfileSection, RecipientReport, StatusColumns, Support,
    Yield,
};

/// Interleavings tried at random where all are too many.
const RANDOM: usize = 5_000;

fn ann() -> Identity {
    Identity { name: String::new(), address: "ann@example.org".to_owned() }
}

/// A host that writes down what it is told.
#[derive(Default)]
struct Host {
    codes: Mutex<Vec<StatusCode>>,
    signals: Mutex<Vec<SpoolerNotify>>,
}

#[async_trait]
impl Support for Host {
    fn profile_section(&self) -> ProfileSection {
        ProfileSection::new()
    }

    fn spooler_notify(&self, flags: SpoolerNotify, _: Option<&EntryId>) {
        self.signals.lock().unwrap().push(flags);
    }

    async fn spooler_yield(&self, _: Option<&EntryId>) -> Yield {
        Yield::Continue
    }

    fn modify_status_row(&self, columns: StatusColumns, _: ModifyStatusFlags) -> MapiResult<()> {
        self.codes.lock().unwrap().extend(columns.status_code);
        Ok(())
    }

    async fn status_recips(
        &self,
        _: &dyn Message,
        _: u32,
        _: Vec<RecipientReport>,
    ) -> MapiResult<()> {
        Ok(())
    }

    fn make_invalid(&self) {}
}

/// A host that cancels by the name it sees, and again if the name has changed meanwhile, stops the
/// call whenever it comes.
///
/// Proves: TN-14, TN-15, TN-19
#[test]
fn a_cancel_finds_the_call_by_one_name_or_the_other() {
    shuttle::check_dfs(
        || {
            let calls = Arc::new(Calls::default());
            let cell = Arc::new(MessageRefCell::outbound());
            let begun = calls.begin(Direction::Outbound);
            let token = begun.cancel.clone();
            let canceller = {
                let (calls, cell) = (Arc::clone(&calls), Arc::clone(&cell));
                thread::spawn(move || {
                    loop {
                        let name = cell.reference();
                        assert_eq!(calls.cancel(name), None);
                        if cell.reference() == name {
                            return;
                        }
                    }
                })
            };
            let named = begun.name(&cell);
            canceller.join().unwrap();
            assert!(token.is_cancelled());
            drop(named);
        },
        None,
    );
}

/// Proves: OB-2, OB-10, TN-19
#[test]
fn references_stay_unique_and_each_ends_once() {
    shuttle::check_random(
        || {
            let calls = Arc::new(Calls::default());
            let seen = Arc::new(Mutex::new(Vec::new()));
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    let (calls, seen) = (Arc::clone(&calls), Arc::clone(&seen));
                    thread::spawn(move || {
                        let cell = MessageRefCell::outbound();
                        let call = calls.begin(Direction::Outbound).name(&cell);
                        let reference = cell.reference();
                        assert!(calls.end(reference).is_none(), "it runs");
                        assert!(!call.keep(Outcome::Finished));
                        seen.lock().unwrap().push(reference);
                        reference
                    })
                })
                .collect();
            let references: Vec<MessageRef> =
                workers.into_iter().map(|worker| worker.join().unwrap()).collect();
            let mut unique = seen.lock().unwrap().clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), 3);
            // Two EndMessage calls for each: one of them finds it.
            let enders: Vec<_> = references
                .iter()
                .chain(&references)
                .map(|reference| {
                    let (calls, reference) = (Arc::clone(&calls), *reference);
                    thread::spawn(move || usize::from(calls.end(reference).is_some()))
                })
                .collect();
            let found: usize = enders.into_iter().map(|ender| ender.join().unwrap()).sum();
            assert_eq!(found, 3);
        },
        RANDOM,
    );
}

/// Proves: LG-9, TN-19
#[test]
fn the_end_of_the_logon_cancels_whatever_is_received() {
    shuttle::check_dfs(
        || {
            let calls = Arc::new(Calls::default());
            let begun = calls.begin(Direction::Inbound);
            let token = begun.cancel.clone();
            let ender = {
                let calls = Arc::clone(&calls);
                thread::spawn(move || calls.cancel_receiving())
            };
            let named = begun.name(&MessageRefCell::inbound());
            ender.join().unwrap();
            assert!(token.is_cancelled());
            drop(named);
        },
        None,
    );
}

/// Proves: TN-3, TN-19, ST-5
#[test]
fn the_row_shows_every_change_once_and_the_last_one_stands() {
    shuttle::check_random(
        || {
            let host = Arc::new(Host::default());
            let situation = Situation::default();
            let support = Arc::clone(&host) as Arc<dyn Support>;
            let row = Arc::new(StatusRowKeeper::create(support, "work", &ann(), situation));
            let begin = TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_OUTBOUND;
            let end = TransportNotify::END_INBOUND | TransportNotify::END_OUTBOUND;
            let callers = [begin, end, begin, end].map(|flags| {
                let row = Arc::clone(&row);
                thread::spawn(move || {
                    row.update(|situation| {
                        let step = situation.notify.step(flags, NotifyData::None).unwrap();
                        situation.notify = step.next;
                    });
                })
            });
            let mover = {
                let row = Arc::clone(&row);
                thread::spawn(move || {
                    for activity in [Activity::Moving, Activity::Idle] {
                        row.update(|situation| situation.outbound_activity = activity);
                    }
                })
            };
            callers.into_iter().chain([mover]).for_each(|caller| caller.join().unwrap());

            let codes = host.codes.lock().unwrap().clone();
            let now = row.situation();
            assert_eq!(codes.last(), Some(&now.status_code()));
            let open = now.notify.outbound.gate == Gate::Open;
            assert_eq!(open, now.notify.inbound.gate == Gate::Open);
            let both = StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED;
            assert!(codes.iter().all(|code| code.contains(both) || !code.intersects(both)));
            assert!(codes.windows(2).all(|two| two.first() != two.last()), "{codes:?}");
            let moves = codes.iter().filter(|code| code.contains(StatusCode::OUTBOUND_ACTIVE));
            assert!(moves.count() >= 1, "{codes:?}");
        },
        RANDOM,
    );
}

/// Proves: LG-9, TN-19
#[test]
fn a_row_that_was_silenced_says_nothing_more() {
    shuttle::check_random(
        || {
            let host = Arc::new(Host::default());
            let support = Arc::clone(&host) as Arc<dyn Support>;
            let row =
                Arc::new(StatusRowKeeper::create(support, "work", &ann(), Situation::default()));
            let talkers = [Activity::Moving, Activity::Idle, Activity::Moving].map(|activity| {
                let row = Arc::clone(&row);
                thread::spawn(move || {
                    row.update(|situation| situation.inbound_activity = activity);
                    row.notify(SpoolerNotify::NEWMAIL, None);
                })
            });
            row.silence();
            let heard = (host.codes.lock().unwrap().len(), host.signals.lock().unwrap().len());
            talkers.into_iter().for_each(|talker| talker.join().unwrap());
            let after = (host.codes.lock().unwrap().len(), host.signals.lock().unwrap().len());
            assert_eq!(heard, after);
        },
        RANDOM,
    );
}
