//! A mailbox whose UIDVALIDITY has changed: which of its messages are in the store already.
//!
//! Before a message is saved, what it is goes to disk: its digest, and the place its key in the
//! store is made from. When all numbers change, the rows of the old numbering become counts of
//! digests (surely saved) and doubts (perhaps saved). Each message of the new numbering is then
//! compared by digest, in order of UID: a count makes it known; a doubt has it saved under the
//! old key, where the store finds it if it is there; what is neither is new. Every step is a
//! commit of its own and is found again after a crash.

use super::cursor::Progress;
use super::key::ContentDigest;
use super::mailbox::{Mailbox, Match, State};
use crate::spool::{Batch, FetchedRecord, Op, Origin, Retired, SpoolError};

/// Rows that are looked at and changed at a time.
const PAGE: usize = 500;

/// Doubts about one digest that are looked at: more copies of one message than a window holds.
const MOST_DOUBTS: usize = 8000;

impl Mailbox {
    // ----- rows -----

    pub(super) fn put_fetched(&self, at: Origin, record: FetchedRecord) -> Op {
        Op::PutFetched { account: self.account, mailbox: self.name.clone(), at, record }
    }

    pub(super) fn delete_fetched(&self, at: Origin) -> Op {
        Op::DeleteFetched { account: self.account, mailbox: self.name.clone(), at }
    }

    pub(super) fn take_delivered(&self, digest: ContentDigest) -> Op {
        Op::TakeDelivered { account: self.account, mailbox: self.name.clone(), digest }
    }

    pub(super) fn forget_doubtful(&self, digest: ContentDigest, origin: Origin) -> Op {
        let mailbox = self.name.clone();
        Op::DeleteDoubtful { account: self.account, mailbox, digest, origin }
    }

    // ----- from one numbering to the next -----

    /// Begins anew with another UIDVALIDITY: every message that is there now is compared with
    /// what was delivered before. Nothing may be in flight.
    pub(super) async fn renumber(
        &self,
        uid_validity: u32,
        uid_next: Option<u32>,
    ) -> Result<(), SpoolError> {
        let _writing = self.writer.lock().await;
        let until = uid_next.map_or(u32::MAX, |next| next.saturating_sub(1));
        let mut record = Progress::fresh(uid_validity, until);
        record.retired = self.with(None, |progress| Some(progress.retire()));
        self.spool.commit(Batch::new().with(self.put(record.clone()))).await?;
        let mut state = self.state();
        *state = State {
            progress: Some(Progress::resume(record)),
            mode: state.mode,
            commits_asked: state.commits_asked,
            commits_done: state.commits_done,
            ..State::default()
        };
        Ok(())
    }

    /// Turns the rows of a retired numbering into counts and doubts, page by page; the last page
    /// goes with the cursor that knows of no retired numbering any more.
    pub(super) async fn take_over(&self) -> Result<(), SpoolError> {
        let _writing = self.writer.lock().await;
        while let Some(retired) = self.with(None, |progress| progress.record().retired.clone()) {
            let from = Origin { uid_validity: retired.uid_validity, uid: 0 };
            let page = self.spool.fetched_page(self.account, &self.name, from, PAGE).await?;
            let mut batch = Batch::new();
            for (uid, record) in &page {
                batch.push(self.delete_fetched(Origin { uid: *uid, ..from }));
                batch.push(self.earlier(&retired, *uid, *record));
            }
            let mut record = self.with(None, |it| Some(it.record().clone())).unwrap_or_default();
            if page.len() < PAGE {
                record.retired = None;
                batch.push(self.put(record.clone()));
            }
            self.spool.commit(batch).await?;
            self.with((), |progress| progress.set_record(record));
        }
        Ok(())
    }

    fn earlier(&self, retired: &Retired, uid: u32, record: FetchedRecord) -> Op {
        let (account, mailbox) = (self.account, self.name.clone());
        let FetchedRecord { digest, origin } = record;
        let settled = uid <= retired.last_uid && retired.set_aside.binary_search(&uid).is_err();
        if settled || retired.saved.binary_search(&uid).is_ok() {
            Op::AddDelivered { account, mailbox, digest }
        } else {
            Op::PutDoubtful { account, mailbox, digest, origin }
        }
    }

    // ----- comparing -----

    /// Whether `uid` is to be compared with what was delivered before.
    pub(super) fn is_rematched(&self, uid: u32) -> bool {
        self.with(false, |progress| progress.is_rematched(uid))
    }

    /// What was decided about a message before it failed.
    fn decision(&self, uid: u32) -> Option<Match> {
        self.state().decided.get(&uid).map(|(_, decision)| *decision)
    }

