//! postrider: see ARCHITECTURE.md.
#![forbid(unsafe_code)]

pub mod clock;
pub mod mapi;
pub mod mime;
pub mod net;
pub mod session;
pub mod spi;
pub mod spool;
pub mod transport;
