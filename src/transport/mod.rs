//! The SMTP/IMAP transport provider.

#[allow(dead_code)]
pub(crate) mod events;
#[allow(dead_code)]
mod notify;
mod settings;

pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
