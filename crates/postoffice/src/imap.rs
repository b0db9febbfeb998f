//! The IMAP server (RFC 3501 and the extensions in [`crate::ImapCapability`]).

mod authenticated;
mod command;
mod fetch;
mod idle;
mod list;
mod literal;
mod login;
mod search;
mod section;
mod selected;
mod sequence;
mod session;
mod view;

pub(crate) use session::serve;
