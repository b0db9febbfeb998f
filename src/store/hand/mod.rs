//! Handing what comes in to a program or to an LMTP server instead of a Maildir.
//!
//! A Maildir has a name by which a repeated message is found; these have none. So what was handed
//! over is noted by an empty file under that name in a folder of ours, right behind the answer:
//! only a crash between the answer and that note hands a message over again, and then the receiver
//! is told that it may be a repetition, under the same id. Before it is first handed over, the
//! transport has noted on disk that it is about to be.

mod check;
mod lmtp;
mod mda;
mod place;

pub(crate) use check::{HandCheck, check as check_hand};
pub use place::LmtpAddress;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::maildir::{Draft, FileState, Look, Maildir, Place, Token};
use super::on;
use crate::clock::Clock;
use crate::mapi::{MapiCode, MapiError, MapiResult, SysTime};

/// To whom received mail and reports are handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A program that reads one message from its standard input (a mail delivery agent).
    Program {
        /// The program and its arguments; no shell is involved unless it is one.
        words: Vec<String>,
        /// Environment variables it must not see.
        hidden: Vec<String>,
    },
    /// A server that speaks LMTP (RFC 2033).
    Lmtp(LmtpAddress),
}

/// How received mail is handed over.
#[derive(Clone, Debug)]
pub struct HandOptions {
    /// To whom.
    pub receiver: Receiver,
    /// Whose mail it is: `RCPT` of LMTP, `RECIPIENT` of a program.
    pub recipient: String,
    /// How long one message may take; then a program is killed and a connection given up.
    pub timeout: Duration,
    /// Most messages at the same time.
    pub at_once: usize,
}

/// How long it is remembered what was handed over. Only what a crash or a failed message leaves
/// behind in the window of its mailbox is ever asked for.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Messages whose failures are remembered, for telling whose fault they are.
const MOST_FAILED: usize = 1000;

/// See the module.
pub(super) struct Hand {
    options: HandOptions,
    /// Texts on their way, in `tmp`; what was handed over, as empty files.
    staging: Arc<Maildir>,
    runtime: Handle,
    clock: Arc<dyn Clock>,
    /// How we name ourselves.
    host: String,
    places: Arc<Semaphore>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    /// How many were handed over.
    successes: u64,
    /// Those that failed, and how many had been handed over by then.
    failed: HashMap<Token, u64>,
    /// Handed over, and the note of it failed.
    unnoted: HashSet<Token>,
}

/// What is handed over beside the text.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// Return path; empty when it is not known or null.
    pub(super) sender: String,
    /// The mailbox it comes from.
    pub(super) mailbox: String,
    /// What makes it the same message.
    pub(super) token: Token,
    /// Whether it may have been handed over before.
    pub(super) look: Look,
}

/// Why a message was not handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// Nobody's mail is taken now.
    Unavailable(String),
    /// This message was not taken; another time it may be.
    Temporary(String),
    /// This message will not be taken.
    Permanent(String),
}

/// What a receiver is told about a message.
struct Facts<'a> {
    sender: &'a str,
    recipient: &'a str,
    mailbox: &'a str,
    /// The same for the same message.
    id: String,
    repeated: bool,
    /// How we name ourselves.
    host: &'a str,
}

