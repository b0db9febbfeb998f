//! The SMTP/IMAP transport provider.

#[allow(dead_code)] // Used by the logon.
mod events;
pub(crate) mod outbound;
mod settings;

pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
