//! Passwords and tokens stay where they belong, and nobody but the owner gets in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    dead_code,
    unreachable_pub
)]

#[path = "secrets/access.rs"]
mod access;
#[path = "secrets/detector.rs"]
mod detector;
#[path = "secrets/helpers.rs"]
mod helpers;
#[path = "secrets/logs.rs"]
mod logs;

#[path = "support/house.rs"]
mod house;
#[path = "support/letters.rs"]
mod letters;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;
