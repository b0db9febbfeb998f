//! How far a mailbox is fetched: which UIDs are done, which may be, and what of that is on disk.
//!
//! Messages end in any order; the cursor moves over a UID only when every listed UID below it has
//! ended. What is on disk is always behind what is known here, never ahead.

use std::collections::{BTreeMap, BTreeSet};

use super::key::ContentDigest;
use super::uids::UidSet;
use crate::spi::Repetition;
use crate::spool::{CopyIntent, CursorRecord, Retired};

/// Most UIDs that may be set aside; with more the mailbox waits, because the server is at fault.
pub(super) const MOST_SET_ASIDE: usize = 1000;

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is in the store.
    Delivered(ContentDigest),
    /// It was in the store before the mailbox was rebuilt.
    Known(ContentDigest),
    /// It is no longer on the server.
    Gone,
    /// It could not be handled.
    SetAside,
}

/// What of a mailbox is known. `record` is what was committed last.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    record: CursorRecord,
    /// Every UID up to this one was listed: if it is not below, it does not exist.
    listed_to: u32,
    /// Listed, above the cursor and not ended.
    outstanding: BTreeSet<u32>,
    /// Set aside before and being tried again.
    retrying: BTreeSet<u32>,
    /// Ended and not yet on disk as such.
    ended: BTreeMap<u32, Ending>,
    set_aside: BTreeSet<u32>,
    owed: UidSet,
    /// A COPY that was begun.
    copying: Option<CopyIntent>,
    /// UIDs up to this one may have been saved by an earlier run.
    possible_to: u32,
}

/// A step of the cursor that is to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The new record.
    pub(super) record: CursorRecord,
    /// What ended by it.
    pub(super) settled: Vec<(u32, Ending)>,
}

/// Whether messages that are safely fetched are to be touched on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owes {
    /// They are left as they are.
    Nothing,
    /// Each gets an `after` action.
    Action,
}

impl Progress {
    /// Goes on from what is on disk.
    pub(super) fn resume(record: CursorRecord) -> Self {
        Progress {
            listed_to: record.last_uid,
            outstanding: BTreeSet::new(),
            retrying: BTreeSet::new(),
            ended: BTreeMap::new(),
            set_aside: record.set_aside.iter().copied().collect(),
            owed: UidSet::of(&record.after_owed),
            copying: record.copying.clone(),
            possible_to: record.window_end,
            record,
        }
    }

    /// The record to begin with in a mailbox that is new (`rematch_until` 0) or was rebuilt.
    pub(super) fn fresh(uid_validity: u32, rematch_until: u32) -> CursorRecord {
        CursorRecord { uid_validity, rematch_until, ..CursorRecord::default() }
    }

    pub(super) fn uid_validity(&self) -> u32 {
        self.record.uid_validity
    }

    pub(super) fn last_uid(&self) -> u32 {
        self.record.last_uid
    }

    /// What is on disk.
    pub(super) fn record(&self) -> &CursorRecord {
        &self.record
    }

    /// What the disk says now, beside what [`Progress::step`] will change.
    pub(super) fn set_record(&mut self, record: CursorRecord) {
        self.record = record;
    }

    /// The numbering as of now, for the day it is no longer valid.
    pub(super) fn retire(&self) -> Retired {
        let saved = |ending: &Ending| matches!(ending, Ending::Delivered(_) | Ending::Known(_));
        Retired {
            uid_validity: self.record.uid_validity,
            last_uid: self.record.last_uid,
            set_aside: self.set_aside.iter().copied().collect(),
            saved: self.ended.iter().filter(|(_, it)| saved(it)).map(|(uid, _)| *uid).collect(),
        }
    }

    /// Whether every message that was to be compared with earlier ones has been, and something
    /// is left of the comparison.
    pub(super) fn is_rematch_over(&self) -> bool {
        let until = self.record.rematch_until;
        let behind = self.set_aside.first().is_some_and(|uid| *uid <= until)
            || self.ended.keys().next().is_some_and(|uid| *uid <= until)
            || self.retrying.first().is_some_and(|uid| *uid <= until);
        until > 0 && self.record.last_uid >= until && !behind
    }

    /// Whether `uid` is on disk as being in the store.
    pub(super) fn is_settled(&self, uid: u32) -> bool {
        uid <= self.record.last_uid
            && !self.set_aside.contains(&uid)
            && !self.retrying.contains(&uid)
            && !self.ended.contains_key(&uid)
    }

    /// Whether `uid` is to be compared with what was delivered before the mailbox was rebuilt.
    pub(super) fn is_rematched(&self, uid: u32) -> bool {
        uid <= self.record.rematch_until
    }

