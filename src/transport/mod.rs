//! The SMTP/IMAP transport provider.

#[allow(dead_code)] // Used by the logon.
mod events;
#[allow(dead_code)] // Used by the logon.
pub(crate) mod inbound;
mod settings;

pub use inbound::{MailboxMode, MailboxState};
pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
