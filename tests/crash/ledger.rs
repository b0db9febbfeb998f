//! What was promised: every message that was handed over, with the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Which fate a message has at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everybody takes it, sooner or later.
    Welcome,
    /// One of its recipients is refused for good.
    RefusedInPart,
    /// The server refuses it for good once it has seen it.
    Refused,
    /// The server takes it, but the reply is lost now and then.
    Doubtful,
}

/// What the sender was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing yet, or the command was killed or cut off before it said anything.
    Open,
    /// Accepted, under this entry id.
    Accepted(String),
    /// Not accepted, and safe to try again.
    Declined,
}

/// What came of asking to cancel a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cancel {
    Never,
    /// Asked for, and nobody knows.
    Open,
    Granted,
    Denied(String),
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) recipients: Vec<String>,
    /// A piece of the body that has to arrive as it is.
    pub(crate) body: String,
    /// Not to be sent in the first second.
    pub(crate) later: bool,
    pub(crate) answer: Answer,
    pub(crate) cancel: Cancel,
}

impl Letter {
    pub(crate) fn entry(&self) -> Option<&str> {
        match &self.answer {
            Answer::Accepted(entry) => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn subject(&self) -> String {
        format!("crash {}", self.id)
    }
}

/// What was asked for beside sending, and what was seen on the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) holds: u64,
    pub(crate) releases: u64,
    pub(crate) retries: u64,
    pub(crate) killed_commands: u64,
    /// Codes of commands that failed, and how often.
    pub(crate) exits: BTreeMap<i32, u64>,
    /// Entry ids that were once shown as in doubt.
    pub(crate) in_doubt: BTreeSet<String>,
    /// The longest time between a command and its answer.
    pub(crate) slowest: Duration,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Ledger {
    letters: Mutex<BTreeMap<String, Letter>>,
    tally: Mutex<Tally>,
}

impl Ledger {
    pub(crate) fn letters(&self) -> MutexGuard<'_, BTreeMap<String, Letter>> {
        self.letters.lock().unwrap()
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap()
    }

    pub(crate) fn write(&self, letter: Letter) {
        self.letters().insert(letter.id.clone(), letter);
    }

    pub(crate) fn answer(&self, id: &str, answer: Answer) {
        self.letters().get_mut(id).unwrap().answer = answer;
    }

    pub(crate) fn cancel(&self, id: &str, cancel: Cancel) {
        self.letters().get_mut(id).unwrap().cancel = cancel;
    }

    /// One of the last accepted messages that nobody has asked to cancel.
    pub(crate) fn pick(&self, dice: &mut fastrand::Rng) -> Option<(String, String)> {
        let letters = self.letters();
        let mut open: Vec<(&str, &Letter)> = letters
            .values()
            .filter(|letter| letter.cancel == Cancel::Never)
            .filter_map(|letter| Some((letter.entry()?, letter)))
            .collect();
        // Entry ids rise with time.
        open.sort_by(|one, other| other.0.cmp(one.0));
        let (entry, letter) = dice.choice(open.iter().take(5))?;
        Some((letter.id.clone(), (*entry).to_owned()))
    }
}
