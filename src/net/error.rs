//! What can go wrong on the way to a server that is ready for a login, and whose fault it is.

use std::fmt;
use std::io;

use super::Phase;
use crate::mapi::{MapiCode, MapiError};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetError {
    /// What kind of failure it is.
    pub(crate) kind: NetErrorKind,
    /// `host:port`.
    pub(crate) server: String,
    /// What the system, TLS or the server said about it; may be empty.
    pub(crate) detail: String,
}

/// Kinds of [`NetError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NetErrorKind {
    /// The host name has no address.
    Resolve,
    /// Nothing listens on the port.
    Refused,
    /// There is no way to the host.
    Unreachable,
    /// Nothing came within the time of a phase.
    Timeout(Phase),
    /// The peer or something between ended the connection.
    Closed,
    /// Another error of the socket.
    Io,
    /// The TLS handshake failed.
    Tls(TlsReason),
    /// STARTTLS was asked for and the server does not offer it.
    StartTlsNotOffered,
    /// The server offers STARTTLS and refuses the command.
    StartTlsRefused,
    /// Bytes arrived in clear behind the reply to STARTTLS (RFC 3207 section 4.2): somebody
    /// between may have put them there.
    EarlyPlaintext,
    /// The server considers the connection logged in already, where a login was asked for.
    PreAuthenticated,
    /// The server does not want to serve now (RFC 5321 greeting 421, IMAP BYE).
    Unavailable,
    /// The server does not serve this client at all (RFC 5321 greeting 554).
    Rejected,
    /// What came is not the protocol.
    Protocol,
    /// A setting cannot be used, such as a CA file that is missing.
    Settings,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TlsReason {
    /// The certificate is past its time.
    Expired,
    /// The certificate is of the future.
    NotYetValid,
    /// The certificate is for other names.
    WrongName,
    /// Nobody trusted has signed the certificate.
    UnknownIssuer,
    /// The certificate is another than the one the profile names.
    Fingerprint,
    /// What came is no TLS: most often the port speaks in clear first.
    NotTls,
    /// Anything else.
    Other,
}

/// Whose fault a failure is; decides what a person is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The way to the server: waiting helps.
    Network,
    /// The server: waiting may help.
    Server,
    /// Who the server is cannot be proved: a person has to look.
    Identity,
    /// The profile: a person has to change it.
    Settings,
}

impl NetError {
    pub(crate) fn new(
        kind: NetErrorKind,
        server: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        NetError { kind, server: server.into(), detail: detail.into() }
    }

    /// Classifies an error of the socket.
    pub(crate) fn from_io(server: &str, error: &io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
            NetworkDown, NetworkUnreachable, TimedOut, UnexpectedEof,
        };
        let kind = match error.kind() {
            ConnectionRefused => NetErrorKind::Refused,
            HostUnreachable | NetworkUnreachable | NetworkDown => NetErrorKind::Unreachable,
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
                NetErrorKind::Closed
            }
            TimedOut => NetErrorKind::Timeout(Phase::Io),
            _ => NetErrorKind::Io,
        };
        NetError::new(kind, server, error.to_string())
    }

    /// Whose fault it is.
    pub(crate) fn fault(&self) -> Fault {
        match self.kind {
            NetErrorKind::Resolve
            | NetErrorKind::Refused
            | NetErrorKind::Unreachable
            | NetErrorKind::Timeout(_)
            | NetErrorKind::Closed
            | NetErrorKind::Io => Fault::Network,
            NetErrorKind::Unavailable | NetErrorKind::Rejected | NetErrorKind::Protocol => {
                Fault::Server
            }
            NetErrorKind::Tls(TlsReason::NotTls | TlsReason::Other) => Fault::Server,
            NetErrorKind::Tls(_) | NetErrorKind::EarlyPlaintext => Fault::Identity,
            NetErrorKind::StartTlsNotOffered
            | NetErrorKind::StartTlsRefused
            | NetErrorKind::PreAuthenticated
            | NetErrorKind::Settings => Fault::Settings,
        }
    }

    /// Whether it concerns TLS and not the network.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(
            self.kind,
            NetErrorKind::Tls(_)
                | NetErrorKind::StartTlsNotOffered
                | NetErrorKind::StartTlsRefused
                | NetErrorKind::EarlyPlaintext
        )
    }

    fn words(&self) -> &'static str {
        match self.kind {
            NetErrorKind::Resolve => "the host name has no address; check it and the network",
            NetErrorKind::Refused => "nothing answers on that port; check host and port",
            NetErrorKind::Unreachable => "there is no way to the host; check the network",
            NetErrorKind::Timeout(phase) => phase.timeout_words(),
            NetErrorKind::Closed => "the connection was closed",
            NetErrorKind::Io => "the connection failed",
            NetErrorKind::Tls(reason) => reason.words(),
            NetErrorKind::StartTlsNotOffered => {
                "the server does not offer STARTTLS; set tls = \"implicit\" if it has such a port"
            }
            NetErrorKind::StartTlsRefused => "the server refuses STARTTLS",
            NetErrorKind::EarlyPlaintext => {
                "data in clear came behind the reply to STARTTLS: somebody may be tampering with \
                 the connection; nothing was sent"
            }
            NetErrorKind::PreAuthenticated => {
                "the server skips the login the profile asks for (PREAUTH); this is refused \
                 because it also prevents STARTTLS"
            }
            NetErrorKind::Unavailable => "the server does not take connections now",
            NetErrorKind::Rejected => "the server refuses this client",
            NetErrorKind::Protocol => "the answer is not what this kind of server says",
            NetErrorKind::Settings => "a setting cannot be used",
        }
    }
}

impl TlsReason {
    fn words(self) -> &'static str {
        match self {
            TlsReason::Expired => "the server's certificate has expired",
            TlsReason::NotYetValid => {
                "the server's certificate is not valid yet; check this machine's clock"
            }
            TlsReason::WrongName => {
                "the server's certificate is for another name; check the host name"
            }
            TlsReason::UnknownIssuer => {
                "the server's certificate is signed by nobody known; name its authority with \
                 ca_file or the certificate itself with fingerprint"
            }
            TlsReason::Fingerprint => {
                "the server's certificate is not the one the profile names; if it was renewed on \
                 purpose, change fingerprint"
            }
            TlsReason::NotTls => {
                "the port does not speak TLS from the start; tls = \"starttls\" may be right for it"
            }
            TlsReason::Other => "the TLS handshake failed",
        }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.words())?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for NetError {}

impl From<NetError> for MapiError {
    fn from(error: NetError) -> Self {
        let code = match error.fault() {
            Fault::Settings if error.kind == NetErrorKind::Settings => MapiCode::UNCONFIGURED,
            _ => MapiCode::NETWORK_ERROR,
        };
        MapiError::new(code, error.to_string())
    }
}
