//! What a profile says, once it is read and found to make sense.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::Password;
use crate::net::{Server, Trust};
use crate::oauth2::{Endpoint, Provider, RedirectUri};

/// A profile: `<config>/NAME.toml`.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name, the file's without the ending.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// Whether it is used when no profile is named.
    pub default: bool,
    /// Transports in transport order (AT-3); at least one.
    pub transports: Vec<TransportProfile>,
    /// Where mail is kept.
    pub store: StoreProfile,
    /// How long and how often sending is tried.
    pub queue: QueueProfile,
    /// Where mail may be handed over by SMTP; `None` for nowhere.
    pub listen: Option<ListenProfile>,
    /// Where mail for names of this machine goes.
    pub local: LocalProfile,
    /// The folder with its spool and its tokens; `None` for a profile that was read from a text.
    pub state_folder: Option<PathBuf>,
    /// Where metrics can be read beside the control socket; `None` for nowhere.
    pub metrics: Option<MetricsProfile>,
    /// Commands that are told what happens.
    pub hooks: HooksProfile,
}

/// Where metrics can be read beside the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsProfile {
    /// The port; on a loopback address unless the profile insists.
    pub listen: SocketAddr,
}

/// Commands that are told what happens: program and arguments, started without a shell. Each gets a
/// JSON document on standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HooksProfile {
    /// A message left the queue and somebody got it.
    pub on_delivered: Option<Vec<String>>,
    /// Recipients were refused for good or given up.
    pub on_failed: Option<Vec<String>>,
    /// A message is late.
    pub on_delayed: Option<Vec<String>>,
    /// Mail came.
    pub on_new_mail: Option<Vec<String>>,
    /// A login needs its user.
    pub on_needs_sign_in: Option<Vec<String>>,
    /// How long one may take before it is ended.
    pub timeout: Duration,
}

impl Default for HooksProfile {
    fn default() -> Self {
        HooksProfile {
            on_delivered: None,
            on_failed: None,
            on_delayed: None,
            on_new_mail: None,
            on_needs_sign_in: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// One transport of a profile.
#[derive(Clone, Debug)]
pub struct TransportProfile {
    /// Unique name.
    pub name: String,
    /// Name and address of who sends.
    pub identity: IdentityProfile,
    /// Addresses of further senders that choose this transport.
    pub aliases: Vec<String>,
    /// Which senders its identity replaces.
    pub rewrite: RewriteProfile,
    /// Sending; `None` for a transport that only receives.
    pub smtp: Option<SmtpProfile>,
    /// Receiving; `None` for a transport that only sends.
    pub imap: Option<ImapProfile>,
    /// Signing in by OAuth 2.0; `None` for passwords.
    pub oauth2: Option<OAuth2Profile>,
}

/// How an account signs in by OAuth 2.0 (`[transport.oauth2]`).
#[derive(Clone, Debug)]
pub struct OAuth2Profile {
    /// The provider, where its ways are known.
    pub provider: Option<Provider>,
    /// The client as the provider registered it.
    pub client_id: String,
    /// Its secret, where the provider gave one.
    pub client_secret: Option<Password>,
    pub(crate) token_url: Endpoint,
    pub(crate) auth_url: Option<Endpoint>,
    pub(crate) device_url: Option<Endpoint>,
    pub(crate) revoke_url: Option<Endpoint>,
    /// Scopes that are asked for.
    pub scopes: Vec<String>,
    pub(crate) redirect: RedirectUri,
    pub(crate) extra: &'static [(&'static str, &'static str)],
    pub(crate) trust: Trust,
}

/// Which senders of a message are replaced by the identity of the transport that sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewriteProfile {
    /// Those that mean something on this machine only.
    #[default]
    Local,
    /// All that are no identity or alias of the profile.
    All,
    /// None.
    Never,
}

/// Where mail for names of this machine goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalProfile {
    /// By name, in lower case: addresses, or further names.
    pub aliases: std::collections::BTreeMap<String, Vec<String>>,
    /// Where mail for all other names goes; `None` for the first identity that sends.
    pub default: Option<String>,
    /// Socket at which every user of this machine may hand over mail; `None` for none.
    pub socket: Option<PathBuf>,
}

/// Name and address of a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityProfile {
    /// Name to show; empty for none.
    pub name: String,
    /// Address.
    pub address: String,
}

/// User name and where its password comes from.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Password,
}

/// How to send.
#[derive(Clone, Debug)]
pub struct SmtpProfile {
    /// The server.
    pub server: Server,
    /// Login; `None` sends without.
    pub login: Option<Login>,
    /// SASL mechanism to use and no other, lower case.
    pub auth: Option<String>,
    /// Most connections at the same time; `None` for the transport's default.
    pub connections: Option<u64>,
    /// Hosts for when the server is out of reach, in order, with the same TLS, trust and login.
    pub fallback: Vec<Server>,
    /// Most messages begun in any minute; `None` for as many as go.
    pub messages_per_minute: Option<u64>,
    /// Most recipients of one transaction; `None` for the transport's default.
    pub recipients_per_message: Option<u64>,
}

