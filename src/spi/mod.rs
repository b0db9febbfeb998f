//! The contract: what a host (the spooler) and a transport provider owe each other.
//!
//! A host implements [`Support`] and [`Message`] and drives [`XpProvider`] and [`XpLogon`]; a
//! provider implements the latter two. A host of this crate's kind also has a [`MessageStore`].
//! Rule ids refer to `docs/conformance.md`.
//!
//! # Threads, runtimes, cancellation
//! Every call takes `&self` and may be made from any task or thread at any time (TN-2, TN-19).
//! No call may depend on the caller's runtime: a provider does its I/O and its waiting in tasks
//! of its own runtime and lets the caller await their result, so that a host without any runtime
//! can block on the returned futures. A caller may drop a future: what the call had begun goes on
//! or is undone inside the provider, and no state is left half changed.

//! # Writing a transport
//! `examples/support/log_transport.rs` is a whole one in 370 lines. What has to be there:
//!
//! 1. [`XpProvider::init`] agrees on the version; `transport_logon` reads its settings from
//!    [`Support::profile_section`], makes its status row by [`Support::modify_status_row`] without
//!    `UPDATE` (ST-2), and keeps the support object as long as the logon lives.
//! 2. [`XpLogon::address_types`] says whose recipients it takes (AT-2 to AT-4).
//! 3. [`XpLogon::transport_notify`] keeps one state of both directions under one lock, changes the
//!    row under it, and waits for nothing (TN-2, TN-3).
//! 4. [`XpLogon::submit_message`] sets the reference first (OB-1), takes the recipients whose
//!    responsibility is FALSE and whose type it is, else answers `MAPI_E_NOT_ME` (OB-3), and
//!    either sends at once or stores durably. [`XpLogon::end_message`] says which: 0 or
//!    `DONT_RESEND` (OB-10).
//! 5. What was deferred ends with `SENTDEFERRED`; the host comes back with `BEGIN_DEFERRED`, and
//!    the transport reports by [`Support::status_recips`] and sets responsibility (OB-11, OB-12).
//! 6. Whoever only sends answers [`XpLogon::start_message`] without saving (IB-3).
//! 7. Work of more than moments calls [`Support::spooler_yield`]; work of more than that is done
//!    in a task of the transport's own runtime.
//! 8. At the end of the logon a call that still runs answers `MAPI_E_END_OF_SESSION`:
//!    `MAPI_E_CANCEL` would tell the host that its message is not wanted any more (OB-7).
//! 9. What is beyond recovery is signalled by `CRITICAL_ERROR`, and then answered (OB-9).
//!
//! # Writing a host
//! The order of calls is LG-1; `tests/support/foreign_host.rs` of this crate is a small host of
//! plain threads, and [`Spooler`](crate::spooler::Spooler) the one with everything. That one
//! treats a panic of a transport as an error of the call, gives short calls 30 seconds, and lets
//! go of a SubmitMessage that showed no sign of life (it returns, or calls
//! [`Support::spooler_yield`]) for ten minutes; its message is handed over again.

mod message;
mod profile_section;
mod provider;
mod sent;
mod service;
mod status;
mod store;
mod support;

pub use message::{Content, ContentSink, Message, MessageRefCell, Repetition, ResumedContent};
pub use profile_section::{
    ProfileSection, SecretError, SecretErrorKind, SecretKind, SecretSource, SectionValue,
};
pub use provider::{
    AddressTypes, Incoming, LogonOutcome, NotifyData, SubmitError, XpLogon, XpProvider,
};
pub use sent::{SentCopy, SentFolder};
pub use service::ServiceEntry;
pub use status::{StatusColumns, StatusObject, StatusRow, StatusRowKind};
pub use store::{MessageStore, OutgoingNote, OutgoingRow, OutgoingState, Report};
pub use support::{RecipientReport, ReportKind, Support, Yield};