    /// The first UID that was not listed yet; `None` when there can be none.
    pub(super) fn next_uid(&self) -> Option<u32> {
        self.listed_to.checked_add(1)
    }

    /// How many listed messages have not ended.
    pub(super) fn pending(&self) -> usize {
        self.outstanding.len() + self.retrying.len()
    }

    /// How many messages are known here beyond what is on disk; bounds how far to list.
    pub(super) fn spread(&self) -> usize {
        self.outstanding.len() + self.ended.len()
    }

    pub(super) fn set_aside(&self) -> &BTreeSet<u32> {
        &self.set_aside
    }

    /// Those that were set aside on disk or since.
    pub(super) fn all_set_aside(&self) -> Vec<u32> {
        let new = self.ended.iter().filter(|(_, ending)| **ending == Ending::SetAside);
        let mut all = self.set_aside.clone();
        all.extend(new.map(|(uid, _)| *uid));
        all.retain(
            |uid| !matches!(self.ended.get(uid), Some(ending) if *ending != Ending::SetAside),
        );
        all.into_iter().collect()
    }

    /// UIDs whose `after` action is owed; all of them are on disk as delivered.
    pub(super) fn owed(&self) -> &UidSet {
        &self.owed
    }

    /// Every UID up to `to` was listed, and these exist.
    pub(super) fn listed(&mut self, uids: impl IntoIterator<Item = u32>, to: u32) {
        let from = self.listed_to;
        self.outstanding.extend(uids.into_iter().filter(|uid| *uid > from && *uid <= to));
        self.listed_to = self.listed_to.max(to);
    }

    /// Takes up a message that was set aside; false when it was not.
    pub(super) fn retry(&mut self, uid: u32) -> bool {
        self.set_aside.contains(&uid) && !self.ended.contains_key(&uid) && self.retrying.insert(uid)
    }

    /// Whether an earlier run may have saved this message.
    pub(super) fn repetition(&self, uid: u32) -> Repetition {
        if uid <= self.possible_to || self.set_aside.contains(&uid) {
            Repetition::Possible
        } else {
            Repetition::First
        }
    }

    /// A message has ended. False when it was not outstanding, or when nothing more can be set
    /// aside.
    pub(super) fn end(&mut self, uid: u32, ending: Ending) -> bool {
        let again = self.retrying.contains(&uid);
        if ending == Ending::SetAside {
            if again {
                // It is on disk as set aside already.
                return self.retrying.remove(&uid);
            }
            let coming = self.ended.values().filter(|ending| **ending == Ending::SetAside).count();
            if self.set_aside.len() + coming >= MOST_SET_ASIDE {
                return false;
            }
        }
        let known = self.retrying.remove(&uid) || self.outstanding.remove(&uid);
        if known {
            self.ended.insert(uid, ending);
        }
        known
    }

    /// The COPY that was begun.
    pub(super) fn copying(&self) -> Option<&CopyIntent> {
        self.copying.as_ref()
    }

    /// Notes a COPY before it is begun, and that its originals are flagged.
    pub(super) fn set_copying(&mut self, intent: Option<CopyIntent>) {
        self.copying = intent;
    }

    /// The `after` action of these messages is done.
    pub(super) fn after_done(&mut self, uids: &[u32]) {
        for uid in uids {
            self.owed.remove(*uid);
        }
    }

    /// The profile wants no `after` action any more.
    pub(super) fn owe_nothing(&mut self) {
        self.owed.clear();
    }

    /// Every UID up to the result has ended.
    fn reach(&self) -> u32 {
        let reach = match self.outstanding.first() {
            Some(first) => first.saturating_sub(1),
            None => self.listed_to,
        };
        reach.max(self.record.last_uid)
    }

    /// What is to be committed; `None` when what is on disk says everything.
    pub(super) fn step(&self, owes: Owes) -> Option<Step> {
        let last_uid = self.reach();
        let settled: Vec<(u32, Ending)> =
            self.ended.range(..=last_uid).map(|(uid, ending)| (*uid, *ending)).collect();
        let (mut set_aside, mut owed) = (self.set_aside.clone(), self.owed.clone());
        settle(&settled, owes, &mut set_aside, &mut owed);
        let window_end = self
            .record
            .window_end
            .max(last_uid)
            .max(self.outstanding.last().copied().unwrap_or(0))
            .max(self.ended.last_key_value().map_or(0, |(uid, _)| *uid));
        let record = CursorRecord {
            uid_validity: self.record.uid_validity,
            last_uid,
            window_end,
            set_aside: set_aside.into_iter().collect(),
            after_owed: owed.ranges(),
            rematch_until: self.record.rematch_until,
            counted: self.record.counted.saturating_add(saved(&settled)),
            retired: self.record.retired.clone(),
            copying: self.copying.clone(),
        };
        let changed = record != self.record || !settled.is_empty();
        changed.then_some(Step { record, settled })
    }

