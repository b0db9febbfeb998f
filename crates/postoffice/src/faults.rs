//! Faults: what can go wrong on purpose, where, and how often.
//!
//! A [`Fault`] names a protocol's phase and an action. Rules are tried in the order in which they were added;
//! the first that applies is carried out. [`crate::PostOffice::inject`] adds one and returns a [`FaultHandle`].
//!
//! ```
//! use postoffice::{Action, Fault, ImapAction, ImapPhase, SmtpAction, SmtpPhase};
//! // The second RCPT of all, once: try again later.
//! let busy = Fault::smtp(SmtpPhase::Rcpt, SmtpAction::reply(450, "4.2.1", "busy")).nth(2).once();
//! // The message is accepted, but nobody hears of it.
//! let lost = Fault::smtp(SmtpPhase::FinalDot, Action::Drop).after_effect();
//! // FETCH of bodies is answered OK with nothing in it.
//! let empty = Fault::imap(ImapPhase::Fetch, ImapAction::FetchNothing).matching("BODY");
//! # let _ = (busy, lost, empty);
//! ```

mod board;
pub mod named;

use std::time::Duration;

pub use board::FaultHandle;
pub(crate) use board::{Board, Hit};
pub(crate) use named::{NamedFault, named_fault};

use crate::config::Protocol;
use crate::smtp::Reply;

/// Where in an SMTP session a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SmtpPhase {
    /// The connection is accepted, nothing has been said (within implicit TLS: before the handshake).
    Connect,
    /// Instead of, or before, the 220 greeting.
    Greeting,
    /// EHLO and HELO.
    Ehlo,
    /// The reply to STARTTLS, still in clear.
    StartTls,
    /// Before the server's first handshake octet.
    TlsHandshake,
    /// AUTH, before the exchange; with [`Fault::after_effect`] its final reply.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// The reply to DATA; with CHUNKING the BDAT command.
    Data,
    /// Amid the message data, once [`Fault::at_byte`] octets have come (default 1).
    Body,
    /// The reply to the message: after the final dot or BDAT LAST.
    FinalDot,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
    /// NOOP, VRFY, HELP and commands not known.
    Other,
}

/// Where in an IMAP session a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImapPhase {
    /// The connection is accepted, nothing has been said (within implicit TLS: before the handshake).
    Connect,
    /// Instead of, or before, the greeting.
    Greeting,
    /// CAPABILITY.
    Capability,
    /// The reply to STARTTLS, still in clear.
    StartTls,
    /// Before the server's first handshake octet.
    TlsHandshake,
    /// LOGIN and AUTHENTICATE.
    Login,
    /// SELECT and EXAMINE.
    Select,
    /// Amid the answer to SELECT and EXAMINE: the mailbox was told of, and what has come since was not.
    MidSelect,
    /// LIST and LSUB.
    List,
    /// STATUS.
    Status,
    /// SEARCH and UID SEARCH.
    Search,
    /// FETCH and UID FETCH.
    Fetch,
    /// One message of a FETCH: [`Fault::matching`] is compared with `UID n`, whatever set the client named.
    /// [`ImapAction::FetchNothing`] leaves the message out, as if it had vanished; [`ImapAction::FetchNil`] its
    /// bodies; a NO or BAD ends the FETCH there.
    Message,
    /// Amid a literal of a FETCH response, once [`Fault::at_byte`] octets of it are out (default: half).
    /// [`Fault::matching`] is compared with `UID n BODY[...]`.
    MidLiteral,
    /// STORE and UID STORE.
    Store,
    /// COPY and UID COPY.
    Copy,
    /// MOVE and UID MOVE.
    Move,
    /// APPEND.
    Append,
    /// EXPUNGE and UID EXPUNGE.
    Expunge,
    /// IDLE; with [`Fault::after_effect`] once the continuation is out and the session idles.
    Idle,
    /// The DONE that ends IDLE.
    Done,
    /// NOOP and CHECK.
    Noop,
    /// CLOSE and UNSELECT.
    Close,
    /// LOGOUT.
    Logout,
    /// All other commands.
    Other,
}

