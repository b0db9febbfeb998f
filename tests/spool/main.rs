//! What the spool promises, checked on the spool over sled; one that stands on something else can
//! run the same tests by its own `Bench`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod bench;
mod bodies;
mod crash;
mod damage;
mod failpoints;
mod fsck;
mod journal;
mod model;
mod rows;
mod schema;
mod steps;
mod traffic;
