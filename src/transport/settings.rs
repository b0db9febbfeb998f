//! The settings of one logon, read from its profile section and nothing else (LG-3).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::mapi::{MapiCode, MapiError, MapiResult};
use crate::net::{
    Cleartext, ClientCertificate, Compress, ImapLogin, LoginMemory, Server, TlsMode, Trust,
};
use crate::spi::{ProfileSection, SecretSource};

/// Everything one logon needs to know.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Name of the transport in the profile (`name`).
    pub name: String,
    /// Who sends (`identity`).
    pub identity: Identity,
    /// Sending; `None` for a transport that only receives (`smtp.*`).
    pub smtp: Option<SmtpSettings>,
    /// Receiving; `None` for a transport that only sends (`imap.*`).
    pub imap: Option<ImapSettings>,
    /// Retries and lifetime (`queue.*`).
    pub queue: QueueSettings,
}

/// Name and address of a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name to show; empty for none.
    pub name: String,
    /// Address.
    pub address: String,
}

impl fmt::Display for Identity {
    /// The form of a `From` header for people: `Ann Example <ann@example.org>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => f.write_str(&self.address),
            name => write!(f, "{name} <{}>", self.address),
        }
    }
}

/// User name and the place its password comes from.
#[derive(Clone)]
pub struct Credentials {
    /// User name (`user`).
    pub user: String,
    /// Password source (`password`).
    pub password: Arc<dyn SecretSource>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How to send.
#[derive(Clone, Debug)]
pub struct SmtpSettings {
    /// The server (`smtp.host`, `.port`, `.tls`, `.ca_file`, `.fingerprint`, `.client_cert`,
    /// `.client_key`).
    pub server: Server,
    /// Login; `None` sends without (`smtp.user`, `.password`).
    pub credentials: Option<Credentials>,
    /// SASL mechanism to use and no other (`smtp.auth`, lower case); `None` picks the best.
    pub auth: Option<String>,
    /// Most connections at the same time (`smtp.connections`, default 4).
    pub connections: usize,
    /// Whether the password may go over a connection without TLS (`smtp.insecure`, default only
    /// to this machine).
    pub cleartext: Cleartext,
    /// Hosts that are tried in order while the server is out of reach, with the same TLS mode,
    /// trust and login (`smtp.fallback`, default none).
    pub fallback: Vec<Server>,
    /// Most transactions begun in any 60 s (`smtp.messages_per_minute`, default any number).
    pub messages_per_minute: Option<u32>,
    /// Most recipients of one transaction (`smtp.recipients_per_message`, default 100, which is
    /// what every server must take, RFC 5321 section 4.5.3.1.8).
    pub recipients_per_message: usize,
}

/// How to receive.
#[derive(Clone, Debug)]
pub struct ImapSettings {
    /// The server (`imap.*` as for SMTP).
    pub server: Server,
    /// Login.
    pub credentials: Credentials,
    /// SASL mechanism to use and no other (`imap.auth`).
    pub auth: Option<String>,
    /// Mailboxes to fetch (`imap.mailboxes`, default INBOX).
    pub mailboxes: Vec<String>,
    /// Whether IDLE is used where offered (`imap.push`, default true).
    pub push: bool,
    /// Time between two looks at a mailbox without push (`imap.poll_interval`, default 60 s).
    pub poll_interval: Duration,
    /// What happens on the server to a message that is safely fetched (`imap.after`).
    pub after: AfterFetch,
    /// Most connections at the same time (`imap.connections`, default 4).
    pub connections: usize,
    /// Whether the password may go over a connection without TLS (`imap.insecure`).
    pub cleartext: Cleartext,
    /// The mailbox of sent mail (`imap.sent_mailbox`); `None` for the one that the server marks.
    pub sent_mailbox: Option<String>,
    /// Whether the provider keeps what is sent by itself (`imap.saves_sent`); `None` for what is known
    /// of its SMTP host.
    pub saves_sent: Option<bool>,
    /// Whether connections are compressed where the server offers it (`imap.compress`, default
    /// wherever that pays).
    pub compress: Compress,
}

impl ImapSettings {
    /// A login with this secret, by what worked before.
    pub(crate) fn login<'a>(
        &'a self,
        secret: &'a SecretString,
        memory: &'a LoginMemory,
    ) -> ImapLogin<'a> {
        ImapLogin {
            user: &self.credentials.user,
            secret,
            kind: self.credentials.password.kind(),
            wanted: self.auth.as_deref(),
            memory,
            compress: self.compress,
        }
    }
}

