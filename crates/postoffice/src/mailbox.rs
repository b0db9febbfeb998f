//! The mailboxes both protocols share: a pure store of users, mailboxes and messages (RFC 3501 section 2.3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

/// Why something could not be done with a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// No user of that name.
    #[error("there is no user {0}")]
    NoSuchUser(String),
    /// The user has no mailbox of that name.
    #[error("there is no mailbox {0}")]
    NoSuchMailbox(String),
    /// The mailbox exists already.
    #[error("mailbox {0} exists already")]
    AlreadyExists(String),
    /// INBOX cannot be deleted.
    #[error("INBOX cannot be deleted")]
    Inbox,
}

/// A message as it lies in a mailbox.
#[derive(Debug, Clone)]
pub struct MailboxMessage {
    /// Unique identifier within the mailbox and its UIDVALIDITY.
    pub uid: u32,
    /// Flags and keywords, sorted, as IMAP writes them (`\Seen`).
    pub flags: BTreeSet<String>,
    /// When it arrived.
    pub internal_date: SystemTime,
    /// The exact bytes.
    pub bytes: Arc<[u8]>,
}

impl MailboxMessage {
    /// Whether the flag is set; names are compared without regard to case.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|set| set.eq_ignore_ascii_case(flag))
    }
}

/// One mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) uid_validity: u32,
    pub(crate) uid_next: u32,
    /// Grows with every removal, so that a session knows when its view has holes.
    pub(crate) removals: u64,
    /// Messages from this UID on have not been announced as recent to any session.
    pub(crate) recent_from: u32,
    pub(crate) messages: BTreeMap<u32, MailboxMessage>,
}

impl Mailbox {
    fn new(uid_validity: u32) -> Self {
        Self { uid_validity, uid_next: 1, removals: 0, recent_from: 1, messages: BTreeMap::new() }
    }

    pub(crate) fn append(
        &mut self,
        bytes: Arc<[u8]>,
        flags: BTreeSet<String>,
        internal_date: SystemTime,
    ) -> u32 {
        let uid = self.uid_next;
        self.uid_next = self.uid_next.saturating_add(1);
        self.messages.insert(uid, MailboxMessage { uid, flags, internal_date, bytes });
        uid
    }

    pub(crate) fn remove(&mut self, uid: u32) -> Option<MailboxMessage> {
        let removed = self.messages.remove(&uid);
        if removed.is_some() {
            self.removals += 1;
        }
        removed
    }

    pub(crate) fn unseen(&self) -> usize {
        self.messages.values().filter(|message| !message.flags.contains("\\Seen")).count()
    }
}

#[derive(Debug, Default)]
struct Account {
    mailboxes: BTreeMap<String, Mailbox>,
    subscribed: BTreeSet<String>,
}

/// All mailboxes of all users.
#[derive(Debug)]
pub(crate) struct Store {
    accounts: BTreeMap<String, Account>,
    next_validity: u32,
}

impl Store {
    /// `first_validity` is the UIDVALIDITY of the first mailbox; each later one gets the next number.
    pub(crate) fn new(first_validity: u32) -> Self {
        Self { accounts: BTreeMap::new(), next_validity: first_validity.max(1) }
    }

    fn validity(&mut self) -> u32 {
        let validity = self.next_validity;
        self.next_validity = self.next_validity.saturating_add(1);
        validity
    }

