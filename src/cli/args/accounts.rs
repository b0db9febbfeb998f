//! `profile` and `auth`: the accounts and how one signs in to them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{OAuth2Arguments, PasswordArguments};

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
