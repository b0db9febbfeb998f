//! The table of replies: from phase, code, enhanced code and words to scope, permanence and cause.
//!
//! The first row that fits decides, so the special stands before the general. Codes are what the
//! RFCs say; words stand only where providers say different things by the same code. Each row has
//! its example in `tests`, and what the providers are known to say is tested there reply by reply.

use std::ops::RangeInclusive;

use super::Cause::{Doubtful, LoginRefused, Plain, Server, Throttled, Tls, TooManyRecipients};
use super::Permanence::{Permanent, Temporary};
use super::Scope::{Account, Message, Network, Recipient};
use super::{Cause, Permanence, Phase, Scope, Verdict};
use crate::spool::Reply;

/// Which enhanced codes a row is for, by subject and detail.
pub(super) enum Enhanced {
    Any,
    /// The reply has none.
    None,
    /// One of these, such as `5.3`.
    In(&'static [&'static str]),
}

/// One row of the table; the first that fits decides.
pub(super) struct Row {
    pub(super) phases: &'static [Phase],
    codes: RangeInclusive<u16>,
    enhanced: Enhanced,
    /// Any of these, in lower case; empty fits every text.
    words: &'static [&'static str],
    pub(super) verdict: Verdict,
}

const fn row(
    phases: &'static [Phase],
    codes: RangeInclusive<u16>,
    enhanced: Enhanced,
    words: &'static [&'static str],
    verdict: (Scope, Permanence, Cause),
) -> Row {
    Row { phases, codes, enhanced, words, verdict: Verdict::new(verdict.0, verdict.1, verdict.2) }
}

pub(super) const ALL: &[Phase] = &[
    Phase::Connect,
    Phase::Tls,
    Phase::Greeting,
    Phase::Ehlo,
    Phase::Auth,
    Phase::Reset,
    Phase::Mail,
    Phase::Rcpt,
    Phase::Data,
    Phase::Body,
    Phase::Dot,
];
pub(super) const SETUP: &[Phase] =
    &[Phase::Connect, Phase::Tls, Phase::Greeting, Phase::Ehlo, Phase::Reset];
pub(super) const TRANSACTION: &[Phase] =
    &[Phase::Mail, Phase::Rcpt, Phase::Data, Phase::Body, Phase::Dot];
/// Phases whose reply is about the message as a whole.
const WHOLE: &[Phase] = &[Phase::Mail, Phase::Data, Phase::Body, Phase::Dot];
const RCPT: &[Phase] = &[Phase::Rcpt];
pub(super) const AUTH: &[Phase] = &[Phase::Auth];

/// Sentences by which providers say that the account has sent, or connected, too much; several
/// of them stand behind a 5xx that would otherwise fail a recipient.
const THROTTLES: &[&str] = &[
    // Exchange Online and Outlook.com
    "concurrent connections limit",
    "sender thread limit exceeded",
    "submissionquotaexceeded",
    "suggested backoff time",
    "tenant has exceeded threshold",
    "daily limit for message recipients",
    // Gmail and Workspace
    "too many login",
    "relay limit exceeded",
    "user sending limit",
    "user sending quota",
    // iCloud, Yahoo, Fastmail, Zoho
    "sending limit",
    "sending quota",
    "too many bad auth",
    "unusual sending activity",
    // SES, SendGrid
    "throttling failure",
    "maximum sending rate",
    "message quota exceeded",
    "credits exceeded",
    "recipients received this hour",
    "too frequent connects",
    // everyone
    "too many connections",
    "too many concurrent",
];

/// Sentences by which providers say that nothing of this account is sent until somebody has
/// talked to them.
const BLOCKED: &[&str] = &["bad outbound sender", "outboundspamexception", "sending paused"];

/// Sentences by which servers without a code for it ask for a login.
const LOG_IN: &[&str] = &[
    "authentication required",
    "authentication is required",
    "unauthenticated senders not allowed",
    "invalid credentials for relay",
    "not authorized to perform",
    // Exchange Online, when a token runs out in mid-session.
    "accesstokenexpired",
];

