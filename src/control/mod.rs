//! The control socket: HTTP over a Unix socket, so that every command reaches the daemon that
//! owns the spool. [`serve`] offers a [`Service`](crate::session::Service), [`Client`] is one.
//!
//! Requests and answers are JSON; an error is `{code, name, detail}` with the codes of the contract.
//! `GET /openapi.json` describes all of them (`docs/openapi.json`).
//!
//! | path | what it does |
//! | --- | --- |
//! | `POST /v1/messages` | submits a message object |
//! | `POST /v1/messages/raw` | submits a message in RFC 5322: a line of JSON, then the message |
//! | `GET /v1/queue`, `GET /v1/queue/ID` | rows of the queue |
//! | `GET /v1/queue/ID/content` | the message itself |
//! | `POST /v1/queue/ID/wait` | waits until it has ended |
//! | `POST /v1/queue/ID/cancel`, `hold`, `release`, `retry` | changes what becomes of it |
//! | `POST /v1/retry` | makes every deferred message due |
//! | `POST /v1/trace` | what happened to a message |
//! | `GET /v1/status`, `GET /v1/status/watch` | the status table; `watch`: a document a line, at each change |
//! | `POST /v1/notify`, `/v1/flush`, `/v1/check`, `/v1/fsck` | the session as a whole |
//! | `GET /metrics` | counters for Prometheus |
//!
//! [`MetricsPort`] serves `GET /metrics`, and nothing else, over TCP. A [`SubmissionSocket`] lets every
//! user of the machine in and knows `POST /v1/messages/raw` only; a user has 32 connections at a time.

mod client;
mod metrics_port;
mod openapi;
mod outgoing;
mod request_body;
mod routes;
mod server;
mod socket;
mod submission_socket;
mod users_door;
mod wire;

#[cfg(any(test, fuzzing))]
pub(crate) mod fake;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use metrics_port::MetricsPort;
pub use server::{serve, serve_submissions};
pub use socket::ControlSocket;
pub use submission_socket::SubmissionSocket;
