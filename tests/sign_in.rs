//! Signing in by OAuth 2.0: the commands, both directions over one token, and what happens when
//! a token runs out or the sign-in ends.

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

#[path = "secrets/detector.rs"]
mod detector;
#[path = "sign_in/helpers.rs"]
mod helpers;
#[path = "sign_in/program.rs"]
mod program_tests;
#[path = "sign_in/real.rs"]
mod real_servers;

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
