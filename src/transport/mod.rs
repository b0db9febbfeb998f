//! The SMTP/IMAP transport provider.

mod calls;
mod events;
mod notify;
#[allow(dead_code)] // Used by the logon.
pub(crate) mod outbound;
mod settings;
mod status;

pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
