//! The SMTP/IMAP transport provider.

mod calls;
pub(crate) mod events;
mod notify;
mod settings;
mod status;

pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
