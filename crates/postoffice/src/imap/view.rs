//! What one session knows of its selected mailbox: sequence numbers are a matter between it and its client
//! (RFC 3501 section 2.3.1.2 and 7.4.1).

use crate::mailbox::Mailbox;

use super::sequence::Ranges;

/// Whether messages may vanish from the view now (RFC 3501 section 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expunges {
    /// They are announced.
    Announced,
    /// They wait: a FETCH, STORE or SEARCH by sequence number is being answered.
    Deferred,
}

/// What has changed since the client was last told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Sequence numbers in the order in which they have to be announced.
    pub(super) expunged: Vec<u32>,
    /// The number of messages, if it has grown.
    pub(super) exists: Option<u32>,
}

#[derive(Debug)]
pub(super) struct View {
    pub(super) mailbox: String,
    pub(super) read_only: bool,
    /// Messages from this UID on are recent in this session.
    pub(super) recent_from: u32,
    validity: u32,
    uids: Vec<u32>,
    removals: u64,
    /// UIDs from here on are new.
    next: u32,
}

impl View {
    pub(super) fn new(name: String, mailbox: &Mailbox, read_only: bool) -> Self {
        Self {
            mailbox: name,
            read_only,
            recent_from: mailbox.recent_from,
            validity: mailbox.uid_validity,
            uids: mailbox.messages.keys().copied().collect(),
            removals: mailbox.removals,
            next: mailbox.uid_next,
        }
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.uids.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn recent(&self) -> usize {
        self.uids.len() - self.uids.partition_point(|&uid| uid < self.recent_from)
    }

    /// The sequence number of a message.
    pub(super) fn number(&self, uid: u32) -> Option<u32> {
        let at = self.uids.binary_search(&uid).ok()?;
        u32::try_from(at).ok()?.checked_add(1)
    }

    pub(super) fn uids(&self) -> &[u32] {
        &self.uids
    }

    /// What `*` stands for.
    pub(super) fn largest(&self, uid: bool) -> u32 {
        if uid { self.uids.last().copied().unwrap_or(0) } else { self.len() }
    }

    /// The UIDs of the messages in a set; `None` if it names a sequence number that does not exist.
    pub(super) fn resolve(&self, ranges: &Ranges, uid: bool) -> Option<Vec<u32>> {
        if !uid && (ranges.first() == 0 || ranges.last() > self.len()) {
            return None;
        }
        let mut found = Vec::new();
        for (from, to) in ranges.iter() {
            let (start, end) = if uid {
                (
                    self.uids.partition_point(|&known| known < from),
                    self.uids.partition_point(|&known| known <= to),
                )
            } else {
                (index(from), index(to).saturating_add(1))
            };
            found.extend_from_slice(self.uids.get(start..end).unwrap_or_default());
        }
        Some(found)
    }

    /// Whether there is anything to tell, cheaply.
    pub(super) fn is_current(&self, mailbox: &Mailbox) -> bool {
        self.validity == mailbox.uid_validity
            && self.removals == mailbox.removals
            && self.next == mailbox.uid_next
    }

    /// Catches up with the mailbox; `None` if it is not the same mailbox any more.
    pub(super) fn catch_up(&mut self, mailbox: &Mailbox, expunges: Expunges) -> Option<Changes> {
        if self.validity != mailbox.uid_validity {
            return None;
        }
        let mut changes = Changes::default();
        if self.removals != mailbox.removals && expunges == Expunges::Announced {
            // Descending, so that no announcement shifts the next.
            for (at, uid) in self.uids.iter().enumerate().rev() {
                if !mailbox.messages.contains_key(uid) {
                    changes.expunged.push(u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1));
                }
            }
            self.uids.retain(|uid| mailbox.messages.contains_key(uid));
            self.removals = mailbox.removals;
        }
        if self.next != mailbox.uid_next {
            let before = self.uids.len();
            self.uids.extend(mailbox.messages.range(self.next..).map(|(uid, _)| *uid));
            self.next = mailbox.uid_next;
            if self.uids.len() > before {
                changes.exists = Some(self.len());
            }
        }
        Some(changes)
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use imap_codec::imap_types::sequence::SequenceSet;

    use super::*;
    use crate::mailbox::Store;

    fn store(messages: u32) -> Store {
        let mut store = Store::new(1);
        store.add_user("ann");
        add(&mut store, messages);
        store
    }

    fn inbox(store: &mut Store) -> &mut Mailbox {
        store.mailbox_mut("ann", "INBOX").unwrap()
    }

    fn add(store: &mut Store, messages: u32) {
        for _ in 0..messages {
            inbox(store).append(b"x".as_slice().into(), Default::default(), SystemTime::now());
        }
    }

    fn resolve(view: &View, set: &str, uid: bool) -> Option<Vec<u32>> {
        let set = SequenceSet::try_from(set).unwrap();
        view.resolve(&Ranges::new(&set, view.largest(uid)), uid)
    }

    #[test]
    fn numbers_and_uids() {
        let mut store = store(5);
        inbox(&mut store).remove(2);
        let view = View::new("INBOX".to_owned(), inbox(&mut store), false);
        assert_eq!(view.number(3), Some(2));
        assert_eq!(view.number(2), None);
        assert_eq!(resolve(&view, "2:3", false), Some(vec![3, 4]));
        assert_eq!(resolve(&view, "2:3", true), Some(vec![3]));
        assert_eq!(resolve(&view, "9:*", true), Some(vec![5]));
        assert_eq!(resolve(&view, "9", false), None);
        assert_eq!(resolve(&view, "9", true), Some(vec![]));
    }

    #[test]
    fn an_empty_mailbox_has_no_last_message() {
        let mut store = store(0);
        let view = View::new("INBOX".to_owned(), inbox(&mut store), false);
        assert_eq!(resolve(&view, "*", false), None);
        assert_eq!(resolve(&view, "1:*", true), Some(vec![]));
    }

    #[test]
    fn changes_are_told_once_and_in_order() {
        let mut store = store(5);
        let mut view = View::new("INBOX".to_owned(), inbox(&mut store), false);
        inbox(&mut store).remove(2);
        inbox(&mut store).remove(4);
        add(&mut store, 1);
        let deferred = view.catch_up(inbox(&mut store), Expunges::Deferred).unwrap();
        assert_eq!(deferred, Changes { expunged: vec![], exists: Some(6) });
        let told = view.catch_up(inbox(&mut store), Expunges::Announced).unwrap();
        assert_eq!(told, Changes { expunged: vec![4, 2], exists: None });
        assert!(view.is_current(inbox(&mut store)));
        assert_eq!(view.uids(), [1, 3, 5, 6]);
        store.rebuild("ann", "INBOX").unwrap();
        assert_eq!(view.catch_up(inbox(&mut store), Expunges::Announced), None);
    }
}
