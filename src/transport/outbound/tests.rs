//! The sending side as a whole: real rows in a real spool, a real server, a clock of our own.

mod aborting;
mod faulty_spool;
mod rig;
mod sending;
mod steps;
mod storage;
mod trouble;
