//! A profile as `profile show` tells it: what is in force, defaults filled in, no password.

use serde::Serialize;

use crate::net::{Server, TlsMode, Trust};
use crate::profile::{
    AfterProfile, HandProfile, HooksProfile, IdentityProfile, ImapProfile, InDoubtProfile, Login,
    OAuth2Profile, Password, Profile, ReceiverProfile, RewriteProfile, SentProfile, SmtpProfile,
    TransportProfile,
};

#[derive(Debug, Serialize)]
pub(crate) struct ProfileView {
    name: String,
    file: String,
    default: bool,
    transport: Vec<TransportView>,
    store: StoreView,
    queue: QueueView,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<ListenView>,
    local: LocalView,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<MetricsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<HooksView>,
}

#[derive(Debug, Serialize)]
struct LocalView {
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    aliases: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Serialize)]
struct ListenView {
    smtp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<PasswordView>,
}

#[derive(Debug, Serialize)]
struct TransportView {
    name: String,
    identity: String,
    aliases: Vec<String>,
    rewrite: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp: Option<SmtpView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imap: Option<ImapView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oauth2: Option<OAuth2View>,
}

#[derive(Debug, Serialize)]
struct OAuth2View {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<PasswordView>,
    token_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_url: Option<String>,
    scopes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ServerView {
    host: String,
    port: u16,
    tls: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<PasswordView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum PasswordView {
    /// Never with the text itself.
    Text(&'static str),
    Env(String),
    File(String),
    Command(String),
    Credential(String),
    Keyring(String),
    /// By `[transport.oauth2]`.
    #[serde(rename = "sign_in")]
    SignIn(&'static str),
}

#[derive(Debug, Serialize)]
struct SmtpView {
    #[serde(flatten)]
    server: ServerView,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fallback: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipients_per_message: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ImapView {
    #[serde(flatten)]
    server: ServerView,
    mailboxes: Vec<String>,
    push: bool,
    poll_interval: String,
    after: AfterView,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_mailbox: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saves_sent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum AfterView {
    Word(&'static str),
    Move {
        #[serde(rename = "move")]
        mailbox: String,
    },
}

#[derive(Debug, Serialize)]
struct StoreView {
    #[serde(skip_serializing_if = "Option::is_none")]
    maildir: Option<String>,
    sent: SentView,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    hand: Option<HandView>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum SentView {
    Maildir(bool),
    Server(&'static str),
}

#[derive(Debug, Serialize)]
struct HandView {
    #[serde(skip_serializing_if = "Option::is_none")]
    mda: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lmtp: Option<String>,
    recipient: String,
    timeout: String,
    connections: u64,
}

impl From<&HandProfile> for HandView {
    fn from(hand: &HandProfile) -> Self {
        let (mda, lmtp) = match &hand.receiver {
            ReceiverProfile::Program(words) => (Some(words.clone()), None),
            ReceiverProfile::Lmtp(address) => (None, Some(address.clone())),
        };
        HandView {
            mda,
            lmtp,
            recipient: hand.recipient.clone(),
            timeout: duration(hand.timeout),
            connections: hand.connections,
        }
    }
}

#[derive(Debug, Serialize)]
struct QueueView {
    lifetime: String,
    in_doubt: &'static str,
    delay_warning: String,
    retry: RetryView,
}

#[derive(Debug, Serialize)]
struct RetryView {
    first: String,
    factor: f64,
    max: String,
}

#[derive(Debug, Serialize)]
struct MetricsView {
    listen: String,
}

#[derive(Debug, Serialize)]
struct HooksView {
    #[serde(skip_serializing_if = "Option::is_none")]
    on_delivered: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_failed: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_delayed: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_new_mail: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_needs_sign_in: Option<Vec<String>>,
    timeout: String,
}

impl HooksView {
    /// `None` when nobody is called.
    fn of(hooks: &HooksProfile) -> Option<Self> {
        let view = HooksView {
            on_delivered: hooks.on_delivered.clone(),
            on_failed: hooks.on_failed.clone(),
            on_delayed: hooks.on_delayed.clone(),
            on_new_mail: hooks.on_new_mail.clone(),
            on_needs_sign_in: hooks.on_needs_sign_in.clone(),
            timeout: duration(hooks.timeout),
        };
        let none = HooksProfile { timeout: hooks.timeout, ..HooksProfile::default() };
        (*hooks != none).then_some(view)
    }
}

impl From<&Profile> for ProfileView {
    fn from(profile: &Profile) -> Self {
        let queue = &profile.queue;
        ProfileView {
            name: profile.name.clone(),
            file: profile.file.display().to_string(),
            default: profile.default,
            transport: profile.transports.iter().map(TransportView::from).collect(),
            store: StoreView {
                maildir: profile.store.maildir.as_ref().map(|path| path.display().to_string()),
                sent: match profile.store.sent {
                    SentProfile::Nowhere => SentView::Maildir(false),
                    SentProfile::Maildir => SentView::Maildir(true),
                    SentProfile::Server => SentView::Server("server"),
                },
                hand: profile.store.hand.as_ref().map(HandView::from),
            },
            queue: QueueView {
                lifetime: duration(queue.lifetime),
                in_doubt: match queue.in_doubt {
                    InDoubtProfile::Resend => "resend",
                    InDoubtProfile::Hold => "hold",
                },
                delay_warning: queue.delay_warning.map_or_else(|| "never".to_owned(), duration),
                retry: RetryView {
                    first: duration(queue.retry_first),
                    factor: queue.retry_factor,
                    max: duration(queue.retry_max),
                },
            },
            listen: profile.listen.as_ref().map(|listen| ListenView {
                smtp: listen.smtp.to_string(),
                user: listen.login.as_ref().map(|login| login.user.clone()),
                password: listen.login.as_ref().map(|login| password(&login.password)),
            }),
            local: LocalView {
                default: profile.local.default.clone(),
                socket: profile.local.socket.as_ref().map(|path| path.display().to_string()),
                aliases: profile.local.aliases.clone(),
            },
            metrics: profile
                .metrics
                .as_ref()
                .map(|metrics| MetricsView { listen: metrics.listen.to_string() }),
            hooks: HooksView::of(&profile.hooks),
        }
    }
}

impl From<&TransportProfile> for TransportView {
    fn from(transport: &TransportProfile) -> Self {
        TransportView {
            name: transport.name.clone(),
            identity: identity(&transport.identity),
            aliases: transport.aliases.clone(),
            rewrite: match transport.rewrite {
                RewriteProfile::Local => "local",
                RewriteProfile::All => "all",
                RewriteProfile::Never => "never",
            },
            smtp: transport.smtp.as_ref().map(SmtpView::from),
            imap: transport.imap.as_ref().map(ImapView::from),
            oauth2: transport.oauth2.as_ref().map(OAuth2View::from),
        }
    }
}

impl From<&OAuth2Profile> for OAuth2View {
    fn from(oauth2: &OAuth2Profile) -> Self {
        OAuth2View {
            provider: oauth2.provider.map(|provider| provider.to_string()),
            client_id: oauth2.client_id.clone(),
            client_secret: oauth2.client_secret.as_ref().map(password),
            token_url: oauth2.token_url.to_string(),
            auth_url: oauth2.auth_url.as_ref().map(ToString::to_string),
            device_url: oauth2.device_url.as_ref().map(ToString::to_string),
            scopes: oauth2.scopes.clone(),
        }
    }
}

impl From<&SmtpProfile> for SmtpView {
    fn from(smtp: &SmtpProfile) -> Self {
        let auth = smtp.auth.clone();
        SmtpView {
            server: server(&smtp.server, smtp.login.as_ref(), auth, smtp.connections),
            fallback: smtp.fallback.iter().map(Server::place).collect(),
            messages_per_minute: smtp.messages_per_minute,
            recipients_per_message: smtp.recipients_per_message,
        }
    }
}

impl From<&ImapProfile> for ImapView {
    fn from(imap: &ImapProfile) -> Self {
        let auth = imap.auth.clone();
        ImapView {
            server: server(&imap.server, Some(&imap.login), auth, imap.connections),
            mailboxes: imap.mailboxes.clone(),
            push: imap.push,
            poll_interval: duration(imap.poll_interval),
            sent_mailbox: imap.sent_mailbox.clone(),
            saves_sent: imap.saves_sent,
            compress: imap.compress,
            after: match &imap.after {
                AfterProfile::Keep => AfterView::Word("keep"),
                AfterProfile::Seen => AfterView::Word("seen"),
                AfterProfile::Delete => AfterView::Word("delete"),
                AfterProfile::Move(mailbox) => AfterView::Move { mailbox: mailbox.clone() },
            },
        }
    }
}

fn server(
    server: &Server,
    login: Option<&Login>,
    auth: Option<String>,
    connections: Option<u64>,
) -> ServerView {
    let (ca_file, fingerprint) = match &server.trust {
        Trust::Platform => (None, None),
        Trust::CaFile(path) => (Some(path.display().to_string()), None),
        Trust::Fingerprint(digest) => (None, Some(digest.to_string())),
    };
    let client = server.client.as_ref();
    ServerView {
        host: server.host.clone(),
        port: server.port,
        tls: match server.tls {
            TlsMode::Implicit => "implicit",
            TlsMode::StartTls => "starttls",
            TlsMode::Plain => "none",
        },
        ca_file,
        fingerprint,
        client_cert: client.map(|client| client.certificate.display().to_string()),
        client_key: client.map(|client| client.key.display().to_string()),
        user: login.map(|login| login.user.clone()).filter(|user| !user.is_empty()),
        password: login
            .filter(|login| !matches!(login.password, Password::Certificate))
            .map(|login| password(&login.password)),
        auth,
        connections,
    }
}

fn password(password: &Password) -> PasswordView {
    match password {
        Password::Text(_) => PasswordView::Text("(not shown)"),
        Password::Env(name) => PasswordView::Env(name.clone()),
        Password::File(path) => PasswordView::File(path.display().to_string()),
        Password::Shell(line) => PasswordView::Command(line.clone()),
        Password::Program(words) => PasswordView::Command(words.join(" ")),
        Password::Credential(name) => PasswordView::Credential(name.clone()),
        Password::Keyring(name) => PasswordView::Keyring(name.clone()),
        Password::SignIn => PasswordView::SignIn("oauth2"),
        Password::Certificate => PasswordView::SignIn("certificate"),
    }
}

/// `Ann Example <ann@example.org>` or the address alone.
pub(crate) fn identity(identity: &IdentityProfile) -> String {
    match identity.name.as_str() {
        "" => identity.address.clone(),
        name => format!("{name} <{}>", identity.address),
    }
}

fn duration(duration: std::time::Duration) -> String {
    humantime::format_duration(duration).to_string()
}
