//! What a server's word means: one table from a reply, and one from a fault of the wire, to whose
//! trouble it is and whether it passes.
//!
//! Only trouble of a message or of a recipient may end in a report of failure; trouble of the
//! account or of the network lets the message wait (product promise 2).

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::spool::Reply;
use crate::transport::events::TroubleKind;

/// Where in the dialogue something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Name lookup and TCP.
    Connect,
    /// STARTTLS and the TLS handshake.
    Tls,
    /// RFC 5321 section 3.1.
    Greeting,
    /// RFC 5321 section 4.1.1.1.
    Ehlo,
    /// RFC 4954.
    Auth,
    /// RFC 5321 section 4.1.1.5.
    Reset,
    /// RFC 5321 section 4.1.1.2.
    Mail,
    /// RFC 5321 section 4.1.1.3.
    Rcpt,
    /// The DATA command until its 354.
    Data,
    /// The lines of the message.
    Body,
    /// The final dot and its reply.
    Dot,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "connecting",
            Phase::Tls => "the TLS handshake",
            Phase::Greeting => "the greeting",
            Phase::Ehlo => "EHLO",
            Phase::Auth => "the login",
            Phase::Reset => "RSET",
            Phase::Mail => "MAIL",
            Phase::Rcpt => "RCPT",
            Phase::Data => "DATA",
            Phase::Body => "the message text",
            Phase::Dot => "the end of the message",
        })
    }
}

/// What went wrong with a connection where no reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The name has no address, or the machine cannot be reached.
    Unreachable,
    /// A deadline passed.
    TimedOut,
    /// The connection broke or was closed.
    Closed,
    /// TLS could not be agreed on.
    Tls,
    /// The server showed the wrong certificate, or no TLS where it was asked for.
    Certificate,
    /// The server lacks what the profile asks for, such as a login, or does not serve us.
    NotServed,
    /// What came is not SMTP, or too much of it.
    Garbage,
    /// The password could not be had.
    Secret,
    /// The delivery itself broke down on our side.
    Internal,
}

/// Whose trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// One recipient's.
    Recipient,
    /// One message's.
    Message,
    /// Everything's that goes through this account.
    Account,
    /// Everything's that goes to this server.
    Network,
}

/// Whether waiting helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Permanence {
    /// The same thing may work later.
    Temporary,
    /// Somebody has to change something.
    Permanent,
}

/// The finer reason, where it changes what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// Nothing special.
    Plain,
    /// The server wants less of us.
    Throttled,
    /// The server does not take the login.
    LoginRefused,
    /// RFC 5321 section 4.5.3.1.10: the recipient belongs into another transaction.
    TooManyRecipients,
    /// Said permanent, but known to pass: tried once more before it is believed.
    Doubtful,
    /// Who the server is cannot be proved, or it cannot be reached under TLS.
    Tls,
    /// The password could not be had from its source.
    Secret,
    /// The server lacks what the profile asks for, or does not serve us.
    Server,
    /// What we have stored is not what it was.
    Damaged,
}

/// What a word of the server means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Verdict {
    /// Whose trouble.
    pub(crate) scope: Scope,
    /// Whether it passes.
    pub(crate) permanence: Permanence,
    /// The finer reason.
    pub(crate) cause: Cause,
}

impl Verdict {
    const fn new(scope: Scope, permanence: Permanence, cause: Cause) -> Self {
        Verdict { scope, permanence, cause }
    }

    /// Whether it may end a recipient for good.
    pub(crate) fn fails_recipients(self) -> bool {
        self.permanence == Permanence::Permanent && self.scope <= Scope::Message
    }

    /// Whether it concerns more than the message at hand.
    pub(crate) fn is_lane_trouble(self) -> bool {
        self.scope >= Scope::Account
    }
}

use Cause::{
    Damaged, Doubtful, LoginRefused, Plain, Secret, Server, Throttled, Tls, TooManyRecipients,
};
use Permanence::{Permanent, Temporary};
use Scope::{Account, Message, Network, Recipient};

/// Which enhanced codes a row is for, by subject and detail; the class must agree with the code.
enum Enhanced {
    Any,
    /// The reply has none.
    None,
    /// One of these, such as `5.3`.
    In(&'static [&'static str]),
}

/// One row of the table; the first that fits decides.
struct Row {
    phases: &'static [Phase],
    codes: RangeInclusive<u16>,
    enhanced: Enhanced,
    /// Any of these, in lower case; empty fits every text.
    words: &'static [&'static str],
    verdict: Verdict,
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