/// How to receive.
#[derive(Clone, Debug)]
pub struct ImapProfile {
    /// The server.
    pub server: Server,
    /// Login.
    pub login: Login,
    /// SASL mechanism to use and no other, lower case.
    pub auth: Option<String>,
    /// Mailboxes to fetch; at least one.
    pub mailboxes: Vec<String>,
    /// Whether IDLE is used where offered.
    pub push: bool,
    /// Time between two looks at a mailbox without push.
    pub poll_interval: Duration,
    /// What happens on the server to a message that is safely fetched.
    pub after: AfterProfile,
    /// Most connections at the same time; `None` for the transport's default.
    pub connections: Option<u64>,
    /// The mailbox of sent mail; `None` for the one that the server marks.
    pub sent_mailbox: Option<String>,
    /// Whether the provider keeps what is sent by itself; `None` for what is known of it.
    pub saves_sent: Option<bool>,
    /// Whether connections are compressed where offered; `None` for wherever that pays.
    pub compress: Option<bool>,
}

/// What happens on the server to a message that is safely fetched (IB-6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterProfile {
    /// Nothing.
    Keep,
    /// It is flagged `\Seen`.
    Seen,
    /// It is deleted.
    Delete,
    /// It is moved to this mailbox.
    Move(String),
}

/// Where mail is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreProfile {
    /// The Maildir, an absolute path; `None` only where received mail is handed over and sent copies
    /// are not kept.
    pub maildir: Option<PathBuf>,
    /// Where copies of what was sent are kept.
    pub sent: SentProfile,
    /// Who gets received mail and reports instead of the Maildir.
    pub hand: Option<HandProfile>,
}

/// Where copies of what was sent are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentProfile {
    /// Nowhere.
    Nowhere,
    /// In `.Sent` of the Maildir.
    Maildir,
    /// In the mailbox of sent mail on the account's server; those of an account without IMAP in the
    /// Maildir, if there is one.
    Server,
}

/// How received mail is handed over instead of being kept in a Maildir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandProfile {
    /// To whom.
    pub receiver: ReceiverProfile,
    /// Whose mail it is.
    pub recipient: String,
    /// How long one message may take.
    pub timeout: Duration,
    /// Most messages at the same time.
    pub connections: u64,
}

/// Who gets received mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverProfile {
    /// A program with its arguments, one message on its standard input.
    Program(Vec<String>),
    /// An LMTP server, `unix:/path` or `host:port`.
    Lmtp(String),
}

/// Where programs reach the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenPlace {
    /// A TCP port; on a loopback address unless the profile insists.
    Tcp(SocketAddr),
    /// A socket in the file system, an absolute path.
    Unix(PathBuf),
}

impl fmt::Display for ListenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenPlace::Tcp(address) => write!(f, "{address}"),
            ListenPlace::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where programs may hand over mail by SMTP.
#[derive(Clone, Debug)]
pub struct ListenProfile {
    /// Where it listens.
    pub smtp: ListenPlace,
    /// The login that is asked for; `None` lets everybody submit who reaches the port.
    pub login: Option<Login>,
}

/// How long and how often sending is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueProfile {
    /// How long after submission a message is given up.
    pub lifetime: Duration,
    /// Time before the second attempt.
    pub retry_first: Duration,
    /// How much longer each further wait is; at least 1.
    pub retry_factor: f64,
    /// The longest wait.
    pub retry_max: Duration,
    /// What to do when the reply to the final dot was lost.
    pub in_doubt: InDoubtProfile,
    /// How long after submission the sender is told that a message is late; `None` for never.
    pub delay_warning: Option<Duration>,
}

impl Default for QueueProfile {
    fn default() -> Self {
        QueueProfile {
            lifetime: Duration::from_secs(5 * 24 * 60 * 60),
            retry_first: Duration::from_secs(30),
            retry_factor: 2.0,
            retry_max: Duration::from_secs(60 * 60),
            in_doubt: InDoubtProfile::Resend,
            delay_warning: Some(Duration::from_secs(4 * 60 * 60)),
        }
    }
}

/// What to do with a message whose fate only the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubtProfile {
    /// Send it again: rather twice than never.
    Resend,
    /// Hold it: rather never than twice.
    Hold,
}

impl Profile {
    /// Whether a password stands in the profile itself.
    pub fn has_text_password(&self) -> bool {
        self.text_passwords().next().is_some()
    }

    fn text_passwords(&self) -> impl Iterator<Item = &SecretString> {
        self.passwords().filter_map(|password| match password {
            Password::Text(text) => Some(text),
            _ => None,
        })
    }

    /// The environment variables that hold passwords, which no command needs to see.
    pub(crate) fn password_variables(&self) -> Vec<String> {
        let variable = |password: &Password| match password {
            Password::Env(name) => Some(name.clone()),
            _ => None,
        };
        self.passwords().filter_map(variable).collect()
    }

    /// Where its secrets come from: those of logins and of OAuth2 clients.
    pub(crate) fn passwords(&self) -> impl Iterator<Item = &Password> {
        let smtp = self.transports.iter().filter_map(|t| t.smtp.as_ref()?.login.as_ref());
        let imap = self.transports.iter().filter_map(|t| Some(&t.imap.as_ref()?.login));
        let listen = self.listen.iter().filter_map(|listen| listen.login.as_ref());
        let logins = smtp.chain(imap).chain(listen).map(|login| &login.password);
        let clients = self.transports.iter().filter_map(|t| t.oauth2.as_ref());
        logins.chain(clients.filter_map(|oauth2| oauth2.client_secret.as_ref()))
    }
}
