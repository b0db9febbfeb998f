//! Every flag word of the contract, as the public headers number them (spec section 1).

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

macro_rules! flag_word {
    ($(#[$($doc:tt)*])* $name:ident { $($(#[$($item_doc:tt)*])* $item:ident = $value:expr;)* }) => {
        bitflags! {
            $(#[$($doc)*])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
            pub struct $name: u32 {
                $($(#[$($item_doc)*])* const $item = $value;)*
            }
        }

        impl $name {
            /// The bits of `word` that this crate does not know; a call with any of them is
            /// answered with `MAPI_E_UNKNOWN_FLAGS`.
            pub const fn unknown_bits(word: u32) -> u32 {
                word & !Self::all().bits()
            }
        }
    };
}

flag_word! {
    /// What the spooler tells a transport through `TransportNotify` (spec section 4).
    TransportNotify {
        /// Inbound may start (TN-6).
        BEGIN_INBOUND = 0x1;
        /// Outbound may start (TN-8).
        BEGIN_OUTBOUND = 0x2;
        /// Fetch everything as fast as possible (TN-10).
        BEGIN_INBOUND_FLUSH = 0x4;
        /// Send everything as fast as possible; retry times are ignored (TN-12).
        BEGIN_OUTBOUND_FLUSH = 0x8;
        /// Inbound ceases; a message in process is completed (TN-7).
        END_INBOUND = 0x1_0000;
        /// No new SMTP transaction starts; one on the wire is completed (TN-9).
        END_OUTBOUND = 0x2_0000;
        /// Leave inbound flush mode (TN-11).
        END_INBOUND_FLUSH = 0x4_0000;
        /// Leave outbound flush mode (TN-12).
        END_OUTBOUND_FLUSH = 0x8_0000;
        /// With an entry id: give a deferred message back (TN-18), or with
        /// [`CANCEL_MESSAGE`](Self::CANCEL_MESSAGE) cancel it for good (TN-17).
        ABORT_DEFERRED = 0x4000_0000;
        /// With a message reference: the call that handles it returns with `MAPI_E_CANCEL` (TN-14).
        CANCEL_MESSAGE = 0x8000_0000;
    }
}

flag_word! {
    /// What a transport tells the spooler through `SpoolerNotify`.
    SpoolerNotify {
        /// Mail is there to be fetched by StartMessage (IB-1).
        NEWMAIL = 0x1;
        /// SubmitMessage may be called again (SP-6).
        READYTOSEND = 0x2;
        /// A deferred message has reached its end; comes with its entry id (OB-11).
        SENTDEFERRED = 0x4;
        /// A critical section begins: no Idle, no Poll (IB-9).
        CRITSEC = 0x1000;
        /// The critical section ends.
        NONCRIT = 0x2000;
        /// The configuration changed; AddressTypes is called again (SP-6).
        CONFIG_CHANGE = 0x4000;
        /// The logon is beyond help and is only to be released (OB-9, SP-2).
        CRITICAL_ERROR = 0x1000_0000;
        /// Stores only: mail was received.
        NEWMAIL_RECEIVED = 0x2000_0000;
    }
}

flag_word! {
    /// How `TransportLogon` is to be carried out (LG-4 to LG-6).
    LogonFlags {
        /// Never prompt (LG-6).
        NO_DIALOG = 0x1;
        /// Make no connection while the logon lives (LG-4).
        NO_CONNECT = 0x4;
        /// Inbound starts disabled (LG-5).
        NO_INBOUND = 0x8;
        /// Outbound starts disabled (LG-5).
        NO_OUTBOUND = 0x10;
    }
}

flag_word! {
    /// What a transport wants of the spooler, answered by `TransportLogon` (LG-7).
    LogonOutFlags {
        /// There is low-priority work: call Idle.
        SP_IDLE = 0x1_0000;
        /// The server cannot push: call Poll.
        SP_POLL = 0x2_0000;
        /// Every recipient needs a full address.
        SP_RESOLVE = 0x4_0000;
    }
}

flag_word! {
    /// How `TransportLogoff` is to be carried out; no bit is the same as `NORMAL` (LG-9).
    LogoffFlags {
        /// A message on the wire gets a short, bounded time to finish.
        NORMAL = 0x1;
        /// It is dropped at once.
        HURRY = 0x8000_0000;
    }
}

flag_word! {
    /// How `Shutdown` is to be carried out (LG-10).
    DeinitFlags {
        /// Open logons are logged off in good order first.
        NORMAL = 0x1;
        /// Open logons are dropped.
        HURRY = 0x8000_0000;
    }
}

flag_word! {
    /// Flags of `SubmitMessage`.
    SubmitMessageFlags {
        /// The message was deferred before and has reached its end (OB-11).
        BEGIN_DEFERRED = 0x1;
    }
}

flag_word! {
    /// The answer of `EndMessage`; no bit means sent (OB-10).
    EndMessageFlags {
        /// Hand the message over again at once.
        RESEND_NOW = 0x1_0000;
        /// Hand the message over again later.
        RESEND_LATER = 0x2_0000;
        /// Accepted and deferred: NOTIFY_SENTDEFERRED will follow.
        DONT_RESEND = 0x4_0000;
    }
}

flag_word! {
    /// What `FlushQueues` is asked for (FL-1).
    FlushFlags {
        /// Send.
        UPLOAD = 0x2;
        /// Receive.
        DOWNLOAD = 0x4;
        /// Also where the transport would rather not now.
        FORCE = 0x8;
        /// Show nothing.
        NO_UI = 0x10;
        /// Return at once; the traffic follows (FL-7).
        ASYNC_OK = 0x20;
    }
}

flag_word! {
    /// What `ValidateState` is asked for (ST-7, spec section 9).
    ValidateFlags {
        /// Show nothing.
        SUPPRESS_UI = 0x1;
        /// Fetch a fresh list of headers (RA-1).
        REFRESH_XP_HEADER_CACHE = 0x1_0000;
        /// Carry out the marks on the headers (RA-2).
        PROCESS_XP_HEADER_CACHE = 0x2_0000;
        /// Connect at the next flush (RA-3).
        FORCE_XP_CONNECT = 0x4_0000;
        /// Disconnect now (RA-3).
        FORCE_XP_DISCONNECT = 0x8_0000;
        /// The configuration was changed (ST-7).
        CONFIG_CHANGED = 0x10_0000;
        /// Stop a header operation (RA-4).
        ABORT_XP_HEADER_OPERATION = 0x20_0000;
        /// Show a window (RA-5).
        SHOW_XP_SESSION_UI = 0x40_0000;
    }
}

flag_word! {
    /// `PR_STATUS_CODE` of a status row (ST-3, ST-4).
    StatusCode {
        /// Usable.
        AVAILABLE = 0x1;
        /// No connection, by choice or by fault of the network.
        OFFLINE = 0x2;
        /// In trouble; may be shut down.
        FAILURE = 0x4;
        /// Inbound is enabled (TN-6).
        INBOUND_ENABLED = 0x1_0000;
        /// A message is moving inbound.
        INBOUND_ACTIVE = 0x2_0000;
        /// Inbound flush mode (TN-10).
        INBOUND_FLUSH = 0x4_0000;
        /// Outbound is enabled (TN-8).
        OUTBOUND_ENABLED = 0x10_0000;
        /// A message is moving outbound.
        OUTBOUND_ACTIVE = 0x20_0000;
        /// Outbound flush mode (TN-12).
        OUTBOUND_FLUSH = 0x40_0000;
        /// Headers first is possible.
        REMOTE_ACCESS = 0x80_0000;
    }
}

flag_word! {
    /// `PR_RESOURCE_METHODS`: what the status object of a row can do (ST-6).
    ResourceMethods {
        /// ValidateState.
        VALIDATE_STATE = 0x1;
        /// SettingsDialog.
        SETTINGS_DIALOG = 0x2;
        /// ChangePassword.
        CHANGE_PASSWORD = 0x4;
        /// FlushQueues.
        FLUSH_QUEUES = 0x8;
    }
}

flag_word! {
    /// `PR_RESOURCE_FLAGS` of a status row.
    ResourceFlags {
        /// The transport that sends what nobody else claims.
        DEFAULT_OUTBOUND = 0x1;
        /// Its identity is the session's.
        PRIMARY_IDENTITY = 0x4;
        /// It comes last in transport order.
        XP_PREFER_LAST = 0x10;
        /// It has no identity to offer.
        NO_PRIMARY_IDENTITY = 0x20;
    }
}

flag_word! {
    /// How `ModifyStatusRow` is meant (ST-2).
    ModifyStatusFlags {
        /// Merge the given columns into the row instead of making it anew.
        UPDATE = 0x1000_0000;
    }
}

flag_word! {
    /// `PR_MSG_STATUS` marks of a header (spec section 9).
    MsgStatus {
        /// Download the message.
        REMOTE_DOWNLOAD = 0x1000;
        /// Delete the message on the server.
        REMOTE_DELETE = 0x2000;
    }
}

flag_word! {
    /// `PR_SUBMIT_FLAGS` of a message in the Outbox (OB-14).
    SubmitFlags {
        /// A transport works on it.
        LOCKED = 0x1;
        /// It waits for preprocessing.
        PREPROCESS = 0x2;
    }
}

impl StatusCode {
    /// The set flags under the names of the public header, in ascending order of value.
    pub fn names(self) -> Vec<String> {
        self.iter_names().map(|(name, _)| format!("STATUS_{name}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_notify_flags_have_their_numbers() {
        let numbers: Vec<u32> = TransportNotify::all().iter().map(|flag| flag.bits()).collect();
        assert_eq!(
            numbers,
            [1, 2, 4, 8, 0x10000, 0x20000, 0x40000, 0x80000, 0x4000_0000, 0x8000_0000]
        );
        assert_eq!(TransportNotify::unknown_bits(0x8000_0010), 0x10);
    }

    #[test]
    fn status_names_are_those_of_the_header() {
        let code = StatusCode::AVAILABLE | StatusCode::OUTBOUND_FLUSH;
        assert_eq!(code.names(), ["STATUS_AVAILABLE", "STATUS_OUTBOUND_FLUSH"]);
    }
}
