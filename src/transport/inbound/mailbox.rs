//! One mailbox of the account: what is known of it, what is wanted from it, and its cursor on
//! disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::claim::{Claim, Manner, Wanted};
use super::cursor::{Ending, Owes, Progress, Step};
use super::key::ContentDigest;
use super::moment::Moment;
use super::responses::{Listed, wire_name};
use crate::spi::Repetition;
use crate::spool::{
    AccountKey, Batch, CopyIntent, CursorRecord, FetchedRecord, Op, Origin, Spool, SpoolError,
};

/// A mailbox that is fetched.
pub(super) struct Mailbox {
    /// Its place in the profile.
    pub(super) number: usize,
    /// As the profile names it.
    pub(super) name: String,
    /// As the wire has it.
    pub(super) wire_name: String,
    pub(super) account: AccountKey,
    owes: Owes,
    pub(super) spool: Arc<dyn Spool>,
    state: Mutex<State>,
    /// Held by the lane that works on the mailbox.
    pub(super) work: tokio::sync::Mutex<()>,
    /// Held while a step of the cursor is written, so that who waits shares the next one.
    pub(super) writer: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    /// `None` until the cursor was read.
    pub(super) progress: Option<Progress>,
    /// Listed and to be fetched.
    pub(super) wanted: BTreeMap<u32, Wanted>,
    /// Fetched, or being fetched by a host, and not ended.
    pub(super) in_flight: BTreeSet<u32>,
    /// What was decided while a rebuilt mailbox is matched; kept until it is on disk.
    pub(super) decided: BTreeMap<u32, (ContentDigest, Match)>,
    /// What messages are that are about to be saved: to be written, and written.
    pub(super) notes: BTreeMap<u32, FetchedRecord>,
    pub(super) noted: BTreeMap<u32, FetchedRecord>,
    pub(super) mode: Watched,
    /// Why a message was set aside last.
    pub(super) set_aside_words: String,
    /// How often a commit was asked for, and how many of those askers were served.
    pub(super) commits_asked: u64,
    pub(super) commits_done: u64,
}

/// How a mailbox is watched at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watched {
    /// Not at all.
    #[default]
    Off,
    /// By looking now and then.
    Poll,
    /// By IDLE.
    Idle,
}

/// What comparing with earlier deliveries says of a message in a rebuilt mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It was delivered before.
    Known,
    /// It was not, or it cannot be known: it is saved under the key that this place gives.
    New(Origin),
}

/// A mailbox that is fetched, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxState {
    /// As the profile names it.
    pub mailbox: String,
    /// How it is watched.
    pub mode: Watched,
    /// Every message up to this UID is in the store or set aside.
    pub last_uid: u32,
    /// Messages known to wait.
    pub pending: u64,
    /// UIDs of messages that were set aside because they could not be handled. They are tried
    /// again now and then, with each new connection, and in a flush.
    pub set_aside: Vec<u32>,
    /// Why the last of them was; empty when that is not known.
    pub set_aside_why: String,
}

