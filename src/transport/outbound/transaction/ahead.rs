//! The envelope of the next message behind the final dot of this one (RFC 2920 section 3.1): while
//! messages wait in line, each of them takes one round trip instead of two.

use super::commands::Group;
use super::{TextForm, fitness};
use crate::mapi::EntryId;
use crate::spool::Envelope;
use crate::transport::outbound::connection::Connection;

/// Who knows which message follows over a connection.
pub(crate) trait Follow: Send + Sync {
    /// The envelope of the next message, to be written right behind the final dot of the one that
    /// is on the connection now. Whoever gives it away comes with its message next, and with
    /// nothing else.
    fn next(&self, connection: &Connection) -> Option<Ahead>;
}

/// An envelope that is written ahead of its turn.
#[derive(Debug)]
pub(crate) struct Ahead {
    entry: EntryId,
    recipients: Vec<usize>,
    /// What is to be written; taken when it is.
    commands: String,
}

impl Ahead {
    /// The envelope of a message of `size` octets for these of its recipients; `None` where only
    /// an exchange of its own will do.
    pub(crate) fn new(
        connection: &Connection,
        entry: &EntryId,
        envelope: &Envelope,
        size: u64,
        recipients: Vec<usize>,
    ) -> Option<Self> {
        let offers = connection.capabilities();
        let form = fitness(connection, envelope, size).ok()?;
        if !offers.pipelining || form != TextForm::AsKept || recipients.is_empty() {
            return None;
        }
        let group = Group::new(offers, envelope, size, &recipients, form);
        let all = group.asked == recipients;
        all.then(|| Ahead { entry: entry.clone(), recipients, commands: group.text })
    }

    /// What is to be written.
    pub(super) fn take_commands(&mut self) -> String {
        std::mem::take(&mut self.commands)
    }

    /// Whether it is the envelope of this message.
    pub(crate) fn is_of(&self, entry: &EntryId) -> bool {
        self.entry == *entry
    }

    /// Whom it names, by index.
    pub(super) fn recipients(&self) -> &[usize] {
        &self.recipients
    }
}

#[cfg(test)]
mod tests;
