//! The search over ways that are made up, and the real ways to servers of this process.

mod fake;
mod search;
mod wire;
