//! Moving on servers without MOVE: COPY, then `\Deleted`, then EXPUNGE.
//!
//! A crash, or a connection that breaks, between COPY and the flag must not copy again. So what
//! is to be copied is on disk before COPY is sent, together with the UIDNEXT of the target: where
//! it is found again, the copies are looked for in the target from there on, by size and by their
//! first octets, and only what is not there is copied. What cannot be known leads to one more
//! copy, never to one less: a target whose UIDVALIDITY has changed meanwhile, or a copy that
//! somebody has taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::after::MOST;
use super::fault::LaneFault;
use super::mailbox::Mailbox;
use super::plan::uid_sets;
use super::responses::{quoted, wire_name};
use super::session::Access;
use super::work::Work;
use crate::spool::CopyIntent;

/// By how many of its first octets a message is told from others: as much as a header takes that
/// names who sent it when by which way.
const HEAD: u32 = 8192;

/// What a copy has in common with its original.
type Likeness = (u32, [u8; 32]);

impl Work {
    /// Moves the messages of a mailbox that is open for writing.
    pub(super) async fn copy_away(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
        target: &str,
    ) -> Result<(), LaneFault> {
        if let Some(intent) = mailbox.copying() {
            let begun: Vec<u32> =
                intent.uids.iter().copied().filter(|uid| mailbox.owes(*uid)).collect();
            if intent.target == target && !begun.is_empty() {
                let copied = self.copied(number, mailbox, &intent, &begun).await?;
                let rest: Vec<u32> =
                    begun.iter().copied().filter(|uid| !copied.contains(uid)).collect();
                tracing::info!(
                    transport = %self.account.settings.transport, mailbox = %mailbox.name,
                    copied = copied.len(), rest = rest.len(), "a copy was interrupted; going on"
                );
                self.copy(&rest, target).await?;
                self.flag_and_expunge(mailbox, &begun).await?;
            } else {
                mailbox.set_copying(None);
            }
        }
        loop {
            let uids = mailbox.owed(MOST);
            if uids.is_empty() {
                return Ok(());
            }
            let (uid_validity, uid_next) =
                self.session.status(&wire_name(target)).await?.unwrap_or_default();
            let target_name = target.to_owned();
            let intent = CopyIntent { uids, target: target_name, uid_validity, uid_next };
            let uids = intent.uids.clone();
            mailbox.set_copying(Some(intent));
            mailbox.commit().await?;
            self.copy(&uids, target).await?;
            self.flag_and_expunge(mailbox, &uids).await?;
        }
    }

    async fn copy(&mut self, uids: &[u32], target: &str) -> Result<(), LaneFault> {
        for set in uid_sets(uids) {
            self.transfer("UID COPY", &set, &quoted(&wire_name(target))).await?;
        }
        Ok(())
    }

    /// The originals of a COPY that is done, or whose copies were found.
    async fn flag_and_expunge(
        &mut self,
        mailbox: &Arc<Mailbox>,
        uids: &[u32],
    ) -> Result<(), LaneFault> {
        for set in uid_sets(uids) {
            self.store(&set, "\\Deleted").await?;
            self.expunge(&set, uids).await?;
        }
        mailbox.set_copying(None);
        mailbox.after_done(uids);
        Ok(mailbox.commit().await?)
    }

    /// Which of these messages have a copy in the target that can be of this COPY. The mailbox
    /// is open again afterwards.
    async fn copied(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
        intent: &CopyIntent,
        uids: &[u32],
    ) -> Result<BTreeSet<u32>, LaneFault> {
        let nothing = BTreeSet::new();
        let target = wire_name(&intent.target);
        let Some((uid_validity, uid_next)) = self.session.status(&target).await? else {
            return Ok(nothing);
        };
        let same = intent.uid_validity == 0 || intent.uid_validity == uid_validity;
        if !same || (uid_next != 0 && uid_next <= intent.uid_next) {
            return Ok(nothing);
        }
        let originals = self.likenesses(uids).await?;
        self.selected = None;
        let opened = self.session.open_mailbox(&target, Access::Read).await?;
        let copies = match opened {
            Ok(_) => self.copies(intent.uid_next.max(1), &originals).await?,
            Err(_) => Vec::new(),
        };
        self.reopen_mailbox(number, mailbox).await?;
        let mut waiting: BTreeMap<Likeness, Vec<u32>> = BTreeMap::new();
        for (uid, likeness) in originals {
            waiting.entry(likeness).or_default().push(uid);
        }
        let found = copies.into_iter().filter_map(|copy| waiting.get_mut(&copy)?.pop());
        Ok(found.collect())
    }

    /// Messages of the open mailbox from `from` on that are like one of the originals.
    async fn copies(
        &mut self,
        from: u32,
        originals: &BTreeMap<u32, Likeness>,
    ) -> Result<Vec<Likeness>, LaneFault> {
        let sizes: BTreeSet<u32> = originals.values().map(|(size, _)| *size).collect();
        let mut copies = Vec::new();
        let mut from = Some(from);
        while let Some(first) = from {
            let (listed, more) = self.session.list(first, None, MOST).await?;
            let last = listed.last().map(|last| last.uid);
            from = last.filter(|_| more).and_then(|last| last.checked_add(1));
            let alike = listed.into_iter().filter(|one| sizes.contains(&one.size));
            let alike: Vec<u32> = alike.map(|one| one.uid).collect();
            copies.extend(self.likenesses(&alike).await?.into_values());
        }
        Ok(copies)
    }

    /// Sizes and first octets of messages of the open mailbox.
    async fn likenesses(&mut self, uids: &[u32]) -> Result<BTreeMap<u32, Likeness>, LaneFault> {
        let mut likenesses = BTreeMap::new();
        for set in uid_sets(uids) {
            let mut heads: BTreeMap<u32, [u8; 32]> = BTreeMap::new();
            let mut on = |uid: u32, head: &[u8]| {
                // Only what was asked for, so that no server fills our memory.
                if uids.contains(&uid) {
                    heads.insert(uid, *blake3::hash(head).as_bytes());
                }
            };
            self.session.heads(&set, HEAD, &mut on).await?;
            for listed in self.session.sizes(&set).await? {
                if let Some(head) = heads.get(&listed.uid) {
                    likenesses.insert(listed.uid, (listed.size, *head));
                }
            }
        }
        Ok(likenesses)
    }
}
