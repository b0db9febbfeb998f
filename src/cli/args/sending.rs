//! `send`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::mapi::{Importance, Priority};

#[derive(Debug, Default, Args)]
pub(crate) struct SendArguments {
    /// Sender [default: the identity of the profile]
    #[arg(short, long, value_name = "FROM")]
    pub(crate) from: Option<String>,
    /// Recipients
    #[arg(short, long, value_name = "TO")]
    pub(crate) to: Vec<String>,
    /// Recipients of a copy
    #[arg(long, value_name = "CC")]
    pub(crate) cc: Vec<String>,
    /// Recipients of a copy that nobody else sees
    #[arg(long, value_name = "BCC")]
    pub(crate) bcc: Vec<String>,
    /// Subject
    #[arg(short, long, value_name = "SUBJECT", conflicts_with = "raw")]
    pub(crate) subject: Option<String>,
    /// Body [default: standard input]
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) body: Option<String>,
    /// File with the body as HTML
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub(crate) html: Option<PathBuf>,
    /// File to attach
    #[arg(short, long = "attach", value_name = "FILE", conflicts_with = "raw")]
    pub(crate) attachments: Vec<PathBuf>,
    /// Send not before this time: RFC 3339, "2026-01-31 15:00" or "15:00"
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    pub(crate) at: Option<String>,
    /// Send not before this time has passed: 90s, 10m, 2h, 1d
    #[arg(long = "in", value_name = "DURATION")]
    pub(crate) after: Option<String>,
    /// Give up what is not sent until this time or for so long; forms as of --at and --in
    #[arg(long, value_name = "TIME|DURATION")]
    pub(crate) expires: Option<String>,
    /// How important it is for the reader
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) importance: Option<ImportanceName>,
    /// How urgent it is: urgent messages leave before all others
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) priority: Option<PriorityName>,
    /// Ask for a report when the message is delivered
    #[arg(long)]
    pub(crate) dsn: bool,
    /// Wait for the outcome and show it for each recipient
    #[arg(long)]
    pub(crate) wait: bool,
    /// Standard input is an RFC 5322 message; recipients are those of -t, else of its header
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `PR_IMPORTANCE` as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportanceName {
    /// Need not be read soon
    Low,
    /// Nothing special
    Normal,
    /// To be read first
    High,
}

impl ImportanceName {
    /// The value of the contract.
    pub(crate) fn importance(self) -> Importance {
        match self {
            ImportanceName::Low => Importance::Low,
            ImportanceName::Normal => Importance::Normal,
            ImportanceName::High => Importance::High,
        }
    }
}

/// `PR_PRIORITY` as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityName {
    /// Leaves before all others
    Urgent,
    /// In the order of submission
    Normal,
    /// Leaves when nothing else waits
    NonUrgent,
}

impl PriorityName {
    /// The value of the contract.
    pub(crate) fn priority(self) -> Priority {
        match self {
            PriorityName::Urgent => Priority::Urgent,
            PriorityName::Normal => Priority::Normal,
            PriorityName::NonUrgent => Priority::NonUrgent,
        }
    }
}
