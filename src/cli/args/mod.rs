//! The command line: which commands there are, and what all of them understand.

mod accounts;
mod secret;
mod sending;
mod session;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::profile::Environment;

pub(crate) use accounts::{
    AccountArguments, AddArguments, AuthCommand, AuthLogin, ImportArguments, KindName,
    NewArguments, Only, ProfileCommand, RemoveArguments,
};
pub(crate) use secret::{OAuth2Arguments, PasswordArguments};
pub(crate) use sending::{ImportanceName, PriorityName, SendArguments};
pub(crate) use session::{
    FlushArguments, FsckArguments, Id, Ids, NotifyArguments, QueueArguments, QueueCommand,
    RetryArguments, StatusArguments, TraceArguments,
};

/// Sends and receives the mail of one account by a durable queue.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, max_term_width = 100, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Globals {
    /// Profile to use instead of the default one
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "POSTRIDER_PROFILE",
        hide_env_values = true
    )]
    pub(crate) profile: Option<String>,
    /// Folder of the profiles [default: $XDG_CONFIG_HOME/postrider]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "POSTRIDER_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the spools [default: $XDG_STATE_HOME/postrider]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "POSTRIDER_STATE",
        hide_env_values = true
    )]
    pub(crate) state: Option<PathBuf>,
    /// Write one JSON document to standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on standard error; twice: still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Globals {
    /// What the environment says, for who is called without these options.
    pub(crate) fn of_environment(environment: &Environment) -> Self {
        let path = |name: &str| environment.value(name).map(PathBuf::from);
        let profile = environment.value("POSTRIDER_PROFILE");
        Globals {
            profile: profile.map(|name| name.to_string_lossy().into_owned()),
            config: path("POSTRIDER_CONFIG"),
            state: path("POSTRIDER_STATE"),
            ..Globals::default()
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, show, try and remove profiles
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Sign in to the accounts of a profile by OAuth2, see who is signed in, sign out
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Submit a message; prints its entry id once it is durable
    Send(Box<SendArguments>),
    /// Take a message as sendmail(8) does: its flags are those of sendmail
    #[command(disable_help_flag = true)]
    Sendmail(Foreign),
    /// List the queue as mailq(1) does
    #[command(disable_help_flag = true)]
    Mailq(Foreign),
    /// Does nothing: the profile says where mail for local names goes
    #[command(disable_help_flag = true)]
    Newaliases(Foreign),
    /// Run the daemon: send, receive and answer the other commands
    Run(RunArguments),
    /// Receive once and end
    Fetch,
    /// Send and receive everything that waits, and return when that is done
    Flush(FlushArguments),
    /// Show the status table, the counts of the queue and what happens next
    Status(StatusArguments),
    /// Show status, queue and events on a full screen, live, with keys to act on messages
    Top,
    /// Show the outgoing queue
    Queue(QueueArguments),
    /// Cancel messages that are not sent yet
    Cancel(Ids),
    /// Keep messages from being sent until they are released
    Hold(Ids),
    /// Let held messages go
    Release(Ids),
    /// Try messages now
    Retry(RetryArguments),
    /// Show what happened to a message, also 30 days after it is gone
    Trace(TraceArguments),
    /// Write a message of the queue to standard output, as RFC 5322
    Export(Id),
    /// Check the spool: its rows, indexes, counts and the digest of every body
    Fsck(FsckArguments),
    /// Call TransportNotify on the running session
    Notify(NotifyArguments),
    /// Write a completion script for a shell to standard output
    Completions(CompletionArguments),
    /// Write the manual pages into a folder
    Man(ManArguments),
}

/// Flags of sendmail(8), which are read elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Foreign {
    /// Flags and recipients, see docs/sendmail.md
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// How the log on standard error is written
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        env = "POSTRIDER_LOG_FORMAT"
    )]
    pub(crate) log_format: LogFormat,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON document a line
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArguments {
    /// Shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Folder, which is made when it is missing
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Arguments::command().debug_assert();
    }
}