pub(super) static TABLE: &[Row] = &[
    // ----- the account, whatever the phase -----
    row(ALL, 400..=599, Enhanced::Any, THROTTLES, (Account, Temporary, Throttled)),
    row(TRANSACTION, 500..=599, Enhanced::Any, BLOCKED, (Account, Permanent, Server)),
    // Gmail's daily limit is a 550.
    row(TRANSACTION, 550..=559, Enhanced::In(&["4.5"]), &[], (Account, Temporary, Throttled)),
    // Exchange Online: the daily numbers of recipients, of the user and of the tenant.
    row(
        TRANSACTION,
        500..=599,
        Enhanced::In(&["1.90", "7.232", "7.233", "7.705"]),
        &[],
        (Account, Temporary, Throttled),
    ),
    // Exchange Online: the account, or the address it comes from, is banned.
    row(
        TRANSACTION,
        500..=599,
        Enhanced::In(&["7.501", "7.502", "7.503", "7.708", "7.750"]),
        &[],
        (Account, Permanent, Server),
    ),
    row(TRANSACTION, 400..=499, Enhanced::In(&["7.500"]), &[], (Account, Temporary, Throttled)),
    // Exchange Online, outside RCPT: the sender's own quota or full mailbox, never a recipient's;
    // by the same code it says that this message is from somebody else.
    row(WHOLE, 554..=554, Enhanced::Any, &["sendasdenied"], (Message, Permanent, Plain)),
    row(WHOLE, 554..=554, Enhanced::In(&["2.0", "2.2"]), &[], (Account, Temporary, Throttled)),
    // ----- 421: the server closes (RFC 5321 section 3.8) -----
    row(AUTH, 421..=421, Enhanced::Any, &[], (Account, Temporary, Throttled)),
    row(ALL, 421..=421, Enhanced::In(&["7.0"]), &[], (Account, Temporary, Throttled)),
    row(ALL, 421..=421, Enhanced::Any, &[], (Network, Temporary, Plain)),
    // ----- the login -----
    // RFC 4954 section 4.7.4.
    row(AUTH, 432..=432, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    row(AUTH, 400..=499, Enhanced::Any, &[], (Account, Temporary, Throttled)),
    row(AUTH, 503..=503, Enhanced::Any, &[], (Network, Temporary, Server)),
    row(AUTH, 500..=504, Enhanced::Any, &[], (Account, Permanent, Server)),
    row(AUTH, 530..=530, Enhanced::Any, &[], (Account, Permanent, Tls)),
    row(AUTH, 538..=538, Enhanced::Any, &[], (Account, Permanent, Tls)),
    row(AUTH, 500..=599, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    // The login has run out, or the server never asked for it before.
    row(TRANSACTION, 454..=454, Enhanced::In(&["7.0"]), &[], (Account, Temporary, Throttled)),
    row(TRANSACTION, 530..=530, Enhanced::Any, &["starttls"], (Account, Permanent, Tls)),
    row(TRANSACTION, 530..=530, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    row(TRANSACTION, 534..=535, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    row(TRANSACTION, 538..=538, Enhanced::Any, &[], (Account, Permanent, Tls)),
    row(TRANSACTION, 500..=599, Enhanced::Any, LOG_IN, (Account, Permanent, LoginRefused)),
    // ----- before any transaction -----
    row(SETUP, 400..=499, Enhanced::Any, &[], (Network, Temporary, Plain)),
    row(SETUP, 500..=599, Enhanced::Any, &[], (Account, Permanent, Server)),
    // ----- out of step: that says nothing about the message -----
    row(TRANSACTION, 500..=500, Enhanced::Any, &[], (Network, Temporary, Server)),
    row(TRANSACTION, 502..=503, Enhanced::Any, &[], (Network, Temporary, Server)),
    // ----- RFC 5321 section 4.5.3.1.10: into another transaction -----
    row(RCPT, 400..=599, Enhanced::In(&["5.3"]), &[], (Recipient, Temporary, TooManyRecipients)),
    row(
        RCPT,
        400..=499,
        Enhanced::Any,
        &["per transaction", "separate transaction"],
        (Recipient, Temporary, TooManyRecipients),
    ),
    row(RCPT, 452..=452, Enhanced::None, &[], (Recipient, Temporary, TooManyRecipients)),
    // A full mailbox has its own words; a bare 552 means the number of recipients.
    row(
        RCPT,
        552..=552,
        Enhanced::None,
        &["mailbox", "quota", "storage", "size"],
        (Recipient, Permanent, Plain),
    ),
    row(RCPT, 552..=552, Enhanced::None, &[], (Recipient, Temporary, TooManyRecipients)),
    row(WHOLE, 400..=599, Enhanced::In(&["5.3"]), &[], (Message, Temporary, TooManyRecipients)),
    // ----- said for good, and known to pass: believed the second time -----
    row(RCPT, 500..=599, Enhanced::In(&["5.0", "0.0"]), &[], (Recipient, Permanent, Doubtful)),
    row(RCPT, 555..=555, Enhanced::Any, &[], (Recipient, Permanent, Doubtful)),
    row(WHOLE, 500..=599, Enhanced::In(&["5.0", "0.0"]), &[], (Message, Permanent, Doubtful)),
    row(WHOLE, 555..=555, Enhanced::Any, &[], (Message, Permanent, Doubtful)),
    // ----- everything else is what its class says -----
    row(RCPT, 400..=499, Enhanced::Any, &[], (Recipient, Temporary, Plain)),
    row(RCPT, 500..=599, Enhanced::Any, &[], (Recipient, Permanent, Plain)),
    row(WHOLE, 400..=499, Enhanced::Any, &[], (Message, Temporary, Plain)),
    row(WHOLE, 500..=599, Enhanced::Any, &[], (Message, Permanent, Plain)),
];

/// What a reply that is no success means in this phase; a code that cannot stand there is the
/// fault of the connection.
///
/// Where code and enhanced code disagree about whether it passes, it does: what is wrongly tried
/// again costs a connection, what is wrongly given up costs a message.
pub(crate) fn classify(phase: Phase, reply: &Reply) -> Verdict {
    let verdict =
        row_of(phase, reply).map_or(Verdict::new(Network, Temporary, Server), |row| row.verdict);
    match (verdict.cause, reply.enhanced.starts_with("4.")) {
        (Plain | Doubtful, true) => Verdict { permanence: Temporary, cause: Plain, ..verdict },
        (Server, true) => Verdict { permanence: Temporary, ..verdict },
        _ => verdict,
    }
}

/// The row that decides.
pub(super) fn row_of(phase: Phase, reply: &Reply) -> Option<&'static Row> {
    let text = reply.text.to_ascii_lowercase();
    let detail = reply.enhanced.split_once('.').map(|(_, detail)| detail);
    TABLE.iter().find(|row| {
        row.phases.contains(&phase)
            && row.codes.contains(&reply.code)
            && match row.enhanced {
                Enhanced::Any => true,
                Enhanced::None => detail.is_none(),
                Enhanced::In(list) => detail.is_some_and(|detail| list.contains(&detail)),
            }
            && (row.words.is_empty() || row.words.iter().any(|words| text.contains(words)))
    })
}

/// Whether these words of a server mean that it wants less of us.
pub(super) fn says_throttled(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    THROTTLES.iter().any(|words| text.contains(words))
}