/// Faults both protocols know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say nothing until [`FaultHandle::release`] (or the peer goes away), then go on as if nothing had been.
    Hang,
    /// Wait, then go on.
    Delay(Duration),
    /// Close the connection (FIN), without a reply and without close_notify.
    Drop,
    /// Close the connection with RST.
    Reset,
    /// Close our direction only, read on until the peer closes.
    HalfClose,
    /// Send these bytes in place of the reply; the command has no effect.
    Replace(Vec<u8>),
    /// Send these bytes before the reply, which follows.
    Inject(Vec<u8>),
    /// Send these bytes right behind the reply, in the same write: injected plaintext when the phase is STARTTLS.
    Append(Vec<u8>),
    /// Send this line (CRLF is added) so many times, then the reply.
    Flood {
        /// The line, for instance `250-more`.
        line: Vec<u8>,
        /// How many times.
        times: u64,
    },
    /// Send so many octets without a line end, then CRLF and the reply.
    EndlessLine {
        /// How many octets.
        bytes: u64,
    },
    /// Send the reply one octet per write.
    Dribble {
        /// Pause between two octets; zero sends them as fast as the socket takes them.
        pause: Duration,
    },
}

/// What can be done to an SMTP client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmtpAction {
    /// A fault both protocols know.
    Common(Action),
    /// Reply so, without effect. A reply of 421 closes the connection (RFC 5321 section 3.8).
    Reply(Reply),
    /// Reply so, without effect, and close the connection.
    ReplyAndClose(Reply),
}

impl SmtpAction {
    /// [`SmtpAction::Reply`] of one line; `enhanced` may be empty.
    pub fn reply(code: u16, enhanced: &str, text: &str) -> Self {
        Self::Reply(Reply::new(code, enhanced, text))
    }
}

impl From<Action> for SmtpAction {
    fn from(action: Action) -> Self {
        Self::Common(action)
    }
}

impl From<Reply> for SmtpAction {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// What can be done to an IMAP client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImapAction {
    /// A fault both protocols know.
    Common(Action),
    /// Tagged NO with this text (which may begin with a response code), without effect.
    No(String),
    /// Tagged BAD with this text, without effect.
    Bad(String),
    /// Untagged BYE with this text, then the connection closes.
    Bye(String),
    /// As greeting: PREAUTH, logged in as this user.
    Preauth(String),
    /// FETCH: tagged OK, no FETCH response at all.
    FetchNothing,
    /// FETCH: every body is NIL.
    FetchNil,
    /// Tagged OK and nothing else, without effect.
    OkOnly,
    /// FETCH: every response names this UID, whatever message it is about.
    FetchUid(u32),
    /// FETCH: every literal is announced so many octets longer (or shorter) than it is.
    LiteralLength(i64),
    /// FETCH: RFC822.SIZE is told so many octets larger (or smaller) than it is.
    SizeOff(i64),
    /// So many `* n EXISTS` with the true count, then the reply.
    ExistsFlood(u32),
    /// The command is carried out, its final response carries a tag nobody used.
    WrongTag,
}

impl From<Action> for ImapAction {
    fn from(action: Action) -> Self {
        Self::Common(action)
    }
}

/// Whether a fault strikes before or after a command has had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Moment {
    /// Before: a message is not accepted, a flag not stored.
    #[default]
    Before,
    /// After: the effect is there, its reply is what suffers.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Smtp(SmtpPhase),
    Imap(ImapPhase),
}

impl Phase {
    pub(crate) fn connect(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Smtp => Self::Smtp(SmtpPhase::Connect),
            Protocol::Imap => Self::Imap(ImapPhase::Connect),
        }
    }

    pub(crate) fn handshake(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Smtp => Self::Smtp(SmtpPhase::TlsHandshake),
            Protocol::Imap => Self::Imap(ImapPhase::TlsHandshake),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Smtp(SmtpAction),
    Imap(ImapAction),
}

/// A rule: at this phase, under these conditions, do this.
///
/// Without further conditions it applies every time until it is removed.
#[derive(Debug, Clone)]
pub struct Fault {
    phase: Phase,
    moment: Moment,
    nth: u32,
    times: Option<u32>,
    matching: Option<String>,
    at_byte: Option<u64>,
    deed: Deed,
}

impl Fault {
    /// A fault of the SMTP server.
    pub fn smtp(phase: SmtpPhase, action: impl Into<SmtpAction>) -> Self {
        Self::new(Phase::Smtp(phase), Deed::Smtp(action.into()))
    }

