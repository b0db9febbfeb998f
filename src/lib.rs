//! postrider: see ARCHITECTURE.md.
#![forbid(unsafe_code)]

pub mod clock;
pub mod mapi;
#[path = "../migrations/mod.rs"]
mod migrations;
#[allow(dead_code, unused_imports)] // Until both directions use all of it.
pub mod mime;
pub mod net;
pub mod profile;
pub mod session;
pub mod spi;
pub mod spool;
pub mod spooler;
pub mod transport;