    pub(crate) fn add_user(&mut self, user: &str) {
        let validity = self.validity();
        let account = self.accounts.entry(user.to_owned()).or_default();
        account.mailboxes.entry("INBOX".to_owned()).or_insert_with(|| Mailbox::new(validity));
        account.subscribed.insert("INBOX".to_owned());
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &str> {
        self.accounts.keys().map(String::as_str)
    }

    fn account(&self, user: &str) -> Result<&Account, MailboxError> {
        self.accounts.get(user).ok_or_else(|| MailboxError::NoSuchUser(user.to_owned()))
    }

    fn account_mut(&mut self, user: &str) -> Result<&mut Account, MailboxError> {
        self.accounts.get_mut(user).ok_or_else(|| MailboxError::NoSuchUser(user.to_owned()))
    }

    pub(crate) fn mailbox(&self, user: &str, name: &str) -> Result<&Mailbox, MailboxError> {
        let name = canonical(name);
        self.account(user)?.mailboxes.get(&name).ok_or(MailboxError::NoSuchMailbox(name))
    }

    pub(crate) fn mailbox_mut(
        &mut self,
        user: &str,
        name: &str,
    ) -> Result<&mut Mailbox, MailboxError> {
        let name = canonical(name);
        self.account_mut(user)?.mailboxes.get_mut(&name).ok_or(MailboxError::NoSuchMailbox(name))
    }

    pub(crate) fn names(&self, user: &str) -> Result<Vec<String>, MailboxError> {
        Ok(self.account(user)?.mailboxes.keys().cloned().collect())
    }

    pub(crate) fn subscribed(&self, user: &str) -> Result<Vec<String>, MailboxError> {
        Ok(self.account(user)?.subscribed.iter().cloned().collect())
    }

    pub(crate) fn subscribe(&mut self, user: &str, name: &str) -> Result<(), MailboxError> {
        self.account_mut(user)?.subscribed.insert(canonical(name));
        Ok(())
    }

    pub(crate) fn unsubscribe(&mut self, user: &str, name: &str) -> Result<(), MailboxError> {
        self.account_mut(user)?.subscribed.remove(&canonical(name));
        Ok(())
    }

    pub(crate) fn create(&mut self, user: &str, name: &str) -> Result<(), MailboxError> {
        let validity = self.validity();
        let name = canonical(name);
        let account = self.account_mut(user)?;
        if account.mailboxes.contains_key(&name) {
            return Err(MailboxError::AlreadyExists(name));
        }
        account.mailboxes.insert(name, Mailbox::new(validity));
        Ok(())
    }

    pub(crate) fn delete(&mut self, user: &str, name: &str) -> Result<(), MailboxError> {
        let name = canonical(name);
        if name == "INBOX" {
            return Err(MailboxError::Inbox);
        }
        match self.account_mut(user)?.mailboxes.remove(&name) {
            Some(_) => Ok(()),
            None => Err(MailboxError::NoSuchMailbox(name)),
        }
    }

    /// Renames a mailbox; renaming INBOX moves its messages and leaves it empty (RFC 3501 section 6.3.5).
    pub(crate) fn rename(&mut self, user: &str, from: &str, to: &str) -> Result<(), MailboxError> {
        let validity = self.validity();
        let (from, to) = (canonical(from), canonical(to));
        let account = self.account_mut(user)?;
        if account.mailboxes.contains_key(&to) {
            return Err(MailboxError::AlreadyExists(to));
        }
        let Some(moved) = account.mailboxes.remove(&from) else {
            return Err(MailboxError::NoSuchMailbox(from));
        };
        account.mailboxes.insert(to, moved);
        if from == "INBOX" {
            account.mailboxes.insert(from, Mailbox::new(validity));
        }
        Ok(())
    }

    /// Gives the mailbox a new UIDVALIDITY and its messages new UIDs from 1, in the old order.
    pub(crate) fn rebuild(&mut self, user: &str, name: &str) -> Result<u32, MailboxError> {
        let validity = self.validity();
        let mailbox = self.mailbox_mut(user, name)?;
        let old = std::mem::replace(mailbox, Mailbox::new(validity));
        for message in old.messages.into_values() {
            mailbox.append(message.bytes, message.flags, message.internal_date);
        }
        Ok(validity)
    }
}

/// INBOX is written in any case (RFC 3501 section 5.1); all other names are kept as they are.
pub(crate) fn canonical(name: &str) -> String {
    if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn store() -> Store {
        let mut store = Store::new(7);
        store.add_user("ann");
        store
    }

    fn put(store: &mut Store, name: &str, text: &str) -> u32 {
        store.mailbox_mut("ann", name).unwrap().append(
            text.as_bytes().into(),
            BTreeSet::new(),
            SystemTime::UNIX_EPOCH,
        )
    }

    #[test]
    fn uids_rise_and_are_never_used_twice() {
        let mut store = store();
        assert_eq!(put(&mut store, "inbox", "a"), 1);
        assert_eq!(put(&mut store, "INBOX", "b"), 2);
        let inbox = store.mailbox_mut("ann", "INBOX").unwrap();
        assert!(inbox.remove(2).is_some());
        assert!(inbox.remove(2).is_none());
        assert_eq!(inbox.removals, 1);
        assert_eq!(put(&mut store, "INBOX", "c"), 3);
    }

    #[test]
    fn a_rebuilt_mailbox_has_the_same_mail_under_new_identifiers() {
        let mut store = store();
        put(&mut store, "INBOX", "a");
        put(&mut store, "INBOX", "b");
        store.mailbox_mut("ann", "INBOX").unwrap().remove(1);
        let before = store.mailbox("ann", "INBOX").unwrap().uid_validity;
        let after = store.rebuild("ann", "INBOX").unwrap();
        assert!(after > before);
        let inbox = store.mailbox("ann", "INBOX").unwrap();
        assert_eq!(inbox.messages.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(&*inbox.messages[&1].bytes, b"b");
    }

    #[test]
    fn a_recreated_mailbox_has_another_uidvalidity() {
        let mut store = store();
        store.create("ann", "Box").unwrap();
        let first = store.mailbox("ann", "Box").unwrap().uid_validity;
        store.delete("ann", "Box").unwrap();
        store.create("ann", "Box").unwrap();
        assert_ne!(first, store.mailbox("ann", "Box").unwrap().uid_validity);
        assert_eq!(store.create("ann", "Box"), Err(MailboxError::AlreadyExists("Box".to_owned())));
    }

    #[test]
    fn inbox_stays() {
        let mut store = store();
        put(&mut store, "INBOX", "a");
        assert_eq!(store.delete("ann", "inbox"), Err(MailboxError::Inbox));
        store.rename("ann", "INBOX", "Old").unwrap();
        assert_eq!(store.mailbox("ann", "Old").unwrap().messages.len(), 1);
        assert_eq!(store.mailbox("ann", "INBOX").unwrap().messages.len(), 0);
    }
}
