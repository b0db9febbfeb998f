//! The SMTP/IMAP transport provider.

mod calls;
mod events;
mod notify;
mod settings;
mod status;

pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
