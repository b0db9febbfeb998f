//! Sending: a durable queue of one account, drained over SMTP.

mod body;
mod capabilities;
mod connection;
mod deadlines;
mod login;
mod progress;
mod reply;
mod schedule;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
mod transaction;
