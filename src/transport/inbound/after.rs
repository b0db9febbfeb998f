//! What happens on the server to messages that are safely in the store (IB-6).
//!
//! Everything here may be repeated after a crash and does no harm then: flags are set again,
//! UIDs that are gone are ignored. COPY is not so; see `copying`.
//!
//! EXPUNGE without UIDPLUS removes whatever is flagged `\Deleted`, also what another program
//! flagged. There it is done only when a search says that nothing else is flagged; else the
//! messages stay flagged, and whoever expunges next removes them. What another program flags
//! between that search and the EXPUNGE behind it goes with it: without UIDPLUS nothing tells.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::account::Place;
use super::fault::LaneFault;
use super::mailbox::Mailbox;
use super::plan::uid_sets;
use super::responses::{expect_ok, quoted, wire_name};
use super::work::Work;
use crate::net::{ImapReply, ReplyStatus};
use crate::transport::settings::AfterFetch;

/// Most messages of one command.
pub(super) const MOST: usize = 500;

impl Work {
    /// Does what is owed to a mailbox of this lane.
    pub(super) async fn settle_owed(&mut self, number: usize) -> Result<(), LaneFault> {
        let Some(mailbox) = self.mailbox(number) else { return Ok(()) };
        let _work = mailbox.work.lock().await;
        self.settle_owed_here(number, &mailbox).await
    }

    /// Does what is owed to a mailbox. A refusal is shown and leaves it owed for the next round.
    pub(super) async fn settle_owed_here(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
    ) -> Result<(), LaneFault> {
        match self.try_settle(number, mailbox).await {
            Err(fault) if fault.spares_the_connection() => {
                self.after_failed.insert(number);
                self.show_owed(number, mailbox, &fault);
                Ok(())
            }
            Ok(()) => {
                self.account.trouble(Place::Owed(number), None);
                Ok(())
            }
            result => result,
        }
    }

    fn show_owed(&self, number: usize, mailbox: &Mailbox, fault: &LaneFault) {
        if mailbox.owes_too_much(self.account.settings.tuning.most_owed) {
            let why = Box::new(fault.clone());
            let (mailbox, count) = (mailbox.name.clone(), mailbox.owed_count());
            self.account.owed_fault(number, &LaneFault::Owing { mailbox, count, why });
        } else {
            self.account.owed_fault(number, fault);
        }
    }

    /// Whether a mailbox may be owed more. What is owed is on disk until it is done and is never
    /// forgotten, so there has to be an end to it: where a server refuses for so long that too
    /// much has come together, no more is fetched from that mailbox until it takes some of it.
    pub(super) async fn may_owe_more(
        &mut self,
        number: usize,
        mailbox: &Arc<Mailbox>,
    ) -> Result<bool, LaneFault> {
        let most = self.account.settings.tuning.most_owed;
        if mailbox.owes_too_much(most)
            && mailbox.owed_count() > 0
            && !self.after_failed.contains(&number)
        {
            self.settle_owed_here(number, mailbox).await?;
        }
        Ok(!mailbox.owes_too_much(most) || mailbox.owed_count() == 0)
    }

    async fn try_settle(&mut self, number: usize, mailbox: &Arc<Mailbox>) -> Result<(), LaneFault> {
        let policy = self.account.settings.imap.after.clone();
        if policy == AfterFetch::Keep {
            // The profile was changed: what was owed is no longer wanted.
            mailbox.owe_nothing();
            mailbox.set_copying(None);
            return Ok(mailbox.commit().await?);
        }
        if self.selected != Some(number) {
            self.reopen_mailbox(number, mailbox).await?;
        }
        if !self.writable {
            return Err(LaneFault::Mailbox {
                mailbox: mailbox.name.clone(),
                words: "the server opens it for reading only, imap.after cannot be done".into(),
            });
        }
        // Only now: the numbers may have become void with the mailbox that was just opened.
        if let AfterFetch::Move(target) = &policy
            && (!self.session.capabilities().has("MOVE") || mailbox.copying().is_some())
        {
            return self.copy_away(number, mailbox, target).await;
        }
        loop {
            let uids = mailbox.owed(MOST);
            if uids.is_empty() {
                return Ok(());
            }
            for set in uid_sets(&uids) {
                match &policy {
                    AfterFetch::Keep => {}
                    AfterFetch::Seen => self.store(&set, "\\Seen").await?,
                    AfterFetch::Delete => self.delete(&set, &uids).await?,
                    AfterFetch::Move(target) => {
                        self.transfer("UID MOVE", &set, &quoted(&wire_name(target))).await?;
                    }
                }
            }
            mailbox.after_done(&uids);
            mailbox.commit().await?;
        }
    }

    pub(super) async fn store(&mut self, set: &str, flag: &str) -> Result<(), LaneFault> {
        let command = format!("UID STORE {set} +FLAGS.SILENT ({flag})");
        let reply = self.session.change("UID STORE", &command).await?;
        done("UID STORE", reply)
    }

    async fn delete(&mut self, set: &str, uids: &[u32]) -> Result<(), LaneFault> {
        self.store(set, "\\Deleted").await?;
        self.expunge(set, uids).await
    }

    pub(super) async fn expunge(&mut self, set: &str, uids: &[u32]) -> Result<(), LaneFault> {
        if self.session.capabilities().has("UIDPLUS") {
            let command = format!("UID EXPUNGE {set}");
            let reply = self.session.change("UID EXPUNGE", &command).await?;
            return done("UID EXPUNGE", reply);
        }
        let ours: BTreeSet<u32> = uids.iter().copied().collect();
        let flagged = self.session.deleted().await?;
        if flagged.is_some_and(|all| all.iter().all(|uid| ours.contains(uid))) {
            let reply = self.session.change("EXPUNGE", "EXPUNGE").await?;
            return done("EXPUNGE", reply);
        }
        Ok(())
    }

    /// COPY or MOVE; the target is made if it is missing.
    pub(super) async fn transfer(
        &mut self,
        verb: &'static str,
        set: &str,
        target: &str,
    ) -> Result<(), LaneFault> {
        let command = format!("{verb} {set} {target}");
        let reply = self.session.change(verb, &command).await?;
        if reply.status == ReplyStatus::Ok {
            return Ok(());
        }
        // Not every server says TRYCREATE; making what is there already does no harm.
        let made = self.session.change("CREATE", &format!("CREATE {target}")).await?;
        if made.status != ReplyStatus::Ok && !reply.has_code("TRYCREATE") {
            return done(verb, reply);
        }
        let again = self.session.change(verb, &command).await?;
        done(verb, again)
    }
}

pub(super) fn done(command: &'static str, reply: ImapReply) -> Result<(), LaneFault> {
    expect_ok(command, reply)
}
