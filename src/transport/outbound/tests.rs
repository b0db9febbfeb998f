//! The sending side as a whole: real rows in a real spool, a real server, a clock of our own.

mod aborting;
mod clock;
mod faulty_spool;
mod following;
mod journal;
mod limits;
mod rig;
mod sending;
mod steps;
mod storage;
mod trouble;
mod wire;
mod wire_replies;
mod wire_tls;
