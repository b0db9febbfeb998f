//! Receiving, beside `mbsync`, a bare socket and the disk, all on one Dovecot.
//!
//! `cargo bench --bench inbound -- [fetch] [look] [push] [large]` (default: all of them, about two
//! minutes). `INBOUND_ROUNDS` says how often each pair is measured, in turn (default 3).
//!
//! - `fetch`: 10,000 messages, 127 MB, into a fresh Maildir, durably.
//! - `look`: nothing new in a mailbox of 100,000.
//! - `push`: from delivery to the file in `new`.
//! - `large`: one message of 200 MB, and the memory it takes.
//!
//! Needs Dovecot; without `mbsync` (Debian: isync) its columns are missing, and a line says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    dead_code,
    missing_docs
)]

mod fetch;
#[path = "../support/figures.rs"]
mod figures;
#[path = "../../tests/support/house.rs"]
mod house;
mod large;
mod look;
mod peers;
mod push;
#[path = "../../tests/support/real.rs"]
mod real;
mod relay;
mod server;
mod user;

/// How often each pair is measured.
fn rounds() -> usize {
    std::env::var("INBOUND_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// The middle one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    // cargo itself passes `--bench`.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    if peers::mbsync().is_none() {
        println!("mbsync is not installed (Debian: isync): its figures are missing");
    }
    for (name, run) in [
        ("fetch", fetch::run as fn()),
        ("look", look::run as fn()),
        ("push", push::run as fn()),
        ("large", large::run as fn()),
    ] {
        if wants(name) {
            println!("\n== {name}");
            run();
        }
    }
}
