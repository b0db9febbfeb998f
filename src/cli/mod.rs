//! The command `postrider`: its options, its output and its exit codes.
//!
//! Every command is written once over [`Service`](crate::session::Service) and reaches the spool
//! through `access`, so that it does the same with and without a daemon.

mod access;
mod args;
mod auth;
mod compose;
mod console;
mod dispatch;
mod exit;
mod flush;
mod fsck;
mod harden;
mod interrupt;
mod layout;
mod listening;
mod logging;
mod measuring;
mod media_type;
mod next_step;
mod notify;
mod papers;
mod profile_commands;
mod profile_import;
mod profile_new;
mod profile_view;
mod provider_limits;
mod queue;
mod queue_list;
mod queue_pages;
mod queue_view;
mod reading;
mod run;
mod runtime;
mod send;
mod send_time;
mod sendmail;
mod session_glue;
mod status;
mod submissions;
mod supervision;
mod table;
mod text;
mod top;
mod trace;

#[cfg(test)]
mod tests;

pub use dispatch::main;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use sendmail::properties::sendmail as sendmail_property;
