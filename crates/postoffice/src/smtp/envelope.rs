//! What is recorded of an SMTP transaction.

use std::sync::Arc;
use std::time::SystemTime;

use smtp_proto::{
    MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_RET_FULL, MAIL_RET_HDRS,
    MAIL_SMTPUTF8, MailFrom, RCPT_NOTIFY_DELAY, RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER,
    RCPT_NOTIFY_SUCCESS, RcptTo,
};

use crate::message::Body;

/// A message the server took responsibility for.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Number of the message, counted from 1; the reply names it.
    pub id: u64,
    /// When it was accepted.
    pub at: SystemTime,
    /// How it came.
    pub envelope: Envelope,
    /// What came.
    pub body: Body,
}

impl Accepted {
    /// The exact bytes, unless only a digest was kept.
    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        self.body.bytes()
    }

    /// The addresses of the recipients in the order in which they were named.
    pub fn recipients(&self) -> Vec<&str> {
        self.envelope.recipients.iter().map(|to| to.address.as_str()).collect()
    }
}

/// The envelope and circumstances of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Number of the connection, as in the transcript.
    pub connection: u64,
    /// The name in EHLO or HELO.
    pub helo: String,
    /// Whether the connection was within TLS.
    pub tls: bool,
    /// The user logged in.
    pub user: Option<String>,
    /// The reverse path without angle brackets; empty for `<>`.
    pub from: String,
    /// The MAIL command as it came, without line end.
    pub mail_command: String,
    /// Its parameters.
    pub parameters: MailParameters,
    /// The recipients that were accepted.
    pub recipients: Vec<Recipient>,
    /// Whether the data came by BDAT (RFC 3030).
    pub chunked: bool,
}

impl Envelope {
    /// What [`crate::Fault::matching`] is compared with once the data is on its way.
    pub(crate) fn subject(&self) -> String {
        let mut subject = self.from.clone();
        for to in &self.recipients {
            subject.push(' ');
            subject.push_str(&to.address);
        }
        subject
    }
}

/// The BODY parameter (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyType {
    /// `BODY=7BIT`.
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// The RET parameter (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// `RET=FULL`.
    Full,
    /// `RET=HDRS`.
    Headers,
}

/// The parameters of MAIL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=` in octets (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=`.
    pub body: Option<BodyType>,
    /// Whether SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
    /// `RET=`.
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded from xtext.
    pub envid: Option<String>,
    /// `AUTH=`, decoded from xtext (RFC 4954 section 5).
    pub auth: Option<String>,
}

impl MailParameters {
    pub(crate) fn read(from: &MailFrom<String>, command: &str) -> Self {
        let size_given = command.to_ascii_uppercase().contains(" SIZE=");
        Self {
            size: size_given.then(|| u64::try_from(from.size).unwrap_or(u64::MAX)),
            body: if from.flags & MAIL_BODY_8BITMIME != 0 {
                Some(BodyType::EightBitMime)
            } else {
                (from.flags & MAIL_BODY_7BIT != 0).then_some(BodyType::SevenBit)
            },
            smtputf8: from.flags & MAIL_SMTPUTF8 != 0,
            ret: if from.flags & MAIL_RET_FULL != 0 {
                Some(Ret::Full)
            } else {
                (from.flags & MAIL_RET_HDRS != 0).then_some(Ret::Headers)
            },
            envid: from.env_id.clone(),
            auth: from.auth.clone(),
        }
    }

    pub(crate) fn binary(from: &MailFrom<String>) -> bool {
        from.flags & MAIL_BODY_BINARYMIME != 0
    }
}

/// The NOTIFY parameter (RFC 3461 section 4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    /// `NEVER`.
    pub never: bool,
    /// `SUCCESS`.
    pub success: bool,
    /// `FAILURE`.
    pub failure: bool,
    /// `DELAY`.
    pub delay: bool,
}

/// A recipient that was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipient {
    /// The forward path without angle brackets.
    pub address: String,
    /// `NOTIFY=`, if it was given.
    pub notify: Option<Notify>,
    /// `ORCPT=rfc822;...`: the address, decoded from xtext.
    pub orcpt: Option<String>,
    /// The RCPT command as it came, without line end.
    pub command: String,
}

impl Recipient {
    pub(crate) fn read(to: RcptTo<String>, command: &str) -> Self {
        let has = |flag| to.flags & flag != 0;
        let notify = Notify {
            never: has(RCPT_NOTIFY_NEVER),
            success: has(RCPT_NOTIFY_SUCCESS),
            failure: has(RCPT_NOTIFY_FAILURE),
            delay: has(RCPT_NOTIFY_DELAY),
        };
        Self {
            address: to.address,
            notify: (notify != Notify::default()).then_some(notify),
            orcpt: to.orcpt,
            command: command.to_owned(),
        }
    }
}

/// Something the client did that the standards forbid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Number of the connection, as in the transcript.
    pub connection: u64,
    /// What kind.
    pub kind: ViolationKind,
    /// The particulars.
    pub detail: String,
}

/// The violations that are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViolationKind {
    /// Octets above 127 in the data without BODY=8BITMIME (RFC 6152 section 3).
    EightBitUndeclared,
    /// Octets above 127 in an address or header without SMTPUTF8 (RFC 6531 section 3.4).
    Utf8Undeclared,
    /// A line of more than 998 octets (RFC 5321 section 4.5.3.1.6).
    LongLine,
    /// CR without LF in data or command (RFC 5321 section 2.3.8).
    BareCr,
    /// LF without CR in data or command.
    BareLf,
    /// A NUL octet in the data (RFC 5321 section 2.3.8, RFC 5322 section 4).
    Nul,
    /// Data that does not end in CRLF, by BDAT (RFC 5321 section 4.1.1.4).
    NoFinalNewline,
    /// A Bcc field with content in the header (RFC 5322 section 3.6.3).
    Bcc,
    /// No Date or no From in the header (RFC 5322 section 3.6).
    MissingField,
    /// A field that may occur once occurs more often (RFC 5322 section 3.6).
    DuplicateField,
    /// A parameter or command whose extension is not offered.
    NotOffered,
    /// Commands sent together without PIPELINING, or behind one that must be the last of a group (RFC 2920 section 3.1).
    Pipelining,
    /// Something sent before the greeting (RFC 5321 section 4.3.1).
    EarlyTalk,
    /// Octets in clear behind STARTTLS (RFC 3207 section 4).
    PlaintextBehindStartTls,
    /// The data is larger than SIZE said (RFC 1870 section 6).
    SizeUnderstated,
    /// A command where it is not allowed (RFC 5321 section 4.1.4).
    BadSequence,
    /// A command that cannot be parsed, or is too long.
    Syntax,
    /// LOGIN or AUTHENTICATE in clear although LOGINDISABLED, or AUTH although it is offered within TLS only.
    AuthInClear,
}
