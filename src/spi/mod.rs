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

mod message;
mod profile_section;
mod provider;
mod status;
mod store;
mod support;

pub use message::{Content, ContentSink, Message, MessageRefCell, Repetition};
pub use profile_section::{ProfileSection, SecretError, SecretSource, SectionValue};
pub use provider::{
    AddressTypes, Incoming, LogonOutcome, NotifyData, SubmitError, XpLogon, XpProvider,
};
pub use status::{StatusColumns, StatusObject, StatusRow, StatusRowKind};
pub use store::{MessageStore, OutgoingNote, OutgoingRow, OutgoingState, Report};
pub use support::{RecipientReport, ReportKind, Support, Yield};
