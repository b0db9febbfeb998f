//! The local submission listener: SMTP (RFC 6409) into the Outbox, for programs that know no other
//! way to hand over mail.
//!
//! `250` follows the durable commit of the Outbox row (SP-1), never before it. What RFC 5321 lets
//! a server accept and nothing else is accepted: lines end in CRLF, and DATA ends in
//! `<CRLF>.<CRLF>` only, so that nobody can smuggle a second message past us.
//!
//! [`Listener::bind`] opens the port, [`serve`] answers on it until it is told to stop.

mod auth;
mod content;
mod envelope;
mod listen;
mod receive;
mod reply;
mod server;
mod session;
mod settings;
mod wire;

#[cfg(test)]
mod tests;

pub use listen::Listener;
pub use server::{serve, serve_stream};
pub use settings::{ListenAddress, ListenLogin, ListenSettings, Reach};
