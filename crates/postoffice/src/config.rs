//! What a post office offers: listeners, extensions, mechanisms, limits.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// The two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 3501.
    Imap,
}

/// The four ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// SMTP in clear, with STARTTLS unless withheld.
    Smtp,
    /// SMTP within TLS from the first octet (RFC 8314).
    Smtps,
    /// IMAP in clear, with STARTTLS unless withheld.
    Imap,
    /// IMAP within TLS from the first octet (RFC 8314).
    Imaps,
}

impl Listener {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Smtp, Self::Smtps, Self::Imap, Self::Imaps];

    /// The protocol spoken there.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Smtp | Self::Smtps => Protocol::Smtp,
            Self::Imap | Self::Imaps => Protocol::Imap,
        }
    }

    /// The scheme of its URL: `smtp`, `smtps`, `imap` or `imaps`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Smtps => "smtps",
            Self::Imap => "imap",
            Self::Imaps => "imaps",
        }
    }

    pub(crate) fn implicit_tls(self) -> bool {
        matches!(self, Self::Smtps | Self::Imaps)
    }
}

/// SMTP service extensions that can be offered or withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SmtpExtension {
    /// EHLO itself; withheld, only HELO is understood.
    Ehlo,
    /// RFC 2920.
    Pipelining,
    /// RFC 1870.
    Size,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 3461.
    Dsn,
    /// RFC 3030 (BDAT, without BINARYMIME).
    Chunking,
    /// RFC 2034.
    EnhancedStatusCodes,
    /// RFC 3207.
    StartTls,
    /// RFC 4954.
    Auth,
}

impl SmtpExtension {
    /// All of them; all are offered unless withheld.
    pub const ALL: [Self; 10] = [
        Self::Ehlo,
        Self::Pipelining,
        Self::Size,
        Self::EightBitMime,
        Self::SmtpUtf8,
        Self::Dsn,
        Self::Chunking,
        Self::EnhancedStatusCodes,
        Self::StartTls,
        Self::Auth,
    ];
}

/// IMAP capabilities that can be offered or withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImapCapability {
    /// RFC 3501 section 6.2.1.
    StartTls,
    /// RFC 4959.
    SaslIr,
    /// RFC 7888.
    LiteralPlus,
    /// RFC 2177.
    Idle,
    /// RFC 6851.
    Move,
    /// RFC 4315.
    UidPlus,
    /// RFC 3691.
    Unselect,
    /// RFC 5161.
    Enable,
    /// RFC 2971.
    Id,
    /// RFC 2342.
    Namespace,
}

impl ImapCapability {
    /// All of them; all are offered unless withheld.
    pub const ALL: [Self; 10] = [
        Self::StartTls,
        Self::SaslIr,
        Self::LiteralPlus,
        Self::Idle,
        Self::Move,
        Self::UidPlus,
        Self::Unselect,
        Self::Enable,
        Self::Id,
        Self::Namespace,
    ];

    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::StartTls => "STARTTLS",
            Self::SaslIr => "SASL-IR",
            Self::LiteralPlus => "LITERAL+",
            Self::Idle => "IDLE",
            Self::Move => "MOVE",
            Self::UidPlus => "UIDPLUS",
            Self::Unselect => "UNSELECT",
            Self::Enable => "ENABLE",
            Self::Id => "ID",
            Self::Namespace => "NAMESPACE",
        }
    }
}

/// Something that is either offered or withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// An SMTP service extension.
    Smtp(SmtpExtension),
    /// An IMAP capability.
    Imap(ImapCapability),
    /// A SASL mechanism, in both protocols.
    Auth(Mechanism),
    /// The UIDNEXT of a SELECT (RFC 3501 section 6.3.1), which not every server tells.
    UidNext,
}

impl From<SmtpExtension> for Feature {
    fn from(extension: SmtpExtension) -> Self {
        Self::Smtp(extension)
    }
}

impl From<ImapCapability> for Feature {
    fn from(capability: ImapCapability) -> Self {
        Self::Imap(capability)
    }
}

impl From<Mechanism> for Feature {
    fn from(mechanism: Mechanism) -> Self {
        Self::Auth(mechanism)
    }
}

/// SASL mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login; also stands for the IMAP command LOGIN.
    Login,
    /// Google's and Microsoft's bearer token mechanism.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

impl Mechanism {
    /// All of them; all are offered unless withheld.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::XOAuth2, Self::OAuthBearer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// When AUTH and LOGIN are possible, and when they are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthPolicy {
    /// Offered on every connection, not needed for sending.
    #[default]
    Optional,
    /// Offered on every connection; MAIL before AUTH is answered 530 5.7.0.
    Required,
    /// As `Required`, but offered within TLS only (538 5.7.11, LOGINDISABLED).
    RequiredWithinTls,
}

/// What happens to recipients that belong to no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownRecipients {
    /// Accepted as a relay would: the message is in [`crate::PostOffice::accepted`] and in no mailbox.
    #[default]
    Relay,
    /// Refused with 550 5.1.1.
    Reject,
}

/// What happens to message data with a bare CR or LF (RFC 5321 section 2.3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareNewlines {
    /// Recorded as a violation and the message refused with 550 5.6.0.
    #[default]
    Reject,
    /// Recorded as a violation; the message is accepted as it is.
    Accept,
}

/// Limits and waiting times of a post office.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest message in octets, announced with SIZE. Default 64 MiB.
    pub message_size: u64,
    /// Bodies up to this many octets are kept; of larger ones only size and digest. Default: all kept.
    pub kept_body_size: u64,
    /// Recipients per transaction; the next is answered 452 4.5.3. Default 1000.
    pub recipients: usize,
    /// Records in [`crate::PostOffice::accepted`]; older ones are dropped. Default 1,000,000.
    pub accepted: usize,
    /// Lines of transcript kept per connection. Default 2000.
    pub transcript_per_connection: usize,
    /// Lines of transcript kept in all. Default 20,000.
    pub transcript: usize,
    /// Longest wait for the peer to send or take something. Default 30 minutes.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 64 << 20,
            kept_body_size: u64::MAX,
            recipients: 1000,
            accepted: 1_000_000,
            transcript_per_connection: 2000,
            transcript: 20_000,
            idle: Duration::from_secs(30 * 60),
        }
    }
}

/// Everything that does not change while the office runs.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) hostname: String,
    pub(crate) listeners: Vec<(Listener, SocketAddr)>,
    pub(crate) auth: AuthPolicy,
    pub(crate) unknown: UnknownRecipients,
    pub(crate) catch_all: Option<String>,
    pub(crate) routes: Vec<(String, String)>,
    pub(crate) bare_newlines: BareNewlines,
    pub(crate) received_header: bool,
    pub(crate) named_faults: bool,
    pub(crate) delimiter: char,
    pub(crate) limits: Limits,
}

/// What is offered now; may be changed while the office runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Withheld(BTreeSet<Feature>);

impl Withheld {
    pub(crate) fn withhold(&mut self, feature: Feature) {
        self.0.insert(feature);
    }

    pub(crate) fn offer(&mut self, feature: Feature) {
        self.0.remove(&feature);
    }

    pub(crate) fn offers(&self, feature: Feature) -> bool {
        !self.0.contains(&feature)
    }
}