impl Hand {
    /// A hand over `staging`, a folder of ours.
    pub(super) fn new(
        options: HandOptions,
        staging: Arc<Maildir>,
        host: &str,
        clock: Arc<dyn Clock>,
        runtime: Handle,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(options.at_once.max(1)));
        let record = Mutex::default();
        let host = host.to_owned();
        Arc::new(Hand { options, staging, runtime, clock, host, places, record })
    }

    /// Hands over what `draft` holds. When it returns `Ok`, the receiver has it and that is noted
    /// durably. Goes on when the caller leaves.
    ///
    /// # Errors
    /// `MAPI_E_BUSY` while nothing is taken; `MAPI_E_CALL_FAILED` when it is this message that is
    /// not taken. `MAPI_E_DISK_ERROR` and its like when it was handed over and cannot be noted.
    pub(super) async fn deliver(self: &Arc<Self>, draft: Draft, letter: Letter) -> MapiResult<()> {
        let hand = Arc::clone(self);
        let task = self.runtime.spawn(async move { hand.hand_over(draft, &letter).await });
        task.await.unwrap_or_else(|error| {
            let words = format!("a message was not handed over: {error}");
            Err(MapiError::new(MapiCode::CALL_FAILED, words))
        })
    }

    async fn hand_over(&self, draft: Draft, letter: &Letter) -> MapiResult<()> {
        let Ok(_place) = self.places.acquire().await else {
            return Err(MapiCode::END_OF_SESSION.into());
        };
        if self.was_handed_over(letter).await? {
            draft.discard();
            return Ok(());
        }
        let facts = Facts {
            sender: &letter.sender,
            recipient: &self.options.recipient,
            mailbox: &letter.mailbox,
            id: letter.token.id(),
            repeated: letter.look == Look::Everywhere,
            host: &self.host,
        };
        let text = draft.reopen()?;
        let timeout = self.options.timeout;
        let handed = match &self.options.receiver {
            Receiver::Program { words, hidden } => {
                mda::run(words, hidden, text, &facts, timeout).await
            }
            Receiver::Lmtp(address) => lmtp::deliver(address, text, &facts, timeout).await,
        };
        // It is not needed any more, whatever came of it; nor is its beginning, which would stay.
        draft.discard();
        match handed {
            Ok(()) => {
                self.succeeded(letter.token);
                self.note(letter.token).await
            }
            Err(failure) => Err(self.judge(letter.token, failure)),
        }
    }

    /// Whether it is known to have been handed over. One whose note failed is noted first.
    async fn was_handed_over(&self, letter: &Letter) -> MapiResult<bool> {
        if self.record().unnoted.contains(&letter.token) {
            self.note(letter.token).await?;
            return Ok(true);
        }
        if letter.look == Look::Here {
            return Ok(false);
        }
        let (staging, token) = (Arc::clone(&self.staging), letter.token);
        Ok(on(&self.runtime, move || staging.holds(token)).await??)
    }

    /// Notes durably that a message was handed over.
    async fn note(&self, token: Token) -> MapiResult<()> {
        let (staging, time) = (Arc::clone(&self.staging), self.clock.now());
        let noted = on(&self.runtime, move || {
            let place = Place {
                mailbox: "INBOX".to_owned(),
                token,
                time,
                state: FileState::Seen,
                look: Look::Here,
            };
            staging.deliver(staging.draft()?, &place)
        });
        let noted = match noted.await {
            Ok(noted) => noted.map_err(MapiError::from),
            Err(error) => Err(error),
        };
        let mut record = self.record();
        match &noted {
            Ok(()) => record.unnoted.remove(&token),
            Err(_) => record.unnoted.insert(token),
        };
        noted
    }

    fn succeeded(&self, token: Token) {
        let mut record = self.record();
        record.successes += 1;
        record.failed.remove(&token);
    }

    /// Whose fault it is: a message that fails again after others went through is to blame itself,
    /// and is set aside in the end; else nothing is taken, and all of it waits.
    fn judge(&self, token: Token, failure: Failure) -> MapiError {
        let (code, words) = match failure {
            Failure::Unavailable(words) => (MapiCode::BUSY, words),
            Failure::Permanent(words) => (MapiCode::CALL_FAILED, words),
            Failure::Temporary(words) => {
                let mut record = self.record();
                let successes = record.successes;
                if record.failed.len() >= MOST_FAILED {
                    record.failed.clear();
                }
                match record.failed.insert(token, successes) {
                    Some(before) if before < successes => (MapiCode::CALL_FAILED, words),
                    _ => (MapiCode::BUSY, words),
                }
            }
        };
        MapiError::new(code, words)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes notes nobody will ask for any more from the folder of ours. Those that cannot be removed
/// do no harm.
pub(super) fn forget(staging: &Path, now: SysTime) {
    let before = now.as_secs().saturating_sub(REMEMBERED.as_secs());
    let Ok(notes) = std::fs::read_dir(staging.join("cur")) else { return };
    for note in notes.flatten() {
        let name = note.file_name();
        let seconds = name.to_str().and_then(|name| name.split('.').next()?.parse::<u64>().ok());
        if seconds.is_some_and(|seconds| seconds < before) {
            let _stays = std::fs::remove_file(note.path());
        }
    }
}

/// The address of a `Return-Path` at the head of a message: who its envelope named as the sender.
/// Empty when there is none, or none that a receiver can be told.
pub(super) fn return_path(header: &[u8]) -> String {
    let lines = header.split(|byte| *byte == b'\n');
    let value = lines.take_while(|line| !line.is_empty() && *line != b"\r").find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (name, value) = line.split_once(':')?;
        name.trim_end().eq_ignore_ascii_case("Return-Path").then_some(value.trim())
    });
    let address = value.unwrap_or_default();
    let address = address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let address = address.unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>');
    match address.len() <= 254 && address.contains('@') && address.bytes().all(fits) {
        true => address.to_owned(),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests;
