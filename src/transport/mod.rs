//! The SMTP/IMAP transport provider.
//!
//! `provider` makes logons; `logon` has the verbs of `IXPLogon` and owns the two halves,
//! `outbound` and `inbound`, which know nothing of each other. `notify` works out what a
//! TransportNotify means, `calls` knows the open references, `hub` gathers the events of the
//! halves, `status` turns them into the status row, `deferred` reports what became of a message, `reload`
//! takes up a changed configuration in a critical section (`occupation`). `sent` stores sent copies on
//! the server, apart from the logons.

mod calls;
mod check;
mod deferred;
mod events;
mod hub;
mod inbound;
mod logon;
#[cfg(all(test, feature = "model-check"))]
#[allow(clippy::unwrap_used)]
mod model;
mod notify;
mod occupation;
mod outbound;
mod provider;
mod reload;
mod sent;
mod settings;
mod status;
mod status_entry;
mod taking_back;
#[cfg(test)]
#[path = "../../tests/support/wrapped_spool.rs"]
#[allow(clippy::unwrap_used)]
mod wrapped_spool;

pub use check::{ServerCheck, ServerRole, check_servers};
pub use inbound::{MailboxState, Watched};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use outbound::properties::reply as reply_property;
pub(crate) use outbound::{cancelled, perhaps_delivered};
pub use provider::SmtpImapProvider;
pub use sent::sent_folder;
pub use settings::{
    AfterFetch, Credentials, Identity, ImapSettings, InDoubtPolicy, QueueSettings, RetrySchedule,
    SmtpSettings, TransportSettings,
};
