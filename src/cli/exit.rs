//! How a command ends: exit codes of sysexits.h and the one line that says why.

use std::fmt;
use std::process::ExitCode;

use crate::mapi::{MapiCode, MapiError};
use crate::profile::ProfileError;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done and durable.
    Done,
    /// 1: a negative answer.
    Negative,
    /// 64: wrong usage.
    Usage,
    /// 65: bad data.
    Data,
    /// 66: there is nothing to read from.
    NoInput,
    /// 67: no such user.
    NoUser,
    /// 69: refused for good.
    Unavailable,
    /// 70: a fault of this program.
    Internal,
    /// 71: the system is out of something.
    System,
    /// 73: a file or folder cannot be made.
    CannotCreate,
    /// 74: reading or writing failed.
    Io,
    /// 75: not now, safe to try again.
    TryAgain,
    /// 77: not permitted.
    NotPermitted,
    /// 78: the configuration is wrong.
    Config,
    /// 128 and the number of the signal that ended it.
    Signal(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Negative => 1,
            Exit::Usage => 64,
            Exit::Data => 65,
            Exit::NoInput => 66,
            Exit::NoUser => 67,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::System => 71,
            Exit::CannotCreate => 73,
            Exit::Io => 74,
            Exit::TryAgain => 75,
            Exit::NotPermitted => 77,
            Exit::Config => 78,
            Exit::Signal(number) => number.saturating_add(128),
        }
    }

    /// How a command ends that got this answer.
    pub(crate) fn of(code: MapiCode) -> Self {
        match code {
            MapiCode::S_OK => Exit::Done,
            MapiCode::NOT_FOUND
            | MapiCode::NOT_IN_QUEUE
            | MapiCode::UNABLE_TO_ABORT
            | MapiCode::CANCEL
            | MapiCode::USER_CANCEL
            | MapiCode::NOT_ME
            | MapiCode::ERRORS_RETURNED
            | MapiCode::CANCEL_MESSAGE => Exit::Negative,
            MapiCode::NO_RECIPIENTS | MapiCode::UNKNOWN_FLAGS | MapiCode::INVALID_ENTRYID => {
                Exit::Usage
            }
            MapiCode::INVALID_PARAMETER | MapiCode::CORRUPT_DATA => Exit::Data,
            MapiCode::TOO_BIG
            | MapiCode::NO_SUPPORT
            | MapiCode::INTERFACE_NOT_SUPPORTED
            | MapiCode::VERSION => Exit::Unavailable,
            MapiCode::DISK_ERROR | MapiCode::CORRUPT_STORE => Exit::Io,
            MapiCode::BUSY
            | MapiCode::WAIT
            | MapiCode::TIMEOUT
            | MapiCode::NETWORK_ERROR
            | MapiCode::NOT_ENOUGH_DISK
            | MapiCode::NOT_ENOUGH_MEMORY
            | MapiCode::OBJECT_CHANGED
            | MapiCode::SESSION_LIMIT
            | MapiCode::END_OF_SESSION => Exit::TryAgain,
            MapiCode::NO_ACCESS | MapiCode::LOGON_FAILED => Exit::NotPermitted,
            MapiCode::UNCONFIGURED | MapiCode::FAILONEPROVIDER => Exit::Config,
            _ => Exit::Internal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.number())
    }
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// The code of the contract, when it was an answer of the contract.
    pub(crate) code: Option<MapiCode>,
    /// What failed, on what, and what to do; empty when there is nothing to say.
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, code: None, message: message.into() }
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Ends the command without a word: everything was said already.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, String::new())
    }

    /// An answer of the contract; `what` completes "cannot".
    pub(crate) fn contract(what: &str, error: &MapiError) -> Self {
        let code = error.code();
        let message = match error.detail() {
            "" => format!("cannot {what}: {code}"),
            detail => format!("cannot {what}: {detail} ({code})"),
        };
        Failure { exit: Exit::of(code), code: Some(code), message }
    }

    /// The same after the message was accepted: no exit code may invite the caller to send it
    /// again, and nothing is repeated.
    pub(crate) fn accepted(self) -> Self {
        Failure { exit: Exit::Negative, code: None, message: self.message }
    }

    /// The same with another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Failure { exit, ..self }
    }

    /// A port or socket that cannot be opened; `what` completes "cannot", `advice` may be empty.
    pub(crate) fn listening(what: impl fmt::Display, error: &std::io::Error, advice: &str) -> Self {
        use std::io::ErrorKind;
        let exit = match error.kind() {
            ErrorKind::AddrInUse => Exit::TryAgain,
            ErrorKind::PermissionDenied => Exit::NotPermitted,
            ErrorKind::AddrNotAvailable => Exit::Config,
            _ => Exit::Io,
        };
        Self::new(exit, format!("cannot {what}: {error}{advice}"))
    }

    /// A file that cannot be read or written.
    pub(crate) fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Exit::Io, format!("cannot {what}: {error}"))
    }

    /// What standard output answered. Nobody reading any more is no failure.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::silent(Exit::Done),
            _ => Self::io("write to standard output", error),
        }
    }

    /// The one line for standard error; `None` when there is nothing to say.
    pub(crate) fn line(&self) -> Option<String> {
        self.line_of("postrider")
    }

    /// The same of a program that is called otherwise.
    pub(crate) fn line_of(&self, program: &str) -> Option<String> {
        if self.message.is_empty() {
            return None;
        }
        Some(format!("{program}: {}", super::text::one_line(&self.message)))
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        Failure {
            exit: Exit::Config,
            code: Some(MapiCode::UNCONFIGURED),
            message: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_contract_have_the_exit_codes_of_the_product() {
        for (code, number) in [
            (MapiCode::S_OK, 0),
            (MapiCode::NOT_FOUND, 1),
            (MapiCode::NOT_IN_QUEUE, 1),
            (MapiCode::UNABLE_TO_ABORT, 1),
            (MapiCode::NO_RECIPIENTS, 64),
            (MapiCode::INVALID_ENTRYID, 64),
            (MapiCode::INVALID_PARAMETER, 65),
            (MapiCode::CORRUPT_DATA, 65),
            (MapiCode::TOO_BIG, 69),
            (MapiCode::NO_SUPPORT, 69),
            (MapiCode::CALL_FAILED, 70),
            (MapiCode(0x8123_4567), 70),
            (MapiCode::DISK_ERROR, 74),
            (MapiCode::CORRUPT_STORE, 74),
            (MapiCode::BUSY, 75),
            (MapiCode::NOT_ENOUGH_DISK, 75),
            (MapiCode::NETWORK_ERROR, 75),
            (MapiCode::TIMEOUT, 75),
            (MapiCode::LOGON_FAILED, 77),
            (MapiCode::NO_ACCESS, 77),
            (MapiCode::UNCONFIGURED, 78),
        ] {
            assert_eq!(Exit::of(code).number(), number, "{code}");
        }
        assert_eq!(Exit::Signal(15).number(), 143);
    }

    #[test]
    fn transient_answers_are_safe_to_try_again() {
        for code in [MapiCode::BUSY, MapiCode::WAIT, MapiCode::OBJECT_CHANGED] {
            assert!(MapiError::from(code).is_transient());
            assert_eq!(Exit::of(code), Exit::TryAgain);
        }
    }

    #[test]
    fn a_failure_is_one_line_with_its_code() {
        let error = MapiError::new(MapiCode::UNABLE_TO_ABORT, "it is\nsent");
        let line = Failure::contract("cancel 01", &error).line();
        let expected = "postrider: cannot cancel 01: it is sent (MAPI_E_UNABLE_TO_ABORT)";
        assert_eq!(line.as_deref(), Some(expected));
        let bare = Failure::contract("send", &MapiCode::BUSY.into()).line();
        assert_eq!(bare.as_deref(), Some("postrider: cannot send: MAPI_E_BUSY"));
        let pipe = Failure::output(&std::io::ErrorKind::BrokenPipe.into());
        assert_eq!((pipe.exit, pipe.line()), (Exit::Done, None));
    }
}
