//! What a server's word means: one table (`table`) from a reply, and one from a fault of the wire,
//! to whose trouble it is and whether it passes.
//!
//! Only trouble of a message or of a recipient may end in a report of failure; trouble of the
//! account or of the network lets the message wait (product promise 2).

mod table;

use std::fmt;
use std::time::Duration;

use crate::spool::Reply;
use crate::transport::events::TroubleKind;
use Cause::{
    Damaged, Doubtful, LoginRefused, Plain, Secret, Server, SignIn, Throttled, Tls,
    TooManyRecipients,
};
use Permanence::{Permanent, Temporary};
use Scope::{Account, Message, Network};
pub(crate) use table::classify;
use table::{TRANSACTION, says_throttled};

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
    /// A person has to sign in first.
    SignIn,
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
    /// A person has to sign in first.
    SignIn,
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
        Fault::SignIn => Verdict::new(Account, Permanent, SignIn),
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
            Fault::Tls | Fault::Certificate | Fault::NotServed | Fault::Secret | Fault::SignIn => {
                "4.7.0"
            }
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
            (SignIn, _) => TroubleKind::NeedsSignIn,
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
