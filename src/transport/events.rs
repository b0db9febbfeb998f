//! What the two halves of a logon tell it about their work.

use crate::mapi::{MapiCode, MapiError, SysTime};

/// Whether a direction may start new work (TN-6 to TN-9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Gate {
    /// It may.
    Open,
    /// It may not; what is in process is completed.
    #[default]
    Closed,
}

/// Whether a message is moving (ST-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Activity {
    /// At least one is.
    Moving,
    /// None is.
    #[default]
    Idle,
}

/// Why an account cannot work just now; no message is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What kind of trouble it is.
    pub(crate) kind: TroubleKind,
    /// One sentence for people: what failed, on what, what to do.
    pub(crate) words: String,
    /// When it is tried again; `None` when only a change from outside will do.
    pub(crate) next_attempt: Option<SysTime>,
}

/// Kinds of [`Trouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TroubleKind {
    /// The server is out of reach, or the connection broke.
    Network,
    /// Its certificate is not to be trusted, or TLS is not to be had.
    Tls,
    /// It refused the credentials.
    LoginRefused,
    /// The password could not be had from its source.
    Credentials,
    /// It asked for a pause, or a limit was reached.
    Throttled,
    /// It does not speak the protocol as it should, or lacks what is needed.
    Server,
    /// The profile asks for what cannot be, such as a mailbox the server does not have.
    Configuration,
    /// The spool or the store cannot take anything now.
    Storage,
    /// A message could not be handled and was set aside; the others flow.
    Message,
}

impl TroubleKind {
    /// The code by which the contract names it.
    pub(crate) fn code(self) -> MapiCode {
        match self {
            TroubleKind::Network | TroubleKind::Tls | TroubleKind::Server => {
                MapiCode::NETWORK_ERROR
            }
            TroubleKind::LoginRefused | TroubleKind::Credentials => MapiCode::LOGON_FAILED,
            TroubleKind::Throttled => MapiCode::WAIT,
            TroubleKind::Configuration => MapiCode::UNCONFIGURED,
            TroubleKind::Storage => MapiCode::NOT_ENOUGH_DISK,
            TroubleKind::Message => MapiCode::CALL_FAILED,
        }
    }
}

impl From<&Trouble> for MapiError {
    fn from(trouble: &Trouble) -> Self {
        MapiError::new(trouble.kind.code(), trouble.words.clone())
    }
}
