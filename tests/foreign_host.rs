//! The provider under a host that is not our spooler, through the traits of `postrider::spi`
//! alone. The host has plain threads and no runtime anywhere, so every test here also proves that
//! no call depends on the caller's runtime.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    clippy::string_slice,
    dead_code,
    unreachable_pub
)]

#[path = "foreign_host/broken.rs"]
mod broken;
#[path = "support/foreign_host.rs"]
mod foreign_host;
#[path = "support/foreign_message.rs"]
mod foreign_message;
#[path = "support/foreign_rig.rs"]
mod foreign_rig;
#[path = "foreign_host/inbound.rs"]
mod inbound;
#[path = "foreign_host/life.rs"]
mod life;
#[path = "foreign_host/logoff.rs"]
mod logoff;
#[path = "foreign_host/outbound.rs"]
mod outbound;
#[path = "foreign_host/status.rs"]
mod status;
#[path = "foreign_host/validate.rs"]
mod validate;
