//! The direct way to mailboxes, past both protocols.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::mailbox::{MailboxError, MailboxMessage};
use crate::office::PostOffice;
use crate::state::WaitError;

/// Mailbox names are as IMAP has them on the wire (modified UTF-7, RFC 3501 section 5.1.3); they are not checked,
/// so that a test can present a client with any name.
impl PostOffice {
    /// Puts a message into a mailbox as if it had just arrived; sessions that idle are told at once. Returns its UID.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox.
    pub fn deliver(
        &self,
        user: &str,
        mailbox: &str,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<u32, MailboxError> {
        let uid = self.shared.with_store(|store| {
            let mailbox = store.mailbox_mut(user, mailbox)?;
            Ok(mailbox.append(bytes.into(), BTreeSet::new(), SystemTime::now()))
        })?;
        self.shared.mail_changed();
        Ok(uid)
    }

    /// Puts many messages into a mailbox and tells sessions once. Returns how many there were.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox.
    pub fn deliver_all<M: Into<Arc<[u8]>>>(
        &self,
        user: &str,
        mailbox: &str,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<usize, MailboxError> {
        let count = self.shared.with_store(|store| {
            let mailbox = store.mailbox_mut(user, mailbox)?;
            let mut count = 0;
            for bytes in messages {
                mailbox.append(bytes.into(), BTreeSet::new(), SystemTime::now());
                count += 1;
            }
            Ok(count)
        })?;
        self.shared.mail_changed();
        Ok(count)
    }

    /// The messages in a mailbox, by rising UID.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox.
    pub fn messages(&self, user: &str, mailbox: &str) -> Result<Vec<MailboxMessage>, MailboxError> {
        self.shared.with_store(|store| {
            Ok(store.mailbox(user, mailbox)?.messages.values().cloned().collect())
        })
    }

    /// How many messages are in a mailbox; 0 if there is no such user or mailbox.
    pub fn message_count(&self, user: &str, mailbox: &str) -> usize {
        self.shared.with_store(|store| {
            store.mailbox(user, mailbox).map_or(0, |found| found.messages.len())
        })
    }

    /// The UIDVALIDITY of a mailbox.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox.
    pub fn uid_validity(&self, user: &str, mailbox: &str) -> Result<u32, MailboxError> {
        self.shared.with_store(|store| Ok(store.mailbox(user, mailbox)?.uid_validity))
    }

    /// The names of a user's mailboxes, sorted.
    ///
    /// # Errors
    /// [`MailboxError::NoSuchUser`].
    pub fn mailboxes(&self, user: &str) -> Result<Vec<String>, MailboxError> {
        self.shared.with_store(|store| store.names(user))
    }

    /// Creates a mailbox.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or the mailbox exists.
    pub fn create_mailbox(&self, user: &str, mailbox: &str) -> Result<(), MailboxError> {
        self.changing(|store| store.create(user, mailbox))
    }

    /// Deletes a mailbox with its messages; sessions that have it selected get BYE.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox, or it is INBOX.
    pub fn delete_mailbox(&self, user: &str, mailbox: &str) -> Result<(), MailboxError> {
        self.changing(|store| store.delete(user, mailbox))
    }

    /// Gives a mailbox a new UIDVALIDITY and its messages new UIDs from 1, as after a repair of the server's index;
    /// sessions that have it selected get BYE. Returns the new UIDVALIDITY.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox.
    pub fn rebuild_mailbox(&self, user: &str, mailbox: &str) -> Result<u32, MailboxError> {
        self.changing(|store| store.rebuild(user, mailbox))
    }

    /// Removes a message as another client's EXPUNGE would. Returns whether it was there.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox.
    pub fn remove(&self, user: &str, mailbox: &str, uid: u32) -> Result<bool, MailboxError> {
        self.changing(|store| Ok(store.mailbox_mut(user, mailbox)?.remove(uid).is_some()))
    }

    /// Replaces the flags of a message as another client's STORE would. Returns whether the message was there.
    ///
    /// # Errors
    /// [`MailboxError`] if there is no such user or mailbox.
    pub fn set_flags(
        &self,
        user: &str,
        mailbox: &str,
        uid: u32,
        flags: &[&str],
    ) -> Result<bool, MailboxError> {
        self.changing(|store| {
            let found = store.mailbox_mut(user, mailbox)?.messages.get_mut(&uid);
            Ok(found.is_some_and(|message| {
                message.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
                true
            }))
        })
    }

    /// Waits until a mailbox holds at least `count` messages and returns them. Cancel-safe.
    ///
    /// # Errors
    /// [`WaitError`] if it holds fewer after the given time.
    pub async fn wait_messages(
        &self,
        user: &str,
        mailbox: &str,
        count: usize,
        within: Duration,
    ) -> Result<Vec<MailboxMessage>, WaitError> {
        let enough = |office: &Self| office.message_count(user, mailbox) >= count;
        let waited = self.wait_until("messages", within, enough).await;
        waited.map_err(|_| {
            let there = self.message_count(user, mailbox);
            let what = format!("{count} messages in {mailbox} of {user} (there are {there})");
            WaitError::new(what, within)
        })?;
        Ok(self.messages(user, mailbox).unwrap_or_default())
    }

    fn changing<T>(
        &self,
        change: impl FnOnce(&mut crate::mailbox::Store) -> Result<T, MailboxError>,
    ) -> Result<T, MailboxError> {
        let result = self.shared.with_store(change)?;
        self.shared.mail_changed();
        Ok(result)
    }
}
