//! Receiving from a real server, with a store in memory and a spool on disk.

mod after;
mod clock;
mod faults;
mod flow;
mod frozen;
mod host;
mod identity;
mod matrix;
mod once;
mod resume;
mod rig;
mod store;
