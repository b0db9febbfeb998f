//! What the two halves of a logon tell it about their work.

use crate::mapi::SysTime;

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
    /// It asked for a pause, or a limit was reached.
    Throttled,
    /// It does not speak the protocol as it should, or lacks what is needed.
    Server,
    /// The spool or the store cannot take anything now.
    Storage,
}
