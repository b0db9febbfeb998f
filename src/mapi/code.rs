//! Result codes and the error type that carries them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A result code of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MapiCode(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:expr, $text:literal;)*) => {
        impl MapiCode {
            $($(#[$doc])* pub const $name: MapiCode = MapiCode($value);)*

            /// The name in the public header (`MAPI_E_UNABLE_TO_ABORT`), if the code is known.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Success.
    S_OK = 0, "S_OK";
    /// The call is not supported.
    NO_SUPPORT = 0x8004_0102, "MAPI_E_NO_SUPPORT";
    /// A flag that is not known.
    UNKNOWN_FLAGS = 0x8004_0106, "MAPI_E_UNKNOWN_FLAGS";
    /// Not an entry id.
    INVALID_ENTRYID = 0x8004_0107, "MAPI_E_INVALID_ENTRYID";
    /// Someone else changed the object meanwhile.
    OBJECT_CHANGED = 0x8004_0109, "MAPI_E_OBJECT_CHANGED";
    /// Not now; nothing was done (OB-7).
    BUSY = 0x8004_010B, "MAPI_E_BUSY";
    /// The disk is (nearly) full.
    NOT_ENOUGH_DISK = 0x8004_010D, "MAPI_E_NOT_ENOUGH_DISK";
    /// There is no such thing.
    NOT_FOUND = 0x8004_010F, "MAPI_E_NOT_FOUND";
    /// The interface version is too old (LG-2).
    VERSION = 0x8004_0110, "MAPI_E_VERSION";
    /// The server refused the credentials (LG-8).
    LOGON_FAILED = 0x8004_0111, "MAPI_E_LOGON_FAILED";
    /// No further session is possible.
    SESSION_LIMIT = 0x8004_0112, "MAPI_E_SESSION_LIMIT";
    /// The user gave up.
    USER_CANCEL = 0x8004_0113, "MAPI_E_USER_CANCEL";
    /// It can no longer be stopped (TN-17, OB-15).
    UNABLE_TO_ABORT = 0x8004_0114, "MAPI_E_UNABLE_TO_ABORT";
    /// The network or the server is out of reach.
    NETWORK_ERROR = 0x8004_0115, "MAPI_E_NETWORK_ERROR";
    /// Reading or writing a file failed.
    DISK_ERROR = 0x8004_0116, "MAPI_E_DISK_ERROR";
    /// Data that cannot be read.
    CORRUPT_DATA = 0x8004_011B, "MAPI_E_CORRUPT_DATA";
    /// The profile lacks something (LG-8).
    UNCONFIGURED = 0x8004_011C, "MAPI_E_UNCONFIGURED";
    /// This provider cannot be used, the rest of the service can (LG-8).
    FAILONEPROVIDER = 0x8004_011D, "MAPI_E_FAILONEPROVIDER";
    /// The session is over (LG-1).
    END_OF_SESSION = 0x8004_0200, "MAPI_E_END_OF_SESSION";
    /// The message is larger than allowed.
    TOO_BIG = 0x8004_0305, "MAPI_E_TOO_BIG";
    /// It took too long.
    TIMEOUT = 0x8004_0401, "MAPI_E_TIMEOUT";
    /// Come back after the given number of seconds (OB-7).
    WAIT = 0x8004_0500, "MAPI_E_WAIT";
    /// Cancelled (TN-14); a resubmission is no longer wanted (OB-7).
    CANCEL = 0x8004_0501, "MAPI_E_CANCEL";
    /// None of the recipients is for this transport (OB-3).
    NOT_ME = 0x8004_0502, "MAPI_E_NOT_ME";
    /// The store is damaged.
    CORRUPT_STORE = 0x8004_0600, "MAPI_E_CORRUPT_STORE";
    /// It is not in the queue any more (OB-15).
    NOT_IN_QUEUE = 0x8004_0601, "MAPI_E_NOT_IN_QUEUE";
    /// A call out of order (LG-1).
    NOT_INITIALIZED = 0x8004_0605, "MAPI_E_NOT_INITIALIZED";
    /// A message without recipients (OB-17).
    NO_RECIPIENTS = 0x8004_0607, "MAPI_E_NO_RECIPIENTS";
    /// Done, but not in every part.
    ERRORS_RETURNED = 0x0004_0380, "MAPI_W_ERRORS_RETURNED";
    /// Stop delivery to those not yet reached (OB-18).
    CANCEL_MESSAGE = 0x0004_0580, "MAPI_W_CANCEL_MESSAGE";
    /// An argument that makes no sense.
    INVALID_PARAMETER = 0x8007_0057, "MAPI_E_INVALID_PARAMETER";
    /// Not allowed.
    NO_ACCESS = 0x8007_0005, "MAPI_E_NO_ACCESS";
    /// It failed for another reason.
    CALL_FAILED = 0x8000_4005, "MAPI_E_CALL_FAILED";
    /// No such interface.
    INTERFACE_NOT_SUPPORTED = 0x8000_4002, "MAPI_E_INTERFACE_NOT_SUPPORTED";
    /// Out of memory.
    NOT_ENOUGH_MEMORY = 0x8007_000E, "MAPI_E_NOT_ENOUGH_MEMORY";
}

impl MapiCode {
    /// Whether this is an error (the top bit is set); warnings and success are not.
    pub const fn is_error(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }
}

impl fmt::Display for MapiCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:08X}", self.0),
        }
    }
}

impl fmt::Debug for MapiCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A code of the contract with what it was about, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapiError {
    code: MapiCode,
    detail: String,
}

/// What calls of the contract answer.
pub type MapiResult<T> = Result<T, MapiError>;

impl MapiError {
    /// An error with a sentence that says what failed, on what, and what to do.
    pub fn new(code: MapiCode, detail: impl Into<String>) -> Self {
        MapiError { code, detail: detail.into() }
    }

    /// The code.
    pub fn code(&self) -> MapiCode {
        self.code
    }

    /// The sentence; empty when the code says it all.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether the same call may work later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code,
            MapiCode::BUSY
                | MapiCode::NETWORK_ERROR
                | MapiCode::TIMEOUT
                | MapiCode::WAIT
                | MapiCode::NOT_ENOUGH_DISK
                | MapiCode::OBJECT_CHANGED
        )
    }
}

impl From<MapiCode> for MapiError {
    fn from(code: MapiCode) -> Self {
        MapiError { code, detail: String::new() }
    }
}

impl fmt::Display for MapiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{}: {}", self.code, self.detail)
        }
    }
}

impl std::error::Error for MapiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_name_and_detail() {
        let bare = MapiError::from(MapiCode::UNABLE_TO_ABORT);
        assert_eq!(bare.to_string(), "MAPI_E_UNABLE_TO_ABORT");
        let full = MapiError::new(MapiCode::UNCONFIGURED, "smtp.host is missing");
        assert_eq!(full.to_string(), "MAPI_E_UNCONFIGURED: smtp.host is missing");
        assert_eq!(MapiCode(0x8123_4567).to_string(), "0x81234567");
    }

    #[test]
    fn warnings_are_no_errors() {
        assert!(!MapiCode::CANCEL_MESSAGE.is_error());
        assert!(MapiCode::CANCEL.is_error());
        assert_eq!(MapiCode::WAIT.0, 0x8004_0500);
    }
}