/// What happens on the server to a message that is safely in the store (IB-6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AfterFetch {
    /// Nothing.
    #[default]
    Keep,
    /// It is flagged `\Seen`.
    Seen,
    /// It is deleted and expunged.
    Delete,
    /// It is moved to this mailbox, which is made if it is missing.
    Move(String),
}

/// How long and how often sending is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueSettings {
    /// How long after submission a message is given up (`queue.lifetime`, default 5 days). Does not
    /// run out while the account is the trouble.
    pub lifetime: Duration,
    /// Times between attempts.
    pub retry: RetrySchedule,
    /// What to do when the reply to the final dot was lost (`queue.in_doubt`).
    pub in_doubt: InDoubtPolicy,
}

/// Times between attempts: `first`, then times `factor` each, at most `max`, each with jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySchedule {
    /// After the first attempt (`queue.retry.first`, default 30 s).
    pub first: Duration,
    /// Growth (`queue.retry.factor`, default 2; at least 1).
    pub factor: f64,
    /// Bound (`queue.retry.max`, default 1 h).
    pub max: Duration,
}

/// What to do with a message whose fate only the server knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InDoubtPolicy {
    /// Send it again by the schedule: rather twice than never.
    #[default]
    Resend,
    /// Wait for the user: rather never than twice.
    Hold,
}

impl Default for QueueSettings {
    fn default() -> Self {
        QueueSettings {
            lifetime: Duration::from_secs(5 * 24 * 60 * 60),
            retry: RetrySchedule::default(),
            in_doubt: InDoubtPolicy::default(),
        }
    }
}

impl Default for RetrySchedule {
    fn default() -> Self {
        RetrySchedule {
            first: Duration::from_secs(30),
            factor: 2.0,
            max: Duration::from_secs(60 * 60),
        }
    }
}

impl TransportSettings {
    /// Reads a profile section. Durations are texts such as `30s` or `5d`.
    ///
    /// # Errors
    /// `MAPI_E_UNCONFIGURED` naming the key that is missing or makes no sense (LG-8).
    pub fn from_section(section: &ProfileSection) -> MapiResult<Self> {
        let name = section.required_text("name")?.to_owned();
        let address = section.required_text("identity.address")?.to_owned();
        let identity = Identity {
            name: section.text("identity.name")?.unwrap_or_default().to_owned(),
            address,
        };
        let smtp = section.has("smtp").then(|| smtp_settings(section)).transpose()?;
        let imap = section.has("imap").then(|| imap_settings(section)).transpose()?;
        if smtp.is_none() && imap.is_none() {
            return Err(bad("smtp.host", "a transport needs an smtp or an imap part"));
        }
        Ok(TransportSettings { name, identity, smtp, imap, queue: queue_settings(section)? })
    }
}

fn smtp_settings(section: &ProfileSection) -> MapiResult<SmtpSettings> {
    let credentials = credentials(section, "smtp")?;
    let server = server(section, "smtp", |tls| match tls {
        TlsMode::Implicit => 465,
        TlsMode::StartTls => 587,
        TlsMode::Plain => 25,
    })?;
    let fallback = section.list("smtp.fallback")?.iter().map(|place| server.beside(place));
    let fallback = fallback.collect::<Result<_, _>>();
    Ok(SmtpSettings {
        fallback: fallback.map_err(|why| bad("smtp.fallback", &why))?,
        messages_per_minute: limit(section, "smtp.messages_per_minute", 10_000)?,
        recipients_per_message: limit(section, "smtp.recipients_per_message", 100)?
            .map_or(100, |limit| usize::try_from(limit).unwrap_or(100)),
        server,
        credentials,
        auth: section.text("smtp.auth")?.map(str::to_ascii_lowercase),
        connections: connections(section, "smtp.connections")?,
        cleartext: cleartext(section, "smtp.insecure")?,
    })
}

