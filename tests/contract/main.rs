//! The contract on running sessions: real traffic over a post office in this process, and the
//! spooler between a store in memory and transports that answer what they are told.
//!
//! Each test names the rules it proves; `docs/conformance.md` is the table the other way round.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    unreachable_pub
)]

mod abort;
mod flush;
mod host;
#[path = "../support/house.rs"]
mod house;
#[path = "../support/letters.rs"]
mod letters;
#[path = "../support/maildir.rs"]
mod maildir;
#[path = "../support/memory_store.rs"]
mod memory_store;
mod notify;
mod order;
mod outbox;
mod post;
mod races;
mod reports;
#[path = "../support/scripted_transport.rs"]
mod scripted_transport;
mod status;
mod times;
mod watcher;
