//! A mail-queue transport with the semantics of MAPI's transport provider interface, driving real
//! mail: SMTP out, IMAP in, through a durable queue, under `TransportNotify`.
//!
//! Two readers are served. Who wants to **send and fetch through a profile** starts at
//! [`session::Session`]: open it on a [`profile::Profile`], submit, flush, watch the status table,
//! shut it down. Who **hosts transports** (or writes one) starts at [`spi`], the contract, with
//! [`transport::SmtpImapProvider`] as the provider and [`spooler::Spooler`] as a host.
//!
//! # Map
//!
//! From the user's side down to the disk; a module uses only those below it.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`control`], [`listener`] | a session for other processes: the control socket, and SMTP on this machine |
//! | [`session`] | sending and fetching through a profile; [`session::Service`] is all that can be asked |
//! | [`spooler`] | the host: hands messages to transports, flushes, keeps the status table |
//! | [`store`] | Outbox, Maildir, reports |
//! | [`transport`] | the provider for SMTP and IMAP |
//! | [`profile`], [`discovery`] | settings from TOML; finding the servers of an address |
//! | [`net`] | connections, TLS, logins |
//! | [`spool`] | what is durable, and `fsck` |
//! | [`mime`] | messages to and from RFC 5322 |
//! | [`spi`] | the contract between hosts and transports: start here to write either |
//! | [`mapi`] | its words: flags, codes, properties, entry ids |
//! | [`observe`], [`clock`] | looking on; the one source of the time |
//!
//! # Chapters
//!
//! 1. Send something: [`session::Session::open`], [`session::Service::submit`],
//!    [`session::Service::wait`].
//! 2. Flush: [`session::Service::flush`] returns when what waited was tried (`examples/flush.rs`).
//! 3. Drive it as a spooler would: [`session::Service::notify`] with the flags of
//!    [`mapi::TransportNotify`]; [`session::Service::cancel`] at every moment of a message's way
//!    (`examples/cancel.rs`).
//! 4. Watch: [`session::Session::status_table`], [`session::Service::watch_status`].
//! 5. Write a transport: [`spi`], `examples/custom_transport.rs`.
//!
//! `ARCHITECTURE.md` shows the rooms from inside and lists every legal state on disk.
#![forbid(unsafe_code)]

#[doc(hidden)] // The binary's insides, no part of the library.
pub mod cli;
pub mod clock;
pub mod control;
pub mod discovery;
pub mod listener;
pub mod mapi;
#[path = "../migrations/mod.rs"]
mod migrations;
pub mod mime;
pub mod net;
mod oauth2;
pub mod observe;
pub mod profile;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod properties;
pub mod session;
pub mod spi;
pub mod spool;
pub mod spooler;
pub mod store;
mod sync;
pub mod transport;

// Its example compiles.
#[cfg(doctest)]
#[doc = include_str!("../docs/quick-starts.md")]
mod quick_starts {}
