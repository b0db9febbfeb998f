//! From a host name to an authenticated-ready byte stream: dialling, TLS, STARTTLS, deadlines.

mod server;

pub use server::{Fingerprint, Server, TlsMode, Trust};
