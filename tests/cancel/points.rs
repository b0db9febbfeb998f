//! The points of a message's way over the wire at which the server can be made to stand still.

use std::sync::Arc;

use postoffice::{Action, Fault, SmtpPhase};

use crate::foreign_message::{Holds, HostMessage};

/// What becomes of a message that is cancelled at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server never gets it.
    Cancelled,
    /// The final dot is out: the outcome stands.
    Stands,
}

/// Where the server stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The connection is accepted, nothing was said.
    Connected,
    /// The client has said hello to TLS.
    Handshake,
    /// Within TLS, before the greeting.
    Greeting,
    /// EHLO is unanswered.
    Hello,
    /// AUTH is unanswered, the password not yet looked at.
    Login,
    /// AUTH is accepted and the client does not know: MAIL comes next.
    BeforeMail,
    /// MAIL, RCPT and DATA came in one piece and are unanswered.
    Envelope,
    /// MAIL is accepted and the client does not know: RCPT comes next.
    AfterMail,
    /// The first recipient is accepted, the second is unanswered.
    BetweenRecipients,
    /// All recipients are accepted and the client does not know: DATA comes next.
    BeforeData,
    /// DATA is unanswered.
    Data,
    /// The client may send the text and does not know.
    BeforeText,
    /// Some of the text was read, no more of it is.
    AmidText,
    /// The final dot has come and is unanswered.
    FinalDot,
    /// The message is accepted and the client does not know.
    Accepted,
}

/// Those to whom the messages go.
pub(crate) const TO: [&str; 3] = ["bob@example.org", "eve@example.org", "dan@example.org"];

/// More than the buffers on the way to a server can hold.
pub(crate) const LARGE: usize = 20_000_000;

impl Point {
    /// In the order of the dialogue.
    pub(crate) const ALL: [Point; 15] = [
        Point::Connected,
        Point::Handshake,
        Point::Greeting,
        Point::Hello,
        Point::Login,
        Point::BeforeMail,
        Point::Envelope,
        Point::AfterMail,
        Point::BetweenRecipients,
        Point::BeforeData,
        Point::Data,
        Point::BeforeText,
        Point::AmidText,
        Point::FinalDot,
        Point::Accepted,
    ];

    /// The server stands still here, once.
    pub(crate) fn fault(self) -> Fault {
        let hang = |phase| Fault::smtp(phase, Action::Hang);
        let fault = match self {
            Point::Connected => hang(SmtpPhase::Connect),
            Point::Handshake => hang(SmtpPhase::TlsHandshake),
            Point::Greeting => hang(SmtpPhase::Greeting),
            Point::Hello => hang(SmtpPhase::Ehlo),
            Point::Login => hang(SmtpPhase::Auth),
            Point::BeforeMail => hang(SmtpPhase::Auth).after_effect(),
            Point::Envelope => hang(SmtpPhase::Mail),
            Point::AfterMail => hang(SmtpPhase::Mail).after_effect(),
            Point::BetweenRecipients => hang(SmtpPhase::Rcpt).nth(2),
            Point::BeforeData => hang(SmtpPhase::Rcpt).nth(3).after_effect(),
            Point::Data => hang(SmtpPhase::Data),
            Point::BeforeText => hang(SmtpPhase::Data).after_effect(),
            Point::AmidText => hang(SmtpPhase::Body).at_byte(100_000),
            Point::FinalDot => hang(SmtpPhase::FinalDot),
            Point::Accepted => hang(SmtpPhase::FinalDot).after_effect(),
        };
        fault.once()
    }

    /// Whether the commands of the envelope come in one piece.
    pub(crate) fn is_pipelined(self) -> bool {
        match self {
            Point::AfterMail
            | Point::BetweenRecipients
            | Point::BeforeData
            | Point::Data
            | Point::BeforeText => false,
            Point::Connected
            | Point::Handshake
            | Point::Greeting
            | Point::Hello
            | Point::Login
            | Point::BeforeMail
            | Point::Envelope
            | Point::AmidText
            | Point::FinalDot
            | Point::Accepted => true,
        }
    }

    pub(crate) fn fate(self) -> Fate {
        match self {
            Point::FinalDot | Point::Accepted => Fate::Stands,
            _ => Fate::Cancelled,
        }
    }

    /// How many messages the server has a part of after a cancel.
    pub(crate) fn broken_off(self) -> u64 {
        u64::from(self == Point::AmidText)
    }

    /// The text of the message that is brought there.
    pub(crate) fn text(self) -> Vec<u8> {
        match self {
            Point::AmidText => text(LARGE),
            _ => text(100),
        }
    }

    /// The message as a host has it.
    pub(crate) fn message(self, number: u8) -> Arc<HostMessage> {
        HostMessage::raw_held(number, &TO, self.text(), Holds::default())
    }
}

/// RFC 5322 bytes, at least so many.
pub(crate) fn text(size: usize) -> Vec<u8> {
    let head = "From: ann@example.org\r\nTo: bob@example.org\r\nSubject: cancel\r\n\r\n";
    let line = b"All work and no play makes Jack a dull boy.\r\n";
    [head.as_bytes(), &line.repeat(size / line.len() + 1)].concat()
}
