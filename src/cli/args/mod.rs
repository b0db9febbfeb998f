//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use super::secret_args::{OAuth2Arguments, PasswordArguments};
use crate::mapi::{Importance, Priority, TransportNotify};
use crate::profile::Environment;

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

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Make a profile; asks for what is not given when on a terminal
    New(Box<NewArguments>),
    /// Add one more account to a profile; asks as `new` does
    Add(Box<AddArguments>),
    /// Make a profile of the configuration of msmtp, mbsync, fetchmail, getmail or Outlook (.prf)
    Import(Box<ImportArguments>),
    /// List the profiles
    List,
    /// Show what a profile says, but no password
    Show(OptionalName),
    /// Log in to each server of a profile and show what it offers
    Check(OptionalName),
    /// Use this profile when none is named
    Default(Name),
    /// Remove a profile
    Remove(RemoveArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Sign in: through a browser of this machine, or on another device
    Login(AuthLogin),
    /// Show who is signed in; exit 1 when somebody has to sign in
    Status(AuthTransport),
    /// Forget the tokens of an account, and tell its provider where that is possible
    Logout(AuthTransport),
}

#[derive(Debug, Args)]
pub(crate) struct AuthLogin {
    /// Name of the transport [default: the only one that signs in]
    #[arg(value_name = "TRANSPORT")]
    pub(crate) transport: Option<String>,
    /// Show a code to type on another device, where the provider has that
    #[arg(long)]
    pub(crate) device: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuthTransport {
    /// Name of the transport
    #[arg(value_name = "TRANSPORT")]
    pub(crate) transport: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NewArguments {
    /// Name of the profile
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) account: AccountArguments,
    /// Folder for mail [default: ~/Mail]
    #[arg(long, value_name = "DIR")]
    pub(crate) maildir: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AddArguments {
    /// Name of the profile
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) account: AccountArguments,
}

/// What options say about one account.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AccountArguments {
    /// Your address, such as "Ann Example <ann@example.org>"
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// Server to send with: smtps://USER@HOST, smtp+starttls://.. or smtp://.. (no TLS)
    #[arg(long, value_name = "URL")]
    pub(crate) smtp: Option<String>,
    /// Server to receive from: imaps://USER@HOST, imap+starttls://.. or imap://.. (no TLS)
    #[arg(long, value_name = "URL")]
    pub(crate) imap: Option<String>,
    /// Look for the servers of the address; on a terminal that is done when none is named
    #[arg(long, conflicts_with_all = ["smtp", "imap", "autoconfig"])]
    pub(crate) discover: bool,
    /// Take the servers from this configuration file (config-v1.1.xml)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["smtp", "imap"])]
    pub(crate) autoconfig: Option<PathBuf>,
    /// Use only one direction of what is found
    #[arg(long, value_name = "DIRECTION", value_enum)]
    pub(crate) only: Option<Only>,
    /// User name, where the servers want another one than is found
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) source: PasswordArguments,
    #[command(flatten)]
    pub(crate) oauth2: OAuth2Arguments,
    /// PEM file with the authorities to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<String>,
    /// Name of the account in the profile [default: the profile's; for `add` the domain's]
    #[arg(long, value_name = "NAME")]
    pub(crate) transport: Option<String>,
    /// Log in to the servers first, and write nothing when that fails; usual on a terminal
    #[arg(long, conflicts_with = "no_check")]
    pub(crate) check: bool,
    /// Write it untried
    #[arg(long)]
    pub(crate) no_check: bool,
}

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// Sending
    Send,
    /// Receiving
    Receive,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ImportArguments {
    /// Configuration files; accounts of the same address in several files become one
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Whose configuration it is [default: seen from name and content]
    #[arg(long, value_name = "PROGRAM", value_enum)]
    pub(crate) kind: Option<KindName>,
    /// Name of the profile
    #[arg(long, value_name = "NAME", default_value = "imported")]
    pub(crate) name: String,
    /// Address of accounts for which the files name none
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// Folder for mail [default: ~/Mail]
    #[arg(long, value_name = "DIR")]
    pub(crate) maildir: Option<String>,
    #[command(flatten)]
    pub(crate) source: PasswordArguments,
    /// Log in to the servers first, and write nothing when that fails
    #[arg(long)]
    pub(crate) check: bool,
}

/// A program whose configuration can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindName {
    /// ~/.msmtprc
    Msmtp,
    /// ~/.mbsyncrc
    Mbsync,
    /// ~/.fetchmailrc
    Fetchmail,
    /// getmailrc
    Getmail,
    /// Internet accounts of an Outlook profile file
    Prf,
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
pub(crate) struct OptionalName {
    /// Name of the profile [default: the default profile]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Name of the profile
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Name of the profile
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Also when mail waits in its queue
    #[arg(long)]
    pub(crate) force: bool,
}

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
