//! A small real mail server for tests, examples and demonstrations: SMTP and IMAP over the same mailboxes, with
//! faults that strike where and when they are told to.
//!
//! What is sent to it by SMTP can be fetched from it by IMAP, byte for byte.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use postoffice::{Listener, PostOffice};
//! use std::time::Duration;
//!
//! let office = PostOffice::builder().user("ann", "secret").start().await?;
//! println!("{} {}", office.port(Listener::Smtps), office.port(Listener::Imaps));
//! // ... send something to ann@example.org there, then:
//! # office.deliver("ann", "INBOX", *b"Subject: hi\r\n\r\n")?;
//! let mail = office.wait_messages("ann", "INBOX", 1, Duration::from_secs(5)).await?;
//! assert_eq!(&*mail[0].bytes, b"Subject: hi\r\n\r\n");
//! assert!(office.violations().is_empty());
//! # Ok(()) })
//! # }
//! ```
//!
//! - [`Builder`] says what is offered; [`PostOffice`] is the running server: [`PostOffice::stop`] and
//!   [`PostOffice::restart`] take it down and up on the same ports, dropping it ends it.
//! - [`PostOffice::accepted`] has every message with its envelope, [`PostOffice::violations`] what clients did that
//!   they must not, [`PostOffice::counters`] and [`PostOffice::transcript`] what happened on the wire.
//! - [`Fault`] scripts faults by rule; [`named_faults`] lists those a client can ask for by an address.
//! - [`AuthorizationServer`] gives out the tokens that XOAUTH2 and OAUTHBEARER show.
//! - Certificates come from an [`Authority`] made at start; [`Flaw`] makes bad ones.

mod authorization;
mod builder;
mod certificates;
mod config;
mod connection;
mod dates;
mod delivery;
mod faults;
mod imap;
mod mailbox;
mod message;
mod office;
mod sabotage;
mod sasl;
mod smtp;
mod state;
mod transcript;

pub use authorization::{AuthorizationServer, TokenFault, TokenRequest};
pub use builder::Builder;
pub use certificates::{Authority, CertificateError, Flaw, ServerCertificate};
pub use config::{
    AuthPolicy, BareNewlines, Feature, ImapCapability, Limits, Listener, Mechanism, Protocol,
    SmtpExtension, UnknownRecipients,
};
pub use faults::{
    Action, Fault, FaultHandle, ImapAction, ImapPhase, Moment, SmtpAction, SmtpPhase,
    named as named_faults,
};
pub use mailbox::{MailboxError, MailboxMessage};
pub use message::Body;
pub use office::PostOffice;
pub use smtp::{
    Accepted, BodyType, Envelope, MailParameters, Notify, Recipient, Reply, Ret, Violation,
    ViolationKind,
};
pub use state::{Counters, WaitError};
pub use transcript::{Speaker, TranscriptLine};
