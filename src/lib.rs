//! postrider: see ARCHITECTURE.md.
#![forbid(unsafe_code)]

#[doc(hidden)] // The binary's insides, no part of the library.
pub mod cli;
pub mod clock;
pub mod control;
pub mod mapi;
pub mod net;
pub mod profile;
pub mod session;
pub mod spi;
pub mod spool;
pub mod transport;