impl Mailbox {
    pub(super) fn new(
        number: usize,
        name: &str,
        account: AccountKey,
        owes: Owes,
        spool: Arc<dyn Spool>,
    ) -> Self {
        Mailbox {
            number,
            name: name.to_owned(),
            wire_name: wire_name(name),
            account,
            owes,
            spool,
            state: Mutex::default(),
            work: tokio::sync::Mutex::default(),
            writer: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete when it is made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with<T>(&self, default: T, read: impl FnOnce(&mut Progress) -> T) -> T {
        self.state().progress.as_mut().map_or(default, read)
    }

    // ----- looking -----

    /// Reads the cursor if that was not done yet, and compares it with the server's UIDVALIDITY.
    /// `uid_next` is needed where the mailbox was rebuilt. True when there is a new numbering.
    pub(super) async fn meet(
        &self,
        uid_validity: u32,
        uid_next: Option<u32>,
    ) -> Result<bool, SpoolError> {
        if self.state().progress.is_none() {
            let record = self.spool.cursor(self.account, &self.name).await?;
            let mut state = self.state();
            state.progress = Some(match record {
                Some(record) => Progress::resume(record),
                None => Progress::resume(Progress::fresh(uid_validity, 0)),
            });
        }
        // A crash may have come in the middle of this.
        self.take_over().await?;
        if self.with(uid_validity, |progress| progress.uid_validity()) == uid_validity {
            return Ok(false);
        }
        self.renumber(uid_validity, uid_next).await?;
        self.take_over().await?;
        Ok(true)
    }

    /// The first UID that was not listed yet, unless enough is known to be going on with.
    pub(super) fn next_to_list(&self, spread: usize) -> Option<u32> {
        self.with(
            None,
            |progress| {
                if progress.spread() >= spread { None } else { progress.next_uid() }
            },
        )
    }

    /// Whether `uid_next` says that nothing new is there. A server whose UIDNEXT went backwards
    /// is not believed.
    pub(super) fn is_up_to(&self, uid_next: Option<u32>) -> bool {
        let expected = self.with(None, |progress| progress.next_uid());
        expected.is_none() || expected == uid_next
    }

    /// Every UID up to `to` was listed, and these exist.
    pub(super) fn listed(&self, found: &[Listed], to: u32, small: u32) {
        let mut state = self.state();
        let State { progress: Some(progress), wanted, .. } = &mut *state else { return };
        let from = progress.next_uid();
        progress.listed(found.iter().map(|listed| listed.uid), to);
        for listed in found.iter().filter(|listed| Some(listed.uid) >= from && listed.uid <= to) {
            let entry = Wanted::new(listed, progress.repetition(listed.uid), small);
            wanted.insert(listed.uid, entry);
        }
    }

    /// UIDs that were set aside and are not being tried.
    pub(super) fn set_aside(&self) -> Vec<u32> {
        self.with(Vec::new(), |progress| progress.set_aside().iter().copied().collect())
    }

    /// Takes up messages that were set aside; those not in `found` are gone.
    pub(super) fn retry(&self, asked: &[u32], found: &[Listed], small: u32) {
        let mut state = self.state();
        let State { progress: Some(progress), wanted, .. } = &mut *state else { return };
        for uid in asked {
            if !progress.retry(*uid) {
                continue;
            }
            match found.iter().find(|listed| listed.uid == *uid) {
                Some(listed) => {
                    let mut entry = Wanted::new(listed, Repetition::Possible, small);
                    entry.manner = entry.manner.max(Manner::Alone);
                    wanted.insert(*uid, entry);
                }
                None => {
                    progress.end(*uid, Ending::Gone);
                }
            }
        }
    }

    /// All that are set aside, those included that the disk does not know of yet, and why the
    /// last of them was.
    pub(super) fn all_set_aside(&self) -> (Vec<u32>, String) {
        let state = self.state();
        let uids = state.progress.as_ref().map_or(Vec::new(), Progress::all_set_aside);
        (uids, state.set_aside_words.clone())
    }

    /// Whether so much is known and not ended that no more is to be listed.
    pub(super) fn is_spread(&self, spread: usize) -> bool {
        self.with(false, |progress| progress.spread() >= spread)
    }

    // ----- what is wanted -----

    /// The messages to ask for next, lowest first: several small ones, or one alone. They are
    /// then in flight.
    pub(super) fn take(self: &Arc<Self>, now: Moment, (count, bytes): (usize, u64)) -> Vec<Claim> {
        let mut state = self.state();
        let Some(progress) = &state.progress else { return Vec::new() };
        let uid_validity = progress.uid_validity();
        let rematching = state.wanted.keys().any(|uid| progress.is_rematched(*uid));
        let mut taken: Vec<Wanted> = Vec::new();
        let mut sum = 0;
        for wanted in state.wanted.values() {
            if !wanted.not_before.is_over(now) {
                if rematching {
                    // Matching goes by number, else a crash could match differently.
                    break;
                }
                continue;
            }
            let alone = wanted.manner != Manner::Together;
            if alone && !taken.is_empty() {
                break;
            }
            sum += u64::from(wanted.size);
            if !taken.is_empty() && (taken.len() >= count || sum > bytes) {
                break;
            }
            taken.push(wanted.clone());
            if alone {
                break;
            }
        }
        for wanted in &taken {
            state.wanted.remove(&wanted.uid);
            state.in_flight.insert(wanted.uid);
        }
        drop(state);
        taken.into_iter().map(|wanted| Claim::new(Arc::clone(self), uid_validity, wanted)).collect()
    }

    /// When the next message that failed is due.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        self.state().wanted.values().map(|wanted| wanted.not_before).reduce(Moment::first)
    }

    /// Whether nothing can be done for it now: what is wanted has to wait, nothing is in flight.
    pub(super) fn is_drained(&self, now: Moment) -> bool {
        let state = self.state();
        state.in_flight.is_empty()
            && state
                .wanted
                .values()
                .all(|wanted| !wanted.not_before.is_over(now) || wanted.tries > 0)
    }

    /// Whether anything is fetched and not ended.
    pub(super) fn has_in_flight(&self) -> bool {
        !self.state().in_flight.is_empty()
    }

    /// Writes how far the mailbox is fetched; when this returns `Ok`, everything that had ended
    /// before the call and could move the cursor is durable. Callers at the same time share a
    /// step. Cancel-safe.
    pub(super) async fn commit(&self) -> Result<(), SpoolError> {
        let ticket = {
            let mut state = self.state();
            state.commits_asked += 1;
            state.commits_asked
        };
        let _writing = self.writer.lock().await;
        let (covers, step, notes, uid_validity) = {
            let mut state = self.state();
            if state.commits_done >= ticket {
                // A step that was written meanwhile has it. Without this look each waiter would
                // write what little has ended since, one flush for each message.
                return Ok(());
            }
            let step = state.progress.as_ref().and_then(|progress| progress.step(self.owes));
            if step.is_none() && state.notes.is_empty() {
                state.commits_done = state.commits_asked;
                return Ok(());
            }
            let uid_validity = state.progress.as_ref().map_or(0, Progress::uid_validity);
            (state.commits_asked, step, state.notes.clone(), uid_validity)
        };
        let mut batch = Batch::new();
        for (uid, record) in &notes {
            batch.push(self.put_fetched(Origin { uid_validity, uid: *uid }, *record));
        }
        if let Some(step) = &step {
            batch.push(self.put(step.record.clone()));
            self.settle(step, &mut batch);
        }
        self.spool.commit(batch).await?;
        let mut state = self.state();
        state.commits_done = covers;
        for (uid, record) in notes {
            if state.notes.get(&uid) == Some(&record) {
                state.notes.remove(&uid);
            }
            state.noted.insert(uid, record);
        }
        let Some(step) = step else { return Ok(()) };
        for (uid, _) in &step.settled {
            state.decided.remove(uid);
            state.noted.remove(uid);
            state.notes.remove(uid);
        }
        if let Some(progress) = &mut state.progress {
            progress.committed(&step, self.owes);
        }
        Ok(())
    }

    /// What the messages that end by a step change beside the cursor.
    fn settle(&self, step: &Step, batch: &mut Batch) {
        let state = self.state();
        for (uid, ending) in &step.settled {
            let at = Origin { uid_validity: step.record.uid_validity, uid: *uid };
            match ending {
                Ending::Delivered(digest) => {
                    let origin = match state.decided.get(uid) {
                        Some((_, Match::New(origin))) => *origin,
                        _ => at,
                    };
                    let known = state.noted.get(uid).or_else(|| state.notes.get(uid));
                    if known.is_none_or(|known| known.digest != *digest) {
                        batch.push(self.put_fetched(at, FetchedRecord { digest: *digest, origin }));
                    }
                    if origin != at {
                        batch.push(self.forget_doubtful(*digest, origin));
                    }
                }
                Ending::Known(digest) => {
                    let record = FetchedRecord { digest: *digest, origin: at };
                    batch.push(self.put_fetched(at, record));
                    batch.push(self.take_delivered(*digest));
                }
                Ending::Gone => batch.push(self.delete_fetched(at)),
                // It may have been saved, whatever was said of that.
                Ending::SetAside => {}
            }
        }
    }

    /// Notes what a message is that is about to be saved; [`Mailbox::commit`] writes it. Without
    /// it a crash together with a change of all numbers would save the message again.
    pub(super) fn note(&self, uid_validity: u32, uid: u32, record: FetchedRecord) {
        let mut state = self.state();
        if state.is_current(uid_validity) && state.noted.get(&uid) != Some(&record) {
            state.notes.insert(uid, record);
        }
    }

    /// Whether the disk has this note.
    pub(super) fn is_noted(&self, uid: u32, record: FetchedRecord) -> bool {
        self.state().noted.get(&uid) == Some(&record)
    }

    /// Whether the disk knows that `uid` is being handed over.
    pub(super) fn is_announced(&self, uid: u32) -> bool {
        self.with(false, |progress| progress.is_announced(uid))
    }

    pub(super) fn put(&self, record: CursorRecord) -> Op {
        Op::PutCursor { account: self.account, mailbox: self.name.clone(), record }
    }

    // ----- owed actions -----

    /// The lowest UIDs whose `after` action is owed, at most so many.
    pub(super) fn owed(&self, most: usize) -> Vec<u32> {
        self.with(Vec::new(), |progress| progress.owed().lowest(most))
    }

    /// How many there are in all.
    pub(super) fn owed_count(&self) -> u64 {
        self.with(0, |progress| progress.owed().len())
    }

    /// Whether so many separate ranges of UIDs are owed that no more may be, those counted that
    /// would come of what is on its way.
    pub(super) fn owes_too_much(&self, most: usize) -> bool {
        self.with(false, |progress| progress.owed().range_count() + progress.spread() >= most)
    }

    /// Whether the `after` action of this message is owed.
    pub(super) fn owes(&self, uid: u32) -> bool {
        self.with(false, |progress| progress.owed().contains(uid))
    }

    /// What was owed is no longer wanted; [`Mailbox::commit`] writes it.
    pub(super) fn owe_nothing(&self) {
        self.with((), Progress::owe_nothing);
    }

    /// The COPY that was begun.
    pub(super) fn copying(&self) -> Option<CopyIntent> {
        self.with(None, |progress| progress.copying().cloned())
    }

    /// Notes a COPY before it is begun, and that it is over; [`Mailbox::commit`] writes it.
    pub(super) fn set_copying(&self, intent: Option<CopyIntent>) {
        self.with((), |progress| progress.set_copying(intent));
    }

    /// Their `after` action is done; [`Mailbox::commit`] writes it.
    pub(super) fn after_done(&self, uids: &[u32]) {
        self.with((), |progress| progress.after_done(uids));
    }

    // ----- for the status -----

    /// Notes how it is watched; true when that is a change.
    pub(super) fn watch(&self, mode: Watched) -> bool {
        let mut state = self.state();
        std::mem::replace(&mut state.mode, mode) != mode
    }

    pub(super) fn snapshot(&self) -> MailboxState {
        let state = self.state();
        let progress = state.progress.as_ref();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        MailboxState {
            mailbox: self.name.clone(),
            mode: state.mode,
            last_uid: progress.map_or(0, Progress::last_uid),
            pending: count(progress.map_or(0, Progress::pending)),
            set_aside: progress.map_or(Vec::new(), Progress::all_set_aside),
            set_aside_why: state.set_aside_words.clone(),
        }
    }

    pub(super) fn uid_validity(&self) -> u32 {
        self.with(0, |progress| progress.uid_validity())
    }
}

impl State {
    pub(super) fn is_current(&self, uid_validity: u32) -> bool {
        self.progress.as_ref().is_some_and(|it| it.uid_validity() == uid_validity)
    }
}
