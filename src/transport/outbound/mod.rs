//! Sending: a durable queue of one account, drained over SMTP.

mod body;
mod capabilities;
mod connection;
mod deadlines;
mod progress;
mod reply;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
mod transaction;
