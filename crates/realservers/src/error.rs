//! What can go wrong while a server is started, driven or stopped.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// An error of this crate. `Debug` prints the same readable text as `Display`, so that `unwrap` in a
/// test shows a server's log with its line breaks.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program that the tests need is not installed.
    #[error(
        "`{program}` was not found: Debian package `{package}` is not installed; run ci/install-test-servers"
    )]
    Missing {
        /// The program that was looked for.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },

    /// The installed server is not one this crate writes a configuration for.
    #[error("{program} {found} is installed, but {wanted} is needed (Debian 12 has it)")]
    Version {
        /// The program that was asked.
        program: &'static str,
        /// What it says it is.
        found: String,
        /// What is needed.
        wanted: &'static str,
    },

    /// The server cannot run as this user.
    #[error("{server} can only be started by root: {reason}")]
    NeedsRoot {
        /// The server that was asked for.
        server: &'static str,
        /// Why it needs root.
        reason: &'static str,
    },

    /// The server did not come up, or is not running although it should be.
    #[error("{server}: {reason}\n--- end of its log ---\n{log}\n--- (log ends) ---")]
    Server {
        /// The server's name.
        server: &'static str,
        /// What was seen.
        reason: String,
        /// The last lines of the server's log.
        log: String,
    },

    /// A condition did not come true before its deadline.
    #[error("waited {waited:?} in vain for {what}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },

    /// A peer answered something else than was expected.
    #[error("{step}: the server answered {reply:?}")]
    Reply {
        /// The step of the dialogue.
        step: &'static str,
        /// The server's words.
        reply: String,
    },

    /// A file or a folder could not be read, written or made.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },

    /// A socket or a process call failed.
    #[error("{step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },

    /// A certificate could not be made, or TLS could not be set up.
    #[error("{step}: {reason}")]
    Tls {
        /// What was being done.
        step: &'static str,
        /// What the library said.
        reason: String,
    },

    /// The caller named a user or asked for something that the server was not given.
    #[error("{0}")]
    Usage(String),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Error {
    /// Wraps a file error with its path.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Wraps an I/O error with the step it happened in.
    pub(crate) fn io(step: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { step, source }
    }

    /// Wraps a TLS or certificate error with the step it happened in.
    pub(crate) fn tls<E: fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Tls { step, reason: error.to_string() }
    }

    /// Whether another start on other ports may succeed.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Server { log, .. } if log.contains("Address already in use"))
    }
}
