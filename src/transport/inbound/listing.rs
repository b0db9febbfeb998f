//! What is new in a range of UIDs, also where the server cannot list one of the messages.

use std::sync::Arc;

use super::fault::LaneFault;
use super::mailbox::Mailbox;
use super::responses::Listed;
use super::work::Work;

/// Messages in a row that cannot be listed, after which the others are not asked for.
const MOST_UNREADABLE: usize = 5;

impl Work {
    /// Lists a range. Returns how many there were and whether that was the last of all.
    pub(super) async fn list(
        &mut self,
        mailbox: &Arc<Mailbox>,
        from: u32,
        to: Option<u32>,
    ) -> Result<(usize, bool), LaneFault> {
        let tuning = self.account.settings.tuning;
        let most = usize::try_from(tuning.window).unwrap_or(usize::MAX);
        let (listed, more) = match self.session.list(from, to, most).await {
            Err(fault @ LaneFault::Refused { .. }) => {
                self.list_one_by_one(from, to, most, fault).await?
            }
            listed => listed?,
        };
        if let (true, Some(to)) = (listed.is_empty(), to)
            && self.session.search(from, Some(to)).await?.is_some_and(|there| !there.is_empty())
        {
            // OK without a list is no empty list: the cursor would pass over what is there.
            let words = "it answers UID FETCH with OK and lists nothing of what is there";
            return Err(LaneFault::Protocol(words.into()));
        }
        let highest = listed.last().map(|last| last.uid);
        let covered = match (more, to) {
            (true, _) | (false, None) => highest,
            (false, Some(to)) => Some(to),
        };
        if let Some(covered) = covered {
            mailbox.listed(&listed, covered, tuning.small);
        }
        Ok((listed.len(), to.is_none() && !more))
    }

    /// A list is refused: perhaps because of one message that the server cannot read. The
    /// others must not wait for it.
    async fn list_one_by_one(
        &mut self,
        from: u32,
        to: Option<u32>,
        most: usize,
        fault: LaneFault,
    ) -> Result<(Vec<Listed>, bool), LaneFault> {
        let mut uids = self.session.search(from, to).await?.unwrap_or_default();
        uids.retain(|uid| *uid >= from && to.is_none_or(|to| *uid <= to));
        uids.sort_unstable();
        uids.dedup();
        let more = uids.len() > most;
        uids.truncate(most);
        let mut listed = Vec::new();
        let mut unreadable = 0;
        for (number, uid) in uids.iter().enumerate() {
            let one = self.list_one(*uid).await?;
            unreadable += usize::from(one.is_some_and(|one| one.size == 0));
            listed.extend(one);
            if unreadable > MOST_UNREADABLE && unreadable > number {
                break;
            }
        }
        match fault {
            // It is not about one message.
            LaneFault::Refused { command, reply } if unreadable >= listed.len() => {
                Err(LaneFault::refused(command, reply))
            }
            _ => Ok((listed, more)),
        }
    }

    /// Lists one message; with size 0 when the server refuses to tell, `None` when it is gone.
    pub(super) async fn list_one(&mut self, uid: u32) -> Result<Option<Listed>, LaneFault> {
        match self.session.list(uid, Some(uid), 1).await {
            Ok((listed, _)) => Ok(listed.into_iter().next()),
            Err(LaneFault::Refused { .. }) => Ok(Some(Listed { uid, size: 0, date: None })),
            Err(fault) => Err(fault),
        }
    }
}
