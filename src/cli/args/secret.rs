//! The part of the command line that says how an account logs in.

use clap::{Args, ValueEnum};

use crate::discovery::OAuth2Service;
use crate::profile::NewPassword;

/// Where a password comes from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PasswordArguments {
    /// Shell command that prints the password
    #[arg(long, value_name = "COMMAND", group = "password")]
    pub(crate) password_command: Option<String>,
    /// Environment variable that holds the password
    #[arg(long, value_name = "VARIABLE", group = "password")]
    pub(crate) password_env: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", group = "password")]
    pub(crate) password_file: Option<String>,
    /// Entry of the keyring that holds the password: service `postrider`, this user name
    #[arg(long, value_name = "NAME", group = "password")]
    pub(crate) password_keyring: Option<String>,
}

impl PasswordArguments {
    /// The source that is named, if one is.
    pub(crate) fn given(&self) -> Option<NewPassword> {
        let command = self.password_command.clone().map(NewPassword::Command);
        let variable = || self.password_env.clone().map(NewPassword::Env);
        let file = || self.password_file.clone().map(NewPassword::File);
        let keyring = || self.password_keyring.clone().map(NewPassword::Keyring);
        command.or_else(variable).or_else(file).or_else(keyring)
    }
}

/// How an account signs in by OAuth2 instead of a password.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OAuth2Arguments {
    /// Sign in by OAuth2 as the client that the provider registered under this id
    #[arg(long, value_name = "ID", conflicts_with = "password")]
    pub(crate) client_id: Option<String>,
    /// Who gives out the tokens [default: seen from the servers]
    #[arg(long, value_name = "PROVIDER", value_enum, requires = "client_id")]
    pub(crate) oauth2: Option<OAuth2Name>,
    /// Shell command that prints the secret of the client
    #[arg(long, value_name = "COMMAND", requires = "client_id", group = "client_secret")]
    pub(crate) client_secret_command: Option<String>,
    /// File whose first line is the secret of the client
    #[arg(long, value_name = "FILE", requires = "client_id", group = "client_secret")]
    pub(crate) client_secret_file: Option<String>,
    /// Another provider: where the browser is sent
    #[arg(long, value_name = "URL", requires = "token_url")]
    pub(crate) auth_url: Option<String>,
    /// Another provider: where tokens come from
    #[arg(long, value_name = "URL", requires = "client_id", conflicts_with = "oauth2")]
    pub(crate) token_url: Option<String>,
    /// Another provider: where other devices sign in
    #[arg(long, value_name = "URL", requires = "token_url")]
    pub(crate) device_url: Option<String>,
    /// What to ask for [default: what the provider is known to want]
    #[arg(long = "scope", value_name = "SCOPE", requires = "client_id")]
    pub(crate) scopes: Vec<String>,
}

/// A provider whose services are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OAuth2Name {
    /// Gmail and Google Workspace
    Google,
    /// Outlook.com and Microsoft 365
    Microsoft,
}

impl From<OAuth2Name> for OAuth2Service {
    fn from(name: OAuth2Name) -> Self {
        match name {
            OAuth2Name::Google => OAuth2Service::Google,
            OAuth2Name::Microsoft => OAuth2Service::Microsoft,
        }
    }
}
