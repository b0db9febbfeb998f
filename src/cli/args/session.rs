//! What is asked of a session: about its messages (`queue`, `retry`, `trace`, ...) and as a whole (`flush`,
//! `status`, `notify`, `fsck`).

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::mapi::TransportNotify;

#[derive(Debug, Args)]
pub(crate) struct QueueArguments {
    #[command(subcommand)]
    pub(crate) command: Option<QueueCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List the messages
    List,
    /// Show one message and its recipients
    Show(Id),
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// Entry id, or the beginning of one
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArguments {
    /// Entry id, the beginning of one, or Message-ID
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// Entry ids, or beginnings of them
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    /// Entry ids, or beginnings of them
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
    /// Every message that waits for its next attempt
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FlushArguments {
    /// Send
    #[arg(long)]
    pub(crate) upload: bool,
    /// Receive
    #[arg(long)]
    pub(crate) download: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Show each change until interrupted; with --json one document a line
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FsckArguments {
    /// Mend what is found; what cannot be read is set aside and never deleted
    #[arg(long)]
    pub(crate) repair: bool,
    /// Write every message, as far as it can be read, and every record in quarantine to a folder
    #[arg(long, value_name = "DIR")]
    pub(crate) export: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct NotifyArguments {
    /// Flags of the call
    #[arg(value_name = "FLAG", required = true, value_enum)]
    pub(crate) flags: Vec<NotifyFlag>,
    /// Transport to tell [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) transport: Option<String>,
    /// Message reference for cancel-message
    #[arg(long, value_name = "REF")]
    pub(crate) message: Option<u32>,
    /// Entry id for abort-deferred
    #[arg(long, value_name = "ID")]
    pub(crate) entry: Option<String>,
}

/// The flags of TransportNotify as the command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NotifyFlag {
    /// Inbound may start
    BeginInbound,
    /// Inbound ceases
    EndInbound,
    /// Outbound may start
    BeginOutbound,
    /// No new transaction starts
    EndOutbound,
    /// Fetch everything as fast as possible
    BeginInboundFlush,
    /// Leave inbound flush mode
    EndInboundFlush,
    /// Send everything as fast as possible
    BeginOutboundFlush,
    /// Leave outbound flush mode
    EndOutboundFlush,
    /// The call about the message of --message returns
    CancelMessage,
    /// Give the deferred message of --entry back
    AbortDeferred,
}

impl NotifyFlag {
    /// The flag of the contract.
    pub(crate) fn flag(self) -> TransportNotify {
        match self {
            NotifyFlag::BeginInbound => TransportNotify::BEGIN_INBOUND,
            NotifyFlag::EndInbound => TransportNotify::END_INBOUND,
            NotifyFlag::BeginOutbound => TransportNotify::BEGIN_OUTBOUND,
            NotifyFlag::EndOutbound => TransportNotify::END_OUTBOUND,
            NotifyFlag::BeginInboundFlush => TransportNotify::BEGIN_INBOUND_FLUSH,
            NotifyFlag::EndInboundFlush => TransportNotify::END_INBOUND_FLUSH,
            NotifyFlag::BeginOutboundFlush => TransportNotify::BEGIN_OUTBOUND_FLUSH,
            NotifyFlag::EndOutboundFlush => TransportNotify::END_OUTBOUND_FLUSH,
            NotifyFlag::CancelMessage => TransportNotify::CANCEL_MESSAGE,
            NotifyFlag::AbortDeferred => TransportNotify::ABORT_DEFERRED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_contract_has_its_name() {
        let all = NotifyFlag::value_variants().iter().map(|flag| flag.flag());
        let union = all.fold(TransportNotify::empty(), |union, flag| union | flag);
        assert_eq!(union, TransportNotify::all());
        assert_eq!(NotifyFlag::value_variants().len(), 10);
        let name = NotifyFlag::BeginInboundFlush.to_possible_value();
        assert_eq!(
            name.map(|name| name.get_name().to_owned()).as_deref(),
            Some("begin-inbound-flush")
        );
    }
}
