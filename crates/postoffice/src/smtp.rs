//! The SMTP server (RFC 5321).

mod auth;
mod content;
mod data;
mod envelope;
mod reply;
mod session;
mod transaction;

pub use envelope::{
    Accepted, BodyType, Envelope, MailParameters, Notify, Recipient, Ret, Violation, ViolationKind,
};
pub use reply::Reply;
pub(crate) use session::serve;
