//! Signing in by OAuth 2.0 (RFC 6749) for native applications (RFC 8252): getting tokens, keeping
//! them, and renewing them.
//!
//! `tokens`, `answer`, `form` and `pkce` decide and read, and do no I/O; `http`, `file_store`,
//! `browser` and `device` do; [`TokenSource`] is what a login asks for its token. No token, code
//! or secret gets into a log or an error at any level.

mod answer;
mod browser;
mod client;
mod device;
mod endpoint;
mod file_store;
mod form;
mod http;
mod pkce;
mod provider;
mod source;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
mod tokens;

pub(crate) use answer::{Answer, Grant};
pub(crate) use browser::Browser;
pub(crate) use client::{Client, ClientSettings};
pub(crate) use device::{DevicePrompt, sign_in as sign_in_by_device};
pub(crate) use endpoint::Endpoint;
pub(crate) use file_store::{FileStore, Standing, StoreError, StoreLock};
pub use provider::Provider;
pub(crate) use provider::{Endpoints, RedirectUri};
pub(crate) use source::{NoStore, TokenSource};
pub(crate) use tokens::Tokens;