    /// A fault of the IMAP server.
    pub fn imap(phase: ImapPhase, action: impl Into<ImapAction>) -> Self {
        Self::new(Phase::Imap(phase), Deed::Imap(action.into()))
    }

    fn new(phase: Phase, deed: Deed) -> Self {
        Self {
            phase,
            moment: Moment::Before,
            nth: 1,
            times: None,
            matching: None,
            at_byte: None,
            deed,
        }
    }

    /// Strike after the command has had its effect: what suffers is the reply.
    #[must_use]
    pub fn after_effect(mut self) -> Self {
        self.moment = Moment::After;
        self
    }

    /// Begin with the n-th time the phase is reached, counted from 1 since the rule was added.
    #[must_use]
    pub fn nth(mut self, nth: u32) -> Self {
        self.nth = nth.max(1);
        self
    }

    /// Strike so many times, then never again.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Strike one time only.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Only commands whose line contains this text, letter case ignored: a recipient, a mailbox, `BODY.PEEK`.
    /// Digits stand for whole numbers: `UID 7` does not mean UID 71.
    /// At [`SmtpPhase::FinalDot`] and [`SmtpPhase::Body`] the text is looked for in the envelope
    /// (`sender recipient recipient ...`).
    #[must_use]
    pub fn matching(mut self, text: impl Into<String>) -> Self {
        self.matching = Some(text.into().to_ascii_lowercase());
        self
    }

    /// How many octets of the body or literal pass before the fault strikes.
    #[must_use]
    pub fn at_byte(mut self, octets: u64) -> Self {
        self.at_byte = Some(octets);
        self
    }

    fn concerns(&self, phase: Phase, moment: Moment, subject: &str) -> bool {
        self.phase == phase
            && self.moment == moment
            && self
                .matching
                .as_ref()
                .is_none_or(|text| mentions(&subject.to_ascii_lowercase(), text))
    }

    /// Whether the fault strikes the `seen`-th time its phase is reached, having struck `struck` times.
    fn strikes(&self, seen: u32, struck: u32) -> bool {
        seen >= self.nth && self.times.is_none_or(|times| struck < times)
    }
}

/// Whether the text occurs; numbers at its ends have to be whole.
fn mentions(subject: &str, text: &str) -> bool {
    let digit = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_digit());
    let (first, last) = (digit(text.chars().next()), digit(text.chars().next_back()));
    subject.match_indices(text).any(|(at, _)| {
        let before = subject.get(..at).and_then(|before| before.chars().next_back());
        let after = subject.get(at + text.len()..).and_then(|after| after.chars().next());
        let cut = (first && digit(before)) || (last && digit(after));
        !cut
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_mentioned_as_a_whole() {
        for (subject, text, expected) in [
            ("uid 7 body[]", "uid 7", true),
            ("uid 71 body[]", "uid 7", false),
            ("uid 71, uid 7", "uid 7", true),
            ("rcpt to:<ann@x>", "nn@", true),
            ("17", "7", false),
            ("anything", "", true),
        ] {
            assert_eq!(mentions(subject, text), expected, "{subject} {text}");
        }
    }

    #[test]
    fn a_fault_concerns_its_phase_moment_and_subject() {
        let fault = Fault::smtp(SmtpPhase::Rcpt, Action::Drop).matching("Ann@");
        let phase = Phase::Smtp(SmtpPhase::Rcpt);
        assert!(fault.concerns(phase, Moment::Before, "RCPT TO:<ann@example.org>"));
        assert!(!fault.concerns(phase, Moment::Before, "RCPT TO:<bob@example.org>"));
        assert!(!fault.concerns(phase, Moment::After, "RCPT TO:<ann@example.org>"));
        let mail = Phase::Smtp(SmtpPhase::Mail);
        assert!(!fault.concerns(mail, Moment::Before, "MAIL FROM:<ann@example.org>"));
    }

    #[test]
    fn nth_and_times_bound_the_strikes() {
        let fault = Fault::imap(ImapPhase::Fetch, Action::Hang).nth(2).times(2);
        let mut struck = 0;
        let pattern: Vec<bool> = (1..=5)
            .map(|seen| {
                let strikes = fault.strikes(seen, struck);
                struck += u32::from(strikes);
                strikes
            })
            .collect();
        assert_eq!(pattern, [false, true, true, false, false]);
    }
}
