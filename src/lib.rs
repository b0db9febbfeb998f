//! A mail-queue transport with the semantics of MAPI's transport provider interface, driving real
//! mail: SMTP out, IMAP in, through a durable queue, under `TransportNotify`.
//!
//! Two readers are served. Who wants to **send and fetch through a profile** starts at
//! [`session::Session`]: open it on a [`profile::Profile`], submit, flush, watch the status table,
//! shut it down. Who **hosts transports** (or writes one) starts at [`spi`], the contract, with
//! [`transport::SmtpImapProvider`] as the provider and [`spooler::Spooler`] as a host.
//!
//! `ARCHITECTURE.md` is the map of the crate and lists every legal state on disk.
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
