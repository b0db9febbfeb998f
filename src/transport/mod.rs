//! The SMTP/IMAP transport provider.

mod calls;
pub(crate) mod events;
mod notify;
pub(crate) mod outbound;
mod settings;
mod status;

pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
