//! One look at one mailbox: open it, list what is new, fetch it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::claim::{Claim, Failed, Manner};
use super::cursor::Ending;
use super::fault::{LaneFault, asks_for_patience};
use super::key::{ContentDigest, content_digest};
use super::mailbox::{Mailbox, Match};
use super::moment::Moment;
use super::plan::{Listing, uid_sets};
use super::queue::{Body, Fetched, Held};
use super::responses::Listed;
use super::session::{Access, Opened};
use super::work::{Look, Work};
use crate::net::{ImapReply, ReplyStatus};
use crate::spool::SpoolError;
use crate::transport::inbound::lane::is_closed;
use crate::transport::settings::AfterFetch;

/// Messages that are fetched and not handed on yet.
type Ready = Vec<(Claim, Held, ContentDigest)>;

impl From<SpoolError> for LaneFault {
    fn from(error: SpoolError) -> Self {
        match &error {
            SpoolError::Unknown(_) => LaneFault::SpoolLost(error.into()),
            _ => LaneFault::Storage(error.into()),
        }
    }
}

impl Work {
    /// Looks at a mailbox and fetches what is new, until nothing is or the direction is closed.
    /// True when something was found.
    pub(super) async fn pass(&mut self, number: usize, look: Look) -> Result<bool, LaneFault> {
        let Some(mailbox) = self.mailbox(number) else { return Ok(false) };
        let _work = mailbox.work.lock().await;
        let mut exists = None;
        let uid_next = if look == Look::News && self.selected == Some(number) {
            None
        } else {
            let opened = self.open_mailbox(number, &mailbox).await?;
            exists = Some(opened.exists);
            self.retry_set_aside(number, &mailbox).await?;
            match opened.uid_next {
                // Nothing new: no list at all.
                Some(next) if mailbox.is_up_to(Some(next)) => Some(next),
                // A server whose UIDNEXT went backwards is asked for what it has.
                Some(next) if mailbox.next_to_list(usize::MAX).is_some_and(|it| it > next) => None,
                other => other,
            }
        };
        let found = self.fetch_all(number, &mailbox, uid_next).await?;
        mailbox.commit().await?;
        mailbox.forget_earlier().await?;
        if let Some(exists) = exists
            && mailbox.wants_sweep(exists, self.account.settings.tuning.sweep_least)
        {
            self.sweep(&mailbox).await?;
        }
        if found {
            self.account.events.changed();
        }
        Ok(found)
    }

    /// Forgets what has gone from the server, so that what is kept of a mailbox is bounded by
    /// what is in it.
    async fn sweep(&mut self, mailbox: &Arc<Mailbox>) -> Result<(), LaneFault> {
        let mut from = Some(1);
        while let Some(first) = from
            && !self.closed()
        {
            let (uids, next) = mailbox.settled_page(first).await?;
            from = next;
            if let [lowest, .., highest] | [lowest @ highest] = uids.as_slice() {
                // A server that does not answer says nothing about what is there.
                let Some(mut there) = self.session.search(*lowest, Some(*highest)).await? else {
                    return Ok(());
                };
                there.sort_unstable();
                let gone: Vec<u32> =
                    uids.iter().copied().filter(|uid| there.binary_search(uid).is_err()).collect();
                if !gone.is_empty() {
                    mailbox.vanished(&gone).await?;
                }
            }
        }
        Ok(())
    }

    /// Opens a mailbox whose turn it is to be watched.
    pub(super) async fn reopen(&mut self, number: usize) -> Result<(), LaneFault> {
        let Some(mailbox) = self.mailbox(number) else { return Ok(()) };
        match self.reopen_mailbox(number, &mailbox).await {
            Err(fault) if fault.spares_the_connection() => {
                self.account.mailbox_fault(number, &fault);
                Ok(())
            }
            result => result,
        }
    }

    /// Opens a mailbox for something else than a look. What has come to it since the last one
    /// counts as news.
    pub(super) async fn reopen_mailbox(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
    ) -> Result<(), LaneFault> {
        let opened = self.open_mailbox(number, mailbox).await?;
        let more = opened.uid_next.is_some_and(|next| !mailbox.is_up_to(Some(next)));
        // Where the server refuses to list, or to do what is owed, the next round tries again.
        let refused = self.refused.contains(&number) || self.after_failed.contains(&number);
        if (more || opened.grown) && !refused {
            self.session.has_grown();
        }
        Ok(())
    }

