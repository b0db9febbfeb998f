//! Message objects to and from RFC 5322.
//!
//! The streaming parts ([`Scanner`], [`Normaliser`], [`Survey`], [`Recoder`]) take bytes as they
//! come and hold no more than one header block; none of them does I/O, none knows the time.

pub mod address;
mod address_rules;
mod compose;
mod encode;
mod error;
mod header;
mod normalise;
mod parse;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod recode;
pub mod report;
mod scan;
mod senders;
mod status_report;
mod walk;

pub use address::Mailbox;
pub use address_rules::{AccountRule, AddressRules, Rewrite};
pub use compose::{check_message, compose};
pub use error::MimeError;
pub use header::HeaderFacts;
pub(crate) use header::is_auto_submitted;
pub(crate) use normalise::date;
pub use normalise::{Defaults, Normalised, Normaliser, Origin};
pub use parse::{IncomingHeader, ParsedHeader};
pub use recode::{Accepts, Recoder, Survey, Surveyed, recode, to_seven_bit, to_short_lines};
pub use report::report;
pub use scan::{Facts, Octets, Scanner};
pub use status_report::{StatusAction, StatusOfRecipient, StatusReport, StatusReportReader};

/// The largest header block that is taken, in octets.
pub const MAX_HEADER: usize = 1024 * 1024;

/// The longest line without its CR LF that may go over the wire, in octets (RFC 5321 section
/// 4.5.3.1.6).
pub const MAX_LINE: u64 = 998;