fn imap_settings(section: &ProfileSection) -> MapiResult<ImapSettings> {
    let credentials = credentials(section, "imap")?
        .ok_or_else(|| bad("imap.user", "receiving needs a user and a password"))?;
    let mut mailboxes = section.list("imap.mailboxes")?.to_vec();
    if mailboxes.is_empty() {
        mailboxes.push("INBOX".to_owned());
    }
    Ok(ImapSettings {
        server: server(section, "imap", |tls| match tls {
            TlsMode::Implicit => 993,
            TlsMode::StartTls | TlsMode::Plain => 143,
        })?,
        credentials,
        auth: section.text("imap.auth")?.map(str::to_ascii_lowercase),
        mailboxes,
        push: section.switch("imap.push")?.unwrap_or(true),
        poll_interval: duration(section, "imap.poll_interval")?.unwrap_or(Duration::from_secs(60)),
        after: match (section.text("imap.after")?, section.text("imap.after.move")?) {
            (None, None) | (Some("keep"), None) => AfterFetch::Keep,
            (Some("seen"), None) => AfterFetch::Seen,
            (Some("delete"), None) => AfterFetch::Delete,
            (None, Some(mailbox)) => AfterFetch::Move(mailbox.to_owned()),
            _ => return Err(bad("imap.after", "it must be keep, seen, delete or { move = .. }")),
        },
        connections: connections(section, "imap.connections")?,
        cleartext: cleartext(section, "imap.insecure")?,
        sent_mailbox: section.text("imap.sent_mailbox")?.map(str::to_owned),
        saves_sent: section.switch("imap.saves_sent")?,
        compress: match section.switch("imap.compress")? {
            None => Compress::WhereItPays,
            Some(true) => Compress::Always,
            Some(false) => Compress::Never,
        },
    })
}

fn queue_settings(section: &ProfileSection) -> MapiResult<QueueSettings> {
    let default = QueueSettings::default();
    let factor = match section.text("queue.retry.factor")? {
        None => default.retry.factor,
        Some(text) => text
            .parse()
            .ok()
            .filter(|factor: &f64| factor.is_finite() && *factor >= 1.0)
            .ok_or_else(|| bad("queue.retry.factor", "it must be a number of at least 1"))?,
    };
    Ok(QueueSettings {
        lifetime: duration(section, "queue.lifetime")?.unwrap_or(default.lifetime),
        retry: RetrySchedule {
            first: duration(section, "queue.retry.first")?.unwrap_or(default.retry.first),
            factor,
            max: duration(section, "queue.retry.max")?.unwrap_or(default.retry.max),
        },
        in_doubt: match section.text("queue.in_doubt")? {
            None | Some("resend") => InDoubtPolicy::Resend,
            Some("hold") => InDoubtPolicy::Hold,
            Some(_) => return Err(bad("queue.in_doubt", "it must be resend or hold")),
        },
    })
}

fn server(
    section: &ProfileSection,
    part: &str,
    default_port: impl Fn(TlsMode) -> u16,
) -> MapiResult<Server> {
    let key = |name: &str| format!("{part}.{name}");
    let tls = match section.text(&key("tls"))? {
        None | Some("implicit") => TlsMode::Implicit,
        Some("starttls") => TlsMode::StartTls,
        Some("none") => TlsMode::Plain,
        Some(_) => return Err(bad(&key("tls"), "it must be implicit, starttls or none")),
    };
    let port = match section.number(&key("port"))? {
        None => default_port(tls),
        Some(number) => u16::try_from(number)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| bad(&key("port"), "it must be between 1 and 65535"))?,
    };
    let trust = match (section.text(&key("fingerprint"))?, section.text(&key("ca_file"))?) {
        (Some(text), _) => {
            Trust::Fingerprint(text.parse().map_err(|why: String| bad(&key("fingerprint"), &why))?)
        }
        (None, Some(file)) => Trust::CaFile(file.into()),
        (None, None) => Trust::Platform,
    };
    let client = match (section.text(&key("client_cert"))?, section.text(&key("client_key"))?) {
        (None, None) => None,
        (Some(certificate), Some(file)) => {
            Some(ClientCertificate { certificate: certificate.into(), key: file.into() })
        }
        (Some(_), None) => return Err(bad(&key("client_key"), "a certificate needs its key")),
        (None, Some(_)) => return Err(bad(&key("client_cert"), "a key needs its certificate")),
    };
    let host = section.required_text(&key("host"))?.to_owned();
    Ok(Server { host, port, tls, trust, client })
}

