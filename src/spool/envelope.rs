//! The RFC 5321 envelope of a queued message, and what became of each of its recipients.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mapi::{Recipient, SysTime, tags};

/// RFC 5321 envelope with the outcome of each recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Reverse-path; empty for the null sender.
    pub from: String,
    /// Forward-paths.
    pub recipients: Vec<QueueRecipient>,
    /// Whether the body has octets above 127 (RFC 6152).
    pub body: BodyKind,
    /// Whether an address or a header needs SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RFC 3461 ENVID; empty for none.
    pub envid: String,
    /// RFC 3461 RET; `None` leaves it out.
    pub ret: Option<DsnReturn>,
}

/// Which octets a body has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyKind {
    /// Only octets up to 127.
    #[default]
    SevenBit,
    /// Octets above 127.
    EightBit,
}

/// How much of the message a report returns (RFC 3461 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DsnReturn {
    /// The whole message.
    Full,
    /// Its headers.
    Headers,
}

/// One recipient of a queued message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// Number of its row in the message's recipient table.
    pub row: u32,
    /// Forward-path without angle brackets.
    pub address: String,
    /// Where it stands.
    pub state: RecipientState,
    /// Which reports were asked for (RFC 3461 NOTIFY); `None` leaves the choice to the server.
    pub notify: Option<DsnNotify>,
    /// RFC 3461 ORCPT without its type, where the client gave one; `None` takes the address.
    pub original: Option<String>,
}

/// RFC 3461 NOTIFY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DsnNotify {
    /// Report success.
    pub success: bool,
    /// Report failure.
    pub failure: bool,
    /// Report delay.
    pub delay: bool,
    /// Who reports a success.
    pub by: Reporter,
}

/// Who reports to the sender that a message was delivered (RFC 3461 section 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reporter {
    /// We do: no server has taken the request.
    #[default]
    Ourselves,
    /// The server that took the message offers DSN and was told NOTIFY with it.
    Server,
}

/// Where one recipient stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// Not tried, or not reached in the last attempt.
    Pending,
    /// The server took responsibility.
    Delivered {
        /// When.
        at: SysTime,
        /// Its reply to the final dot.
        reply: Reply,
    },
    /// Refused for now; tried again.
    Deferred {
        /// Why.
        reply: Reply,
    },
    /// Refused for good, or given up.
    Failed {
        /// When.
        at: SysTime,
        /// Why.
        reply: Reply,
        /// Which attempt failed it; failures of one attempt share a report (OB-12).
        attempt: u32,
    },
}

impl RecipientState {
    /// Where a recipient stands by its row in the message, for those that no transport of ours
    /// keeps a record of. `now` stands for a time that was not noted.
    pub fn by_row(row: &Recipient, now: SysTime) -> Self {
        if !row.responsibility {
            return RecipientState::Pending;
        }
        match row.failure() {
            None => RecipientState::Delivered { at: now, reply: Reply::default() },
            Some((enhanced, text)) => RecipientState::Failed {
                at: row.props.time(tags::REPORT_TIME).unwrap_or(now),
                reply: Reply {
                    enhanced: enhanced.to_owned(),
                    text: text.to_owned(),
                    ..Reply::default()
                },
                attempt: 0,
            },
        }
    }

    /// Whether nothing more will happen to the recipient (OB-4).
    pub fn is_conclusive(&self) -> bool {
        matches!(self, RecipientState::Delivered { .. } | RecipientState::Failed { .. })
    }
}

/// A server's reply, or our own words in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Reply code; 0 where no server spoke.
    pub code: u16,
    /// RFC 3463 enhanced code such as `5.1.1`; empty for none.
    pub enhanced: String,
    /// The text, lines joined by a space, bounded.
    pub text: String,
    /// Who said it; empty for ourselves.
    pub host: String,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::with_capacity(3);
        if self.code != 0 {
            words.push(self.code.to_string());
        }
        words.extend([&self.enhanced, &self.text].into_iter().filter(|w| !w.is_empty()).cloned());
        f.write_str(&words.join(" "))
    }
}
