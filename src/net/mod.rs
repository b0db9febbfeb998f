//! From a host name to a byte stream that is ready for a login: dialling, TLS, STARTTLS,
//! deadlines, and the words of a login.
//!
//! Greeting, EHLO or CAPABILITY, and STARTTLS are done here on the raw stream, because a reader
//! that keeps what it read in clear would take it for the first words under TLS.

mod binding;
mod connector;
mod deadlines;
mod deflate;
mod dial;
mod error;
mod imap;
mod imap_login;
mod imap_reply;
mod line;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod sasl;
mod scram;
mod server;
mod smtp;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
pub(crate) mod tests;
mod tls;

pub(crate) use binding::ChannelBinding;
pub(crate) use connector::Connector;
pub(crate) use deadlines::{Deadlines, Phase};
pub(crate) use error::{Fault, NetError, NetErrorKind, TlsReason};
pub(crate) use imap::{Capabilities, ImapOpened};
pub use imap_login::Compress;
pub(crate) use imap_login::{ImapLoggedIn, ImapLogin, LoginError, LoginMemory};
pub(crate) use imap_reply::{ImapReply, ReplyStatus, Throttle, split_code, throttle};
pub(crate) use line::for_people;
pub use sasl::Cleartext;
pub(crate) use sasl::{Binding, Channel, Claim, Exchange, Mechanism, SaslError, conceal};
pub use server::{ClientCertificate, Fingerprint, Server, TlsMode, Trust};
pub(crate) use stream::Stream;