const ALL: &[Phase] = &[
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
const SETUP: &[Phase] = &[Phase::Connect, Phase::Tls, Phase::Greeting, Phase::Ehlo, Phase::Reset];
const TRANSACTION: &[Phase] = &[Phase::Mail, Phase::Rcpt, Phase::Data, Phase::Body, Phase::Dot];
/// Phases whose reply is about the message as a whole.
const WHOLE: &[Phase] = &[Phase::Mail, Phase::Data, Phase::Body, Phase::Dot];
const RCPT: &[Phase] = &[Phase::Rcpt];
const AUTH: &[Phase] = &[Phase::Auth];

/// Sentences by which providers say that the account has sent, or connected, too much; several
/// of them stand behind a 5xx that would otherwise fail a recipient.
const THROTTLES: &[&str] = &[
    "concurrent connections limit",
    "sender thread limit exceeded",
    "submissionquotaexceeded",
    "sending limit",
    "sending quota",
    "too many connections",
    "too many concurrent",
    "too many login",
    "suggested backoff time",
];

static TABLE: &[Row] = &[
    row(ALL, 400..=599, Enhanced::Any, THROTTLES, (Account, Temporary, Throttled)),
    // Gmail's daily limit is a 550.
    row(TRANSACTION, 550..=559, Enhanced::In(&["4.5"]), &[], (Account, Temporary, Throttled)),
    // Exchange Online: the sender's own quota or full mailbox, never a recipient's, outside RCPT.
    row(WHOLE, 554..=554, Enhanced::In(&["2.0", "2.2"]), &[], (Account, Temporary, Throttled)),
    row(AUTH, 421..=421, Enhanced::Any, &[], (Account, Temporary, Throttled)),
    row(ALL, 421..=421, Enhanced::In(&["7.0"]), &[], (Account, Temporary, Throttled)),
    row(ALL, 421..=421, Enhanced::Any, &[], (Network, Temporary, Plain)),
    row(AUTH, 400..=499, Enhanced::Any, &[], (Account, Temporary, Throttled)),
    row(AUTH, 500..=599, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    row(TRANSACTION, 454..=454, Enhanced::In(&["7.0"]), &[], (Account, Temporary, Throttled)),
    row(TRANSACTION, 530..=530, Enhanced::Any, &["starttls"], (Account, Permanent, Tls)),
    row(TRANSACTION, 530..=530, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    row(TRANSACTION, 534..=535, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    row(TRANSACTION, 538..=538, Enhanced::Any, &[], (Account, Permanent, LoginRefused)),
    row(SETUP, 400..=499, Enhanced::Any, &[], (Network, Temporary, Plain)),
    row(SETUP, 500..=599, Enhanced::Any, &[], (Account, Permanent, Server)),
    // Out of step: that says nothing about the message.
    row(TRANSACTION, 503..=503, Enhanced::Any, &[], (Network, Temporary, Plain)),
    row(RCPT, 400..=599, Enhanced::In(&["5.3"]), &[], (Recipient, Temporary, TooManyRecipients)),
    row(RCPT, 452..=452, Enhanced::None, &[], (Recipient, Temporary, TooManyRecipients)),
    // A full mailbox has its own words; a bare 552 means the number of recipients.
    row(RCPT, 552..=552, Enhanced::None, &["mailbox", "quota"], (Recipient, Permanent, Plain)),
    row(RCPT, 552..=552, Enhanced::None, &[], (Recipient, Temporary, TooManyRecipients)),
    row(RCPT, 500..=599, Enhanced::In(&["5.0", "0.0"]), &[], (Recipient, Permanent, Doubtful)),
    row(RCPT, 400..=499, Enhanced::Any, &[], (Recipient, Temporary, Plain)),
    row(RCPT, 500..=599, Enhanced::Any, &[], (Recipient, Permanent, Plain)),
    row(WHOLE, 500..=599, Enhanced::In(&["5.0", "0.0"]), &[], (Message, Permanent, Doubtful)),
    row(WHOLE, 400..=499, Enhanced::Any, &[], (Message, Temporary, Plain)),
    row(WHOLE, 500..=599, Enhanced::Any, &[], (Message, Permanent, Plain)),
];

/// What a reply that is no success means in this phase; a code that cannot stand there is the
/// fault of the connection.
pub(crate) fn classify(phase: Phase, reply: &Reply) -> Verdict {
    let text = reply.text.to_ascii_lowercase();
    let detail = reply.enhanced.split_once('.').map(|(_, detail)| detail);
    TABLE
        .iter()
        .find(|row| {
            row.phases.contains(&phase)
                && row.codes.contains(&reply.code)
                && match row.enhanced {
                    Enhanced::Any => true,
                    Enhanced::None => detail.is_none(),
                    Enhanced::In(list) => detail.is_some_and(|detail| list.contains(&detail)),
                }
                && (row.words.is_empty() || row.words.iter().any(|words| text.contains(words)))
        })
        .map_or(Verdict::new(Network, Temporary, Server), |row| row.verdict)
}

fn says_throttled(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    THROTTLES.iter().any(|words| text.contains(words))
}

/// What a fault without a reply means.
pub(crate) fn classify_fault(fault: Fault) -> Verdict {
    match fault {
        Fault::Unreachable | Fault::TimedOut | Fault::Closed => {
            Verdict::new(Network, Temporary, Plain)
        }
        Fault::Garbage => Verdict::new(Network, Temporary, Server),
        Fault::Tls => Verdict::new(Network, Temporary, Tls),
        Fault::Certificate => Verdict::new(Account, Permanent, Tls),
        Fault::NotServed => Verdict::new(Account, Permanent, Server),
        Fault::Secret => Verdict::new(Account, Temporary, Secret),
        Fault::Internal => Verdict::new(Message, Temporary, Plain),
    }
}

/// Something that went wrong, with its verdict and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Where.
    pub(crate) phase: Phase,
    /// What it means.
    pub(crate) verdict: Verdict,
    /// The server's words, or ours with code 0.
    pub(crate) reply: Reply,
}

impl Failure {
    /// The server refused.
    pub(crate) fn refused(phase: Phase, reply: Reply) -> Self {
        Failure { phase, verdict: classify(phase, &reply), reply }
    }

    /// No reply came.
    pub(crate) fn fault(phase: Phase, fault: Fault, host: &str, why: &str) -> Self {
        let text = match fault {
            Fault::TimedOut => format!("{host} did not answer in time during {phase}"),
            Fault::Internal => format!("the attempt broke down during {phase}: {why}"),
            _ => format!("{host} failed during {phase}: {why}"),
        };
        let enhanced = match fault {
            Fault::Unreachable | Fault::TimedOut => "4.4.1",
            Fault::Closed | Fault::Garbage => "4.4.2",
            Fault::Tls | Fault::Certificate | Fault::NotServed | Fault::Secret => "4.7.0",
            Fault::Internal => "4.3.0",
        };
        let reply = own_reply(enhanced, &text);
        Failure { phase, verdict: classify_fault(fault), reply }
    }

    /// Something about the message that no server needs to be asked for.
    pub(crate) fn unsendable(enhanced: &str, why: &str) -> Self {
        Failure {
            phase: Phase::Mail,
            verdict: Verdict::new(Message, Permanent, Plain),
            reply: own_reply(enhanced, why),
        }
    }

    /// The message cannot be sent because what is stored of it is damaged. That is no fault of its
    /// recipients: it is set aside, not failed.
    pub(crate) fn damaged(why: &str) -> Self {
        Failure {
            phase: Phase::Mail,
            verdict: Verdict::new(Message, Permanent, Damaged),
            reply: own_reply("5.3.0", &format!("the stored message is damaged: {why}")),
        }
    }

    /// A failure of getting connected, in words that name the server already.
    pub(crate) fn unconnected(phase: Phase, fault: Fault, words: &str) -> Self {
        let mut failure = Failure::fault(phase, fault, "", "");
        failure.reply.text = words.to_owned();
        if says_throttled(words) {
            failure.verdict = Verdict::new(Account, Temporary, Throttled);
        }
        failure
    }

    /// Whether it happened inside a transaction, and not on the way to one.
    pub(crate) fn is_transaction(&self) -> bool {
        TRANSACTION.contains(&self.phase)
    }

    /// What kind of trouble of the account it is.
    pub(crate) fn trouble_kind(&self) -> TroubleKind {
        match (self.verdict.cause, self.verdict.scope) {
            (Throttled, _) => TroubleKind::Throttled,
            (LoginRefused, _) => TroubleKind::LoginRefused,
            (Secret, _) => TroubleKind::Credentials,
            (Tls, _) => TroubleKind::Tls,
            (Plain, Network) => TroubleKind::Network,
            (Plain | Server | Doubtful | TooManyRecipients | Damaged, _) => TroubleKind::Server,
        }
    }

    /// What to show to people.
    pub(crate) fn words(&self) -> String {
        if self.reply.host.is_empty() {
            self.reply.text.clone()
        } else {
            format!("{} answered {} to {}", self.reply.host, self.reply, self.phase)
        }
    }

    /// How long the server asked to be left alone, where it says so.
    pub(crate) fn suggested_pause(&self) -> Option<Duration> {
        let text = self.reply.text.to_ascii_lowercase();
        let (_, rest) = text.split_once("suggested backoff time:")?;
        let millis: u64 = rest.split_whitespace().next()?.parse().ok()?;
        // A day is the longest lockout known.
        Some(Duration::from_millis(millis).min(Duration::from_secs(24 * 60 * 60)))
    }
}

/// A reply in our own words.
pub(crate) fn own_reply(enhanced: &str, text: &str) -> Reply {
    Reply { code: 0, enhanced: enhanced.to_owned(), text: text.to_owned(), host: String::new() }
}

#[cfg(test)]
#[path = "reply/tests.rs"]
mod tests;
