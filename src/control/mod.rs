//! The control socket: HTTP over a Unix socket, so that every command reaches the daemon that
//! owns the spool. [`serve`] offers a [`Service`](crate::session::Service), [`Client`] is one.
//!
//! Requests and answers are JSON; an error is `{code, name, detail}` with the codes of the
//! contract. `GET /v1/status`, `GET /v1/status/watch` (one JSON document a line),
//! `POST /v1/messages`, `POST /v1/messages/raw` (a line of JSON, then the message),
//! `GET /v1/queue`, `GET /v1/queue/ID`, `GET /v1/queue/ID/content`,
//! `POST /v1/queue/ID/{wait,cancel,hold,release,retry}`, `POST /v1/retry`, `POST /v1/notify`,
//! `POST /v1/flush`, `POST /v1/check`, `GET /metrics`. `GET /openapi.json` describes all of them
//! (`docs/openapi.json`). [`MetricsPort`] serves `GET /metrics`, and nothing else, over TCP. A
//! [`SubmissionSocket`] lets every user of the machine in and knows `POST /v1/messages/raw` only.

mod client;
mod metrics_port;
mod openapi;
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