    /// Decides whether a message of a rebuilt mailbox was delivered before: as many copies as
    /// were delivered under earlier numberings are known. Called in order of UID, so that a
    /// crash in between decides the same again.
    pub(super) async fn decide(
        &self,
        uid: u32,
        digest: ContentDigest,
    ) -> Result<Match, SpoolError> {
        // No step may move counts from memory to disk between the looks.
        let _writing = self.writer.lock().await;
        if let Some(decision) = self.decision(uid) {
            return Ok(decision);
        }
        let here = Origin { uid_validity: self.uid_validity(), uid };
        let (account, name) = (self.account, self.name.as_str());
        let noted = self.spool.fetched_page(account, name, here, 1).await?;
        let noted = noted.first().filter(|(at, row)| *at == uid && row.digest == digest);
        let decision = if let Some((_, row)) = noted {
            // It was about to be saved when the process ended.
            Match::New(row.origin)
        } else {
            let delivered = self.spool.delivered(account, name, digest).await?;
            let doubts = self.spool.doubtful_page(account, name, Some(digest), MOST_DOUBTS).await?;
            let state = self.state();
            let same = || state.decided.values().filter(|(other, _)| *other == digest);
            let taken = |origin: &Origin| same().any(|(_, it)| *it == Match::New(*origin));
            let known = same().filter(|(_, decision)| *decision == Match::Known).count();
            if u32::try_from(known).unwrap_or(u32::MAX) < delivered {
                Match::Known
            } else {
                let doubt = doubts.into_iter().map(|(_, origin)| origin).find(|it| !taken(it));
                Match::New(doubt.unwrap_or(here))
            }
        };
        self.state().decided.insert(uid, (digest, decision));
        Ok(decision)
    }

    /// Once every message was compared, what is left of earlier numberings names messages that
    /// are no longer on the server, and goes.
    pub(super) async fn forget_earlier(&self) -> Result<(), SpoolError> {
        if !self.with(false, |progress| progress.is_rematch_over()) {
            return Ok(());
        }
        let _writing = self.writer.lock().await;
        let (account, name) = (self.account, self.name.as_str());
        loop {
            let digests = self.spool.delivered_page(account, name, PAGE).await?;
            let doubts = self.spool.doubtful_page(account, name, None, PAGE).await?;
            let mut batch = Batch::new();
            for digest in &digests {
                let mailbox = self.name.clone();
                batch.push(Op::ForgetDelivered { account, mailbox, digest: *digest });
            }
            for (digest, origin) in &doubts {
                batch.push(self.forget_doubtful(*digest, *origin));
            }
            let last = digests.len() < PAGE && doubts.len() < PAGE;
            let mut record = self.with(None, |it| Some(it.record().clone())).unwrap_or_default();
            if last {
                record.rematch_until = 0;
                batch.push(self.put(record.clone()));
            }
            self.spool.commit(batch).await?;
            self.with((), |progress| progress.set_record(record));
            if last {
                return Ok(());
            }
        }
    }

    // ----- what has gone from the server -----

    /// Whether so many of the messages that have rows are no longer on the server that looking
    /// for them is worth it: each row that goes then costs a look at a few that stay.
    pub(super) fn wants_sweep(&self, exists: u32, least: u32) -> bool {
        let counted = self.with(0, |progress| progress.record().counted);
        counted.saturating_sub(exists) >= least.max(counted / 8).max(1)
    }

    /// UIDs from `from` on that have rows and are surely in the store, and where to go on; `None`
    /// when these were the last.
    pub(super) async fn settled_page(
        &self,
        from: u32,
    ) -> Result<(Vec<u32>, Option<u32>), SpoolError> {
        let from = Origin { uid_validity: self.uid_validity(), uid: from };
        let page = self.spool.fetched_page(self.account, &self.name, from, PAGE).await?;
        let next = (page.len() == PAGE).then(|| page.last()).flatten();
        let next = next.and_then(|(uid, _)| uid.checked_add(1));
        let settled = self.with(Vec::new(), |progress| {
            let uids = page.iter().map(|(uid, _)| *uid);
            uids.filter(|uid| progress.is_settled(*uid)).collect()
        });
        Ok((settled, next))
    }

    /// Removes the rows of messages that have gone from the server.
    pub(super) async fn vanished(&self, uids: &[u32]) -> Result<(), SpoolError> {
        let _writing = self.writer.lock().await;
        let uid_validity = self.uid_validity();
        let mut batch = Batch::new();
        for uid in uids {
            batch.push(self.delete_fetched(Origin { uid_validity, uid: *uid }));
        }
        let mut record = self.with(None, |it| Some(it.record().clone())).unwrap_or_default();
        let gone = u32::try_from(uids.len()).unwrap_or(u32::MAX);
        record.counted = record.counted.saturating_sub(gone);
        batch.push(self.put(record.clone()));
        self.spool.commit(batch).await?;
        self.with((), |progress| progress.set_record(record));
        Ok(())
    }
}
