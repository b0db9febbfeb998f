//! The vocabulary of the contract: flags, result codes, property tags and values, entry ids,
//! recipients and message data. Nothing here does I/O; every other room speaks these words.
//!
//! Names and numbers are those of the public MAPI headers; rule ids in the documentation
//! (`TN-6`, `OB-3`, ...) are those of `docs/conformance.md`.

mod code;
mod dsn;
mod entry_id;
mod flags;
mod message;
mod prop;
mod recipient;
mod report;
mod time;

pub use code::{MapiCode, MapiError, MapiResult};
pub use dsn::{DsnRecipient, DsnRequest, DsnReturned, DsnWish};
pub use entry_id::{EntryId, InvalidEntryId, MessageRef};
pub use flags::{
    DeinitFlags, EndMessageFlags, FlushFlags, LogoffFlags, LogonFlags, LogonOutFlags,
    ModifyStatusFlags, MsgStatus, ResourceFlags, ResourceMethods, SpoolerNotify, StatusCode,
    SubmitFlags, SubmitMessageFlags, TransportNotify, ValidateFlags,
};
pub use message::{Attachment, Importance, MessageData, Priority};
pub use prop::{PropList, PropTag, PropType, PropValue, tags};
pub use recipient::{Recipient, RecipientType};
pub use report::ReportOutcome;
pub use time::SysTime;

/// The version of the transport provider interface that this crate speaks (LG-2).
pub const SPI_VERSION: u32 = 0x0001_0010;