    /// The step is on disk.
    pub(super) fn committed(&mut self, step: &Step, owes: Owes) {
        for (uid, _) in &step.settled {
            self.ended.remove(uid);
        }
        settle(&step.settled, owes, &mut self.set_aside, &mut self.owed);
        self.record = step.record.clone();
    }

    /// Whether the disk knows that `uid` is being handed over.
    pub(super) fn is_announced(&self, uid: u32) -> bool {
        uid <= self.record.window_end
    }
}

/// How many of these are in the store.
fn saved(settled: &[(u32, Ending)]) -> u32 {
    let saved = settled
        .iter()
        .filter(|(_, ending)| matches!(ending, Ending::Delivered(_) | Ending::Known(_)));
    u32::try_from(saved.count()).unwrap_or(u32::MAX)
}

fn settle(settled: &[(u32, Ending)], owes: Owes, set_aside: &mut BTreeSet<u32>, owed: &mut UidSet) {
    for (uid, ending) in settled {
        match ending {
            Ending::SetAside => {
                set_aside.insert(*uid);
            }
            Ending::Delivered(_) | Ending::Known(_) => {
                set_aside.remove(uid);
                if owes == Owes::Action {
                    owed.insert(*uid);
                }
            }
            Ending::Gone => {
                set_aside.remove(uid);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spool::UidRange;

    const DIGEST: ContentDigest = [1; 16];

    fn at(last_uid: u32) -> Progress {
        let record = CursorRecord { last_uid, ..Progress::fresh(7, 0) };
        Progress::resume(CursorRecord { window_end: last_uid, ..record })
    }

    fn commit(progress: &mut Progress) -> Step {
        let step = progress.step(Owes::Action).unwrap();
        progress.committed(&step, Owes::Action);
        assert_eq!(progress.step(Owes::Action), None);
        step
    }

    #[test]
    fn the_window_is_on_disk_before_the_first_message() {
        let mut progress = at(10);
        progress.listed([12, 15], 20);
        assert!(!progress.is_announced(12));
        let step = commit(&mut progress);
        assert_eq!((step.record.last_uid, step.record.window_end), (11, 15));
        assert!(step.settled.is_empty());
        assert!(progress.is_announced(15));
        // After a crash now both are repeated as possible ones, and nothing else is.
        let again = Progress::resume(step.record);
        assert_eq!(again.repetition(15), Repetition::Possible);
        assert_eq!(again.repetition(16), Repetition::First);
        assert_eq!(again.next_uid(), Some(12));
    }

    #[test]
    fn the_cursor_waits_for_the_lowest() {
        let mut progress = at(10);
        progress.listed([11, 12, 15], 20);
        commit(&mut progress);
        assert!(progress.end(12, Ending::Delivered(DIGEST)));
        assert!(progress.end(15, Ending::Gone));
        assert_eq!(progress.step(Owes::Action), None);
        assert_eq!(progress.retire().saved, [12]);
        assert!(progress.end(11, Ending::Delivered(DIGEST)));
        let step = commit(&mut progress);
        assert_eq!(step.record.last_uid, 20);
        assert_eq!(step.settled.len(), 3);
        assert_eq!(step.record.after_owed, [UidRange { first: 11, last: 12 }]);
        assert_eq!(progress.pending(), 0);
        assert!(!progress.end(11, Ending::Gone), "it has ended before");
    }

    #[test]
    fn nothing_new_moves_the_cursor_to_the_end_of_the_list() {
        let mut progress = at(10);
        progress.listed([], 99);
        assert_eq!(commit(&mut progress).record.last_uid, 99);
        assert_eq!(progress.next_uid(), Some(100));
        let full = at(u32::MAX);
        assert_eq!(full.next_uid(), None);
    }

    #[test]
    fn what_is_set_aside_lets_the_rest_pass_and_can_come_back() {
        let mut progress = at(0);
        progress.listed([1, 2], 2);
        progress.end(1, Ending::SetAside);
        progress.end(2, Ending::Delivered(DIGEST));
        let step = commit(&mut progress);
        assert_eq!((step.record.last_uid, step.record.set_aside), (2, vec![1]));
        assert!(progress.retry(1));
        assert!(!progress.retry(1), "it is being tried already");
        assert!(!progress.retry(2));
        assert_eq!(progress.repetition(1), Repetition::Possible);
        assert!(progress.end(1, Ending::SetAside));
        assert_eq!(progress.step(Owes::Action), None, "nothing has changed");
        assert!(progress.retry(1));
        assert!(progress.end(1, Ending::Delivered(DIGEST)));
        let step = commit(&mut progress);
        assert!(step.record.set_aside.is_empty());
        assert_eq!(step.record.after_owed, [UidRange { first: 1, last: 2 }]);
        assert_eq!(step.settled, [(1, Ending::Delivered(DIGEST))]);
    }

    #[test]
    fn too_many_set_aside_stop_the_mailbox() {
        let mut progress = at(0);
        let most = u32::try_from(MOST_SET_ASIDE).unwrap();
        progress.listed(1..=most + 1, most + 1);
        for uid in 1..=most {
            assert!(progress.end(uid, Ending::SetAside));
        }
        assert!(!progress.end(most + 1, Ending::SetAside));
        assert_eq!(commit(&mut progress).record.last_uid, most);
        assert!(!progress.end(most + 1, Ending::SetAside));
        assert_eq!(progress.pending(), 1);
    }

    #[test]
    fn owed_actions_stay_on_disk_until_they_are_done() {
        let mut progress = at(0);
        progress.listed([1, 2], 2);
        progress.end(1, Ending::Known(DIGEST));
        progress.end(2, Ending::Gone);
        let step = commit(&mut progress);
        assert_eq!(step.record.after_owed, [UidRange { first: 1, last: 1 }]);
        let mut again = Progress::resume(step.record);
        assert_eq!(again.owed().lowest(9), [1]);
        again.after_done(&[1]);
        assert!(commit(&mut again).record.after_owed.is_empty());
    }

    /// However long a server refuses, no message is forgotten, and a million in a row cost the
    /// disk no more than one.
    ///
    /// Proves: IB-6
    #[test]
    fn nothing_that_is_owed_is_forgotten() {
        let mut progress = at(0);
        for first in (1..=1_000_000).step_by(1000) {
            progress.listed(first..first + 1000, first + 999);
            for uid in first..first + 1000 {
                assert!(progress.end(uid, Ending::Delivered(DIGEST)));
            }
            commit(&mut progress);
        }
        let record = progress.record().clone();
        assert_eq!(record.after_owed, [UidRange { first: 1, last: 1_000_000 }]);
        let mut again = Progress::resume(record);
        assert_eq!(again.owed().len(), 1_000_000);
        assert_eq!(again.owed().lowest(2), [1, 2]);
        again.after_done(&[1]);
        assert_eq!(commit(&mut again).record.after_owed, [UidRange { first: 2, last: 1_000_000 }]);
    }

    #[test]
    fn without_an_action_nothing_is_owed() {
        let mut progress = at(0);
        progress.listed([1], 1);
        progress.end(1, Ending::Delivered(DIGEST));
        assert!(progress.step(Owes::Nothing).unwrap().record.after_owed.is_empty());
    }

    #[test]
    fn a_change_during_a_commit_is_not_lost() {
        let mut progress = at(0);
        progress.listed([1, 2], 2);
        progress.end(1, Ending::Delivered(DIGEST));
        let step = progress.step(Owes::Action).unwrap();
        progress.end(2, Ending::Delivered(DIGEST));
        progress.committed(&step, Owes::Action);
        assert_eq!(progress.last_uid(), 1);
        assert_eq!(commit(&mut progress).record.last_uid, 2);
    }

    mod orders {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            /// Proves: IB-6
            /// Whatever the order of ends and commits, the cursor never passes what has not ended,
            /// and every message is counted exactly once.
            #[test]
            fn no_order_of_ends_loses_or_doubles(
                order in Just((1u32..=30).collect::<Vec<_>>()).prop_shuffle(),
                commits in proptest::collection::vec(any::<bool>(), 30),
            ) {
                let mut progress = at(0);
                progress.listed(1..=30, 30);
                let mut counted: Vec<u32> = Vec::new();
                let mut ended: BTreeSet<u32> = BTreeSet::new();
                for (uid, now) in order.iter().zip(commits.iter().chain(std::iter::repeat(&true))) {
                    prop_assert!(progress.end(*uid, Ending::Delivered(DIGEST)));
                    ended.insert(*uid);
                    if *now && let Some(step) = progress.step(Owes::Nothing) {
                        for uid in 1..=step.record.last_uid {
                            prop_assert!(ended.contains(&uid));
                        }
                        counted.extend(step.settled.iter().map(|(uid, _)| *uid));
                        progress.committed(&step, Owes::Nothing);
                    }
                }
                if let Some(step) = progress.step(Owes::Nothing) {
                    counted.extend(step.settled.iter().map(|(uid, _)| *uid));
                    progress.committed(&step, Owes::Nothing);
                }
                counted.sort_unstable();
                prop_assert_eq!(counted, (1..=30).collect::<Vec<_>>());
                prop_assert_eq!(progress.last_uid(), 30);
            }
        }
    }
}
