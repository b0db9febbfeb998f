//! The words in which the two directions of a logon talk to it: switches down, news up.

use crate::mapi::{MapiCode, MapiError, SysTime};

/// Whether a direction may work (TN-6 to TN-9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It begins nothing new; what is in process is completed.
    #[default]
    Closed,
    /// It works.
    Open,
}

/// Whether a message moves in a direction at this moment (ST-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    /// No message moves.
    #[default]
    Idle,
    /// At least one does.
    Active,
}

/// What kind of trouble keeps a direction from working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// The server cannot be reached, or the connection broke.
    Network,
    /// The server's certificate or its offer of TLS is not what the profile asks for.
    Tls,
    /// The server refused the credentials (LG-8).
    LoginRefused,
    /// The password could not be had from its source.
    Credentials,
    /// The server asked for patience: too many connections, too many messages, maintenance.
    Throttled,
    /// The server does not keep to the protocol or lacks what is needed.
    Server,
    /// The profile asks for what cannot be, such as a mailbox the server does not have.
    Configuration,
    /// The local disk or store does not take what is to be kept.
    Storage,
    /// A message could not be handled and was set aside; the others flow.
    Message,
}

/// Trouble of a whole direction; never the fault of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What kind it is.
    pub(crate) kind: TroubleKind,
    /// One sentence for people: what failed, on what, and what to do.
    pub(crate) words: String,
    /// When it is tried again; `None` when nothing is waiting for it.
    pub(crate) next_attempt: Option<SysTime>,
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
            TroubleKind::Storage => MapiCode::DISK_ERROR,
            TroubleKind::Message => MapiCode::CALL_FAILED,
        }
    }
}

impl From<&Trouble> for MapiError {
    fn from(trouble: &Trouble) -> Self {
        MapiError::new(trouble.kind.code(), trouble.words.clone())
    }
}
