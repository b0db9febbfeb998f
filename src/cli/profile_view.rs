//! A profile as `profile show` tells it: what is in force, defaults filled in, no password.

use serde::Serialize;

use crate::net::{Server, TlsMode, Trust};
use crate::profile::{
    AfterProfile, HandProfile, IdentityProfile, ImapProfile, InDoubtProfile, Login, Password,
    Profile, ReceiverProfile, SentProfile, SmtpProfile, TransportProfile,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp: Option<SmtpView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imap: Option<ImapView>,
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
    retry: RetryView,
}

#[derive(Debug, Serialize)]
struct RetryView {
    first: String,
    factor: f64,
    max: String,
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
        }
    }
}

impl From<&TransportProfile> for TransportView {
    fn from(transport: &TransportProfile) -> Self {
        TransportView {
            name: transport.name.clone(),
            identity: identity(&transport.identity),
            aliases: transport.aliases.clone(),
            smtp: transport.smtp.as_ref().map(SmtpView::from),
            imap: transport.imap.as_ref().map(ImapView::from),
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
        user: login.map(|login| login.user.clone()),
        password: login.map(|login| password(&login.password)),
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