    pub(super) async fn open_mailbox(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Opened, LaneFault> {
        let access = match self.account.settings.imap.after {
            AfterFetch::Keep => Access::Read,
            AfterFetch::Seen | AfterFetch::Delete | AfterFetch::Move(_) => Access::Write,
        };
        self.selected = None;
        let mut opened = self
            .session
            .open_mailbox(&mailbox.wire_name, access)
            .await?
            .map_err(|reply| not_opened(mailbox, &reply))?;
        let Some(uid_validity) = opened.uid_validity else {
            // RFC 3501 section 6.3.1: without it UIDs mean nothing.
            return Err(LaneFault::Mailbox {
                mailbox: mailbox.name.clone(),
                words: "the server tells no UIDVALIDITY".into(),
            });
        };
        if opened.uid_next.is_none() && opened.exists == 0 {
            opened.uid_next = Some(1);
        }
        let known = mailbox.uid_validity();
        if known != 0 && known != uid_validity {
            self.let_go(mailbox).await?;
            if opened.uid_next.is_none() {
                // Where the new numbers begin to be new mail has to be known.
                let last = self.session.still_there("*").await?.into_iter().max().unwrap_or(0);
                opened.uid_next = Some(last.saturating_add(1));
            }
        }
        if mailbox.meet(uid_validity, opened.uid_next).await? {
            tracing::info!(
                transport = %self.account.settings.transport, mailbox = %mailbox.name,
                uid_validity, "the mailbox was rebuilt on the server; comparing its messages"
            );
        }
        self.account.show_set_aside(mailbox);
        self.selected = Some(number);
        self.writable = access == Access::Write && !opened.read_only;
        Ok(opened)
    }

    /// Nothing of an old numbering may be on its way when a new one begins.
    async fn let_go(&mut self, mailbox: &Arc<Mailbox>) -> Result<(), LaneFault> {
        self.take_back(mailbox);
        let keepalive = self.account.settings.tuning.idle_renew;
        while mailbox.has_in_flight() {
            if tokio::time::timeout(keepalive, self.lane.woken()).await.is_err() {
                self.session.noop().await?;
            }
        }
        Ok(())
    }

    /// Takes up what was set aside: with each new connection, in a hurry (a flush), and now and
    /// then.
    async fn retry_set_aside(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
    ) -> Result<(), LaneFault> {
        let asked = mailbox.set_aside();
        let now = Moment::now(&*self.account.clock);
        let hurry = self.control.borrow().hurry;
        let pause = self.account.settings.tuning.set_aside_pause;
        let due = self
            .retried
            .get(&number)
            .is_none_or(|(again, then)| *then != hurry || again.is_over(now));
        if asked.is_empty() || !due {
            return Ok(());
        }
        self.retried.insert(number, (now.after(pause), hurry));
        let mut found: Vec<Listed> = Vec::new();
        for uid in &asked {
            found.extend(self.list_one(*uid).await?);
        }
        mailbox.retry(&asked, &found, self.account.settings.tuning.small);
        Ok(())
    }

    async fn fetch_all(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
        uid_next: Option<u32>,
    ) -> Result<bool, LaneFault> {
        let tuning = self.account.settings.tuning;
        let mut listing = Listing::new(tuning.window);
        let (mut found, mut listed_all) = (false, false);
        let mut ready = Ready::new();
        loop {
            if self.closed() {
                self.hand_on_all(mailbox, ready).await?;
                return Ok(found);
            }
            let batch = mailbox.take(Moment::now(&*self.account.clock), tuning.batch);
            if batch.is_empty() {
                self.hand_on_all(mailbox, std::mem::take(&mut ready)).await?;
                if !self.may_owe_more(number, mailbox).await? {
                    return Ok(found);
                }
                let range = mailbox
                    .next_to_list(tuning.spread)
                    .filter(|_| !listed_all)
                    .and_then(|from| listing.range(from, uid_next));
                match range {
                    Some((from, to)) => {
                        let (count, last) = self.list(mailbox, from, to).await?;
                        listing.found(count);
                        listed_all = last;
                    }
                    // Too much is on its way to list more: the host has to catch up.
                    None if !listed_all && mailbox.is_spread(tuning.spread) => {
                        self.wait_for_host().await?;
                    }
                    None => return Ok(found),
                }
                continue;
            }
            found = true;
            let in_pieces = batch.first().is_some_and(|first| first.manner == Manner::Pieces);
            if in_pieces {
                self.hand_on_all(mailbox, std::mem::take(&mut ready)).await?;
                for claim in batch {
                    self.fetch_in_pieces(mailbox, claim).await?;
                }
            } else {
                ready = self.fetch_whole(mailbox, batch, ready).await?;
            }
            if mailbox.owed_count() >= tuning.after_batch && !self.after_failed.contains(&number) {
                self.settle_owed_here(number, mailbox).await?;
            }
        }
    }

    /// Waits until the host has taken something, or the direction is closed.
    async fn wait_for_host(&mut self) -> Result<(), LaneFault> {
        let keepalive = self.account.settings.tuning.idle_renew;
        tokio::select! {
            () = self.lane.woken() => {}
            _ = self.control.changed() => {}
            () = tokio::time::sleep(keepalive) => self.session.noop().await?,
        }
        Ok(())
    }

    /// Waits for room for so many bytes; `None` when the direction is closed meanwhile.
    async fn reserve(&mut self, bytes: u64) -> Result<Option<OwnedSemaphorePermit>, LaneFault> {
        let keepalive = self.account.settings.tuning.idle_renew;
        let account = Arc::clone(&self.account);
        let reservation = account.budget.reserve(bytes);
        tokio::pin!(reservation);
        loop {
            tokio::select! {
                permit = &mut reservation => return Ok(permit),
                changed = self.control.changed() => {
                    if changed.is_err() || is_closed(&self.control.borrow_and_update()) {
                        return Ok(None);
                    }
                }
                () = tokio::time::sleep(keepalive) => self.session.noop().await?,
            }
        }
    }

    /// Fetches messages whole, with one command, while those of the one before go to the disk
    /// and to the host. Returns what is to be handed on next.
    async fn fetch_whole(
        &mut self,
        mailbox: &Arc<Mailbox>,
        batch: Vec<Claim>,
        before: Ready,
    ) -> Result<Ready, LaneFault> {
        let total: u64 = batch.iter().map(|claim| u64::from(claim.size)).sum();
        let largest = batch.iter().map(|claim| claim.size).max().unwrap_or(0);
        let _moving = self.account.moving();
        let uids: Vec<u32> = batch.iter().map(|claim| claim.uid).collect();
        let mut got: BTreeMap<u32, Bytes> = BTreeMap::new();
        let mut contradiction = false;
        let mut room = total.saturating_mul(2) + u64::from(self.account.settings.tuning.small);
        let mut on = |uid: u32, bytes: &[u8]| {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if uids.binary_search(&uid).is_ok() && length <= room {
                room -= length;
                let other = got.insert(uid, Bytes::copy_from_slice(bytes));
                contradiction |= other.is_some_and(|other| other != bytes);
            }
        };
        let set = uid_sets(&uids).join(",");
        let handing_on = self.hand_on_all(mailbox, before);
        let fetching = async {
            let Some(permit) = self.reserve(total).await? else { return Ok(None) };
            let fetched = self.session.fetch(&set, largest, total, &mut on).await;
            Ok(Some((permit, fetched)))
        };
        let (handed_on, fetched): (_, Result<_, LaneFault>) = tokio::join!(handing_on, fetching);
        handed_on?;
        let Some((permit, mut fetched)) = fetched? else { return Ok(Ready::new()) };
        let mut permit = Some(permit);
        if contradiction {
            // Which of them is the message, and whose the others are, cannot be known.
            got.clear();
            let words = "it sends two different messages under one number";
            fetched = fetched.and(Err(LaneFault::Protocol(words.into())));
        }
        let mut missing: Vec<Claim> = Vec::new();
        let mut ready = Ready::new();
        let together = if uids.len() == 1 { Manner::Alone } else { Manner::Together };
        for mut claim in batch {
            let complete = got
                .remove(&claim.uid)
                .filter(|bytes| bytes.len() >= usize::try_from(claim.size).unwrap_or(usize::MAX));
            let Some(bytes) = complete else {
                missing.push(claim);
                continue;
            };
            let rematched = mailbox.is_rematched(claim.uid);
            if rematched && !missing.is_empty() {
                // Matching goes by number: what follows a gap waits until the gap is closed.
                continue;
            }
            let held = self.account.budget.hold(bytes, &mut permit);
            let mut hasher = blake3::Hasher::new();
            hasher.update(held.bytes());
            let digest = content_digest(&hasher);
            if rematched {
                match mailbox.decide(claim.uid, digest).await? {
                    Match::Known => {
                        claim.end(Ending::Known(digest));
                        continue;
                    }
                    Match::New(origin) => claim.save_as(origin),
                }
            }
            claim.note(digest);
            ready.push((claim, held, digest));
        }
        if fetched.is_err() {
            // The connection is lost; what it brought is not.
            self.hand_on_all(mailbox, std::mem::take(&mut ready)).await?;
        }
        self.missing(missing, together, fetched).await?;
        Ok(ready)
    }

    /// Hands on what was fetched.
    fn hand_on_all(
        &self,
        mailbox: &Arc<Mailbox>,
        ready: Ready,
    ) -> impl Future<Output = Result<(), LaneFault>> + Send + use<> {
        let (account, lane) = (Arc::clone(&self.account), Arc::clone(&self.lane));
        let (mailbox, look) = (Arc::clone(mailbox), self.control.borrow().look);
        async move {
            if ready.is_empty() {
                return Ok(());
            }
            // Nothing may be handed over before the disk knows that it is, and what it is (IB-6).
            mailbox.commit().await?;
            for (claim, held, digest) in ready {
                account.queue.push(Fetched { claim, body: Body::Whole(held, digest) });
            }
            lane.looked(&account, look);
            account.announce();
            Ok(())
        }
    }

    pub(super) fn hand_on(&self, claim: Claim, body: Body) {
        self.account.queue.push(Fetched { claim, body });
        let look = self.control.borrow().look;
        self.lane.looked(&self.account, look);
        self.account.announce();
    }

    /// Sees to messages that did not come, or not whole.
    async fn missing(
        &mut self,
        missing: Vec<Claim>,
        asked: Manner,
        fetched: Result<ImapReply, LaneFault>,
    ) -> Result<(), LaneFault> {
        let reply = match fetched {
            Ok(reply) => reply,
            Err(fault) => {
                let counts = !matches!(fault, LaneFault::Throttled { .. });
                let words = fault.words(self.account.connector.name());
                self.blame(missing, asked, counts, &words);
                return Err(fault);
            }
        };
        if asks_for_patience(&reply) {
            return Err(LaneFault::refused("UID FETCH", reply));
        }
        if reply.status != ReplyStatus::Ok {
            let words = format!("the server answers {}", reply.words());
            self.blame(missing, asked, true, &words);
            return Ok(());
        }
        // OK without the message is no success: either it is gone, or the server does not do
        // what it says (iCloud does so for RFC822).
        let uids: Vec<u32> = missing.iter().map(|claim| claim.uid).collect();
        let mut there = Vec::new();
        for set in uid_sets(&uids) {
            there.extend(self.session.still_there(&set).await?);
        }
        for claim in missing {
            if there.contains(&claim.uid) {
                claim.back_as(Manner::Pieces);
            } else {
                claim.end(Ending::Gone);
            }
        }
        Ok(())
    }

    /// Which of several messages was to blame shows when they are asked for one by one.
    fn blame(&self, missing: Vec<Claim>, asked: Manner, counts: bool, words: &str) {
        for claim in missing {
            if asked == Manner::Together || !counts {
                claim.back_as(Manner::Alone);
            } else {
                self.count_failure(claim, words);
            }
        }
    }

    /// Counts a failed try that was the server's fault.
    pub(super) fn count_failure(&self, claim: Claim, words: &str) {
        let tuning = &self.account.settings.tuning;
        let again = Moment::now(&*self.account.clock).after(tuning.retry_pause);
        let mailbox = Arc::clone(claim.mailbox());
        if claim.fail(again, tuning.tries, words) == Failed::SetAside {
            self.account.show_set_aside(&mailbox);
        }
    }
}

fn not_opened(mailbox: &Mailbox, reply: &ImapReply) -> LaneFault {
    LaneFault::Mailbox { mailbox: mailbox.name.clone(), words: reply.words() }
}
