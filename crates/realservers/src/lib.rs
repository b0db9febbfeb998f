//! Real mail servers for interoperability tests: Dovecot, Postfix and Postfix' `smtp-sink`.
//!
//! Each server is started from its Debian package by the test itself, as a child process with its own
//! configuration in a temporary folder and on loopback ports that no other test uses. It never becomes a
//! system service and nothing it is given leaves the machine. Dropping the value ends every process of the
//! server and removes the folder, also when the test panics; when the test's process is killed, a small
//! shell beside the server does the same.
//!
//! A server that is not installed is an error that names the package and `ci/install-test-servers`, so a
//! test that needs it fails instead of passing unseen.
//!
//! ```no_run
//! use realservers::{Dovecot, DovecotOptions, Postfix, PostfixOptions};
//!
//! # fn main() -> Result<(), realservers::Error> {
//! let dovecot = Dovecot::start(DovecotOptions::default())?;
//! let postfix = Postfix::start(&dovecot, PostfixOptions::default())?;
//! dovecot.lmtp_deliver("ann", b"Subject: hello\r\n\r\nHello\r\n")?;
//! println!("submit at {}, fetch at {}", postfix.submission_address(), dovecot.imaps_address());
//! # Ok(())
//! # }
//! ```
//!
//! Everything blocks the calling thread; the servers are other processes, so a tokio test may call it
//! wherever none of its own tasks has to run meanwhile, and waits with [`wait::until_async`].

mod certificates;
mod dialogue;
mod dovecot;
mod error;
mod imap_probe;
mod lmtp;
mod ports;
mod postfix;
mod process;
mod smtp_sink;
pub mod trace_headers;
pub mod wait;
mod workdir;

pub use certificates::{CertificateOptions, Certificates, Validity};
pub use dovecot::{Dovecot, DovecotOptions, Mailbox, User};
pub use error::Error;
pub use imap_probe::{Fetched, ImapProbe, Response, Security};
pub use postfix::{Postfix, PostfixOptions};
pub use smtp_sink::{Counts, Dump, SinkOptions, SmtpSink, SunkMessage};
