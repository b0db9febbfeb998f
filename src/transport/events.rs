//! What the two halves of a logon tell it about their work.

use std::any::Any;

use crate::mapi::{MapiCode, MapiError, SysTime};
use crate::spi::SecretErrorKind;
use crate::spool::SpoolError;

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

/// What an owner wants to know about sending although it is no trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendingNotes {
    /// Another host than the profile's first one is used, and why.
    pub(crate) detour: Option<String>,
    /// Messages wait because of a limit of the profile, and until when.
    pub(crate) throttled: Option<String>,
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
    /// The account's sign-in has ended or was never made: a person has to sign in
    /// (`postrider auth login`).
    NeedsSignIn,
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
    /// What the spool has on disk is not known any more, or it fails again and again: nothing
    /// helps but another logon (OB-9).
    SpoolLost,
    /// A task of this transport broke down (OB-9).
    Breakdown,
}

impl TroubleKind {
    /// The trouble that a missing secret amounts to.
    pub(crate) fn of_secret(kind: SecretErrorKind) -> Self {
        match kind {
            SecretErrorKind::Unavailable => TroubleKind::Credentials,
            SecretErrorKind::OutOfReach => TroubleKind::Network,
            SecretErrorKind::NeedsSignIn => TroubleKind::NeedsSignIn,
        }
    }

    /// The code by which the contract names it.
    pub(crate) fn code(self) -> MapiCode {
        match self {
            TroubleKind::Network | TroubleKind::Tls | TroubleKind::Server => {
                MapiCode::NETWORK_ERROR
            }
            TroubleKind::LoginRefused | TroubleKind::Credentials | TroubleKind::NeedsSignIn => {
                MapiCode::LOGON_FAILED
            }
            TroubleKind::Throttled => MapiCode::WAIT,
            TroubleKind::Configuration => MapiCode::UNCONFIGURED,
            TroubleKind::Storage => MapiCode::NOT_ENOUGH_DISK,
            TroubleKind::Message | TroubleKind::Breakdown => MapiCode::CALL_FAILED,
            TroubleKind::SpoolLost => MapiCode::DISK_ERROR,
        }
    }

    /// Whether the login works again only when its user does something: the hook
    /// `on_needs_sign_in` is for these.
    pub(crate) fn needs_the_user(self) -> bool {
        matches!(self, TroubleKind::LoginRefused | TroubleKind::NeedsSignIn)
    }

    /// Whether the logon is beyond recovery and only to be released (OB-9, SP-2).
    pub(crate) fn is_final(self) -> bool {
        matches!(self, TroubleKind::SpoolLost | TroubleKind::Breakdown)
    }
}

impl Trouble {
    /// The trouble that an error of the spool amounts to when no later try can succeed.
    pub(crate) fn spool_lost(error: &SpoolError) -> Option<Self> {
        matches!(error, SpoolError::Unknown(_)).then(|| Trouble {
            kind: TroubleKind::SpoolLost,
            words: error.to_string(),
            next_attempt: None,
        })
    }

    /// The trouble that a panic of a task amounts to.
    pub(crate) fn breakdown(task: &str, panic: &(dyn Any + Send)) -> Self {
        let words = panic
            .downcast_ref::<&str>()
            .map(|words| (*words).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Trouble {
            kind: TroubleKind::Breakdown,
            words: format!("{task} broke down ({words})"),
            next_attempt: None,
        }
    }
}

impl From<&Trouble> for MapiError {
    fn from(trouble: &Trouble) -> Self {
        MapiError::new(trouble.kind.code(), trouble.words.clone())
    }
}