fn credentials(section: &ProfileSection, part: &str) -> MapiResult<Option<Credentials>> {
    let (user_key, password_key) = (format!("{part}.user"), format!("{part}.password"));
    match (section.text(&user_key)?, section.secret(&password_key)?) {
        (Some(user), Some(password)) => Ok(Some(Credentials { user: user.to_owned(), password })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(bad(&password_key, "a user needs a password")),
        (None, Some(_)) => Err(bad(&user_key, "a password needs a user")),
    }
}

fn cleartext(section: &ProfileSection, key: &str) -> MapiResult<Cleartext> {
    Ok(match section.switch(key)? {
        Some(true) => Cleartext::Allowed,
        Some(false) | None => Cleartext::LoopbackOnly,
    })
}

fn connections(section: &ProfileSection, key: &str) -> MapiResult<usize> {
    let number = section.number(key)?.unwrap_or(4);
    usize::try_from(number)
        .ok()
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| bad(key, "it must be between 1 and 100"))
}

fn limit(section: &ProfileSection, key: &str, most: u32) -> MapiResult<Option<u32>> {
    let Some(number) = section.number(key)? else { return Ok(None) };
    let number = u32::try_from(number).ok().filter(|number| (1..=most).contains(number));
    number.map(Some).ok_or_else(|| bad(key, &format!("it must be between 1 and {most}")))
}

fn duration(section: &ProfileSection, key: &str) -> MapiResult<Option<Duration>> {
    section
        .text(key)?
        .map(|text| {
            humantime::parse_duration(text)
                .ok()
                .filter(|duration| !duration.is_zero())
                .ok_or_else(|| bad(key, "it must be a time such as 30s, 10m, 2h or 5d"))
        })
        .transpose()
}

fn bad(key: &str, why: &str) -> MapiError {
    MapiError::new(MapiCode::UNCONFIGURED, format!("the profile key {key}: {why}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spi::SectionValue;

    fn section() -> ProfileSection {
        ProfileSection::new()
            .with("name", SectionValue::Text("work".into()))
            .with("identity.address", SectionValue::Text("ann@example.org".into()))
            .with("smtp.host", SectionValue::Text("smtp.example.org".into()))
    }

    #[test]
    fn defaults_are_those_of_the_product() {
        let settings = TransportSettings::from_section(&section()).unwrap();
        let smtp = settings.smtp.unwrap();
        assert_eq!((smtp.server.port, smtp.server.tls), (465, TlsMode::Implicit));
        assert_eq!(smtp.connections, 4);
        assert!(smtp.credentials.is_none());
        assert!(settings.imap.is_none());
        assert_eq!(settings.queue, QueueSettings::default());
    }

    /// Proves: LG-8
    #[test]
    fn errors_name_the_key() {
        let cases: [(&str, SectionValue, &str); 7] = [
            ("smtp.port", SectionValue::Number(70_000), "smtp.port"),
            ("smtp.tls", SectionValue::Text("maybe".into()), "smtp.tls"),
            ("smtp.user", SectionValue::Text("ann".into()), "smtp.password"),
            ("smtp.fingerprint", SectionValue::Text("md5:00".into()), "smtp.fingerprint"),
            ("queue.lifetime", SectionValue::Text("soon".into()), "queue.lifetime"),
            ("queue.retry.factor", SectionValue::Text("0.5".into()), "queue.retry.factor"),
            ("imap.host", SectionValue::Text("imap.example.org".into()), "imap.user"),
        ];
        for (key, value, named) in cases {
            let error = TransportSettings::from_section(&section().with(key, value)).unwrap_err();
            assert_eq!(error.code(), MapiCode::UNCONFIGURED, "{key}");
            assert!(error.detail().contains(named), "{key}: {error}");
        }
        let empty = TransportSettings::from_section(&ProfileSection::new()).unwrap_err();
        assert!(empty.detail().contains("name"), "{empty}");
    }
}
